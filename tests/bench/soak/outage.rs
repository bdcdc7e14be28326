//! What outages at full speed leave in memory: the process before, during and after each.

use std::time::Duration;

use rustix::process::Signal;

use crate::process::Usage;
use crate::report::median;
use crate::world::World;

/// How long the broker is away.
const AWAY: Duration = Duration::from_secs(20);
/// What the process gets to give memory back.
const REST: Duration = Duration::from_secs(20);
const LIMIT: Duration = Duration::from_secs(180);
/// So many messages under way are live ones.
const LIVE: u64 = 100;
/// Growth of the resident memory over the outages, without the first one, which maps the code that it needs.
const TOLERANCE: f64 = 0.05;
/// How often the process is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Lets the broker go away so often. Returns whether memory came back each time.
pub fn run(world: &mut World, outages: u64) -> bool {
    println!("| when | RSS MiB | of it anonymous | open files | threads | published | CPU ms per 1000 messages |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    world.pass(REST);
    let before = row(world, "before");
    let mut after = Vec::new();
    for number in 1..=outages {
        world.broker.end(Signal::TERM);
        world.gate.close();
        world.pass(AWAY);
        row(world, &format!("outage {number}"));
        world.broker.up();
        world.until(LIMIT, |world| world.subscriber.is_subscribed());
        world.gate.open();
        let caught_up = world.until(LIMIT, |world| {
            world.figures.get("mqtt_connected") == 1 && world.figures.get("messages_waiting") <= LIVE
        });
        if caught_up.is_none() {
            world
                .problems
                .push(format!("what waited was not delivered within {LIMIT:?}"));
        }
        row(world, &format!("caught up {number}"));
        world.pass(REST);
        after.push(row(world, &format!("after {number}")));
        if world.is_over() {
            break;
        }
    }
    let rss = |usage: &Usage| usage.rss_kib as f64 / 1024.0;
    let (first, last) = (after.first().unwrap_or(&before), after.last().unwrap_or(&before));
    println!(
        "\nRSS before {:.2} MiB, after the first outage {:.2} MiB, after the last {:.2} MiB",
        rss(&before),
        rss(first),
        rss(last)
    );
    let mut is_well = rss(last) <= rss(first) * (1.0 + TOLERANCE);
    for problem in &world.problems {
        println!("PROBLEM: {problem}");
        is_well = false;
    }
    println!("VERDICT: {}", if is_well { "memory comes back" } else { "FAILED" });
    is_well
}

fn row(world: &mut World, when: &str) -> Usage {
    let mut usages = Vec::new();
    for _ in 0..15 {
        world.pass(LOOK);
        usages.push(world.daemon.usage());
    }
    let middle = |figure: fn(&Usage) -> u64| median(usages.iter().map(figure).collect()).unwrap_or_default();
    let usage = Usage {
        rss_kib: middle(|usage| usage.rss_kib),
        anonymous_kib: middle(|usage| usage.anonymous_kib),
        pss_kib: middle(|usage| usage.pss_kib),
        files: middle(|usage| usage.files as u64) as usize,
        threads: middle(|usage| usage.threads),
    };
    let published = world.published();
    println!(
        "| {when} | {:.2} | {:.2} | {} | {} | {published} | {:.0} |",
        usage.rss_kib as f64 / 1024.0,
        usage.anonymous_kib as f64 / 1024.0,
        usage.files,
        usage.threads,
        world.daemon.cpu().as_secs_f64() * 1e6 / published.max(1) as f64,
    );
    usage
}
