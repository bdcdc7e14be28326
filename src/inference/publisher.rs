//! Turns published inferences into messages in the outbox and pairs in the caches.
//!
//! A message without picture is queued at once, on the inference thread. Pictures (in the message, or for the caches)
//! are encoded by a thread of its own, which only computes: it waits for no network and no disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use uuid::Uuid;

use crate::cache::{CacheItem, Caches, PairDestination, S3Location};
use crate::capture::Picture;
use crate::config::{Qos, S3Bucket};
use crate::device::Topics;
use crate::model::{InferenceResult, ModelInfo};
use crate::report::{
    EncodedPicture, InferenceCounts, InferenceMessage, MAX_MESSAGE, MessageBuilder, MessageFit, PictureInMessage,
    PictureRef, S3Fields,
};
use crate::status::health::HealthFlag;
use crate::status::stats::Stats;
use crate::uplink::{Message, Outbox};
use crate::util::clock::now_ms;
use crate::util::log_limiter::{LogLimiter, Suppressed};
use crate::util::panics::catch_panic;

/// Inferences that may wait for the encoding thread.
const QUEUE: usize = 1024;
/// Pictures that may wait for the encoding thread; a message beyond this limit goes out without its picture.
const QUEUED_PICTURES: usize = 8;
/// Interval at which a [`flush`](Publisher::flush) checks whether it has to give up.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// How long a stop waits for the lock of the encoder's queue. The thread holds the lock only while the queue is empty.
const QUEUE_LOCK_LIMIT: Duration = Duration::from_millis(100);

/// Where inferences go. [`Publisher::set_outputs`] changes it while the inference loop runs.
#[derive(Clone)]
pub struct Outputs {
    /// Publish inferences. Without it they only go into the caches.
    pub publish_inferences: bool,
    /// Add the picture to the message.
    pub publish_image: bool,
    /// QoS of inference messages.
    pub qos: Qos,
    /// The bucket named in the messages; `None`: the S3 cache is off.
    pub s3_bucket: Option<S3Bucket>,
    /// The caches that get the pairs.
    pub caches: Caches,
}

/// Publishes inferences. Cheap to clone.
#[derive(Clone)]
pub struct Publisher {
    writer: Arc<MessageWriter>,
    encoder: SyncSender<EncoderTask>,
}

/// The encoding thread, from [`Publisher::start`].
pub struct Encoder {
    thread: JoinHandle<()>,
    waiting: WaitingMessages,
}

/// The messages that wait for their picture. Cheap to clone.
#[derive(Clone)]
pub struct WaitingMessages {
    writer: Arc<MessageWriter>,
    queue: Arc<EncoderQueue>,
}

/// The queue of the encoding thread.
struct EncoderQueue {
    tasks: Mutex<Receiver<EncoderTask>>,
    /// The message whose picture is being encoded.
    current: Mutex<Option<Arc<PendingMessage>>>,
}

enum EncoderTask {
    Encode(Arc<PendingMessage>),
    /// Answer when every earlier task is done.
    Flush(SyncSender<()>),
}

/// A published inference on its way into the outbox and the caches.
struct PendingMessage {
    result: InferenceResult,
    counts: InferenceCounts,
    id: Uuid,
    ts: u64,
    s3: Option<S3Location>,
    /// The message text, when it is in the outbox already.
    queued: Option<Bytes>,
    /// Set by the thread that puts the message into the outbox. At a stop two threads may try.
    is_claimed: AtomicBool,
    picture: Option<Picture>,
}

impl PendingMessage {
    fn builder(&self) -> MessageBuilder<'_> {
        MessageBuilder {
            result: &self.result,
            counts: self.counts,
            id: self.id,
            ts: self.ts,
            s3: self.s3.as_ref().map(|s3| S3Fields {
                bucket: &s3.bucket,
                prefix: &s3.prefix,
            }),
        }
    }
}

/// Writes messages and pairs; shared by the publishers and the encoding thread.
struct MessageWriter {
    outputs: Mutex<Outputs>,
    /// The model that messages name; `None` until one is loaded.
    model: Mutex<Option<Arc<ModelInfo>>>,
    topics: Arc<Topics>,
    outbox: Arc<Outbox>,
    stats: Arc<Stats>,
    /// Whether the results fit into messages.
    health: HealthFlag,
    pictures_waiting: AtomicUsize,
    log_limiter: Mutex<LogLimiter>,
}

impl Publisher {
    /// Starts the encoding thread.
    ///
    /// # Errors
    /// The system cannot start a thread.
    pub fn start(
        outputs: Outputs,
        topics: Arc<Topics>,
        outbox: Arc<Outbox>,
        stats: Arc<Stats>,
        health: HealthFlag,
    ) -> std::io::Result<(Self, Encoder)> {
        let writer = Arc::new(MessageWriter {
            outputs: Mutex::new(outputs),
            model: Mutex::default(),
            topics,
            outbox,
            stats,
            health,
            pictures_waiting: AtomicUsize::new(0),
            log_limiter: Mutex::default(),
        });
        let (encoder, tasks) = sync_channel(QUEUE);
        let queue = Arc::new(EncoderQueue::new(tasks));
        let waiting = WaitingMessages {
            writer: writer.clone(),
            queue: queue.clone(),
        };
        let encoder_writer = writer.clone();
        let thread = std::thread::Builder::new()
            .name("encode".into())
            .spawn(move || encoder_writer.run_encoder(&queue, MessageWriter::write_with_picture))?;
        Ok((Self { writer, encoder }, Encoder { thread, waiting }))
    }

    /// Changes where later inferences go.
    pub fn set_outputs(&self, outputs: Outputs) {
        *self.writer.outputs.lock() = outputs;
    }

    /// Sets the model that later messages name (in the S3 prefix).
    pub fn set_model(&self, info: &Arc<ModelInfo>) {
        *self.writer.model.lock() = Some(info.clone());
        let caches = self.writer.outputs.lock().caches.clone();
        if let Some(clips) = &caches.clips {
            clips.set_upload(caches.s3.zip(self.writer.s3_location()));
        }
    }

    /// Where pairs go at this moment.
    pub fn pair_destination(&self) -> PairDestination {
        self.writer.destination(self.writer.s3_location())
    }

    /// Whether inferences go anywhere: to the broker or into a cache.
    pub fn wants_inferences(&self) -> bool {
        let outputs = self.writer.outputs.lock();
        outputs.publish_inferences || outputs.caches.count() > 0
    }

    /// Publishes an inference on a picture under this id. The model's input `picture` is copied only where it is needed.
    pub fn publish(&self, id: Uuid, result: InferenceResult, counts: InferenceCounts, picture: &Picture) {
        let mut message = self.pending_message(id, result, counts);
        let (publish_image, has_caches) = {
            let outputs = self.writer.outputs.lock();
            let publish_image = outputs.publish_image && outputs.publish_inferences;
            (publish_image, outputs.caches.count() > 0)
        };
        if !publish_image {
            message.queued = self
                .writer
                .queue_message(&message.builder(), PictureInMessage::NotWanted);
            if message.queued.is_none() || !has_caches {
                return;
            }
        }
        let waiting = &self.writer.pictures_waiting;
        if waiting.load(Ordering::Relaxed) < QUEUED_PICTURES {
            waiting.fetch_add(1, Ordering::Relaxed);
            message.picture = Some(picture.clone());
        }
        // Cannot fail: the thread ends only after the last publisher is gone.
        let _ = self.encoder.send(EncoderTask::Encode(Arc::new(message)));
    }

    /// Publishes an inference on audio under this id. `encode` makes the file for the caches; it is called only when a cache is on.
    pub fn publish_audio(
        &self,
        id: Uuid,
        result: InferenceResult,
        counts: InferenceCounts,
        encode: impl FnOnce() -> Bytes,
    ) {
        let message = self.pending_message(id, result, counts);
        let queued = self
            .writer
            .queue_message(&message.builder(), PictureInMessage::NotWanted);
        if let Some(json) = queued
            && self.writer.cache_count() > 0
        {
            let pair = CacheItem {
                id: message.id,
                image: Some(encode()),
                json,
            };
            self.writer.destination(message.s3).offer(pair);
        }
    }

    /// Waits until everything published so far is in the outbox, or until `give_up` is set.
    pub fn flush(&self, give_up: &AtomicBool) {
        let (done, finished) = sync_channel(1);
        // Fails when the thread is gone: nothing is encoded any more.
        let Ok(()) = self.encoder.send(EncoderTask::Flush(done)) else {
            return;
        };
        while !give_up.load(Ordering::Relaxed)
            && finished.recv_timeout(CHECK_INTERVAL) == Err(RecvTimeoutError::Timeout)
        {}
    }

    fn pending_message(&self, id: Uuid, result: InferenceResult, counts: InferenceCounts) -> PendingMessage {
        PendingMessage {
            result,
            counts,
            id,
            ts: now_ms(),
            s3: self.writer.s3_location(),
            queued: None,
            is_claimed: AtomicBool::new(false),
            picture: None,
        }
    }
}

impl Encoder {
    /// The messages that wait for the thread.
    pub fn waiting_messages(&self) -> WaitingMessages {
        self.waiting.clone()
    }

    /// Waits until all pictures are encoded. All publishers must be gone by then.
    pub fn finish(self) {
        if self.thread.join().is_err() {
            tracing::error!("The encoding thread panicked: the last pictures are lost");
        }
    }
}

impl WaitingMessages {
    /// Whether the encoding thread has ended: nothing waits any more.
    pub fn is_finished(&self) -> bool {
        // The thread holds the other reference.
        Arc::strong_count(&self.queue) == 1
    }

    /// Puts all messages that wait for their picture into the outbox without it, because the process ends now. Does not
    /// wait for the picture that is being encoded. Returns the number of messages.
    pub fn publish_without_pictures(&self) -> usize {
        // The lock also keeps the encoding thread from the next message.
        let tasks = self.queue.tasks.try_lock_for(QUEUE_LOCK_LIMIT);
        let current = self.queue.current.lock().take();
        let queued = tasks.iter().flat_map(|tasks| tasks.try_iter());
        let queued = queued.filter_map(|task| match task {
            EncoderTask::Encode(message) => Some(message),
            EncoderTask::Flush(_) => None,
        });
        let published = |message: &Arc<PendingMessage>| self.writer.write_without_picture(message);
        current.into_iter().chain(queued).filter(published).count()
    }
}

impl EncoderQueue {
    fn new(tasks: Receiver<EncoderTask>) -> Self {
        Self {
            tasks: Mutex::new(tasks),
            current: Mutex::default(),
        }
    }

    /// Waits for the next task; `None`: the last publisher is gone.
    fn next(&self) -> Option<EncoderTask> {
        let tasks = self.tasks.lock();
        let task = tasks.recv().ok()?;
        if let EncoderTask::Encode(message) = &task {
            *self.current.lock() = Some(message.clone());
        }
        Some(task)
    }
}

impl MessageWriter {
    fn cache_count(&self) -> u64 {
        self.outputs.lock().caches.count()
    }

    /// Where the pairs of the current model are in S3; `None`: the S3 cache is off.
    fn s3_location(&self) -> Option<S3Location> {
        let bucket = self.outputs.lock().s3_bucket.clone()?;
        Some(S3Location::new(&bucket, self.model.lock().as_ref()?))
    }

    /// The encoding thread: runs `write` for each message until the last publisher is gone. A panic costs one message.
    fn run_encoder(&self, queue: &EncoderQueue, write: impl Fn(&Self, &PendingMessage)) {
        while let Some(task) = queue.next() {
            let message = match task {
                EncoderTask::Encode(message) => message,
                EncoderTask::Flush(done) => {
                    // Fails when the caller has given up.
                    let _ = done.try_send(());
                    continue;
                }
            };
            if let Err(panicked) = catch_panic(|| write(self, &message)) {
                match &message.queued {
                    Some(_) => {
                        self.log_missing_picture(&panicked);
                        self.stats.cache_failures.add(self.cache_count());
                    }
                    None => self.log_lost(&panicked),
                }
            }
            queue.current.lock().take();
            if message.picture.is_some() {
                self.pictures_waiting.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    fn write_with_picture(&self, message: &PendingMessage) {
        let picture = match &message.picture {
            Some(picture) => EncodedPicture::new(reference(picture))
                .inspect_err(|e| self.log_missing_picture(e))
                .ok(),
            None => {
                self.log_missing_picture(
                    &"pictures come faster than this machine encodes them; a higher iotcore_backoff helps",
                );
                None
            }
        };
        let queued = message.queued.clone().or_else(|| {
            let in_message = picture
                .as_ref()
                .map_or(PictureInMessage::Missing, PictureInMessage::Encoded);
            let built = self.build_message(&message.builder(), in_message)?;
            if message.is_claimed.swap(true, Ordering::Relaxed) {
                return None;
            }
            Some(self.push_message(built))
        });
        let Some(json) = queued else { return };
        match &picture {
            Some(picture) => {
                let pair = CacheItem {
                    id: message.id,
                    image: Some(picture.jpeg().clone()),
                    json,
                };
                self.destination(message.s3.clone()).offer(pair);
            }
            None => self.stats.cache_failures.add(self.cache_count()),
        }
    }

    /// Puts the message into the outbox without its picture; its pair is not cached. `false`: it is in the outbox
    /// already.
    fn write_without_picture(&self, message: &PendingMessage) -> bool {
        self.stats.cache_failures.add(self.cache_count());
        if message.queued.is_some() || message.is_claimed.swap(true, Ordering::Relaxed) {
            return false;
        }
        self.queue_message(&message.builder(), PictureInMessage::Missing)
            .is_some()
    }

    /// Puts the message into the outbox and returns its text; `None`: it could not be written.
    fn queue_message(&self, builder: &MessageBuilder<'_>, picture: PictureInMessage<'_>) -> Option<Bytes> {
        Some(self.push_message(self.build_message(builder, picture)?))
    }

    fn build_message(&self, builder: &MessageBuilder<'_>, picture: PictureInMessage<'_>) -> Option<InferenceMessage> {
        // What is only cached does not count as published.
        let (is_published, uncounted) = (self.outputs.lock().publish_inferences, Stats::default());
        builder
            .build(picture, if is_published { &self.stats } else { &uncounted })
            .inspect_err(|e| self.log_lost(e))
            .ok()
    }

    /// Puts the message into the outbox, unless it is too large, and returns its text.
    fn push_message(&self, message: InferenceMessage) -> Bytes {
        self.report_size(&message);
        if message.fit != MessageFit::Oversized {
            let (json, outputs) = (message.json.clone(), self.outputs.lock());
            let (qos, is_published) = (outputs.qos, outputs.publish_inferences);
            drop(outputs);
            if is_published {
                self.outbox.push(Message::inference(&self.topics, json, qos));
            }
        }
        message.json
    }

    /// Logs a result that is cut, or not published at all, and shows it in the health of the model.
    fn report_size(&self, message: &InferenceMessage) {
        let (bytes, omitted) = (message.json.len(), message.omitted);
        if message.fit == MessageFit::Oversized {
            self.health.set_failing(format_args!(
                "its last message has {bytes} bytes and is not published: AWS IoT Core accepts {MAX_MESSAGE}"
            ));
            if let Some(suppressed) = self.check_limit("oversized", "") {
                tracing::error!(
                    bytes,
                    limit = MAX_MESSAGE,
                    suppressed = suppressed.count(),
                    "An inference is not published: its message is larger than AWS IoT Core accepts"
                );
            }
        } else if omitted > 0 {
            self.health.set_failing(format_args!(
                "its last result is published without {omitted} of its values: AWS IoT Core accepts {MAX_MESSAGE} bytes a message"
            ));
            if let Some(suppressed) = self.check_limit("cut", "") {
                tracing::warn!(
                    omitted,
                    limit = MAX_MESSAGE,
                    suppressed = suppressed.count(),
                    "A result is published without all its values: its message would be larger than AWS IoT Core accepts"
                );
            }
        } else {
            self.health.set_ok();
        }
    }

    /// The caches that are on now, with this place in S3.
    fn destination(&self, location: Option<S3Location>) -> PairDestination {
        PairDestination::new(&self.outputs.lock().caches, location)
    }

    /// Logs that the picture of a message, or of a pair for the caches, is missing.
    fn log_missing_picture(&self, reason: &dyn std::fmt::Display) {
        let reason = reason.to_string();
        let Some(suppressed) = self.check_limit("missing", &reason) else {
            return;
        };
        let suppressed = suppressed.count();
        let Outputs {
            publish_image, caches, ..
        } = self.outputs.lock().clone();
        match (publish_image, caches.count() > 0) {
            (true, true) => tracing::error!(
                reason,
                suppressed,
                "A message is published without its picture, and the pair is not cached"
            ),
            (false, true) => tracing::error!(reason, suppressed, "A pair of picture and message is not cached"),
            (_, false) => tracing::warn!(reason, suppressed, "A message is published without its picture"),
        }
    }

    fn log_lost(&self, error: &dyn std::error::Error) {
        if let Some(suppressed) = self.check_limit("lost", &error.to_string()) {
            tracing::error!(
                %error,
                suppressed = suppressed.count(),
                "An inference is lost: its message could not be written"
            );
        }
    }

    /// See [`LogLimiter::check_words`].
    fn check_limit(&self, event: &str, reason: &str) -> Option<Suppressed> {
        self.log_limiter
            .lock()
            .check_words(Instant::now(), &format!("{event} {reason}"))
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
