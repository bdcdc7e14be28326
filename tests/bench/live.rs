//! A camera of 30 frames a second: processor time and memory, beside GStreamer's own elements with the same pictures, and
//! what each thing that can be switched on costs.

use std::time::Duration;

use super::bare::{self, Figures};
use super::median;
use super::process::Usage;
use super::reach::{Reach, short};
use super::scene::{Input, Scene};
use super::support::daemon::{Daemon, Site};
use super::support::mosquitto::Mosquitto;
use super::support::observer::Observer;
use super::support::ports::free_port;
use super::unthrottled::inferences;
use super::viewer::Viewer;
use super::watcher::Served;

pub const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_secs(3);

/// Often enough to look at, and seldom enough to cost nothing that can be seen.
pub const METRICS: [&str; 2] = ["--set", "metrics_sleeptime_ms=1000"];

/// Something that is on in a row of the table.
#[derive(Clone, Copy, PartialEq)]
enum Extra {
    Nothing,
    Json,
    EveryInference,
    Image,
    FileCache,
    Page,
}

impl Extra {
    fn words(self) -> &'static str {
        match self {
            Self::Nothing => "",
            Self::Json => ", no shared memory",
            Self::EveryInference => ", every inference published",
            Self::Image => ", base64 picture in 6 messages/s",
            Self::FileCache => ", file cache, 6 pairs/s",
            Self::Page => ", page in use",
        }
    }

    fn arguments(self, site: &Site) -> Vec<String> {
        let set = |text: &str| vec!["--set".to_owned(), text.to_owned()];
        match self {
            Self::Nothing | Self::Page => Vec::new(),
            Self::Json => set("eiparams=--greengrass --force-resize-mode fit-shortest --shm-behavior never"),
            Self::EveryInference => set("iotcore_backoff=1"),
            Self::Image => set("publish_inference_base64_image=yes"),
            Self::FileCache => {
                let directory = format!("cache_file_directory={}", site.path().join("cache").display());
                [set("enable_cache_to_file=yes"), set(&directory)].concat()
            }
        }
    }
}

/// What one round gave.
pub struct Round {
    pub ours: Figures,
    pub pss_mib: f64,
    peak_rss_mib: f64,
}

/// Prints the table.
pub fn print(broker: &Mosquitto, reach: &mut Reach) {
    println!(
        "\nLive, 30 frames a second, source included; bare: the same source and conversion by GStreamer's own elements\n"
    );
    println!("| what | CPU s a second | bare | ratio | CPU s per 1000 inferences | PSS, MiB | peak RSS, MiB |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    let usual = Scene::USUAL;
    let large = Scene {
        size: (1280, 720),
        ..usual
    };
    let load = row(&usual, Extra::Nothing, broker);
    reach.at_most("live 30/s, 640x480, CPU s a second", load.0, 0.06);
    reach.at_most("memory (PSS), MiB", load.1, 25.0);
    let load = row(&large, Extra::Nothing, broker);
    reach.at_most("live 30/s, 1280x720, CPU s a second", load.0, 0.15);
    for (input, size) in [
        (Input::Raw("YUY2"), usual.size),
        (Input::Raw("NV12"), usual.size),
        (Input::Jpeg, usual.size),
        (Input::Jpeg, large.size),
    ] {
        row(&Scene { input, size, ..usual }, Extra::Nothing, broker);
    }
    let load = row(&usual, Extra::Json, broker);
    reach.at_most("memory (PSS) without shared memory, MiB", load.1, 25.0);
    for extra in [Extra::EveryInference, Extra::Image, Extra::FileCache] {
        row(&usual, extra, broker);
    }
    page(&usual, broker, reach);
}

/// Prints one line; CPU seconds a second and MiB.
fn row(scene: &Scene, extra: Extra, broker: &Mosquitto) -> (f64, f64) {
    // What can be switched on is held against the row without it.
    let bare = || (extra == Extra::Nothing).then(|| bare::measure(&scene.bare(true), ROUND).load());
    let rounds: Vec<_> = (0..ROUNDS).map(|_| (ours(scene, extra, broker), bare())).collect();
    let of = |figure: &dyn Fn(&Round) -> f64| median(rounds.iter().map(|(round, _)| figure(round)).collect());
    let bare: Vec<_> = rounds.iter().filter_map(|(_, bare)| *bare).collect();
    let ratios = rounds
        .iter()
        .filter_map(|(round, bare)| Some(round.ours.load() / (*bare)?));
    let cell = |values: Vec<f64>| {
        if values.is_empty() {
            String::new()
        } else {
            short(median(values))
        }
    };
    let (load, pss) = (of(&|round| round.ours.load()), of(&|round| round.pss_mib));
    println!(
        "| {}x{}{}{} | {load:.3} | {} | {} | {:.2} | {pss:.1} | {:.1} |",
        scene.size.0,
        scene.size.1,
        match scene.input {
            Input::Tutorial => String::new(),
            Input::Raw(format) => format!(" {format}"),
            Input::Jpeg => " JPEG".to_owned(),
        },
        extra.words(),
        cell(bare),
        cell(ratios.collect()),
        of(&|round| round.ours.cost()),
        of(&|round| round.peak_rss_mib),
    );
    (load, pss)
}

fn ours(scene: &Scene, extra: Extra, broker: &Mosquitto) -> Round {
    let site = Site::new();
    let observer = Observer::connect(broker.port, site.device());
    let more = extra.arguments(&site);
    let more: Vec<_> = METRICS.into_iter().chain(more.iter().map(String::as_str)).collect();
    let daemon = scene.run(&site, broker, true, &more);
    observer.wait_for_status("started", 1);
    let round = look(&daemon, &observer);
    daemon.stop();
    round
}

/// Looks at a daemon for a round.
pub fn look(daemon: &Daemon, observer: &Observer) -> Round {
    // A few frames: buffers are made with the first of them.
    let seen = observer.all("model/metrics").len();
    let fresh = |skip: usize| observer.wait_for_nth("model/metrics", "inferences", skip, |m| inferences(m) > 10);
    let ts = |metrics: &serde_json::Value| metrics["ts"].as_u64().unwrap_or(0);
    let first = fresh(seen);
    let used = Usage::of(daemon.pid());
    let last = observer.wait_for("model/metrics", "the end of a round", |metrics| {
        ts(metrics) >= ts(&first) + ROUND.as_millis() as u64
    });
    let usage = Usage::of(daemon.pid());
    Round {
        ours: Figures {
            frames: (inferences(&last) - inferences(&first)) as f64,
            seconds: (ts(&last) - ts(&first)) as f64 / 1e3,
            cpu_seconds: usage.cpu_seconds - used.cpu_seconds,
        },
        pss_mib: usage.pss_mib,
        peak_rss_mib: usage.peak_rss_mib,
    }
}

/// One daemon with its page, with and without somebody who looks.
fn page(scene: &Scene, broker: &Mosquitto, reach: &mut Reach) {
    let site = Site::new();
    let observer = Observer::connect(broker.port, site.device());
    let arguments = scene.arguments(&scene.source(true));
    let arguments: Vec<_> = arguments.iter().map(String::as_str).chain(METRICS).collect();
    let served = Served::start_at(site, free_port(), &broker.url(), &arguments);
    observer.wait_for_status("started", 1);
    let rounds: Vec<_> = (0..ROUNDS)
        .map(|_| {
            let alone = look(&served.daemon, &observer);
            let _viewer = Viewer::of(&served);
            (alone, look(&served.daemon, &observer))
        })
        .collect();
    let of = |figure: &dyn Fn(&(Round, Round)) -> f64| median(rounds.iter().map(figure).collect());
    let more = of(&|(alone, watched)| watched.ours.load() - alone.ours.load());
    println!(
        "| {}x{}{} | {:.3} | {:.3} (page served, nobody looks) | {:.2} | {:.2} | {:.1} | {:.1} |",
        scene.size.0,
        scene.size.1,
        Extra::Page.words(),
        of(&|(_, watched)| watched.ours.load()),
        of(&|(alone, _)| alone.ours.load()),
        of(&|(alone, watched)| watched.ours.load() / alone.ours.load()),
        of(&|(_, watched)| watched.ours.cost()),
        of(&|(_, watched)| watched.pss_mib),
        of(&|(_, watched)| watched.peak_rss_mib),
    );
    reach.at_most("one who looks at the page, more CPU s a second", more, 0.05);
    served.daemon.stop();
}
