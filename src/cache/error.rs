//! Why a pair was not kept or not removed.

use std::io;
use std::path::PathBuf;

use uuid::Uuid;

use super::s3::S3Error;
use crate::util::panics::Panicked;

/// A failure of a cache. None of them stops anything but the pair at hand.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The directory is missing and cannot be made, or cannot be read.
    #[error(
        "the directory {} (cache_file_directory) cannot be used: {source}; give a directory that the component's user \
         may create and write, it is tried again every minute", directory.display()
    )]
    Directory {
        /// As configured.
        directory: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The directory could not be used less than a minute ago.
    #[error("the directory {} (cache_file_directory) still waits to be tried again", directory.display())]
    Waiting {
        /// As configured.
        directory: PathBuf,
    },
    /// A file could not be written; nothing of it is left.
    #[error("{} could not be written: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file could not be read.
    #[error("{} could not be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file holds something else than was written into it.
    #[error("{} is damaged, probably by a power cut", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// A file could not be removed.
    #[error("{} could not be removed: {source}", path.display())]
    Remove {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// One pair is larger than the whole cache may be.
    #[error("a pair of {bytes} bytes is larger than the whole cache may be ({max} bytes); raise cache_file_max_mb")]
    TooLarge {
        /// Size of the pair.
        bytes: u64,
        /// The bound.
        max: u64,
    },
    /// One pair is larger than everything that may wait for S3.
    #[error("a pair of {bytes} bytes is larger than everything that may wait for S3")]
    TooLargeToWait {
        /// Size of the pair.
        bytes: u64,
    },
    /// More waits for S3 than there is room for, and the oldest go.
    #[error("S3 has been away so long that no more pairs can wait on disk; the oldest are dropped")]
    WaitedTooLong,
    /// S3 did not do it.
    #[error(transparent)]
    S3(#[from] S3Error),
    /// What should be removed is not named by an id.
    #[error("a cached pair is named by the id of its message, a UUID like 6f1c2f0e-9a5b-4c3d-8e7f-0123456789ab")]
    NotAnId,
    /// There is no such pair.
    #[error("there is no cached pair {id}")]
    NoSuchPair {
        /// The id asked for.
        id: Uuid,
    },
    /// The store takes in less than it is offered.
    #[error("the cache is slower than inferences arrive")]
    Behind,
    /// The code of the cache panicked.
    #[error(transparent)]
    Panicked(#[from] Panicked),
    /// The writer has ended.
    #[error("the cache has been stopped")]
    Stopped,
}

impl CacheError {
    /// What repeated failures are recognised by in the log: the same for every pair, unlike the text.
    pub(super) fn kind(&self) -> String {
        match self {
            Self::Directory { .. } | Self::Waiting { .. } => "directory".to_owned(),
            Self::Write { source, .. } => format!("write: {:?}", source.kind()),
            Self::Remove { source, .. } => format!("remove: {:?}", source.kind()),
            Self::Read { source, .. } => format!("read: {:?}", source.kind()),
            Self::Damaged { .. } => "damaged".to_owned(),
            Self::S3(error) => error.kind().to_owned(),
            Self::TooLarge { .. } | Self::TooLargeToWait { .. } => "too large".to_owned(),
            Self::NotAnId | Self::NoSuchPair { .. } => "no such pair".to_owned(),
            Self::WaitedTooLong => "waited too long".to_owned(),
            Self::Panicked(_) => "panicked".to_owned(),
            Self::Behind => "behind".to_owned(),
            Self::Stopped => "stopped".to_owned(),
        }
    }
}
