//! Reports that a capture has ended and everything inferred from it is in the outbox.

use super::context::{InferenceContext, Progress};

/// Reports the end of each capture once.
#[derive(Debug, Default)]
pub(super) struct DrainNotifier {
    /// The epoch of the capture whose end was reported last.
    reported: Option<u64>,
}

impl DrainNotifier {
    /// Reports that the capture `epoch` has ended. Its mailbox must be closed and empty. When [`Progress::Drained`] is
    /// sent, every earlier message is already in the outbox.
    pub(super) fn mailbox_closed(&mut self, epoch: u64, context: &InferenceContext, notify: &dyn Fn(Progress)) {
        // A stop closes the mailbox as well. The report is not needed then, and pictures that are still being encoded
        // must not delay the stop.
        if context.is_finishing() || self.reported.replace(epoch) == Some(epoch) {
            return;
        }
        context.publisher.flush(&context.finish);
        notify(Progress::Drained(epoch));
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use parking_lot::Mutex;

    use super::*;
    use crate::cache::Caches;
    use crate::config::{Criteria, FilterConfig, Qos, ResizeMode, Verbosity};
    use crate::device::Topics;
    use crate::events::{EventRecorder, EventSettings};
    use crate::inference::publisher::{Outputs, Publisher};
    use crate::inference::{ClassifierSettings, PredictionLogger};
    use crate::report::{Report, ReportSettings};
    use crate::status::health::HealthFlag;
    use crate::status::stats::Stats;
    use crate::uplink::Outbox;
    use crate::uplink::outbox::OutboxBounds;

    fn context() -> InferenceContext {
        let stats = Arc::new(Stats::default());
        let outputs = Outputs {
            publish_inferences: true,
            publish_image: false,
            qos: Qos::AtLeastOnce,
            s3_bucket: None,
            caches: Caches::default(),
        };
        let outbox = Arc::new(Outbox::new(OutboxBounds::default(), stats.clone()));
        let topics = Arc::new(Topics::new("d"));
        let events = EventRecorder::start(
            Path::new("/none"),
            topics.clone(),
            outbox.clone(),
            stats.clone(),
            EventSettings::default(),
        );
        let (publisher, _) = Publisher::start(outputs, topics, outbox, stats.clone(), HealthFlag::default()).unwrap();
        let settings = ReportSettings {
            filter: FilterConfig {
                enabled: false,
                criteria: Criteria::GreaterOrEqual,
                given: 0.7,
                scores_are_probabilities: None,
            },
            publish_every: 1,
        };
        InferenceContext {
            frames: Arc::default(),
            audio: Arc::default(),
            report: Arc::new(Mutex::new(Report::new(settings, stats.clone()))),
            publisher,
            events,
            stats,
            prediction_logger: PredictionLogger::new(true, Verbosity::Normal),
            live_tap: Arc::default(),
            frame_selector: None,
            monitor: None,
            classifier: ClassifierSettings {
                forced_resize: None,
                unnamed_resize: ResizeMode::FitLongest,
                refused_slices: Arc::default(),
            },
            successor: Arc::default(),
            announce: Arc::default(),
            finish: Arc::default(),
        }
    }

    #[test]
    fn the_end_of_a_capture_is_reported_once_and_not_at_all_during_a_stop() {
        let (mut notifier, context) = (DrainNotifier::default(), context());
        let reported = Mutex::new(Vec::new());
        let notify = |progress| match progress {
            Progress::Drained(epoch) => reported.lock().push(epoch),
            other => panic!("{other:?}"),
        };
        for epoch in [1, 1, 2, 2] {
            notifier.mailbox_closed(epoch, &context, &notify);
        }
        context.finish.store(true, Ordering::Relaxed);
        notifier.mailbox_closed(3, &context, &notify);
        assert_eq!(*reported.lock(), [1, 2]);
    }
}
