//! Counters of frames, inferences and messages since the start. All threads share them without locks.

use std::sync::atomic::{AtomicU64, Ordering};

/// A counter. Its operations are relaxed, because no other memory access depends on its value.
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

    /// The current value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Sets it to zero.
    pub fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// Generates the struct, [`Stats::reset`] and [`Stats::each`] from one list of counters.
macro_rules! counters {
    ($(#[$about:meta])* pub struct $name:ident { $($(#[$meaning:meta])* $field:ident,)* }) => {
        $(#[$about])*
        #[derive(Debug, Default)]
        pub struct $name {
            $($(#[$meaning])* pub $field: Counter,)*
        }

        impl $name {
            /// Sets all counters to zero, as in a new process.
            pub fn reset(&self) {
                $(self.$field.reset();)*
            }

            /// The name and the current value of each counter, in the order of the fields.
            pub fn each(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($field), self.$field.get())),*].into_iter()
            }
        }
    };
}

counters! {
    /// All counters. Each field is a number of events since the start of the process or the last `restart` command.
    pub struct Stats {
        /// Frames that the source delivered (for an audio model: windows of audio).
        frames_captured,
        /// Frames that a newer one replaced before they were inferred. This is intended.
        frames_skipped,
        /// Frames lost because their conversion or their inference failed.
        frames_dropped,
        /// Windows of audio dropped, oldest first, because the model was slower than real time or was restarting.
        audio_overruns,
        /// Number of times that the sound card lost samples.
        audio_gaps,
        /// Answers of the model that became an inference.
        inferences,
        /// Inferences with no box, cell or label: never published.
        empty,
        /// Inferences that the confidence filter rejected.
        filtered,
        /// Inferences that the backoff gate did not publish.
        gated,
        /// Inference messages pushed into the outbox.
        published,
        /// Inference messages acknowledged by the broker (QoS 1) or written to the socket (QoS 0). Includes messages of an earlier
        /// process that were in the spool. Excludes messages from before a `restart` command.
        delivered,
        /// Event messages pushed into the outbox.
        events,
        /// Event messages acknowledged by the broker. Includes those of an earlier process that were in the spool.
        events_delivered,
        /// Inference messages too large to publish; their pairs are still cached.
        oversized,
        /// Messages published without the weakest cells, boxes or labels, or without the last values of a freeform result, to fit.
        results_cut,
        /// Messages published without their picture: it did not fit, or was not encoded in time.
        images_omitted,
        /// Inference messages dropped, oldest first, because the outbox was full.
        outbox_dropped,
        /// Messages written to the disk spool.
        spooled,
        /// Messages dropped from a full spool, oldest first.
        spool_dropped,
        /// Messages published on the local topics of Greengrass.
        local_published,
        /// Messages published there without their picture, or without the weakest cells, boxes or labels, to fit.
        local_shortened,
        /// Messages not published there: too large, or the nucleus did not take them in time.
        local_dropped,
        /// Pairs written to a cache.
        cache_writes,
        /// Pairs that a cache failed to write, or dropped because its queue was full.
        cache_failures,
        /// Clips of events that were written.
        clips_written,
        /// Clips of events that were lost: too many at the same time, or they could not be encoded or written.
        clips_failed,
        /// Clips of events removed, oldest first, because all together were too large.
        clips_removed,
        /// Restarts of the capture pipeline after a fault or an end of stream.
        capture_restarts,
        /// Restarts of the model process after a fault.
        model_restarts,
        /// New versions of the model that took over while the component ran.
        model_updates,
        /// New versions of the model that were not used, or given up.
        model_updates_failed,
        /// Values or labels of the model that were unusable (NaN, labels over 256 bytes) and were cleaned.
        answers_cleaned,
        /// Connections to the broker that were established.
        mqtt_connects,
        /// Connections to Edge Impulse Studio that were accepted.
        studio_connects,
        /// Samples that Edge Impulse Studio has stored.
        studio_uploads,
        /// Samples that Edge Impulse Studio refused.
        studio_uploads_refused,
        /// Samples dropped because too many waited, or because they could not be written to the disk.
        studio_uploads_dropped,
        /// Frames and windows of audio that the component chose to upload to Edge Impulse Studio by itself.
        collect_taken,
        /// Those worth it that were not chosen because of `collect_per_hour`, or because one was chosen shortly before.
        collect_over_limit,
        /// Those that were not uploaded because they look like the one before.
        collect_alike,
        /// Those that were not uploaded because the bytes of the day were used up.
        collect_over_bytes,
        /// Those that Edge Impulse Studio has stored.
        collect_uploaded,
        /// Those that were lost: refused, dropped because too many waited, or not encoded or written.
        collect_dropped,
        /// Bytes sent for them, repeated attempts included.
        collect_bytes,
        /// Records of inferences written to the disk for Edge Impulse Studio.
        monitor_records,
        /// Records that could not be written to the disk.
        monitor_records_lost,
        /// Summaries of inferences that Edge Impulse Studio has received.
        monitor_summaries_sent,
        /// Summaries dropped because too many waited, or because they could not be read from the disk.
        monitor_summaries_dropped,
        /// Files and directories below `work_dir` that were damaged and were renamed to `<name>.damaged-<time>`.
        files_damaged,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reset_sets_every_counter_to_zero() {
        let stats = Stats::default();
        stats.frames_captured.add(3);
        stats.mqtt_connects.inc();
        let counted: Vec<_> = stats.each().filter(|(_, n)| *n > 0).collect();
        assert_eq!(counted, [("frames_captured", 3), ("mqtt_connects", 1)]);

        stats.reset();
        assert!(stats.each().all(|(_, n)| n == 0));
    }
}
