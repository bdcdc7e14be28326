use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Instant;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::config::Qos;
use crate::device::Topics;
use crate::status::StatusSource;
use crate::status::stats::Stats;
use crate::uplink::message::Message;
use crate::uplink::outbox::{OutboxBounds, Token};

mod damage;
mod model;

const LIMIT: Duration = Duration::from_secs(10);
const AT_ONCE: SpoolPolicy = SpoolPolicy {
    grace: Duration::ZERO,
    group_interval: Duration::ZERO,
    group_messages: 1,
    retry: Duration::from_millis(10),
};

fn inference(number: u32, size: usize) -> Message {
    let mut payload = number.to_be_bytes().to_vec();
    payload.resize(size.max(4), 0);
    Message::inference(&Topics::new("d"), payload, Qos::AtLeastOnce)
}

fn number(message: &Message) -> u32 {
    let first = message.payload.first_chunk();
    first.map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

/// An outbox with its spool in a directory that outlives it.
struct SpoolFixture {
    outbox: Arc<Outbox>,
    stats: Arc<Stats>,
    spool: Spool,
}

impl SpoolFixture {
    fn start(path: &Path, max_bytes: u64, policy: SpoolPolicy) -> Self {
        let stats = Arc::new(Stats::default());
        let outbox = Arc::new(Outbox::new(OutboxBounds::default(), Arc::clone(&stats)));
        let settings = SpoolSettings {
            path: path.to_owned(),
            max_bytes,
            policy,
        };
        let spool = Spool::start(settings, Arc::clone(&outbox)).expect("a thread");
        Self { outbox, stats, spool }
    }

    fn push(&self, numbers: std::ops::Range<u32>, size: usize) {
        for number in numbers {
            self.outbox.push(inference(number, size));
        }
    }

    async fn finish(self) -> Undelivered {
        self.spool.finish(tokio::time::Instant::now() + LIMIT).await
    }

    /// Sends and acknowledges everything, in order.
    async fn deliver(&self, count: usize) -> Vec<u32> {
        self.outbox.connected();
        let mut delivered = Vec::new();
        while delivered.len() < count {
            match self.outbox.next_to_send() {
                Some((token, message)) => {
                    delivered.push(number(&message));
                    assert!(self.outbox.acked(token));
                }
                None => tokio::time::timeout(LIMIT, self.outbox.pushed())
                    .await
                    .unwrap_or_else(|_| panic!("only {} came", delivered.len())),
            }
        }
        delivered
    }

    async fn until(&self, what: &str, condition: impl Fn(&Stats) -> bool) {
        let begun = Instant::now();
        while !condition(&self.stats) {
            assert!(begun.elapsed() < LIMIT, "{what}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

fn damaged_files(directory: &Path) -> Vec<String> {
    let names = fs::read_dir(directory)
        .expect("a directory")
        .map(|entry| entry.expect("entry").file_name());
    let names = names.map(|name| name.to_string_lossy().into_owned());
    names.filter(|name| name.contains("damaged")).collect()
}

fn spool_path() -> (TempDir, std::path::PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("device/spool.redb");
    (directory, path)
}

/// A spool on a disk that becomes full, its outbox, and the directory.
fn spool_on_full_disk() -> (SteppedSpool, Arc<Outbox>, TempDir) {
    let (directory, path) = spool_path();
    let bounds = OutboxBounds {
        inference_bytes: 1000,
        ..OutboxBounds::default()
    };
    let outbox = Arc::new(Outbox::new(bounds, Arc::default()));
    let settings = SpoolSettings {
        path,
        max_bytes: 1 << 20,
        policy: SpoolPolicy {
            retry: Duration::ZERO,
            ..AT_ONCE
        },
    };
    let mut spool = SteppedSpool::attach(settings, Arc::clone(&outbox));
    assert!(spool.open());
    push_100_bytes(&outbox, 0..5);
    assert!(spool.begin() && spool.complete());
    // These are not written any more.
    push_100_bytes(&outbox, 5..14);
    (spool, outbox, directory)
}

fn push_100_bytes(outbox: &Outbox, numbers: std::ops::Range<u32>) {
    for number in numbers {
        outbox.push(inference(number, 100));
    }
}

/// Delivers what can be sent.
fn deliver_all(outbox: &Outbox) -> Vec<u32> {
    let next = || outbox.next_to_send().filter(|(token, _)| outbox.acked(*token));
    std::iter::from_fn(next).map(|(_, message)| number(&message)).collect()
}

#[test]
fn messages_are_read_from_a_full_disk_and_keep_their_order_while_memory_is_nearly_full() {
    let (mut spool, outbox, _directory) = spool_on_full_disk();
    outbox.connected();
    assert!(spool.begin() && spool.fail(), "only the writing fails");
    assert!(outbox.status().spool.failure().is_some());
    assert_eq!(deliver_all(&outbox), (0..14).collect::<Vec<_>>());
    assert!(spool.begin() && spool.complete(), "what was delivered is deleted later");
    assert_eq!(outbox.status().spool.failure(), None);
    assert_eq!(outbox.undelivered(), Undelivered::default());
}

#[test]
fn after_an_outage_with_a_full_disk_what_is_on_it_is_sent_first() {
    let (mut spool, outbox, _directory) = spool_on_full_disk();
    assert!(spool.begin() && spool.fail(), "it can be read");
    assert!(outbox.status().spool.failure().is_some());
    outbox.connected();
    assert!(deliver_all(&outbox).is_empty());
    assert!(spool.begin() && spool.fail(), "it is still full");
    assert_eq!(deliver_all(&outbox), (0..14).collect::<Vec<_>>());
    assert!(spool.begin() && spool.complete());
    assert_eq!(outbox.undelivered(), Undelivered::default());
}

#[test]
fn reading_writes_nothing() {
    let (_directory, path) = spool_path();
    let mut store = Store::new(path.clone(), 1 << 20);
    store.open().expect("open");
    let write = SpoolJob {
        write: vec![(Token(1), inference(1, 100))],
        ..SpoolJob::default()
    };
    store.perform(&write).expect("written");
    let before = fs::read(&path).expect("a file");
    let read = SpoolJob {
        load: Some(LoadRequest {
            from: Token::MIN,
            messages: 10,
            bytes: 1000,
        }),
        ..SpoolJob::default()
    };
    let loaded = store.perform(&read).expect("read").loaded.expect("loaded");
    assert_eq!(loaded.messages.len(), 1);
    assert!(
        fs::read(&path).expect("a file") == before,
        "on a full disk it would fail"
    );
}

#[tokio::test]
async fn undelivered_messages_are_sent_first_after_a_restart_and_live_messages_follow() {
    let (_directory, path) = spool_path();
    let first = SpoolFixture::start(&path, 1 << 20, SpoolPolicy::default());
    first.push(0..500, 300);
    assert_eq!(
        first.finish().await,
        Undelivered {
            on_disk: 500,
            in_memory: 0,
            others: 0
        }
    );
    let second = SpoolFixture::start(&path, 1 << 20, SpoolPolicy::default());
    second.push(500..600, 300);
    assert_eq!(second.deliver(600).await, (0..600).collect::<Vec<_>>());
    second.until("the file is removed", |_| !path.exists()).await;
    assert_eq!(second.stats.spooled.get(), 0, "live messages were never written");
    assert_eq!(second.outbox.waiting(), 0);
}

#[tokio::test]
async fn only_the_owner_can_read_the_file_and_its_directory() {
    let (_directory, path) = spool_path();
    let fixture = SpoolFixture::start(&path, 1 << 20, AT_ONCE);
    fixture.push(0..1, 4);
    fixture.finish().await;
    let mode = |path: &Path| fs::metadata(path).expect("it exists").permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(path.parent().expect("a directory")), 0o700);
}

#[tokio::test]
async fn nothing_is_written_while_connected_or_during_a_short_outage() {
    let (_directory, path) = spool_path();
    let policy = SpoolPolicy {
        grace: LIMIT,
        ..AT_ONCE
    };
    let fixture = SpoolFixture::start(&path, 1 << 20, policy);
    fixture.push(0..100, 300);
    fixture.deliver(100).await;
    fixture.outbox.connection_lost();
    fixture.push(100..150, 300);
    assert_eq!(fixture.deliver(50).await, (100..150).collect::<Vec<_>>());
    assert_eq!(
        (fixture.stats.spooled.get(), path.parent().expect("parent").exists()),
        (0, false)
    );
}

#[tokio::test]
async fn messages_go_to_disk_when_memory_fills_while_connected_and_keep_their_order() {
    let (_directory, path) = spool_path();
    let fixture = SpoolFixture::start(&path, 64 << 20, SpoolPolicy::default());
    fixture.outbox.connected();
    for number in 0..120 {
        fixture.push(number..number + 1, 100 << 10);
        fixture
            .until("memory has room", |_| fixture.outbox.bytes() <= 7 << 19)
            .await;
    }
    assert!(fixture.stats.spooled.get() > 0);
    assert_eq!(fixture.deliver(120).await, (0..120).collect::<Vec<_>>());
    assert_eq!(fixture.stats.outbox_dropped.get(), 0);
}

#[tokio::test]
async fn the_oldest_are_dropped_when_the_spool_is_full_and_the_file_stays_bounded() {
    for size in [300, 5_000, 130_000] {
        let (_directory, path) = spool_path();
        let fixture = SpoolFixture::start(&path, 2 << 20, AT_ONCE);
        let count = (20 << 20) / size as u32;
        let (mut pushed, mut largest) = (0, 0);
        while pushed < count {
            let batch = (count - pushed).min(300.min(2_000_000 / size as u32));
            fixture.push(pushed..pushed + batch, size);
            pushed += batch;
            fixture
                .until("all is written", |stats| stats.spooled.get() == u64::from(pushed))
                .await;
            largest = fs::metadata(&path).map_or(0, |meta| meta.len()).max(largest);
        }
        let kept = (2 << 20) / size as u32;
        assert_eq!(
            fixture.stats.spool_dropped.get(),
            u64::from(count - kept),
            "messages of {size} bytes"
        );
        println!("messages of {size} bytes, 2 MiB of payload: file of at most {largest} bytes");
        assert!(
            largest <= 4 * (2 << 20) + (4 << 20),
            "{largest} bytes for messages of {size}"
        );
        let newest: Vec<_> = (count - kept..count).collect();
        assert_eq!(fixture.deliver(newest.len()).await, newest);
    }
}

#[tokio::test]
async fn a_damaged_file_is_set_aside_and_a_new_one_is_created() {
    let cut = |bytes: &[u8]| bytes[..bytes.len() / 2].to_vec();
    let flip = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        // The payloads are zeros: change bytes at several positions.
        for at in [5_000, 9_000, 20_000, 40_000, 60_000] {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 0xff;
            }
        }
        bytes
    };
    let (_directory, path) = spool_path();
    let directory = path.parent().expect("a directory");
    type Damage<'a> = &'a dyn Fn(&[u8]) -> Vec<u8>;
    let damages: [(&str, Damage<'_>); 4] = [
        ("garbage", &|_| b"no database".repeat(1000)),
        ("cut", &cut),
        ("flipped", &flip),
        ("header", &|bytes| {
            let mut bytes = bytes.to_vec();
            bytes[..64].fill(0x55);
            bytes
        }),
    ];
    for (name, damage) in damages {
        let fixture = SpoolFixture::start(&path, 1 << 20, AT_ONCE);
        fixture.push(0..200, 300);
        fixture.finish().await;
        fs::write(&path, damage(&fs::read(&path).expect("a spool"))).expect("damage");

        let fixture = SpoolFixture::start(&path, 1 << 20, AT_ONCE);
        fixture.push(1000..1010, 300);
        assert_eq!(fixture.finish().await.on_disk, 10, "{name}");
        assert_eq!(damaged_files(directory).len(), 1, "{name}: one is kept");
        let fixture = SpoolFixture::start(&path, 1 << 20, AT_ONCE);
        assert_eq!(fixture.deliver(10).await, (1000..1010).collect::<Vec<_>>());
        fixture.finish().await;
        assert!(!path.exists());
    }
}

#[tokio::test]
async fn a_file_of_another_version_is_set_aside() {
    let (_directory, path) = spool_path();
    let directory = path.parent().expect("a directory").to_owned();
    fs::create_dir_all(&directory).expect("a directory");
    let meta: redb::TableDefinition<'_, &str, u64> = redb::TableDefinition::new("meta");
    let database = redb::Database::create(&path).expect("a database");
    let transaction = database.begin_write().expect("begin");
    transaction
        .open_table(meta)
        .expect("a table")
        .insert("format", store::FORMAT + 1)
        .expect("insert");
    transaction.commit().expect("commit");
    drop(database);
    let fixture = SpoolFixture::start(&path, 1 << 20, AT_ONCE);
    fixture.push(0..3, 4);
    assert_eq!(fixture.finish().await.on_disk, 3);
    assert_eq!(damaged_files(&directory).len(), 1);
}

/// A spool with these messages, which cannot be used while the returned database is open.
async fn opened_by_another(path: &Path, numbers: std::ops::Range<u32>) -> redb::Database {
    let fixture = SpoolFixture::start(path, 1 << 20, AT_ONCE);
    fixture.push(numbers, 4);
    fixture.finish().await;
    redb::Database::open(path).expect("open")
}

#[tokio::test]
async fn a_file_that_another_process_has_open_is_used_after_that_process_closes_it() {
    let (_directory, path) = spool_path();
    let other = opened_by_another(&path, 0..5).await;
    let fixture = SpoolFixture::start(&path, 1 << 20, AT_ONCE);
    fixture.push(5..10, 4);
    // Live messages do not wait for it.
    assert_eq!(fixture.deliver(5).await, (5..10).collect::<Vec<_>>());
    assert!(fixture.outbox.status().spool.failure().is_some());
    drop(other);
    assert_eq!(fixture.deliver(5).await, (0..5).collect::<Vec<_>>());
    assert_eq!(fixture.outbox.status().spool.failure(), None);
    assert!(damaged_files(path.parent().expect("a directory")).is_empty());
}

#[tokio::test]
async fn a_stop_writes_to_a_spool_that_can_be_used_again_before_the_next_attempt_is_due() {
    let (_directory, path) = spool_path();
    let other = opened_by_another(&path, 0..5).await;
    let policy = SpoolPolicy {
        retry: Duration::from_secs(3600),
        ..AT_ONCE
    };
    let fixture = SpoolFixture::start(&path, 1 << 20, policy);
    fixture.push(5..10, 4);
    let spool = fixture.outbox.clone();
    fixture
        .until("the spool is in use", |_| spool.status().spool.failure().is_some())
        .await;
    drop(other);
    let undelivered = fixture.finish().await;
    assert_eq!((undelivered.on_disk, undelivered.in_memory), (10, 0));
}

/// A mounted directory with little space; `None` without the right to mount.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount(size: &str) -> Option<Self> {
        let directory = tempfile::tempdir().ok()?;
        let done = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "none"])
            .arg(directory.path())
            .stderr(std::process::Stdio::null())
            .status();
        done.is_ok_and(|status| status.success()).then_some(Self(directory))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount")
            .arg("-l")
            .arg(self.0.path())
            .status();
    }
}

#[tokio::test]
async fn a_full_disk_loses_no_message_that_fits_into_memory_and_writing_resumes_when_there_is_room() {
    let Some(disk) = SmallDisk::mount("4m") else {
        eprintln!("SKIPPED: only root may mount a small file system");
        return;
    };
    let path = disk.0.path().join("device/spool.redb");
    let filler = disk.0.path().join("filler");
    fs::write(&filler, vec![1; 3 << 20]).expect("fill the disk");
    let fixture = SpoolFixture::start(&path, 64 << 20, AT_ONCE);
    // More than the disk has room for, less than memory and disk have.
    fixture.push(0..2_000, 1_000);
    fixture
        .until("the disk is full", |_| {
            let full = rustix::fs::statvfs(disk.0.path()).expect("statvfs").f_bavail < 40;
            full || fixture.stats.spooled.get() == 2_000
        })
        .await;
    fs::remove_file(&filler).expect("make room");
    fixture
        .until("all is written", |_| fixture.outbox.undelivered().in_memory == 0)
        .await;
    assert_eq!(fixture.deliver(2_000).await, (0..2_000).collect::<Vec<_>>());
    assert_eq!(
        (fixture.stats.outbox_dropped.get(), fixture.stats.spool_dropped.get()),
        (0, 0)
    );
    assert!(damaged_files(path.parent().expect("a directory")).is_empty());
}

proptest! {
    // Each case writes, damages and reads a file, which takes time.
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn new_messages_are_kept_whichever_bytes_of_the_file_are_overwritten(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let (_directory, path) = spool_path();
            let fixture = SpoolFixture::start(&path, 1 << 20, AT_ONCE);
            fixture.push(0..50, 300);
            fixture.finish().await;
            let mut bytes = fs::read(&path).expect("a spool");
            for (position, byte) in &changes {
                let at = position.index(bytes.len());
                bytes[at] = *byte;
            }
            bytes.truncate(cut.map_or(bytes.len(), |cut| cut.index(bytes.len())));
            fs::write(&path, bytes).expect("damage");

            let fixture = SpoolFixture::start(&path, 1 << 20, AT_ONCE);
            fixture.push(1000..1010, 300);
            let undelivered = fixture.finish().await;
            prop_assert!(undelivered.on_disk >= 10 && undelivered.in_memory == 0, "{undelivered:?}");
            let fixture = SpoolFixture::start(&path, 1 << 20, AT_ONCE);
            let delivered = fixture.deliver(undelivered.on_disk as usize).await;
            prop_assert_eq!(&delivered[delivered.len() - 10..], (1000..1010).collect::<Vec<_>>());
            fixture.finish().await;
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn messages_of_another_user_are_delivered_once_and_in_their_order_when_they_can_be_read() {
    let (_directory, path) = spool_path();
    let mut aside = Vec::new();
    for first in [0, 10, 20] {
        let run = SpoolFixture::start(&path, 1 << 20, SpoolPolicy::default());
        run.push(first..first + 5, 300);
        run.finish().await;
        if first < 20 {
            // What the spool does with a file that it may not read. It must not find the others meanwhile.
            let kept_as = foreign_files::set_aside(&path).unwrap();
            let hidden = path.with_file_name(format!("hidden-{first}"));
            fs::rename(&kept_as, &hidden).unwrap();
            aside.push((hidden, kept_as));
        }
    }
    for (index, (hidden, kept_as)) in aside.into_iter().enumerate() {
        let uid = if index == 0 { "1" } else { "1-2" };
        fs::rename(hidden, kept_as.with_file_name(format!("spool.redb.of-uid-{uid}"))).unwrap();
    }
    let last = SpoolFixture::start(&path, 1 << 20, AT_ONCE);
    last.push(30..32, 300);
    let expected: Vec<u32> = (0..5).chain(10..15).chain(20..25).chain(30..32).collect();
    assert_eq!(last.deliver(expected.len()).await, expected);
    assert_eq!(last.finish().await, Undelivered::default());
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
}

#[tokio::test]
async fn messages_that_were_taken_up_before_a_sigkill_are_not_taken_up_again() {
    let (_directory, path) = spool_path();
    let first = SpoolFixture::start(&path, 1 << 20, SpoolPolicy::default());
    first.push(0..3, 300);
    first.finish().await;
    let aside = foreign_files::set_aside(&path).unwrap();
    let copy = path.with_file_name("copy");
    fs::copy(&aside, &copy).unwrap();
    let mut store = Store::new(path.clone(), 1 << 20);
    assert_eq!(store.open().unwrap(), 3);
    drop(store);
    // As if the process had ended before it removed the file.
    fs::rename(&copy, &aside).unwrap();
    store::note_as_taken_up(&path, &aside);
    // One that was not taken up yet.
    let (_other_directory, other_path) = spool_path();
    let other = SpoolFixture::start(&other_path, 1 << 20, SpoolPolicy::default());
    other.push(3..6, 300);
    other.finish().await;
    let newer = std::path::PathBuf::from(format!("{}-2", aside.display()));
    fs::rename(other_path, &newer).unwrap();
    let second = SpoolFixture::start(&path, 1 << 20, AT_ONCE);
    let mut delivered = second.deliver(6).await;
    delivered.sort_unstable();
    assert_eq!(delivered, [0, 1, 2, 3, 4, 5]);
    assert_eq!(second.finish().await, Undelivered::default());
    assert!(!aside.exists() && !newer.exists());
}

#[tokio::test]
async fn a_file_of_another_user_that_is_no_database_does_not_stop_the_spool() {
    let (_directory, path) = spool_path();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path.with_file_name("spool.redb.of-uid-1"), "something else").unwrap();
    let first = SpoolFixture::start(&path, 1 << 20, AT_ONCE);
    first.push(0..3, 300);
    assert_eq!(first.deliver(3).await, [0, 1, 2]);
    assert_eq!(damaged_files(path.parent().unwrap()).len(), 1);
}
