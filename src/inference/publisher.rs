//! From a published inference to a message in the outbox and a pair in the cache.
//!
//! A message without picture is written on the spot. Pictures (in the message, or for the cache) are encoded by a thread of its
//! own: it computes and never waits for a network or a disk, so what is handed to it is bounded by its speed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use uuid::Uuid;

use crate::cache::{CacheItem, CacheWriter, S3Cache, S3Location};
use crate::capture::Picture;
use crate::config::Qos;
use crate::device::Topics;
use crate::model::{InferenceResult, ModelInfo};
use crate::report::{EncodedPicture, Fit, Numbers, PictureInMessage, PictureRef, Publication};
use crate::status::stats::Stats;
use crate::uplink::{Message, Outbox};
use crate::util::clock::now_ms;
use crate::util::log_limiter::{LogLimiter, Suppressed, like};
use crate::util::panics::caught;

/// Inferences waiting for the encoding thread.
const QUEUE: usize = 1024;
/// Of which this many bring their picture along; a message beyond it goes out without.
const QUEUED_PICTURES: usize = 8;
/// How often somebody who waits for the encoding thread looks whether the wait is still wanted.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What a publisher needs to know.
pub struct PublisherSettings {
    /// Add the picture to the message.
    pub publish_image: bool,
    /// QoS of inference messages.
    pub qos: Qos,
    /// Bucket named in the messages while the S3 cache is on.
    pub s3_bucket: Option<String>,
}

/// The caches that are on.
#[derive(Clone, Default)]
pub struct Caches {
    /// Local files.
    pub files: Option<Arc<CacheWriter>>,
    /// The bucket.
    pub s3: Option<Arc<S3Cache>>,
}

impl Caches {
    /// How many are on.
    fn count(&self) -> u64 {
        u64::from(self.files.is_some()) + u64::from(self.s3.is_some())
    }
}

/// Turns published inferences into messages. Cheap to clone.
#[derive(Clone)]
pub struct Publisher {
    writer: Arc<Writer>,
    encoder: Option<SyncSender<Work>>,
}

/// Keeps the encoding thread; given back by [`Publisher::start`].
pub struct Encoder(Option<JoinHandle<()>>);

/// What the encoding thread is given.
enum Work {
    Write(Box<Job>),
    /// Say when everything before it is done.
    Tell(SyncSender<()>),
}

/// A published inference on its way to the encoding thread.
struct Job {
    result: InferenceResult,
    numbers: Numbers,
    id: Uuid,
    ts: u64,
    s3: Option<S3Location>,
    /// The message, when it is in the outbox already.
    announced: Option<Bytes>,
    picture: Option<Picture>,
}

impl Job {
    fn publication(&self) -> Publication<'_> {
        Publication {
            result: &self.result,
            numbers: self.numbers,
            id: self.id,
            ts: self.ts,
            s3: self.s3.as_ref(),
        }
    }
}

struct Writer {
    settings: PublisherSettings,
    topics: Arc<Topics>,
    outbox: Arc<Outbox>,
    caches: Caches,
    stats: Arc<Stats>,
    s3: Mutex<Option<S3Location>>,
    pictures_waiting: AtomicUsize,
    said: Mutex<LogLimiter>,
}

impl Publisher {
    /// Starts the encoding thread where pictures are needed.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        settings: PublisherSettings,
        topics: Arc<Topics>,
        outbox: Arc<Outbox>,
        caches: Caches,
        stats: Arc<Stats>,
    ) -> std::io::Result<(Self, Encoder)> {
        let with_pictures = settings.publish_image || caches.count() > 0;
        let writer = Arc::new(Writer {
            settings,
            topics,
            outbox,
            caches,
            stats,
            s3: Mutex::new(None),
            pictures_waiting: AtomicUsize::new(0),
            said: Mutex::default(),
        });
        if !with_pictures {
            return Ok((Self { writer, encoder: None }, Encoder(None)));
        }
        let (jobs, queue) = sync_channel::<Work>(QUEUE);
        let thread_writer = writer.clone();
        let thread = std::thread::Builder::new().name("encode".into()).spawn(move || {
            thread_writer.work_off(&queue, Writer::write_with_picture);
        })?;
        Ok((
            Self {
                writer,
                encoder: Some(jobs),
            },
            Encoder(Some(thread)),
        ))
    }

    /// Names the model in what follows (the S3 prefix).
    pub fn use_model(&self, info: &ModelInfo) {
        *self.writer.s3.lock() = self
            .writer
            .settings
            .s3_bucket
            .as_deref()
            .map(|bucket| S3Location::new(bucket, info));
    }

    /// Publishes an inference. `picture` is what the model saw; it is copied only when it is needed.
    pub fn publish(&self, result: InferenceResult, numbers: Numbers, picture: &Picture) {
        let mut job = self.job(result, numbers);
        if !self.writer.settings.publish_image {
            job.announced = self.writer.announce(&job.publication(), PictureInMessage::NotWanted);
            if job.announced.is_none() {
                return;
            }
        }
        let Some(encoder) = &self.encoder else { return };
        let waiting = &self.writer.pictures_waiting;
        if waiting.load(Ordering::Relaxed) < QUEUED_PICTURES {
            waiting.fetch_add(1, Ordering::Relaxed);
            job.picture = Some(picture.clone());
        }
        // The thread ends only after the last publisher is gone.
        let _ = encoder.send(Work::Write(Box::new(job)));
    }

    /// Waits until everything published so far is in the outbox, or `give_up` is set; pictures take a moment to encode.
    pub fn flush(&self, give_up: &AtomicBool) {
        let Some(encoder) = &self.encoder else { return };
        let (done, told) = sync_channel(1);
        // An error means that the thread is gone: nothing is written any more.
        let Ok(()) = encoder.send(Work::Tell(done)) else { return };
        while !give_up.load(Ordering::Relaxed) && told.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {}
    }

    /// Publishes what was heard. `sound` makes the file for the cache; it is called only when there is one.
    pub fn publish_sound(&self, result: InferenceResult, numbers: Numbers, sound: impl FnOnce() -> Bytes) {
        let job = self.job(result, numbers);
        let message = self.writer.announce(&job.publication(), PictureInMessage::NotWanted);
        if let Some(json) = message
            && self.writer.caches.count() > 0
        {
            let pair = CacheItem {
                id: job.id,
                image: Some(sound()),
                json,
            };
            self.writer.keep(job.s3, pair);
        }
    }

    /// A published inference with an id and a time of its own.
    fn job(&self, result: InferenceResult, numbers: Numbers) -> Job {
        Job {
            result,
            numbers,
            id: Uuid::new_v4(),
            ts: now_ms(),
            s3: self.writer.s3.lock().clone(),
            announced: None,
            picture: None,
        }
    }
}

impl Encoder {
    /// Waits until everything handed over is encoded. All publishers must be gone by then.
    pub fn finish(self) {
        if let Some(thread) = self.0
            && thread.join().is_err()
        {
            tracing::error!("the encoding thread ended by a panic: the last pictures are lost");
        }
    }
}

impl Writer {
    /// The encoding thread: one job after the other, with `write`, until the last publisher is gone. A panic costs one job.
    fn work_off(&self, queue: &Receiver<Work>, write: impl Fn(&Self, &Job)) {
        for work in queue {
            let job = match work {
                Work::Write(job) => job,
                Work::Tell(done) => {
                    // Whoever asked may have stopped waiting.
                    let _ = done.try_send(());
                    continue;
                }
            };
            if let Err(panicked) = caught(|| write(self, &job)) {
                match &job.announced {
                    Some(_) => {
                        self.say_missing(&panicked.to_string());
                        self.stats.cache_failures.add(self.caches.count());
                    }
                    None => self.say_lost(&panicked),
                }
            }
            if job.picture.is_some() {
                self.pictures_waiting.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    fn write_with_picture(&self, job: &Job) {
        let picture = match &job.picture {
            Some(picture) => EncodedPicture::new(reference(picture))
                .inspect_err(|e| self.say_missing(&e.to_string()))
                .ok(),
            None => {
                self.say_missing("pictures come faster than this machine encodes them; a higher iotcore_backoff helps");
                None
            }
        };
        let announced = job.announced.clone().or_else(|| {
            let in_message = picture
                .as_ref()
                .map_or(PictureInMessage::Missing, PictureInMessage::Encoded);
            self.announce(&job.publication(), in_message)
        });
        let Some(json) = announced else { return };
        match &picture {
            Some(picture) => self.keep(
                job.s3.clone(),
                CacheItem {
                    id: job.id,
                    image: Some(picture.jpeg().clone()),
                    json,
                },
            ),
            None => self.stats.cache_failures.add(self.caches.count()),
        }
    }

    /// Tells of a message, or a pair for the cache, that lacks its picture.
    fn say_missing(&self, reason: &str) {
        let Some(more) = self.repeated("missing", reason) else {
            return;
        };
        let more = like(more);
        match (self.settings.publish_image, self.caches.count() > 0) {
            (true, true) => {
                tracing::error!("a picture is missing in its message, and the pair is not cached{more}: {reason}")
            }
            (false, true) => tracing::error!("a pair of picture and message is not cached{more}: {reason}"),
            (_, false) => tracing::warn!("a message goes out without its picture{more}: {reason}"),
        }
    }

    fn say_lost(&self, reason: &dyn std::error::Error) {
        if let Some(more) = self.repeated("lost", &reason.to_string()) {
            tracing::error!("an inference is lost on its way into a message{}: {reason}", like(more));
        }
    }

    /// See [`LogLimiter::check_words`].
    fn repeated(&self, what: &str, reason: &str) -> Option<Suppressed> {
        self.said
            .lock()
            .check_words(Instant::now(), &format!("{what} {reason}"))
    }

    /// Puts the message into the outbox, and gives its text; `None`: there is none.
    fn announce(&self, publication: &Publication<'_>, picture: PictureInMessage<'_>) -> Option<Bytes> {
        let message = publication
            .compose(picture, &self.stats)
            .inspect_err(|e| self.say_lost(e))
            .ok()?;
        if message.fit == Fit::Oversized {
            if let Some(more) = self.repeated("oversized", "") {
                tracing::warn!(
                    "an inference of {} bytes is not published{}: IoT Core takes at most {} a message",
                    message.json.len(),
                    like(more),
                    crate::report::MAX_MESSAGE
                );
            }
        } else {
            self.outbox.push(Message::inference(
                &self.topics,
                message.json.clone(),
                self.settings.qos,
            ));
        }
        Some(message.json)
    }

    fn keep(&self, place: Option<S3Location>, pair: CacheItem) {
        if let (Some(s3), Some(place)) = (&self.caches.s3, place) {
            s3.offer(place, pair.clone());
        }
        if let Some(files) = &self.caches.files {
            files.offer(pair);
        }
    }
}

fn reference(picture: &Picture) -> PictureRef<'_> {
    PictureRef {
        width: picture.width,
        height: picture.height,
        grey: picture.grey,
        data: &picture.data,
    }
}

#[cfg(test)]
mod tests;
