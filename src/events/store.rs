//! What outlives the process: open events, messages that may be in memory only, totals, and a configuration that a command set.
//!
//! A small file, `events.json`, replaced by a rename and synced to the disk, but at most every 10 s, because syncing wears out SD cards.
//! What changes in between is in `events.recent.json`, which is not synced: a SIGKILL loses nothing, a power cut the last seconds. The file
//! with the higher revision counts. A configuration that a command has set is synced at once.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::event::Event;
use super::state::CountedEvents;
use crate::status::damaged_files;
use crate::status::stats::Stats;
use crate::util::atomic_file::{Durability, replace_via};
use crate::util::durable_names;
use crate::util::foreign_files;
use crate::util::private_dir;
use crate::util::private_file;

/// Version of the file. Raise it with every change that an earlier version cannot read.
const FORMAT: u32 = 1;
/// Larger files are damaged.
const MAX_BYTES: u64 = 8 << 20;
/// A higher revision is damaged: there is always a next one.
const MAX_REVISION: u64 = u64::MAX >> 1;
/// Shortest time between two syncs, unless a command has changed the configuration.
const SYNC_INTERVAL: Duration = Duration::from_secs(10);

/// The content of the file.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct StoredEvents {
    /// Set by [`EventStore::write`].
    pub format: u32,
    /// Grows with each [`EventStore::write`], which sets it; 0 in files of earlier versions.
    #[serde(default)]
    pub revision: u64,
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

/// The two files.
#[derive(Debug)]
pub(super) struct EventStore {
    path: PathBuf,
    stats: Arc<Stats>,
    written: Mutex<Written>,
}

#[derive(Debug, Default)]
struct Written {
    revision: u64,
    /// The last sync, and the configuration that was written then.
    synced: Option<(Instant, Option<CommandedConfig>)>,
}

impl EventStore {
    pub fn new(path: PathBuf, stats: Arc<Stats>) -> Self {
        Self {
            path,
            stats,
            written: Mutex::default(),
        }
    }

    /// The content, and what other users have left if it can be read now; empty without a file. A file that cannot be used is
    /// logged and renamed, and a new one is written.
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
        // On the disk before the other file is removed.
        self.written.lock().synced = None;
        self.write(both.clone())?;
        *stored = both;
        tracing::info!(path = %aside.display(), "The totals and open events of another user are taken up");
        fs::remove_file(aside)
    }

    /// The newer of the two files.
    fn read_own(&self) -> StoredEvents {
        let (synced, recent) = (self.read_synced(), read_file(&self.recent()));
        let stored = match recent {
            Ok(recent) if recent.revision > synced.revision => recent,
            Ok(_) => synced,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(
                        path = %self.recent().display(), %error,
                        "The last changes of the totals of events cannot be read, as after a power cut; they are some seconds older"
                    );
                }
                synced
            }
        };
        self.written.lock().revision = stored.revision;
        StoredEvents { revision: 0, ..stored }
    }

    fn recent(&self) -> PathBuf {
        self.path.with_extension("recent.json")
    }

    fn read_synced(&self) -> StoredEvents {
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
                damaged_files::set_aside(&self.path, &error, &self.stats);
                tracing::error!("The totals of events begin at zero, and events that were open get no end");
                StoredEvents::default()
            }
        }
    }

    /// Replaces the content. Without anything to keep there is no file.
    ///
    /// # Errors
    /// The file cannot be written; it keeps its old content.
    pub fn write(&self, stored: StoredEvents) -> io::Result<()> {
        let mut written = self.written.lock();
        if stored.is_empty() {
            written.synced = None;
            remove(&self.recent())?;
            remove(&self.path)?;
            // What a command has taken back must not return.
            durable_names::sync_parent(&self.path);
            return Ok(());
        }
        written.revision += 1;
        let content = serde_json::to_vec(&StoredEvents {
            format: FORMAT,
            revision: written.revision,
            ..stored.clone()
        })?;
        if let Some(directory) = self.path.parent() {
            private_dir::create_trusted(directory)?;
        }
        let unfinished = self.path.with_extension("unfinished");
        let is_synced_lately = written
            .synced
            .as_ref()
            .is_some_and(|(at, command)| at.elapsed() < SYNC_INTERVAL && *command == stored.command);
        if is_synced_lately && self.path.exists() {
            return replace_via(&unfinished, &self.recent(), &content, Durability::Restart);
        }
        replace_via(&unfinished, &self.path, &content, Durability::PowerCut)?;
        written.synced = Some((Instant::now(), stored.command));
        remove(&self.recent())
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
    if stored.revision > MAX_REVISION {
        return Err(io::Error::other(format!(
            "its revision {} is impossible",
            stored.revision
        )));
    }
    Ok(stored)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
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
        let store = EventStore::new(path.clone(), Arc::default());
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
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
    }

    fn with_total(total: u64) -> StoredEvents {
        let mut stored = StoredEvents::default();
        stored.counts.since_ts = 1;
        let gate = stored.counts.lines.entry("gate".into()).or_default();
        gate.entry("in".into()).or_default().insert("car".into(), total);
        stored
    }

    fn total(stored: &StoredEvents) -> u64 {
        stored.counts.lines["gate"]["in"]["car"]
    }

    #[test]
    fn a_power_cut_loses_only_the_totals_of_the_last_seconds() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.json");
        let recent = directory.path().join("events.recent.json");
        let store = EventStore::new(path.clone(), Arc::default());
        for at in 1..=3 {
            store.write(with_total(at)).unwrap();
        }
        let stats = Arc::new(Stats::default());
        assert_eq!(
            total(&EventStore::new(path.clone(), stats.clone()).read()),
            3,
            "a SIGKILL"
        );
        for torn in [&b""[..], b"{\"format\":1,", &[0; 300]] {
            fs::write(&recent, torn).unwrap();
            let after = EventStore::new(path.clone(), stats.clone());
            assert_eq!(total(&after.read()), 1, "a power cut");
            after.write(with_total(4)).unwrap();
            after.write(with_total(5)).unwrap();
            assert_eq!(total(&EventStore::new(path.clone(), stats.clone()).read()), 5);
            after.written.lock().synced = None;
            after.write(with_total(1)).unwrap();
        }
        assert_eq!(stats.files_damaged.get(), 0);
    }

    #[test]
    fn what_a_command_sets_is_synced_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.json");
        let store = EventStore::new(path.clone(), Arc::default());
        store.write(with_total(1)).unwrap();
        let command = Some(CommandedConfig {
            events: json!({"zones": {}}),
            deployed: json!(null),
        });
        let commanded = StoredEvents {
            command: command.clone(),
            ..with_total(2)
        };
        store.write(commanded).unwrap();
        assert!(!store.recent().exists());
        assert_eq!(EventStore::new(path, Arc::default()).read().command, command);
    }

    #[test]
    fn what_another_user_left_is_added_when_it_can_be_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.json");
        let store = EventStore::new(path.clone(), Arc::default());
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
            r#"{"format":1,"revision":18446744073709551615,"open":[],"unsettled":[],"counts":{"since_ts":0,"rules":{},"lines":{}}}"#,
        ] {
            fs::write(&path, damaged).unwrap();
            let stats = Arc::new(Stats::default());
            let store = EventStore::new(path.clone(), stats.clone());
            assert_eq!(store.read(), StoredEvents::default(), "{damaged}");
            assert_eq!(stats.files_damaged.get(), 1);
            store.write(with_total(7)).unwrap();
            assert_eq!(total(&store.read()), 7);
            fs::remove_file(&path).unwrap();
        }
        assert_eq!(
            fs::read_dir(directory.path()).unwrap().count(),
            1,
            "one damaged file is kept"
        );
    }
}
