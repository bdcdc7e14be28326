use super::*;
use crate::cache::FileCache;
use crate::cache::queue::QUEUE_JOBS;
use crate::config::FileCacheConfig;
use bytes::Bytes;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc as blocking;
use uuid::Uuid;

const LIMIT: Duration = Duration::from_secs(10);

fn item(bytes: usize) -> CacheItem {
    CacheItem {
        id: Uuid::new_v4(),
        image: Some(Bytes::from(vec![0; bytes])),
        json: Bytes::from_static(b"{}"),
    }
}

/// A store that waits for permission before each step, and reports each step. When the sender of permissions is dropped,
/// every step is allowed.
struct Stepwise {
    allowed: blocking::Receiver<()>,
    done: blocking::Sender<String>,
}

impl Stepwise {
    fn step(&self, what: String) {
        let _ = self.allowed.recv();
        let _ = self.done.send(what);
    }
}

impl PairStore for Stepwise {
    fn open(&mut self, _: Instant) -> Result<(), CacheError> {
        Ok(())
    }

    fn put(&mut self, item: &CacheItem, _: Instant) -> Result<(), CacheError> {
        self.step(format!("put {}", item.id));
        Ok(())
    }

    fn clear(&mut self) -> Result<(), CacheError> {
        self.step("clear".to_owned());
        Ok(())
    }

    fn clear_one(&mut self, id: Uuid) -> Result<(), CacheError> {
        self.step(format!("clear {id}"));
        Err(CacheError::NoSuchPair { id })
    }
}

fn stepwise() -> (
    CacheWriter,
    Arc<Stats>,
    blocking::Sender<()>,
    blocking::Receiver<String>,
) {
    let (allow, allowed) = blocking::channel();
    let (done, steps) = blocking::channel();
    let stats = Arc::new(Stats::default());
    let writer = CacheWriter::start("test", Stepwise { allowed, done }, Arc::clone(&stats)).unwrap();
    (writer, stats, allow, steps)
}

#[tokio::test]
async fn offering_a_pair_never_waits_for_a_store_that_hangs() {
    let (writer, stats, allow, _steps) = stepwise();
    let accepted = (0..1000).filter(|_| writer.offer(item(10))).count();
    assert!((QUEUE_JOBS..=QUEUE_JOBS + 1).contains(&accepted), "{accepted}");
    assert_eq!(stats.cache_failures.get(), 1000 - accepted as u64);

    drop(allow);
    assert!(writer.stop(LIMIT).await);
    assert_eq!(stats.cache_writes.get(), accepted as u64);
}

#[tokio::test]
async fn the_queue_is_bounded_in_bytes_too() {
    let (writer, stats, _allow, _steps) = stepwise();
    let accepted = (0..10).filter(|_| writer.offer(item(QUEUE_BYTES / 4))).count();
    assert_eq!(accepted, 3, "four pairs exceed the limit by a few bytes");
    assert_eq!(stats.cache_failures.get(), 7);
}

#[tokio::test]
async fn removals_and_writes_happen_in_the_order_of_the_calls() {
    let (writer, _stats, allow, steps) = stepwise();
    drop(allow);
    let (first, second) = (item(1), item(1));
    assert!(writer.offer(first.clone()));
    writer.clear().await.unwrap();
    assert!(writer.offer(second.clone()));
    let answer = writer.clear_one(&first.id.to_string()).await;
    assert!(matches!(answer, Err(CacheError::NoSuchPair { id }) if id == first.id));
    assert!(writer.stop(LIMIT).await);
    let steps: Vec<_> = steps.iter().collect();
    let expected = [
        format!("put {}", first.id),
        "clear".into(),
        format!("put {}", second.id),
        format!("clear {}", first.id),
    ];
    assert_eq!(steps, expected);
}

#[tokio::test]
async fn only_an_id_reaches_the_store() {
    let (writer, _stats, allow, steps) = stepwise();
    drop(allow);
    for text in ["../secret", "", "*"] {
        assert!(matches!(writer.clear_one(text).await, Err(CacheError::NotAnId)));
    }
    assert!(writer.stop(LIMIT).await);
    assert_eq!(steps.iter().count(), 0);
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_store_that_hangs_and_counts_the_lost_pairs() {
    let (writer, stats, allow, steps) = stepwise();
    for _ in 0..3 {
        assert!(writer.offer(item(1)));
    }
    assert!(!writer.stop(Duration::from_millis(20)).await);
    assert_eq!(stats.cache_failures.get(), 3);
    drop(allow);
    // The write that hung may end; the others do not start any more.
    assert!(steps.iter().count() <= 1);
}

#[tokio::test]
async fn all_offered_pairs_are_on_disk_after_the_stop() {
    let directory = tempfile::tempdir().unwrap();
    let stats = Arc::new(Stats::default());
    let config = FileCacheConfig {
        directory: directory.path().join("pairs"),
        max_bytes: 1 << 20,
    };
    let writer = CacheWriter::start("file", FileCache::new(config.clone()), Arc::clone(&stats)).unwrap();
    for _ in 0..20 {
        assert!(writer.offer(item(100)));
    }
    assert!(writer.stop(LIMIT).await);
    assert_eq!(std::fs::read_dir(&config.directory).unwrap().count(), 40);
    assert_eq!((stats.cache_writes.get(), stats.cache_failures.get()), (20, 0));
}

#[tokio::test]
async fn pairs_for_a_directory_that_cannot_be_created_are_counted_as_failures() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let stats = Arc::new(Stats::default());
    let config = FileCacheConfig {
        directory: file.path().join("pairs"),
        max_bytes: 1 << 20,
    };
    let writer = CacheWriter::start("file", FileCache::new(config), Arc::clone(&stats)).unwrap();
    assert!(writer.offer(item(1)));
    assert!(writer.offer(item(1)));
    assert!(writer.clear().await.is_err());
    assert!(writer.stop(LIMIT).await);
    assert_eq!((stats.cache_writes.get(), stats.cache_failures.get()), (0, 2));
}

#[tokio::test]
async fn a_stop_waits_for_all_writes_while_a_command_waits_for_its_answer() {
    let (writer, stats, allow, _steps) = stepwise();
    assert!(writer.offer(item(1)));
    let mut clearing = std::pin::pin!(writer.clear());
    // The job of the command is queued behind the pair that hangs.
    tokio::select! {
        biased;
        _ = &mut clearing => panic!("the command must wait for the pair"),
        () = std::future::ready(()) => {}
    }
    assert!(writer.offer(item(1)));
    drop(allow);
    assert!(writer.stop(LIMIT).await);
    assert_eq!(
        stats.cache_writes.get(),
        2,
        "all pairs are written when the stop returns"
    );
    assert!(clearing.await.is_ok());
    assert!(matches!(writer.clear().await, Err(CacheError::Stopped)));
    assert!(!writer.offer(item(1)));
}

/// A store that panics on the first pair.
struct Panicking {
    opened: Arc<AtomicUsize>,
    puts: usize,
}

impl PairStore for Panicking {
    fn open(&mut self, _: Instant) -> Result<(), CacheError> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn put(&mut self, _: &CacheItem, _: Instant) -> Result<(), CacheError> {
        self.puts += 1;
        assert!(self.puts > 1, "the first pair");
        Ok(())
    }

    fn clear(&mut self) -> Result<(), CacheError> {
        panic!("nothing is cleared")
    }

    fn clear_one(&mut self, id: Uuid) -> Result<(), CacheError> {
        Err(CacheError::NoSuchPair { id })
    }
}

#[tokio::test]
async fn a_panic_of_the_store_loses_one_pair_and_the_store_is_opened_again() {
    let (opened, stats) = (Arc::new(AtomicUsize::new(0)), Arc::new(Stats::default()));
    let store = Panicking {
        opened: opened.clone(),
        puts: 0,
    };
    let writer = CacheWriter::start("test", store, Arc::clone(&stats)).unwrap();
    for _ in 0..3 {
        assert!(writer.offer(item(1)));
    }
    assert!(matches!(writer.clear().await, Err(CacheError::Panicked(_))));
    assert!(writer.stop(LIMIT).await);
    assert_eq!((stats.cache_writes.get(), stats.cache_failures.get()), (2, 1));
    assert_eq!(opened.load(Ordering::Relaxed), 3);
}
