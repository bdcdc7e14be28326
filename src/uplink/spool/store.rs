//! The file: a redb database with one table of messages, in the order of their tokens.
//!
//! It exists only while it holds messages: an empty one is removed, which frees its space on disk.

mod take_up;

#[cfg(test)]
pub(super) use take_up::note_as_taken_up;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, Table, TableDefinition};

use crate::config::Qos;
use crate::uplink::message::{Class, Message};
use crate::uplink::outbox::{LoadRequest, LoadedMessages, SpoolJob, SpoolResult, Token};
use crate::util::database::{self, DatabaseError};

/// Maps a key to topic, quality of service and payload. Keys grow with each message, across runs.
const MESSAGES: TableDefinition<u64, (&str, u8, &[u8])> = TableDefinition::new("inferences");
/// Version of the tables. Raise it with every change of them.
pub(super) const FORMAT: u64 = 1;
/// Key of the first message in a new file. There are keys below it for older messages that are taken up later.
const FIRST_KEY: u64 = 1 << 32;

/// The greatest key in a file that is opened: there is a key for each further message.
const MAX_KEY: i64 = i64::MAX >> 1;

/// The messages on disk.
#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
    max_bytes: u64,
    open: Option<Opened>,
    /// Key of token 0: the greatest key in the file when this run first opened it.
    offset: Option<i64>,
    /// Files of other users that were damaged and renamed.
    damaged_files: u64,
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
            damaged_files: 0,
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the file if it exists, reads all of it as a check, and returns the number of messages in it.
    ///
    /// The first call also takes up the files that [`foreign_files`] set aside in earlier runs and that can be read now.
    pub fn open(&mut self) -> Result<u64, DatabaseError> {
        let database = database::open(&self.path, FORMAT)?;
        let database = match self.offset {
            None => take_up::all(&self.path, database, &mut self.damaged_files)?,
            Some(_) => database,
        };
        let Some(database) = database else { return Ok(0) };
        let transaction = database.begin_read()?;
        let messages = transaction.open_table(MESSAGES)?;
        let mut payload_bytes = 0;
        for entry in messages.iter()? {
            payload_bytes += entry?.1.value().2.len() as u64;
        }
        let last = messages.last()?.map_or(0, |(key, _)| key.value());
        let last = i64::try_from(last)
            .ok()
            .filter(|last| *last <= MAX_KEY)
            .ok_or_else(|| DatabaseError::Damaged(format!("key {last}")))?;
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

    /// How many files of other users were damaged and renamed since the last call.
    pub fn take_damaged_files(&mut self) -> u64 {
        std::mem::take(&mut self.damaged_files)
    }

    /// Performs a job completely or, after an error, not at all.
    pub fn perform(&mut self, job: &SpoolJob) -> Result<SpoolResult, DatabaseError> {
        let mut done = SpoolResult::default();
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

    /// Deletes and writes in one commit. Returns the messages dropped to make room.
    fn change(&mut self, job: &SpoolJob) -> Result<Vec<Token>, DatabaseError> {
        if self.open.is_none() {
            self.create()?;
        }
        let offset = self.offset.unwrap_or(FIRST_KEY.cast_signed());
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
                bytes -= remove_entry(&mut messages, key(*token, offset))?;
            }
            for (token, message) in &job.write {
                let value = (&*message.topic, qos_number(message.qos), &*message.payload);
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

    fn load(&self, load: LoadRequest) -> Result<LoadedMessages, DatabaseError> {
        let mut loaded = LoadedMessages {
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

    fn create(&mut self) -> Result<(), DatabaseError> {
        let database = create_empty(&self.path)?;
        self.offset.get_or_insert(FIRST_KEY.cast_signed());
        self.open = Some(Opened {
            database,
            held: 0,
            payload_bytes: 0,
        });
        Ok(())
    }

    fn remove(&mut self) -> Result<(), DatabaseError> {
        self.open = None;
        fs::remove_file(&self.path).map_err(DatabaseError::Io)
    }

    /// Closes the file.
    pub fn close(&mut self) -> Result<(), DatabaseError> {
        match self.open.take() {
            Some(open) => Ok(open.database.close()?),
            None => Ok(()),
        }
    }
}

fn create_empty(path: &Path) -> Result<Database, DatabaseError> {
    database::create(path, FORMAT, |transaction| {
        transaction.open_table(MESSAGES)?;
        Ok(())
    })
}

fn remove_entry(messages: &mut Messages<'_>, key: u64) -> Result<u64, DatabaseError> {
    let before = messages.remove(key)?;
    Ok(before.map_or(0, |before| before.value().2.len() as u64))
}

fn key(token: Token, offset: i64) -> u64 {
    u64::try_from(token.0.saturating_add(offset)).unwrap_or(0)
}

fn token(key: u64, offset: i64) -> Token {
    Token(i64::try_from(key).unwrap_or(i64::MAX).saturating_sub(offset))
}

fn qos_number(qos: Qos) -> u8 {
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
