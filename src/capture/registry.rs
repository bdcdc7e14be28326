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

/// Looks for plugins that were installed after the start of this process, as the install step does on Greengrass Lite. Returns
/// whether that succeeded.
pub(super) fn find_new_plugins() -> bool {
    gst::Registry::update().is_ok()
}

/// The kind of a property's value, as far as launch lines write kinds differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PropertyKind {
    /// Text, or not known.
    Text,
    /// A number, a structure, caps and the like.
    Other,
}

/// The kind of a property of an element. A property that is not known counts as text.
pub(super) fn property_kind(element: &str, property: &str) -> PropertyKind {
    let value_type = element_class(element)
        .and_then(|class| class.find_property(property))
        .map(|property| property.value_type());
    match value_type {
        Some(value_type) if value_type != gst::glib::Type::STRING => PropertyKind::Other,
        _ => PropertyKind::Text,
    }
}

fn element_class(element: &str) -> Option<gst::glib::object::ClassRef<'static, gst::glib::Object>> {
    init().ok()?;
    let factory = gst::ElementFactory::find(element)?.load().ok()?;
    let factory = factory.downcast::<gst::ElementFactory>().ok()?;
    gst::glib::Class::<gst::glib::Object>::from_type(factory.element_type())
}

/// The registry of this machine.
pub(super) struct GstRegistry;

impl ElementRegistry for GstRegistry {
    fn is_element(&self, name: &str) -> bool {
        init().is_ok() && is_installed(name)
    }

    fn has_property(&self, element: &str, property: &str) -> Option<bool> {
        Some(element_class(element)?.find_property(property).is_some())
    }
}
