//! Why a pair was not stored or not removed.

use std::io;
use std::path::PathBuf;

use uuid::Uuid;

use super::s3::S3Error;
use crate::capture::VideoError;
use crate::util::database::DatabaseError;
use crate::util::foreign_files;
use crate::util::panics::Panicked;

/// A failure of a cache. It affects only the current pair or command.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The directory does not exist and cannot be created, or cannot be read.
    #[error(
        "the directory {} (cache_file_directory) cannot be used: {source}; set a directory that the user of the component \
         can create and write to; the cache tries again every minute", directory.display()
    )]
    Directory {
        /// As configured.
        directory: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The directory could not be used less than a minute ago.
    #[error("the directory {} (cache_file_directory) cannot be used; the cache tries again every minute", directory.display())]
    DirectoryOnHold {
        /// As configured.
        directory: PathBuf,
    },
    /// A file could not be written. No part of it is left.
    #[error("{} could not be written: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// A file could not be read.
    #[error("{} could not be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The content of a file is damaged.
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
        /// The error of the system.
        source: io::Error,
    },
    /// The record of uploaded pairs cannot be used.
    #[error("the S3 index {} cannot be used: {source}", path.display())]
    UploadIndex {
        /// The file.
        path: PathBuf,
        /// Why.
        source: DatabaseError,
    },
    /// A clip could not be encoded or written. No part of it is left.
    #[error("the clip {id} could not be written: {source}")]
    Clip {
        /// The event.
        id: Uuid,
        /// Why.
        source: VideoError,
    },
    /// One clip is larger than the limit of all clips.
    #[error("a clip of {bytes} bytes is larger than all clips may be ({max} bytes); raise max_mb of event_clip")]
    ClipTooLarge {
        /// Size of the clip.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// One pair is larger than the limit of the whole cache.
    #[error("a pair of {bytes} bytes is larger than the whole cache ({max} bytes); raise cache_file_max_mb")]
    TooLarge {
        /// Size of the pair.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// One pair is larger than the limit of all pending uploads.
    #[error("a pair of {bytes} bytes is larger than the limit for all pairs that wait for S3")]
    TooLargeToWait {
        /// Size of the pair.
        bytes: u64,
    },
    /// The pending uploads have reached their limit, and the oldest are dropped.
    #[error("S3 has been unavailable for so long that no more pairs can wait on disk; the oldest are dropped")]
    PendingFull,
    /// S3 failed.
    #[error(transparent)]
    S3(#[from] S3Error),
    /// The given text is not the id of a pair.
    #[error("the id of a cached pair is the id of its message, a UUID like 6f1c2f0e-9a5b-4c3d-8e7f-0123456789ab")]
    NotAnId,
    /// There is no such pair.
    #[error("there is no cached pair {id}")]
    NoSuchPair {
        /// The given id.
        id: Uuid,
    },
    /// Pairs arrive faster than the cache can store them.
    #[error("the cache is slower than inferences arrive")]
    Behind,
    /// The code of the cache panicked.
    #[error(transparent)]
    Panicked(#[from] Panicked),
    /// The cache has ended.
    #[error("the cache has been stopped")]
    Stopped,
}

impl CacheError {
    /// Whether a file cannot be used because it belongs to another user.
    pub(super) fn is_foreign(&self) -> bool {
        match self {
            Self::Read { source, .. } | Self::Write { source, .. } => foreign_files::is_foreign(source),
            _ => false,
        }
    }

    /// Identifies repeated failures for a log limiter: unlike the text, it is the same for every pair.
    pub(super) fn kind(&self) -> String {
        match self {
            Self::Directory { .. } | Self::DirectoryOnHold { .. } => "directory".to_owned(),
            Self::Write { source, .. } => format!("write: {:?}", source.kind()),
            Self::Remove { source, .. } => format!("remove: {:?}", source.kind()),
            Self::Read { source, .. } => format!("read: {:?}", source.kind()),
            Self::Damaged { .. } => "damaged".to_owned(),
            Self::UploadIndex { .. } => "upload index".to_owned(),
            Self::S3(error) => error.kind().to_owned(),
            Self::Clip { source, .. } => format!("clip: {source}"),
            Self::ClipTooLarge { .. } => "clip too large".to_owned(),
            Self::TooLarge { .. } | Self::TooLargeToWait { .. } => "too large".to_owned(),
            Self::NotAnId | Self::NoSuchPair { .. } => "no such pair".to_owned(),
            Self::PendingFull => "pending full".to_owned(),
            Self::Panicked(_) => "panicked".to_owned(),
            Self::Behind => "behind".to_owned(),
            Self::Stopped => "stopped".to_owned(),
        }
    }
}
