//! Cameras that are plugged in and out, and a slow model, in this process.

use crate::support;

use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use ei_greengrass::capture::{
    Capture, CaptureError, CaptureSettings, DeviceSelection, FrameMailbox, MediaKind, Received, camera,
};
use ei_greengrass::config::{ModelSource, Sources, load};
use ei_greengrass::model::{self, Interrupt, Model};
use ei_greengrass::status::stats::Stats;
use ei_greengrass::supervisor::{Setup, run};
use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;
use gstreamer::subclass::prelude::*;
use serde_json::json;

use support::daemon::{LIMIT, Site};
use support::log::log_of;
use support::mosquitto::Mosquitto;
use support::observer::Observer;
use support::scripts::{boxed, hello};

/// A camera of the test: its name, and a number by which its source element is recognised.
#[derive(Clone, Copy)]
struct TestDevice(&'static str, i32);

/// The cameras that are plugged in now.
static PLUGGED: Mutex<Vec<TestDevice>> = Mutex::new(Vec::new());
const CAPS: &str = "video/x-raw, format=YUY2, width=640, height=480; video/x-raw, format=YUY2, width=1280, height=720; \
    image/jpeg, width=640, height=480";

mod device {
    use super::*;

    #[derive(Default)]
    pub struct TestCamera;

    #[glib::object_subclass]
    impl ObjectSubclass for TestCamera {
        const NAME: &'static str = "EiTestCamera";
        type Type = super::TestCamera;
        type ParentType = gst::Device;
    }

    impl ObjectImpl for TestCamera {}
    impl GstObjectImpl for TestCamera {}

    impl DeviceImpl for TestCamera {
        fn create_element(&self, name: Option<&str>) -> Result<gst::Element, gst::LoggableError> {
            let number: i32 = self.obj().properties().and_then(|p| p.get("number").ok()).unwrap_or(-1);
            let element = gst::ElementFactory::make("videotestsrc")
                .property("is-live", true)
                .property_from_str("pattern", "ball")
                .property("timestamp-offset", i64::from(number));
            let element = match name {
                Some(name) => element.name(name),
                None => element,
            };
            element.build().map_err(|e| gst::loggable_error!(gst::CAT_RUST, "{e}"))
        }
    }
}

glib::wrapper! {
    pub struct TestCamera(ObjectSubclass<device::TestCamera>) @extends gst::Device, gst::Object;
}

mod provider {
    use super::*;

    #[derive(Default)]
    pub struct TestCameras;

    #[glib::object_subclass]
    impl ObjectSubclass for TestCameras {
        const NAME: &'static str = "EiTestCameras";
        type Type = super::TestCameras;
        type ParentType = gst::DeviceProvider;
    }

    impl ObjectImpl for TestCameras {}
    impl GstObjectImpl for TestCameras {}

    impl DeviceProviderImpl for TestCameras {
        fn metadata() -> Option<&'static gst::subclass::DeviceProviderMetadata> {
            static METADATA: std::sync::LazyLock<gst::subclass::DeviceProviderMetadata> =
                std::sync::LazyLock::new(|| {
                    gst::subclass::DeviceProviderMetadata::new("Cameras of the test", "Video/Source", "Test", "Test")
                });
            Some(&METADATA)
        }

        fn probe(&self) -> Vec<gst::Device> {
            let plugged = PLUGGED.lock().unwrap().clone();
            let devices = plugged.iter().enumerate().map(|(index, TestDevice(name, number))| {
                let properties = gst::Structure::builder("properties")
                    .field("device.path", format!("/dev/testcamera{index}"))
                    .field("number", *number)
                    .build();
                glib::Object::builder::<super::TestCamera>()
                    .property("display-name", name)
                    .property("device-class", "Video/Source")
                    .property("caps", CAPS.parse::<gst::Caps>().unwrap())
                    .property("properties", properties)
                    .build()
                    .upcast()
            });
            devices.collect()
        }
    }
}

glib::wrapper! {
    pub struct TestCameras(ObjectSubclass<provider::TestCameras>) @extends gst::DeviceProvider, gst::Object;
}

/// The device provider is global to the process, so tests with cameras run one after the other.
static TURN: Mutex<()> = Mutex::new(());

fn plug(cameras: &[TestDevice]) {
    static REGISTER: Once = Once::new();
    REGISTER.call_once(|| {
        gst::init().unwrap();
        gst::DeviceProvider::register(None, "eitestcameras", gst::Rank::PRIMARY, TestCameras::static_type()).unwrap();
    });
    *PLUGGED.lock().unwrap() = cameras.to_vec();
}

fn selection(camera: &str) -> DeviceSelection {
    DeviceSelection {
        camera: Some(camera.to_owned()),
        model_size: (96, 96),
        ..DeviceSelection::default()
    }
}

#[test]
fn a_camera_of_the_device_monitor_is_opened_in_its_chosen_mode() {
    let _turn = TURN.lock();
    plug(&[TestDevice("Test Camera One", 1), TestDevice("Test Camera Two", 2)]);
    let lines = camera::list().unwrap().descriptions();
    assert!(
        lines.contains(&"Test Camera Two (/dev/testcamera1)".to_owned()),
        "{lines:?}"
    );
    let line = selection("test camera two").find_launch_line(MediaKind::Video).unwrap();
    assert_eq!(
        line,
        "videotestsrc pattern=ball timestamp-offset=2 is-live=true ! video/x-raw,format=YUY2,width=640,height=480"
    );

    let (mailbox, stats) = (Arc::new(FrameMailbox::new()), Arc::new(Stats::default()));
    let settings = CaptureSettings {
        devices: DeviceSelection {
            resolution: Some((1000, 700)),
            ..selection("/dev/testcamera0")
        },
        ..CaptureSettings::new(None)
    };
    let capture = Capture::start(&settings, &mailbox, &stats, |_| {}).unwrap();
    let Received::Value(frame) = mailbox.receive(LIMIT) else {
        panic!("no frame")
    };
    let caps = frame.sample.caps().unwrap();
    let caps = caps.structure(0).unwrap();
    assert_eq!((caps.get("width"), caps.get("height")), (Ok(1280), Ok(720)));
    capture.stop(Duration::from_secs(1));

    plug(&[TestDevice("Test Camera One", 1)]);
    let error = selection("Test Camera Two")
        .find_launch_line(MediaKind::Video)
        .unwrap_err();
    let CaptureError::NoCamera { wanted, found, .. } = error else {
        panic!("{error}")
    };
    assert_eq!(wanted.as_deref(), Some("Test Camera Two"));
    assert!(
        found.contains(&"Test Camera One (/dev/testcamera0)".to_owned()),
        "{found:?}"
    );
}

#[test]
fn a_camera_plugged_in_later_is_found_and_used() {
    let _turn = TURN.lock();
    plug(&[]);
    let (site, broker) = (Site::new(), Mosquitto::start());
    let observer = Observer::connect(broker.port, site.device());
    let script = json!({"hello": hello(32, 24), "answers": [boxed(0.5)]});
    let loaded = load(&Sources {
        sets: vec![
            ("device_name".to_owned(), site.device().to_owned()),
            ("preview".to_owned(), "off".to_owned()),
            ("iotcore_backoff".to_owned(), "1".to_owned()),
            ("eiparams".to_owned(), "--camera 'Test Camera'".to_owned()),
            ("metrics_sleeptime_ms".to_owned(), "200".to_owned()),
        ],
        model: Some(site.scripted_model(&script).display().to_string()),
        mqtt: Some(broker.url()),
        current_dir: site.path().to_owned(),
        ..Sources::default()
    });
    let setup = Setup::new(loaded.unwrap().config, false).unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let device = site.device().to_owned();
    let daemon = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap();
        let stop = async {
            let _ = stopped.await;
        };
        let no_updates = tokio::sync::mpsc::channel(1).1;
        runtime.block_on(run(setup, device, stop, no_updates))
    });
    observer.wait_for("model/metrics", "two attempts without the camera", |metrics| {
        metrics["runner"]["capture_restarts"].as_u64() >= Some(2)
    });
    assert!(observer.all("inference/output").is_empty());
    plug(&[TestDevice("Test Camera", 0)]);
    observer.wait_for_status("started", 1);
    observer.wait_for_count("inference/output", 3);
    stop.send(()).unwrap();
    daemon.join().unwrap();
}

#[test]
fn the_first_answer_may_take_longer_than_the_usual_limit_and_the_log_shows_progress() {
    let site = Site::new();
    let mut greeting = hello(4, 4);
    greeting["inferencing_engine"] = json!({"engine_type": 4, "properties": ["gpu_delegates"]});
    let script = json!({
        "hello": greeting,
        "answers": [{"delay_ms": 600, "then": {"bounding_boxes": []}}, boxed(0.5)]
    });
    let source = ModelSource::File(site.scripted_model(&script));
    let mut settings = model::ModelSettings::new(source, "warm", site.path(), Arc::default());
    settings.timeouts.classify = Duration::from_millis(200);
    settings.timeouts.progress = Duration::from_millis(100);
    let mut model = Model::start(&settings, &Interrupt::new()).unwrap();
    let lines = log_of(|| model.warm_up().unwrap());
    assert!(lines.contains("may take up to an hour"), "{lines}");
    assert!(lines.matches("preparing its first answer").count() >= 3, "{lines}");
    let ready = lines.lines().find(|line| line.contains("The model is ready took="));
    assert!(ready.is_some_and(|line| line.trim_end().ends_with("ms")), "{lines}");
    assert_eq!(
        model.classify(16).unwrap().bounding_boxes.unwrap().len(),
        1,
        "the warm-up's answer is not this one"
    );
    model.stop();
}
