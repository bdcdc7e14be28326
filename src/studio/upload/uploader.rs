//! The task that uploads samples.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::daily_bytes::DailyBytes;
use super::handle::{UploadError, UploadHandle, UploadJob, UploadSettings};
use super::ingestion::{IngestionClient, Verdict};
use super::sample::{SampleMetadata, UploadSample};
use super::spool::{SampleSpool, SpoolBounds};
use crate::status::damaged_files;
use crate::status::{UploadRecord, UploadState};
use crate::util::backoff::{Backoff, Retry};
use crate::util::clock::rounded;
use crate::util::log_limiter::LogLimiter;
use crate::util::panics::PanicRestart;
use crate::util::text::sentence;

/// Interval at which is checked whether collected samples may be uploaded again.
const ROOM_INTERVAL: Duration = Duration::from_secs(300);

/// The running task. It ends when this is dropped; samples on disk are uploaded after the next start.
#[derive(Debug)]
pub struct Uploader {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Uploader {
    /// Starts the task.
    pub fn start(settings: UploadSettings) -> (Self, UploadHandle) {
        let (handle, jobs) = UploadHandle::new();
        let (stop, stopping) = watch::channel(false);
        let limits = settings.limits;
        let bounds = SpoolBounds {
            samples: limits.samples,
            bytes: limits.bytes,
        };
        damaged_files::make_way_for_directory(&settings.directory, &settings.stats);
        let now = Instant::now();
        let mut runner = UploadRunner {
            daily_bytes: Arc::new(Mutex::new(DailyBytes::new(
                settings.daily_bytes.clone(),
                now,
                Arc::clone(&settings.stats),
            ))),
            spool: Arc::new(Mutex::new(SampleSpool::new(settings.directory.clone(), bounds))),
            settings,
            jobs,
            stop: stopping,
            tried: HashSet::new(),
            attempts_began: None,
            retry_at: None,
            backoff: Backoff::new(limits.backoff),
            log_limiter: LogLimiter::default(),
        };
        let task = tokio::spawn(async move {
            let mut restart = PanicRestart::new("studio uploads");
            while let Err(wait) = restart.attempt(runner.run()).await {
                tokio::time::sleep(wait).await;
            }
        });
        (Self { stop, task }, handle)
    }

    /// Writes the samples that wait in memory to the disk and ends the task. A running upload is repeated after the next start.
    pub async fn stop(mut self, deadline: tokio::time::Instant) {
        self.stop.send_replace(true);
        let _ = tokio::time::timeout_at(deadline, &mut self.task).await;
    }
}

impl Drop for Uploader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct UploadRunner {
    settings: UploadSettings,
    /// Locked by one blocking thread at a time.
    spool: Arc<Mutex<SampleSpool>>,
    /// The bytes of collected samples. Locked by one blocking thread at a time.
    daily_bytes: Arc<Mutex<DailyBytes>>,
    jobs: mpsc::Receiver<UploadJob>,
    stop: watch::Receiver<bool>,
    /// The samples of this process that were tried: an attempt may have arrived. Those of an earlier process count as tried.
    tried: HashSet<u64>,
    /// The first number of this process.
    attempts_began: Option<u64>,
    /// When the samples on disk are tried again; `None`: at once.
    retry_at: Option<Instant>,
    backoff: Backoff,
    log_limiter: LogLimiter,
}

impl UploadRunner {
    async fn run(&mut self) {
        let mut stop = self.stop.clone();
        let daily_bytes = self.daily_bytes.clone();
        let is_first = self.attempts_began.is_none();
        let opened = self.with_spool(move |spool| {
            if is_first {
                daily_bytes.lock().load(Instant::now());
            }
            spool.open()?;
            Ok((spool.len(), spool.next_number()))
        });
        match opened.await {
            Ok((waiting, next)) => {
                self.attempts_began.get_or_insert(next);
                self.settings.activity.set_waiting(waiting);
                if waiting > 0 {
                    tracing::info!(waiting, "Samples of an earlier run wait for Edge Impulse Studio");
                }
            }
            Err(error) => tracing::error!(%error, "The samples that wait for Edge Impulse Studio cannot be read"),
        }
        let work = async {
            loop {
                let room = self.room();
                let found = self.with_spool(move |spool| Ok((spool.oldest(room), spool.len() > 0)));
                let (oldest, is_waiting) = found.await.unwrap_or_default();
                tokio::select! {
                    biased;
                    Some(job) = self.jobs.recv() => self.on_job(job).await,
                    () = until(self.retry_at), if oldest.is_some() => {
                        if let Some(number) = oldest {
                            // The result is logged; nobody waits for it any more.
                            let _ = self.attempt(number).await;
                        }
                    }
                    // The collected samples on disk have used up the bytes of this day.
                    () = tokio::time::sleep(ROOM_INTERVAL), if oldest.is_none() && is_waiting => {}
                    // The handles are gone and nothing waits.
                    else => return,
                }
            }
        };
        tokio::select! {
            () = work => {}
            () = stopped(&mut stop) => {}
        }
        self.finish().await;
    }

    async fn on_job(&mut self, job: UploadJob) {
        let kept = self.keep(job.sample).await;
        let Some(waiting) = job.result else {
            return;
        };
        let result = match kept {
            Ok(number) => self.attempt(number).await,
            Err(error) => Err(error),
        };
        // The person in Studio may have gone.
        let _ = waiting.send(result);
    }

    /// Nothing that was handed over is lost at a stop.
    async fn finish(&mut self) {
        self.jobs.close();
        while let Ok(job) = self.jobs.try_recv() {
            let _ = self.keep(job.sample).await;
        }
        let waiting = self.waiting().await;
        if waiting > 0 {
            tracing::info!(waiting, "Samples on disk will be uploaded after the next start");
        }
    }

    /// Runs disk work on a blocking thread. It is done to its end even if nobody waits for it any more.
    fn with_spool<T, W>(&self, work: W) -> impl Future<Output = std::io::Result<T>> + Send + use<T, W>
    where
        T: Send + 'static,
        W: FnOnce(&mut SampleSpool) -> std::io::Result<T> + Send + 'static,
    {
        let spool = self.spool.clone();
        let task = tokio::task::spawn_blocking(move || work(&mut spool.lock()));
        async move { task.await.map_err(std::io::Error::other)? }
    }

    fn waiting(&self) -> impl Future<Output = usize> + Send + use<> {
        let counted = self.with_spool(|spool| Ok(spool.len()));
        async move { counted.await.unwrap_or_default() }
    }

    /// The bytes that collected samples may still take today.
    fn room(&self) -> u64 {
        let limit = (self.settings.daily_limit)();
        self.daily_bytes.lock().room(Instant::now(), limit)
    }

    /// Whether a collected sample can be uploaded today after those that wait. They are at most half of the samples, so that those
    /// that a person asks for have room.
    async fn check_room(&mut self, metadata: &SampleMetadata) -> Result<(), UploadError> {
        let room = self.room();
        let (count, waiting) = self.with_spool(|spool| Ok(spool.collected())).await.unwrap_or_default();
        let needed = metadata.upload_bytes();
        if waiting.saturating_add(needed) <= room && count < self.settings.limits.samples / 2 {
            return Ok(());
        }
        self.settings.stats.collect_over_bytes.inc();
        if let Some(suppressed) = self.log_limiter.check(Instant::now(), "room") {
            tracing::info!(
                bytes = needed,
                waiting,
                room,
                suppressed = suppressed.count(),
                advice = "collect_mb_per_day allows more",
                "A frame is not kept for Edge Impulse Studio: the bytes of this day are used up, or too many frames wait"
            );
        }
        Err(UploadError::Lost("the bytes of this day are used up".to_owned()))
    }

    /// Writes a sample to the disk.
    async fn keep(&mut self, sample: UploadSample) -> Result<u64, UploadError> {
        let metadata = SampleMetadata::of(&sample);
        let is_collected = metadata.collected.is_some();
        if is_collected {
            self.check_room(&metadata).await?;
        }
        let put = self.with_spool(move |spool| {
            let before = spool.collected().0 + usize::from(is_collected);
            let (number, dropped) = spool.put(&sample)?;
            let dropped_collected = before - spool.collected().0;
            Ok((number, dropped, dropped_collected, spool.oldest(u64::MAX), spool.len()))
        });
        match put.await {
            Ok((number, dropped, dropped_collected, oldest, waiting)) => {
                self.show(Some(number), &metadata, UploadState::Waiting(None));
                self.settings.activity.set_waiting(waiting);
                self.settings.activity.drop_uploads_before(oldest.unwrap_or(number));
                self.settings.stats.studio_uploads_dropped.add(dropped as u64);
                self.settings.stats.collect_dropped.add(dropped_collected as u64);
                if dropped > 0 && self.log_limiter.check(Instant::now(), "dropped").is_some() {
                    tracing::error!(
                        dropped,
                        "The oldest samples for Edge Impulse Studio were dropped: too many wait on this device"
                    );
                }
                Ok(number)
            }
            Err(error) => {
                self.settings.stats.studio_uploads_dropped.inc();
                self.settings.stats.collect_dropped.add(is_collected.into());
                let directory = self.settings.directory.display();
                tracing::error!(path = %directory, %error, "A sample for Edge Impulse Studio cannot be written to the disk");
                self.show(None, &metadata, UploadState::Lost(error.to_string()));
                Err(UploadError::Lost(error.to_string()))
            }
        }
    }

    fn show(&self, number: Option<u64>, metadata: &SampleMetadata, state: UploadState) {
        self.settings.activity.record_upload(UploadRecord {
            number,
            name: metadata.file_name(),
            label: metadata.shown_label(),
            category: metadata.category.clone(),
            bytes: metadata.bytes,
            state,
        });
    }

    /// Uploads one sample from the disk.
    async fn attempt(&mut self, number: u64) -> Result<(), UploadError> {
        let metadata = self.with_spool(move |spool| Ok(spool.metadata(number).cloned()));
        let metadata = metadata.await.ok().flatten();
        let is_collected = metadata.as_ref().is_some_and(|metadata| metadata.collected.is_some());
        let verdict = self.verdict(number).await;
        if let Some(metadata) = metadata {
            self.show(Some(number), &metadata, state_after(&verdict));
        }
        let stats = self.settings.stats.clone();
        match verdict {
            Verdict::Stored => {
                self.remove(number).await;
                self.backoff = Backoff::new(self.settings.limits.backoff);
                self.retry_at = None;
                stats.studio_uploads.inc();
                stats.collect_uploaded.add(is_collected.into());
                let waiting = self.waiting().await;
                tracing::info!(waiting, "A sample was uploaded to Edge Impulse Studio");
                Ok(())
            }
            Verdict::Refused(reason) => {
                self.remove(number).await;
                stats.studio_uploads_refused.inc();
                stats.collect_dropped.add(is_collected.into());
                tracing::error!(error = reason, "Edge Impulse Studio refuses a sample, which is dropped");
                Err(UploadError::Refused(reason))
            }
            Verdict::NotNow { reason, retry, .. } => {
                let now = Instant::now();
                let wait = match retry {
                    Retry::Soon => self.backoff.failed(now),
                    Retry::Later => Retry::LATER,
                };
                self.retry_at = Some(now + wait);
                let waiting = self.waiting().await;
                if let Some(suppressed) = self.log_limiter.check_words(now, &reason) {
                    tracing::warn!(
                        error = reason,
                        retry_in = ?rounded(wait),
                        waiting,
                        suppressed = suppressed.count(),
                        "A sample cannot be uploaded to Edge Impulse Studio; it waits on disk"
                    );
                }
                Err(UploadError::Waiting(reason))
            }
        }
    }

    async fn verdict(&mut self, number: u64) -> Verdict {
        let not_now = Verdict::not_sent;
        let url = match &self.settings.ingestion {
            Ok(url) => url.clone(),
            Err(error) => return not_now(error.to_string(), Retry::Later),
        };
        let key = match (self.settings.key)().await {
            Ok(key) => key,
            Err(error) => return not_now(sentence(&error), error.retry()),
        };
        let client = match IngestionClient::new(self.settings.limits.connect) {
            Ok(client) => client,
            Err(error) => return not_now(error.to_string(), error.retry()),
        };
        let read = self.with_spool(move |spool| {
            let metadata = spool.metadata(number).cloned();
            let data = spool.read(number)?;
            metadata
                .map(|metadata| (metadata, data))
                .ok_or_else(|| std::io::Error::other("it is not in the spool"))
        });
        let (metadata, data) = match read.await {
            Ok(read) => read,
            Err(error) => return Verdict::Refused(format!("the sample on disk cannot be read: {error}")),
        };
        let is_earlier = self.attempts_began.is_some_and(|began| number < began);
        let is_repeated = !self.tried.insert(number) || is_earlier;
        let answer = self.settings.limits.answer;
        let Some(bytes) = metadata.collected.as_ref().map(|_| metadata.upload_bytes()) else {
            return client.upload(&url, &key, &metadata, data, answer, is_repeated).await;
        };
        self.count_bytes(move |daily, now| daily.charge(now, bytes)).await;
        // The same input may come twice, from a still camera.
        let verdict = client.upload(&url, &key, &metadata, data, answer, true).await;
        match verdict {
            Verdict::NotNow { was_sent: false, .. } => {
                self.count_bytes(move |daily, now| daily.refund(now, bytes)).await;
            }
            _ => self.settings.stats.collect_bytes.add(bytes),
        }
        verdict
    }

    /// Changes the count of bytes on a blocking thread: it is on disk.
    fn count_bytes<C>(&self, change: C) -> impl Future<Output = ()> + Send + use<C>
    where
        C: FnOnce(&mut DailyBytes, Instant) + Send + 'static,
    {
        let daily_bytes = self.daily_bytes.clone();
        let changed = tokio::task::spawn_blocking(move || change(&mut daily_bytes.lock(), Instant::now()));
        // A panic is already logged.
        async move { drop(changed.await) }
    }

    async fn remove(&mut self, number: u64) {
        self.tried.remove(&number);
        let removed = self.with_spool(move |spool| {
            spool.remove(number);
            Ok(())
        });
        // A panic is already logged.
        let _ = removed.await;
        let waiting = self.waiting().await;
        self.settings.activity.set_waiting(waiting);
    }
}

fn state_after(verdict: &Verdict) -> UploadState {
    match verdict {
        Verdict::Stored => UploadState::Uploaded,
        Verdict::Refused(reason) => UploadState::Refused(reason.clone()),
        Verdict::NotNow { reason, .. } => UploadState::Waiting(Some(reason.clone())),
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn until(time: Option<Instant>) {
    if let Some(time) = time {
        tokio::time::sleep_until(time.into()).await;
    }
}
