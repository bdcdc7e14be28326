//! Files that a disk, a power cut or another program has changed.

use std::fs;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ei_greengrass::aws::EndpointCache;
use ei_greengrass::device::{Topics, peek, resolve};
use ei_greengrass::events::{EventRecorder, EventSettings};
use ei_greengrass::fuzzing::cache::{use_index, use_pending};
use ei_greengrass::fuzzing::studio::{
    use_daily_bytes, use_frame_limits, use_indices, use_models, use_records, use_samples, use_summaries,
};
use ei_greengrass::fuzzing::uplink::spool_file as use_spool;
use ei_greengrass::status::stats::Stats;
use ei_greengrass::studio::ModelOrigin;
use ei_greengrass::uplink::Outbox;
use ei_greengrass::uplink::outbox::OutboxBounds;

use tokio::time::Instant;

use crate::input::{Input, runtime, scratch};

/// The id in the names of the files of a pair.
const SPOOL_NAME: &str = "spool.redb";
const INDEX_NAME: &str = "s3-index.redb";
const ID: &str = "0b5c1d2e-3f40-4a51-8b62-7c83d9e0f1a2";

fn write(path: &Path, content: &[u8]) {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).expect("a directory");
    }
    fs::write(path, content).expect("a file");
}

/// A file of a redb database: one that is whole, with changes at some places. Random changes of a whole file would be found by its
/// checksums at once, so the places are chosen by the input.
fn changed(original: &[u8], data: &[u8]) -> Vec<u8> {
    let mut input = Input(data);
    let mut file = original.to_vec();
    while input.0.len() > 4 {
        let kind = input.byte();
        let at = input.number() as usize;
        match (kind % 4, file.len()) {
            (_, 0) => break,
            (0, length) => file.truncate(at % length),
            (1, length) => file[at % length] = input.byte(),
            (2, length) => {
                let from = at % length;
                let to = (from + 4096).min(length);
                file[from..to].fill(input.byte());
            }
            (_, length) => {
                let from = at % length;
                for byte in input.part() {
                    if let Some(place) = file.get_mut(from) {
                        *place ^= byte;
                    }
                }
            }
        }
    }
    file
}

/// A database of the corpus with changes, or any bytes.
fn database(name: &'static str, data: &[u8]) -> Vec<u8> {
    match Input(data).byte() % 8 {
        0 => data.get(1..).unwrap_or_default().to_vec(),
        _ => changed(whole_database(name), data.get(1..).unwrap_or_default()),
    }
}

/// A database as the program writes it.
fn whole_database(name: &'static str) -> &'static [u8] {
    static SPOOL: OnceLock<Vec<u8>> = OnceLock::new();
    static INDEX: OnceLock<Vec<u8>> = OnceLock::new();
    let (cell, make): (_, fn(&Path)) = match name {
        SPOOL_NAME => (&SPOOL, |directory| {
            use_spool(&directory.join(SPOOL_NAME), 1 << 20);
        }),
        _ => (&INDEX, |directory| {
            use_index(directory);
        }),
    };
    cell.get_or_init(|| {
        let directory = scratch();
        make(directory.path());
        fs::read(directory.path().join(name)).expect("a database")
    })
}

/// The spool.
pub fn spool_file(data: &[u8]) {
    let file = database(SPOOL_NAME, data);
    let directory = scratch();
    let path = directory.path().join(SPOOL_NAME);
    write(&path, &file);
    let max_bytes = u64::from(data.first().copied().unwrap_or_default()) << 4;
    use_spool(&path, max_bytes.max(64));
}

/// The index of uploaded pairs, and the one of earlier versions.
pub fn index_file(data: &[u8]) {
    let directory = scratch();
    match data.first() {
        Some(255) => write(&directory.path().join("s3-index"), &data[1..]),
        _ => write(&directory.path().join(INDEX_NAME), &database(INDEX_NAME, data)),
    }
    use_index(directory.path());
}

/// The files about models: `about.json`, `versions.json`, `build-job.json`.
pub fn model_files(data: &[u8]) {
    let directory = scratch();
    let mut input = Input(data);
    let models = directory.path().join("models");
    let version = models.join("project-1/v1-float32-runner-linux-x86_64-tflite-impulse1");
    let (about, versions, model) = (input.part(), input.part(), input.part());
    write(&version.join("about.json"), about);
    write(&version.join("model.eim"), model);
    write(&models.join("state/versions.json"), versions);
    let origin = ModelOrigin {
        studio: "https://studio.edgeimpulse.com".to_owned(),
        secret_id: "EI_API_KEY".to_owned(),
        secret_name: "ei_api_key".to_owned(),
        impulse_id: None,
    };
    use_models(directory.path(), &origin);
}

/// `events.json`, that of another user, and `events.recent.json`.
pub fn events_file(data: &[u8]) {
    let directory = scratch();
    let mut input = Input(data);
    for name in ["events.json", "events.recent.json", "events.json.of-uid-1"] {
        let content = input.part();
        if !content.is_empty() {
            write(&directory.path().join(name), content);
        }
    }
    let stats = Arc::new(Stats::default());
    let outbox = Arc::new(Outbox::new(OutboxBounds::default(), stats.clone()));
    let recorder = EventRecorder::start(
        directory.path(),
        Arc::new(Topics::new("device")),
        outbox,
        stats,
        EventSettings::default(),
    );
    recorder.config();
    recorder.reset_counts();
    recorder.end_events();
    runtime().block_on(async {
        recorder.finish(Instant::now() + Duration::from_secs(60)).await;
    });
}

/// Stored inferences. The names of the files are part of the input.
pub fn records_file(data: &[u8]) {
    let directory = scratch();
    let mut input = Input(data);
    let max_bytes = u64::from(input.byte()) << 12;
    while !input.is_empty() {
        let owner = ["1/1", "1/2", "2/1"][usize::from(input.byte()) % 3];
        let path = directory
            .path()
            .join(owner)
            .join(format!("{:020}.records", input.amount()));
        let length = input.amount() as usize;
        let (content, rest) = input.0.split_at(length.min(input.0.len()));
        input.0 = rest;
        write(&path, &with_checksums(content));
    }
    use_records(directory.path(), max_bytes);
}

/// With the right checksum in each header, so that what is behind the checksums is tried too. Others are in the corpus.
fn with_checksums(content: &[u8]) -> Vec<u8> {
    let mut content = content.to_vec();
    let starts: Vec<_> = content
        .windows(4)
        .enumerate()
        .filter(|(_, bytes)| bytes == b"EIR1")
        .map(|(at, _)| at)
        .collect();
    for at in starts {
        if let Some(header) = content.get_mut(at..at + 40) {
            let checksum = crc32fast::hash(&header[..36]);
            header[36..].copy_from_slice(&checksum.to_le_bytes());
        }
    }
    content
}

/// Files with a state and its age, and the numbers of inferences.
pub fn aged_files(data: &[u8]) {
    let directory = scratch();
    let mut input = Input(data);
    let kind = input.byte() % 3;
    let passed = Duration::from_millis(input.amount() % (1 << 40));
    let bytes = input.amount();
    let path = directory.path().join("state.json");
    write(&path, input.0);
    match kind {
        0 => use_daily_bytes(&path, passed, bytes),
        1 => use_frame_limits(&path, passed),
        _ => use_indices(&path),
    }
}

/// The remembered endpoint and name of the device.
pub fn device_files(data: &[u8]) {
    let directory = scratch();
    let mut input = Input(data);
    let (endpoint, identity, template) = (input.part(), input.part(), input.part_text());
    write(&directory.path().join("iot-endpoint.json"), endpoint);
    let cache = EndpointCache::new(directory.path());
    if let Some(host) = cache.read(None) {
        cache.write("eu-west-1", &host).expect("the directory can be written");
        assert_eq!(cache.read(Some("eu-west-1")), Some(host), "what was written is read");
    }
    let identity_file = ei_greengrass::device::identity_dir(&template, directory.path()).join("identity");
    write(&identity_file, identity);
    let nowhere = Path::new("/nonexistent");
    let known = peek(&template, directory.path(), nowhere);
    let name = resolve(&template, directory.path(), nowhere).name;
    assert_eq!(name, known.name);
    assert!(
        (1..=128).contains(&name.len()) && !name.contains(['/', '+', '#', '\0']),
        "{name}"
    );
}

/// Directories with numbered files: samples, summaries, and pairs that wait for S3. Names and contents are any.
pub fn numbered_files(data: &[u8]) {
    let mut input = Input(data);
    let (kind, bound) = (input.byte() % 3, usize::from(input.byte()));
    let parent = scratch();
    let directory = parent.path().join("waiting");
    fs::create_dir(&directory).expect("a directory");
    for _ in 0..12 {
        let number = match input.byte() {
            255 => input.number().to_string(),
            254 => u64::MAX.to_string(),
            253 => input.part_text().replace(['/', '\0'], "-"),
            small => format!("{small:016}"),
        };
        let name = match (kind, input.byte() % 4) {
            (0, 0) => format!("{number}.json"),
            (0, 1) => format!("{number}.data"),
            (1, 0 | 1) => format!("{number}.json"),
            (2, 0 | 1) => format!("{number}-{ID}.json"),
            (2, 2) => format!("{number}-{ID}.img"),
            _ => format!("{number}.unfinished"),
        };
        let name: String = name.chars().take(60).collect();
        let content = input.part();
        if !matches!(name.as_str(), "." | ".." | "") {
            write(&directory.join(name), content);
        }
        if input.is_empty() {
            break;
        }
    }
    match kind {
        0 => use_samples(&directory, bound, 1 << 16),
        1 => use_summaries(&directory),
        _ => {
            use_pending(&directory, bound, 1 << 16);
        }
    }
}
