//! The thread behind an [`S3Cache`](super::S3Cache): it decides what is uploaded when, and what happens after a failure.
//!
//! Every pair gets a number when it arrives. The pairs on disk are older than those in memory, so uploading from the disk first
//! keeps the order. A pair goes to disk when S3 fails, or when memory fills because S3 is slow; it is removed from the disk when
//! both its objects are in the bucket.

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
use crate::cache::s3_location::S3Location;

/// How much can wait on disk.
const PENDING: PendingLimits = PendingLimits {
    pairs: 10_000,
    bytes: 256 << 20,
};
/// Bytes of pairs in memory that wait for an upload; beyond it all of them go to disk.
const BACKLOG_BYTES: usize = 4 << 20;
/// An object that S3 refuses this often is dropped: it would block all others.
const MAX_REFUSALS: u32 = 3;
/// How long running uploads get at the end, if the limit allows it.
const LAST_UPLOADS: Duration = Duration::from_millis(500);

/// The outcome of a task.
enum TaskResult {
    LookUp(Box<Result<(BucketClient, BucketOrigin), S3Error>>),
    Upload(Result<(), S3Error>),
    Clear(UploadIndex, Result<(), CacheError>),
}

/// A pair that is uploaded next.
struct NextUpload {
    number: u64,
    item: UploadItem,
    /// `None`: it is on disk.
    in_memory: Option<QueuedUpload>,
}

/// An upload that runs.
struct RunningUpload {
    number: u64,
    id: Uuid,
    /// `None`: it is on disk.
    in_memory: Option<QueuedUpload>,
    /// A command wants to remove the pair.
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
    /// The pair that S3 refuses, and how often it did.
    refused: Option<(u64, u32)>,
}

impl<'a> Uploader<'a> {
    pub(super) fn new(
        settings: S3Settings,
        jobs: &'a mut mpsc::Receiver<UploadJob>,
        stop: watch::Receiver<Option<Instant>>,
        status: Arc<UploadStatus>,
    ) -> Self {
        Self {
            pending: PendingPairs::new(settings.directory.join("s3-pending"), PENDING),
            index: Some(UploadIndex::new(&settings.directory)),
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
                "Pairs cannot wait on disk for S3"
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
                // An error means that the handle was dropped, which also ends the thread.
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

    /// Moves the pairs in memory to the disk while S3 fails, or when they are too many.
    fn limit_memory(&mut self, now: Instant) {
        let bytes: usize = self.memory.iter().map(|(_, queued)| queued.pair.size()).sum();
        if self.access.is_on_hold(now) || bytes > BACKLOG_BYTES {
            self.move_to_disk();
        }
    }

    fn move_to_disk(&mut self) {
        while let Some((number, queued)) = self.memory.pop_front() {
            self.keep(number, &queued.pair);
        }
    }

    /// Writes a pair to the disk; counts it as lost if that fails.
    fn keep(&mut self, number: u64, pair: &CacheItem) {
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

    /// Starts the first command once no pair that it removes is being uploaded.
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
        // Recorded first: an object without a record could never be removed. If that fails, the picture is still worth having.
        if let Some(Err(error)) = self.index.as_mut().map(|index| index.record(&location, id)) {
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

    /// How many pairs wait for an upload, or for another attempt.
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
            self.index = Some(UploadIndex::new(&self.settings.directory));
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
                    self.keep(number, &queued.pair);
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

    /// When there is something to do even if nothing happens.
    fn wake_at(&self, now: Instant) -> Option<Instant> {
        let drain_deadline = self.commands.drain_deadline().filter(|deadline| *deadline > now);
        [self.access.retry_at(now), drain_deadline].into_iter().flatten().min()
    }

    /// Moves everything to the disk, then gives running uploads a little time.
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
            self.keep(number, &queued.pair);
        }
        let left = deadline.map_or(Duration::ZERO, |deadline| {
            deadline.saturating_duration_since(Instant::now())
        });
        let _ = tokio::time::timeout(LAST_UPLOADS.min(left / 2), self.wait_for_uploads()).await;
        if self.pending.len() > 0 {
            tracing::info!(
                pairs = self.pending.len(),
                path = %self.pending.directory().display(),
                "Pairs wait on disk to be uploaded to S3 after the next start"
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

/// Completes at that time; never without one.
async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}
