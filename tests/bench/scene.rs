//! What is measured: a source, a model that costs nothing, and how the one becomes the other; for our program as
//! arguments, for the machine's limit as a GStreamer line.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use gstreamer as gst;
use gstreamer::prelude::*;

use super::support::daemon::{Daemon, Site};
use super::support::mosquitto::Mosquitto;

/// What the source delivers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// The line of the tutorial with a test picture for the camera: the source and `videoconvert` choose the format.
    Tutorial,
    /// A camera of this raw format, as the caps of its line say.
    Raw(&'static str),
    /// A camera that delivers JPEG. Made before the measurement: a camera encodes in its own hardware.
    Jpeg,
}

/// Where the JPEG files of [`Input::Jpeg`] are.
static FILES: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a directory"));

/// A source, a model and a resize mode.
#[derive(Clone, Copy)]
pub struct Scene {
    /// `pattern` of `videotestsrc`: `ball` is drawn, which costs; `black` costs nearly nothing.
    pub pattern: &'static str,
    pub input: Input,
    /// Width and height of the source, in pixels.
    pub size: (u32, u32),
    /// Side of the model's picture, in pixels.
    pub side: u32,
    pub grey: bool,
    /// As `--force-resize-mode` takes it.
    pub resize: &'static str,
}

impl Scene {
    /// 640x480 into 320x320 RGB, as most figures are.
    pub const USUAL: Self = Self {
        pattern: "ball",
        input: Input::Tutorial,
        size: (640, 480),
        side: 320,
        grey: false,
        resize: "fit-shortest",
    };

    /// The line as a user writes it. What a source that is not live delivers is limited only by who takes it.
    pub fn source(&self, live: bool) -> String {
        let line = self.camera(live);
        match self.input {
            Input::Tutorial => format!("{line} ! videoconvert ! jpegenc"),
            Input::Raw(_) | Input::Jpeg => line,
        }
    }

    /// The source and its caps.
    pub fn camera(&self, live: bool) -> String {
        let (width, height) = self.size;
        let format = match self.input {
            Input::Tutorial => String::new(),
            Input::Raw(format) => format!(",format={format}"),
            Input::Jpeg => {
                let file = self.jpeg();
                // The buffers of a looped file have no times to play them by.
                return format!(
                    "multifilesrc location={} loop=true caps=image/jpeg,width={width},height={height},framerate=30/1 ! image/jpeg{}",
                    file.display(),
                    if live { " ! identity sleep-time=33333" } else { "" }
                );
            }
        };
        format!(
            "videotestsrc pattern={} is-live={live} ! video/x-raw{format},width={width},height={height},framerate=30/1",
            self.pattern
        )
    }

    /// One picture of the source, made when it is first asked for.
    fn jpeg(&self) -> PathBuf {
        let (width, height) = self.size;
        let path = FILES.path().join(format!("{}-{width}x{height}.jpg", self.pattern));
        if !Path::new(&path).exists() {
            let line = format!(
                "videotestsrc num-buffers=1 pattern={} ! video/x-raw,width={width},height={height} ! videoconvert ! jpegenc quality=85 ! filesink location={}",
                self.pattern,
                path.display()
            );
            let pipeline = gst::parse::launch(&line).expect("the line");
            pipeline.set_state(gst::State::Playing).expect("it plays");
            let end = pipeline.bus().expect("its messages").timed_pop_filtered(
                gst::ClockTime::from_seconds(30),
                &[gst::MessageType::Eos, gst::MessageType::Error],
            );
            assert!(
                end.is_some_and(|message| message.type_() == gst::MessageType::Eos),
                "a JPEG file"
            );
            pipeline.set_state(gst::State::Null).expect("it stops");
        }
        path
    }

    /// The same pictures for the model by GStreamer's own elements, thrown away.
    pub fn bare(&self, live: bool) -> String {
        let (width, height) = self.size;
        let side = self.side;
        let crop = match self.resize {
            "fit-shortest" => {
                let cut = |long: u32, short: u32| long.saturating_sub(short) / 2;
                let (x, y) = (cut(width, height), cut(height, width));
                format!("videocrop left={x} right={x} top={y} bottom={y} ! ")
            }
            _ => String::new(),
        };
        let borders = self.resize == "fit-longest";
        let format = if self.grey { "GRAY8" } else { "RGB" };
        let scaler = match gstreamer::ElementFactory::find("videoconvertscale") {
            Some(_) => format!("videoconvertscale method=lanczos chroma-mode=none add-borders={borders}"),
            None => format!("videoscale method=lanczos add-borders={borders} ! videoconvert chroma-mode=none"),
        };
        let decoder = if self.input == Input::Jpeg { "jpegdec ! " } else { "" };
        format!(
            "{} ! {decoder}{crop}{scaler} ! video/x-raw,format={format},width={side},height={side},pixel-aspect-ratio=1/1 ! fakesink name=end sync=false",
            self.camera(live)
        )
    }

    /// Starts our program for this scene.
    pub fn run(&self, site: &Site, broker: &Mosquitto, live: bool, more: &[&str]) -> Daemon {
        let mut arguments = self.arguments(&self.source(live));
        arguments.extend(more.iter().map(|word| (*word).to_owned()));
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        site.run(&broker.url(), &arguments)
    }

    /// What our program is told for this scene. What follows them wins.
    pub fn arguments(&self, line: &str) -> Vec<String> {
        let colour = if self.grey { ",grey" } else { "" };
        [
            "--model",
            &format!("builtin:nop={0}x{0}{colour}", self.side),
            "--gst",
            line,
            "--set",
            "metrics_sleeptime_ms=250",
            "--set",
            &format!("eiparams=--greengrass --force-resize-mode {}", self.resize),
        ]
        .map(str::to_owned)
        .to_vec()
    }
}

impl fmt::Display for Scene {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (width, height) = self.size;
        let colour = if self.grey { "grey" } else { "RGB" };
        let input = match self.input {
            Input::Tutorial => "",
            Input::Raw(format) => format,
            Input::Jpeg => "JPEG",
        };
        write!(
            f,
            "{} {width}x{height} {input} | {side}x{side} {colour} | {}",
            self.pattern,
            self.resize,
            side = self.side
        )
    }
}
