//! Where the time of one frame goes: the library's own functions, stage by stage, at a live source.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ei_greengrass::cache::Caches;
use ei_greengrass::capture::pack::pack_features;
use ei_greengrass::capture::{Capture, CaptureSettings, Converter, FrameMailbox, Picture, PictureTarget, Received};
use ei_greengrass::config::{Criteria, FilterConfig, Qos, ResizeMode, SourceLine};
use ei_greengrass::device::Topics;
use ei_greengrass::inference::publisher::{Outputs, Publisher};
use ei_greengrass::model::Model;
use ei_greengrass::report::{Decision, EncodedPicture, PictureRef, Report, ReportSettings};
use ei_greengrass::status::health::HealthFlag;
use ei_greengrass::status::stats::Stats;
use ei_greengrass::uplink::Outbox;
use ei_greengrass::uplink::outbox::OutboxBounds;

use super::percentile;
use super::roundtrip::{BareSocket, our_model};
use super::scene::Scene;
use super::support::daemon::LIMIT;

const FRAMES: usize = 300;
const WARM_UP: usize = 30;
const NAMES: [&str; 9] = [
    "pull",
    "convert",
    "features",
    "round trip",
    "bare round trip",
    "report",
    "publish",
    "sum of ours",
    "JPEG",
];

/// Prints the table.
pub fn print() {
    println!(
        "\nTime per stage in µs, p10 (p50), live source; bare: the same request over a bare socket; JPEG only where somebody needs it. \
         p10 is what a stage takes when nothing else wants the processor\n"
    );
    println!("| source and model | {} |", NAMES.join(" | "));
    println!("| --- |{}", " --- |".repeat(NAMES.len()));
    let usual = Scene::USUAL;
    for scene in [
        usual,
        Scene {
            size: (1280, 720),
            ..usual
        },
        Scene { side: 96, ..usual },
        Scene { side: 640, ..usual },
    ] {
        let stages = measure(&scene);
        let cells: Vec<_> = stages
            .iter()
            .map(|times| format!("{:.0} ({:.0})", percentile(times, 10), percentile(times, 50)))
            .collect();
        let (width, height) = scene.size;
        println!("| {width}x{height} into {0}x{0} | {1} |", scene.side, cells.join(" | "));
    }
}

/// Our parts, as the daemon puts them together.
struct Parts {
    converter: Converter,
    picture: Picture,
    model: Model,
    bare: BareSocket,
    report: Report,
    publisher: Publisher,
}

impl Parts {
    fn new(scene: &Scene) -> Self {
        let stats = Arc::new(Stats::default());
        let settings = ReportSettings {
            filter: FilterConfig {
                enabled: false,
                given: 0.7,
                scores_are_probabilities: None,
                criteria: Criteria::default(),
            },
            publish_every: 1,
        };
        let outbox = Arc::new(Outbox::new(OutboxBounds::default(), stats.clone()));
        let outputs = Outputs {
            publish_inferences: true,
            publish_image: false,
            qos: Qos::AtLeastOnce,
            s3_bucket: None,
            caches: Caches::default(),
        };
        let topics = Arc::new(Topics::new("bench"));
        let (publisher, _) = Publisher::start(outputs, topics, outbox, stats.clone(), HealthFlag::default())
            .expect("a thread can be started");
        Self {
            converter: Converter::new(PictureTarget {
                width: scene.side,
                height: scene.side,
                grey: scene.grey,
                resize: ResizeMode::FitShortest,
            }),
            picture: Picture::default(),
            model: our_model(scene.side),
            bare: BareSocket::start(scene.side),
            report: Report::new(settings, stats),
            publisher,
        }
    }
}

/// Microseconds of each stage, frame by frame, in the order of [`NAMES`].
fn measure(scene: &Scene) -> Vec<Vec<f64>> {
    let mut parts = Parts::new(scene);
    let (mailbox, stats) = (Arc::new(FrameMailbox::new()), Arc::new(Stats::default()));
    // Faster than a camera, and slow enough that each frame is waited for.
    let line = scene.source(true).replace("framerate=30/1", "framerate=100/1");
    let capture =
        Capture::start(&CaptureSettings::new(SourceLine(line)), &mailbox, &stats, |_| {}).expect("the source");
    let mut stages = vec![Vec::new(); NAMES.len()];
    for frame in 0..FRAMES + WARM_UP {
        let times = infer(&mailbox, &mut parts);
        if frame >= WARM_UP {
            for (stage, time) in stages.iter_mut().zip(times) {
                stage.push(time);
            }
        }
    }
    capture.stop(Duration::from_secs(1));
    stages
}

fn infer(mailbox: &FrameMailbox, parts: &mut Parts) -> [f64; NAMES.len()] {
    let Received::Value(frame) = mailbox.receive(LIMIT) else {
        panic!("the source delivers nothing");
    };
    let received = Instant::now();
    let pull = received.saturating_duration_since(frame.at);
    parts.converter.convert(&frame, &mut parts.picture).expect("a picture");
    drop(frame);
    let converted = Instant::now();
    let elements = parts.picture.pixels();
    pack_features(&parts.picture, parts.model.features());
    let packed = Instant::now();
    let result = parts.model.classify(elements).expect("an answer");
    let answered = Instant::now();
    let decision = parts.report.accept(&result, (answered - packed).as_secs_f32() * 1e3);
    let reported = Instant::now();
    let Decision::Publish(numbers) = decision else {
        panic!("each inference is published");
    };
    parts
        .publisher
        .publish(uuid::Uuid::new_v4(), result, numbers, &parts.picture);
    let published = Instant::now();
    let request = format!("{{\"classify_shm\":{{\"elements\":{elements}}},\"id\":7}}\n");
    let asked = Instant::now();
    parts.bare.ask(request.as_bytes());
    let bare = asked.elapsed();
    let encoding = Instant::now();
    let picture = &parts.picture;
    EncodedPicture::new(PictureRef {
        width: picture.width,
        height: picture.height,
        grey: picture.grey,
        data: &picture.data,
    })
    .expect("a JPEG");
    let jpeg = encoding.elapsed();
    [
        pull,
        converted - received,
        packed - converted,
        answered - packed,
        bare,
        reported - answered,
        published - reported,
        pull + (published - received),
        jpeg,
    ]
    .map(|time| time.as_secs_f64() * 1e6)
}
