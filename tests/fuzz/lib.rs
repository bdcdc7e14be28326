//! Fuzz targets for everything that the program reads and others write: models, configurations, brokers, Edge Impulse Studio, AWS,
//! the Greengrass nucleus, clients of its servers, and files that a power cut, a disk or another program has changed.
//!
//! A target is a function that panics when the input makes the program panic, or when a property does not hold that it checks.
//! Two drivers call them: `blind.rs`, a test of the default run, and `guided.rs`, which libFuzzer guides by coverage.

mod input;
mod targets;

use input::SECRET;
pub use input::{memory, scratch_in};

/// A target.
#[derive(Debug)]
pub struct Target {
    /// Its name, which is that of its corpus.
    pub name: &'static str,
    /// Longest input in bytes.
    pub max_len: usize,
    call: fn(&[u8]),
}

impl Target {
    /// Runs one input, up to the longest. An input that has the word that the targets use as a secret is left out: it would be
    /// shown, and nothing would be wrong.
    pub fn run(&self, input: &[u8]) {
        let has_secret = input.windows(SECRET.len()).any(|bytes| bytes == SECRET.as_bytes());
        if !has_secret {
            (self.call)(&input[..input.len().min(self.max_len)]);
        }
    }
}

macro_rules! targets {
    ($($path:path: $max_len:expr,)*) => {
        &[$(Target { name: last_segment(stringify!($path)), max_len: $max_len, call: $path },)*]
    };
}

/// All targets.
pub static TARGETS: &[Target] = targets! {
    targets::model::model_stream: 4096,
    targets::model::model_hello: 4096,
    targets::model::model_file: 1024,
    targets::capture::launch_line: 1024,
    targets::capture::launch_secrets: 512,
    targets::capture::video_units: 512,
    targets::config::config_text: 4096,
    targets::config::config_secrets: 1024,
    targets::config::config_set: 1024,
    targets::config::events_config: 2048,
    targets::messages::command: 1024,
    targets::messages::mqtt: 2048,
    targets::messages::broker_address: 512,
    targets::messages::local_message: 2048,
    targets::studio::studio_answer: 2048,
    targets::studio::studio_message: 2048,
    targets::http::request: 1024,
    targets::http::connection: 2048,
    targets::http::features: 2048,
    targets::http::upload: 2048,
    targets::http::picture: 8192,
    targets::aws::aws_answer: 2048,
    targets::aws::secret_value: 1024,
    targets::aws::nucleus: 2048,
    targets::aws::nucleus_connection: 2048,
    targets::files::spool_file: 32768,
    targets::files::index_file: 32768,
    targets::files::model_files: 4096,
    targets::files::events_file: 4096,
    targets::files::records_file: 8192,
    targets::files::aged_files: 1024,
    targets::files::device_files: 1024,
    targets::files::numbered_files: 1024,
    targets::sequences::sliding_window: 512,
    targets::sequences::event_engine: 2048,
    targets::text::redaction: 512,
    targets::text::log_text: 512,
    targets::text::watched_message: 2048,
};

/// Finds a target by its name.
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

const fn last_segment(path: &'static str) -> &'static str {
    let bytes = path.as_bytes();
    let mut at = bytes.len();
    while at > 0 && bytes[at - 1] != b':' {
        at -= 1;
    }
    path.split_at(at).1
}

/// Calls `end` at each panic, of any thread, but those in redb: the program takes them for a damaged file.
pub fn end_at_panics(end: impl Fn() + Send + Sync + 'static) {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let is_caught = panic
            .location()
            .is_some_and(|location| location.file().contains("/redb-"));
        if !is_caught {
            print(panic);
            end();
        }
    }));
}

/// Limits the address space of this process to `bytes`. A larger allocation ends it.
pub fn limit_memory(bytes: u64) {
    let limit = rustix::process::Rlimit {
        current: Some(bytes),
        maximum: Some(bytes),
    };
    rustix::process::setrlimit(rustix::process::Resource::As, limit).expect("the limit can be set");
}

/// Resident memory of this process in bytes.
pub fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = status.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}
