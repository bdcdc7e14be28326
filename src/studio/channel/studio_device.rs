//! How this machine is known to Studio.

use std::path::Path;

/// A Jetson or Raspberry Pi is recognised by the first bytes of its MAC address, as in the programs of Edge Impulse.
const KINDS: [(&str, &str); 4] = [
    ("dc:a6:32", "RASPBERRY_PI"),
    ("b8:27:eb", "RASPBERRY_PI"),
    ("00:04:4b", "NVIDIA_JETSON_NANO"),
    ("48:b0:2d", "NVIDIA_JETSON_NANO"),
];
/// Exists on machines with Qualcomm's neural processor.
const QUALCOMM_LIBRARY: &str = "usr/lib/libQnnTFLiteDelegate.so";
/// The id of a machine without a network card.
const NO_CARD: &str = "00:00:00:00:00:00";

/// How this machine is known to Studio.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StudioDevice {
    /// A MAC address in lower case, with colons.
    pub id: String,
    /// `deviceType`
    pub kind: &'static str,
    /// The name that a device gets which has none in Studio yet.
    pub name: String,
}

impl StudioDevice {
    /// This machine. `system_root` is `/`, or a tree for tests.
    pub fn detect(system_root: &Path, name: &str) -> Self {
        let id = crate::device::studio_id(system_root).unwrap_or_else(|| NO_CARD.to_owned());
        let by_address = KINDS
            .iter()
            .find(|(start, _)| id.starts_with(start))
            .map(|(_, kind)| *kind);
        let kind = match by_address {
            Some(kind) => kind,
            None if system_root.join(QUALCOMM_LIBRARY).exists() => "QUALCOMM_LINUX",
            None => "EDGE_IMPULSE_LINUX",
        };
        Self {
            id,
            kind,
            name: name.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_type_follows_from_the_address_or_a_library() {
        let root = tempfile::tempdir().unwrap();
        let detect = || StudioDevice::detect(root.path(), "Cam");
        assert_eq!(
            (detect().id.as_str(), detect().kind),
            ("00:00:00:00:00:00", "EDGE_IMPULSE_LINUX")
        );
        fs::create_dir_all(root.path().join("usr/lib")).unwrap();
        fs::write(root.path().join(QUALCOMM_LIBRARY), "").unwrap();
        assert_eq!(detect().kind, "QUALCOMM_LINUX");
        let card = root.path().join("sys/class/net/eth0");
        fs::create_dir_all(&card).unwrap();
        fs::write(card.join("address"), "DC:A6:32:01:02:03\n").unwrap();
        fs::write(card.join("flags"), "0x1003\n").unwrap();
        assert_eq!(
            (detect().id.as_str(), detect().kind),
            ("dc:a6:32:01:02:03", "RASPBERRY_PI")
        );
    }
}
