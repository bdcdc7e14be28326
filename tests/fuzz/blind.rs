//! Runs every target from its corpus, and then with simple changes of it, for some seconds. The changes are always the same ones.
//!
//! Each target has a process of its own, so that its memory can be measured and limited, and a target that hangs can be ended.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio, exit};
use std::sync::Arc;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use fuzz::{TARGETS, Target};

mod change;

use change::{Changes, Random};

/// The time of one target, beside its corpus.
const TARGET_TIME: Duration = Duration::from_millis(1200);
/// One input takes a few milliseconds; the limit is for a machine that does much else.
const INPUT_LIMIT: Duration = Duration::from_secs(20);
/// Address space of a process: an allocation beyond it fails, and the process ends.
const MAX_MEMORY: u64 = 3 << 30;
/// Resident memory of a process.
const MAX_RESIDENT: u64 = 400 << 20;
/// How much the resident memory may grow after the first third of the time.
const MAX_GROWTH: u64 = 48 << 20;

/// The name of the target, for the test `worker`.
const NAME: &str = "FUZZ_TARGET";
/// The directory of temporary files.
const SCRATCH: &str = "FUZZ_SCRATCH";
/// Whether each input is written to the file `current` before it is run.
const TRACE: &str = "FUZZ_TRACE";

fn corpus(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name)
}

/// The inputs of a corpus, with the names of their files.
fn seeds(name: &str) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(corpus(name)).unwrap_or_else(|e| panic!("the corpus of {name}: {e}"));
    let mut seeds: Vec<_> = entries
        .map(|entry| entry.unwrap())
        .map(|entry| {
            (
                entry.file_name().to_string_lossy().into_owned(),
                fs::read(entry.path()).unwrap(),
            )
        })
        .collect();
    seeds.sort();
    seeds
}

#[test]
fn no_target_panics_hangs_or_grows_with_changes_of_its_corpus() {
    let queue: Mutex<VecDeque<&Target>> = Mutex::new(TARGETS.iter().collect());
    let failures = Mutex::new(Vec::new());
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores.min(TARGETS.len()) {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap().pop_front();
                    let Some(target) = next else { break };
                    if let Err(failure) = run(target) {
                        failures.lock().unwrap().push(failure);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "\n{}", failures.join("\n\n"));
}

#[test]
fn every_corpus_belongs_to_a_target_and_all_are_small() {
    let mut bytes = 0;
    for entry in fs::read_dir(corpus("")).unwrap() {
        let name = entry.unwrap().file_name();
        let name = name.to_str().unwrap();
        let target = fuzz::find(name).unwrap_or_else(|| panic!("a corpus without a target: {name}"));
        for (seed, input) in seeds(name) {
            assert!(input.len() <= target.max_len, "{name}/{seed} has {} bytes", input.len());
            bytes += input.len();
        }
    }
    assert!(bytes <= 200_000, "{bytes} bytes");
}

/// Runs a target in a process of its own.
fn run(target: &Target) -> Result<(), String> {
    let scratch = tempfile::tempdir_in(fuzz::memory()).unwrap();
    let output = start(target, scratch.path(), false);
    if output.status.success() {
        return Ok(());
    }
    let mut said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.code().is_none() {
        // It was ended by a signal and could not show its input: the same inputs again.
        let again = start(target, scratch.path(), true);
        let input = fs::read(scratch.path().join("current")).unwrap_or_default();
        said = format!("{}\n{}", String::from_utf8_lossy(&again.stderr), shown(&input));
    }
    Err(format!("{} ({}):\n{said}", target.name, output.status))
}

fn start(target: &Target, scratch: &Path, trace: bool) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "worker", "--ignored", "--nocapture"])
        .env(NAME, target.name)
        .env(SCRATCH, scratch)
        .stdin(Stdio::null());
    if trace {
        command.env(TRACE, "1");
    }
    command.output().unwrap()
}

/// The input that runs now, and since when.
#[derive(Default)]
struct Current {
    input: Vec<u8>,
    since: Option<Instant>,
}

fn shown(input: &[u8]) -> String {
    format!("input of {} bytes: b\"{}\"", input.len(), input.escape_ascii())
}

fn fail(current: &Mutex<Current>, what: &str) -> ! {
    let input = current.lock().map(|current| current.input.clone()).unwrap_or_default();
    eprintln!("{what}\n{}", shown(&input));
    exit(101)
}

/// Not a test: one target, in a process that the test above starts.
#[test]
#[ignore = "runs in processes of the other test"]
fn worker() {
    let Ok(name) = std::env::var(NAME) else { return };
    let target = fuzz::find(&name).unwrap();
    fuzz::scratch_in(std::env::var_os(SCRATCH).unwrap().into());
    fuzz::limit_memory(MAX_MEMORY);
    let current = Arc::new(Mutex::new(Current::default()));
    fuzz::end_at_panics({
        let current = current.clone();
        move || fail(&current, "panicked")
    });
    watch(current.clone());
    let trace = std::env::var_os(TRACE).map(|_| Path::new(&std::env::var_os(SCRATCH).unwrap()).join("current"));
    let run = |input: Vec<u8>| {
        if let Some(trace) = &trace {
            fs::write(trace, &input).unwrap();
        }
        *current.lock().unwrap() = Current {
            input: input.clone(),
            since: Some(Instant::now()),
        };
        target.run(&input);
        current.lock().unwrap().since = None;
    };
    let seeds: Vec<_> = seeds(&name).into_iter().map(|(_, input)| input).collect();
    for seed in &seeds {
        run(seed.clone());
    }
    let mut changes = Changes::new(&seeds, target.max_len, Random::new(&name));
    let (begun, mut runs, mut resident) = (Instant::now(), 0_u64, None);
    while begun.elapsed() < TARGET_TIME {
        run(changes.next_input());
        runs += 1;
        if resident.is_none() && begun.elapsed() > TARGET_TIME / 3 {
            resident = fuzz::resident();
        }
    }
    if let (Some(before), Some(after)) = (resident, fuzz::resident())
        && after > before + MAX_GROWTH
    {
        eprintln!("{runs} runs: the resident memory grew from {before} to {after} bytes");
        exit(101);
    }
    println!("{name}: {} seeds, {runs} changes", seeds.len());
}

/// Ends the process when an input takes too long or too much memory.
fn watch(current: Arc<Mutex<Current>>) {
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_millis(100));
            let since = current.lock().unwrap().since;
            if since.is_some_and(|since| since.elapsed() > INPUT_LIMIT) {
                fail(&current, "hangs");
            }
            if let Some(resident) = fuzz::resident()
                && resident > MAX_RESIDENT
            {
                fail(&current, &format!("takes {resident} bytes of memory"));
            }
        }
    });
}
