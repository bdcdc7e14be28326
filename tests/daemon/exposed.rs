//! `check` warns of secrets that stand in the configuration itself.

use serde_json::json;

use crate::daemon::by_hand::{finish, section};
use crate::support::daemon::Site;

#[test]
fn check_warns_of_each_secret_that_other_components_can_read_in_the_configuration() {
    let site = Site::new();
    let warnings = |parameters: serde_json::Value| {
        let config = site.write("exposed.json", json!({ "Parameters": parameters }).to_string());
        let mut command = site.bare_command();
        command.arg("check").arg("--config").arg(config);
        let report = finish(command).out;
        assert!(!report.contains("hush"), "{report}");
        let exposed = section(&report, "Warnings").into_iter();
        exposed
            .filter(|line| line.contains("every component"))
            .collect::<Vec<_>>()
    };
    for (key, value, advice) in [
        ("eiparams", "--greengrass --api-key ei_hush", "Secrets Manager"),
        (
            "eiparams",
            "--gst-launch-args 'rtspsrc location=rtsp://me:hush@h'",
            "{{secret:",
        ),
        ("preview_token", "hush", "only its user can read"),
        (
            "gst_args",
            "rtspsrc:location=rtsp://me:hush@h/:!:decodebin",
            "{{secret:",
        ),
        (
            "gst_args",
            "rtspsrc:location=rtsp://h/:user-id=me:user-pw=hush:!:decodebin",
            "{{secret:",
        ),
        ("iot_endpoint", "mqtts://me:hush@broker", "x509"),
    ] {
        let lines = warnings(json!({ key: value }));
        assert_eq!(lines.len(), 1, "{key} {value}: {lines:?}");
        assert!(
            lines[0].starts_with(&format!("`{key}` ")) && lines[0].contains(advice),
            "{lines:?}"
        );
    }
    let clean = json!({
        "eiparams": "--greengrass",
        "preview_token": "__none__",
        "gst_args": "rtspsrc:location=rtsp://h/:user-id=me:user-pw={{secret:cam:password}}:!:decodebin",
        "iot_endpoint": "mqtts://broker",
        "ei_sm_secret_id": "EI_API_KEY",
    });
    assert_eq!(warnings(clean), Vec::<String>::new());
}
