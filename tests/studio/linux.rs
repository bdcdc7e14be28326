//! `launch: linux`: the data collection without a model.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use ei_greengrass::capture::{
    AudioFormat, AudioMailbox, Capture, CaptureOutput, CaptureSettings, CaptureTap, FrameMailbox,
};
use ei_greengrass::config::SourceLine;
use ei_greengrass::status::{StudioActivity, StudioStateCell};
use ei_greengrass::studio::StudioLimits;
use ei_greengrass::studio::channel::{ChannelLimits, ChannelSettings, ChannelTask, StudioAddresses, channel};
use ei_greengrass::studio::collect::{CollectService, CollectSettings};
use ei_greengrass::studio::upload::{UploadLimits, UploadSettings, Uploader};
use ei_greengrass::util::secret::Secret;
use serde_json::{Value, json};

use super::assert_no_secret;
use crate::support::daemon::{Daemon, LIMIT, Site};
use crate::support::exchange::{ExchangeStudio, Part};
use crate::support::http::HttpServer;
use crate::support::ports::free_port;
use crate::support::studio::{self as stand_in, API_KEY, good_secret};

const CAMERA: &str = "videotestsrc pattern=ball is-live=true ! video/x-raw,width=640,height=480,framerate=30/1";
const MICROPHONE: &str = "audiotestsrc is-live=true";

struct Bench {
    site: Site,
    secrets: HttpServer,
    studio: ExchangeStudio,
}

impl Bench {
    fn new(case: &str) -> Self {
        Self {
            site: Site::new(),
            secrets: stand_in::secrets(&good_secret()),
            studio: ExchangeStudio::new(case),
        }
    }

    fn command(&self, subcommand: &str, gst: &str, eiparams: &str) -> Command {
        let mut command = self.site.command(subcommand);
        let eiparams = format!("eiparams=--greengrass {eiparams}");
        command.args(["--set", "launch=linux", "--set", &eiparams, "--gst", gst]);
        stand_in::surround(&mut command, &self.secrets.url(), &self.studio.http.url());
        command
            .env("EI_REMOTE_MGMT_URL", self.studio.remote.url())
            .env("EI_INGESTION_URL", self.studio.http.url())
            .env("RUST_LOG", "trace");
        command
    }

    fn run(&self, gst: &str, eiparams: &str, change: impl FnOnce(&mut Command)) -> Daemon {
        let mut command = self.command("run", gst, eiparams);
        change(&mut command);
        Daemon::start(command)
    }
}

#[test]
fn a_camera_collects_without_a_model_and_a_broker() {
    let bench = Bench::new("C");
    let port = free_port();
    let daemon = bench.run(CAMERA, "--disable-microphone", |c| {
        let page = format!("preview_port={port}");
        c.args(["--set", "preview=on", "--set", &page]);
    });
    bench.studio.play();
    let (_, hello) = bench.studio.remote.hello(0);
    assert_eq!(hello["hello"]["apiKey"], API_KEY);
    let sensors = hello["hello"]["sensors"].as_array().unwrap();
    assert_eq!(sensors[0]["name"], "Camera (640x480)");
    assert!(
        !sensors.iter().any(|sensor| sensor["name"] == "Microphone"),
        "{sensors:?}"
    );
    daemon.wait_for_line("Listening server=\"live page\"");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let status: Value = runtime.block_on(async {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("http://127.0.0.1:{port}/api/status");
        client.get(url).send().await.unwrap().json().await.unwrap()
    });
    let health = &status["health"];
    assert_eq!((&health["model"], &health["mqtt"]), (&json!("off"), &json!("off")));
    assert_eq!(
        (&health["source"], &health["studio"]),
        (&json!("running"), &json!("online"))
    );
    assert_eq!(status["problems"], json!([]));
    assert_eq!(status["counters"]["studio_uploads"], 1);
    assert_no_secret(&daemon.stop());
}

#[test]
fn a_microphone_collects_without_a_model() {
    let bench = Bench::new("D");
    let daemon = bench.run(MICROPHONE, "--disable-camera", |_| {});
    bench.studio.play();
    let (_, hello) = bench.studio.remote.hello(0);
    let sensors = hello["hello"]["sensors"].as_array().unwrap();
    assert_eq!((sensors.len(), &sensors[0]["name"]), (1, &json!("Microphone")));
    assert_no_secret(&daemon.stop());
}

#[test]
fn a_picture_file_can_stand_for_the_camera() {
    let bench = Bench::new("C");
    let pixels = vec![200; 64 * 48 * 3];
    let mut jpeg = Vec::new();
    let mut encoder = image::codecs::jpeg::JpegEncoder::new(&mut jpeg);
    encoder.encode(&pixels, 64, 48, image::ExtendedColorType::Rgb8).unwrap();
    let file = bench.site.write("picture.jpg", jpeg);
    let eiparams = format!("--disable-microphone --fake-camera {}", file.display());
    let daemon = bench.run("__none__", &eiparams, |_| {});
    bench.studio.play();
    let request = bench.studio.http.requests.with(|all| {
        let mut uploads = all.iter().filter(|request| request.path.ends_with("/files"));
        uploads.next().cloned().unwrap()
    });
    let picture = image::load_from_memory(&Part::of(&request).data).unwrap();
    assert_eq!((picture.width(), picture.height()), (64, 48));
    daemon.stop();
}

#[test]
fn check_describes_the_data_collection_and_needs_no_model_and_broker() {
    let bench = Bench::new("C");
    let mut command = bench.command("check", CAMERA, "--disable-microphone");
    assert_eq!(command.output().unwrap().status.code(), Some(0));
    let output = command.arg("--online").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for part in [
        "collects data without a model",
        "name in Edge Impulse Studio",
        "`run` starts with this configuration",
        "studio_channel: ok",
        "mqtt: not needed",
        "secret: ok",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("MQTT client id"), "{text}");
}

/// A camera and a microphone of GStreamer's test sources, both copied into one tap.
fn start_sources(tap: &Arc<CaptureTap>) -> [Capture; 2] {
    ei_greengrass::capture::init().unwrap();
    let settings = |line: &str| CaptureSettings {
        tap: Some(tap.clone()),
        ..CaptureSettings::new(SourceLine(line.to_owned()))
    };
    let format = AudioFormat {
        sample_rate: 16_000,
        window: 16_000,
        step: 4_000,
        continuous: false,
    };
    let audio = CaptureOutput::Audio(Arc::new(AudioMailbox::new()).reserve(), format);
    let video = CaptureOutput::from(&Arc::new(FrameMailbox::new()));
    [
        Capture::start(&settings(CAMERA), video, &Arc::default(), |_| {}).unwrap(),
        Capture::start(&settings(MICROPHONE), audio, &Arc::default(), |_| {}).unwrap(),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_go_on_while_a_sound_is_recorded_as_in_exchange_e() {
    let studio = ExchangeStudio::new("E");
    let (work_dir, tap) = (tempfile::tempdir().unwrap(), Arc::<CaptureTap>::default());
    let captures = start_sources(&tap);
    let addresses = StudioAddresses {
        ei_host: Some(studio.http.url()),
        remote_management: Some(studio.remote.url()),
        ingestion: Some(studio.http.url()),
    };
    let (uploader, uploads) = Uploader::start(UploadSettings {
        key: Box::new(|| Box::pin(async { Ok(Secret::new("ei_test")) })),
        ingestion: addresses.ingestion(),
        directory: work_dir.path().join("samples"),
        daily_bytes: work_dir.path().join("bytes.json"),
        daily_limit: Box::new(|| 0),
        limits: UploadLimits::default(),
        stats: Arc::default(),
        activity: StudioActivity::default(),
    });
    let (handle, ends) = channel();
    let collect = CollectService::start(CollectSettings {
        tap: tap.clone(),
        channel: handle,
        uploads,
        directory: work_dir.path().join("samples"),
    });
    let settings = ChannelSettings {
        key: Box::new(|| Box::pin(async { Ok(Secret::new("ei_test")) })),
        addresses,
        device_name: "Cam".to_owned(),
        system_root: work_dir.path().to_owned(),
        limits: ChannelLimits::default(),
        studio_limits: StudioLimits::default(),
        stats: Arc::default(),
        state: StudioStateCell::default(),
        activity: StudioActivity::default(),
    };
    let task = ChannelTask::start(settings, ends, vec![Arc::new(collect)]);
    studio.play();
    let deadline = tokio::time::Instant::now() + LIMIT;
    tokio::join!(task.stop(deadline), uploader.stop(deadline));
    for capture in captures {
        capture.stop(Duration::from_secs(5));
    }
}
