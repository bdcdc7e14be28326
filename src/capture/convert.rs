//! From a frame as the source delivers it to a packed picture at the model's size.
//!
//! [`unpack`](super::unpack) converts the visible part of the frame to RGB or luma. Then [`lanczos`] scales it as Pillow's
//! `Image.LANCZOS` does. Edge Impulse Studio and the existing runner also prepare pictures with Lanczos: with other kernels
//! the top label of a classifier changed in 13 of 60 crops of a photograph. All buffers are reused for every frame.

use gstreamer as gst;
use gstreamer_video as gst_video;
use lanczos::{Channels, Crop, Lanczos, Pixels};

use super::frame::Frame;
use super::geometry::{Layout, Rect};
use super::unpack::Unpacker;
use super::whole_frame::WholeFrame;
use crate::config::ResizeMode;
use crate::model::ModelInput;

/// The picture that the model takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PictureTarget {
    /// Pixels. Not used with [`ResizeMode::None`].
    pub width: u32,
    /// Pixels. Not used with [`ResizeMode::None`].
    pub height: u32,
    /// One byte a pixel (full-range BT.601 luma) instead of three.
    pub grey: bool,
    /// How the frame is brought to that size.
    pub resize: ResizeMode,
}

impl PictureTarget {
    /// The picture that a model with this input takes; `None`: it takes no pictures. `unnamed` is the resize mode for
    /// models that name none (those before 2024).
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
    /// The bytes, exactly `width * height * (1 or 3)`. The memory is reused for every frame.
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
        /// The format of the frame.
        caps: String,
    },
    /// GStreamer cannot convert the frame.
    #[error("a frame of {caps} could not be converted: {message}")]
    Failed {
        /// The format of the frame.
        caps: String,
        /// GStreamer's error message.
        message: String,
    },
}

/// Converts frames for one target. The `ConversionPlan` is computed again only when the format of the source changes.
#[derive(Debug)]
pub struct Converter {
    target: PictureTarget,
    plan: Option<ConversionPlan>,
    buffers: Buffers,
}

/// Memory that is reused for every frame.
#[derive(Debug)]
struct Buffers {
    /// The visible part of the frame.
    unpacked: Vec<u8>,
    /// The visible part at its new size.
    scaled: Vec<u8>,
    lanczos: Lanczos,
}

/// How to convert frames of one input format.
#[derive(Debug)]
struct ConversionPlan {
    caps: gst::Caps,
    input: gst_video::VideoInfo,
    layout: Layout,
    /// For formats that `unpacker` does not read.
    whole_frame: Option<WholeFrame>,
    unpacker: Unpacker,
    /// The part of the frame that is read.
    part: Rect,
    grey: bool,
}

impl Converter {
    /// Creates a converter for `target`. It uses GStreamer from the first frame on.
    pub fn new(target: PictureTarget) -> Self {
        Self {
            target,
            plan: None,
            buffers: Buffers {
                unpacked: Vec::new(),
                scaled: Vec::new(),
                lanczos: Lanczos::default(),
            },
        }
    }

    /// Converts `frame` into `out` and reuses its memory. After an error the content of `out` cannot be used.
    pub fn convert(&mut self, frame: &Frame, out: &mut Picture) -> Result<(), ConvertError> {
        let (Some(buffer), Some(caps)) = (frame.sample.buffer(), frame.sample.caps()) else {
            return Err(ConvertError::Empty);
        };
        let plan = match self.plan.take() {
            Some(plan) if same_caps(&plan.caps, caps) => plan,
            _ => ConversionPlan::new(caps.to_owned(), self.target)?,
        };
        let plan = self.plan.insert(plan);
        out.width = plan.layout.width;
        out.height = plan.layout.height;
        out.grey = self.target.grey;
        plan.run(buffer, &mut self.buffers, &mut out.data)
            .map_err(|message| ConvertError::Failed {
                caps: plan.caps.to_string(),
                message,
            })
    }
}

/// Samples of one stream share their caps object, so this is nearly always a comparison of two addresses.
fn same_caps(known: &gst::Caps, caps: &gst::CapsRef) -> bool {
    std::ptr::eq::<gst::CapsRef>(known.as_ref(), caps) || known.as_ref() == caps
}

impl ConversionPlan {
    fn new(caps: gst::Caps, target: PictureTarget) -> Result<Self, ConvertError> {
        let readable = caps
            .structure(0)
            .is_some_and(|structure| structure.name() == "video/x-raw");
        let input = match gst_video::VideoInfo::from_caps(&caps) {
            Ok(input) if readable && input.width() > 0 && input.height() > 0 => input,
            _ => return Err(ConvertError::Format { caps: caps.to_string() }),
        };
        let size = (input.width(), input.height());
        let layout = Layout::new(size, (target.width, target.height), target.resize);
        let (whole_frame, unpacker) = match Unpacker::new(&input, target.grey) {
            Some(unpacker) => (None, unpacker),
            None => {
                let whole = WholeFrame::new(&input).map_err(|error| ConvertError::Failed {
                    caps: caps.to_string(),
                    message: error.message.to_string(),
                })?;
                let unpacker = Unpacker::new(whole.info(), false)
                    .ok_or_else(|| ConvertError::Format { caps: caps.to_string() })?;
                (Some(whole), unpacker)
            }
        };
        let part = unpacker.whole_blocks(layout.read_for_lanczos(size), size);
        Ok(Self {
            caps,
            input,
            layout,
            whole_frame,
            unpacker,
            part,
            grey: target.grey,
        })
    }

    fn run(&mut self, buffer: &gst::BufferRef, buffers: &mut Buffers, data: &mut Vec<u8>) -> Result<(), String> {
        let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, &self.input)
            .map_err(|_| "the buffer is smaller than its format says, or its memory cannot be read".to_owned())?;
        let frame = match &mut self.whole_frame {
            Some(whole) => whole.convert(&frame).map_err(|error| error.message.to_string())?,
            None => frame,
        };
        let (layout, part, dest) = (&self.layout, self.part, self.layout.dest);
        let channels = self.unpacker.channels();
        let row = part.width as usize * channels;
        buffers.unpacked.resize(row * part.height as usize, 0);
        self.unpacker
            .read(&frame, part, &mut buffers.unpacked, row)
            .map_err(|error| error.to_string())?;
        let (pixels, row) = if layout.is_scaled() == (false, false) {
            // Whole blocks may begin a little before the visible part.
            let before = (layout.source.y as u32 - part.y) as usize * row;
            let left = (layout.source.x as u32 - part.x) as usize * channels;
            (&buffers.unpacked[before + left..], row)
        } else {
            let row = dest.width as usize * channels;
            buffers.scaled.resize(row * dest.height as usize, 0);
            let from = Pixels {
                data: &buffers.unpacked,
                width: part.width,
                height: part.height,
                channels: if channels == 1 { Channels::Grey } else { Channels::Rgbx },
            };
            let shown = layout.source;
            let crop = Crop {
                left: shown.x - f64::from(part.x),
                top: shown.y - f64::from(part.y),
                width: shown.width,
                height: shown.height,
            };
            buffers
                .lanczos
                .scale(from, crop, (dest.width, dest.height), &mut buffers.scaled)
                .map_err(|error| error.to_string())?;
            (&buffers.scaled[..], row)
        };
        let write = match (channels, self.grey) {
            (1, true) => |from: &[u8], to: &mut [u8]| to.copy_from_slice(&from[..to.len()]),
            (1, false) => rgb_of_grey,
            (_, true) => grey_of_rgb,
            (_, false) => rgb_of_rgbx,
        };
        if layout.has_border() {
            // The border is black.
            data.clear();
        }
        let bytes = if self.grey { 1 } else { 3 };
        let (stride, width) = (layout.width as usize * bytes, dest.width as usize * bytes);
        data.resize(stride * layout.height as usize, 0);
        let left = dest.x as usize * bytes;
        let rows = data.chunks_mut(stride).skip(dest.y as usize).take(dest.height as usize);
        for (from, to) in pixels.chunks(row).zip(rows) {
            write(from, &mut to[left..left + width]);
        }
        Ok(())
    }
}

/// Full-range BT.601 luma, in the arithmetic of Pillow's `convert("L")`.
fn grey_of_rgb(rgbx: &[u8], grey: &mut [u8]) {
    let (pixels, _) = rgbx.as_chunks::<4>();
    for (grey, &[red, green, blue, _]) in grey.iter_mut().zip(pixels) {
        let sum = u32::from(red) * 19595 + u32::from(green) * 38470 + u32::from(blue) * 7471;
        *grey = ((sum + 0x8000) >> 16) as u8;
    }
}

fn rgb_of_grey(grey: &[u8], rgb: &mut [u8]) {
    let (pixels, _) = rgb.as_chunks_mut::<3>();
    for (pixel, &value) in pixels.iter_mut().zip(grey) {
        *pixel = [value; 3];
    }
}

fn rgb_of_rgbx(rgbx: &[u8], rgb: &mut [u8]) {
    let width = (rgb.len() / 3) as u32;
    // `yuv` refuses rows that are too short. These rows have no padding and exactly the width of the picture.
    let shortened = yuv::rgba_to_rgb(rgbx, 4 * width, rgb, 3 * width, width, 1);
    debug_assert!(shortened.is_ok(), "{shortened:?}");
}
