//! How a frame becomes a picture: in one pass of GStreamer's `VideoConverter`, or scaled in the source's own format first and
//! brought to the model's colours after that.
//!
//! One pass unpacks every pixel of the source to four bytes before it scales. Scaling plane by plane needs no unpacking, and
//! then only the model's few pixels are left to convert: 640x480 I420 to 320x320 RGB takes two thirds of the time, to 96x96
//! less than a third, and 1280x720 half; the error beside a Lanczos reference stays within 0.2 levels of what it was (the
//! test `every_method_against_lanczos` measures both). Chroma keeps the resolution that its format gives a picture of the
//! model's size, as in a JPEG of that size.

use gstreamer as gst;
use gstreamer_video as gst_video;
use gstreamer_video::VideoFormat;

use super::geometry::Rect;
use super::resampling::Resampling;

/// The way from one format to another.
#[derive(Debug)]
pub(super) struct Passes {
    scaling: Option<Scaling>,
    last: gst_video::VideoConverter,
}

/// The first of two passes.
#[derive(Debug)]
struct Scaling {
    converter: gst_video::VideoConverter,
    info: gst_video::VideoInfo,
    /// What it makes, used again for each frame.
    scaled: gst::Buffer,
}

impl Passes {
    /// The quicker way from the part `shown` of a frame of `input` to all of `output`.
    pub fn new(
        resampling: Resampling,
        input: &gst_video::VideoInfo,
        output: &gst_video::VideoInfo,
        shown: Rect,
    ) -> Result<Self, gst::glib::BoolError> {
        if !scales_first(input, output, shown) {
            let last = resampling.converter(input, output, shown)?;
            return Ok(Self { scaling: None, last });
        }
        let (width, height) = (output.width(), output.height());
        let info = gst_video::VideoInfo::builder(input.format(), width, height)
            .fps(input.fps())
            .interlace_mode(input.interlace_mode())
            .colorimetry(&input.colorimetry())
            .build()?;
        Ok(Self {
            last: resampling.converter(&info, output, Rect::whole(width, height))?,
            scaling: Some(Scaling {
                converter: resampling.converter(input, &info, shown)?,
                scaled: gst::Buffer::with_size(info.size())?,
                info,
            }),
        })
    }

    /// Converts one frame.
    pub fn run(
        &mut self,
        source: &gst_video::VideoFrameRef<&gst::BufferRef>,
        picture: &mut gst_video::VideoFrameRef<&mut gst::BufferRef>,
    ) -> Result<(), gst::glib::BoolError> {
        let Some(Scaling {
            converter,
            info,
            scaled,
        }) = &mut self.scaling
        else {
            self.last.frame_ref(source, picture);
            return Ok(());
        };
        {
            let scaled = scaled
                .get_mut()
                .ok_or_else(|| gst::glib::bool_error!("the buffer between the passes is shared"))?;
            let mut scaled = gst_video::VideoFrameRef::from_buffer_ref_writable(scaled, info)?;
            converter.frame_ref(source, &mut scaled);
        }
        let scaled = gst_video::VideoFrameRef::from_buffer_ref_readable(scaled, info)?;
        self.last.frame_ref(&scaled, picture);
        Ok(())
    }
}

/// Whether two passes are quicker than one.
fn scales_first(input: &gst_video::VideoInfo, output: &gst_video::VideoInfo, shown: Rect) -> bool {
    let pixels = |width: u32, height: u32| u64::from(width) * u64::from(height);
    // Pictures that grow are better converted while they are small, in one pass.
    let shrinks = pixels(output.width(), output.height()) < pixels(shown.width, shown.height);
    let format = input.format();
    let pairs = matches!(format, VideoFormat::Yuy2 | VideoFormat::Yvyu | VideoFormat::Uyvy);
    // Two pixels that share their chroma in one word: what is left over at the edge of an odd width comes out wrong (1.22).
    let halves = pairs && !(shown.width | output.width()).is_multiple_of(2);
    shrinks && !halves && format != output.format() && is_scaled_as_it_is(format) && !only_luma(input, output)
}

/// Formats that GStreamer scales plane by plane.
fn is_scaled_as_it_is(format: VideoFormat) -> bool {
    use VideoFormat::{
        Abgr, Argb, Ayuv, Bgr, Bgra, Bgrx, Gray8, I420, Nv12, Nv16, Nv21, Rgb, Rgba, Rgbx, Uyvy, Xbgr, Xrgb, Y42b,
        Yuy2, Yv12, Yvyu,
    };
    matches!(
        format,
        I420 | Yv12
            | Y42b
            | Nv12
            | Nv21
            | Nv16
            | Yuy2
            | Yvyu
            | Uyvy
            | Ayuv
            | Gray8
            | Rgb
            | Bgr
            | Rgbx
            | Bgrx
            | Xrgb
            | Xbgr
            | Rgba
            | Bgra
            | Argb
            | Abgr
    )
}

/// Whether one pass takes the plane with the luma and touches nothing else.
fn only_luma(input: &gst_video::VideoInfo, output: &gst_video::VideoInfo) -> bool {
    let planar = matches!(
        input.format(),
        VideoFormat::I420 | VideoFormat::Yv12 | VideoFormat::Y42b
    );
    planar && output.format() == VideoFormat::Gray8 && input.colorimetry().matrix() == output.colorimetry().matrix()
}
