use super::*;
use bytes::Bytes;
use std::fs::OpenOptions;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::time::SystemTime;
use tempfile::TempDir;

/// A cache in `<temporary>/cache`, which does not exist yet.
fn cache(max_bytes: u64) -> (TempDir, PathBuf, FileCache) {
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path().join("cache");
    let cache = FileCache::new(FileCacheConfig {
        directory: directory.clone(),
        max_bytes,
    });
    (temporary, directory, cache)
}

/// A pair of 100 bytes.
fn item() -> CacheItem {
    CacheItem {
        id: Uuid::new_v4(),
        image: Some(Bytes::from(vec![0xff; 90])),
        json: Bytes::from_static(b"{\"box\":[]}"),
    }
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn pair_of(item: &CacheItem) -> [String; 2] {
    [file_name(item.id, PairPart::Image), file_name(item.id, PairPart::Json)]
}

/// Writes the files of an earlier run, with a modification time of `modified_s` seconds after the epoch.
fn write_old_pair(directory: &Path, item: &CacheItem, modified_s: u64) {
    fs::create_dir_all(directory).unwrap();
    for (name, bytes) in pair_of(item).iter().zip([item.image.as_ref().unwrap(), &item.json]) {
        fs::write(directory.join(name), bytes).unwrap();
        let file = OpenOptions::new().write(true).open(directory.join(name)).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(modified_s))
            .unwrap();
    }
}

#[test]
fn a_pair_is_written_that_only_the_owner_can_read_and_the_directory_is_created() {
    let (_temporary, directory, mut cache) = cache(1000);
    let item = item();
    cache.put(&item, Instant::now()).unwrap();
    assert_eq!(names(&directory), pair_of(&item));
    let [image, json] = pair_of(&item).map(|name| directory.join(name));
    assert_eq!(fs::read(&image).unwrap(), item.image.unwrap());
    assert_eq!(fs::read(&json).unwrap(), item.json);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&directory), mode(&image), mode(&json)), (0o700, 0o600, 0o600));
}

#[test]
fn a_message_without_a_picture_is_stored_alone() {
    let (_temporary, directory, mut cache) = cache(1000);
    let item = CacheItem { image: None, ..item() };
    cache.put(&item, Instant::now()).unwrap();
    assert_eq!(names(&directory), [file_name(item.id, PairPart::Json)]);
    cache.clear_one(item.id).unwrap();
    assert!(names(&directory).is_empty());
}

#[test]
fn the_oldest_pairs_are_removed_first_also_those_of_earlier_runs() {
    let (_temporary, directory, mut cache) = cache(350);
    let (old, older, new, newer) = (item(), item(), item(), item());
    write_old_pair(&directory, &old, 2_000);
    write_old_pair(&directory, &older, 1_000);
    let now = Instant::now();
    cache.open(now).unwrap();
    assert_eq!(names(&directory).len(), 4);

    cache.put(&new, now).unwrap();
    cache.put(&newer, now).unwrap();
    let mut expected: Vec<_> = [&old, &new, &newer].into_iter().flat_map(pair_of).collect();
    expected.sort();
    assert_eq!(names(&directory), expected);
}

#[test]
fn a_smaller_limit_than_in_the_last_run_is_applied_at_the_start() {
    let (_temporary, directory, mut cache) = cache(150);
    let (old, new) = (item(), item());
    write_old_pair(&directory, &old, 1_000);
    write_old_pair(&directory, &new, 2_000);
    cache.open(Instant::now()).unwrap();
    assert_eq!(names(&directory), pair_of(&new));
}

#[test]
fn a_pair_larger_than_the_cache_is_refused_and_no_other_pair_is_removed() {
    let (_temporary, directory, mut cache) = cache(150);
    let small = item();
    cache.put(&small, Instant::now()).unwrap();
    let large = CacheItem {
        image: Some(Bytes::from(vec![0; 200])),
        ..item()
    };
    let error = cache.put(&large, Instant::now()).unwrap_err();
    assert!(
        matches!(error, CacheError::TooLarge { bytes: 210, max: 150 }),
        "{error}"
    );
    assert_eq!(names(&directory), pair_of(&small));
}

#[test]
fn foreign_files_and_links_are_neither_counted_nor_removed() {
    let (temporary, directory, mut cache) = cache(250);
    fs::create_dir(&directory).unwrap();
    let outside = temporary.path().join("outside");
    fs::write(&outside, [0; 5000]).unwrap();
    let link = file_name(Uuid::new_v4(), PairPart::Image);
    symlink(&outside, directory.join(&link)).unwrap();
    let folder = file_name(Uuid::new_v4(), PairPart::Json);
    fs::create_dir(directory.join(&folder)).unwrap();
    fs::write(directory.join("notes.json"), [0; 5000]).unwrap();
    let unfinished = unfinished_name(Uuid::new_v4(), PairPart::Image);
    symlink(&outside, directory.join(&unfinished)).unwrap();
    let mut foreign = vec![link, folder, "notes.json".to_owned(), unfinished];
    foreign.sort();

    let now = Instant::now();
    for _ in 0..3 {
        cache.put(&item(), now).unwrap();
    }
    assert_eq!(
        names(&directory).len(),
        foreign.len() + 4,
        "two pairs of 100 bytes fit into 250"
    );
    cache.clear().unwrap();
    assert_eq!(names(&directory), foreign);
    assert_eq!(fs::metadata(&outside).unwrap().len(), 5000);

    let linked = Path::new(&foreign.iter().find(|name| name.ends_with(".img")).unwrap()[..36]).to_owned();
    let id = super::super::pair_id(linked.to_str().unwrap()).unwrap();
    assert!(matches!(cache.clear_one(id), Err(CacheError::NoSuchPair { .. })));
    assert_eq!(names(&directory), foreign);
}

#[test]
fn a_link_under_the_name_of_an_unfinished_file_is_not_written_through() {
    let (temporary, directory, mut cache) = cache(1000);
    let outside = temporary.path().join("outside");
    fs::write(&outside, b"mine").unwrap();
    cache.open(Instant::now()).unwrap();
    let item = item();
    symlink(&outside, directory.join(unfinished_name(item.id, PairPart::Image))).unwrap();
    cache.put(&item, Instant::now()).unwrap();
    assert_eq!(fs::read(&outside).unwrap(), b"mine");
    assert!(!directory.join(file_name(item.id, PairPart::Image)).is_symlink());
}

#[test]
fn unfinished_files_of_a_crash_are_removed_and_half_pairs_count_as_pairs() {
    let (_temporary, directory, mut cache) = cache(150);
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join(unfinished_name(Uuid::new_v4(), PairPart::Json)), b"{").unwrap();
    let half = file_name(Uuid::new_v4(), PairPart::Image);
    fs::write(directory.join(&half), [0; 90]).unwrap();
    let now = Instant::now();
    cache.open(now).unwrap();
    assert_eq!(names(&directory), [half]);

    let item = item();
    cache.put(&item, now).unwrap();
    assert_eq!(names(&directory), pair_of(&item));
}

#[test]
fn the_picture_is_removed_when_its_message_cannot_be_written() {
    let (_temporary, directory, mut cache) = cache(1000);
    let item = item();
    // A directory with the name of the message: the rename fails after the picture was written.
    fs::create_dir_all(directory.join(file_name(item.id, PairPart::Json))).unwrap();
    assert!(matches!(
        cache.put(&item, Instant::now()),
        Err(CacheError::Write { .. })
    ));
    assert_eq!(names(&directory), [file_name(item.id, PairPart::Json)]);
}

#[test]
fn a_directory_that_cannot_be_created_is_tried_again_after_a_minute() {
    let (temporary, directory, _) = cache(1000);
    // Even root cannot create a directory below a file.
    fs::write(&directory, b"in the way").unwrap();
    let mut cache = FileCache::new(FileCacheConfig {
        directory: directory.join("deep").join("er"),
        max_bytes: 1000,
    });
    let start = Instant::now();
    let error = cache.open(start).unwrap_err();
    assert!(error.to_string().contains("deep/er"), "{error}");

    fs::remove_file(&directory).unwrap();
    let item = item();
    let waiting = cache.put(&item, start + Duration::from_secs(59)).unwrap_err();
    assert!(matches!(waiting, CacheError::DirectoryOnHold { .. }), "{waiting}");
    assert_eq!(names(temporary.path()), [""; 0]);
    cache.put(&item, start + Duration::from_secs(60)).unwrap();
    assert_eq!(names(&directory.join("deep").join("er")), pair_of(&item));
}

#[test]
fn a_directory_that_was_removed_is_created_again_at_once() {
    let (_temporary, directory, mut cache) = cache(150);
    let now = Instant::now();
    cache.put(&item(), now).unwrap();
    fs::remove_dir_all(&directory).unwrap();
    // The index forgets the pairs of the removed directory.
    let item = item();
    cache.put(&item, now).unwrap();
    assert_eq!(names(&directory), pair_of(&item));
}

#[test]
fn a_pair_is_removed_by_its_id_and_only_once() {
    let (_temporary, directory, mut cache) = cache(1000);
    let (first, second) = (item(), item());
    for item in [&first, &second] {
        cache.put(item, Instant::now()).unwrap();
    }
    cache.clear_one(first.id).unwrap();
    assert_eq!(names(&directory), pair_of(&second));
    assert!(matches!(cache.clear_one(first.id), Err(CacheError::NoSuchPair { .. })));
}

#[test]
fn clearing_a_missing_directory_does_nothing() {
    let (_temporary, directory, mut cache) = cache(1000);
    cache.clear().unwrap();
    assert!(!directory.exists());
}

#[test]
fn a_cleared_cache_stores_pairs_again_up_to_its_limit() {
    let (_temporary, directory, mut cache) = cache(200);
    let now = Instant::now();
    cache.put(&item(), now).unwrap();
    cache.clear().unwrap();
    for _ in 0..2 {
        cache.put(&item(), now).unwrap();
    }
    assert_eq!(names(&directory).len(), 4);
}
