//! Secrets that stand in the configuration itself, in the report of `check`.

use crate::config::{EffectiveValue, Origin};

/// One line for each key of the configuration that holds a password, a key or a token. Greengrass gives the
/// configuration of a component to every other component that asks over IPC (`GetConfiguration` needs no accessControl).
pub(super) fn warnings(settings: &[EffectiveValue]) -> impl Iterator<Item = String> {
    settings
        .iter()
        // Settings have `***` in place of each secret.
        .filter(|setting| setting.origin == Origin::Config && setting.value.contains("***"))
        .map(|setting| {
            format!(
                "`{}` holds a secret, which in Greengrass every component on the device can read over IPC; {}",
                setting.key,
                advice(setting)
            )
        })
}

fn advice(setting: &EffectiveValue) -> &'static str {
    match setting.key {
        "eiparams" if setting.value.contains("--api-key") => {
            "store the API key in Secrets Manager (ei_sm_secret_id) and leave --api-key out"
        }
        "eiparams" | "gst_args" => "store it in Secrets Manager and write {{secret:NAME:KEY}} in its place",
        "preview_token" => "without this key the component makes a token, in a file that only its user can read",
        "iot_endpoint" => "use a client certificate (iot_auth x509), or a user of the broker that may do nothing else",
        _ => "leave it out",
    }
}
