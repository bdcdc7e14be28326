//! The file: a redb database with one table of messages, in the order of their tokens.
//!
//! It exists only while it holds messages: an empty one is removed, which also gives back what it grew to.
//! redb 4 writes its file format 3 and refuses others; our own tables have a number too, [`FORMAT`].

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use redb::{
    Builder, Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, Table, TableDefinition, TableError,
};

use super::{Done, Job, Load, Loaded};
use crate::config::Qos;
use crate::uplink::message::{Class, Message};
use crate::uplink::outbox::Token;

/// Key to topic, quality of service, payload. Keys grow with time, over all runs.
const MESSAGES: TableDefinition<u64, (&str, u8, &[u8])> = TableDefinition::new("inferences");
/// What the file is.
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// Version of these tables, under "format" in [`META`]. To be raised with any change of them.
pub(super) const FORMAT: u64 = 1;
/// redb's page cache. Messages are written once and read once.
const CACHE_BYTES: usize = 1 << 20;

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    /// It is not what was written.
    #[error("it is damaged ({0})")]
    Damaged(String),
    /// redb's file format is another one.
    #[error("it has version {0} of the database's file format, from another version of this component")]
    OtherFile(u8),
    /// Our own format is another one.
    #[error("it has format {found:?}, from another version of this component; accepted: {FORMAT}")]
    OtherFormat {
        /// `None`: not one of ours.
        found: Option<u64>,
    },
    /// Another process has it.
    #[error("another process has it open; two instances must not share one device name and work_dir")]
    Locked,
    /// The system refused.
    #[error("{}{}", .0, io_advice(.0))]
    Io(io::Error),
}

fn io_advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            " (free space on that disk, or set work_dir to a larger one)"
        }
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            " (make it writable for the user of the component, or set work_dir)"
        }
        _ => "",
    }
}

impl StoreError {
    /// Trying again would not help.
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::Locked | Self::Io(_))
    }
}

impl<E: Into<redb::Error>> From<E> for StoreError {
    fn from(error: E) -> Self {
        match error.into() {
            redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => Self::Locked,
            redb::Error::UpgradeRequired(version) => Self::OtherFile(version),
            redb::Error::Io(error) => Self::of_io(error),
            redb::Error::PreviousIo => Self::Io(io::Error::other("an earlier write failed")),
            other => Self::Damaged(other.to_string()),
        }
    }
}

impl StoreError {
    fn of_io(error: io::Error) -> Self {
        match error.kind() {
            // What redb says of files that are none of its own, or are cut off.
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Self::Damaged(error.to_string()),
            _ => Self::Io(error),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
    max_bytes: u64,
    open: Option<Opened>,
    /// Key of token 0: the greatest key that was there when the file was first opened. Known from then on.
    offset: Option<i64>,
}

#[derive(Debug)]
struct Opened {
    database: Database,
    held: u64,
    payload_bytes: u64,
}

type Messages<'txn> = Table<'txn, u64, (&'static str, u8, &'static [u8])>;

impl Store {
    pub fn new(path: PathBuf, max_bytes: u64) -> Self {
        Self {
            path,
            max_bytes,
            open: None,
            offset: None,
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the file if there is one, checks all of it, and gives the number of messages in it.
    pub fn open(&mut self) -> Result<u64, StoreError> {
        if !self.path.try_exists().map_err(StoreError::Io)? {
            return Ok(0);
        }
        let database = builder().open(&self.path)?;
        let transaction = database.begin_read()?;
        let found = match transaction.open_table(META) {
            Ok(meta) => meta.get("format")?.map(|format| format.value()),
            Err(TableError::TableDoesNotExist(_) | TableError::TableTypeMismatch { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        if found != Some(FORMAT) {
            return Err(StoreError::OtherFormat { found });
        }
        let messages = transaction.open_table(MESSAGES)?;
        let mut payload_bytes = 0;
        for entry in messages.iter()? {
            payload_bytes += entry?.1.value().2.len() as u64;
        }
        let last = messages.last()?.map_or(0, |(key, _)| key.value());
        let last = i64::try_from(last).map_err(|_| StoreError::Damaged(format!("key {last}")))?;
        self.offset.get_or_insert(last);
        let held = messages.len()?;
        drop((messages, transaction));
        self.open = Some(Opened {
            database,
            held,
            payload_bytes,
        });
        Ok(held)
    }

    /// Does a job as a whole: after an error nothing of it counts.
    pub fn perform(&mut self, job: &Job) -> Result<Done, StoreError> {
        let mut done = Done::default();
        if !job.write.is_empty() {
            done.dropped = self.change(job)?;
        } else if !job.delete.is_empty() && self.open.is_some() {
            self.change(job)?;
        }
        if let Some(load) = job.load {
            done.loaded = Some(self.load(load)?);
        }
        done.held = self.open.as_ref().map_or(0, |open| open.held);
        if done.held == 0 && self.open.is_some() {
            self.remove()?;
        }
        Ok(done)
    }

    /// One commit. Returns what was dropped.
    fn change(&mut self, job: &Job) -> Result<Vec<Token>, StoreError> {
        if self.open.is_none() {
            self.create()?;
        }
        let offset = self.offset.unwrap_or(0);
        let max_bytes = self.max_bytes;
        let Some(open) = self.open.as_mut() else {
            return Ok(Vec::new());
        };
        let transaction = open.database.begin_write()?;
        let mut dropped = Vec::new();
        let mut bytes = open.payload_bytes;
        let held = {
            let mut messages = transaction.open_table(MESSAGES)?;
            for token in &job.delete {
                bytes -= removed(&mut messages, key(*token, offset))?;
            }
            for (token, message) in &job.write {
                let value = (&*message.topic, wire(message.qos), &*message.payload);
                let before = messages.insert(key(*token, offset), value)?;
                bytes -= before.map_or(0, |before| before.value().2.len() as u64);
                bytes += message.payload.len() as u64;
            }
            while bytes > max_bytes
                && let Some((oldest, value)) = messages.pop_first()?
            {
                bytes -= value.value().2.len() as u64;
                dropped.push(token(oldest.value(), offset));
            }
            messages.len()?
        };
        transaction.commit()?;
        open.held = held;
        open.payload_bytes = bytes;
        Ok(dropped)
    }

    fn load(&self, load: Load) -> Result<Loaded, StoreError> {
        let mut loaded = Loaded {
            messages: Vec::new(),
            next: None,
        };
        let Some(open) = &self.open else {
            return Ok(loaded);
        };
        let offset = self.offset.unwrap_or(0);
        let transaction = open.database.begin_read()?;
        let messages = transaction.open_table(MESSAGES)?;
        let mut bytes = 0;
        let mut topic: Arc<str> = "".into();
        for entry in messages.range(key(load.from, offset)..)? {
            let (key, value) = entry?;
            let token = token(key.value(), offset);
            if loaded.messages.len() >= load.messages || bytes >= load.bytes {
                loaded.next = Some(token);
                break;
            }
            let (name, qos, payload) = value.value();
            if *topic != *name {
                topic = name.into();
            }
            bytes += payload.len();
            loaded.messages.push((token, message(&topic, qos, payload)));
        }
        Ok(loaded)
    }

    /// A new file appears under its name only when it is complete.
    fn create(&mut self) -> Result<(), StoreError> {
        if let Some(directory) = self.path.parent() {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
            made.map_err(StoreError::Io)?;
        }
        let unfinished = with_ending(&self.path, ".new");
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&unfinished);
        drop(file.map_err(StoreError::Io)?);
        let database = builder().create(&unfinished)?;
        let transaction = database.begin_write()?;
        transaction.open_table(META)?.insert("format", FORMAT)?;
        transaction.open_table(MESSAGES)?;
        transaction.commit()?;
        fs::rename(&unfinished, &self.path).map_err(StoreError::Io)?;
        self.sync_directory();
        self.offset.get_or_insert(0);
        self.open = Some(Opened {
            database,
            held: 0,
            payload_bytes: 0,
        });
        Ok(())
    }

    fn remove(&mut self) -> Result<(), StoreError> {
        self.open = None;
        fs::remove_file(&self.path).map_err(StoreError::Io)
    }

    /// Ends the use of the file in order.
    pub fn close(&mut self) -> Result<(), StoreError> {
        match self.open.take() {
            Some(open) => Ok(open.database.close()?),
            None => Ok(()),
        }
    }

    /// Renames the file and removes one that was renamed before. Returns the new name.
    pub fn set_aside(&mut self) -> io::Result<PathBuf> {
        self.open = None;
        let prefix = with_ending(&self.path, ".damaged-");
        for old in fs::read_dir(self.path.parent().unwrap_or(Path::new(".")))? {
            let old = old?.path();
            if old
                .as_os_str()
                .as_encoded_bytes()
                .starts_with(prefix.as_os_str().as_encoded_bytes())
            {
                fs::remove_file(&old)?;
            }
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let aside = with_ending(&prefix, &now.as_secs().to_string());
        fs::rename(&self.path, &aside)?;
        Ok(aside)
    }

    /// So that a new name survives a power cut. Not every file system can; then the name is written with the next commit.
    fn sync_directory(&self) {
        let directory = self.path.parent().unwrap_or(Path::new("."));
        if let Err(error) = File::open(directory).and_then(|directory| directory.sync_all()) {
            tracing::debug!("{} cannot be synchronised: {error}", directory.display());
        }
    }
}

/// Every page is checked when a file is opened: redb trusts what it closed in order, and may panic on what was changed since.
fn builder() -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    builder
}

fn removed(messages: &mut Messages<'_>, key: u64) -> Result<u64, StoreError> {
    let before = messages.remove(key)?;
    Ok(before.map_or(0, |before| before.value().2.len() as u64))
}

fn key(token: Token, offset: i64) -> u64 {
    u64::try_from(token.0.saturating_add(offset)).unwrap_or(0)
}

fn token(key: u64, offset: i64) -> Token {
    Token(i64::try_from(key).unwrap_or(i64::MAX).saturating_sub(offset))
}

fn wire(qos: Qos) -> u8 {
    match qos {
        Qos::AtMostOnce => 0,
        Qos::AtLeastOnce => 1,
    }
}

fn message(topic: &Arc<str>, qos: u8, payload: &[u8]) -> Message {
    Message {
        topic: Arc::clone(topic),
        payload: bytes::Bytes::copy_from_slice(payload),
        class: Class::Inference,
        qos: if qos == 0 { Qos::AtMostOnce } else { Qos::AtLeastOnce },
        retain: false,
        status: None,
    }
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}
