//! Counters of what happened to frames, inferences and messages since the start, shared by all rooms without locks.

use std::sync::atomic::{AtomicU64, Ordering};

/// One counter. Relaxed: the figures are reported, nothing is synchronised by them.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Back to zero.
    pub fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// Everything that is counted. Each field is a number of events since the start of the daemon (or the `restart` command).
#[derive(Debug, Default)]
pub struct Stats {
    /// Frames that the source delivered.
    pub frames_captured: Counter,
    /// Frames replaced by a newer one before they could be inferred (intentional: newest wins).
    pub frames_skipped: Counter,
    /// Frames lost because conversion or the model failed with the frame in hand.
    pub frames_dropped: Counter,
    /// Answers of the model that were turned into an inference.
    pub inferences: Counter,
    /// Inferences with no box, cell or label: never published.
    pub empty: Counter,
    /// Inferences the confidence filter rejected.
    pub filtered: Counter,
    /// Inferences the backoff gate held back.
    pub gated: Counter,
    /// Inference messages handed to the outbox.
    pub published: Counter,
    /// Inference messages acknowledged by the broker (QoS 1) or written to the socket (QoS 0).
    pub delivered: Counter,
    /// Inference messages too large to publish (still cached).
    pub oversized: Counter,
    /// Messages published without their picture because it did not fit.
    pub images_omitted: Counter,
    /// Inference messages dropped, oldest first, because the outbox was full.
    pub outbox_dropped: Counter,
    /// Messages written to the disk spool.
    pub spooled: Counter,
    /// Messages dropped from a full spool, oldest first.
    pub spool_dropped: Counter,
    /// Pairs written to a cache.
    pub cache_writes: Counter,
    /// Pairs that could not be written to a cache, or were dropped because the writer was behind.
    pub cache_failures: Counter,
    /// Restarts of the capture pipeline after a fault or an end of stream.
    pub capture_restarts: Counter,
    /// Restarts of the model process after a fault.
    pub model_restarts: Counter,
    /// Values or labels of the model that were not usable as they came (NaN, labels over 256 bytes) and were cleaned.
    pub answers_cleaned: Counter,
    /// Connections to the broker that were established.
    pub mqtt_connects: Counter,
}

impl Stats {
    /// All counters back to zero, as in a new process.
    pub fn reset(&self) {
        let Self {
            frames_captured,
            frames_skipped,
            frames_dropped,
            inferences,
            empty,
            filtered,
            gated,
            published,
            delivered,
            oversized,
            images_omitted,
            outbox_dropped,
            spooled,
            spool_dropped,
            cache_writes,
            cache_failures,
            capture_restarts,
            model_restarts,
            answers_cleaned,
            mqtt_connects,
        } = self;
        for counter in [
            frames_captured,
            frames_skipped,
            frames_dropped,
            inferences,
            empty,
            filtered,
            gated,
            published,
            delivered,
            oversized,
            images_omitted,
            outbox_dropped,
            spooled,
            spool_dropped,
            cache_writes,
            cache_failures,
            capture_restarts,
            model_restarts,
            answers_cleaned,
            mqtt_connects,
        ] {
            counter.reset();
        }
    }
}
