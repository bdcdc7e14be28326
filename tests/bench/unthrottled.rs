//! As fast as it goes: every frame of a source that is not live, through conversion and model.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::bare::{self, Figures};
use super::median;
use super::process::Usage;
use super::reach::Reach;
use super::scene::{Input, Scene};
use super::support::daemon::Site;
use super::support::mosquitto::Mosquitto;
use super::support::observer::Observer;

const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_millis(750);
/// Inferences before anything is counted.
const WARM_UP: u64 = 100;

/// Prints the table.
pub fn print(broker: &Mosquitto, full: bool, reach: &mut Reach) {
    println!(
        "\nAs fast as it goes, every frame inferred; bare: the same source and conversion by GStreamer's own elements\n"
    );
    println!("| source | model | resize | inferences/s | bare/s | ratio | CPU s per 1000 | bare | ratio |");
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    let scenes = if full { all() } else { some() };
    for scene in scenes {
        let rounds: Vec<_> = (0..ROUNDS)
            .map(|_| (ours(&scene, broker), bare::measure(&scene.bare(false), ROUND)))
            .collect();
        let of = |figure: &dyn Fn(&(Figures, Figures)) -> f64| median(rounds.iter().map(figure).collect());
        let rate = of(&|(ours, _)| ours.rate());
        println!(
            "| {scene} | {rate:.0} | {:.0} | {:.2} | {:.2} | {:.2} | {:.2} |",
            of(&|(_, bare)| bare.rate()),
            of(&|(ours, bare)| ours.rate() / bare.rate()),
            of(&|(ours, _)| ours.cost()),
            of(&|(_, bare)| bare.cost()),
            of(&|(ours, bare)| ours.cost() / bare.cost()),
        );
        let is_usual = (scene.size, scene.side, scene.grey, scene.resize) == ((640, 480), 320, false, "fit-shortest");
        if is_usual && scene.input == Input::Tutorial {
            let least = if scene.pattern == "ball" { 700.0 } else { 1100.0 };
            let what = format!("inferences/s, unthrottled, 640x480 {}", scene.pattern);
            reach.at_least(what, rate, least);
        }
    }
}

/// One thing changed at a time, from the usual scene: size of the source, of the model, colour, resize mode.
fn some() -> Vec<Scene> {
    let usual = Scene::USUAL;
    vec![
        Scene {
            pattern: "black",
            ..usual
        },
        usual,
        Scene {
            input: Input::Raw("I420"),
            ..usual
        },
        Scene {
            input: Input::Raw("YUY2"),
            ..usual
        },
        Scene {
            input: Input::Raw("NV12"),
            ..usual
        },
        Scene {
            input: Input::Jpeg,
            ..usual
        },
        Scene {
            size: (1280, 720),
            ..usual
        },
        Scene {
            input: Input::Jpeg,
            size: (1280, 720),
            ..usual
        },
        Scene {
            size: (1920, 1080),
            ..usual
        },
        Scene { side: 96, ..usual },
        Scene { side: 640, ..usual },
        Scene { grey: true, ..usual },
        Scene {
            resize: "fit-longest",
            ..usual
        },
        Scene {
            resize: "squash",
            ..usual
        },
    ]
}

/// Every combination. Not `none`: a model that costs nothing and takes pictures of any size is not among the built-in ones.
fn all() -> Vec<Scene> {
    let mut scenes = vec![Scene {
        pattern: "black",
        ..Scene::USUAL
    }];
    for size in [(640, 480), (1280, 720), (1920, 1080)] {
        for side in [96, 320, 640] {
            for grey in [false, true] {
                for resize in ["fit-shortest", "fit-longest", "squash"] {
                    scenes.push(Scene {
                        size,
                        side,
                        grey,
                        resize,
                        ..Scene::USUAL
                    });
                }
            }
        }
    }
    scenes
}

/// Inferences so far, as a metrics message says.
pub fn inferences(metrics: &Value) -> u64 {
    metrics["runner"]["inferences"].as_u64().unwrap_or(0)
}

fn ours(scene: &Scene, broker: &Mosquitto) -> Figures {
    let site = Site::new();
    let observer = Observer::connect(broker.port, site.device());
    let daemon = scene.run(&site, broker, false, &["--unthrottled"]);
    let look = |wanted: &dyn Fn(&Value) -> bool| {
        let metrics = observer.wait_for("model/metrics", "inferences", wanted);
        (metrics, Usage::of(daemon.pid()))
    };
    let (first, used) = look(&|metrics| inferences(metrics) > WARM_UP);
    let begun = Instant::now();
    let ts = |metrics: &Value| metrics["ts"].as_u64().unwrap_or(0);
    let (last, usage) = look(&|metrics| ts(metrics) >= ts(&first) + ROUND.as_millis() as u64);
    assert!(begun.elapsed() >= ROUND / 2, "the messages come as they are made");
    daemon.stop();
    Figures {
        frames: (inferences(&last) - inferences(&first)) as f64,
        seconds: (ts(&last) - ts(&first)) as f64 / 1e3,
        cpu_seconds: usage.cpu_seconds - used.cpu_seconds,
    }
}
