//! What differs between two configurations.

use super::load::Loaded;
use super::types::Config;

/// Whether a value that is shown without its secrets differs.
type Differs = fn(&Config, &Config) -> bool;

/// The keys whose shown values are equal although the values may differ.
const REDACTED: [(&str, Differs); 4] = [
    ("gst_args", |old, new| old.source != new.source),
    ("eiparams", |old, new| old.runner != new.runner),
    ("iot_endpoint", |old, new| old.broker != new.broker),
    ("preview_token", |old, new| old.preview.token != new.preview.token),
];

/// The keys with another effective value, in the order of the table.
pub fn changed_keys(old: &Loaded, new: &Loaded) -> Vec<&'static str> {
    let pairs = old.entries.iter().zip(&new.entries);
    let shown = pairs
        .filter(|(old, new)| old.value != new.value)
        .map(|(_, new)| new.key);
    let mut keys: Vec<_> = shown.collect();
    if keys.is_empty() {
        let differing = REDACTED.iter().filter(|(_, differs)| differs(&old.config, &new.config));
        keys.extend(differing.map(|(key, _)| *key));
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, TextOrigin, load};

    fn changed(old: &str, new: &str) -> Vec<&'static str> {
        let loaded = |text: &str| {
            load(&Sources {
                text: Some((TextOrigin::Nucleus, text.to_owned())),
                ..Sources::default()
            })
            .unwrap()
        };
        changed_keys(&loaded(old), &loaded(new))
    }

    #[test]
    fn keys_with_another_effective_value_are_named() {
        for (old, new, expected) in [
            ("{}", "{}", &[][..]),
            (r#"{"iotcore_qos": 1}"#, r#"{"iotcore_qos": "1"}"#, &[]),
            (r#"{"iotcore_backoff": 5}"#, "{}", &[]),
            (
                r#"{"gst_args": "v4l2src", "iotcore_backoff": 2}"#,
                r#"{"iotcore_backoff": 3}"#,
                &["gst_args", "iotcore_backoff"],
            ),
            (r#"{"launch": "RUNNER"}"#, r#"{"launch": "runner"}"#, &[]),
        ] {
            assert_eq!(changed(old, new), expected, "{old} {new}");
        }
    }

    #[test]
    fn a_changed_secret_is_named_too() {
        for (key, old, new) in [
            ("preview_token", "aaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbb"),
            ("eiparams", "--api-key ei_1", "--api-key ei_2"),
            ("iot_endpoint", "mqtt://me:one@host", "mqtt://me:two@host"),
            (
                "gst_args",
                "rtspsrc location=rtsp://me:one@host/cam",
                "rtspsrc location=rtsp://me:two@host/cam",
            ),
        ] {
            let text = |value: &str| serde_json::json!({ key: value }).to_string();
            assert_eq!(changed(&text(old), &text(new)), [key]);
        }
    }
}
