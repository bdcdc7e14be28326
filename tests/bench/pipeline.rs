//! Figures of the release binary on this machine, beside what the machine itself can do, as tables. Run by
//! `tests/bench.sh`; with `--full` every combination of picture size, model size, colour and resize mode; with `unthrottled`, `live`,
//! `studio`, `events`, `stages` or `times` only this part.
//!
//! Ours and the machine's limit take turns in short rounds, so that other work on the machine meets both; each figure is
//! the median of its rounds. Not a test: nothing here fails because a machine is slow.

mod bare;
mod events;
mod live;
mod process;
mod reach;
mod roundtrip;
mod scene;
mod stages;
mod studio;
#[path = "../support/mod.rs"]
mod support;
mod times;
mod unthrottled;
mod viewer;
#[path = "../preview/client.rs"]
#[allow(dead_code)] // the tests of the page use more of it
mod watcher;

use support::mosquitto::Mosquitto;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|word| word == bare::CHILD) {
        return bare::child(&arguments[1..]);
    }
    gstreamer::init().expect("GStreamer");
    // Cargo adds `--bench`.
    let full = arguments.iter().any(|argument| argument == "--full");
    say_machine();
    let broker = Mosquitto::start();
    let mut reach = reach::Reach::default();
    let only = arguments.iter().find(|argument| !argument.starts_with("--"));
    let is_wanted = |part: &str| only.is_none_or(|only| only == part);
    if is_wanted("unthrottled") {
        unthrottled::print(&broker, full, &mut reach);
    }
    if is_wanted("live") {
        live::print(&broker, &mut reach);
    }
    if is_wanted("studio") {
        studio::print(&broker, &mut reach);
    }
    if is_wanted("events") {
        events::print(&mut reach);
    }
    if is_wanted("stages") {
        stages::print();
    }
    if is_wanted("times") {
        times::print(&broker, &mut reach);
    }
    reach.print();
}

/// What the figures are to be read with: rates and times say little while others want the processors too, processor time and
/// ratios still do.
fn say_machine() {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: Vec<_> = load.split_whitespace().take(3).collect();
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    println!(
        "{processors} processors; load average before the start: {}",
        load.join(" ")
    );
}

/// The middle one; the upper of the middle two.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The smallest value that `percent` of 100 values do not exceed.
fn percentile(values: &[f64], percent: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1]
}
