//! POSIX shared memory: the one place with `unsafe` in this program.
//!
//! A segment is shared with the model process. The two sides take turns: this program writes features before it sends a
//! classify request, and the model reads them until it answers. The model writes free-form outputs before it answers, and
//! this program reads them afterwards. A model that violates this only causes wrong numbers: every bit pattern is a valid
//! `f32`, and segments contain nothing else.
//!
//! The size of a segment is checked and its memory is reserved before it is mapped. Without the reservation, the first
//! access to a page ends the process with SIGBUS when `/dev/shm` is full: many containers have 64 MiB there, or less. A model
//! that shrinks its segment afterwards would have the same effect; no model does.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;

use memmap2::{MmapMut, MmapOptions, MmapRaw};
use rustix::fs::{FallocateFlags, Mode, fallocate, fstat};
use rustix::io::Errno;
use rustix::shm::{self, OFlags};

use super::protocol::MAX_FEATURES;

const FLOAT: u64 = size_of::<f32>() as u64;

/// Why a segment cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ShmError {
    /// Not a valid name.
    #[error("{0:?} is not a name like /shm-1a2b3c")]
    Name(String),
    /// Too small, or not a valid size.
    #[error("{name} has {actual} bytes, {needed} are needed")]
    Size {
        /// The segment.
        name: String,
        /// Its size in bytes.
        actual: u64,
        /// The necessary size in bytes.
        needed: u64,
    },
    /// `/dev/shm` is full.
    #[error("/dev/shm has no room for {bytes} bytes; make it larger (docker run --shm-size)")]
    NoRoom {
        /// The size of the segment.
        bytes: u64,
    },
    /// Of the operating system.
    #[error("{name} cannot be {what}: {source}")]
    Os {
        /// The segment.
        name: String,
        /// `opened`, `mapped`, ...
        what: &'static str,
        /// The cause.
        source: io::Error,
    },
}

/// The segment of a model for features.
#[derive(Debug)]
pub struct FeatureSegment {
    map: MmapMut,
    elements: usize,
}

impl FeatureSegment {
    /// Opens and maps a segment of a model.
    ///
    /// # Errors
    /// An invalid name, a segment smaller than `elements` values, or an error of the operating system.
    pub fn open(name: &str, elements: u64) -> Result<Self, ShmError> {
        let (file, bytes) = open_reserved(name, elements)?;
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

    /// The values. Do not write them between a request and its answer: the model reads them then.
    pub fn values(&mut self) -> &mut [f32] {
        // SAFETY: the mapping is page aligned, holds `elements` values (checked when it was made), lives as long as
        // `self`, every bit pattern is a valid f32, and `&mut self` makes this the only view in this process.
        unsafe { std::slice::from_raw_parts_mut(self.map.as_mut_ptr().cast::<f32>(), self.elements) }
    }
}

/// The segment of a model for free-form outputs, read only.
#[derive(Debug)]
pub struct OutputSegment {
    map: MmapRaw,
    elements: usize,
}

impl OutputSegment {
    /// Opens and maps a segment of a model.
    ///
    /// # Errors
    /// As [`FeatureSegment::open`].
    pub fn open(name: &str, elements: u64) -> Result<Self, ShmError> {
        let (file, bytes) = open_reserved(name, elements)?;
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

/// A segment that a built-in model creates. Dropping it removes its name.
#[derive(Debug)]
pub struct OwnedSegment {
    /// The name, for the client.
    pub name: String,
    /// The mapped segment.
    pub features: FeatureSegment,
    named: bool,
}

impl OwnedSegment {
    /// Creates a segment of zeros with a random name, and reserves its memory.
    ///
    /// # Errors
    /// [`ShmError::NoRoom`], or an error of the operating system.
    pub fn new(elements: usize) -> Result<Self, ShmError> {
        let name = format!("/shm-{:012x}", rand::random::<u64>() >> 16);
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR;
        let file = shm::open(&name, flags, Mode::RUSR | Mode::WUSR).map_err(|e| os(&name, "created", e.into()))?;
        let bytes = elements.saturating_mul(size_of::<f32>());
        match reserve(&name, &file, bytes as u64).and_then(|()| FeatureSegment::map(&name, &file, bytes)) {
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

    /// Removes the name; both sides can still use the memory. Call it as soon as the client has opened the segment: then
    /// even a killed process leaves nothing behind.
    pub fn unlink(&mut self) {
        if std::mem::take(&mut self.named) {
            remove(&self.name);
        }
    }
}

impl Drop for OwnedSegment {
    fn drop(&mut self) {
        self.unlink();
    }
}

/// Removes the segment of a model that has ended, if the name is valid and the segment belongs to this user. Returns
/// whether it was removed.
pub fn remove(name: &str) -> bool {
    if !is_valid(name) {
        return false;
    }
    let Ok(file) = shm::open(name, OFlags::RDONLY, Mode::empty()) else {
        return false;
    };
    let is_own = fstat(&file).is_ok_and(|stat| stat.st_uid == rustix::process::geteuid().as_raw());
    is_own && shm::unlink(name).is_ok()
}

/// Whether the name is `/shm-` and one short path component.
pub fn is_valid(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    name.strip_prefix("/shm-")
        .is_some_and(|rest| (1..=128).contains(&rest.len()) && rest.bytes().all(is_plain))
}

/// Opens a segment of a model, checks its size and reserves its memory. That needs write access, even for a segment that is
/// only read: reading a page that does not exist yet allocates it.
fn open_reserved(name: &str, elements: u64) -> Result<(OwnedFd, usize), ShmError> {
    if !is_valid(name) {
        return Err(ShmError::Name(name.chars().take(80).collect()));
    }
    let file = shm::open(name, OFlags::RDWR, Mode::empty()).map_err(|error| os(name, "opened", error.into()))?;
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
    reserve(name, &file, needed)?;
    // At most MAX_FEATURES * 4 = 256 MiB: fits a `usize` everywhere.
    Ok((file, needed as usize))
}

/// Allocates the first `bytes` of a segment and makes it at least that large. What it contains stays.
fn reserve(name: &str, file: &OwnedFd, bytes: u64) -> Result<(), ShmError> {
    loop {
        match fallocate(file, FallocateFlags::empty(), 0, bytes) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(Errno::NOSPC) => return Err(ShmError::NoRoom { bytes }),
            Err(error) => return Err(os(name, "reserved", error.into())),
        }
    }
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
    fn both_sides_see_the_same_values_and_the_owner_removes_the_name() {
        let mut created = OwnedSegment::new(3).unwrap();
        let mut opened = FeatureSegment::open(&created.name, 3).unwrap();
        opened.values().copy_from_slice(&[1.0, -2.5, 16_777_215.0]);
        assert_eq!(created.features.values(), [1.0, -2.5, 16_777_215.0]);
        assert_eq!(OutputSegment::open(&created.name, 2).unwrap().copy(), [1.0, -2.5]);
        let name = created.name.clone();
        drop(created);
        assert!(matches!(FeatureSegment::open(&name, 3), Err(ShmError::Os { .. })));
    }

    #[test]
    fn a_segment_that_is_too_small_is_refused_before_it_is_mapped() {
        let created = OwnedSegment::new(3).unwrap();
        let error = FeatureSegment::open(&created.name, 4).unwrap_err();
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
        assert!(FeatureSegment::open(&created.name, u64::MAX).is_err());
        assert!(OutputSegment::open(&created.name, 0).is_err());
    }

    #[test]
    fn names_of_other_files_are_refused() {
        for name in ["", "shm-1", "/shm-", "/shm-../x", "/shm-a/b", "/other", "/shm-a\0b"] {
            assert!(!is_valid(name), "{name:?}");
            assert!(matches!(FeatureSegment::open(name, 1), Err(ShmError::Name(_))));
            assert!(!remove(name));
        }
        assert!(is_valid("/shm-e80f1cbee8c2"));
    }
}
