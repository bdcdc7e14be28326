//! Converts frames in rare formats to RGB with GStreamer's `VideoConverter`: the whole frame in its own size.
//!
//! The converter neither crops nor scales here. For 14 formats (v210, UYVP, the 16-bit RGBA kinds, ...) it ignores the
//! left edge of a crop, and the weights of its scaler are rounded to 1/64, which at some ratios makes pictures 6 %
//! brighter (GStreamer 1.22).

use gstreamer as gst;
use gstreamer_video as gst_video;

use super::unpack::MappedFrame;

/// Converts frames of one format to RGB.
#[derive(Debug)]
pub(super) struct WholeFrame {
    converter: gst_video::VideoConverter,
    info: gst_video::VideoInfo,
    /// The converted frame, reused.
    rgb: gst::Buffer,
}

impl WholeFrame {
    /// A converter for frames of `input`.
    pub fn new(input: &gst_video::VideoInfo) -> Result<Self, gst::glib::BoolError> {
        let colours = input.colorimetry();
        // Transfer and primaries stay those of the source: only range and matrix are converted.
        let colours = gst_video::VideoColorimetry::new(
            gst_video::VideoColorRange::Range0_255,
            gst_video::VideoColorMatrix::Rgb,
            colours.transfer(),
            colours.primaries(),
        );
        let info = gst_video::VideoInfo::builder(gst_video::VideoFormat::Rgbx, input.width(), input.height())
            // VideoConverter refuses to work between different frame rates or interlace modes.
            .fps(input.fps())
            .interlace_mode(input.interlace_mode())
            .colorimetry(&colours)
            .build()?;
        let mut options = gst_video::VideoConverterConfig::new();
        options.set_dither_method(gst_video::VideoDitherMethod::None);
        options.set_threads(1);
        Ok(Self {
            converter: gst_video::VideoConverter::new(input, &info, Some(options))?,
            rgb: gst::Buffer::with_size(info.size())?,
            info,
        })
    }

    /// The format of the converted frames.
    pub fn info(&self) -> &gst_video::VideoInfo {
        &self.info
    }

    /// Converts one frame.
    pub fn convert(&mut self, frame: &MappedFrame<'_>) -> Result<MappedFrame<'_>, gst::glib::BoolError> {
        {
            let rgb = self.rgb.get_mut();
            let rgb = rgb.ok_or_else(|| gst::glib::bool_error!("the buffer for the converted frame is shared"))?;
            let mut rgb = gst_video::VideoFrameRef::from_buffer_ref_writable(rgb, &self.info)?;
            self.converter.frame_ref(frame, &mut rgb);
        }
        gst_video::VideoFrameRef::from_buffer_ref_readable(&self.rgb, &self.info)
    }
}
