use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::mpsc as std_mpsc;

use bytes::Bytes;

use super::*;
use crate::cache::clips::store::StoredClip;
use crate::cache::names::{PairPart, file_name};
use crate::capture::{ClipCodec, jpeg_clip};

const LIMIT: Duration = Duration::from_secs(20);

fn directory(path: &Path, max_bytes: u64) -> ClipDirectory {
    ClipDirectory {
        path: path.to_owned(),
        max_bytes,
        is_kept: true,
    }
}

fn names(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn clip_name(id: Uuid) -> String {
    file_name(id, PairPart::Clip)
}

#[tokio::test]
async fn a_clip_gets_its_name_when_it_is_complete_and_only_its_owner_can_read_it() {
    let directory_of_clips = tempfile::tempdir().unwrap();
    let path = directory_of_clips.path().join("new/clips");
    let stats = Arc::<Stats>::default();
    let cache = ClipCache::start(directory(&path, 1 << 20), stats.clone()).unwrap();
    let id = Uuid::new_v4();
    cache.offer(jpeg_clip(id, 20));
    assert!(cache.stop(LIMIT).await);
    assert_eq!(names(&path), [clip_name(id)]);
    let file = path.join(clip_name(id));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read(&file).unwrap()[4..8], *b"ftyp");
    assert_eq!((stats.clips_written.get(), stats.clips_failed.get()), (1, 0));
}

#[tokio::test]
async fn the_oldest_clips_are_removed_and_counted_and_other_files_stay() {
    let temporary = tempfile::tempdir().unwrap();
    let (path, stats) = (temporary.path(), Arc::<Stats>::default());
    let other = [Uuid::new_v4().to_string() + ".img", "precious.mp4".to_owned()];
    for name in &other {
        fs::write(path.join(name), vec![0; 100_000]).unwrap();
    }
    let interrupted = path.join(format!(".{}.part", clip_name(Uuid::new_v4())));
    fs::write(&interrupted, "left behind by a SIGKILL").unwrap();
    let ids: Vec<_> = (0..6).map(|_| Uuid::new_v4()).collect();
    let one = {
        let cache = ClipCache::start(directory(path, 1 << 20), stats.clone()).unwrap();
        cache.offer(jpeg_clip(ids[0], 20));
        assert!(cache.stop(LIMIT).await);
        fs::metadata(path.join(clip_name(ids[0]))).unwrap().len()
    };
    assert!(!interrupted.exists());
    let room = jpeg_clip(Uuid::new_v4(), 20).size().max(one as usize) as u64 + one * 2;
    let cache = ClipCache::start(directory(path, room), stats.clone()).unwrap();
    for id in &ids[1..] {
        cache.offer(jpeg_clip(*id, 20));
    }
    assert!(cache.stop(LIMIT).await);
    let kept: Vec<_> = ids.iter().filter(|id| path.join(clip_name(**id)).exists()).collect();
    assert_eq!(
        kept,
        ids[6 - kept.len()..].iter().collect::<Vec<_>>(),
        "the newest are kept"
    );
    assert!((1..=3).contains(&kept.len()));
    assert_eq!(stats.clips_removed.get() as usize, 6 - kept.len());
    assert!(other.iter().all(|name| path.join(name).exists()));
}

#[tokio::test]
async fn commands_remove_clips_and_nothing_else() {
    let temporary = tempfile::tempdir().unwrap();
    let (path, ids) = (temporary.path(), [Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4()]);
    let pair = file_name(Uuid::new_v4(), PairPart::Json);
    fs::write(path.join(&pair), "{}").unwrap();
    let cache = ClipCache::start(directory(path, 1 << 20), Arc::default()).unwrap();
    for id in ids {
        cache.offer(jpeg_clip(id, 3));
    }
    cache.clear_one(&ids[1].to_string()).await.unwrap();
    let again = cache.clear_one(&ids[1].to_string()).await;
    assert!(matches!(again, Err(CacheError::NoSuchPair { .. })), "{again:?}");
    let mut expected = [pair.clone(), clip_name(ids[0]), clip_name(ids[2])];
    expected.sort();
    assert_eq!(names(path), expected);
    cache.clear().await.unwrap();
    assert_eq!(names(path), [pair]);
}

#[tokio::test]
async fn a_clip_that_cannot_be_written_leaves_nothing_behind_and_is_counted() {
    let temporary = tempfile::tempdir().unwrap();
    let (path, stats) = (temporary.path(), Arc::<Stats>::default());
    let cache = ClipCache::start(directory(path, 1 << 20), stats.clone()).unwrap();
    cache.offer(jpeg_clip(Uuid::new_v4(), 0));
    cache.clear_one(&Uuid::new_v4().to_string()).await.unwrap_err();
    assert_eq!(names(path), [""; 0]);
    // Too large for the limit of all clips.
    let small = ClipCache::start(directory(path, 100), stats.clone()).unwrap();
    small.offer(jpeg_clip(Uuid::new_v4(), 20));
    assert!(small.stop(LIMIT).await);
    assert_eq!(names(path), [""; 0]);
    assert_eq!((stats.clips_written.get(), stats.clips_failed.get()), (0, 2));
}

/// A store on a disk that does not answer.
struct StuckStore(std_mpsc::Receiver<()>);

impl ClipStore for StuckStore {
    fn put(&mut self, _: &FinishedClip, _: &Haste) -> Result<StoredClip, CacheError> {
        let _ = self.0.recv();
        Ok(StoredClip {
            codec: ClipCodec::H264,
            bytes: 0,
            removed: 0,
        })
    }

    fn read(&self, id: Uuid) -> Result<Bytes, CacheError> {
        Err(CacheError::NoSuchPair { id })
    }

    fn uploaded(&mut self, _: Uuid) -> Result<(), CacheError> {
        Ok(())
    }

    fn clear(&mut self) -> Result<(), CacheError> {
        Ok(())
    }

    fn clear_one(&mut self, id: Uuid) -> Result<(), CacheError> {
        Err(CacheError::NoSuchPair { id })
    }
}

#[tokio::test]
async fn a_stuck_disk_neither_fills_the_memory_nor_delays_the_stop() {
    let (answer, stuck) = std_mpsc::channel();
    let stats = Arc::<Stats>::default();
    let size = jpeg_clip(Uuid::new_v4(), 20).size();
    let cache = ClipCache::with_store(StuckStore(stuck), stats.clone(), 5 * size).unwrap();
    for _ in 0..50 {
        cache.offer(jpeg_clip(Uuid::new_v4(), 20));
    }
    let waiting = cache.queue.pairs();
    assert!((4..=6).contains(&waiting), "{waiting}");
    assert_eq!(stats.clips_failed.get() as usize, 50 - waiting);
    let begin = Instant::now();
    assert!(!cache.stop(Duration::from_millis(100)).await);
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert_eq!(stats.clips_failed.get(), 50, "the clips that wait are lost");
    drop(answer);
}
