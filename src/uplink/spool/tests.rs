use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::config::Qos;
use crate::device::Topics;
use crate::status::StatusSource;
use crate::status::stats::Stats;
use crate::uplink::message::Message;
use crate::uplink::outbox::OutboxBounds;

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
struct Bench {
    outbox: Arc<Outbox>,
    stats: Arc<Stats>,
    spool: Spool,
}

impl Bench {
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

    async fn finish(self) -> Rest {
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

fn asides(directory: &Path) -> Vec<String> {
    let names = fs::read_dir(directory)
        .expect("a directory")
        .map(|entry| entry.expect("entry").file_name());
    let names = names.map(|name| name.to_string_lossy().into_owned());
    names.filter(|name| name.contains("damaged")).collect()
}

fn place() -> (TempDir, std::path::PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("device/spool.redb");
    (directory, path)
}

#[tokio::test]
async fn what_was_not_delivered_comes_first_after_a_restart_with_live_messages_behind_it() {
    let (_directory, path) = place();
    let first = Bench::start(&path, 1 << 20, SpoolPolicy::default());
    first.push(0..500, 300);
    assert_eq!(
        first.finish().await,
        Rest {
            on_disk: 500,
            in_memory: 0,
            others: 0
        }
    );
    let second = Bench::start(&path, 1 << 20, SpoolPolicy::default());
    second.push(500..600, 300);
    assert_eq!(second.deliver(600).await, (0..600).collect::<Vec<_>>());
    second.until("the file is removed", |_| !path.exists()).await;
    assert_eq!(second.stats.spooled.get(), 0, "live messages were never written");
    assert_eq!(second.outbox.waiting(), 0);
}

#[tokio::test]
async fn the_file_and_its_directory_are_for_the_owner_alone() {
    let (_directory, path) = place();
    let bench = Bench::start(&path, 1 << 20, AT_ONCE);
    bench.push(0..1, 4);
    bench.finish().await;
    let mode = |path: &Path| fs::metadata(path).expect("it exists").permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(path.parent().expect("a directory")), 0o700);
}

#[tokio::test]
async fn while_connected_and_for_a_blink_nothing_is_written() {
    let (_directory, path) = place();
    let policy = SpoolPolicy {
        grace: LIMIT,
        ..AT_ONCE
    };
    let bench = Bench::start(&path, 1 << 20, policy);
    bench.push(0..100, 300);
    bench.deliver(100).await;
    bench.outbox.connection_lost();
    bench.push(100..150, 300);
    assert_eq!(bench.deliver(50).await, (100..150).collect::<Vec<_>>());
    assert_eq!(
        (bench.stats.spooled.get(), path.parent().expect("parent").exists()),
        (0, false)
    );
}

#[tokio::test]
async fn memory_that_fills_up_while_connected_goes_to_disk_and_comes_back_in_order() {
    let (_directory, path) = place();
    let bench = Bench::start(&path, 64 << 20, SpoolPolicy::default());
    bench.outbox.connected();
    for number in 0..120 {
        bench.push(number..number + 1, 100 << 10);
        bench
            .until("memory has room", |_| bench.outbox.bytes() <= 7 << 19)
            .await;
    }
    assert!(bench.stats.spooled.get() > 0);
    assert_eq!(bench.deliver(120).await, (0..120).collect::<Vec<_>>());
    assert_eq!(bench.stats.outbox_dropped.get(), 0);
}

#[tokio::test]
async fn beyond_the_bound_the_oldest_are_dropped_and_the_file_stays_bounded() {
    for size in [300, 5_000, 130_000] {
        let (_directory, path) = place();
        let bench = Bench::start(&path, 2 << 20, AT_ONCE);
        let count = (20 << 20) / size as u32;
        let (mut pushed, mut largest) = (0, 0);
        while pushed < count {
            let batch = (count - pushed).min(300.min(2_000_000 / size as u32));
            bench.push(pushed..pushed + batch, size);
            pushed += batch;
            bench
                .until("all is written", |stats| stats.spooled.get() == u64::from(pushed))
                .await;
            largest = fs::metadata(&path).map_or(0, |meta| meta.len()).max(largest);
        }
        let kept = (2 << 20) / size as u32;
        assert_eq!(
            bench.stats.spool_dropped.get(),
            u64::from(count - kept),
            "messages of {size} bytes"
        );
        println!("messages of {size} bytes, 2 MiB of payload: file of at most {largest} bytes");
        assert!(
            largest <= 4 * (2 << 20) + (4 << 20),
            "{largest} bytes for messages of {size}"
        );
        let newest: Vec<_> = (count - kept..count).collect();
        assert_eq!(bench.deliver(newest.len()).await, newest);
    }
}

#[tokio::test]
async fn a_file_that_is_damaged_is_set_aside_and_a_new_one_is_begun() {
    let cut = |bytes: &[u8]| bytes[..bytes.len() / 2].to_vec();
    let flip = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        // The payloads are zeros: turn over whatever is at several places.
        for at in [5_000, 9_000, 20_000, 40_000, 60_000] {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 0xff;
            }
        }
        bytes
    };
    let (_directory, path) = place();
    let directory = path.parent().expect("a directory");
    type Harm<'a> = &'a dyn Fn(&[u8]) -> Vec<u8>;
    let harms: [(&str, Harm<'_>); 4] = [
        ("garbage", &|_| b"no database".repeat(1000)),
        ("cut", &cut),
        ("flipped", &flip),
        ("header", &|bytes| {
            let mut bytes = bytes.to_vec();
            bytes[..64].fill(0x55);
            bytes
        }),
    ];
    for (name, harm) in harms {
        let bench = Bench::start(&path, 1 << 20, AT_ONCE);
        bench.push(0..200, 300);
        bench.finish().await;
        fs::write(&path, harm(&fs::read(&path).expect("a spool"))).expect("harm");

        let bench = Bench::start(&path, 1 << 20, AT_ONCE);
        bench.push(1000..1010, 300);
        assert_eq!(bench.finish().await.on_disk, 10, "{name}");
        assert_eq!(asides(directory).len(), 1, "{name}: one is kept");
        let bench = Bench::start(&path, 1 << 20, AT_ONCE);
        assert_eq!(bench.deliver(10).await, (1000..1010).collect::<Vec<_>>());
        bench.finish().await;
        assert!(!path.exists());
    }
}

#[tokio::test]
async fn a_file_of_another_version_is_set_aside() {
    let (_directory, path) = place();
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
    let bench = Bench::start(&path, 1 << 20, AT_ONCE);
    bench.push(0..3, 4);
    assert_eq!(bench.finish().await.on_disk, 3);
    assert_eq!(asides(&directory).len(), 1);
}

#[tokio::test]
async fn a_file_that_another_process_has_open_is_left_alone_until_it_is_free() {
    let (_directory, path) = place();
    let bench = Bench::start(&path, 1 << 20, AT_ONCE);
    bench.push(0..5, 4);
    bench.finish().await;
    let other = redb::Database::open(&path).expect("open");
    let bench = Bench::start(&path, 1 << 20, AT_ONCE);
    bench.push(5..10, 4);
    // Live messages are not held up by it.
    assert_eq!(bench.deliver(5).await, (5..10).collect::<Vec<_>>());
    assert!(bench.outbox.status().spool.failure().is_some());
    drop(other);
    assert_eq!(bench.deliver(5).await, (0..5).collect::<Vec<_>>());
    assert_eq!(bench.outbox.status().spool.failure(), None);
    assert!(asides(path.parent().expect("a directory")).is_empty());
}

/// A directory that holds only so much; `None` where it cannot be had.
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
async fn a_full_disk_costs_nothing_that_fits_into_memory_and_recovers_when_there_is_room() {
    let Some(disk) = SmallDisk::mount("4m") else {
        eprintln!("SKIPPED: only root may mount a small file system");
        return;
    };
    let path = disk.0.path().join("device/spool.redb");
    let filler = disk.0.path().join("filler");
    fs::write(&filler, vec![1; 3 << 20]).expect("fill the disk");
    let bench = Bench::start(&path, 64 << 20, AT_ONCE);
    // More than the disk has room for, less than memory and disk have.
    bench.push(0..2_000, 1_000);
    bench
        .until("the disk is full", |_| {
            let full = rustix::fs::statvfs(disk.0.path()).expect("statvfs").f_bavail < 40;
            full || bench.stats.spooled.get() == 2_000
        })
        .await;
    fs::remove_file(&filler).expect("make room");
    bench
        .until("all is written", |_| bench.outbox.rest().in_memory == 0)
        .await;
    assert_eq!(bench.deliver(2_000).await, (0..2_000).collect::<Vec<_>>());
    assert_eq!(
        (bench.stats.outbox_dropped.get(), bench.stats.spool_dropped.get()),
        (0, 0)
    );
    assert!(asides(path.parent().expect("a directory")).is_empty());
}

proptest! {
    // Each case writes, harms and reads a file.
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_overwritten_in_the_file_new_messages_are_kept(
        places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let (_directory, path) = place();
            let bench = Bench::start(&path, 1 << 20, AT_ONCE);
            bench.push(0..50, 300);
            bench.finish().await;
            let mut bytes = fs::read(&path).expect("a spool");
            for (place, byte) in &places {
                let at = place.index(bytes.len());
                bytes[at] = *byte;
            }
            bytes.truncate(cut.map_or(bytes.len(), |cut| cut.index(bytes.len())));
            fs::write(&path, bytes).expect("harm");

            let bench = Bench::start(&path, 1 << 20, AT_ONCE);
            bench.push(1000..1010, 300);
            let rest = bench.finish().await;
            prop_assert!(rest.on_disk >= 10 && rest.in_memory == 0, "{rest:?}");
            let bench = Bench::start(&path, 1 << 20, AT_ONCE);
            let delivered = bench.deliver(rest.on_disk as usize).await;
            prop_assert_eq!(&delivered[delivered.len() - 10..], (1000..1010).collect::<Vec<_>>());
            bench.finish().await;
            Ok(())
        })?;
    }
}
