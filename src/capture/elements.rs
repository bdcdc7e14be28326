//! GStreamer elements by their role in a launch line. Most elements need no entry here; [`super::packages`] names the package
//! of each.

/// JPEG encoders.
pub(super) const JPEG_ENCODERS: [&str; 7] = [
    "jpegenc",
    "avenc_mjpeg",
    "nvjpegenc",
    "vaapijpegenc",
    "vajpegenc",
    "v4l2jpegenc",
    "qsvjpegenc",
];
/// Audio encoders.
pub(super) const AUDIO_ENCODERS: [&str; 9] = [
    "wavenc",
    "flacenc",
    "opusenc",
    "vorbisenc",
    "lamemp3enc",
    "voaacenc",
    "avenc_aac",
    "fdkaacenc",
    "mulawenc",
];
/// Sinks that store, show, play or drop frames: at the end of the model's branch they are replaced.
pub(super) const REPLACEABLE_SINKS: [&str; 14] = [
    "autoaudiosink",
    "alsasink",
    "pulsesink",
    "multifilesink",
    "fakesink",
    "filesink",
    "fdsink",
    "appsink",
    "fakevideosink",
    "autovideosink",
    "xvimagesink",
    "ximagesink",
    "glimagesink",
    "fpsdisplaysink",
];
/// Elements between an encoder and the end of the line that are useless without the encoder.
pub(super) const AFTER_ENCODER: [&str; 8] = [
    "queue",
    "queue2",
    "identity",
    "jpegparse",
    "multipartmux",
    "videorate",
    "oggmux",
    "flacparse",
];
/// Sources that deliver the bytes of a file or a stream in an unknown format.
pub(super) const BYTE_SOURCES: [&str; 15] = [
    "filesrc",
    "souphttpsrc",
    "curlhttpsrc",
    "neonhttpsrc",
    "reqwesthttpsrc",
    "fdsrc",
    "giosrc",
    "tcpclientsrc",
    "tcpserversrc",
    "udpsrc",
    "srtsrc",
    "rtmpsrc",
    "rtmp2src",
    "urisourcebin",
    "rtspsrc",
];
/// Elements named like a parser or depayloader whose output needs no decoder, or has one of its own ([`JPEG_SOURCES`]).
pub(super) const RAW_PARSERS: [&str; 10] = [
    "rawvideoparse",
    "rawaudioparse",
    "videoparse",
    "audioparse",
    "wavparse",
    "rtpvrawdepay",
    "rtpL16depay",
    "rtpL24depay",
    "rtpgstdepay",
    "unalignedvideoparse",
];
/// Sources that read from a web server.
pub(super) const HTTP_SOURCES: [&str; 4] = ["souphttpsrc", "curlhttpsrc", "neonhttpsrc", "reqwesthttpsrc"];
/// Elements that only a line with audio has.
pub(super) const AUDIO_ELEMENTS: [&str; 10] = [
    "alsasrc",
    "pulsesrc",
    "autoaudiosrc",
    "audiotestsrc",
    "jackaudiosrc",
    "osssrc",
    "openalsrc",
    "wavparse",
    "audioconvert",
    "audioresample",
];
/// Elements whose output is JPEG.
pub(super) const JPEG_SOURCES: [&str; 3] = ["multipartdemux", "rtpjpegdepay", "jpegparse"];
/// Elements that do not copy the memory of their input.
pub(super) const PASS_THROUGH: [&str; 7] = ["queue", "queue2", "identity", "tee", "valve", "videorate", "capsfilter"];
/// Elements whose output is in NVIDIA memory unless caps after them require something else.
pub(super) const NVIDIA_MEMORY_SOURCES: [&str; 4] =
    ["nvarguscamerasrc", "nvv4l2camerasrc", "nvv4l2decoder", "nvcompositor"];
