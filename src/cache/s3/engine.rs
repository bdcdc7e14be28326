//! The thread behind an [`S3Cache`](super::S3Cache): what is uploaded when, and what happens when it cannot be.
//!
//! Every pair gets a number when it comes. What is in memory always came after what waits on disk, so sending the disk
//! first keeps the order. A pair goes to disk when S3 fails, or when memory fills because S3 is slow; it leaves the disk
//! when both its objects are in the bucket.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use uuid::Uuid;

use super::clear::{self, What};
use super::client::{Bucket, Found};
use super::error::{RetryPlan, S3Error};
use super::index::Index;
use super::pending::{Bounds, Pending};
use super::state::State;
use super::{Job, S3Settings, Shared, Waiting};
use crate::cache::requests::Answer;
use crate::cache::{CacheError, CacheItem, S3Location};

/// What may wait on disk.
const PENDING: Bounds = Bounds {
    pairs: 10_000,
    bytes: 256 << 20,
};
/// Bytes of pairs that wait in memory for an upload; beyond it all of them go to disk.
const BACKLOG_BYTES: usize = 4 << 20;
/// Commands that may wait for the one being carried out.
const COMMANDS: usize = 32;
/// An upload of what is to be removed may take this long; then it is interrupted.
const DRAIN: Duration = Duration::from_secs(5);
/// An object that S3 refuses this often is given up: it would hold up all others.
const MOST_REFUSALS: u32 = 3;
/// What is under way at the end gets this long, if the limit leaves it.
const LAST_UPLOADS: Duration = Duration::from_millis(500);

/// What a task was for, with its outcome.
enum Done {
    LookUp(Box<Result<(Bucket, Found), S3Error>>),
    Upload(Result<(), S3Error>),
    Clear(Index, Result<(), CacheError>),
}

/// A pair being uploaded.
struct Upload {
    number: u64,
    id: Uuid,
    /// `None`: it is on disk.
    in_memory: Option<Waiting>,
    /// It is to be removed.
    doomed: bool,
    task: AbortHandle,
}

/// A command that waits or is being carried out.
struct Clearing {
    what: What,
    answer: Answer,
    since: Instant,
    running: bool,
}

pub(super) struct Engine<'a> {
    settings: S3Settings,
    jobs: &'a mut mpsc::Receiver<Job>,
    stop: watch::Receiver<Option<Instant>>,
    shared: std::sync::Arc<Shared>,
    state: State,
    pending: Pending,
    /// `None` while it is lent to a clearing task.
    index: Option<Index>,
    /// Oldest first.
    memory: VecDeque<(u64, Waiting)>,
    next_number: u64,
    uploads: HashMap<Id, Upload>,
    tasks: JoinSet<Done>,
    /// The first one is carried out.
    commands: VecDeque<Clearing>,
    /// The pair that S3 refuses, and how often it did.
    refused: Option<(u64, u32)>,
}

impl<'a> Engine<'a> {
    pub(super) fn new(
        settings: S3Settings,
        jobs: &'a mut mpsc::Receiver<Job>,
        stop: watch::Receiver<Option<Instant>>,
        shared: std::sync::Arc<Shared>,
    ) -> Self {
        Self {
            pending: Pending::new(settings.directory.join("s3-pending"), PENDING),
            index: Some(new_index(&settings)),
            state: State::new(shared.flag.clone()),
            settings,
            jobs,
            stop,
            shared,
            memory: VecDeque::new(),
            next_number: 0,
            uploads: HashMap::new(),
            tasks: JoinSet::new(),
            commands: VecDeque::new(),
            refused: None,
        }
    }

    pub(super) async fn run(mut self) {
        match self.pending.open() {
            Ok(dropped) => self.dropped(dropped),
            Err(error) => {
                tracing::error!("pairs that S3 does not take cannot wait on disk: {error}; work_dir must be writable")
            }
        }
        self.next_number = self.pending.next_number();
        if self.pending.len() > 0 {
            tracing::info!("{} pairs wait on disk to be sent to S3", self.pending.len());
        }
        loop {
            let now = Instant::now();
            self.settle(now);
            self.start_tasks(now);
            let due = self.due(now);
            tokio::select! {
                // An error means that the handle is gone: an end too.
                _ = self.stop.changed() => break,
                job = self.jobs.recv() => match job {
                    Some(job) => self.take(job),
                    None => break,
                },
                Some(done) = self.tasks.join_next_with_id(), if !self.tasks.is_empty() => self.on_done(done),
                () = at(due) => {}
            }
        }
        self.finish().await;
    }

    /// Puts what waits in memory on disk when it must not stay there.
    fn settle(&mut self, now: Instant) {
        let bytes: usize = self.memory.iter().map(|(_, waiting)| waiting.pair.size()).sum();
        if self.state.holds(now) || bytes > BACKLOG_BYTES {
            self.spill();
        }
    }

    fn spill(&mut self) {
        while let Some((number, waiting)) = self.memory.pop_front() {
            self.keep(number, &waiting.pair);
        }
    }

    /// `false`: it could not be kept, which was counted.
    fn keep(&mut self, number: u64, pair: &CacheItem) -> bool {
        match self.pending.put(number, pair) {
            Ok(dropped) => {
                self.dropped(dropped);
                true
            }
            Err(error) => {
                self.shared.lost(1, &error);
                false
            }
        }
    }

    fn dropped(&self, pairs: usize) {
        if pairs > 0 {
            self.shared.lost(pairs, &CacheError::WaitedTooLong);
        }
    }

    fn take(&mut self, job: Job) {
        match job {
            Job::Put(waiting) => {
                self.memory.push_back((self.next_number, waiting));
                self.next_number += 1;
            }
            Job::Clear(answer) => {
                self.memory.clear();
                self.pending.clear();
                self.uploads.values_mut().for_each(|upload| upload.doomed = true);
                self.queue_command(What::All, answer);
            }
            Job::ClearOne(id, answer) => {
                let before = self.memory.len();
                self.memory.retain(|(_, waiting)| waiting.pair.id != id);
                let mut waited = self.memory.len() < before;
                waited |= self.pending.remove_id(id);
                for upload in self.uploads.values_mut().filter(|upload| upload.id == id) {
                    upload.doomed = true;
                    waited = true;
                }
                self.queue_command(What::One { id, waited }, answer);
            }
        }
    }

    fn queue_command(&mut self, what: What, answer: Answer) {
        if self.commands.len() >= COMMANDS {
            // Whoever asked may have gone.
            let _ = answer.send(Err(CacheError::Behind));
            return;
        }
        self.commands.push_back(Clearing {
            what,
            answer,
            since: Instant::now(),
            running: false,
        });
    }

    fn start_tasks(&mut self, now: Instant) {
        if self.state.begins_look_up(now) {
            let (bucket, sdk) = (self.settings.bucket.clone(), self.settings.sdk.clone());
            self.tasks
                .spawn(async move { Done::LookUp(Box::new(look_up(&bucket, sdk).await)) });
        }
        if !self.commands.is_empty() {
            self.start_command(now);
            return;
        }
        while self.uploads.len() < self.state.uploads(now) {
            let Some(bucket) = self.state.bucket().cloned() else {
                return;
            };
            let Some(next) = self.next_upload() else { return };
            self.start_upload(bucket, next);
        }
    }

    /// Begins to remove what is in S3 once nothing that is to be removed is on its way there.
    fn start_command(&mut self, now: Instant) {
        let Some(command) = self.commands.front_mut().filter(|command| !command.running) else {
            return;
        };
        let mut on_their_way = self.uploads.values().filter(|upload| upload.doomed).peekable();
        if on_their_way.peek().is_some() {
            if now >= command.since + DRAIN {
                on_their_way.for_each(|upload| upload.task.abort());
            }
            return;
        }
        let Some(index) = self.index.take() else { return };
        command.running = true;
        let (bucket, settings) = (self.state.bucket().cloned(), self.settings.clone());
        let what = command.what;
        self.tasks.spawn(async move {
            let (index, result) = clear::run(index, what, bucket, settings).await;
            Done::Clear(index, result)
        });
    }

    /// The oldest pair that is not under way: number, place, content, and the claim on memory if it has one.
    fn next_upload(&mut self) -> Option<(u64, S3Location, CacheItem, Option<Waiting>)> {
        let uploads = &self.uploads;
        let free = |number| !uploads.values().any(|upload| upload.number == number);
        while let Some((number, _)) = self.pending.oldest(free) {
            match self.pending.read(number) {
                Ok(read) => {
                    let place = S3Location {
                        bucket: self.settings.bucket.clone(),
                        prefix: read.prefix,
                    };
                    return Some((number, place, read.pair, None));
                }
                Err(error) => {
                    self.pending.remove(number);
                    self.shared.lost(1, &error);
                }
            }
        }
        let (number, waiting) = self.memory.pop_front()?;
        Some((number, waiting.place.clone(), waiting.pair.clone(), Some(waiting)))
    }

    fn start_upload(
        &mut self,
        bucket: std::sync::Arc<Bucket>,
        (number, place, pair, in_memory): (u64, S3Location, CacheItem, Option<Waiting>),
    ) {
        // Recorded first: what is not recorded could never be removed. Without a record the picture is still worth having.
        if let Some(Err(error)) = self.index.as_mut().map(|index| index.record(&place, pair.id))
            && self.shared.said.lock().check(Instant::now(), "index").is_some()
        {
            tracing::error!("clear_cache will not remove what is uploaded now: {error}");
        }
        let id = pair.id;
        let task = self
            .tasks
            .spawn(async move { Done::Upload(bucket.put_pair(&place.prefix, &pair).await) });
        let upload = Upload {
            number,
            id,
            in_memory,
            doomed: false,
            task: task.clone(),
        };
        self.uploads.insert(task.id(), upload);
    }

    /// Pairs that wait for an upload, or for another try.
    fn waiting(&self) -> usize {
        self.pending.len() + self.memory.len()
    }

    fn on_done(&mut self, done: Result<(Id, Done), JoinError>) {
        let now = Instant::now();
        match done {
            Ok((_, Done::LookUp(result))) => self.state.looked_up(*result, now, self.waiting()),
            Ok((task, Done::Upload(result))) => {
                if let Some(upload) = self.uploads.remove(&task) {
                    self.uploaded(upload, result, now);
                }
            }
            Ok((_, Done::Clear(index, result))) => {
                self.index = Some(index);
                self.answer(result);
            }
            Err(error) => self.on_broken(&error, now),
        }
    }

    /// A task was interrupted, or ended by a panic.
    fn on_broken(&mut self, error: &JoinError, now: Instant) {
        if error.is_panic() {
            tracing::error!("a task of the S3 cache ended by a panic: {error}");
        }
        if let Some(upload) = self.uploads.remove(&error.id()) {
            self.uploaded(upload, Err(S3Error::Interrupted), now);
        } else if self.index.is_none() {
            self.index = Some(new_index(&self.settings));
            self.answer(Err(CacheError::Stopped));
        } else {
            self.state.looked_up(Err(S3Error::Interrupted), now, self.waiting());
        }
    }

    fn answer(&mut self, result: Result<(), CacheError>) {
        if let Some(command) = self.commands.pop_front() {
            if let Err(error) = &result {
                tracing::warn!("{} in S3 failed: {error}", command.what);
            }
            // Whoever asked may have gone.
            let _ = command.answer.send(result);
        }
    }

    fn uploaded(&mut self, upload: Upload, result: Result<(), S3Error>, now: Instant) {
        let number = upload.number;
        match result {
            Ok(()) => {
                self.shared.stats.cache_writes.inc();
                self.pending.remove(number);
                self.state.succeeded();
            }
            Err(_) if upload.doomed => {}
            Err(error) => {
                if let Some(waiting) = &upload.in_memory {
                    self.keep(number, &waiting.pair);
                }
                self.state.failed(&error, now, self.waiting());
                if error.retry() == RetryPlan::NextObject && self.is_hopeless(number) {
                    self.pending.remove(number);
                    self.shared.lost(1, &CacheError::S3(error));
                }
            }
        }
    }

    fn is_hopeless(&mut self, number: u64) -> bool {
        let times = self
            .refused
            .filter(|(refused, _)| *refused == number)
            .map_or(0, |(_, n)| n)
            + 1;
        self.refused = Some((number, times));
        times >= MOST_REFUSALS
    }

    /// When to look again although nothing happened.
    fn due(&self, now: Instant) -> Option<Instant> {
        let draining = self.commands.front().filter(|command| !command.running);
        let drained = draining.map(|command| command.since + DRAIN).filter(|at| *at > now);
        [self.state.due(now), drained].into_iter().flatten().min()
    }

    /// Puts everything on disk, then gives what is under way a little time.
    async fn finish(mut self) {
        let deadline = *self.stop.borrow();
        self.jobs.close();
        while let Ok(job) = self.jobs.try_recv() {
            self.take(job);
        }
        self.spill();
        let in_memory: Vec<_> = (self.uploads.values_mut())
            .filter(|upload| !upload.doomed)
            .filter_map(|upload| upload.in_memory.take().map(|waiting| (upload.number, waiting)))
            .collect();
        for (number, waiting) in in_memory {
            self.keep(number, &waiting.pair);
        }
        let left = deadline.map_or(Duration::ZERO, |deadline| {
            deadline.saturating_duration_since(Instant::now())
        });
        let _ = tokio::time::timeout(LAST_UPLOADS.min(left / 2), self.last_uploads()).await;
        if self.pending.len() > 0 {
            tracing::info!(
                "{} pairs wait in {} to be sent to S3 after the next start",
                self.pending.len(),
                self.pending.directory().display()
            );
        }
    }

    async fn last_uploads(&mut self) {
        while !self.uploads.is_empty()
            && let Some(done) = self.tasks.join_next_with_id().await
        {
            if let Ok((task, Done::Upload(Ok(())))) = done
                && let Some(upload) = self.uploads.remove(&task)
            {
                self.shared.stats.cache_writes.inc();
                self.pending.remove(upload.number);
            } else if let Ok((task, _)) = done {
                self.uploads.remove(&task);
            }
        }
    }
}

fn new_index(settings: &S3Settings) -> Index {
    Index::new(settings.directory.join("s3-index"))
}

async fn look_up(bucket: &str, sdk: Option<aws_config::SdkConfig>) -> Result<(Bucket, Found), S3Error> {
    let mut bucket = Bucket::connect(bucket, sdk).await?;
    let found = bucket.ready().await?;
    Ok((bucket, found))
}

/// Completes at that time; never without one.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}
