//! GStreamer's initialization and its registry of installed elements.

use gstreamer as gst;

use super::error::CaptureError;

/// Initializes GStreamer. Cheap when it is initialized already, so each function that needs GStreamer calls it.
///
/// # Errors
/// [`CaptureError::Init`]
pub fn init() -> Result<(), CaptureError> {
    gst::init().map_err(|error| CaptureError::Init(error.to_string()))
}

/// Whether GStreamer has an element with this factory name.
pub(super) fn is_installed(element: &str) -> bool {
    gst::ElementFactory::find(element).is_some()
}
