//! The raw formats that are cheap to convert.

use gstreamer as gst;

/// The cheapest first: little to copy and to read. YUV with 8 bits, then RGB, then grey, which loses the colours.
const CHEAP: [&str; 23] = [
    "I420", "NV12", "YV12", "NV21", "Y42B", "NV16", "NV61", "YUY2", "UYVY", "YVYU", "VYUY", "Y444", "NV24", "RGB",
    "BGR", "BGRx", "RGBx", "BGRA", "RGBA", "xRGB", "xBGR", "ARGB", "ABGR",
];

/// The caps that the end of a pipeline accepts: all raw pictures in ordinary memory, in order of preference.
///
/// A source or a `videoconvert` with a choice takes the first that it has. Without an order `videotestsrc` (from
/// GStreamer 1.20 on) takes the first of its own list, ABGR64_LE with eight bytes a pixel.
pub(super) fn raw_pictures() -> gst::Caps {
    let raw = || gst::Structure::builder("video/x-raw");
    let mut structures: Vec<_> = CHEAP
        .iter()
        .map(|format| raw().field("format", *format).build())
        .collect();
    structures.push(raw().build());
    structures.into_iter().collect()
}
