//! GStreamer elements by what they are to a launch line.

/// JPEG encoders: the last step of a line that stored files.
pub(super) const ENCODERS: [&str; 7] = [
    "jpegenc",
    "avenc_mjpeg",
    "nvjpegenc",
    "vaapijpegenc",
    "vajpegenc",
    "v4l2jpegenc",
    "qsvjpegenc",
];
/// Encoders at the end of a line that stored sound.
pub(super) const SOUND_ENCODERS: [&str; 9] = [
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
/// Sinks that only a program that stores, shows or plays needs.
pub(super) const SPARE_SINKS: [&str; 14] = [
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
/// Elements that may stand between an encoder and the end of the line, of no use without the encoder.
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
/// Elements that give the bytes of a file, whatever is in it.
pub(super) const BYTES: [&str; 3] = ["filesrc", "souphttpsrc", "fdsrc"];
/// Elements that only a line with sound has.
pub(super) const SOUND: [&str; 10] = [
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
/// Elements that pass on the memory they get.
pub(super) const PASS_THROUGH: [&str; 7] = ["queue", "queue2", "identity", "tee", "valve", "videorate", "capsfilter"];
/// Elements whose output is NVIDIA's own memory unless caps say otherwise.
pub(super) const NVIDIA_MEMORY: [&str; 4] = ["nvarguscamerasrc", "nvv4l2camerasrc", "nvv4l2decoder", "nvcompositor"];
