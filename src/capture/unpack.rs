//! Converts a part of a frame to packed pixels: four bytes each (red, green, blue and an unused one), or luma only.
//!
//! The crate `yuv` does it with vector instructions for the formats that cameras, decoders and `videoconvert` deliver.
//! [`Unpacker::new`] returns `None` for all others.

use gstreamer as gst;
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;
use gstreamer_video::{VideoColorMatrix, VideoColorRange, VideoFormat};
use yuv::{YuvBiPlanarImage, YuvConversionMode, YuvError, YuvPackedImage, YuvPlanarImage, YuvRange, YuvStandardMatrix};

use super::geometry::Rect;

/// A frame whose planes are readable in memory.
pub(super) type MappedFrame<'a> = gst_video::VideoFrameRef<&'a gst::BufferRef>;
type Planar<T> = fn(&YuvPlanarImage<'_, T>, &mut [u8], u32, YuvRange, YuvStandardMatrix) -> Result<(), YuvError>;
type SemiPlanar<T> = fn(
    &YuvBiPlanarImage<'_, T>,
    &mut [u8],
    u32,
    YuvRange,
    YuvStandardMatrix,
    YuvConversionMode,
) -> Result<(), YuvError>;
type Packed = fn(&YuvPackedImage<'_, u8>, &mut [u8], u32, YuvRange, YuvStandardMatrix) -> Result<(), YuvError>;
type Shuffle = fn(&[u8], u32, &mut [u8], u32, u32, u32) -> Result<(), YuvError>;

/// How the pixels of a format are read.
#[derive(Clone, Copy)]
enum PixelLayout {
    /// Three planes of bytes, or of 16-bit words in the machine's byte order.
    Planar(Planar<u8>),
    PlanarWords(Planar<u16>),
    /// A plane of luma, and one with pairs of chroma.
    SemiPlanar(SemiPlanar<u8>),
    SemiPlanarWords(SemiPlanar<u16>),
    /// Four bytes for two pixels that share their chroma.
    Packed(Packed),
    /// One byte for each colour of a pixel, at these places in its `step` bytes.
    Rgb {
        step: usize,
        places: [usize; 3],
        shuffle: Option<Shuffle>,
    },
    /// Already red, green, blue and an unused byte.
    Rgbx,
    /// Luma only: a byte at `offset` in each `step` bytes of the first plane.
    Luma {
        step: usize,
        offset: usize,
    },
}

impl std::fmt::Debug for PixelLayout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Planar(_) => "Planar",
            Self::PlanarWords(_) => "PlanarWords",
            Self::SemiPlanar(_) => "SemiPlanar",
            Self::SemiPlanarWords(_) => "SemiPlanarWords",
            Self::Packed(_) => "Packed",
            Self::Rgb { .. } => "Rgb",
            Self::Rgbx => "Rgbx",
            Self::Luma { .. } => "Luma",
        })
    }
}

/// Why a frame cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnpackError {
    #[error("the buffer is smaller than its format says, or its rows are upside down")]
    Plane,
    #[error("{0}")]
    Yuv(#[from] YuvError),
}

/// Reads frames of one format.
#[derive(Debug)]
pub(super) struct Unpacker {
    layout: PixelLayout,
    range: YuvRange,
    matrix: YuvStandardMatrix,
    /// Planes of the second and third component.
    chroma_planes: [u32; 2],
    /// Pixels that share their chroma, as powers of two, across and down.
    chroma_shift: [u32; 2],
    /// Samples of more than 8 bits in the machine's byte order, reused for every frame.
    words: [Vec<u16>; 3],
}

impl Unpacker {
    /// An unpacker for frames of `info`; `None`: it cannot read their format.
    ///
    /// With `grey` it returns luma, if the luma of the format is full-range BT.601 or becomes so when its range is
    /// expanded.
    pub fn new(info: &gst_video::VideoInfo, grey: bool) -> Option<Self> {
        let (format, colours) = (info.format(), info.colorimetry());
        let details = info.format_info();
        let range = match colours.range() {
            VideoColorRange::Range16_235 => YuvRange::Limited,
            _ => YuvRange::Full,
        };
        let mut layout = layout(&details)?;
        let is_bt601 = colours.matrix() == VideoColorMatrix::Bt601;
        let is_luma = matches!(
            layout,
            PixelLayout::Planar(_) | PixelLayout::SemiPlanar(_) | PixelLayout::Packed(_)
        );
        if grey && is_bt601 && is_luma {
            layout = luma(&details);
        }
        let has_chroma = info.is_yuv() && !matches!(layout, PixelLayout::Luma { .. });
        let matrix = match (has_chroma, colours.matrix()) {
            (false, _) | (_, VideoColorMatrix::Bt601) => YuvStandardMatrix::Bt601,
            (_, VideoColorMatrix::Bt709) => YuvStandardMatrix::Bt709,
            (_, VideoColorMatrix::Bt2020) => YuvStandardMatrix::Bt2020,
            (_, VideoColorMatrix::Smpte240m) => YuvStandardMatrix::Smpte240,
            (_, VideoColorMatrix::Fcc) => YuvStandardMatrix::Fcc,
            _ => return None,
        };
        let chroma_shift = if has_chroma {
            [details.w_sub()[1], details.h_sub()[1]]
        } else {
            [0, 0]
        };
        // In an interlaced frame the rows of chroma belong to the two fields in turn.
        let has_fields = info.is_interlaced() && chroma_shift[1] > 0;
        let is_limited_rgb = info.is_rgb() && range == YuvRange::Limited;
        if has_fields || is_limited_rgb {
            return None;
        }
        tracing::trace!(
            ?format,
            ?layout,
            ?range,
            ?matrix,
            "Frames are read without GStreamer's converter"
        );
        Some(Self {
            layout,
            range,
            matrix,
            chroma_planes: [1, 2].map(|component| details.plane().get(component).copied().unwrap_or(0)),
            chroma_shift,
            words: Default::default(),
        })
    }

    /// Bytes of each pixel in the output: 1 (luma) or 4 (red, green, blue and an unused one).
    pub fn channels(&self) -> usize {
        match self.layout {
            PixelLayout::Luma { .. } => 1,
            _ => 4,
        }
    }

    /// The smallest part that includes `part` and does not split pixels that share their chroma. `size` is that of the
    /// frame.
    pub fn whole_blocks(&self, part: Rect, size: (u32, u32)) -> Rect {
        let along = |start: u32, length: u32, shift: u32, limit: u32| {
            let block = 1 << shift;
            let end = (start + length).next_multiple_of(block).min(limit);
            let start = start / block * block;
            (start, end - start)
        };
        let (x, width) = along(part.x, part.width, self.chroma_shift[0], size.0);
        let (y, height) = along(part.y, part.height, self.chroma_shift[1], size.1);
        Rect { x, y, width, height }
    }

    /// Writes `part` of the frame into `out`, whose rows are `stride` bytes apart. The part has to consist of
    /// [`whole_blocks`](Self::whole_blocks).
    pub fn read(
        &mut self,
        frame: &MappedFrame<'_>,
        part: Rect,
        out: &mut [u8],
        stride: usize,
    ) -> Result<(), UnpackError> {
        // For these layouts `yuv` skips a row that is not followed by all bytes up to the next row. The last row may
        // lack these bytes, so the last rows are read one by one.
        let single = match self.layout {
            PixelLayout::SemiPlanar(_) if part.height.is_multiple_of(2) => 2,
            PixelLayout::SemiPlanar(_) | PixelLayout::Packed(_) | PixelLayout::Rgb { .. } => 1,
            _ => return self.read_rows(frame, part, out, stride),
        };
        let most = Rect {
            height: part.height - single,
            ..part
        };
        if most.height > 0 {
            self.read_rows(frame, most, out, stride)?;
        }
        for row in most.height..part.height {
            let rows = Rect {
                y: part.y + row,
                height: 1,
                ..part
            };
            let start = row as usize * stride;
            let length = part.width as usize * self.channels();
            let out = out.get_mut(start..start + length).ok_or(UnpackError::Plane)?;
            self.read_rows(frame, rows, out, length)?;
        }
        Ok(())
    }

    fn read_rows(
        &mut self,
        frame: &MappedFrame<'_>,
        part: Rect,
        out: &mut [u8],
        stride: usize,
    ) -> Result<(), UnpackError> {
        let (range, matrix) = (self.range, self.matrix);
        let (width, height) = (part.width, part.height);
        let out_stride = stride as u32;
        let [shift_x, shift_y] = self.chroma_shift;
        let chroma = Rect {
            x: part.x >> shift_x,
            y: part.y >> shift_y,
            width: width.div_ceil(1 << shift_x),
            height: height.div_ceil(1 << shift_y),
        };
        let [u, v] = self.chroma_planes;
        match self.layout {
            PixelLayout::Planar(convert) => {
                let (y, u, v) = (
                    plane(frame, 0, part, 1)?,
                    plane(frame, u, chroma, 1)?,
                    plane(frame, v, chroma, 1)?,
                );
                let image = YuvPlanarImage {
                    y_plane: y.data,
                    y_stride: y.stride,
                    u_plane: u.data,
                    u_stride: u.stride,
                    v_plane: v.data,
                    v_stride: v.stride,
                    width,
                    height,
                };
                convert(&image, out, out_stride, range, matrix)?;
            }
            PixelLayout::PlanarWords(convert) => {
                let [y_words, u_words, v_words] = &mut self.words;
                plane(frame, 0, part, 2)?.words(y_words);
                plane(frame, u, chroma, 2)?.words(u_words);
                plane(frame, v, chroma, 2)?.words(v_words);
                let image = YuvPlanarImage {
                    y_plane: y_words,
                    y_stride: width,
                    u_plane: u_words,
                    u_stride: chroma.width,
                    v_plane: v_words,
                    v_stride: chroma.width,
                    width,
                    height,
                };
                convert(&image, out, out_stride, range, matrix)?;
            }
            PixelLayout::SemiPlanar(convert) => {
                let (y, uv) = (plane(frame, 0, part, 1)?, plane(frame, 1, chroma, 2)?);
                let image = YuvBiPlanarImage {
                    y_plane: y.data,
                    y_stride: y.stride,
                    uv_plane: uv.data,
                    uv_stride: uv.stride,
                    width,
                    height,
                };
                convert(&image, out, out_stride, range, matrix, YuvConversionMode::Balanced)?;
            }
            PixelLayout::SemiPlanarWords(convert) => {
                let [y_words, uv_words, _] = &mut self.words;
                plane(frame, 0, part, 2)?.words(y_words);
                plane(frame, 1, chroma, 4)?.words(uv_words);
                let image = YuvBiPlanarImage {
                    y_plane: y_words,
                    y_stride: width,
                    uv_plane: uv_words,
                    uv_stride: 2 * chroma.width,
                    width,
                    height,
                };
                convert(&image, out, out_stride, range, matrix, YuvConversionMode::Balanced)?;
            }
            PixelLayout::Packed(convert) => {
                let rows = plane(frame, 0, chroma, 4)?;
                let image = YuvPackedImage {
                    yuy: rows.data,
                    yuy_stride: rows.stride,
                    width,
                    height,
                };
                convert(&image, out, out_stride, range, matrix)?;
            }
            PixelLayout::Rgb {
                step,
                shuffle: Some(shuffle),
                ..
            } => {
                let rows = plane(frame, 0, part, step)?;
                shuffle(rows.data, rows.stride, out, out_stride, width, height)?;
            }
            PixelLayout::Rgb { step, places, .. } => {
                let rows = plane(frame, 0, part, step)?;
                for (from, to) in rows.iter().zip(out.chunks_mut(stride)) {
                    let (to, _) = to.as_chunks_mut::<4>();
                    for (from, to) in from.chunks_exact(step).zip(to) {
                        *to = [from[places[0]], from[places[1]], from[places[2]], 0];
                    }
                }
            }
            PixelLayout::Rgbx => {
                let rows = plane(frame, 0, part, 4)?;
                for (from, to) in rows.iter().zip(out.chunks_mut(stride)) {
                    to[..from.len()].copy_from_slice(from);
                }
            }
            PixelLayout::Luma { step, offset } => {
                let rows = plane(frame, 0, part, step)?;
                for (from, to) in rows.iter().zip(out.chunks_mut(stride)) {
                    read_luma(from, step, offset, range, &mut to[..width as usize]);
                }
            }
        }
        Ok(())
    }
}

/// Reads one row. The loops are written so that the compiler turns them into vector code.
fn read_luma(from: &[u8], step: usize, offset: usize, range: YuvRange, to: &mut [u8]) {
    let value = |byte: u8| match range {
        YuvRange::Full => byte,
        YuvRange::Limited => expand_range(byte),
    };
    match step {
        1 => to.iter_mut().zip(from).for_each(|(to, from)| *to = value(*from)),
        2 => {
            let (pairs, _) = from.as_chunks::<2>();
            for (to, pair) in to.iter_mut().zip(pairs) {
                *to = value(pair[offset & 1]);
            }
        }
        _ => {
            for (to, pixel) in to.iter_mut().zip(from.chunks_exact(step)) {
                *to = value(pixel[offset]);
            }
        }
    }
}

/// Expands luma from 16..=235 to 0..=255, rounded.
#[inline]
fn expand_range(luma: u8) -> u8 {
    let luma = u16::from(luma.saturating_sub(16).min(219));
    ((luma * 255 + 109) / 219) as u8
}

/// Rows of one plane.
struct Rows<'a> {
    /// From the first sample of the first row to the end of the last row, with the bytes before the next row if there
    /// is one.
    data: &'a [u8],
    /// Bytes from one row to the next.
    stride: u32,
    /// Bytes of a row that hold samples.
    length: usize,
}

impl<'a> Rows<'a> {
    fn iter(&self) -> impl Iterator<Item = &'a [u8]> {
        let length = self.length;
        let rows = self.data.chunks(self.stride as usize);
        rows.filter_map(move |row| row.get(..length))
    }

    /// Replaces `words` by the samples, without padding.
    fn words(&self, words: &mut Vec<u16>) {
        words.clear();
        for row in self.iter() {
            let (samples, _) = row.as_chunks::<2>();
            words.extend(samples.iter().map(|bytes| u16::from_le_bytes(*bytes)));
        }
    }
}

/// Returns `part` of a plane whose samples have `size` bytes.
fn plane<'a>(frame: &'a MappedFrame<'_>, plane: u32, part: Rect, size: usize) -> Result<Rows<'a>, UnpackError> {
    let index = plane as usize;
    let stride = usize::try_from(frame.plane_stride()[index]).map_err(|_| UnpackError::Plane)?;
    let length = part.width as usize * size;
    let start = part.y as usize * stride + part.x as usize * size;
    let end = start + (part.height as usize - 1) * stride + length;
    // The slice of a plane has the length that its format needs, even if the buffer is shorter.
    let held = frame.buffer().size().saturating_sub(frame.plane_offset()[index]);
    if stride < length || end > held {
        return Err(UnpackError::Plane);
    }
    let data = frame.plane_data(plane).map_err(|_| UnpackError::Plane)?;
    if part.height == 1 {
        let data = data.get(start..end).ok_or(UnpackError::Plane)?;
        return Ok(Rows {
            data,
            stride: length as u32,
            length,
        });
    }
    let with_rest = start + part.height as usize * stride;
    let data = data.get(start..with_rest.min(held)).or_else(|| data.get(start..end));
    Ok(Rows {
        data: data.ok_or(UnpackError::Plane)?,
        stride: stride as u32,
        length,
    })
}

fn luma(details: &gst_video::VideoFormatInfo) -> PixelLayout {
    PixelLayout::Luma {
        step: details.pixel_stride()[0] as usize,
        offset: details.poffset()[0] as usize,
    }
}

fn layout(details: &gst_video::VideoFormatInfo) -> Option<PixelLayout> {
    use VideoFormat as F;
    Some(match details.format() {
        F::I420 | F::Yv12 => PixelLayout::Planar(yuv::yuv420_to_rgba),
        F::Y42b => PixelLayout::Planar(yuv::yuv422_to_rgba),
        F::Y444 => PixelLayout::Planar(yuv::yuv444_to_rgba),
        F::I42010le => PixelLayout::PlanarWords(yuv::i010_to_rgba),
        F::I42210le => PixelLayout::PlanarWords(yuv::i210_to_rgba),
        F::I42012le => PixelLayout::PlanarWords(yuv::i012_to_rgba),
        F::I42212le => PixelLayout::PlanarWords(yuv::i212_to_rgba),
        F::Nv12 => PixelLayout::SemiPlanar(yuv::yuv_nv12_to_rgba),
        F::Nv21 => PixelLayout::SemiPlanar(yuv::yuv_nv21_to_rgba),
        F::Nv16 => PixelLayout::SemiPlanar(yuv::yuv_nv16_to_rgba),
        F::Nv61 => PixelLayout::SemiPlanar(yuv::yuv_nv61_to_rgba),
        F::Nv24 => PixelLayout::SemiPlanar(yuv::yuv_nv24_to_rgba),
        F::P01010le => PixelLayout::SemiPlanarWords(yuv::p010_to_rgba),
        F::Yuy2 => PixelLayout::Packed(yuv::yuyv422_to_rgba),
        F::Uyvy => PixelLayout::Packed(yuv::uyvy422_to_rgba),
        F::Yvyu => PixelLayout::Packed(yuv::yvyu422_to_rgba),
        F::Vyuy => PixelLayout::Packed(yuv::vyuy422_to_rgba),
        F::Gray8 => luma(details),
        F::Rgb | F::Bgr | F::Rgbx | F::Bgrx | F::Xrgb | F::Xbgr | F::Rgba | F::Bgra | F::Argb | F::Abgr => rgb(details),
        _ => return None,
    })
}

fn rgb(details: &gst_video::VideoFormatInfo) -> PixelLayout {
    let step = details.pixel_stride()[0] as usize;
    let places = [0, 1, 2].map(|colour| details.poffset()[colour] as usize);
    let shuffle: Option<Shuffle> = match (step, places) {
        (4, [0, 1, 2]) => return PixelLayout::Rgbx,
        (4, [2, 1, 0]) => Some(yuv::bgra_to_rgba),
        (3, [0, 1, 2]) => Some(yuv::rgb_to_rgba),
        (3, [2, 1, 0]) => Some(yuv::bgr_to_rgba),
        _ => None,
    };
    PixelLayout::Rgb { step, places, shuffle }
}
