//! The table at the end, and the verdict.

use std::time::Duration;

use crate::faults::{Kind, Outcome};
use crate::world::{End, World};

/// Most resident memory of the daemon at any time.
const MEMORY_LIMIT_MIB: f64 = 128.0;
/// Growth of the median over the life of one process that is no growth.
const NOISE_MIB: f64 = 6.0;
const NOISE_FILES: usize = 4;
/// What a process needs to come to rest.
const SETTLING: usize = 12;
/// Fewer looks at one process (every 5 s) say nothing about growth.
const ENOUGH: usize = 60;

/// What a SIGKILL cost and may cost: in memory alone at that moment.
#[derive(Debug, Default, Clone, Copy)]
pub struct Killed {
    messages: u64,
    most: u64,
}

/// Prints the tables; true when nothing was lost and nothing grew.
pub fn conclude(world: &mut World, outcomes: &[Outcome]) -> bool {
    let mut killed = [
        (Kind::KilledOnline, Killed::default()),
        (Kind::KilledOffline, Killed::default()),
    ];
    let mut lost = lost(world, &mut killed);
    faults(outcomes, &killed);
    let ledger = world.ledger.lock();
    let gaps_in_faults: u64 = outcomes.iter().map(|outcome| outcome.lost).sum();
    let dropped: u64 = world.runs.iter().map(|run| run.dropped).sum();
    lost = lost.saturating_sub(dropped);
    println!(
        "\npublished at least {} (as last asked before each end), delivered {}, sent twice {}, lost {lost} (gaps during faults: {gaps_in_faults}), dropped from a full spool {dropped}, \
         in memory at a SIGKILL {}, out of order {}, unreadable {}; sources that ended: {}; processes: {}; peak of the spool: {:.1} MiB",
        world.published(),
        ledger.delivered,
        ledger.duplicates,
        killed.iter().map(|(_, killed)| killed.messages).sum::<u64>(),
        ledger.disordered,
        ledger.unreadable,
        world.source_ends,
        world.runs.last().map_or(0, |run| run.process + 1),
        world.spool_peak as f64 / f64::from(1 << 20),
    );
    let mut well = lost == 0 && ledger.disordered == 0 && ledger.unreadable == 0;
    drop(ledger);
    well &= has_not_grown(world);
    for problem in &world.problems {
        println!("PROBLEM: {problem}");
        well = false;
    }
    println!(
        "{}",
        if well {
            "VERDICT: nothing lost, nothing grew"
        } else {
            "VERDICT: FAILED"
        }
    );
    well
}

/// The table of faults.
pub fn faults(outcomes: &[Outcome], killed: &[(Kind, Killed)]) {
    println!(
        "\n| fault | times | published meanwhile | sent twice | lost | in memory at SIGKILL, all / most | \
         delivering again after, p50 / max, s | caught up after, p50 / max, s |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- |"
    );
    for kind in Kind::ALL {
        if outcomes.iter().any(|outcome| outcome.kind == kind) {
            row(kind, outcomes, killed);
        }
    }
}

/// Compares what each run must have delivered with what came.
pub fn lost(world: &World, killed: &mut [(Kind, Killed)]) -> u64 {
    let ledger = world.ledger.lock();
    let mut lost = 0;
    for (index, run) in world.runs.iter().enumerate() {
        let until = world.runs.get(index + 1).map_or(u64::MAX, |next| next.begun_ts);
        let came: Vec<_> = ledger
            .runs
            .iter()
            .filter(|came| (run.begun_ts..until).contains(&came.first_ts))
            .collect();
        let last = came.iter().map(|came| came.last).max().unwrap_or(0);
        let due = match run.end {
            End::Orderly => run.published,
            End::Killed { on_disk, by } => {
                let in_memory = run.published.saturating_sub(last.max(on_disk));
                for (_, killed) in killed.iter_mut().filter(|(kind, _)| *kind == by) {
                    killed.messages += in_memory;
                    killed.most = killed.most.max(in_memory);
                }
                on_disk
            }
        };
        let missing = due.saturating_sub(last) + came.iter().map(|came| came.gaps()).sum::<u64>();
        if missing > 0 {
            println!("LOST {missing}: {run:?}, arrived: {came:?}");
        }
        lost += missing;
    }
    lost
}

fn row(kind: Kind, outcomes: &[Outcome], killed: &[(Kind, Killed)]) {
    let ours: Vec<_> = outcomes.iter().filter(|outcome| outcome.kind == kind).collect();
    let sum = |figure: fn(&Outcome) -> u64| ours.iter().map(|outcome| figure(outcome)).sum::<u64>();
    let recovery = ours.iter().map(|outcome| outcome.recovery).collect();
    let caught_up = ours.iter().filter_map(|outcome| outcome.caught_up).collect();
    let in_memory = killed
        .iter()
        .find(|(of, _)| *of == kind)
        .map_or(String::new(), |(_, killed)| {
            format!("{} / {}", killed.messages, killed.most)
        });
    println!(
        "| {} | {} | {} | {} | {} | {in_memory} | {} | {} |",
        kind.words(),
        ours.len(),
        sum(|outcome| outcome.published),
        sum(|outcome| outcome.duplicates),
        sum(|outcome| outcome.lost),
        times(recovery),
        times(caught_up),
    );
}

fn times(mut times: Vec<Duration>) -> String {
    times.sort();
    match times.last() {
        Some(most) => format!(
            "{:.2} / {:.2}",
            times[times.len() / 2].as_secs_f64(),
            most.as_secs_f64()
        ),
        None => "-".to_owned(),
    }
}

pub fn median<T: Ord + Copy>(mut values: Vec<T>) -> Option<T> {
    values.sort();
    values.get(values.len() / 2).copied()
}

/// Of the process that lived longest.
fn has_not_grown(world: &World) -> bool {
    let peak = world
        .samples
        .iter()
        .map(|sample| sample.usage.rss_kib)
        .max()
        .unwrap_or(0) as f64
        / 1024.0;
    println!("most resident memory: {peak:.1} MiB (limit {MEMORY_LIMIT_MIB})");
    let mut well = peak <= MEMORY_LIMIT_MIB;
    let longest = world
        .samples
        .chunk_by(|one, next| one.process == next.process)
        .max_by_key(|samples| samples.len())
        .unwrap_or_default();
    if longest.len() < ENOUGH {
        println!("no process lived long enough to judge growth");
        return well;
    }
    let settled = &longest[SETTLING..];
    let third = settled.len() / 3;
    let (first, last) = (&settled[..third], &settled[settled.len() - third..]);
    let pss = |samples: &[crate::world::Sample]| median(samples.iter().map(|sample| sample.usage.pss_kib).collect());
    let files = |samples: &[crate::world::Sample]| median(samples.iter().map(|sample| sample.usage.files).collect());
    let (pss, files) = (
        [pss(first), pss(last)].map(|kib| kib.unwrap_or(0) as f64 / 1024.0),
        [files(first), files(last)].map(|files| files.unwrap_or(0)),
    );
    println!(
        "the process that lived longest ({} min), first third to last third: PSS {:.1} to {:.1} MiB, open files {} to {}",
        longest.len() / 12,
        pss[0],
        pss[1],
        files[0],
        files[1]
    );
    well &= pss[1] <= pss[0] + NOISE_MIB && files[1] <= files[0] + NOISE_FILES;
    well
}
