use std::io;
use std::sync::atomic::AtomicU32;

use super::*;
use crate::cache::CacheWriter;
use crate::uplink::outbox::OutboxBounds;

/// The log of the test's thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn of(work: impl FnOnce()) -> String {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .finish();
        tracing::subscriber::with_default(subscriber, work);
        String::from_utf8(log.0.lock().clone()).unwrap()
    }
}

fn writer(publish_image: bool) -> MessageWriter {
    let stats = Arc::new(Stats::default());
    MessageWriter {
        outputs: Mutex::new(Outputs {
            publish_inferences: true,
            publish_image,
            qos: Qos::AtLeastOnce,
            s3_bucket: None,
            caches: Caches::default(),
        }),
        model: Mutex::default(),
        topics: Arc::new(Topics::new("d")),
        outbox: Arc::new(Outbox::new(OutboxBounds::default(), stats.clone())),
        stats,
        health: HealthFlag::default(),
        pictures_waiting: AtomicUsize::new(0),
        log_limiter: Mutex::default(),
    }
}

fn message(freeform: usize, picture: Option<Picture>) -> PendingMessage {
    PendingMessage {
        result: InferenceResult {
            freeform: Some(vec![vec![0.25; freeform]]),
            ..Default::default()
        },
        counts: InferenceCounts {
            inference_count: 1,
            total_inferences: 1,
        },
        id: Uuid::new_v4(),
        ts: now_ms(),
        s3: None,
        queued: None,
        is_claimed: AtomicBool::new(false),
        picture,
    }
}

/// A message of which no part can be omitted.
fn too_large_message() -> PendingMessage {
    let mut message = message(1, None);
    message.result.info = Some("i".repeat(MAX_MESSAGE));
    message
}

/// Its data is shorter than its size says.
fn damaged_picture() -> Picture {
    Picture {
        width: 64,
        height: 48,
        data: vec![0; 3],
        ..Picture::default()
    }
}

#[test]
fn a_result_that_is_cut_is_logged_once_and_shown_in_the_health_until_one_fits() {
    let writer = writer(false);
    let health = || writer.health.failure();
    let log = Log::of(|| {
        for _ in 0..50 {
            let queued = writer.queue_message(&message(100_000, None).builder(), PictureInMessage::NotWanted);
            assert!(queued.is_some_and(|json| json.len() <= MAX_MESSAGE));
        }
    });
    assert_eq!(log.matches("WARN").count(), 1, "{log}");
    assert!(
        log.contains("without all its values") && log.contains("omitted="),
        "{log}"
    );
    assert!(
        health().unwrap().starts_with("its last result is published without "),
        "{:?}",
        health()
    );
    writer.queue_message(&message(1, None).builder(), PictureInMessage::NotWanted);
    assert_eq!(health(), None);
    writer.queue_message(&too_large_message().builder(), PictureInMessage::NotWanted);
    assert!(health().unwrap().contains("is not published"), "{:?}", health());
}

#[test]
fn what_happens_to_each_message_is_logged_once_a_minute() {
    let cases: [(PendingMessage, &str); 3] = [
        (too_large_message(), "is not published"),
        (message(1, None), "without its picture"),
        (message(1, Some(damaged_picture())), "without its picture"),
    ];
    for (message, words) in cases {
        let writer = writer(true);
        let log = Log::of(|| (0..50).for_each(|_| writer.write_with_picture(&message)));
        assert_eq!(log.matches(words).count(), 1, "{log}");
    }
}

#[tokio::test]
async fn a_pair_without_its_picture_is_not_cached_and_that_is_logged() {
    let directory = tempfile::tempdir().unwrap();
    let writer = writer(false);
    let files = crate::cache::FileCache::new(crate::config::FileCacheConfig {
        directory: directory.path().join("pairs"),
        max_bytes: 1 << 20,
    });
    let files = Arc::new(CacheWriter::start("test", files, writer.stats.clone()).unwrap());
    writer.outputs.lock().caches.files = Some(files.clone());
    let log = Log::of(|| (0..50).for_each(|_| writer.write_with_picture(&message(1, None))));
    assert_eq!(
        log.matches("pair of picture and message is not cached").count(),
        1,
        "{log}"
    );
    assert_eq!(writer.stats.cache_failures.get(), 50);
    // Its thread creates the directory, which must not come after the removal.
    assert!(files.stop(std::time::Duration::from_secs(10)).await);
}

#[test]
fn a_panic_costs_one_message_and_encoding_continues() {
    let writer = writer(true);
    let (sender, tasks) = sync_channel(8);
    for _ in 0..4 {
        writer.pictures_waiting.fetch_add(1, Ordering::Relaxed);
        sender
            .send(EncoderTask::Encode(Arc::new(message(1, Some(Picture::default())))))
            .unwrap();
    }
    drop(sender);
    let calls = AtomicU32::new(0);
    let log = Log::of(|| {
        writer.run_encoder(&EncoderQueue::new(tasks), |writer, message| {
            assert!(calls.fetch_add(1, Ordering::Relaxed) > 0, "the first picture");
            writer.write_with_picture(message);
        });
    });
    assert_eq!(writer.outbox.depth(), 3);
    assert_eq!(writer.pictures_waiting.load(Ordering::Relaxed), 0);
    assert!(log.contains("the first picture"), "what panicked: {log}");
}

#[test]
fn a_message_without_picture_does_not_wait_for_the_picture_of_its_pair() {
    for publish_image in [false, true] {
        let (encoder, tasks) = sync_channel(1);
        let writer = Arc::new(writer(publish_image));
        let publisher = Publisher {
            writer: writer.clone(),
            encoder,
        };
        let PendingMessage { result, counts, .. } = message(1, None);
        publisher.publish(Uuid::new_v4(), result, counts, &damaged_picture());
        assert_eq!(writer.outbox.depth(), usize::from(!publish_image));
        drop(publisher);
        writer.run_encoder(&EncoderQueue::new(tasks), MessageWriter::write_with_picture);
        assert_eq!(writer.outbox.depth(), 1, "each message once");
    }
}

#[test]
fn a_flush_that_is_given_up_does_not_wait_for_the_encoding() {
    let (encoder, tasks) = sync_channel(1);
    let publisher = Publisher {
        writer: Arc::new(writer(true)),
        encoder,
    };
    // No thread runs the tasks: only giving up ends the wait.
    publisher.flush(&AtomicBool::new(true));
    drop(tasks);
}

#[test]
fn at_a_stop_messages_that_wait_for_their_picture_are_published_without_it_once() {
    let writer = Arc::new(writer(true));
    let (sender, tasks) = sync_channel(8);
    let waiting = WaitingMessages {
        writer: writer.clone(),
        queue: Arc::new(EncoderQueue::new(tasks)),
    };
    for _ in 0..3 {
        let message = message(1, Some(Picture::default()));
        sender.send(EncoderTask::Encode(Arc::new(message))).unwrap();
    }
    drop(sender);
    let (encoding, started) = sync_channel(1);
    let (release, released) = sync_channel::<()>(1);
    let (queue, encoder_writer) = (waiting.queue.clone(), writer.clone());
    let thread = std::thread::spawn(move || {
        encoder_writer.run_encoder(&queue, |writer, message| {
            encoding.send(()).unwrap();
            let _ = released.recv();
            writer.write_with_picture(message);
        });
    });
    started.recv().unwrap();
    assert_eq!(
        waiting.publish_without_pictures(),
        3,
        "the one being encoded, and two that wait"
    );
    release.send(()).unwrap();
    thread.join().unwrap();
    assert_eq!(
        writer.outbox.depth(),
        3,
        "the encoding thread publishes none of them again"
    );
    while let Some((_, message)) = writer.outbox.next_to_send() {
        assert!(message.payload.ends_with(br#""image_omitted":true}"#));
    }
}
