//! POSIX shared memory: the one place with `unsafe` in this program.
//!
//! A segment is shared with the model process. The protocol takes turns: features are written before a classify
//! request is sent and read by the model until its answer comes; free-form outputs are written by the model before it
//! answers and read after. A model that does not keep to that can only make the numbers wrong: every bit pattern is a
//! valid `f32`, and nothing else is ever read from a segment.
//!
//! The size of a segment is checked before it is mapped. A model that made its segment smaller afterwards would end
//! both processes with SIGBUS; no model does.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;

use memmap2::{MmapMut, MmapOptions, MmapRaw};
use rustix::fs::{Mode, fstat, ftruncate};
use rustix::shm::{self, OFlags};

use super::hello::MAX_FEATURES;

const FLOAT: u64 = size_of::<f32>() as u64;

/// A segment that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ShmError {
    /// Not the name of a segment of a model.
    #[error("{0:?} is not a name like /shm-1a2b3c")]
    Name(String),
    /// The numbers do not go together.
    #[error("{name} has {actual} bytes, {needed} are needed")]
    Size {
        /// The segment.
        name: String,
        /// Bytes it has.
        actual: u64,
        /// Bytes it should have.
        needed: u64,
    },
    /// The operating system refused.
    #[error("{name} cannot be {what}: {source}")]
    Os {
        /// The segment.
        name: String,
        /// opened, mapped, ...
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// Memory that the features are written to.
#[derive(Debug)]
pub struct Features {
    map: MmapMut,
    elements: usize,
}

impl Features {
    /// Opens and maps what a model offers.
    ///
    /// # Errors
    /// A strange name, a segment smaller than `elements` values, or what the operating system says.
    pub fn open(name: &str, elements: u64) -> Result<Self, ShmError> {
        let (file, bytes) = open_checked(name, elements, OFlags::RDWR)?;
        Self::map(name, &file, bytes)
    }

    fn map(name: &str, file: &OwnedFd, bytes: usize) -> Result<Self, ShmError> {
        // SAFETY: `map_mut` is unsafe because another process can change or shrink the memory. Changes are harmless
        // for `f32` and the protocol takes turns; the size was checked just now. See the top of this file.
        let map =
            unsafe { MmapOptions::new().len(bytes).map_mut(file) }.map_err(|source| os(name, "mapped", source))?;
        Ok(Self {
            map,
            elements: bytes / size_of::<f32>(),
        })
    }

    /// The values. Only between answers: the model reads them while it works.
    pub fn values(&mut self) -> &mut [f32] {
        // SAFETY: the mapping is page aligned, holds `elements` values (checked when it was made), lives as long as
        // `self`, every bit pattern is a valid f32, and `&mut self` makes this the only view in this process.
        unsafe { std::slice::from_raw_parts_mut(self.map.as_mut_ptr().cast::<f32>(), self.elements) }
    }
}

/// Memory that a model puts free-form values into, read only.
#[derive(Debug)]
pub struct Output {
    map: MmapRaw,
    elements: usize,
}

impl Output {
    /// Opens and maps what a model offers.
    ///
    /// # Errors
    /// As [`Features::open`].
    pub fn open(name: &str, elements: u64) -> Result<Self, ShmError> {
        let (file, bytes) = open_checked(name, elements, OFlags::RDONLY)?;
        let map = MmapOptions::new()
            .len(bytes)
            .map_raw_read_only(&file)
            .map_err(|source| os(name, "mapped", source))?;
        Ok(Self {
            map,
            elements: bytes / size_of::<f32>(),
        })
    }

    /// A copy of the values as they are now.
    pub fn copy(&self) -> Vec<f32> {
        let from = self.map.as_ptr().cast::<f32>();
        // SAFETY: the mapping is page aligned and holds `elements` values (checked when it was made), every bit
        // pattern is a valid f32, and a volatile read makes no assumption on who else writes.
        (0..self.elements)
            .map(|index| unsafe { from.add(index).read_volatile() })
            .collect()
    }
}

/// A segment of our own: what the built-in models offer. Its name is removed with it.
#[derive(Debug)]
pub struct Created {
    /// The name for the other side.
    pub name: String,
    /// The memory.
    pub features: Features,
    named: bool,
}

impl Created {
    /// Makes a segment of zeros with a random name.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn new(elements: usize) -> Result<Self, ShmError> {
        let name = format!("/shm-{:012x}", rand::random::<u64>() >> 16);
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR;
        let file = shm::open(&name, flags, Mode::RUSR | Mode::WUSR).map_err(|e| os(&name, "created", e.into()))?;
        let bytes = elements.saturating_mul(size_of::<f32>());
        let features = match ftruncate(&file, bytes as u64) {
            Ok(()) => Features::map(&name, &file, bytes),
            Err(error) => Err(os(&name, "made large enough", error.into())),
        };
        match features {
            Ok(features) => Ok(Self {
                name,
                features,
                named: true,
            }),
            Err(error) => {
                remove(&name);
                Err(error)
            }
        }
    }

    /// Removes the name; the memory stays usable for both sides. Done when the other side has surely opened it: then
    /// no end of the process, however sudden, leaves anything behind.
    pub fn unlink(&mut self) {
        if std::mem::take(&mut self.named) {
            remove(&self.name);
        }
    }
}

impl Drop for Created {
    fn drop(&mut self) {
        self.unlink();
    }
}

/// Removes the segment of a model that has ended: only a well-formed name, only when it belongs to this user.
/// Returns whether something was removed.
pub fn remove(name: &str) -> bool {
    if !is_valid(name) {
        return false;
    }
    let Ok(file) = shm::open(name, OFlags::RDONLY, Mode::empty()) else {
        return false;
    };
    let ours = fstat(&file).is_ok_and(|stat| stat.st_uid == rustix::process::geteuid().as_raw());
    ours && shm::unlink(name).is_ok()
}

/// `/shm-` and one short path component.
pub fn is_valid(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    name.strip_prefix("/shm-")
        .is_some_and(|rest| (1..=128).contains(&rest.len()) && rest.bytes().all(plain))
}

fn open_checked(name: &str, elements: u64, flags: OFlags) -> Result<(OwnedFd, usize), ShmError> {
    if !is_valid(name) {
        return Err(ShmError::Name(name.chars().take(80).collect()));
    }
    let file = shm::open(name, flags, Mode::empty()).map_err(|error| os(name, "opened", error.into()))?;
    let stat = fstat(&file).map_err(|error| os(name, "examined", error.into()))?;
    let actual = u64::try_from(stat.st_size).unwrap_or(0);
    let needed = elements.saturating_mul(FLOAT);
    if elements == 0 || elements > MAX_FEATURES || actual < needed {
        return Err(ShmError::Size {
            name: name.to_owned(),
            actual,
            needed,
        });
    }
    // At most MAX_FEATURES * 4 = 256 MiB: fits a `usize` everywhere.
    Ok((file, needed as usize))
}

fn os(name: &str, what: &'static str, source: io::Error) -> ShmError {
    ShmError::Os {
        name: name.to_owned(),
        what,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_see_the_same_values_and_the_name_goes_with_its_owner() {
        let mut created = Created::new(3).unwrap();
        let mut opened = Features::open(&created.name, 3).unwrap();
        opened.values().copy_from_slice(&[1.0, -2.5, 16_777_215.0]);
        assert_eq!(created.features.values(), [1.0, -2.5, 16_777_215.0]);
        assert_eq!(Output::open(&created.name, 2).unwrap().copy(), [1.0, -2.5]);
        let name = created.name.clone();
        drop(created);
        assert!(matches!(Features::open(&name, 3), Err(ShmError::Os { .. })));
    }

    #[test]
    fn a_segment_smaller_than_promised_is_refused_before_it_is_mapped() {
        let created = Created::new(3).unwrap();
        let error = Features::open(&created.name, 4).unwrap_err();
        assert!(
            matches!(
                error,
                ShmError::Size {
                    actual: 12,
                    needed: 16,
                    ..
                }
            ),
            "{error}"
        );
        assert!(Features::open(&created.name, u64::MAX).is_err());
        assert!(Output::open(&created.name, 0).is_err());
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in ["", "shm-1", "/shm-", "/shm-../x", "/shm-a/b", "/other", "/shm-a\0b"] {
            assert!(!is_valid(name), "{name:?}");
            assert!(matches!(Features::open(name, 1), Err(ShmError::Name(_))));
            assert!(!remove(name));
        }
        assert!(is_valid("/shm-e80f1cbee8c2"));
    }
}
