//! The machine's limit for frames: a GStreamer line that ends in `fakesink`, in a process of its own (this program again).

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;

use super::process::Usage;

/// First argument of the child.
pub const CHILD: &str = "bare";
/// Before anything is counted.
const WARM_UP: Duration = Duration::from_millis(300);

/// What a line did while it was looked at.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    pub frames: f64,
    pub seconds: f64,
    pub cpu_seconds: f64,
}

impl Figures {
    pub fn rate(&self) -> f64 {
        self.frames / self.seconds
    }

    /// CPU seconds per 1000 frames.
    pub fn cost(&self) -> f64 {
        self.cpu_seconds / self.frames * 1e3
    }

    /// CPU seconds a second.
    pub fn load(&self) -> f64 {
        self.cpu_seconds / self.seconds
    }
}

/// Runs `line`, whose last element is called `end`, and looks at it for so long.
pub fn measure(line: &str, time: Duration) -> Figures {
    let text = run(&[&time.as_millis().to_string(), line]);
    let mut numbers = text.split_whitespace().map(|word| word.parse().expect("a number"));
    let mut next = || numbers.next().expect("three numbers");
    Figures {
        frames: next(),
        seconds: next(),
        cpu_seconds: next(),
    }
}

/// From the start of a process to the first frame of `line` at its end.
pub fn first_frame(line: &str) -> Duration {
    let begun = Instant::now();
    run(&["first", line]);
    begun.elapsed()
}

fn run(arguments: &[&str]) -> String {
    let this = std::env::current_exe().expect("the path of this program");
    let output = Command::new(this)
        .arg(CHILD)
        .args(arguments)
        .output()
        .expect("the child");
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("text")
}

/// The child: counts the frames that reach the end of the line.
pub fn child(arguments: &[String]) {
    gst::init().expect("GStreamer");
    let pipeline = gst::parse::launch(&arguments[1]).expect("the line");
    let bin = pipeline.downcast_ref::<gst::Bin>().expect("several elements");
    let pad = bin
        .by_name("end")
        .and_then(|end| end.static_pad("sink"))
        .expect("its end");
    let frames = Arc::new(AtomicU64::new(0));
    let (counter, (tell, first)) = (frames.clone(), std::sync::mpsc::channel());
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        if counter.fetch_add(1, Ordering::Relaxed) == 0 {
            // The other side waits only for the first one.
            let _ = tell.send(());
        }
        gst::PadProbeReturn::Ok
    });
    pipeline.set_state(gst::State::Playing).expect("it plays");
    first.recv_timeout(Duration::from_secs(30)).expect("a frame");
    if arguments[0] == "first" {
        return;
    }
    std::thread::sleep(WARM_UP);
    let look = || {
        (
            frames.load(Ordering::Relaxed),
            Instant::now(),
            Usage::of(std::process::id()),
        )
    };
    let (before, begun, used) = look();
    std::thread::sleep(Duration::from_millis(arguments[0].parse().expect("milliseconds")));
    let (after, ended, usage) = look();
    println!(
        "{} {} {}",
        after - before,
        (ended - begun).as_secs_f64(),
        usage.cpu_seconds - used.cpu_seconds
    );
    pipeline.set_state(gst::State::Null).expect("it stops");
}
