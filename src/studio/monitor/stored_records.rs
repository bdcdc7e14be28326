//! The store as the parts of monitoring share it: failures are logged and counted here, and end nothing.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use super::record::Record;
use super::store::{AvailableRecords, RecordOwner, RecordStore, RecordStoreError};
use crate::status::stats::Stats;
use crate::util::log_limiter::LogLimiter;

/// What to do where records cannot be written.
const ADVICE: &str = "free space on that disk, make it writable for the user of the component, or set work_dir";

/// The stored records. Except for [`Self::available`] and [`Self::last_index`] the methods read or write the disk: they are for
/// blocking threads.
#[derive(Debug, Clone)]
pub struct StoredRecords {
    keeper: Arc<Mutex<Keeper>>,
    /// A copy for the channel's task, which must not wait for the disk.
    range: Arc<Mutex<KnownRange>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct KnownRange {
    available: AvailableRecords,
    last_index: u64,
}

#[derive(Debug)]
struct Keeper {
    store: RecordStore,
    stats: Arc<Stats>,
    /// Records lost since the disk could not be written; `None`: it can.
    failing: Option<u64>,
    log_limiter: LogLimiter,
}

impl StoredRecords {
    /// Reads the records below `root`. A disk that cannot be read is reported, and every record tries again.
    pub fn open(root: PathBuf, owner: RecordOwner, max_bytes: u64, stats: Arc<Stats>) -> Self {
        let keeper = Keeper {
            store: RecordStore::new(root, owner, max_bytes),
            stats,
            failing: None,
            log_limiter: LogLimiter::default(),
        };
        let records = Self {
            keeper: Arc::new(Mutex::new(keeper)),
            range: Arc::default(),
        };
        records.reopen(&mut records.keeper.lock());
        records
    }

    /// Continues with the records of another model.
    pub fn switch_to(&self, owner: RecordOwner) {
        let mut keeper = self.keeper.lock();
        keeper.store.switch_to(owner);
        self.reopen(&mut keeper);
    }

    fn reopen(&self, keeper: &mut Keeper) {
        if let Err(error) = keeper.store.open() {
            keeper.report_failure(&error, 0);
        }
        self.note_range(keeper);
    }

    fn note_range(&self, keeper: &Keeper) {
        *self.range.lock() = KnownRange {
            available: keeper.store.available(),
            last_index: keeper.store.last_index(),
        };
    }

    /// Stores a record. A record that cannot be stored is counted and lost.
    pub fn keep(&self, record: &Record) {
        let mut keeper = self.keeper.lock();
        keeper.keep(record);
        self.note_range(&keeper);
    }

    /// Reads one record. `None`: it is not stored.
    ///
    /// # Errors
    /// The disk cannot be read.
    pub fn get(&self, index: u64) -> io::Result<Option<Record>> {
        self.keeper.lock().store.get(index)
    }

    /// Reads the record with the lowest index from `first` to `last`, both included. `None`: none is stored.
    ///
    /// # Errors
    /// The disk cannot be read.
    pub fn next_in(&self, first: u64, last: u64) -> io::Result<Option<Record>> {
        self.keeper.lock().store.next_in(first, last)
    }

    /// The oldest and the newest record of the running model.
    pub fn available(&self) -> AvailableRecords {
        self.range.lock().available
    }

    /// The highest index of the running model that was stored; 0: none. Indices of a new process continue above it.
    pub fn last_index(&self) -> u64 {
        self.range.lock().last_index
    }
}

impl Keeper {
    fn keep(&mut self, record: &Record) {
        match self.store.append(record) {
            Ok(()) => {
                self.stats.monitor_records.inc();
                if let Some(lost) = self.failing.take() {
                    tracing::info!(lost, "Records for Edge Impulse Studio are stored again");
                }
            }
            Err(RecordStoreError::Io(error)) => {
                self.stats.monitor_records_lost.inc();
                self.report_failure(&error, 1);
            }
            Err(error) => {
                self.stats.monitor_records_lost.inc();
                if let Some(suppressed) = self.log_limiter.check_words(Instant::now(), &error.to_string()) {
                    tracing::error!(
                        %error, suppressed = suppressed.count(),
                        "A record for Edge Impulse Studio is not stored"
                    );
                }
            }
        }
    }

    /// Reports the first failure of a disk that could be written before.
    fn report_failure(&mut self, error: &io::Error, lost: u64) {
        if self.failing.is_none() {
            tracing::error!(
                path = %self.store.root().display(), %error, advice = ADVICE,
                "Records for Edge Impulse Studio cannot be stored; inference goes on"
            );
        }
        *self.failing.get_or_insert(0) += lost;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::studio::monitor::store::tests_support::record;

    const OWNER: RecordOwner = RecordOwner {
        project_id: 1,
        version: 2,
    };

    #[test]
    fn a_disk_that_cannot_be_written_costs_records_only_until_it_can() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("studio-monitor");
        fs::write(&root, "in the way").unwrap();
        let stats = Arc::<Stats>::default();
        let records = StoredRecords::open(root.clone(), OWNER, 1 << 20, stats.clone());
        for index in [1, 2] {
            records.keep(&record(index, 100));
        }
        assert!(records.get(1).is_err());
        assert_eq!((stats.monitor_records.get(), stats.monitor_records_lost.get()), (0, 2));
        assert_eq!((records.available(), records.last_index()), Default::default());

        fs::remove_file(&root).unwrap();
        records.keep(&record(3, 100));
        assert_eq!((stats.monitor_records.get(), stats.monitor_records_lost.get()), (1, 2));
        assert_eq!(records.get(3).unwrap(), Some(record(3, 100)));
        assert_eq!(records.available().first_index, 3);
    }

    #[test]
    fn a_record_that_does_not_fit_is_counted_and_the_others_stay() {
        let directory = tempfile::tempdir().unwrap();
        let stats = Arc::<Stats>::default();
        let records = StoredRecords::open(directory.path().join("m"), OWNER, 100_000, stats.clone());
        for (index, bytes) in [(1, 100), (2, 100_000), (3, 100)] {
            records.keep(&record(index, bytes));
        }
        assert_eq!((stats.monitor_records.get(), stats.monitor_records_lost.get()), (2, 1));
        assert_eq!((records.available().first_index, records.last_index()), (1, 3));
        assert_eq!(records.get(2).unwrap(), None);
    }

    #[test]
    fn records_of_another_version_are_read_after_a_switch() {
        let directory = tempfile::tempdir().unwrap();
        let records = StoredRecords::open(directory.path().join("m"), OWNER, 1 << 20, Arc::default());
        records.keep(&record(7, 10));
        records.switch_to(RecordOwner { version: 3, ..OWNER });
        assert_eq!((records.last_index(), records.get(7).unwrap()), (0, None));
        records.switch_to(OWNER);
        assert_eq!(
            (records.last_index(), records.get(7).unwrap()),
            (7, Some(record(7, 10)))
        );
    }
}
