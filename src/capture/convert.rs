//! From a frame as the source gives it to a packed picture at the model's size: GStreamer's `VideoConverter` cuts, scales
//! and converts colour straight into a buffer that is used again, in as many passes as are quickest.

use gstreamer as gst;
use gstreamer_video as gst_video;

use super::frame::Frame;
use super::geometry::Layout;
use super::passes::Passes;
use super::resampling::Resampling;
use crate::config::ResizeMode;
use crate::model::ModelInput;

/// What the model wants to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// Pixels. Not used with [`ResizeMode::None`].
    pub width: u32,
    /// Pixels. Not used with [`ResizeMode::None`].
    pub height: u32,
    /// One byte a pixel (full-range BT.601 luma) instead of three.
    pub grey: bool,
    /// How the frame is brought to that size.
    pub resize: ResizeMode,
}

impl Target {
    /// What a model with this input sees; `None`: it takes no pictures. `unnamed` is for models that do not name how their
    /// pictures are resized (those before 2024).
    pub fn of(input: &ModelInput, forced: Option<ResizeMode>, unnamed: ResizeMode) -> Option<Self> {
        let ModelInput::Image {
            width,
            height,
            grey,
            resize,
        } = *input
        else {
            return None;
        };
        Some(Self {
            width,
            height,
            grey,
            resize: forced.or(resize).unwrap_or(unnamed),
        })
    }
}

/// A picture in memory: `height` rows of `width` pixels, three bytes each (red, green, blue) or one (grey), no padding.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Picture {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// One byte a pixel.
    pub grey: bool,
    /// The bytes, exactly `width * height * (1 or 3)`. Kept from frame to frame.
    pub data: Vec<u8>,
}

impl Picture {
    /// Number of pixels.
    pub fn pixels(&self) -> usize {
        self.width as usize * self.height as usize
    }
}

/// Why one frame could not be converted. The next one may be fine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// The sample has no buffer or no caps.
    #[error("the source delivered a frame without data or without a format; it was skipped")]
    Empty,
    /// Not raw video, or a kind of memory this program cannot read.
    #[error(
        "the source delivers {caps}, which cannot be read as a picture; \
         end gst_args in raw video in ordinary memory, for example `... ! videoconvert` (on a Jetson `... ! nvvidconv ! video/x-raw`)"
    )]
    Format {
        /// What came.
        caps: String,
    },
    /// GStreamer's own words.
    #[error("a frame of {caps} could not be converted: {message}")]
    Failed {
        /// What came.
        caps: String,
        /// What GStreamer says.
        message: String,
    },
}

/// Converts frames for one target. Keeps GStreamer's converter as long as the source's format stays the same.
#[derive(Debug)]
pub struct Converter {
    target: Target,
    resampling: Resampling,
    plan: Option<Plan>,
}

/// What was worked out for one input format.
#[derive(Debug)]
struct Plan {
    caps: gst::Caps,
    layout: Layout,
    input: gst_video::VideoInfo,
    /// The part of the picture that the frame fills.
    output: gst_video::VideoInfo,
    passes: Passes,
    /// The picture comes out with luma from 16 to 235 and has to be spread to 0 to 255.
    spread: bool,
}

impl Converter {
    /// A converter for `target`. Needs no GStreamer yet; the first frame sets it up.
    pub fn new(target: Target) -> Self {
        Self {
            target,
            resampling: Resampling::default(),
            plan: None,
        }
    }

    #[cfg(test)]
    pub(super) fn with_resampling(target: Target, resampling: Resampling) -> Self {
        Self {
            target,
            resampling,
            plan: None,
        }
    }

    /// Converts `frame` into `out`, whose memory is used again. On an error `out` holds nothing of use.
    pub fn convert(&mut self, frame: &Frame, out: &mut Picture) -> Result<(), ConvertError> {
        let (Some(buffer), Some(caps)) = (frame.sample.buffer(), frame.sample.caps()) else {
            return Err(ConvertError::Empty);
        };
        let plan = match self.plan.take() {
            Some(plan) if same_caps(&plan.caps, caps) => plan,
            _ => Plan::new(caps.to_owned(), self.target, self.resampling)?,
        };
        let plan = self.plan.insert(plan);
        out.width = plan.layout.width;
        out.height = plan.layout.height;
        out.grey = self.target.grey;
        plan.run(buffer, &mut out.data)
    }
}

/// Samples of one stream share their caps object, so this is nearly always a comparison of two addresses.
fn same_caps(known: &gst::Caps, caps: &gst::CapsRef) -> bool {
    std::ptr::eq::<gst::CapsRef>(known.as_ref(), caps) || known.as_ref() == caps
}

impl Plan {
    fn new(caps: gst::Caps, target: Target, resampling: Resampling) -> Result<Self, ConvertError> {
        let readable = caps
            .structure(0)
            .is_some_and(|structure| structure.name() == "video/x-raw");
        let input = match gst_video::VideoInfo::from_caps(&caps) {
            Ok(input) if readable && input.width() > 0 && input.height() > 0 => input,
            _ => return Err(ConvertError::Format { caps: caps.to_string() }),
        };
        let layout = Layout::new(
            (input.width(), input.height()),
            (target.width, target.height),
            target.resize,
        );
        let failed = |error: gst::glib::BoolError| ConvertError::Failed {
            caps: caps.to_string(),
            message: error.message.to_string(),
        };
        let output = output_info(&input, &layout, target.grey).map_err(failed)?;
        let passes = Passes::new(resampling, &input, &output, layout.source).map_err(failed)?;
        let spread = target.grey && copies_limited_luma(&input);
        Ok(Self {
            caps,
            layout,
            input,
            output,
            passes,
            spread,
        })
    }

    fn run(&mut self, buffer: &gst::BufferRef, data: &mut Vec<u8>) -> Result<(), ConvertError> {
        let caps = &self.caps;
        let failed = |message: &str| ConvertError::Failed {
            caps: caps.to_string(),
            message: message.to_owned(),
        };
        let source = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, &self.input)
            .map_err(|_| failed("the buffer is smaller than its format says, or its memory cannot be read"))?;
        let mut bytes = std::mem::take(data);
        if self.layout.has_border() {
            // What is nowhere written is black.
            bytes.clear();
        }
        bytes.resize(self.output.size(), 0);
        // The vector becomes the memory of a GStreamer buffer and comes back: no pixel is copied.
        let mut target = gst::Buffer::from_mut_slice(bytes);
        {
            let target = target.get_mut().ok_or_else(|| failed("the output buffer is shared"))?;
            let mut picture = gst_video::VideoFrameRef::from_buffer_ref_writable(target, &self.output)
                .map_err(|error| failed(&error.message))?;
            self.passes
                .run(&source, &mut picture)
                .map_err(|error| failed(&error.message))?;
        }
        *data = target
            .try_into_inner::<Vec<u8>>()
            .map_err(|(_, error)| failed(&error.to_string()))?;
        if self.spread {
            spread_luma(data);
        }
        Ok(())
    }
}

/// Between two formats of the same matrix VideoConverter copies luma and looks at no range (seen in 1.22), which is fast:
/// the range is then left to [`spread_luma`].
fn copies_limited_luma(input: &gst_video::VideoInfo) -> bool {
    let colours = input.colorimetry();
    (input.is_yuv() || input.is_gray())
        && colours.matrix() == gst_video::VideoColorMatrix::Bt601
        && colours.range() == gst_video::VideoColorRange::Range16_235
}

/// Luma from 16..=235 to 0..=255, rounded. Over the model's few pixels, in 16-bit arithmetic that fits vector units.
fn spread_luma(data: &mut [u8]) {
    for value in data {
        let luma = u16::from(value.saturating_sub(16).min(219));
        *value = ((luma * 255 + 109) / 219) as u8;
    }
}

/// What the frame fills of a packed picture without padding, in RGB or grey. GStreamer's own strides are rounded up to four
/// bytes, and its own borders come out wrong on some of its fast paths (UYVY to grey in 1.22).
fn output_info(
    input: &gst_video::VideoInfo,
    layout: &Layout,
    grey: bool,
) -> Result<gst_video::VideoInfo, gst::glib::BoolError> {
    let (format, bytes, matrix) = if grey {
        (gst_video::VideoFormat::Gray8, 1, gst_video::VideoColorMatrix::Bt601)
    } else {
        (gst_video::VideoFormat::Rgb, 3, gst_video::VideoColorMatrix::Rgb)
    };
    let stride = layout.width as usize * bytes;
    let offset = layout.dest.y as usize * stride + layout.dest.x as usize * bytes;
    let strides = [i32::try_from(stride).map_err(|_| gst::glib::bool_error!("the picture is too wide"))?];
    // Transfer and primaries as in the source: only range and matrix are converted.
    let colours = gst_video::VideoColorimetry::new(
        gst_video::VideoColorRange::Range0_255,
        matrix,
        input.colorimetry().transfer(),
        input.colorimetry().primaries(),
    );
    gst_video::VideoInfo::builder(format, layout.dest.width, layout.dest.height)
        // VideoConverter refuses to work between different frame rates or interlace modes.
        .fps(input.fps())
        .interlace_mode(input.interlace_mode())
        .colorimetry(&colours)
        .stride(&strides)
        .offset(&[offset])
        .size(stride * layout.height as usize)
        .build()
}
