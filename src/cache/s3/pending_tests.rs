use super::*;
use std::os::unix::fs::PermissionsExt;

const LIMITS: PendingLimits = PendingLimits {
    pairs: 5,
    bytes: 10_000,
};

fn pair(picture: usize) -> CacheItem {
    let id = Uuid::new_v4();
    let image = [&JPEG_START[..], &vec![0; picture], &JPEG_END].concat();
    CacheItem {
        id,
        image: Some(image.into()),
        json: format!(r#"{{"id":"{id}","s3_prefix":"m_v1/"}}"#).into(),
    }
}

fn pending(directory: &tempfile::TempDir) -> PendingPairs {
    let mut pending = PendingPairs::new(directory.path().join("s3-pending"), LIMITS);
    pending.open().unwrap();
    pending
}

fn files(directory: &tempfile::TempDir) -> usize {
    fs::read_dir(directory.path().join("s3-pending")).unwrap().count()
}

fn all(pending: &PendingPairs) -> Vec<Uuid> {
    pending.entries.values().map(|entry| entry.id).collect()
}

#[test]
fn pairs_keep_their_order_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let (a, b, sound) = (pair(10), pair(20), CacheItem { image: None, ..pair(0) });
    let mut before = pending(&directory);
    before.put(8, &b).unwrap();
    before.put(7, &a).unwrap();
    before.put(9, &sound).unwrap();

    let after = pending(&directory);
    assert_eq!(all(&after), [a.id, b.id, sound.id]);
    assert_eq!(after.next_number(), 10);
    assert_eq!(
        after.read(7).unwrap(),
        PendingPair {
            prefix: "m_v1/".to_owned(),
            pair: a
        }
    );
    assert_eq!(after.read(9).unwrap().pair, sound);
    assert_eq!(after.oldest(|n| n != 7), Some((8, b.id)));
}

#[test]
fn the_oldest_pairs_and_their_files_are_removed_when_a_limit_is_exceeded() {
    let directory = tempfile::tempdir().unwrap();
    let mut pending = pending(&directory);
    let pairs: Vec<_> = (0..7).map(|_| pair(10)).collect();
    let dropped: usize = (0..).zip(&pairs).map(|(n, p)| pending.put(n, p).unwrap()).sum();
    assert_eq!((dropped, files(&directory)), (2, 10));
    assert_eq!(all(&pending), pairs[2..].iter().map(|p| p.id).collect::<Vec<_>>());

    assert_eq!(pending.put(7, &pair(9_900)).unwrap(), 5);
    assert!(matches!(
        pending.put(8, &pair(10_000)),
        Err(CacheError::TooLargeToWait { .. })
    ));
    assert_eq!((pending.len(), files(&directory)), (1, 2));
}

#[test]
fn files_of_interrupted_writes_are_removed_and_foreign_files_stay() {
    let directory = tempfile::tempdir().unwrap();
    let whole = pair(10);
    pending(&directory).put(3, &whole).unwrap();
    let path = directory.path().join("s3-pending");
    let id = Uuid::new_v4();
    for name in [format!("000000000004-{id}.img"), format!("000000000005-{id}.json.part")] {
        fs::write(path.join(name), "half").unwrap();
    }
    fs::write(path.join("notes.txt"), "mine").unwrap();

    let after = pending(&directory);
    assert_eq!((all(&after), files(&directory)), (vec![whole.id], 3));
}

#[test]
fn a_picture_that_is_empty_after_a_power_cut_is_damaged() {
    let directory = tempfile::tempdir().unwrap();
    let mut pending = pending(&directory);
    let pair = pair(10);
    pending.put(0, &pair).unwrap();
    fs::write(pending.path(0, pair.id, PairPart::Image), "").unwrap();
    assert!(matches!(pending.read(0), Err(CacheError::Damaged { .. })));
    fs::write(pending.path(0, pair.id, PairPart::Json), "{}").unwrap();
    assert!(matches!(pending.read(0), Err(CacheError::Damaged { .. })));
}

#[test]
fn a_picture_with_a_lost_sector_and_a_message_without_its_picture_are_damaged() {
    let directory = tempfile::tempdir().unwrap();
    let mut before = pending(&directory);
    let image = [&JPEG_START[..], &[7; 2000], &JPEG_END].concat();
    let (torn, alone) = (
        CacheItem {
            image: Some(image.clone().into()),
            ..pair(0)
        },
        pair(10),
    );
    before.put(0, &torn).unwrap();
    before.put(1, &alone).unwrap();
    let mut sectors = image;
    sectors[512..1024].fill(0);
    fs::write(before.path(0, torn.id, PairPart::Image), sectors).unwrap();
    fs::remove_file(before.path(1, alone.id, PairPart::Image)).unwrap();
    let after = pending(&directory);
    for number in [0, 1] {
        assert!(
            matches!(after.read(number), Err(CacheError::Damaged { .. })),
            "{number}"
        );
    }
}

#[test]
fn only_the_service_user_can_read_the_files() {
    let directory = tempfile::tempdir().unwrap();
    let mut pending = pending(&directory);
    let pair = pair(10);
    pending.put(0, &pair).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&pending.directory), 0o700);
    assert_eq!(mode(&pending.path(0, pair.id, PairPart::Image)), 0o600);
    assert_eq!(mode(&pending.path(0, pair.id, PairPart::Json)), 0o600);
}

#[test]
fn one_pair_and_all_pairs_can_be_removed() {
    let directory = tempfile::tempdir().unwrap();
    let mut pending = pending(&directory);
    let pairs = [pair(1), pair(2), pair(3)];
    (0..)
        .zip(&pairs)
        .for_each(|(n, p)| assert_eq!(pending.put(n, p).unwrap(), 0));
    assert!(pending.remove_id(pairs[1].id));
    assert!(!pending.remove_id(pairs[1].id));
    assert_eq!((pending.len(), files(&directory)), (2, 4));
    pending.clear();
    assert_eq!((pending.len(), files(&directory), pending.bytes), (0, 0, 0));
}

#[test]
fn pairs_of_another_user_are_taken_up_when_they_can_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let (a, b, c) = (pair(10), pair(20), pair(30));
    let mut before = pending(&directory);
    before.put(1, &a).unwrap();
    before.put(2, &b).unwrap();
    let aside = foreign_files::set_aside(before.directory()).unwrap();
    let mut between = PendingPairs::new(directory.path().join("s3-pending"), LIMITS);
    between.create_and_scan().unwrap();
    between.write(1, &c).unwrap();
    let after = pending(&directory);
    assert_eq!(all(&after), [c.id, a.id, b.id]);
    assert_eq!(after.read(3).unwrap().pair, b);
    assert!(!aside.exists());
    assert_eq!(files(&directory), 6);
}

#[test]
fn a_pair_that_is_skipped_stays_on_disk_for_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let waiting = pair(10);
    let mut first = pending(&directory);
    first.put(1, &waiting).unwrap();
    first.skip(1);
    assert_eq!(first.len(), 0);
    assert_eq!(all(&pending(&directory)), [waiting.id]);
}

#[test]
fn a_file_with_a_number_that_has_no_next_one_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let mut before = pending(&directory);
    before.put(7, &pair(10)).unwrap();
    for number in [&u64::MAX.to_string(), "18446744073709551614", "+8"] {
        let name = format!("{number}-{}.json", Uuid::new_v4());
        fs::write(
            directory.path().join("s3-pending").join(name),
            r#"{"s3_prefix":"m_v1/"}"#,
        )
        .unwrap();
    }
    let after = pending(&directory);
    assert_eq!((after.len(), after.next_number()), (1, 8));
    assert_eq!(files(&directory), 5);
}
