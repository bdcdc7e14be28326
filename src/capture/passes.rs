//! How a frame becomes a picture: in one pass of GStreamer's `VideoConverter`, or scaled first and brought to the model's
//! colours after that.
//!
//! One pass unpacks every pixel of the source to four bytes before it scales. Scaling plane by plane needs no unpacking, and
//! then only the model's few pixels are left to convert. What is between the passes has chroma for each pixel: with the
//! source's fewer, small coloured things would lose their colour. So the error beside a Lanczos reference is that of one pass
//! (the test `two_passes_give_the_picture_of_one`), and 640x480 I420 takes 0.6 of its time to 320x320 RGB and a third to 96x96
//! (`every_method_against_lanczos` measures).

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
        let Some(between) = between(input, output, shown) else {
            let last = resampling.converter(input, output, shown)?;
            return Ok(Self { scaling: None, last });
        };
        let (width, height) = (output.width(), output.height());
        let info = gst_video::VideoInfo::builder(between, width, height)
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

/// The format between two passes; `None`: one pass is quicker, or the only right one.
fn between(input: &gst_video::VideoInfo, output: &gst_video::VideoInfo, shown: Rect) -> Option<VideoFormat> {
    let grey_of_another_matrix =
        output.format() == VideoFormat::Gray8 && input.colorimetry().matrix() != output.colorimetry().matrix();
    let scales = (shown.width, shown.height) != (output.width(), output.height());
    if input.format() == VideoFormat::Uyvy && grey_of_another_matrix && !scales {
        // At the same size GStreamer takes the luma as it is, with neither matrix nor range (1.22).
        return Some(VideoFormat::Yuy2);
    }
    let pixels = |width: u32, height: u32| u64::from(width) * u64::from(height);
    // With more pixels to convert after scaling the second pass costs what the first one saves.
    let shrinks = 2 * pixels(output.width(), output.height()) <= pixels(shown.width, shown.height);
    let format = scaled_by_plane(input.format())?;
    // Where several pixels share their chroma, the share of an odd one at the edge is taken for a whole one: colours would
    // lie beside their place.
    let halves = input.format() != format && !(shown.width | shown.height).is_multiple_of(2);
    // Interlaced planes are left with rows that are never written (1.22).
    let fits =
        shrinks && !halves && !input.is_interlaced() && input.format() != output.format() && !only_luma(input, output);
    fits.then_some(format)
}

/// What a format is quickly scaled to: chroma for each pixel, nothing converted. `None`: GStreamer has no quick way.
fn scaled_by_plane(format: VideoFormat) -> Option<VideoFormat> {
    use VideoFormat as F;
    match format {
        F::I420 | F::Yv12 | F::Y42b | F::Y444 => Some(F::Y444),
        F::Nv12 | F::Nv16 | F::Nv24 => Some(F::Nv24),
        F::Gray8 | F::Ayuv | F::Rgb | F::Bgr => Some(format),
        F::Rgbx | F::Bgrx | F::Xrgb | F::Xbgr | F::Rgba | F::Bgra | F::Argb | F::Abgr => Some(format),
        _ => None,
    }
}

/// Whether one pass takes the plane with the luma and touches nothing else.
fn only_luma(input: &gst_video::VideoInfo, output: &gst_video::VideoInfo) -> bool {
    use VideoFormat as F;
    let planar = matches!(input.format(), F::I420 | F::Yv12 | F::Y42b | F::Y444);
    planar && output.format() == F::Gray8 && input.colorimetry().matrix() == output.colorimetry().matrix()
}

#[cfg(test)]
mod tests {
    use gstreamer_video::{VideoColorMatrix, VideoColorRange, VideoColorimetry, VideoInfo, VideoInterlaceMode};

    use super::*;
    use crate::capture::testing::photo;

    const SIZE: (u32, u32) = (320, 240);
    const YUV: [VideoFormat; 7] = [
        VideoFormat::I420,
        VideoFormat::Yv12,
        VideoFormat::Y42b,
        VideoFormat::Y444,
        VideoFormat::Nv12,
        VideoFormat::Nv16,
        VideoFormat::Ayuv,
    ];
    const RGB: [VideoFormat; 10] = [
        VideoFormat::Rgb,
        VideoFormat::Bgr,
        VideoFormat::Rgbx,
        VideoFormat::Bgrx,
        VideoFormat::Xrgb,
        VideoFormat::Xbgr,
        VideoFormat::Rgba,
        VideoFormat::Bgra,
        VideoFormat::Argb,
        VideoFormat::Abgr,
    ];

    fn info(format: VideoFormat, (width, height): (u32, u32), interlaced: VideoInterlaceMode) -> VideoInfo {
        let colours = match format {
            VideoFormat::Gray8 => (VideoColorRange::Range0_255, VideoColorMatrix::Bt601),
            _ if RGB.contains(&format) => (VideoColorRange::Range0_255, VideoColorMatrix::Rgb),
            _ => (VideoColorRange::Range16_235, VideoColorMatrix::Bt709),
        };
        let colours = VideoColorimetry::new(
            colours.0,
            colours.1,
            gst_video::VideoTransferFunction::Bt709,
            gst_video::VideoColorPrimaries::Bt709,
        );
        VideoInfo::builder(format, width, height)
            .fps(gst::Fraction::new(30, 1))
            .interlace_mode(interlaced)
            .colorimetry(&colours)
            .build()
            .unwrap()
    }

    fn progressive(format: VideoFormat, size: (u32, u32)) -> VideoInfo {
        info(format, size, VideoInterlaceMode::Progressive)
    }

    fn run(passes: &mut Passes, (source, input): (&gst::Buffer, &VideoInfo), output: &VideoInfo) -> gst::Buffer {
        let mut picture = gst::Buffer::from_mut_slice(vec![0; output.size()]);
        {
            let source = gst_video::VideoFrameRef::from_buffer_ref_readable(source, input).unwrap();
            let mut picture =
                gst_video::VideoFrameRef::from_buffer_ref_writable(picture.get_mut().unwrap(), output).unwrap();
            passes.run(&source, &mut picture).unwrap();
        }
        picture
    }

    fn in_one_pass(input: &VideoInfo, output: &VideoInfo, shown: Rect) -> Passes {
        Passes {
            last: Resampling::default().converter(input, output, shown).unwrap(),
            scaling: None,
        }
    }

    #[test]
    fn two_passes_give_the_picture_of_one() {
        crate::capture::init().unwrap();
        let whole = Rect::whole(SIZE.0, SIZE.1);
        let middle = Rect {
            x: 40,
            y: 0,
            width: 240,
            height: 240,
        };
        let original = (
            &gst::Buffer::from_slice(photo(SIZE.0 as usize, SIZE.1 as usize)),
            &progressive(VideoFormat::Rgb, SIZE),
        );
        for format in YUV.into_iter().chain(RGB) {
            let input = progressive(format, SIZE);
            let frame = run(&mut in_one_pass(original.1, &input, whole), original, &input);
            for (colour, size, shown) in [
                (VideoFormat::Rgb, (96, 96), middle),
                (VideoFormat::Rgb, (161, 75), whole),
                (VideoFormat::Gray8, (96, 96), middle),
            ] {
                let output = progressive(colour, size);
                let mut passes = Passes::new(Resampling::default(), &input, &output, shown).unwrap();
                assert_eq!(passes.scaling.is_some(), format != colour, "{format:?} to {colour:?}");
                let one = run(&mut in_one_pass(&input, &output, shown), (&frame, &input), &output);
                let two = run(&mut passes, (&frame, &input), &output);
                let (one, two) = (one.map_readable().unwrap(), two.map_readable().unwrap());
                let off: Vec<_> = one.iter().zip(two.iter()).map(|(a, b)| a.abs_diff(*b)).collect();
                let mean = off.iter().map(|value| f64::from(*value)).sum::<f64>() / off.len() as f64;
                assert!(
                    mean < 0.6 && off.iter().all(|value| *value <= 32),
                    "{format:?} to {colour:?} {size:?}: mean {mean:.2}, largest {:?}",
                    off.iter().max()
                );
            }
        }
    }

    #[test]
    fn what_gains_nothing_or_comes_out_wrong_is_one_pass() {
        crate::capture::init().unwrap();
        let (rgb, whole) = (|size| progressive(VideoFormat::Rgb, size), Rect::whole(SIZE.0, SIZE.1));
        let i420 = progressive(VideoFormat::I420, SIZE);
        let interlaced = info(VideoFormat::I420, SIZE, VideoInterlaceMode::Interleaved);
        assert!(between(&i420, &rgb((96, 96)), whole).is_some());
        assert_eq!(between(&interlaced, &rgb((96, 96)), whole), None);
        assert_eq!(between(&i420, &rgb((300, 200)), whole), None, "too little smaller");
        assert_eq!(
            between(&i420, &rgb((96, 96)), Rect::whole(319, 240)),
            None,
            "half a chroma"
        );
        assert_eq!(
            between(&progressive(VideoFormat::Yuy2, SIZE), &rgb((96, 96)), whole),
            None
        );
    }
}
