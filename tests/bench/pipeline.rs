//! Figures of the release binary on this machine, as one table. Run by `tests/bench.sh`.
//!
//! Not a test: nothing here fails because a machine is slow.

mod process;
#[path = "../support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use process::Usage;
use support::daemon::{Daemon, Site};
use support::mosquitto::Mosquitto;
use support::observer::Observer;

/// A model that costs nothing: 320 x 320 RGB in shared memory, one fixed box.
const MODEL: &str = "builtin:nop";
const LIVE_SECONDS: u64 = 20;
const COMMANDS: usize = 200;

fn main() {
    // `cargo test --benches` passes --test-threads and the like; there is nothing to choose here.
    println!("| what | figure |\n| --- | --- |");
    unthrottled("videotestsrc pattern=ball", "ball");
    unthrottled("videotestsrc pattern=black", "black");
    live();
    start();
}

fn row(what: &str, figure: impl std::fmt::Display) {
    println!("| {what} | {figure} |");
}

fn caps(live: bool) -> String {
    format!("is-live={live} ! video/x-raw,format=I420,width=640,height=480,framerate=30/1")
}

fn run(site: &Site, broker: &Mosquitto, gst: &str, more: &[&str]) -> Daemon {
    let mut arguments = vec!["--model", MODEL, "--gst", gst, "--set", "metrics_sleeptime_ms=500"];
    arguments.extend(more);
    site.run(&broker.url(), &arguments)
}

fn inferences(metrics: &Value) -> u64 {
    metrics["runner"]["inferences"].as_u64().unwrap_or(0)
}

/// Inferences a second as fast as it goes.
fn unthrottled(source: &str, name: &str) {
    let (site, broker) = (Site::new(), Mosquitto::start());
    let observer = Observer::connect(broker.port, site.device());
    let daemon = run(&site, &broker, &format!("{source} {}", caps(false)), &["--unthrottled"]);
    observer.wait_for_status("started", 1);
    let first = observer.wait_for("model/metrics", "frames", |metrics| inferences(metrics) > 100);
    let last = observer.wait_for("model/metrics", "ten seconds", |metrics| {
        metrics["ts"].as_u64() >= first["ts"].as_u64().map(|ts| ts + 10_000)
    });
    let seconds = (last["ts"].as_u64().unwrap() - first["ts"].as_u64().unwrap()) as f64 / 1e3;
    let rate = (inferences(&last) - inferences(&first)) as f64 / seconds;
    row(
        &format!("inferences/s, unthrottled, 640x480 {name}"),
        format!("{rate:.0}"),
    );
    let usage = Usage::of(daemon.pid());
    row(&format!("CPU seconds per 1000 inferences, unthrottled, {name}"), {
        format!("{:.3}", usage.cpu_seconds / inferences(&last) as f64 * 1e3)
    });
    daemon.stop();
}

/// CPU, memory and command latency at a live 30 frames a second.
fn live() {
    let (site, broker) = (Site::new(), Mosquitto::start());
    let observer = Observer::connect(broker.port, site.device());
    let daemon = run(
        &site,
        &broker,
        &format!("videotestsrc pattern=ball {}", caps(true)),
        &[],
    );
    observer.wait_for_status("started", 1);
    let (before, begun) = (Usage::of(daemon.pid()), Instant::now());
    let first = observer.wait_for("model/metrics", "inferences", |metrics| inferences(metrics) > 0);
    std::thread::sleep(Duration::from_secs(LIVE_SECONDS));
    let after = Usage::of(daemon.pid());
    let cpu = after.cpu_seconds - before.cpu_seconds;
    let seconds = begun.elapsed().as_secs_f64();
    let last = observer.wait_for("model/metrics", "the last figures", |metrics| {
        metrics["ts"].as_u64() >= first["ts"].as_u64().map(|ts| ts + LIVE_SECONDS * 1000)
    });
    let inferred = inferences(&last) - inferences(&first);
    row(
        "CPU seconds a second, live 30/s, source included",
        format!("{:.3}", cpu / seconds),
    );
    row(
        "CPU seconds per 1000 inferences, live 30/s, source included",
        format!("{:.3}", cpu / inferred as f64 * 1e3),
    );
    row("memory (PSS), model excluded, MiB", format!("{:.1}", after.pss_mib));
    row(
        "peak resident memory, model excluded, MiB",
        format!("{:.1}", after.peak_rss_mib),
    );
    let mut latencies: Vec<_> = (0..COMMANDS)
        .map(|_| {
            let begun = Instant::now();
            observer.command(&json!({"cmd": "get_threshold_filter_criteria"}), |answer| {
                !answer["criteria"].is_null()
            });
            begun.elapsed()
        })
        .collect();
    latencies.sort();
    row("command to answer, p50 / p99, ms", {
        let ms = |share: usize| latencies[COMMANDS * share / 100].as_secs_f64() * 1e3;
        format!("{:.2} / {:.2}", ms(50), ms(99))
    });
    daemon.stop();
}

/// Start of the process to the first inference, as an observer at the broker sees it.
fn start() {
    let mut times: Vec<_> = (0..7)
        .map(|_| {
            let (site, broker) = (Site::new(), Mosquitto::start());
            let observer = Observer::connect(broker.port, site.device());
            let begun = Instant::now();
            let daemon = run(
                &site,
                &broker,
                &format!("videotestsrc pattern=ball {}", caps(true)),
                &[],
            );
            observer.wait_for_status("started", 1);
            let took = begun.elapsed();
            daemon.stop();
            took
        })
        .collect();
    times.sort();
    row(
        "start of the process to the first inference (at the broker), median of 7, s",
        format!("{:.3}", times[3].as_secs_f64()),
    );
}
