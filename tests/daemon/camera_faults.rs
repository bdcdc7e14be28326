//! Cameras that are unplugged while they run.

use super::stage::{Stage, lines};
use crate::support::scripts::{boxed, script};

/// A camera with one of the ends that unplugging causes: some drivers fail, others end the stream.
fn camera(end: &str) -> String {
    format!("videotestsrc is-live=true {end}")
}

#[test]
fn a_camera_that_disappears_while_it_runs_is_started_again() {
    let caps = "video/x-raw,format=RGB,width=64,height=48,framerate=30/1";
    for (end, text) in [
        (format!("! {caps} ! identity error-after=20"), "Failed after iterations"),
        (format!("num-buffers=20 ! {caps}"), "ended"),
        (format!("! {caps} ! identity eos-after=20"), "ended"),
    ] {
        let stage = Stage::new();
        let model = stage.site.scripted_model(&script(&[boxed(0.5)]));
        let daemon = stage.run(model, &camera(&end), &[]);
        stage.observer.wait_for_status("started", 3);
        let figures = stage.wait_for_figures("two losses", |runner| {
            runner["capture_restarts"].as_u64() >= Some(2) && runner["inferences"].as_u64() > Some(40)
        });
        assert_eq!(figures["model_restarts"], 0, "the model is not affected");
        let log = daemon.stop();
        assert!(log.contains(text), "{end}:\n{log}");
        assert_eq!(lines(&log, "ERROR", ""), Vec::<&str>::new());
    }
}
