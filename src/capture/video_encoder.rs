//! The H.264 encoders that this program knows.

use super::registry::is_installed;

/// Encoders with what they need, the best first. One thread of x264enc is enough, and leaves the others to the inference; it
/// stays below 2 Mbit/s.
const ENCODERS: [(&str, &str, &[&str]); 5] = [
    (
        "x264enc",
        "x264enc speed-preset=ultrafast threads=1 pass=qual quantizer=25",
        &[],
    ),
    (
        "nvv4l2h264enc",
        "nvvidconv ! nvv4l2h264enc ! h264parse",
        &["nvvidconv", "h264parse"],
    ),
    ("v4l2h264enc", "v4l2h264enc ! h264parse", &["h264parse"]),
    ("vah264enc", "vah264enc ! h264parse", &["h264parse"]),
    ("openh264enc", "openh264enc ! h264parse", &["h264parse"]),
];

/// The part of a launch line that encodes raw frames for `mp4mux`. `None`: an encoder or one of `others`, the other elements
/// of that line, is not installed.
pub(super) fn h264_encoder(others: &[&str]) -> Option<&'static str> {
    let has = |elements: &[&str]| elements.iter().all(|element| is_installed(element));
    let usable = ENCODERS
        .iter()
        .find(|(name, _, needed)| is_installed(name) && has(needed));
    usable.filter(|_| has(others)).map(|(_, line, _)| *line)
}
