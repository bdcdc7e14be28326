use super::*;
use crate::config::SourceLine;

const PICTURES: ModelInput = ModelInput::Image {
    width: 8,
    height: 8,
    grey: false,
    resize: None,
};

fn supervisor(line: &str) -> (CaptureSupervisor, mpsc::UnboundedReceiver<EpochEvent>) {
    let (sender, events) = mpsc::unbounded_channel();
    let supervisor = CaptureSupervisor::new(
        CaptureSettings::new(SourceLine(line.to_owned())),
        ShutdownBehavior::WaitForRestart,
        (Arc::default(), Arc::default()),
        Arc::default(),
        Arc::new(SourceSecrets::new(tokio::runtime::Handle::current())),
        Arc::default(),
        sender,
    );
    (supervisor, events)
}

#[tokio::test]
async fn only_sources_that_are_stuck_now_are_counted() {
    let (mut supervisor, _events) = supervisor("videotestsrc");
    let abandoned = |supervisor: &mut CaptureSupervisor| {
        supervisor.phase = CapturePhase::Stopping(None);
        supervisor.on_event(PipelineEvent::Stopped(StopOutcome::Abandoned(None)))
    };
    for _ in 0..2 * STUCK_LIMIT {
        let slow = std::thread::spawn(|| {});
        while !slow.is_finished() {
            std::thread::yield_now();
        }
        supervisor.stuck_threads.watch(slow, Instant::now());
        assert_eq!(
            abandoned(&mut supervisor),
            ControlFlow::Continue(()),
            "it was only slow"
        );
    }
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = Arc::new(std::sync::Mutex::new(held));
    let flows: Vec<_> = (0..STUCK_LIMIT)
        .map(|_| {
            let held = held.clone();
            let stuck = std::thread::spawn(move || assert!(held.lock().unwrap().recv().is_err()));
            supervisor.stuck_threads.watch(stuck, Instant::now());
            abandoned(&mut supervisor)
        })
        .collect();
    assert_eq!(
        flows,
        [
            ControlFlow::Continue(()),
            ControlFlow::Continue(()),
            ControlFlow::Break(SessionEnd::Reexec)
        ]
    );
    drop(release);
}

#[tokio::test]
async fn an_abandoned_start_cannot_take_the_mailbox_from_its_successor() {
    let line = "videotestsrc num-buffers=2 ! video/x-raw,width=16,height=16";
    let (mut supervisor, mut events) = supervisor(line);
    // The output of a start that is stuck.
    let late = supervisor.output();
    supervisor.phase = CapturePhase::Starting(Instant::now());
    assert_eq!(supervisor.on_due(), ControlFlow::Continue(()));
    assert!(matches!(supervisor.phase, CapturePhase::Waiting(_)), "abandoned");
    supervisor.set_input(PICTURES, 64);
    assert_eq!(supervisor.on_due(), ControlFlow::Continue(()));
    let limit = Duration::from_secs(20);
    let mut next = async || tokio::time::timeout(limit, events.recv()).await.unwrap().unwrap().event;
    let SessionEvent::Capture(PipelineEvent::Started(Ok(successor))) = next().await else {
        panic!("the successor starts");
    };
    let settings = supervisor.settings.clone();
    let stats = Arc::default();
    let started = tokio::task::spawn_blocking(move || Capture::start(&settings, late, &stats, |_| {}))
        .await
        .unwrap();
    assert!(matches!(started, Err(crate::capture::CaptureError::GivenUp)));
    // The successor is not live and plays to its end.
    let mailbox = supervisor.mailboxes.0.clone();
    let played =
        tokio::task::spawn_blocking(move || while let crate::capture::Received::Value(_) = mailbox.receive(limit) {});
    played.await.unwrap();
    assert!(matches!(
        next().await,
        SessionEvent::Capture(PipelineEvent::Reported(CaptureEvent::EndOfStream))
    ));
    drop(successor);
}

#[tokio::test]
async fn a_source_that_started_for_an_earlier_model_restarts_for_the_new_one() {
    let (mut supervisor, mut events) = supervisor("videotestsrc is-live=true ! video/x-raw,width=16,height=16");
    supervisor.set_input(PICTURES, 64);
    supervisor.set_input(PICTURES, 65);
    let limit = Duration::from_secs(20);
    let tagged = tokio::time::timeout(limit, events.recv()).await.unwrap().unwrap();
    let SessionEvent::Capture(event) = tagged.event else {
        panic!("{tagged:?}")
    };
    assert!(supervisor.on_event(event).is_continue());
    assert!(matches!(supervisor.phase, CapturePhase::Stopping(Some(Duration::ZERO))));
}

#[tokio::test]
async fn an_end_of_stream_that_arrives_before_the_start_event_is_handled() {
    let (mut supervisor, mut events) = supervisor("videotestsrc num-buffers=1 ! video/x-raw,width=16,height=16");
    supervisor.set_input(PICTURES, 64);
    // The watching thread is faster than the thread that starts the pipeline.
    let early = PipelineEvent::Reported(CaptureEvent::EndOfStream);
    assert_eq!(supervisor.on_event(early), ControlFlow::Continue(()));
    let limit = Duration::from_secs(20);
    while supervisor.take_paused_generation().is_none() {
        let tagged = tokio::time::timeout(limit, events.recv()).await.unwrap().unwrap();
        assert!(supervisor.is_current(tagged.epoch));
        if let SessionEvent::Capture(event) = tagged.event {
            assert_eq!(supervisor.on_event(event), ControlFlow::Continue(()));
        }
    }
    supervisor.stop(tokio::time::Instant::now() + limit).await;
}
