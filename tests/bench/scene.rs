//! What is measured: a source, a model that costs nothing, and how the one becomes the other; for our program as
//! arguments, for the machine's limit as a GStreamer line.

use std::fmt;

use super::support::daemon::{Daemon, Site};
use super::support::mosquitto::Mosquitto;

/// A source, a model and a resize mode.
#[derive(Clone, Copy)]
pub struct Scene {
    /// `pattern` of `videotestsrc`: `ball` is drawn, which costs; `black` costs nearly nothing.
    pub pattern: &'static str,
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
        size: (640, 480),
        side: 320,
        grey: false,
        resize: "fit-shortest",
    };

    /// The source; what one that is not live delivers is limited only by who takes it.
    pub fn source(&self, live: bool) -> String {
        let (width, height) = self.size;
        format!(
            "videotestsrc pattern={} is-live={live} ! video/x-raw,format=I420,width={width},height={height},framerate=30/1",
            self.pattern
        )
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
        // `bilinear2` widens its filter when it makes pictures smaller, as ours does.
        let scaler = match gstreamer::ElementFactory::find("videoconvertscale") {
            Some(_) => format!("videoconvertscale method=bilinear2 chroma-mode=none add-borders={borders}"),
            None => format!("videoscale method=bilinear2 add-borders={borders} ! videoconvert chroma-mode=none"),
        };
        format!(
            "{} ! {crop}{scaler} ! video/x-raw,format={format},width={side},height={side},pixel-aspect-ratio=1/1 ! fakesink name=end sync=false",
            self.source(live)
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
        write!(
            f,
            "{} {width}x{height} | {side}x{side} {colour} | {}",
            self.pattern,
            self.resize,
            side = self.side
        )
    }
}
