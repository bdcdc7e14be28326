//! The thread of an [`S3Cache`](super::S3Cache). It decides which pair is uploaded next and what happens after a failure.
//!
//! Every pair gets a number when it arrives. The pairs on disk are older than those in memory, so uploading from the disk first
//! keeps the order. A pair is moved to disk if S3 fails, or if the memory fills because S3 is slow. It is removed from the disk
//! when both objects are in the bucket.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use uuid::Uuid;

use super::access::BucketAccess;
use super::bucket::{BucketClient, BucketOrigin};
use super::clear::{self, ClearTarget};
use super::clear_queue::ClearQueue;
use super::error::{RetryPlan, S3Error};
use super::index::UploadIndex;
use super::pending::{PendingLimits, PendingPairs};
use super::settings::S3Settings;
use super::upload::{QueuedUpload, UploadItem, UploadJob, UploadStatus};
use crate::cache::error::CacheError;
use crate::cache::item::CacheItem;
use crate::cache::names::PairPart;
use crate::cache::s3_location::S3Location;
use crate::status::damaged_files;

/// Limits of the pairs that wait on disk.
const PENDING: PendingLimits = PendingLimits {
    pairs: 10_000,
    bytes: 256 << 20,
};
/// Most bytes of pairs that wait in memory. Beyond that all of them are moved to disk.
const BACKLOG_BYTES: usize = 4 << 20;
/// A pair is dropped after this many refusals, because it would block all others.
const MAX_REFUSALS: u32 = 3;
/// Time for running uploads at the stop, if the limit of the stop allows it.
const LAST_UPLOADS: Duration = Duration::from_millis(500);

/// The result of a task.
enum TaskResult {
    LookUp(Box<Result<(BucketClient, BucketOrigin), S3Error>>),
    Upload(Result<(), S3Error>),
    Clear(UploadIndex, Result<(), CacheError>),
}

/// The pair that is uploaded next.
struct NextUpload {
    number: u64,
    item: UploadItem,
    /// `None`: it is on disk.
    in_memory: Option<QueuedUpload>,
}

/// A running upload.
struct RunningUpload {
    number: u64,
    id: Uuid,
    /// `None`: it is on disk.
    in_memory: Option<QueuedUpload>,
    /// Whether a command removes the pair.
    is_to_be_removed: bool,
    task: AbortHandle,
}

pub(super) struct Uploader<'a> {
    settings: S3Settings,
    jobs: &'a mut mpsc::Receiver<UploadJob>,
    stop: watch::Receiver<Option<Instant>>,
    status: Arc<UploadStatus>,
    access: BucketAccess,
    pending: PendingPairs,
    /// `None` while a clearing task has it.
    index: Option<UploadIndex>,
    /// Oldest first.
    memory: VecDeque<(u64, QueuedUpload)>,
    next_number: u64,
    uploads: HashMap<Id, RunningUpload>,
    tasks: JoinSet<TaskResult>,
    commands: ClearQueue,
    /// The pair that S3 refused last, and the number of refusals.
    refused: Option<(u64, u32)>,
}

impl<'a> Uploader<'a> {
    pub(super) fn new(
        settings: S3Settings,
        jobs: &'a mut mpsc::Receiver<UploadJob>,
        stop: watch::Receiver<Option<Instant>>,
        status: Arc<UploadStatus>,
    ) -> Self {
        let pending = settings.directory.join("s3-pending");
        damaged_files::make_way_for_directory(&pending, &status.stats);
        Self {
            pending: PendingPairs::new(pending, PENDING),
            index: Some(UploadIndex::new(&settings.directory, Arc::clone(&status.stats))),
            access: BucketAccess::new(status.flag.clone()),
            settings,
            jobs,
            stop,
            status,
            memory: VecDeque::new(),
            next_number: 0,
            uploads: HashMap::new(),
            tasks: JoinSet::new(),
            commands: ClearQueue::default(),
            refused: None,
        }
    }

    pub(super) async fn run(mut self) {
        match self.pending.open() {
            Ok(dropped) => self.count_dropped(dropped),
            Err(error) => tracing::error!(
                %error, advice = "make work_dir writable",
                "Pairs for S3 cannot be kept on disk"
            ),
        }
        self.next_number = self.pending.next_number();
        if self.pending.len() > 0 {
            tracing::info!(pairs = self.pending.len(), "Pairs on disk wait to be uploaded to S3");
        }
        loop {
            let now = Instant::now();
            self.limit_memory(now);
            self.start_tasks(now);
            let wake_at = self.wake_at(now);
            tokio::select! {
                // A dropped handle (an error) also ends the thread.
                _ = self.stop.changed() => break,
                job = self.jobs.recv() => match job {
                    Some(job) => self.accept(job),
                    None => break,
                },
                Some(result) = self.tasks.join_next_with_id(), if !self.tasks.is_empty() => self.on_task_end(result),
                () = sleep_until(wake_at) => {}
            }
        }
        self.finish().await;
    }

    /// Moves the pairs in memory to the disk if S3 fails or if there are too many.
    fn limit_memory(&mut self, now: Instant) {
        let bytes: usize = self.memory.iter().map(|(_, queued)| queued.pair.size()).sum();
        if self.access.is_on_hold(now) || bytes > BACKLOG_BYTES {
            self.move_to_disk();
        }
    }

    fn move_to_disk(&mut self) {
        while let Some((number, queued)) = self.memory.pop_front() {
            self.write_to_disk(number, &queued.pair);
        }
    }

    /// Writes a pair to the disk, or counts it as lost if that fails.
    fn write_to_disk(&mut self, number: u64, pair: &CacheItem) {
        match self.pending.put(number, pair) {
            Ok(dropped) => self.count_dropped(dropped),
            Err(error) => self.status.lost(1, &error),
        }
    }

    fn count_dropped(&self, pairs: usize) {
        if pairs > 0 {
            self.status.lost(pairs, &CacheError::PendingFull);
        }
    }

    fn accept(&mut self, job: UploadJob) {
        match job {
            UploadJob::Put(queued) => {
                self.memory.push_back((self.next_number, queued));
                self.next_number += 1;
            }
            UploadJob::Clear(reply) => {
                self.memory.clear();
                self.pending.clear();
                for upload in self.uploads.values_mut() {
                    upload.is_to_be_removed = true;
                }
                self.commands.push(ClearTarget::All, reply);
            }
            UploadJob::ClearOne(id, reply) => {
                let before = self.memory.len();
                self.memory.retain(|(_, queued)| queued.pair.id != id);
                let mut was_waiting = self.memory.len() < before;
                was_waiting |= self.pending.remove_id(id);
                for upload in self.uploads.values_mut().filter(|upload| upload.id == id) {
                    upload.is_to_be_removed = true;
                    was_waiting = true;
                }
                self.commands.push(ClearTarget::One { id, was_waiting }, reply);
            }
        }
    }

    fn start_tasks(&mut self, now: Instant) {
        if self.access.start_look_up(now) {
            let (bucket, sdk) = (self.settings.bucket.clone(), self.settings.sdk.clone());
            self.tasks
                .spawn(async move { TaskResult::LookUp(Box::new(look_up(&bucket, sdk).await)) });
        }
        if !self.commands.is_empty() {
            self.start_command(now);
            return;
        }
        while self.uploads.len() < self.access.max_uploads(now) {
            let Some(bucket) = self.access.bucket().cloned() else {
                return;
            };
            let Some(next) = self.next_upload() else { return };
            self.start_upload(bucket, next);
        }
    }

    /// Starts the first command if no pair that it removes is being uploaded.
    fn start_command(&mut self, now: Instant) {
        let Some(target) = self.commands.waiting() else { return };
        let mut conflicting = self
            .uploads
            .values()
            .filter(|upload| upload.is_to_be_removed)
            .peekable();
        if conflicting.peek().is_some() {
            if self.commands.drain_deadline().is_some_and(|deadline| now >= deadline) {
                conflicting.for_each(|upload| upload.task.abort());
            }
            return;
        }
        let Some(index) = self.index.take() else { return };
        self.commands.started();
        let (bucket, settings) = (self.access.bucket().cloned(), self.settings.clone());
        self.tasks.spawn(async move {
            let (index, result) = clear::run(index, target, bucket, settings).await;
            TaskResult::Clear(index, result)
        });
    }

    /// The oldest pair that is not being uploaded.
    fn next_upload(&mut self) -> Option<NextUpload> {
        let uploads = &self.uploads;
        let is_free = |number| !uploads.values().any(|upload| upload.number == number);
        while let Some((number, _)) = self.pending.oldest(is_free) {
            match self.pending.read(number) {
                Ok(read) => {
                    let location = S3Location {
                        bucket: self.settings.bucket.clone(),
                        prefix: read.prefix,
                    };
                    return Some(NextUpload {
                        number,
                        item: UploadItem {
                            location,
                            pair: read.pair,
                        },
                        in_memory: None,
                    });
                }
                Err(error) if error.is_foreign() => {
                    self.pending.skip(number);
                    self.status.left_on_disk(&error);
                }
                Err(error) => {
                    self.pending.remove(number);
                    self.status.lost(1, &error);
                }
            }
        }
        let (number, queued) = self.memory.pop_front()?;
        Some(NextUpload {
            number,
            item: queued.clone(),
            in_memory: Some(queued),
        })
    }

    fn start_upload(&mut self, bucket: Arc<BucketClient>, next: NextUpload) {
        let UploadItem { location, pair } = next.item;
        let id = pair.id;
        // Recorded before the upload: `clear_cache` cannot remove an object without a record. If recording fails, it is uploaded anyway.
        let recorded = self.index.as_mut().map(|index| match pair.picture_part() {
            PairPart::Clip => index.record_clip(&location, id),
            _ => index.record(&location, id),
        });
        if let Some(Err(error)) = recorded {
            self.status.not_recorded(&error);
        }
        let task = self
            .tasks
            .spawn(async move { TaskResult::Upload(bucket.put_pair(&location.prefix, &pair).await) });
        let upload = RunningUpload {
            number: next.number,
            id,
            in_memory: next.in_memory,
            is_to_be_removed: false,
            task: task.clone(),
        };
        self.uploads.insert(task.id(), upload);
    }

    /// Number of pairs that wait for an upload or for another attempt.
    fn waiting(&self) -> usize {
        self.pending.len() + self.memory.len()
    }

    fn on_task_end(&mut self, result: Result<(Id, TaskResult), JoinError>) {
        let now = Instant::now();
        match result {
            Ok((_, TaskResult::LookUp(result))) => self.access.on_look_up(*result, now, self.waiting()),
            Ok((task, TaskResult::Upload(result))) => {
                if let Some(upload) = self.uploads.remove(&task) {
                    self.on_upload_end(upload, result, now);
                }
            }
            Ok((_, TaskResult::Clear(index, result))) => {
                self.index = Some(index);
                self.commands.finish(result);
            }
            Err(error) => self.on_interrupted_task(&error, now),
        }
    }

    /// A task was cancelled, or panicked.
    fn on_interrupted_task(&mut self, error: &JoinError, now: Instant) {
        if error.is_panic() {
            tracing::error!(%error, "A task of the S3 cache panicked");
        }
        if let Some(upload) = self.uploads.remove(&error.id()) {
            self.on_upload_end(upload, Err(S3Error::Interrupted), now);
        } else if self.index.is_none() {
            self.index = Some(UploadIndex::new(
                &self.settings.directory,
                Arc::clone(&self.status.stats),
            ));
            self.commands.finish(Err(CacheError::Stopped));
        } else {
            self.access.on_look_up(Err(S3Error::Interrupted), now, self.waiting());
        }
    }

    fn on_upload_end(&mut self, upload: RunningUpload, result: Result<(), S3Error>, now: Instant) {
        let number = upload.number;
        match result {
            Ok(()) => {
                self.status.stats.cache_writes.inc();
                self.pending.remove(number);
                self.access.on_success();
            }
            Err(_) if upload.is_to_be_removed => {}
            Err(error) => {
                if let Some(queued) = &upload.in_memory {
                    self.write_to_disk(number, &queued.pair);
                }
                self.access.on_failure(&error, now, self.waiting());
                if error.retry() == RetryPlan::NextObject && self.is_refused_for_good(number) {
                    self.pending.remove(number);
                    self.status.lost(1, &CacheError::S3(error));
                }
            }
        }
    }

    fn is_refused_for_good(&mut self, number: u64) -> bool {
        let earlier = self.refused.filter(|(refused, _)| *refused == number);
        let times = earlier.map_or(0, |(_, times)| times) + 1;
        self.refused = Some((number, times));
        times >= MAX_REFUSALS
    }

    /// The next time at which the loop must run even without an event.
    fn wake_at(&self, now: Instant) -> Option<Instant> {
        let drain_deadline = self.commands.drain_deadline().filter(|deadline| *deadline > now);
        [self.access.retry_at(now), drain_deadline].into_iter().flatten().min()
    }

    /// Moves all pairs to the disk, then waits a short time for running uploads.
    async fn finish(mut self) {
        let deadline = *self.stop.borrow();
        self.jobs.close();
        while let Ok(job) = self.jobs.try_recv() {
            self.accept(job);
        }
        self.move_to_disk();
        let in_memory: Vec<_> = (self.uploads.values_mut())
            .filter(|upload| !upload.is_to_be_removed)
            .filter_map(|upload| upload.in_memory.take().map(|queued| (upload.number, queued)))
            .collect();
        for (number, queued) in in_memory {
            self.write_to_disk(number, &queued.pair);
        }
        let left = deadline.map_or(Duration::ZERO, |deadline| {
            deadline.saturating_duration_since(Instant::now())
        });
        let _ = tokio::time::timeout(LAST_UPLOADS.min(left / 2), self.wait_for_uploads()).await;
        if self.pending.len() > 0 {
            tracing::info!(
                pairs = self.pending.len(),
                path = %self.pending.directory().display(),
                "Pairs on disk will be uploaded to S3 after the next start"
            );
        }
    }

    async fn wait_for_uploads(&mut self) {
        while !self.uploads.is_empty()
            && let Some(result) = self.tasks.join_next_with_id().await
        {
            let Ok((task, result)) = result else { continue };
            if let Some(upload) = self.uploads.remove(&task)
                && let TaskResult::Upload(Ok(())) = result
            {
                self.status.stats.cache_writes.inc();
                self.pending.remove(upload.number);
            }
        }
    }
}

async fn look_up(bucket: &str, sdk: Option<aws_config::SdkConfig>) -> Result<(BucketClient, BucketOrigin), S3Error> {
    let mut client = BucketClient::connect(bucket, sdk).await?;
    let origin = client.look_up_or_create().await?;
    Ok((client, origin))
}

/// Completes at `time`, or never if it is `None`.
async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}
