//! Pairs of the S3 cache: those that wait for the bucket, and the record of those that are in it.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::recorder::Recorder;
use super::states::{self, CrashState, Plan};
use super::trace::Trace;
use super::{SEED, check_replay, number};
use crate::s3::site::{BUCKET, PREFIX, Place};
use crate::support::daemon::Daemon;
use crate::support::leftovers::wait_until;
use crate::support::s3::{S3, uploads};
use crate::support::scripts::{boxed, frames, nothing};

/// States on which the program starts in the default run.
const STARTS: u64 = 6;
/// So many states are made for each of those.
const STATES_FOR_A_START: usize = 30;
const LIVE: &str = "videotestsrc is-live=true ! video/x-raw,format=RGB,width=64,height=48,framerate=20/1";

/// An object that the bucket had when the trace was so long.
struct Uploaded {
    position: u64,
    key: String,
    content: Vec<u8>,
}

/// What was recorded: pairs that wait for S3, are uploaded, and wait again, until SIGKILL.
struct Recording {
    place: Place,
    trace: Trace,
    uploaded: Vec<Uploaded>,
}

impl Recording {
    fn make() -> Self {
        let place = Place::new();
        let work_dir = place.site.path().join("work");
        fs::create_dir(&work_dir).expect("a directory");
        let recorder = Recorder::new(&work_dir, place.site.path().join("trace"));
        let set = format!("work_dir={}", work_dir.display());
        let mut command = place.command(&[boxed(0.9)], LIVE, &["iotcore_backoff=1", &set]);
        recorder.watch(&mut command);
        let daemon = Daemon::start(command);
        wait_for_waiting(&work_dir, "pairs wait for S3", |waiting| waiting >= 4);
        let mut uploaded = Vec::new();
        let s3 = place.storage.serve();
        wait_until("the pairs and newer ones are uploaded", || {
            look(&s3, &recorder, &mut uploaded);
            uploaded.len() >= 30
        });
        drop(s3);
        wait_for_waiting(&work_dir, "pairs wait again", |waiting| waiting >= 12);
        recorder.kill(daemon);
        let trace = Trace::read(recorder.trace(), recorder.root());
        check_replay(&trace, recorder.root());
        Self { place, trace, uploaded }
    }

    /// Starts the program on a state, with a bucket that has what was uploaded until then. Returns what is wrong.
    fn start(&self, state: &CrashState) -> Result<(), String> {
        let place = Place::with(self.place.site.copy());
        let work_dir = place.site.path().join("work");
        fs::create_dir(&work_dir).expect("a directory");
        state.tree.write(&work_dir);
        let bucket = place.storage.directory.path().join(BUCKET);
        fs::create_dir_all(bucket.join(PREFIX)).expect("a bucket");
        for object in self.uploaded.iter().filter(|object| object.position <= state.position) {
            fs::write(place.storage.directory.path().join(&object.key), &object.content).expect("an object");
        }
        let _s3 = place.storage.serve();
        let set = format!("work_dir={}", work_dir.display());
        let daemon = Daemon::start(place.command(&[nothing()], &frames(1), &[&set]));
        daemon.wait_for_line("The source ended");
        wait_for_waiting(&work_dir, "no pair waits any more", |waiting| waiting == 0);
        let damaged = damaged_objects(&bucket);
        let answer = place.clear();
        let left = files_below(&bucket);
        let log = daemon.stop();
        let is_well = damaged.is_empty() && answer["s3"] == "OK" && left.is_empty() && !log.contains("panicked");
        if is_well {
            return Ok(());
        }
        let files = state.tree.summary();
        Err(format!(
            "damaged: {damaged:?}, answer: {answer}, not removed: {left:?}\n{files}\n{log}"
        ))
    }
}

/// Adds the objects that the bucket has got since the last call.
fn look(s3: &S3, recorder: &Recorder, uploaded: &mut Vec<Uploaded>) {
    let keys = uploads(&s3.answered());
    let position = recorder.position();
    for key in keys.into_iter().skip(uploaded.len()) {
        let content = s3.object(&key).expect("an object");
        let key = key.trim_start_matches('/').to_owned();
        uploaded.push(Uploaded { position, key, content });
    }
}

/// Waits until the number of waiting messages is as wanted.
fn wait_for_waiting(work_dir: &Path, what: &str, wanted: impl Fn(usize) -> bool) {
    let is_waiting = |path: &PathBuf| {
        let parent = path.parent().and_then(Path::file_name);
        parent.is_some_and(|name| name == "s3-pending") && path.extension().is_some_and(|ending| ending == "json")
    };
    wait_until(what, || {
        wanted(files_below(work_dir).iter().filter(|path| is_waiting(path)).count())
    });
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    // A file or directory may be removed meanwhile.
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths
        .flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] })
        .collect()
}

/// Objects that are no complete message or no complete picture.
fn damaged_objects(bucket: &Path) -> Vec<PathBuf> {
    let is_whole = |path: &PathBuf| {
        let content = fs::read(path).expect("an object");
        match path.extension().is_some_and(|ending| ending == "json") {
            true => serde_json::from_slice::<Value>(&content).is_ok_and(|message| message["id"].is_string()),
            false => image::load_from_memory_with_format(&content, image::ImageFormat::Jpeg).is_ok(),
        }
    };
    let objects = files_below(bucket).into_iter();
    objects.filter(|path| !is_whole(path)).collect()
}

#[test]
fn after_a_power_cut_only_complete_pairs_reach_s3_and_all_of_them_can_be_removed() {
    let recording = Recording::make();
    let starts = number("POWER_CUT_STARTS", STARTS) as usize;
    let plan = Plan {
        states: starts * STATES_FOR_A_START,
        seed: number("POWER_CUT_SEED", SEED),
    };
    let mut states = Vec::new();
    states::visit(&recording.trace, plan, |state| states.push(state));
    let first_upload = recording.uploaded.first().expect("an upload").position;
    let (before, after): (Vec<_>, Vec<_>) = states.iter().partition(|state| state.position < first_upload);
    let sample = |states: &[&CrashState], wanted: usize| -> Vec<CrashState> {
        let step = states.len().div_ceil(wanted).max(1);
        states
            .iter()
            .rev()
            .step_by(step)
            .map(|state| (*state).clone())
            .collect()
    };
    let sample = [sample(&before, starts / 3), sample(&after, starts - starts / 3)].concat();
    for state in &sample {
        let checked = recording.start(state);
        checked.unwrap_or_else(|error| panic!("{}: {error}", state.name()));
    }
    println!(
        "S3: {} starts of the program, the pairs are complete and can be removed",
        sample.len()
    );
}
