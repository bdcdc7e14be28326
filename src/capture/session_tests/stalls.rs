//! Sources that stall, and stops that do not wait for them.

use super::*;

#[test]
fn a_live_source_that_delivers_nothing_has_stalled() {
    let quiet = |line: &str, first: u64| {
        let settings = CaptureSettings {
            no_frame_limit: Duration::from_millis(300),
            first_frame_limit: Duration::from_millis(first),
            ..CaptureSettings::new(SourceLine(line.to_owned()))
        };
        let run = Run::with(settings).unwrap();
        let CaptureEvent::Stalled { after } = run.event() else {
            panic!()
        };
        assert!(matches!(run.capture.stop(LIMIT), StopOutcome::Clean));
        (after, run.stats.frames_captured.get())
    };
    let caps = "video/x-raw,width=16,height=16,framerate=50/1";
    // The valve drops every frame, the first one too.
    let (after, frames) = quiet(&format!("videotestsrc is-live=true ! {caps} ! valve drop=true"), 500);
    assert!(after >= Duration::from_millis(500) && frames == 0);
    // The second input prevents the end of the stream after the five frames of the first one.
    let (after, frames) = quiet(
        &format!(
            "videotestsrc is-live=true num-buffers=5 ! {caps} ! funnel name=f videotestsrc is-live=true ! {caps} ! \
             valve drop=true ! f. f. ! jpegenc"
        ),
        20_000,
    );
    assert!(after >= Duration::from_millis(300) && frames == 5);
}

#[test]
fn the_limits_of_a_live_source_do_not_apply_to_others() {
    let settings = CaptureSettings {
        no_frame_limit: Duration::from_millis(50),
        first_frame_limit: Duration::from_millis(50),
        ..CaptureSettings::new(SourceLine(
            "videotestsrc num-buffers=3 ! video/x-raw,width=16,height=16,framerate=2/1".to_owned(),
        ))
    };
    let run = Run::with(settings).unwrap();
    assert_eq!(run.timestamps(), [0, 500, 1000]);
    assert_eq!(run.event(), CaptureEvent::EndOfStream);
}

#[test]
fn a_live_source_may_be_slow_when_its_frame_rate_is() {
    let settings = CaptureSettings {
        no_frame_limit: Duration::from_millis(300),
        ..CaptureSettings::new(SourceLine(
            "videotestsrc is-live=true num-buffers=3 ! video/x-raw,width=16,height=16,framerate=1/1".to_owned(),
        ))
    };
    let run = Run::with(settings).unwrap();
    assert_eq!(run.timestamps().len(), 3);
    assert_eq!(run.event(), CaptureEvent::EndOfStream);
}

#[test]
fn a_source_that_is_not_live_has_stalled_when_it_delivers_nothing_and_nothing_waits() {
    use std::io::Write;
    use std::os::fd::AsRawFd;
    let (reader, mut writer) = std::io::pipe().unwrap();
    let settings = CaptureSettings {
        not_live_limit: Duration::from_millis(500),
        ..CaptureSettings::new(SourceLine(format!(
            "fdsrc fd={} blocksize=256 ! rawvideoparse width=16 height=16 format=gray8 framerate=50/1",
            reader.as_raw_fd()
        )))
    };
    writer.write_all(&[0; 256]).unwrap();
    let run = Run::with(settings).unwrap();
    assert!(!run.capture.is_live());
    let start = Instant::now();
    while run.stats.frames_captured.get() < 1 {
        assert!(start.elapsed() < LIMIT);
        std::thread::yield_now();
    }
    let while_waiting = run.events.recv_timeout(Duration::from_millis(1500));
    assert!(
        while_waiting.is_err(),
        "the frame waits for inference: {while_waiting:?}"
    );
    run.frame();
    let event = run.event();
    assert!(
        matches!(event, CaptureEvent::Stalled { after } if after >= Duration::from_millis(500)),
        "{event:?}"
    );
    drop(writer);
}

#[test]
fn stopping_wakes_a_callback_that_waits_for_the_mailbox() {
    let run = Run::unthrottled("videotestsrc ! video/x-raw,width=16,height=16");
    let start = Instant::now();
    // The first frame is in the mailbox; the callback waits with the second one.
    while run.stats.frames_captured.get() < 2 {
        assert!(start.elapsed() < LIMIT);
        std::thread::yield_now();
    }
    assert!(matches!(run.capture.stop(LIMIT), StopOutcome::Clean));
    assert_eq!(run.stats.frames_captured.get(), 2);
}

#[test]
fn stopping_wakes_a_watchdog_that_waits_for_the_last_frame() {
    let run = Run::of("videotestsrc num-buffers=1 ! video/x-raw,width=16,height=16");
    let start = Instant::now();
    while run.stats.frames_captured.get() < 1 {
        assert!(start.elapsed() < LIMIT);
        std::thread::yield_now();
    }
    assert!(matches!(run.capture.stop(LIMIT), StopOutcome::Clean));
    assert!(run.events.recv_timeout(LIMIT).is_err(), "a stop is not reported");
}

#[test]
fn a_pipeline_that_hangs_is_abandoned() {
    let run =
        Run::of("videotestsrc is-live=true ! video/x-raw,width=16,height=16 ! identity name=slow sleep-time=3000000");
    let start = Instant::now();
    // A thread that sleeps in `identity` prevents the stop, as a driver does. Wait until it sleeps.
    run.frame();
    let next = run.mailbox.receive(Duration::from_millis(300));
    assert!(
        matches!(next, Received::TimedOut),
        "the next frame is held in `identity`: {next:?}"
    );
    assert!(matches!(
        run.capture.stop(Duration::from_millis(100)),
        StopOutcome::Abandoned(Some(_))
    ));
    assert!(start.elapsed() < Duration::from_secs(6));
}
