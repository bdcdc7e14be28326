//! The pictures that a camera can give, and the ones to ask for.

use std::fmt;

use gstreamer as gst;

/// No picture of a camera is asked for that is smaller: models are built from pictures of ordinary cameras.
const LEAST: (u32, u32) = (640, 480);
/// Formats that are read without loss of time, the best first; others come after them.
const EASY: [&str; 8] = ["I420", "NV12", "YUY2", "UYVY", "YV12", "NV21", "BGRx", "RGB"];
/// What people and V4L2 call GStreamer's formats.
const ALIASES: [(&str, &str); 7] = [
    ("YUYV", "YUY2"),
    ("YU12", "I420"),
    ("YUV420", "I420"),
    ("RGB3", "RGB"),
    ("BGR3", "BGR"),
    ("GREY", "GRAY8"),
    ("MJPEG", "MJPG"),
];
const JPEG: [&str; 3] = ["MJPG", "JPEG", "JPG"];

/// The size that is wanted at least, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
}

impl Need {
    /// For a model with this input: 640 x 480 or more.
    pub fn of_model((width, height): (u32, u32)) -> Self {
        Self {
            width: width.max(LEAST.0),
            height: height.max(LEAST.1),
        }
    }
}

/// What a camera sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stream {
    /// Raw frames in this format; `None`: the source decides.
    Raw(Option<String>),
    /// Raw frames in the memory of NVIDIA's image processor.
    Nvidia,
    /// JPEG files.
    Jpeg,
}

/// Pictures of one kind and size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mode {
    /// What is sent.
    pub stream: Stream,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
}

impl Mode {
    /// As caps in a launch line.
    pub fn caps(&self) -> String {
        let size = format!("width={},height={}", self.width, self.height);
        match &self.stream {
            Stream::Raw(Some(format)) => format!("video/x-raw,format={format},{size}"),
            Stream::Raw(None) => format!("video/x-raw,{size}"),
            Stream::Nvidia => format!("video/x-raw(memory:NVMM),{size}"),
            Stream::Jpeg => format!("image/jpeg,{size}"),
        }
    }

    fn area(&self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }

    /// Raw before JPEG, easy formats before others.
    fn effort(&self) -> usize {
        match &self.stream {
            Stream::Nvidia => 0,
            Stream::Raw(format) => {
                let easy = |name: &String| EASY.iter().position(|easy| easy == name);
                format.as_ref().and_then(easy).unwrap_or(EASY.len())
            }
            Stream::Jpeg => EASY.len() + 1,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stream = match &self.stream {
            Stream::Raw(Some(format)) => format,
            Stream::Raw(None) | Stream::Nvidia => "raw",
            Stream::Jpeg => "JPEG",
        };
        write!(f, "{} x {} {stream}", self.width, self.height)
    }
}

/// All modes that caps offer for some size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Offer {
    streams: Vec<Stream>,
    width: Extent,
    height: Extent,
}

/// One side of a picture.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Extent {
    OneOf(Vec<u32>),
    Range { min: u32, max: u32, step: u32 },
}

impl Extent {
    /// The smallest at or above `least`, and the largest.
    fn around(&self, least: u32) -> (Option<u32>, Option<u32>) {
        match self {
            Self::OneOf(sides) => (
                sides.iter().copied().filter(|side| *side >= least).min(),
                sides.iter().copied().max(),
            ),
            Self::Range { min, max, step } => {
                let above = least.saturating_sub(*min).div_ceil(*step).saturating_mul(*step);
                let side = min.saturating_add(above);
                (Some(side).filter(|side| side <= max), Some(*max))
            }
        }
    }
}

/// What is usable in a device's caps: raw frames in ordinary or NVIDIA memory, and JPEG.
pub(super) fn modes(caps: &gst::Caps) -> Vec<Offer> {
    let structures = caps.iter_with_features();
    structures
        .filter_map(|(structure, features)| {
            Some(Offer {
                streams: streams(structure, features)?,
                width: extent(structure, "width")?,
                height: extent(structure, "height")?,
            })
        })
        .collect()
}

fn streams(structure: &gst::StructureRef, features: &gst::CapsFeaturesRef) -> Option<Vec<Stream>> {
    match structure.name().as_str() {
        "image/jpeg" => Some(vec![Stream::Jpeg]),
        "video/x-raw" if features.contains("memory:NVMM") => Some(vec![Stream::Nvidia]),
        "video/x-raw" if features.is_equal(&gst::CAPS_FEATURES_MEMORY_SYSTEM_MEMORY) => {
            let formats = match structure.value("format") {
                Err(_) => return Some(vec![Stream::Raw(None)]),
                Ok(value) => texts(value),
            };
            let known = |name: &String| {
                let format = gstreamer_video::VideoFormat::from_string(name);
                !matches!(
                    format,
                    gstreamer_video::VideoFormat::Unknown | gstreamer_video::VideoFormat::Encoded
                )
            };
            let raw: Vec<_> = formats
                .into_iter()
                .filter(known)
                .map(|name| Stream::Raw(Some(name)))
                .collect();
            (!raw.is_empty()).then_some(raw)
        }
        _ => None,
    }
}

fn texts(value: &gst::glib::SendValue) -> Vec<String> {
    match value.get::<String>() {
        Ok(text) => vec![text],
        Err(_) => value.get::<gst::List>().map_or_else(
            |_| Vec::new(),
            |list| list.iter().filter_map(|value| value.get::<String>().ok()).collect(),
        ),
    }
}

fn extent(structure: &gst::StructureRef, side: &str) -> Option<Extent> {
    let value = structure.value(side).ok()?;
    let pixels = |value: i32| u32::try_from(value).ok().filter(|side| *side > 0);
    if let Ok(side) = value.get::<i32>() {
        return Some(Extent::OneOf(vec![pixels(side)?]));
    }
    if let Ok(range) = value.get::<gst::IntRange<i32>>() {
        return Some(Extent::Range {
            min: pixels(range.min().max(1))?,
            max: pixels(range.max())?,
            step: pixels(range.step())?,
        });
    }
    let list = value.get::<gst::List>().ok()?;
    let sides: Vec<_> = list
        .iter()
        .filter_map(|value| pixels(value.get::<i32>().ok()?))
        .collect();
    (!sides.is_empty()).then_some(Extent::OneOf(sides))
}

/// The mode nearest at or above `need`, raw before JPEG; where there is none so large, the largest. With `color_format` only
/// its modes count, unless there are none: then the answer's second part is `false`.
pub(super) fn nearest(offers: &[Offer], need: Need, color_format: Option<&str>) -> Option<(Mode, bool)> {
    let all: Vec<(Mode, bool)> = offers.iter().flat_map(|offer| candidates(offer, need)).collect();
    let wanted = color_format.map(canonical);
    let of_format = |mode: &Mode| match (&wanted, &mode.stream) {
        (None, _) => true,
        (Some(name), Stream::Jpeg) => JPEG.contains(&name.as_str()),
        (Some(name), Stream::Raw(format)) => format.as_ref() == Some(name),
        (Some(_), Stream::Nvidia) => false,
    };
    let has_format = all.iter().any(|(mode, _)| of_format(mode));
    let fitting = all.into_iter().filter(|(mode, _)| !has_format || of_format(mode));
    let best = fitting.min_by_key(|(mode, enough)| {
        // Large enough: the smallest. Else: the largest.
        let size = if *enough { mode.area() } else { u64::MAX - mode.area() };
        (!enough, size, mode.effort())
    });
    best.map(|(mode, _)| (mode, has_format))
}

/// The smallest mode of an offer that is large enough, and its largest.
fn candidates(offer: &Offer, need: Need) -> Vec<(Mode, bool)> {
    let (width, widest) = offer.width.around(need.width);
    let (height, highest) = offer.height.around(need.height);
    let mut modes = Vec::new();
    for stream in &offer.streams {
        let mut add = |width: Option<u32>, height: Option<u32>| {
            if let (Some(width), Some(height)) = (width, height) {
                let mode = Mode {
                    stream: stream.clone(),
                    width,
                    height,
                };
                modes.push((mode, width >= need.width && height >= need.height));
            }
        };
        add(width, height);
        add(widest, highest);
    }
    modes
}

fn canonical(format: &str) -> String {
    let upper = format.trim().to_uppercase();
    let alias = ALIASES.iter().find(|(alias, _)| *alias == upper);
    match alias {
        Some((_, name)) => (*name).to_owned(),
        // The one format of GStreamer that is used and not all in capitals.
        None if matches!(upper.as_str(), "BGRX" | "RGBX" | "XRGB" | "XBGR") => upper.replace('X', "x"),
        None => upper,
    }
}
