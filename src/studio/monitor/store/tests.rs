use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use tempfile::TempDir;

use super::tests_support::record;
use super::*;
use crate::studio::monitor::record::MAX_INDEX;

const OWNER: RecordOwner = RecordOwner {
    project_id: 12,
    version: 3,
};

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn root(&self) -> PathBuf {
        self.0.path().join("studio-monitor")
    }

    fn open(&self, owner: RecordOwner, max_bytes: u64) -> RecordStore {
        let mut store = RecordStore::new(self.root(), owner, max_bytes);
        store.open().unwrap();
        store
    }

    fn files(&self, owner: RecordOwner) -> Vec<PathBuf> {
        let directory = self.root().join(format!("{}/{}", owner.project_id, owner.version));
        let mut files: Vec<_> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        files
    }
}

/// Bytes of everything below `path`, in whole blocks.
fn disk_bytes(path: &Path) -> u64 {
    let metadata = fs::metadata(path).unwrap();
    if metadata.is_file() {
        return blocks(metadata.len());
    }
    let below = fs::read_dir(path).unwrap();
    BLOCK + below.map(|entry| disk_bytes(&entry.unwrap().path())).sum::<u64>()
}

fn indices(store: &mut RecordStore) -> Vec<u64> {
    let (mut from, mut found) = (0, Vec::new());
    while let Some(record) = store.next_in(from, u64::MAX).unwrap() {
        from = record.index + 1;
        found.push(record.index);
    }
    found
}

fn encoded_len(record: &Record) -> u64 {
    let mut buffer = Vec::new();
    segment::encode(record, &mut buffer).unwrap();
    buffer.len() as u64
}

#[test]
fn records_are_read_by_index_and_in_order_also_after_a_restart() {
    let place = Place::new();
    let mut store = place.open(OWNER, 1 << 20);
    assert_eq!((store.available(), store.last_index()), Default::default());
    for index in [1, 31, 60, 1000] {
        store.append(&record(index, 9000)).unwrap();
    }
    for mut store in [store, place.open(OWNER, 1 << 20)] {
        assert_eq!(indices(&mut store), [1, 31, 60, 1000]);
        assert_eq!(store.get(31).unwrap(), Some(record(31, 9000)));
        assert_eq!(store.get(32).unwrap(), None);
        assert_eq!(store.next_in(32, 59).unwrap(), None);
        assert_eq!(store.next_in(32, 60).unwrap(), Some(record(60, 9000)));
        let available = store.available();
        assert_eq!((available.first_index, available.last_index), (1, 1000));
        assert_eq!(available.last_timestamp - available.first_timestamp, 999_000);
    }
}

#[test]
fn indices_only_increase() {
    let place = Place::new();
    let mut store = place.open(OWNER, 1 << 20);
    assert!(store.append(&record(0, 1)).is_err());
    store.append(&record(5, 1)).unwrap();
    for index in [4, 5] {
        let refused = store.append(&record(index, 1));
        assert!(
            matches!(refused, Err(RecordStoreError::NotNewer { last: 5, .. })),
            "{refused:?}"
        );
    }
    store.append(&record(MAX_INDEX, 1)).unwrap();
    assert_eq!(indices_to_max(&mut store), [5, MAX_INDEX]);
}

fn indices_to_max(store: &mut RecordStore) -> Vec<u64> {
    let first = store.next_in(0, u64::MAX).unwrap().unwrap().index;
    vec![first, store.next_in(first + 1, u64::MAX).unwrap().unwrap().index]
}

#[test]
fn the_oldest_records_go_in_small_steps_and_the_bound_holds() {
    let place = Place::new();
    let max = 2 << 20;
    let mut store = place.open(OWNER, max);
    let mut fewest = usize::MAX;
    for index in 1..=600 {
        store.append(&record(index, 10_000)).unwrap();
        assert!(disk_bytes(&place.root()) <= max);
        if index > 300 {
            fewest = fewest.min(indices(&mut store).len());
        }
    }
    let stored = indices(&mut store);
    assert_eq!(*stored.last().unwrap(), 600);
    assert!(stored.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{stored:?}");
    assert!(fewest * 10_000 > max as usize * 3 / 4, "{fewest} records");
    assert_eq!(store.available().first_index, stored[0]);
}

#[test]
fn records_of_other_versions_go_first_and_count() {
    let place = Place::new();
    let max = 300_000;
    let older = RecordOwner { version: 9, ..OWNER };
    let other_project = RecordOwner { project_id: 5, ..OWNER };
    for (age, owner) in [(3, other_project), (2, older)] {
        let mut store = place.open(owner, max);
        for index in 1..=8 {
            store.append(&record(index, 10_000)).unwrap();
        }
        let then = std::time::SystemTime::now() - std::time::Duration::from_secs(age * 100);
        for file in place.files(owner) {
            File::open(file).unwrap().set_modified(then).unwrap();
        }
    }
    let mut store = place.open(OWNER, max);
    let project = place.root().join("5");
    for index in 1..=200 {
        store.append(&record(index, 10_000)).unwrap();
        assert!(disk_bytes(&place.root()) <= max);
        let older_files = place.root().join("12/9").exists().then(|| place.files(older).len());
        assert!(
            !project.exists() || older_files == Some(8),
            "the version that was written to longest ago goes first"
        );
        assert!(older_files.is_none() || store.available().first_index == 1);
    }
    assert!(!project.exists() && !place.root().join("12/9").exists());
    assert_eq!(*indices(&mut store).last().unwrap(), 200);
}

#[test]
fn a_smaller_bound_is_kept_from_the_start() {
    let place = Place::new();
    let mut store = place.open(OWNER, 1 << 20);
    for index in 1..=50 {
        store.append(&record(index, 10_000)).unwrap();
    }
    let mut store = place.open(OWNER, 200_000);
    assert!(disk_bytes(&place.root()) <= 200_000);
    assert_eq!(*indices(&mut store).last().unwrap(), 50);
}

#[test]
fn a_record_larger_than_the_bound_is_refused_and_changes_nothing() {
    let place = Place::new();
    let mut store = place.open(OWNER, 50_000);
    store.append(&record(1, 100)).unwrap();
    let refused = store.append(&record(2, 50_000));
    assert!(matches!(refused, Err(RecordStoreError::TooLarge { .. })), "{refused:?}");
    assert_eq!((indices(&mut store), store.last_index()), (vec![1], 1));
}

#[test]
fn a_record_that_was_cut_at_any_byte_is_dropped_and_the_store_goes_on() {
    let place = Place::new();
    let mut store = place.open(OWNER, 1 << 20);
    let mut lengths = Vec::new();
    for index in 1..=3 {
        store.append(&record(index, 60)).unwrap();
        lengths.push(fs::metadata(&place.files(OWNER)[0]).unwrap().len());
    }
    let file = &place.files(OWNER)[0];
    let whole = fs::read(file).unwrap();
    for end in lengths[1]..lengths[2] {
        for zeros in [0, 10, 5000] {
            let mut content = whole[..end as usize].to_vec();
            content.resize(content.len() + zeros, 0);
            fs::write(file, content).unwrap();
            let mut store = place.open(OWNER, 1 << 20);
            let expected = if end == lengths[2] { vec![1, 2, 3] } else { vec![1, 2] };
            assert_eq!(indices(&mut store), expected, "cut at {end}, {zeros} zeros");
            assert_eq!((store.available().last_index, store.last_index()), (2, 2));
            store.append(&record(4, 60)).unwrap();
            assert_eq!(indices(&mut place.open(OWNER, 1 << 20)), [1, 2, 4]);
        }
    }
}

#[test]
fn a_damaged_byte_costs_one_record_at_most() {
    let place = Place::new();
    let mut store = place.open(OWNER, 1 << 20);
    for index in 1..=4 {
        store.append(&record(index, 60)).unwrap();
    }
    let file = &place.files(OWNER)[0];
    let whole = fs::read(file).unwrap();
    let len = whole.len() / 4;
    for at in 0..whole.len() {
        let mut content = whole.clone();
        content[at] ^= 0x55;
        fs::write(file, content).unwrap();
        let mut store = place.open(OWNER, 1 << 20);
        let damaged = (at / len) as u64 + 1;
        let expected: Vec<_> = (1..=4).filter(|index| *index != damaged).collect();
        assert_eq!(indices(&mut store), expected, "byte {at}");
        for index in expected {
            assert_eq!(store.get(index).unwrap(), Some(record(index, 60)));
        }
    }
}

#[test]
fn files_of_garbage_do_not_stop_the_start() {
    let place = Place::new();
    let mut store = place.open(OWNER, 4 << 20);
    store.append(&record(5, 100)).unwrap();
    drop(store);
    let directory = place.files(OWNER)[0].parent().unwrap().to_owned();
    fs::write(directory.join(tree::file_name(3)), vec![b'E'; 100_000]).unwrap();
    fs::write(directory.join(tree::file_name(9)), "EIR1 and no more").unwrap();
    fs::write(directory.join("notes.txt"), "of a person").unwrap();
    fs::create_dir(directory.join(tree::file_name(11))).unwrap();
    fs::create_dir_all(place.root().join("x/y")).unwrap();
    std::os::unix::fs::symlink("/", place.root().join("99")).unwrap();
    let mut store = place.open(OWNER, 4 << 20);
    assert_eq!(indices(&mut store), [5]);
    assert_eq!((store.available().first_index, store.available().last_index), (5, 5));
    assert_eq!(store.last_index(), 9, "new records come after every file");
    store.append(&record(10, 100)).unwrap();
    assert_eq!(indices(&mut place.open(OWNER, 4 << 20)), [5, 10]);
    assert!(directory.join("notes.txt").exists());
}

#[test]
fn a_store_that_somebody_removes_begins_anew_with_higher_indices() {
    let place = Place::new();
    let mut store = place.open(OWNER, 1 << 20);
    store.append(&record(1, 100)).unwrap();
    fs::remove_dir_all(place.root()).unwrap();
    assert!(store.append(&record(1, 100)).is_err());
    store.append(&record(2, 100)).unwrap();
    assert_eq!(indices(&mut store), [2]);
    assert_eq!(
        (store.available().first_index, indices(&mut place.open(OWNER, 1 << 20))),
        (2, vec![2])
    );
}

#[test]
fn only_the_user_of_the_component_can_read_the_records() {
    let place = Place::new();
    let mut store = place.open(OWNER, 1 << 20);
    store.append(&record(1, 100)).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let file = &place.files(OWNER)[0];
    assert_eq!(
        (mode(file), mode(file.parent().unwrap()), mode(&place.root())),
        (0o600, 0o700, 0o700)
    );
}

#[derive(Debug, Clone)]
enum Step {
    Append {
        gap: u64,
        bytes: usize,
    },
    Restart,
    /// A SIGKILL in a write, or a power cut: bytes of the last record are missing.
    Crash(u64),
    Switch(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        20 => (1_u64..40, prop_oneof![0_usize..500, 0_usize..30_000]).prop_map(|(gap, bytes)| Step::Append { gap, bytes }),
        2 => Just(Step::Restart),
        2 => (1_u64..200).prop_map(Step::Crash),
        1 => (1_u64..4).prop_map(Step::Switch),
    ];
    prop::collection::vec(step, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 32,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("tests/data/regressions/records.txt"))),
        ..ProptestConfig::default()
    })]

    /// The model: a list of the records that were appended, of which the store has the newest.
    #[test]
    fn the_store_has_the_newest_records_and_never_more_than_the_bound(steps in steps(), max in 60_000_u64..400_000) {
        let place = Place::new();
        let mut owner = OWNER;
        let mut store = place.open(owner, max);
        let mut appended: BTreeMap<u64, Vec<(u64, usize)>> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Append { gap, bytes } => {
                    let index = store.last_index() + gap;
                    if store.append(&record(index, bytes)).is_ok() {
                        appended.entry(owner.version).or_default().push((index, bytes));
                    } else {
                        prop_assert!(bytes as u64 + OWN_DIRECTORIES + BLOCK > max);
                    }
                }
                Step::Restart => store = place.open(owner, max),
                Step::Crash(cut) => {
                    let known = appended.entry(owner.version).or_default();
                    // Only the record that was written last can be incomplete, and it is in the last file.
                    if let Some(path) = place.files(owner).pop()
                        && let begins = path.file_name().unwrap().to_owned()
                        && let Some((index, bytes)) = known.pop_if(|(index, _)| begins <= *tree::file_name(*index))
                    {
                        let len = fs::metadata(&path).unwrap().len();
                        let cut = cut.min(encoded_len(&record(index, bytes)));
                        OpenOptions::new().write(true).open(path).unwrap().set_len(len - cut).unwrap();
                    }
                    store = place.open(owner, max);
                }
                Step::Switch(version) => {
                    owner.version = version;
                    store.switch_to(owner);
                    store.open().unwrap();
                }
            }
            prop_assert!(disk_bytes(&place.root()) <= max);
            let (known, stored) = (appended.entry(owner.version).or_default(), indices(&mut store));
            let newest = known.get(known.len() - stored.len().min(known.len())..).unwrap();
            prop_assert_eq!(&stored, &newest.iter().map(|(index, _)| *index).collect::<Vec<_>>());
            for (index, bytes) in newest.iter().rev().step_by(7) {
                prop_assert_eq!(store.get(*index).unwrap(), Some(record(*index, *bytes)));
            }
            let available = store.available();
            prop_assert_eq!(available.first_index, stored.first().copied().unwrap_or_default());
            prop_assert_eq!(available.last_index, stored.last().copied().unwrap_or_default());
            if let Some((index, _)) = newest.first() {
                prop_assert_eq!(available.first_timestamp, record(*index, 0).timestamp_ms);
            }
        }
    }
}

#[test]
fn a_file_and_a_record_with_an_index_that_has_no_next_one_are_skipped() {
    let place = Place::new();
    let mut store = place.open(OWNER, 1 << 20);
    store.append(&record(1, 10)).unwrap();
    let directory = place.files(OWNER)[0].parent().unwrap().to_owned();
    let mut encoded = Vec::new();
    segment::encode(&record(u64::MAX, 10), &mut encoded).unwrap();
    fs::write(directory.join(tree::file_name(u64::MAX)), &encoded).unwrap();
    fs::write(directory.join(tree::file_name(5)), &encoded).unwrap();
    let mut store = place.open(OWNER, 1 << 20);
    assert_eq!(store.last_index(), 5);
    store.append(&record(6, 10)).unwrap();
    assert_eq!(indices(&mut store), [1, 6]);
}
