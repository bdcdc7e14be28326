//! GStreamer's initialization and its registry of installed elements.

use gstreamer as gst;
use gstreamer::prelude::*;

use super::error::CaptureError;
use super::gst_args::ElementRegistry;

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

/// The registry of this machine.
pub(super) struct GstRegistry;

impl ElementRegistry for GstRegistry {
    fn is_element(&self, name: &str) -> bool {
        init().is_ok() && is_installed(name)
    }

    fn has_property(&self, element: &str, property: &str) -> Option<bool> {
        init().ok()?;
        let factory = gst::ElementFactory::find(element)?.load().ok()?;
        let factory = factory.downcast::<gst::ElementFactory>().ok()?;
        let class = gst::glib::Class::<gst::glib::Object>::from_type(factory.element_type())?;
        Some(class.find_property(property).is_some())
    }
}
