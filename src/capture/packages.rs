//! The Debian package of each GStreamer element, for the error about a missing element.

use std::fmt;

const BASE: &str = "gstreamer1.0-plugins-base";
const GOOD: &str = "gstreamer1.0-plugins-good";
const BAD: &str = "gstreamer1.0-plugins-bad";
const UGLY: &str = "gstreamer1.0-plugins-ugly";
const LIBAV: &str = "gstreamer1.0-libav";
const ALSA: &str = "gstreamer1.0-alsa";
const PULSE: &str = "gstreamer1.0-pulseaudio";
const VAAPI: &str = "gstreamer1.0-vaapi";
const LIBCAMERA: &str = "gstreamer1.0-libcamera";
const NICE: &str = "gstreamer1.0-nice";
const PIPEWIRE: &str = "gstreamer1.0-pipewire";
const X11: &str = "gstreamer1.0-x";
const GL: &str = "gstreamer1.0-gl";
const CORE: &str = "libgstreamer1.0-0";
const L4T: &str = "nvidia-l4t-gstreamer (NVIDIA Jetson Linux)";
const DEEPSTREAM: &str = "the NVIDIA DeepStream SDK";
const KVS: &str = "the Amazon Kinesis Video Streams producer SDK (set install_kvssink to \"yes\")";

/// Elements by package (Debian 12, Ubuntu 20.04 to 24.04). `*` stands for any characters.
const ELEMENTS: &[(&str, &[&str])] = &[
    (
        CORE,
        &[
            "capsfilter",
            "fakesink",
            "fakesrc",
            "filesink",
            "filesrc",
            "identity",
            "multiqueue",
            "queue",
            "queue2",
            "tee",
            "valve",
        ],
    ),
    (
        BASE,
        &[
            "appsink",
            "appsrc",
            "audioconvert",
            "audioresample",
            "decodebin",
            "decodebin3",
            "parsebin",
            "playbin",
            "tcpclientsrc",
            "tcpserversrc",
            "uridecodebin",
            "videoconvert",
            "videoconvertscale",
            "videorate",
            "videoscale",
            "videotestsrc",
            "audiotestsrc",
            "oggdemux",
            "theoradec",
        ],
    ),
    (
        GOOD,
        &[
            "v4l2*",
            "rtspsrc",
            "rtp*",
            "udpsrc",
            "udpsink",
            "jpegenc",
            "jpegdec",
            "pngenc",
            "pngdec",
            "souphttpsrc",
            "multipartdemux",
            "multipartmux",
            "multifilesrc",
            "multifilesink",
            "imagefreeze",
            "matroskademux",
            "matroskamux",
            "qtdemux",
            "mp4mux",
            "qtmux",
            "avidemux",
            "avimux",
            "videocrop",
            "videoflip",
            "videobox",
            "videobalance",
            "vp8dec",
            "vp9dec",
            "vp8enc",
            "vp9enc",
            "autovideosrc",
            "autovideosink",
            "autoaudiosrc",
            "deinterlace",
            "ximagesrc",
            "splitmuxsink",
        ],
    ),
    (
        BAD,
        &[
            "h264parse",
            "h265parse",
            "jpegparse",
            "mpegtsmux",
            "tsdemux",
            "tsparse",
            "rtmpsrc",
            "rtmp2src",
            "rtmpsink",
            "srtsrc",
            "srtsink",
            "hlsdemux",
            "dashdemux",
            "bayer2rgb",
            "fpsdisplaysink",
            "webrtcbin",
            "kmssink",
            "waylandsink",
            "openh264enc",
            "openh264dec",
            "x265enc",
            "nvh264*",
            "nvh265*",
            "va*postproc",
            "vah264*",
            "vajpeg*",
            "decklinkvideosrc",
            "uvch264src",
            "libde265dec",
        ],
    ),
    (UGLY, &["x264enc", "asfdemux", "rmdemux", "mpeg2dec", "a52dec"]),
    (LIBAV, &["avdec_*", "avenc_*", "avdemux_*", "avmux_*", "avdeinterlace"]),
    (
        X11,
        &[
            "ximagesink",
            "xvimagesink",
            "textoverlay",
            "timeoverlay",
            "clockoverlay",
        ],
    ),
    (GL, &["gl*"]),
    (ALSA, &["alsasrc", "alsasink"]),
    (PULSE, &["pulsesrc", "pulsesink"]),
    (VAAPI, &["vaapi*"]),
    (LIBCAMERA, &["libcamerasrc"]),
    (NICE, &["nicesrc", "nicesink"]),
    (PIPEWIRE, &["pipewiresrc", "pipewiresink"]),
    (
        DEEPSTREAM,
        &[
            "nvinfer",
            "nvstreammux",
            "nvstreamdemux",
            "nvdsosd",
            "nvmultistreamtiler",
            "nvvideoconvert",
            "nvurisrcbin",
            "nvtracker",
        ],
    ),
    (
        L4T,
        &[
            "nvarguscamerasrc",
            "nvv4l2*",
            "nvvidconv",
            "nvjpegenc",
            "nvjpegdec",
            "nvcompositor",
            "nvcamerasrc",
            "nvegl*",
            "nvdrmvideosink",
            "nv3dsink",
            "nvoverlaysink",
        ],
    ),
    (KVS, &["kvssink"]),
];

/// The package that contains `element`, if known.
fn package_of(element: &str) -> Option<&'static str> {
    let matches = |pattern: &str| match pattern.split_once('*') {
        Some((start, end)) => {
            element.len() >= start.len() + end.len() && element.starts_with(start) && element.ends_with(end)
        }
        None => pattern == element,
    };
    ELEMENTS
        .iter()
        .find(|(_, elements)| elements.iter().any(|pattern| matches(pattern)))
        .map(|(package, _)| *package)
}

/// An element that is not installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingElement {
    /// The factory name.
    pub name: String,
    /// The package that contains it, if known.
    pub package: Option<&'static str>,
}

impl MissingElement {
    /// The missing element `name`, with its package.
    pub(super) fn new(name: impl Into<String>) -> Self {
        let name = name.into();
        Self {
            package: package_of(&name),
            name,
        }
    }
}

impl fmt::Display for MissingElement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.package {
            Some(package) => write!(f, "\"{}\" (in {package})", self.name),
            None => write!(f, "\"{}\" (package not known; is it spelled right?)", self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_elements_have_their_package() {
        for (element, package) in [
            ("v4l2src", GOOD),
            ("rtspsrc", GOOD),
            ("x264enc", UGLY),
            ("avdec_h264", LIBAV),
            ("avenc_mjpeg", LIBAV),
            ("h264parse", BAD),
            ("alsasrc", ALSA),
            ("libcamerasrc", LIBCAMERA),
            ("nvarguscamerasrc", L4T),
            ("nvvidconv", L4T),
            ("nvvideoconvert", DEEPSTREAM),
            ("kvssink", KVS),
            ("decodebin", BASE),
            ("glimagesink", GL),
            ("xvimagesink", X11),
            ("ximagesrc", GOOD),
        ] {
            assert_eq!(package_of(element), Some(package), "{element}");
        }
        assert_eq!(package_of("nosuchelement"), None);
        assert_eq!(package_of(""), None);
    }
}
