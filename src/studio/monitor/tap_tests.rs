use super::*;
use crate::model::ModelInput;

fn settings(record_interval: Duration) -> MonitorConfig {
    MonitorConfig {
        max_storage_bytes: 1 << 20,
        summary_interval: Duration::from_secs(60),
        record_interval,
    }
}

fn tap(record_interval: Duration) -> MonitorTap {
    MonitorTap::new(settings(record_interval), StudioUpdates::default(), Arc::default())
}

fn model(version: u64) -> Arc<ModelInfo> {
    Arc::new(ModelInfo {
        deploy_version: version,
        input: ModelInput::Unsupported("none"),
        ..ModelInfo::with_parameters(serde_json::Map::new())
    })
}

fn infer(tap: &MonitorTap, model: &Arc<ModelInfo>) {
    let picture = Picture::default();
    tap.observe(model, &InferenceResult::default(), InferredInput::Picture(&picture));
}

/// All that waits, with summaries as their last index.
fn waiting(tap: &MonitorTap) -> Vec<String> {
    tap.close();
    let mut all = Vec::new();
    loop {
        all.push(match tap.next() {
            TapWork::Event(TapEvent::Model(change)) => {
                format!("model {} after {}", change.info.deploy_version, change.before)
            }
            TapWork::Event(TapEvent::Summary(window)) => format!("summary to {}", window.last_index()),
            TapWork::Inference(inference) => format!("inference {}", inference.number),
            TapWork::Closed => return all,
        });
    }
}

#[test]
fn a_new_version_closes_the_window_and_counts_from_one() {
    let (tap, old, new) = (tap(Duration::from_secs(3600)), model(7), model(8));
    tap.set_model(&old);
    for _ in 0..3 {
        infer(&tap, &old);
    }
    // The process of the model was started again.
    infer(&tap, &model(7));
    infer(&tap, &new);
    tap.close_window();
    tap.close_window();
    assert_eq!(
        waiting(&tap),
        [
            "model 7 after 0",
            "summary to 4",
            "model 8 after 4",
            "summary to 1",
            "inference 1"
        ]
    );
}

#[test]
fn at_most_one_record_is_copied_in_an_interval_unless_studio_watches() {
    let (tap, model) = (tap(Duration::from_secs(3600)), model(7));
    for _ in 0..3 {
        infer(&tap, &model);
    }
    assert_eq!(waiting(&tap), ["model 7 after 0", "inference 1"]);
    infer(&tap, &model);
    assert_eq!(waiting(&tap), [""; 0]);
    tap.set_streaming(true);
    infer(&tap, &model);
    infer(&tap, &model);
    assert_eq!(waiting(&tap), ["inference 6"], "the newest wins");
}

#[test]
fn a_record_that_is_due_is_not_lost_when_a_newer_inference_replaces_it() {
    let (tap, model) = (tap(Duration::from_secs(3600)), model(7));
    tap.set_streaming(true);
    infer(&tap, &model);
    infer(&tap, &model);
    let TapWork::Event(TapEvent::Model(_)) = tap.next() else {
        panic!("the model")
    };
    let TapWork::Inference(inference) = tap.next() else {
        panic!("the inference")
    };
    assert_eq!((inference.number, inference.is_for_store), (2, true));
    assert_eq!(tap.stats.monitor_records_lost.get(), 0);
}

#[test]
fn summaries_are_dropped_and_models_are_not_when_the_thread_is_stuck() {
    let tap = tap(Duration::from_secs(3600));
    for version in 1..=300 {
        infer(&tap, &model(version));
        tap.close_window();
    }
    let all = waiting(&tap);
    assert_eq!(all.iter().filter(|event| event.starts_with("model")).count(), 300);
    assert!(tap.stats.monitor_summaries_dropped.get() > 0);
}

#[test]
fn an_update_that_studio_has_asked_for_is_told_to_the_thread() {
    let updates = StudioUpdates::default();
    let tap = MonitorTap::new(settings(Duration::from_secs(1)), updates.clone(), Arc::default());
    let asked = updates.begin();
    tap.set_model(&model(8));
    drop(asked);
    let TapWork::Event(TapEvent::Model(change)) = tap.next() else {
        panic!("the model")
    };
    assert!(change.is_asked);
}
