//! What outlives the process: open events, messages that may be in memory only, totals, and a configuration that a command set.
//!
//! One small file, replaced by a rename. It is not synced to the disk: a power cut may lose the last seconds.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::event::Event;
use super::state::CountedEvents;
use crate::util::atomic_file::{Durability, replace_via};
use crate::util::foreign_files;
use crate::util::private_dir;
use crate::util::private_file;

/// Version of the file. Raise it with every change that an earlier version cannot read.
const FORMAT: u32 = 1;
/// Larger files are damaged.
const MAX_BYTES: u64 = 8 << 20;

/// The content of the file.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct StoredEvents {
    /// Set by [`EventStore::write`].
    pub format: u32,
    /// Events that have started and not ended.
    pub open: Vec<Event>,
    /// Messages in the outbox that neither the broker nor the spool has.
    pub unsettled: Vec<Event>,
    pub counts: CountedEvents,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<CommandedConfig>,
}

/// The configuration that a command has set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct CommandedConfig {
    /// Zones, lines and rules; null: none.
    pub events: Value,
    /// Those of the deployment that the command has replaced. Another deployment wins.
    pub deployed: Value,
}

impl StoredEvents {
    /// Adds what a file of another user holds, which is older.
    fn add_earlier(&mut self, earlier: Self) {
        self.open.splice(..0, earlier.open);
        self.unsettled.splice(..0, earlier.unsettled);
        self.counts.add(earlier.counts);
        self.command = self.command.take().or(earlier.command);
    }

    fn is_empty(&self) -> bool {
        let no_counts = self.counts.rules.is_empty() && self.counts.lines.is_empty();
        self.open.is_empty() && self.unsettled.is_empty() && no_counts && self.command.is_none()
    }
}

/// The file.
#[derive(Debug)]
pub(super) struct EventStore {
    path: PathBuf,
}

impl EventStore {
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// The content, and what other users have left if it can be read now; empty without a file. A file that cannot be used is
    /// logged, and a new one is written.
    pub fn read(&self) -> StoredEvents {
        let mut stored = self.read_own();
        for aside in foreign_files::all_set_aside(&self.path) {
            if let Err(error) = self.take_up(&mut stored, &aside) {
                tracing::error!(
                    path = %aside.display(), %error, advice = foreign_files::ADVICE,
                    "The totals of events of another user cannot be taken up"
                );
            }
        }
        stored
    }

    /// Adds the content of a file that was set aside, and removes it.
    fn take_up(&self, stored: &mut StoredEvents, aside: &Path) -> io::Result<()> {
        let mut both = stored.clone();
        both.add_earlier(read_file(aside)?);
        self.write(both.clone())?;
        *stored = both;
        tracing::info!(path = %aside.display(), "The totals and open events of another user are taken up");
        fs::remove_file(aside)
    }

    fn read_own(&self) -> StoredEvents {
        match read_file(&self.path) {
            Ok(stored) => stored,
            Err(error) if error.kind() == io::ErrorKind::NotFound => StoredEvents::default(),
            Err(error) if foreign_files::is_foreign(&error) => {
                match foreign_files::set_aside(&self.path) {
                    Ok(kept_as) => tracing::error!(
                        %error, kept_as = %kept_as.display(), advice = foreign_files::ADVICE,
                        "The totals of events belong to another user and were renamed; they begin at zero until they can be read"
                    ),
                    Err(_) => tracing::error!(
                        path = %self.path.display(), %error, advice = foreign_files::ADVICE,
                        "The totals of events belong to another user; they begin at zero and are not kept"
                    ),
                }
                StoredEvents::default()
            }
            Err(error) => {
                tracing::error!(
                    path = %self.path.display(), %error,
                    "The totals of events cannot be read; they begin at zero, and events that were open get no end"
                );
                StoredEvents::default()
            }
        }
    }

    /// Replaces the content. Without anything to keep there is no file.
    ///
    /// # Errors
    /// The file cannot be written; it keeps its old content.
    pub fn write(&self, stored: StoredEvents) -> io::Result<()> {
        if stored.is_empty() {
            return match fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        let content = serde_json::to_vec(&StoredEvents {
            format: FORMAT,
            ..stored
        })?;
        if let Some(directory) = self.path.parent() {
            private_dir::create_trusted(directory)?;
        }
        let unfinished = self.path.with_extension("unfinished");
        replace_via(&unfinished, &self.path, &content, Durability::Restart)
    }
}

fn read_file(path: &Path) -> io::Result<StoredEvents> {
    let mut text = String::new();
    let file = private_file::open(path)?;
    file.take(MAX_BYTES).read_to_string(&mut text)?;
    let stored: StoredEvents = serde_json::from_str(&text)?;
    if stored.format != FORMAT {
        return Err(io::Error::other(format!(
            "its format is {}, not {FORMAT}",
            stored.format
        )));
    }
    Ok(stored)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

    use super::*;
    use crate::events::EventKind;

    #[test]
    fn what_is_written_is_read_and_nothing_leaves_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("device/events.json");
        let store = EventStore::new(path.clone());
        assert_eq!(store.read(), StoredEvents::default());
        let mut stored = StoredEvents {
            format: FORMAT,
            open: vec![Event::new(EventKind::Start, Uuid::from_u128(7), 5)],
            command: Some(CommandedConfig {
                events: json!(null),
                deployed: json!({"zones": {}}),
            }),
            ..StoredEvents::default()
        };
        let gate = stored.counts.lines.entry("gate".into()).or_default();
        gate.entry("in".into()).or_default().insert("car".into(), 3);
        store.write(stored.clone()).unwrap();
        assert_eq!(store.read(), stored);
        store.write(StoredEvents::default()).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn what_another_user_left_is_added_when_it_can_be_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.json");
        let store = EventStore::new(path.clone());
        let stored = |id: u128, since_ts: u64, cars: u64| {
            let mut stored = StoredEvents {
                format: FORMAT,
                open: vec![Event::new(EventKind::Start, Uuid::from_u128(id), 5)],
                ..StoredEvents::default()
            };
            stored.counts.since_ts = since_ts;
            stored.counts.rules.insert("occupied".into(), cars);
            let gate = stored.counts.lines.entry("gate".into()).or_default();
            gate.entry("in".into()).or_default().insert("car".into(), cars);
            stored
        };
        store.write(stored(1, 100, 3)).unwrap();
        let aside = foreign_files::set_aside(&path).unwrap();
        store.write(stored(2, 200, 4)).unwrap();
        let mut both = stored(2, 100, 7);
        both.open.insert(0, Event::new(EventKind::Start, Uuid::from_u128(1), 5));
        assert_eq!(store.read(), both);
        assert!(!aside.exists());
        assert_eq!(store.read(), both, "once");
    }

    #[test]
    fn a_damaged_file_and_one_of_a_later_version_count_as_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.json");
        for damaged in [
            "",
            "{",
            "[]",
            r#"{"format":2,"open":[],"unsettled":[],"counts":{"since_ts":0,"rules":{},"lines":{}}}"#,
        ] {
            fs::write(&path, damaged).unwrap();
            assert_eq!(
                EventStore::new(path.clone()).read(),
                StoredEvents::default(),
                "{damaged}"
            );
        }
    }
}
