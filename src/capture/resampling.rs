//! How GStreamer's scaler is set, and the search for a setting that keeps brightness.
//!
//! The scaler widens its filter when it makes pictures smaller, so `linear` (a triangle over twice the step) does not alias;
//! `nearest` does. The test `every_method_against_lanczos` measures: 640x480 I420, NV12 or YUY2 to 320x320 RGB in one pass
//! on one core of a small server gave nearest 4700/s, linear 1700/s, cubic, sinc and lanczos 1100/s. Beside the reference (BGRx, no
//! colour conversion) nearest is 3.5 levels off in the mean and up to 10, all others 0.2 to 0.3 and up to 8: linear is the
//! fastest of them. Interpolating chroma before scaling (`chroma-mode` full) costs a quarter of the speed and changes
//! nothing that can be measured.
//!
//! The scaler rounds its taps to 1/64. At some ratios, exactly 5 among them (480 rows to 96), they then no longer add up
//! to one and the picture gets up to 6 % brighter (seen in 1.22). A slightly different sharpness rounds differently, so the
//! first one that leaves a flat frame flat is taken.

use gstreamer as gst;
use gstreamer_video as gst_video;

use super::geometry::Rect;

/// Sharpness to try, the best first: 1 is GStreamer's default.
const SHARPNESS: [f64; 8] = [1.0, 0.97, 1.03, 0.94, 1.06, 0.9, 1.2, 0.8];
/// A flat frame may be off by this much, in levels of 255.
const FLAT_ENOUGH: u8 = 1;

/// Options of the scaler.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Resampling {
    /// Kernel.
    pub method: gst_video::VideoResamplerMethod,
    /// Whether chroma is interpolated before scaling.
    pub chroma: gst_video::VideoChromaMode,
    /// Width of the kernel: below 1 wider, above narrower.
    pub sharpness: f64,
}

impl Default for Resampling {
    fn default() -> Self {
        Self {
            method: gst_video::VideoResamplerMethod::Linear,
            chroma: gst_video::VideoChromaMode::None,
            sharpness: SHARPNESS[0],
        }
    }
}

impl Resampling {
    /// A converter of the part `shown` of each frame to all of `output`, with the sharpness that keeps brightness best.
    pub fn converter(
        self,
        input: &gst_video::VideoInfo,
        output: &gst_video::VideoInfo,
        shown: Rect,
    ) -> Result<gst_video::VideoConverter, gst::glib::BoolError> {
        let build = |resampling: Self| gst_video::VideoConverter::new(input, output, Some(resampling.options(shown)));
        let first = build(self)?;
        let scales = (shown.width, shown.height) != (output.width(), output.height());
        if !scales || self.method == gst_video::VideoResamplerMethod::Nearest {
            return Ok(first);
        }
        let flat = Flat::new(input, output)?;
        // Nearest takes no sums: what it gives is the flat frame's true value.
        let nearest = build(Self {
            method: gst_video::VideoResamplerMethod::Nearest,
            ..self
        })?;
        let truth = flat.convert(&nearest)?;
        let mut best = (flat.error(&first, &truth)?, first);
        for sharpness in &SHARPNESS[1..] {
            if best.0 <= FLAT_ENOUGH {
                break;
            }
            let other = build(Self {
                sharpness: *sharpness,
                ..self
            })?;
            let error = flat.error(&other, &truth)?;
            if error < best.0 {
                best = (error, other);
            }
        }
        Ok(best.1)
    }

    fn options(self, shown: Rect) -> gst_video::VideoConverterConfig {
        // GStreamer's frames are at most 32767 pixels wide and high.
        let pixels = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
        let mut config = gst_video::VideoConverterConfig::new();
        config.set_src_x(pixels(shown.x));
        config.set_src_y(pixels(shown.y));
        config.set_src_width(Some(pixels(shown.width)));
        config.set_src_height(Some(pixels(shown.height)));
        config.set_resampler_method(self.method);
        config.set("GstVideoResampler.sharpness", self.sharpness);
        config.set_chroma_mode(self.chroma);
        config.set_dither_method(gst_video::VideoDitherMethod::None);
        config.set_matrix_mode(gst_video::VideoMatrixMode::Full);
        config.set_gamma_mode(gst_video::VideoGammaMode::None);
        config.set_primaries_mode(gst_video::VideoPrimariesMode::None);
        config.set_threads(1);
        config
    }
}

/// A frame of one colour, and room for its picture.
struct Flat<'a> {
    frame: gst::Buffer,
    input: &'a gst_video::VideoInfo,
    output: &'a gst_video::VideoInfo,
}

impl<'a> Flat<'a> {
    fn new(input: &'a gst_video::VideoInfo, output: &'a gst_video::VideoInfo) -> Result<Self, gst::glib::BoolError> {
        let mut frame = gst::Buffer::with_size(input.size())?;
        if let Some(frame) = frame.get_mut() {
            // The same byte everywhere is one colour in every format; this one is bright, which shows an error best, and
            // not so bright that it is clipped (as YUV it is the pink 218, 129, 231).
            frame
                .memset(.., 0xA0)
                .map_err(|_| gst::glib::bool_error!("a flat frame cannot be made"))?;
        }
        Ok(Self { frame, input, output })
    }

    fn convert(&self, converter: &gst_video::VideoConverter) -> Result<Vec<u8>, gst::glib::BoolError> {
        let mut picture = gst::Buffer::from_mut_slice(vec![0; self.output.size()]);
        {
            let shared = || gst::glib::bool_error!("the buffer is shared");
            let source = gst_video::VideoFrameRef::from_buffer_ref_readable(&self.frame, self.input)?;
            let picture = picture.get_mut().ok_or_else(shared)?;
            let mut target = gst_video::VideoFrameRef::from_buffer_ref_writable(picture, self.output)?;
            converter.frame_ref(&source, &mut target);
        }
        Ok(picture.map_readable()?.to_vec())
    }

    /// Largest difference to `truth`.
    fn error(&self, converter: &gst_video::VideoConverter, truth: &[u8]) -> Result<u8, gst::glib::BoolError> {
        let picture = self.convert(converter)?;
        Ok(picture
            .iter()
            .zip(truth)
            .map(|(a, b)| a.abs_diff(*b))
            .max()
            .unwrap_or(0))
    }
}
