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

/// Names each counter once: the field, its place in [`Stats::reset`] and its name in [`Stats::each`] come from one line.
macro_rules! counters {
    ($(#[$about:meta])* pub struct $name:ident { $($(#[$meaning:meta])* $field:ident,)* }) => {
        $(#[$about])*
        #[derive(Debug, Default)]
        pub struct $name {
            $($(#[$meaning])* pub $field: Counter,)*
        }

        impl $name {
            /// All counters back to zero, as in a new process.
            pub fn reset(&self) {
                $(self.$field.reset();)*
            }

            /// Every counter by its name with its value now, in the order of the fields.
            pub fn each(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($field), self.$field.get())),*].into_iter()
            }
        }
    };
}

counters! {
    /// Everything that is counted. Each field is a number of events since the start of the daemon (or the `restart` command).
    /// How long inferences take is no count: see [`crate::report::latency`].
    pub struct Stats {
        /// Frames that the source delivered (for an audio model: windows of sound).
        frames_captured,
        /// Frames replaced by a newer one before they could be inferred (intentional: newest wins).
        frames_skipped,
        /// Frames lost because conversion or the model failed with the frame in hand.
        frames_dropped,
        /// Windows of sound dropped, oldest first, because the model was slower than real time (or was being started again).
        audio_overruns,
        /// Times the sound card lost samples.
        audio_gaps,
        /// Answers of the model that were turned into an inference.
        inferences,
        /// Inferences with no box, cell or label: never published.
        empty,
        /// Inferences the confidence filter rejected.
        filtered,
        /// Inferences the backoff gate held back.
        gated,
        /// Inference messages handed to the outbox.
        published,
        /// Inference messages acknowledged by the broker (QoS 1) or written to the socket (QoS 0): those of an earlier process,
        /// which the spool kept, are among them, those of before a `restart` command are not.
        delivered,
        /// Inference messages too large to publish (still cached).
        oversized,
        /// Messages published without their picture because it did not fit.
        images_omitted,
        /// Inference messages dropped, oldest first, because the outbox was full.
        outbox_dropped,
        /// Messages written to the disk spool.
        spooled,
        /// Messages dropped from a full spool, oldest first.
        spool_dropped,
        /// Pairs written to a cache.
        cache_writes,
        /// Pairs that could not be written to a cache, or were dropped because the writer was behind.
        cache_failures,
        /// Restarts of the capture pipeline after a fault or an end of stream.
        capture_restarts,
        /// Restarts of the model process after a fault.
        model_restarts,
        /// Values or labels of the model that were not usable as they came (NaN, labels over 256 bytes) and were cleaned.
        answers_cleaned,
        /// Connections to the broker that were established.
        mqtt_connects,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reset_reaches_every_counter_that_each_names() {
        let stats = Stats::default();
        stats.frames_captured.add(3);
        stats.mqtt_connects.inc();
        let counted: Vec<_> = stats.each().filter(|(_, n)| *n > 0).collect();
        assert_eq!(counted, [("frames_captured", 3), ("mqtt_connects", 1)]);

        stats.reset();
        assert!(stats.each().all(|(_, n)| n == 0));
    }
}
