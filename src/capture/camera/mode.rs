//! The modes of a camera, and the best one for a model.

use std::fmt;

use gstreamer as gst;

/// No smaller mode is used unless the user asks for it: models are trained with pictures of ordinary cameras.
const DEFAULT_MINIMUM: (u32, u32) = (640, 480);
/// Formats that are cheap to convert, the cheapest first.
const CHEAP_FORMATS: [&str; 8] = ["I420", "NV12", "YUY2", "UYVY", "YV12", "NV21", "BGRx", "RGB"];
/// Other names of GStreamer's formats, as V4L2 and users write them.
const ALIASES: [(&str, &str); 7] = [
    ("YUYV", "YUY2"),
    ("YU12", "I420"),
    ("YUV420", "I420"),
    ("RGB3", "RGB"),
    ("BGR3", "BGR"),
    ("GREY", "GRAY8"),
    ("MJPEG", "MJPG"),
];
/// Names of JPEG.
const JPEG: [&str; 3] = ["MJPG", "JPEG", "JPG"];

/// The smallest size of a suitable mode, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MinimumSize {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
}

impl MinimumSize {
    /// For a model with this input size: at least 640 x 480.
    pub fn for_model((width, height): (u32, u32)) -> Self {
        Self {
            width: width.max(DEFAULT_MINIMUM.0),
            height: height.max(DEFAULT_MINIMUM.1),
        }
    }
}

/// The format of a camera's stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamFormat {
    /// Raw frames in this format; `None`: the source selects one.
    Raw(Option<String>),
    /// Raw frames in NVIDIA memory (`memory:NVMM`).
    Nvidia,
    /// Motion JPEG.
    Jpeg,
}

/// A format and a size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CameraMode {
    /// The format.
    pub format: StreamFormat,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
}

impl CameraMode {
    /// The caps of this mode in launch-line syntax.
    pub fn caps(&self) -> String {
        let size = format!("width={},height={}", self.width, self.height);
        match &self.format {
            StreamFormat::Raw(Some(format)) => format!("video/x-raw,format={format},{size}"),
            StreamFormat::Raw(None) => format!("video/x-raw,{size}"),
            StreamFormat::Nvidia => format!("video/x-raw(memory:NVMM),{size}"),
            StreamFormat::Jpeg => format!("image/jpeg,{size}"),
        }
    }

    fn area(&self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }

    /// Relative cost of reading a frame: cheap raw formats, then other raw formats, then JPEG.
    fn conversion_cost(&self) -> usize {
        match &self.format {
            StreamFormat::Nvidia => 0,
            StreamFormat::Raw(format) => {
                let rank = |name: &String| CHEAP_FORMATS.iter().position(|cheap| cheap == name);
                format.as_ref().and_then(rank).unwrap_or(CHEAP_FORMATS.len())
            }
            StreamFormat::Jpeg => CHEAP_FORMATS.len() + 1,
        }
    }
}

impl fmt::Display for CameraMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let format = match &self.format {
            StreamFormat::Raw(Some(name)) => name,
            StreamFormat::Raw(None) | StreamFormat::Nvidia => "raw",
            StreamFormat::Jpeg => "JPEG",
        };
        write!(f, "{} x {} {format}", self.width, self.height)
    }
}

/// The modes of one caps structure: each of its formats in each of its sizes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SupportedModes {
    formats: Vec<StreamFormat>,
    width: Dimension,
    height: Dimension,
}

/// The possible widths or heights, in pixels.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Dimension {
    OneOf(Vec<u32>),
    Range { min: u32, max: u32, step: u32 },
}

impl Dimension {
    /// The smallest value of at least `minimum`, and the largest value.
    fn bounds(&self, minimum: u32) -> (Option<u32>, Option<u32>) {
        match self {
            Self::OneOf(sides) => (
                sides.iter().copied().filter(|side| *side >= minimum).min(),
                sides.iter().copied().max(),
            ),
            Self::Range { min, max, step } => {
                let above = minimum.saturating_sub(*min).div_ceil(*step).saturating_mul(*step);
                let side = min.saturating_add(above);
                (Some(side).filter(|side| side <= max), Some(*max))
            }
        }
    }
}

/// The usable modes in a device's caps: raw frames in system or NVIDIA memory, and JPEG.
pub(super) fn supported_modes(caps: &gst::Caps) -> Vec<SupportedModes> {
    let structures = caps.iter_with_features();
    structures
        .filter_map(|(structure, features)| {
            Some(SupportedModes {
                formats: formats(structure, features)?,
                width: dimension(structure, "width")?,
                height: dimension(structure, "height")?,
            })
        })
        .collect()
}

fn formats(structure: &gst::StructureRef, features: &gst::CapsFeaturesRef) -> Option<Vec<StreamFormat>> {
    match structure.name().as_str() {
        "image/jpeg" => Some(vec![StreamFormat::Jpeg]),
        "video/x-raw" if features.contains("memory:NVMM") => Some(vec![StreamFormat::Nvidia]),
        "video/x-raw" if features.is_equal(&gst::CAPS_FEATURES_MEMORY_SYSTEM_MEMORY) => {
            let names = match structure.value("format") {
                Err(_) => return Some(vec![StreamFormat::Raw(None)]),
                Ok(value) => strings(value),
            };
            let known = |name: &String| {
                let format = gstreamer_video::VideoFormat::from_string(name);
                !matches!(
                    format,
                    gstreamer_video::VideoFormat::Unknown | gstreamer_video::VideoFormat::Encoded
                )
            };
            let raw: Vec<_> = names
                .into_iter()
                .filter(known)
                .map(|name| StreamFormat::Raw(Some(name)))
                .collect();
            (!raw.is_empty()).then_some(raw)
        }
        _ => None,
    }
}

fn strings(value: &gst::glib::SendValue) -> Vec<String> {
    match value.get::<String>() {
        Ok(text) => vec![text],
        Err(_) => value.get::<gst::List>().map_or_else(
            |_| Vec::new(),
            |list| list.iter().filter_map(|value| value.get::<String>().ok()).collect(),
        ),
    }
}

fn dimension(structure: &gst::StructureRef, side: &str) -> Option<Dimension> {
    let value = structure.value(side).ok()?;
    let pixels = |value: i32| u32::try_from(value).ok().filter(|side| *side > 0);
    if let Ok(side) = value.get::<i32>() {
        return Some(Dimension::OneOf(vec![pixels(side)?]));
    }
    if let Ok(range) = value.get::<gst::IntRange<i32>>() {
        return Some(Dimension::Range {
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
    (!sides.is_empty()).then_some(Dimension::OneOf(sides))
}

/// The smallest mode of at least `minimum` (raw before JPEG), or the largest mode when all are smaller.
///
/// With `color_format` only modes of this format count. When the camera has none, all modes count and the second value
/// is `false`.
pub(super) fn best_mode(
    modes: &[SupportedModes],
    minimum: MinimumSize,
    color_format: Option<&str>,
) -> Option<(CameraMode, bool)> {
    let all: Vec<(CameraMode, bool)> = modes.iter().flat_map(|modes| candidates(modes, minimum)).collect();
    let wanted = color_format.map(canonical);
    let of_format = |mode: &CameraMode| match (&wanted, &mode.format) {
        (None, _) => true,
        (Some(name), StreamFormat::Jpeg) => JPEG.contains(&name.as_str()),
        (Some(name), StreamFormat::Raw(format)) => format.as_ref() == Some(name),
        (Some(_), StreamFormat::Nvidia) => false,
    };
    let has_format = all.iter().any(|(mode, _)| of_format(mode));
    let fitting = all.into_iter().filter(|(mode, _)| !has_format || of_format(mode));
    let best = fitting.min_by_key(|(mode, enough)| {
        // The smallest of those that are large enough, else the largest.
        let size = if *enough { mode.area() } else { u64::MAX - mode.area() };
        (!enough, size, mode.conversion_cost())
    });
    best.map(|(mode, _)| (mode, has_format))
}

/// Returns, for each format, the smallest mode that is large enough and the largest mode. The flag says whether the
/// mode is large enough.
fn candidates(supported: &SupportedModes, minimum: MinimumSize) -> Vec<(CameraMode, bool)> {
    let (width, widest) = supported.width.bounds(minimum.width);
    let (height, highest) = supported.height.bounds(minimum.height);
    let mut modes = Vec::new();
    for format in &supported.formats {
        let mut add = |width: Option<u32>, height: Option<u32>| {
            if let (Some(width), Some(height)) = (width, height) {
                let mode = CameraMode {
                    format: format.clone(),
                    width,
                    height,
                };
                modes.push((mode, width >= minimum.width && height >= minimum.height));
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
        // GStreamer writes the unused byte of these formats as a lower-case x.
        None if matches!(upper.as_str(), "BGRX" | "RGBX" | "XRGB" | "XBGR") => upper.replace('X', "x"),
        None => upper,
    }
}
