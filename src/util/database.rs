//! redb databases: opens them with a check of their format, creates them completely, and turns its panics into errors.
//!
//! redb 4 writes its file format 3 and refuses others. The tables of each database have their own version.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::damaged_files;
use super::durable_names;
use super::foreign_files;
use super::panics::catch_panic;
use super::path_names::with_suffix;
use super::private_dir;
use super::private_file;
use redb::{Builder, Database, ReadableDatabase, TableDefinition, TableError, WriteTransaction};

/// Metadata of the database. The key "format" holds the version of its tables.
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// Size of redb's page cache, half of which holds changed pages until they are written. The databases are written in small
/// commits and read from the oldest entry on, so more memory saves little, and the allocator does not give all of it back.
const CACHE_BYTES: usize = 256 << 10;

/// Why a database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The content is damaged.
    #[error("it is damaged ({0})")]
    Damaged(String),
    /// Something else has its name.
    #[error("it is not a file")]
    NotAFile,
    /// The file has another file format of redb.
    #[error("it has version {0} of the database's file format, from another version of this component")]
    OtherFileFormat(u8),
    /// The tables have another version.
    #[error("it has format {found:?}, from another version of this component; accepted: {accepted}")]
    OtherTableFormat {
        /// `None`: not a database of this component.
        found: Option<u64>,
        /// The version that this component writes.
        accepted: u64,
    },
    /// Another process uses it.
    #[error("another process has it open; two instances must not share one device name and work_dir")]
    Locked,
    /// The system returned an error.
    #[error("{}{}", .0, io_advice(.0))]
    Io(io::Error),
}

fn io_advice(error: &io::Error) -> &'static str {
    match error.kind() {
        kind if is_full(kind) => " (free space on that disk, or set work_dir to a larger one)",
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            " (make it writable for the user of the component, or set work_dir)"
        }
        _ => "",
    }
}

fn is_full(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl DatabaseError {
    /// Whether the file cannot be opened because it belongs to another user.
    pub fn is_foreign(&self) -> bool {
        matches!(self, Self::Io(error) if foreign_files::is_foreign(error))
    }

    /// Whether the disk has no space left for a change. What is on it can still be read.
    pub fn is_full_disk(&self) -> bool {
        matches!(self, Self::Io(error) if is_full(error.kind()))
    }

    /// Whether a retry cannot help, so that the file must be set aside.
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::Locked | Self::Io(_))
    }
}

impl<E: Into<redb::Error>> From<E> for DatabaseError {
    fn from(error: E) -> Self {
        match error.into() {
            redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => Self::Locked,
            redb::Error::UpgradeRequired(version) => Self::OtherFileFormat(version),
            // redb returns this error for files that are not databases or are incomplete.
            redb::Error::Io(error)
                if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
            {
                Self::Damaged(error.to_string())
            }
            redb::Error::Io(error) => Self::Io(error),
            redb::Error::PreviousIo => Self::Io(io::Error::other("an earlier write failed")),
            other => Self::Damaged(other.to_string()),
        }
    }
}

/// Opens the database if the file exists, and checks the whole file.
///
/// # Errors
/// [`DatabaseError`]; the file is not changed.
pub(crate) fn open(path: &Path, format: u64) -> Result<Option<Database>, DatabaseError> {
    match private_file::open(path) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        // What belongs to another user is treated as such.
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied && is_something_else(path) => {
            return Err(DatabaseError::NotAFile);
        }
        Err(error) => return Err(DatabaseError::Io(error)),
    }
    let database = catch_panics(|| Ok(builder().open(path)?))?;
    catch_panics(|| check_format(&database, format))?;
    Ok(Some(database))
}

/// Whether there is a directory, a link, a socket or the like.
fn is_something_else(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| !metadata.is_file())
}

/// Runs code of the database. redb panics on some damaged files; that counts as damage.
///
/// # Errors
/// Those of `work`, and [`DatabaseError::Damaged`] after a panic.
pub(crate) fn catch_panics<T>(work: impl FnOnce() -> Result<T, DatabaseError>) -> Result<T, DatabaseError> {
    catch_panic(work).unwrap_or_else(|_| {
        Err(DatabaseError::Damaged(
            "the database code panicked, see the log".to_owned(),
        ))
    })
}

fn check_format(database: &Database, format: u64) -> Result<(), DatabaseError> {
    let transaction = database.begin_read()?;
    let found = match transaction.open_table(META) {
        Ok(meta) => meta.get("format")?.map(|format| format.value()),
        Err(TableError::TableDoesNotExist(_) | TableError::TableTypeMismatch { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    if found != Some(format) {
        return Err(DatabaseError::OtherTableFormat {
            found,
            accepted: format,
        });
    }
    Ok(())
}

/// Creates a database, and its directory (0700) if it is missing. `fill` creates the tables. The file (0600) gets its name only
/// when it is complete.
///
/// # Errors
/// [`DatabaseError`]; the file is not created.
pub(crate) fn create(
    path: &Path,
    format: u64,
    fill: impl FnOnce(&WriteTransaction) -> Result<(), DatabaseError>,
) -> Result<Database, DatabaseError> {
    if let Some(directory) = path.parent() {
        let created = private_dir::create_trusted(directory);
        created.map_err(DatabaseError::Io)?;
    }
    let unfinished = with_suffix(path, ".new");
    // One that a SIGKILL left behind may belong to another user.
    damaged_files::remove(&unfinished).map_err(DatabaseError::Io)?;
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&unfinished);
    drop(file.map_err(DatabaseError::Io)?);
    let database = builder().create(&unfinished)?;
    let transaction = database.begin_write()?;
    transaction.open_table(META)?.insert("format", format)?;
    fill(&transaction)?;
    transaction.commit()?;
    fs::rename(&unfinished, path).map_err(DatabaseError::Io)?;
    durable_names::sync_parent(path);
    Ok(database)
}

/// redb trusts a file that it closed, and may panic if the file was changed since. So it checks every page when it opens a file.
fn builder() -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    builder
}
