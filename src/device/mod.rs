//! The device's name and its MQTT topics.

mod identity;
mod network;

use std::path::{Path, PathBuf};

use network::{Mac, Network};

/// Most bytes of a name: the limit of IoT Core for client ids.
const MAX_NAME_BYTES: usize = 128;
/// The default of `device_name`, also used for a template without any accepted character.
pub(crate) const DEFAULT_TEMPLATE: &str = "MyEdgeImpulseDevice";

/// The name of a device: MQTT client id, part of its topics, directory below `work_dir`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceName {
    /// 1 to 128 bytes, without characters that a topic level or a file name cannot contain.
    pub name: String,
    /// Warnings about the name, as sentences.
    pub warnings: Vec<String>,
}

/// Determines the device's name: the cleaned template, `_`, and the address of a network card.
///
/// At the first start this is the card of the default route. Its address is stored in `<work_dir>/<template>/identity` and
/// used as long as the machine has this card, so that a device that moves from Wi-Fi to Ethernet keeps its topics. It is also
/// used while the machine has no card at all: a card may appear late in a start. When another card is there, the disk was
/// cloned or the card was replaced, and the address of that card is used.
///
/// This never fails: at a first start without a card there is no suffix, and an identity that cannot be read or stored is a
/// warning.
///
/// `system_root` is `/`, or a tree with `proc/net` and `sys/class/net` for tests.
pub fn resolve(template: &str, work_dir: &Path, system_root: &Path) -> DeviceName {
    name(template, work_dir, system_root, true)
}

/// Like [`resolve`], but writes nothing. Used by `check`.
pub fn peek(template: &str, work_dir: &Path, system_root: &Path) -> DeviceName {
    name(template, work_dir, system_root, false)
}

/// The directory with the identity of a device.
pub fn identity_dir(template: &str, work_dir: &Path) -> PathBuf {
    identity_dir_of(&clean_or_default(template, &mut Vec::new()), work_dir)
}

/// `template` is clean.
fn identity_dir_of(template: &str, work_dir: &Path) -> PathBuf {
    work_dir.join(shortened(template, MAX_NAME_BYTES))
}

fn name(template: &str, work_dir: &Path, system_root: &Path, store: bool) -> DeviceName {
    let mut warnings = Vec::new();
    let template = clean_or_default(template, &mut warnings);
    let file = identity_dir_of(&template, work_dir).join("identity");
    let network = Network::new(system_root);
    let stored = identity::read(&file).unwrap_or_else(|error| {
        warnings.push(format!(
            "the identity in {} cannot be read ({error}), so the name may differ from that of earlier starts: give the file to the \
             user of the component",
            file.display()
        ));
        None
    });
    let Some(Suffix { mac, to_store }) = suffix(stored, &network, &mut warnings) else {
        let name = shortened(&template, MAX_NAME_BYTES).to_owned();
        warnings.push(format!(
            "no network card was found, so the device is called {name} without its address: names of devices may collide"
        ));
        return DeviceName { name, warnings };
    };
    let suffix = format!("_{mac}");
    let name = format!("{}{suffix}", shortened(&template, MAX_NAME_BYTES - suffix.len()));
    if store
        && to_store
        && let Err(error) = identity::write(&file, &mac)
    {
        warnings.push(format!(
            "the name {name} cannot be kept in {}: {error}; it changes when the default route moves to another network card",
            file.display()
        ));
    }
    DeviceName { name, warnings }
}

/// The id of this machine in Edge Impulse Studio: the address of its first network card with an IPv4 address, in lower case and
/// with colons, as the programs of Edge Impulse determine it. Without such a card it is the address that the device's name would
/// have; `None`: there is no card at all.
pub fn studio_id(system_root: &Path) -> Option<String> {
    let network = Network::new(system_root);
    let mac = network.first_with_ipv4().or_else(|| network.own_address())?;
    Some(mac.with_colons())
}

/// The address that is part of the name.
struct Suffix {
    mac: Mac,
    /// Whether it becomes the identity of this device.
    to_store: bool,
}

fn suffix(stored: Option<Mac>, network: &Network, warnings: &mut Vec<String>) -> Option<Suffix> {
    let Some(stored) = stored else {
        let mac = network.own_address()?;
        return Some(Suffix { mac, to_store: true });
    };
    if network.has(&stored) {
        return Some(Suffix {
            mac: stored,
            to_store: false,
        });
    }
    let Some(card) = network.card_address() else {
        warnings.push(format!(
            "no network card was found; the device keeps the address {stored} of its earlier starts in its name"
        ));
        return Some(Suffix {
            mac: stored,
            to_store: false,
        });
    };
    // Only a card that is in use replaces the identity: the stored one may appear later in this start. Until then this machine
    // must not use it, because it may be a clone.
    Some(Suffix {
        mac: card.mac,
        to_store: card.is_up,
    })
}

/// Removes characters from the template that a topic level or a file name cannot contain.
fn clean_or_default(template: &str, warnings: &mut Vec<String>) -> String {
    let clean: String = template
        .trim()
        .chars()
        .filter(|c| !c.is_control() && !matches!(c, '"' | '\'' | '/' | '+' | '#'))
        .map(|c| if c.is_whitespace() { '_' } else { c })
        .collect();
    // `.` and `..` are directories.
    if clean.is_empty() || clean == "." || clean == ".." {
        warnings.push(format!(
            "`device_name` {template:?} leaves no name for a topic; {DEFAULT_TEMPLATE} is used instead"
        ));
        return DEFAULT_TEMPLATE.to_owned();
    }
    clean
}

/// Cuts the text to at most `most` bytes, between two characters.
fn shortened(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or(text)
}

/// The topics of a device. The leading slash belongs to the topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    /// One message per published inference.
    pub inference_output: String,
    /// Metrics, every `metrics_sleeptime_ms`.
    pub metrics: String,
    /// Events in zones, on lines and of labels.
    pub events: String,
    /// Commands to the device.
    pub command_input: String,
    /// Answers to commands, and the state notices.
    pub command_output: String,
}

impl Topics {
    /// Topics for a device name, which must already be cleaned.
    pub fn new(device: &str) -> Self {
        let base = format!("/edgeimpulse/device/{device}");
        Self {
            inference_output: format!("{base}/inference/output"),
            metrics: format!("{base}/model/metrics"),
            events: format!("{base}/events"),
            command_input: format!("{base}/command/input"),
            command_output: format!("{base}/command/output"),
        }
    }
}

#[cfg(test)]
mod tests;
