use super::*;
use crate::config::{Criteria, FilterConfig, Qos, Verbosity};
use crate::device::Topics;
use crate::inference::publisher::{Caches, PublisherSettings};
use crate::report::ReportSettings;
use crate::uplink::Outbox;
use crate::uplink::outbox::Bounds;

fn context() -> InferenceContext {
    let stats = Arc::new(Stats::default());
    let settings = PublisherSettings {
        publish_image: false,
        qos: Qos::AtLeastOnce,
        s3_bucket: None,
    };
    let outbox = Arc::new(Outbox::new(Bounds::default(), stats.clone()));
    let topics = Arc::new(Topics::new("d"));
    let (publisher, _) = Publisher::start(settings, topics, outbox, Caches::default(), stats.clone()).unwrap();
    let settings = ReportSettings {
        filter: FilterConfig {
            enabled: false,
            criteria: Criteria::GreaterOrEqual,
            threshold: 0.7,
        },
        publish_every: 1,
    };
    InferenceContext {
        slot: Arc::default(),
        sounds: Arc::default(),
        report: Arc::new(Mutex::new(Report::new(settings, stats.clone()))),
        publisher,
        stats,
        prediction_logger: PredictionLogger::new(true, Verbosity::Normal),
        live_tap: Arc::default(),
        forced_resize: None,
        unnamed_resize: ResizeMode::FitLongest,
        announce: Arc::default(),
        finish: Arc::default(),
    }
}

#[test]
fn the_end_of_a_source_is_told_once_and_a_stop_is_none() {
    let (mut ends, context) = (Ends::default(), context());
    let told = Mutex::new(Vec::new());
    let notify = |progress| match progress {
        Progress::Drained(generation) => told.lock().push(generation),
        other => panic!("{other:?}"),
    };
    for generation in [1, 1, 2, 2] {
        ends.closed(generation, &context, &notify);
    }
    context.finish.store(true, Ordering::Relaxed);
    ends.closed(3, &context, &notify);
    assert_eq!(*told.lock(), [1, 2]);
}
