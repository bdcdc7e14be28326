//! Records which pairs this device uploaded, so that `clear_cache` removes only those.
//!
//! The file `s3-index.redb` is a redb database. A pair is recorded before its upload begins, so every object in the bucket is
//! recorded. Some recorded pairs were never uploaded; S3 accepts their removal too. Each change is committed to disk at once.
//! The file exists only while it contains pairs.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction};
use uuid::Uuid;

use super::index_import;
use crate::cache::error::CacheError;
use crate::cache::s3_location::S3Location;
use crate::status::stats::Stats;
use crate::util::damaged_files;
use crate::util::database::{self, DatabaseError};
use crate::util::foreign_files;

/// Most recorded pairs: about 60 MB on disk. Beyond that the oldest records are removed, and those pairs stay in the bucket.
const MAX_PAIRS: u64 = 500_000;
/// Maps the id of a pair or clip to its number, which grows with time, and to the number of its location. The number of a clip
/// has the bit [`CLIP`] too.
const PAIRS: TableDefinition<u128, (u64, u32)> = TableDefinition::new("pairs");
/// Marks a clip.
const CLIP: u64 = 1 << 63;
/// The greatest number of a pair: there is always a next one, which is not taken for a clip.
const MAX_NUMBER: u64 = CLIP >> 1;
/// Maps the number of a location to bucket and prefix.
const LOCATIONS: TableDefinition<u32, (&str, &str)> = TableDefinition::new("locations");
/// Version of the tables. Raise it with every change of them.
const FORMAT: u64 = 1;

type PairsByLocation = Vec<(S3Location, Vec<Uuid>)>;

/// The record of uploaded pairs.
#[derive(Debug)]
pub(super) struct UploadIndex {
    path: PathBuf,
    max_pairs: u64,
    /// `None`: there is no file, or it must be opened.
    database: Option<Database>,
    /// Number of the next pair; known while the database is open.
    next_number: u64,
    stats: Arc<Stats>,
}

impl UploadIndex {
    /// The index in the directory of a device. Does not create or read it yet.
    pub(super) fn new(directory: &Path, stats: Arc<Stats>) -> Self {
        Self {
            path: directory.join("s3-index.redb"),
            max_pairs: MAX_PAIRS,
            database: None,
            next_number: 0,
            stats,
        }
    }

    /// Records a pair.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn record(&mut self, location: &S3Location, id: Uuid) -> Result<(), CacheError> {
        self.call(|index| index.insert(&[(location.clone(), vec![id])], &HashSet::new()))
    }

    /// Records a clip.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn record_clip(&mut self, location: &S3Location, id: Uuid) -> Result<(), CacheError> {
        self.call(|index| index.insert(&[(location.clone(), vec![id])], &HashSet::from([id])))
    }

    /// The ids that are clips, and not pairs.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn clips(&mut self) -> Result<HashSet<Uuid>, CacheError> {
        self.call(|index| index.read_clips())
    }

    /// Removes pairs from the record.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn forget(&mut self, ids: &[Uuid]) -> Result<(), CacheError> {
        self.call(|index| index.remove(ids))
    }

    /// Finds the location of a pair.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn find(&mut self, id: Uuid) -> Result<Option<S3Location>, CacheError> {
        self.call(|index| index.location_of(id))
    }

    /// All pairs, grouped by location, oldest first.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn all(&mut self) -> Result<Vec<(S3Location, Vec<Uuid>)>, CacheError> {
        self.call(|index| index.by_location())
    }

    /// Works on the open index. If the file turns out to be damaged, it is set aside and the work is done once more, on a new file.
    fn call<T>(&mut self, work: impl Fn(&mut Self) -> Result<T, DatabaseError>) -> Result<T, CacheError> {
        self.open()?;
        match database::catch_panics(|| work(self)) {
            Err(error) if error.is_final() => self.set_aside(&error)?,
            result => return result.map_err(|error| self.failed(error)),
        }
        database::catch_panics(|| work(self)).map_err(|error| self.failed(error))
    }

    /// Opens the file if it exists, and imports the index of an earlier version of this component. A damaged file is set
    /// aside.
    fn open(&mut self) -> Result<(), CacheError> {
        if self.database.is_none() {
            match database::catch_panics(|| self.try_open()) {
                Err(error) if error.is_final() => self.set_aside(&error)?,
                Err(error) if error.is_foreign() => self.set_aside_foreign(error)?,
                opened => opened.map_err(|error| self.failed(error))?,
            }
        }
        Ok(())
    }

    fn try_open(&mut self) -> Result<(), DatabaseError> {
        if let Some(database) = database::open(&self.path, FORMAT)? {
            let transaction = database.begin_read()?;
            let pairs = transaction.open_table(PAIRS)?;
            for entry in pairs.iter()? {
                let (number, _) = entry?.1.value();
                let number = number & !CLIP;
                if number > MAX_NUMBER {
                    return Err(DatabaseError::Damaged(format!("number {number}")));
                }
                self.next_number = self.next_number.max(number + 1);
            }
            transaction.open_table(LOCATIONS)?;
            self.database = Some(database);
        }
        self.take_up()?;
        self.import()
    }

    /// Takes up the records of files that belonged to another user and can be read now.
    fn take_up(&mut self) -> Result<(), DatabaseError> {
        for aside in foreign_files::all_set_aside(&self.path) {
            let (records, clips) = match self.read_other(&aside) {
                Ok(read) => read,
                Err(error) if error.is_final() => {
                    self.stats.files_damaged.inc();
                    let kept_as = damaged_files::set_aside(&aside).map(|path| path.display().to_string());
                    tracing::warn!(
                        path = %aside.display(), %error, ?kept_as,
                        "An S3 index of another user is damaged; clear_cache will not remove the pairs in it"
                    );
                    continue;
                }
                // It may be readable at the next start.
                Err(error) => {
                    tracing::warn!(
                        path = %aside.display(), %error, advice = foreign_files::ADVICE,
                        "An S3 index of another user cannot be read; clear_cache will not remove the pairs in it"
                    );
                    continue;
                }
            };
            self.insert(&records, &clips)?;
            fs::remove_file(&aside).map_err(DatabaseError::Io)?;
            tracing::info!(path = %aside.display(), "Took up the S3 index of another user");
        }
        Ok(())
    }

    /// Reads all records of another file, and which of them are clips.
    fn read_other(&self, path: &Path) -> Result<(PairsByLocation, HashSet<Uuid>), DatabaseError> {
        let other = Self {
            path: path.to_owned(),
            max_pairs: self.max_pairs,
            database: database::open(path, FORMAT)?,
            next_number: 0,
            stats: Arc::clone(&self.stats),
        };
        database::catch_panics(|| Ok((other.by_location()?, other.read_clips()?)))
    }

    /// Renames the file of another user, so that a new one can be created.
    fn set_aside_foreign(&mut self, error: DatabaseError) -> Result<(), CacheError> {
        let Ok(kept_as) = foreign_files::set_aside(&self.path) else {
            return Err(self.failed(error));
        };
        self.database = None;
        tracing::error!(
            path = %self.path.display(), %error, kept_as = %kept_as.display(), advice = foreign_files::ADVICE,
            "The S3 index belongs to another user and was renamed; clear_cache will not remove the pairs in it"
        );
        Ok(())
    }

    /// Imports the text file that earlier versions wrote, and removes it.
    fn import(&mut self) -> Result<(), DatabaseError> {
        let path = self.path.with_file_name("s3-index");
        let uploaded = match index_import::read(&path) {
            // It stays for a later start.
            Err(error) if foreign_files::is_foreign(&error) => return Ok(()),
            read => read.map_err(DatabaseError::Io)?,
        };
        let Some(uploaded) = uploaded else { return Ok(()) };
        self.insert(&uploaded, &HashSet::new())?;
        fs::remove_file(&path).map_err(DatabaseError::Io)?;
        let pairs: usize = uploaded.iter().map(|(_, ids)| ids.len()).sum();
        tracing::info!(path = %path.display(), pairs, "Imported the S3 index of an earlier version");
        Ok(())
    }

    fn set_aside(&mut self, error: &DatabaseError) -> Result<(), CacheError> {
        self.close();
        let aside = damaged_files::set_aside(&self.path).map_err(|source| CacheError::Write {
            path: self.path.clone(),
            source,
        })?;
        self.stats.files_damaged.inc();
        tracing::warn!(
            path = %self.path.display(), %error, kept_as = %aside.display(),
            "The S3 index cannot be used and a new one is created; clear_cache will not remove pairs that were uploaded before"
        );
        Ok(())
    }

    /// Closes the file after an error: the next operation opens it again.
    fn failed(&mut self, error: DatabaseError) -> CacheError {
        self.close();
        CacheError::UploadIndex {
            path: self.path.clone(),
            source: error,
        }
    }

    /// Closing a damaged database may panic too; it is closed in any case.
    fn close(&mut self) {
        let database = self.database.take();
        let _ = database::catch_panics(|| {
            drop(database);
            Ok(())
        });
    }

    /// Records pairs in one commit. Pairs that are already recorded keep their number.
    /// `clips`: the ids that are clips.
    fn insert(&mut self, uploaded: &[(S3Location, Vec<Uuid>)], clips: &HashSet<Uuid>) -> Result<(), DatabaseError> {
        let database = match self.database.take() {
            Some(database) => database,
            None => database::create(&self.path, FORMAT, |transaction| {
                transaction.open_table(PAIRS)?;
                transaction.open_table(LOCATIONS)?;
                Ok(())
            })?,
        };
        let transaction = self.database.insert(database).begin_write()?;
        let mut is_changed = false;
        {
            let mut pairs = transaction.open_table(PAIRS)?;
            for (location, ids) in uploaded {
                let location = location_number(&transaction, location)?;
                for id in ids {
                    if pairs.get(id.as_u128())?.is_none() {
                        let mark = if clips.contains(id) { CLIP } else { 0 };
                        pairs.insert(id.as_u128(), (self.next_number | mark, location))?;
                        self.next_number += 1;
                        is_changed = true;
                    }
                }
            }
        }
        if !is_changed {
            return Ok(transaction.abort()?);
        }
        let forgotten = forget_oldest(&transaction, self.max_pairs)?;
        transaction.commit()?;
        if forgotten > 0 {
            tracing::warn!(
                pairs = forgotten,
                limit = self.max_pairs,
                "The S3 index is full: clear_cache will not remove the pairs that were uploaded first"
            );
        }
        Ok(())
    }

    fn remove(&mut self, ids: &[Uuid]) -> Result<(), DatabaseError> {
        let Some(database) = &self.database else { return Ok(()) };
        let transaction = database.begin_write()?;
        let is_empty = {
            let mut pairs = transaction.open_table(PAIRS)?;
            for id in ids {
                pairs.remove(id.as_u128())?;
            }
            pairs.is_empty()?
        };
        transaction.commit()?;
        if is_empty {
            self.database = None;
            fs::remove_file(&self.path).map_err(DatabaseError::Io)?;
        }
        Ok(())
    }

    fn location_of(&self, id: Uuid) -> Result<Option<S3Location>, DatabaseError> {
        let Some(database) = &self.database else {
            return Ok(None);
        };
        let transaction = database.begin_read()?;
        let Some(pair) = transaction.open_table(PAIRS)?.get(id.as_u128())? else {
            return Ok(None);
        };
        let locations = transaction.open_table(LOCATIONS)?;
        let location = locations.get(pair.value().1)?;
        Ok(location.map(|location| to_location(location.value())))
    }

    fn read_clips(&self) -> Result<HashSet<Uuid>, DatabaseError> {
        let Some(database) = &self.database else {
            return Ok(HashSet::new());
        };
        let transaction = database.begin_read()?;
        let mut clips = HashSet::new();
        for entry in transaction.open_table(PAIRS)?.iter()? {
            let (id, pair) = entry?;
            if pair.value().0 & CLIP != 0 {
                clips.insert(Uuid::from_u128(id.value()));
            }
        }
        Ok(clips)
    }

    fn by_location(&self) -> Result<Vec<(S3Location, Vec<Uuid>)>, DatabaseError> {
        let Some(database) = &self.database else {
            return Ok(Vec::new());
        };
        let transaction = database.begin_read()?;
        let mut numbered: BTreeMap<u32, Vec<(u64, Uuid)>> = BTreeMap::new();
        for entry in transaction.open_table(PAIRS)?.iter()? {
            let (id, pair) = entry?;
            let (number, location) = pair.value();
            let pairs = numbered.entry(location).or_default();
            pairs.push((number & !CLIP, Uuid::from_u128(id.value())));
        }
        let locations = transaction.open_table(LOCATIONS)?;
        let mut all = Vec::new();
        for (location, mut pairs) in numbered {
            pairs.sort_unstable();
            if let Some(location) = locations.get(location)? {
                let ids = pairs.into_iter().map(|(_, id)| id).collect();
                all.push((to_location(location.value()), ids));
            }
        }
        Ok(all)
    }
}

fn to_location((bucket, prefix): (&str, &str)) -> S3Location {
    S3Location {
        bucket: bucket.to_owned(),
        prefix: prefix.to_owned(),
    }
}

/// Returns the number of a location, and adds the location if it is new. Each deployed model version has one location.
fn location_number(transaction: &WriteTransaction, location: &S3Location) -> Result<u32, DatabaseError> {
    let mut locations = transaction.open_table(LOCATIONS)?;
    let mut next = 0;
    for entry in locations.iter()? {
        let (number, known) = entry?;
        if known.value() == (&*location.bucket, &*location.prefix) {
            return Ok(number.value());
        }
        let number = number.value();
        let damaged = || DatabaseError::Damaged(format!("location {number}"));
        next = number.checked_add(1).ok_or_else(damaged)?;
    }
    locations.insert(next, (&*location.bucket, &*location.prefix))?;
    Ok(next)
}

/// Removes the oldest records when there are more than 1.25 times `max`. Returns their number.
fn forget_oldest(transaction: &WriteTransaction, max: u64) -> Result<usize, DatabaseError> {
    let mut pairs = transaction.open_table(PAIRS)?;
    let recorded = pairs.len()?;
    if recorded <= max + max / 4 {
        return Ok(0);
    }
    let mut numbers = Vec::new();
    for entry in pairs.iter()? {
        numbers.push(entry?.1.value().0 & !CLIP);
    }
    numbers.sort_unstable();
    let excess = (recorded - max) as usize;
    if let Some(first_kept) = numbers.get(excess) {
        pairs.retain(|_, (number, _)| number & !CLIP >= *first_kept)?;
    }
    Ok(excess)
}

#[cfg(test)]
#[path = "index_damage_tests.rs"]
mod damage_tests;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn location(prefix: &str) -> S3Location {
        S3Location {
            bucket: "photos".to_owned(),
            prefix: prefix.to_owned(),
        }
    }

    fn ids(count: usize) -> Vec<Uuid> {
        (0..count).map(|_| Uuid::new_v4()).collect()
    }

    fn index(directory: &tempfile::TempDir) -> UploadIndex {
        UploadIndex::new(directory.path(), Arc::default())
    }

    fn all_ids(index: &mut UploadIndex) -> Vec<Uuid> {
        index.all().unwrap().into_iter().flat_map(|(_, ids)| ids).collect()
    }

    #[test]
    fn the_next_process_finds_the_recorded_pairs_without_the_forgotten_ones() {
        let (directory, ids) = (tempfile::tempdir().unwrap(), ids(4));
        let mut first = index(&directory);
        first.record(&location("a_v1/"), ids[0]).unwrap();
        first.record(&location("a_v1/"), ids[1]).unwrap();
        drop(first);
        let mut second = index(&directory);
        second.record(&location("b c_v2/"), ids[2]).unwrap();
        second.record(&location("b c_v2/"), ids[2]).unwrap();
        second.forget(&ids[1..2]).unwrap();
        drop(second);

        let mut found = index(&directory);
        assert_eq!(
            found.all().unwrap(),
            [(location("a_v1/"), vec![ids[0]]), (location("b c_v2/"), vec![ids[2]])]
        );
        assert_eq!(found.find(ids[2]).unwrap(), Some(location("b c_v2/")));
        assert_eq!(found.find(ids[1]).unwrap(), None);
        assert_eq!(found.find(ids[3]).unwrap(), None);
    }

    #[test]
    fn clips_are_told_from_pairs_and_keep_their_place() {
        let (directory, ids) = (tempfile::tempdir().unwrap(), ids(3));
        let mut first = index(&directory);
        first.record(&location("a_v1/"), ids[0]).unwrap();
        first.record_clip(&location("a_v1/"), ids[1]).unwrap();
        drop(first);
        let mut second = index(&directory);
        second.record(&location("a_v1/"), ids[2]).unwrap();
        assert_eq!(second.clips().unwrap(), HashSet::from([ids[1]]));
        assert_eq!(second.all().unwrap(), [(location("a_v1/"), ids)]);
    }

    #[test]
    fn recorded_pairs_are_found_after_a_sigkill() {
        let (directory, ids) = (tempfile::tempdir().unwrap(), ids(3));
        let mut before = index(&directory);
        for id in &ids {
            before.record(&location("a_v1/"), *id).unwrap();
        }
        // A copy of an open file equals the file of a killed process.
        let copy = tempfile::tempdir().unwrap();
        fs::copy(&before.path, copy.path().join("s3-index.redb")).unwrap();
        assert_eq!(index(&copy).all().unwrap(), [(location("a_v1/"), ids)]);
    }

    #[test]
    fn the_text_file_of_an_earlier_version_is_imported_once() {
        let (directory, ids) = (tempfile::tempdir().unwrap(), ids(4));
        let text = format!("= photos/a_v1/\n{}\n{}\n- {}\n", ids[0], ids[1], ids[0]);
        let path = directory.path().join("s3-index");
        fs::write(&path, text).unwrap();
        let mut imported = index(&directory);
        imported.record(&location("a_v1/"), ids[2]).unwrap();
        assert!(!path.exists());
        drop(imported);
        assert_eq!(
            index(&directory).all().unwrap(),
            [(location("a_v1/"), vec![ids[1], ids[2]])]
        );
    }

    #[test]
    fn a_damaged_file_is_set_aside_and_a_new_one_is_created() {
        let (directory, ids) = (tempfile::tempdir().unwrap(), ids(2));
        let path = directory.path().join("s3-index.redb");
        index(&directory).record(&location("a_v1/"), ids[0]).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        bytes.truncate(bytes.len() / 3);
        for content in [bytes, b"something else".to_vec()] {
            fs::write(&path, content).unwrap();
            let mut after = index(&directory);
            after.record(&location("a_v1/"), ids[1]).unwrap();
            assert_eq!(all_ids(&mut after), ids[1..]);
            let names = fs::read_dir(directory.path()).unwrap().flatten();
            let aside = names.filter(|entry| entry.file_name().to_string_lossy().contains("damaged"));
            assert_eq!(aside.count(), 1);
        }
    }

    #[test]
    fn the_index_of_another_user_is_taken_up_when_it_can_be_read() {
        let (directory, ids) = (tempfile::tempdir().unwrap(), ids(3));
        let path = directory.path().join("s3-index.redb");
        index(&directory).record(&location("a_v1/"), ids[0]).unwrap();
        let aside = foreign_files::set_aside(&path).unwrap();
        index(&directory).record(&location("b_v2/"), ids[1]).unwrap();
        assert!(!aside.exists());
        let mut found = index(&directory);
        assert_eq!(found.find(ids[0]).unwrap(), Some(location("a_v1/")));
        assert_eq!(found.find(ids[1]).unwrap(), Some(location("b_v2/")));
    }

    #[test]
    fn the_number_of_recorded_pairs_is_bounded() {
        let (directory, ids) = (tempfile::tempdir().unwrap(), ids(300));
        let mut index = UploadIndex {
            max_pairs: 40,
            ..index(&directory)
        };
        for id in &ids {
            index.record(&location("a_v1/"), *id).unwrap();
        }
        let recorded = all_ids(&mut index);
        assert!((40..=51).contains(&recorded.len()), "{}", recorded.len());
        assert_eq!(recorded, ids[ids.len() - recorded.len()..]);
    }

    #[test]
    fn only_the_service_user_can_read_the_file_and_an_empty_one_is_removed() {
        let (directory, ids) = (tempfile::tempdir().unwrap(), ids(2));
        let mut index = index(&directory);
        for id in &ids {
            index.record(&location("a_v1/"), *id).unwrap();
        }
        assert_eq!(fs::metadata(&index.path).unwrap().permissions().mode() & 0o777, 0o600);
        index.forget(&ids).unwrap();
        assert!(!index.path.exists());
        assert_eq!(index.all().unwrap(), []);
        index.record(&location("a_v1/"), ids[0]).unwrap();
        assert_eq!(all_ids(&mut index), ids[..1]);
    }
}
