//! Every kind of damage of the file: either all of its messages are delivered, or it is renamed and counted; new ones are kept in any case.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use super::*;

const PAGE: usize = 4096;

/// A file with messages 0 to 19, closed in order or as a SIGKILL leaves it.
async fn whole_file(is_closed: bool) -> Vec<u8> {
    let (_directory, path) = spool_path();
    let fixture = SpoolFixture::start(&path, 1 << 20, AT_ONCE);
    fixture.push(0..20, 300);
    if !is_closed {
        fixture.until("written", |stats| stats.spooled.get() == 20).await;
        return fs::read(&path).unwrap();
    }
    fixture.finish().await;
    fs::read(&path).unwrap()
}

/// Starts on what `place` has put at the path of the file. Returns whether it counts as damaged.
async fn check(name: &str, place: impl FnOnce(&Path)) -> bool {
    check_all(name, true, place).await
}

/// redb takes damage in the last commit of a file that was not closed for a commit that a power cut has interrupted.
async fn check_all(name: &str, is_closed: bool, place: impl FnOnce(&Path)) -> bool {
    let (_directory, path) = spool_path();
    let directory = path.parent().unwrap();
    fs::create_dir_all(directory).unwrap();
    place(&path);
    let fixture = SpoolFixture::start(&path, 1 << 20, AT_ONCE);
    fixture.push(1000..1003, 300);
    fixture.outbox.connected();
    let mut delivered = Vec::new();
    while delivered.last() != Some(&1002) {
        delivered.extend(fixture.deliver(1).await);
    }
    let stats = Arc::clone(&fixture.stats);
    // New messages do not wait until the file is renamed.
    assert_eq!(fixture.finish().await, Undelivered::default(), "{name}");
    let is_damaged = stats.files_damaged.get() == 1;
    let lost = if is_closed || is_damaged {
        0
    } else {
        23 - delivered.len() as u32
    };
    let old = if is_damaged { 0..0 } else { 0..20 - lost };
    assert_eq!(delivered, old.chain(1000..1003).collect::<Vec<_>>(), "{name}");
    assert_eq!(damaged_files(directory).len(), usize::from(is_damaged), "{name}");
    is_damaged
}

#[tokio::test]
async fn a_file_with_any_page_zeroed_or_flipped_is_read_completely_or_renamed_and_counted() {
    for is_closed in [true, false] {
        let whole = whole_file(is_closed).await;
        let mut damaged = [0, 0];
        for begin in (0..whole.len()).step_by(PAGE) {
            let end = (begin + PAGE).min(whole.len());
            // Nothing is stored in pages that are zero.
            if whole[begin..end].iter().all(|byte| *byte == 0) {
                continue;
            }
            let (mut zeroed, mut flipped) = (whole.clone(), whole.clone());
            zeroed[begin..end].fill(0);
            flipped[begin..end].iter_mut().for_each(|byte| *byte = !*byte);
            for (count, bytes) in damaged.iter_mut().zip([zeroed, flipped]) {
                let name = format!("page {}, closed: {is_closed}", begin / PAGE);
                *count += u32::from(check_all(&name, is_closed, |path| fs::write(path, bytes).unwrap()).await);
            }
        }
        assert!(damaged.iter().all(|count| *count > 1), "{damaged:?}");
    }
}

#[tokio::test]
async fn a_file_that_was_cut_anywhere_is_read_completely_or_renamed_and_counted() {
    let whole = whole_file(true).await;
    let mut lengths: Vec<usize> = (0..40).map(|part| whole.len() * part / 40).collect();
    lengths.extend([0, 1, 8, 9, 63, 64, 319, 320, 511, 512, PAGE - 1, PAGE, whole.len() - 1]);
    for length in lengths {
        let cut = &whole[..length];
        assert!(check(&format!("{length} bytes"), |path| fs::write(path, cut).unwrap()).await);
    }
}

#[tokio::test]
async fn a_file_with_another_magic_or_format_version_is_renamed_and_counted() {
    let whole = whole_file(true).await;
    for at in 0..9 {
        let mut bytes = whole.clone();
        bytes[at] ^= 0xff;
        assert!(check(&format!("magic byte {at}"), |path| fs::write(path, bytes).unwrap()).await);
    }
    // redb keeps the version of its file format at the begin of each of the two commit slots.
    for version in [0, 1, 2, 4, 5, 255] {
        let mut bytes = whole.clone();
        (bytes[64], bytes[192]) = (version, version);
        assert!(check(&format!("version {version}"), |path| fs::write(path, bytes).unwrap()).await);
    }
}

#[tokio::test]
async fn what_is_no_file_but_has_its_name_is_renamed_and_counted() {
    assert!(
        check("a directory", |path| fs::create_dir_all(path.join("in the way"))
            .unwrap())
        .await
    );
}

#[tokio::test]
async fn whatever_is_in_the_way_of_the_file_new_messages_are_kept() {
    let places: [fn(&Path); 3] = [
        |path| fs::create_dir_all(path.with_file_name("spool.redb.new/in the way")).unwrap(),
        |path| symlink(path, path).unwrap(),
        |path| drop(UnixListener::bind(path).unwrap()),
    ];
    for place in places {
        let (_directory, path) = spool_path();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        place(&path);
        let fixture = SpoolFixture::start(&path, 1 << 20, AT_ONCE);
        fixture.push(0..3, 300);
        assert_eq!(fixture.finish().await.on_disk, 3);
    }
}

#[tokio::test]
async fn a_key_after_which_there_is_none_is_damage() {
    use redb::{Database, TableDefinition};

    const MESSAGES: TableDefinition<u64, (&str, u8, &[u8])> = TableDefinition::new("inferences");
    let whole = whole_file(true).await;
    for key in [u64::MAX, i64::MAX as u64] {
        let name = format!("key {key}");
        let is_damaged = check(&name, |path| {
            fs::write(path, &whole).unwrap();
            let database = Database::open(path).unwrap();
            let transaction = database.begin_write().unwrap();
            let value = ("t", 1, &b"{}"[..]);
            transaction.open_table(MESSAGES).unwrap().insert(key, value).unwrap();
            transaction.commit().unwrap();
        });
        assert!(is_damaged.await, "{name}");
    }
}
