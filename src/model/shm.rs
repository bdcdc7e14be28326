//! POSIX shared memory, read and written as a file.
//!
//! A segment is shared with the model process. The two sides take turns: this program writes features before it sends a
//! classify request, and the model reads them until it answers. The model writes free-form outputs before it answers,
//! and this program reads them afterwards. A model that violates this only causes wrong numbers: every bit pattern is a
//! valid `f32`, and segments contain nothing else.
//!
//! The model maps its segments; this program does not. Access to a mapped page behind the end of its file, or one for
//! which `/dev/shm` has no room, ends a process with SIGBUS. `pwrite` and `pread` return an error instead.
//!
//! The memory of a segment is reserved when it is opened: the model reads what it has mapped, and would get that SIGBUS
//! when `/dev/shm` is full. Many containers have 64 MiB there, or less.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, Mode, fallocate, fstat};
use rustix::io::{Errno, retry_on_intr};
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
        /// `opened`, `written`, ...
        what: &'static str,
        /// The cause.
        source: io::Error,
    },
}

/// A segment of `f32` values.
#[derive(Debug)]
pub struct Segment {
    name: String,
    file: File,
    elements: usize,
}

impl Segment {
    /// Opens a segment of a model, checks its size and reserves its memory. That needs write access, even for a segment
    /// that is only read.
    ///
    /// # Errors
    /// An invalid name, a segment smaller than `elements` values, no room in `/dev/shm`, or an error of the operating
    /// system.
    pub fn open(name: &str, elements: u64) -> Result<Self, ShmError> {
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
        let segment = Self {
            name: name.to_owned(),
            file: file.into(),
            // At most MAX_FEATURES: fits a `usize` everywhere.
            elements: elements as usize,
        };
        segment.reserve()?;
        Ok(segment)
    }

    /// How many values it holds.
    pub fn elements(&self) -> usize {
        self.elements
    }

    /// Writes values from the start. Do not call it between a request and its answer: the model reads them then. The
    /// segment grows again if the model has shortened it.
    ///
    /// # Errors
    /// `/dev/shm` has no room, or an error of the operating system.
    pub fn write(&self, values: &[f32]) -> Result<(), ShmError> {
        let bytes = bytemuck::cast_slice(values);
        match self.file.write_all_at(bytes, 0) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::StorageFull => Err(ShmError::NoRoom {
                bytes: bytes.len() as u64,
            }),
            Err(error) => Err(os(&self.name, "written", error)),
        }
    }

    /// Reads values from the start.
    ///
    /// # Errors
    /// The segment has become shorter, or an error of the operating system.
    pub fn read(&self, values: &mut [f32]) -> Result<(), ShmError> {
        self.file
            .read_exact_at(bytemuck::cast_slice_mut(values), 0)
            .map_err(|error| os(&self.name, "read", error))
    }

    /// A copy of all values as they are now.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn copy(&self) -> Result<Vec<f32>, ShmError> {
        let mut values = vec![0.0; self.elements];
        self.read(&mut values)?;
        Ok(values)
    }

    /// Allocates the memory and makes the file at least that large. What it contains stays.
    fn reserve(&self) -> Result<(), ShmError> {
        let bytes = self.elements as u64 * FLOAT;
        match retry_on_intr(|| fallocate(&self.file, FallocateFlags::empty(), 0, bytes)) {
            Ok(()) => Ok(()),
            Err(Errno::NOSPC) => Err(ShmError::NoRoom { bytes }),
            Err(error) => Err(os(&self.name, "reserved", error.into())),
        }
    }
}

/// A segment that a built-in model creates. Dropping it removes its name.
#[derive(Debug)]
pub struct OwnedSegment {
    /// The segment.
    pub segment: Segment,
    is_named: bool,
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
        let owned = Self {
            segment: Segment {
                name,
                file: file.into(),
                elements,
            },
            is_named: true,
        };
        owned.segment.reserve()?;
        Ok(owned)
    }

    /// The name, for the client.
    pub fn name(&self) -> &str {
        &self.segment.name
    }

    /// Removes the name; both sides can still use the memory. Call it as soon as the client has opened the segment:
    /// then even a killed process leaves nothing behind.
    pub fn unlink(&mut self) {
        if std::mem::take(&mut self.is_named) {
            remove(&self.segment.name);
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
        let created = OwnedSegment::new(3).unwrap();
        let opened = Segment::open(created.name(), 3).unwrap();
        opened.write(&[1.0, -2.5, 16_777_215.0]).unwrap();
        assert_eq!(created.segment.copy().unwrap(), [1.0, -2.5, 16_777_215.0]);
        assert_eq!(Segment::open(created.name(), 2).unwrap().copy().unwrap(), [1.0, -2.5]);
        let name = created.name().to_owned();
        drop(created);
        assert!(matches!(Segment::open(&name, 3), Err(ShmError::Os { .. })));
    }

    #[test]
    fn a_segment_that_is_too_small_is_refused() {
        let created = OwnedSegment::new(3).unwrap();
        let error = Segment::open(created.name(), 4).unwrap_err();
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
        assert!(Segment::open(created.name(), u64::MAX).is_err());
        assert!(Segment::open(created.name(), 0).is_err());
    }

    #[test]
    fn a_segment_that_was_truncated_grows_with_the_next_features_and_cannot_be_read_before() {
        let created = OwnedSegment::new(4096).unwrap();
        let opened = Segment::open(created.name(), 4096).unwrap();
        for length in [0, 4, 5000, 1 << 20] {
            created.segment.file.set_len(length).unwrap();
            assert_eq!(opened.copy().is_ok(), length > 4 * 4096, "{length}");
            opened.write(&[0.5; 4096]).unwrap();
            assert_eq!(created.segment.copy().unwrap(), [0.5; 4096]);
        }
    }

    #[test]
    fn names_of_other_files_are_refused() {
        for name in ["", "shm-1", "/shm-", "/shm-../x", "/shm-a/b", "/other", "/shm-a\0b"] {
            assert!(!is_valid(name), "{name:?}");
            assert!(matches!(Segment::open(name, 1), Err(ShmError::Name(_))));
            assert!(!remove(name));
        }
        assert!(is_valid("/shm-e80f1cbee8c2"));
    }
}
