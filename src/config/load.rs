//! Loads the layers into one effective configuration.

use serde_json::{Value, json};

use super::eiparams::{self, AppliedOption, EiParams};
use super::error::{ConfigError, Warning};
use super::resolve::{EffectiveValue, Origin, Resolver};
use super::sources::Sources;
use super::types::Config;
use super::{build, keys, text, values};
use crate::util::redact;

/// The effective configuration with the origin of its values.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Every key with its effective value, in the order of the table.
    pub entries: Vec<EffectiveValue>,
    /// Values that are not used as given.
    pub warnings: Vec<Warning>,
    /// Hints for the log, for example how `default_threshold` was read.
    pub notes: Vec<String>,
    /// The known options of `eiparams`.
    pub eiparams: Vec<AppliedOption>,
}

/// Resolves the layers to one configuration.
///
/// # Errors
/// Text that cannot be parsed ([`ConfigError::Syntax`], [`ConfigError::Shape`], [`ConfigError::TooLong`]), an unknown
/// `launch`, and a `--mqtt` that is not a broker address. Every other problem is a warning.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
    check_broker_flag(sources)?;
    let mut resolver = Resolver::default();
    add_text(&mut resolver, sources)?;
    for (key, value) in &sources.sets {
        resolver.add(key, json!(value), Origin::Set);
    }
    for (key, flag, value) in [
        (&keys::EI_LOCAL_MODEL_FILE.info, "--model", &sources.model),
        (&keys::IOT_ENDPOINT.info, "--mqtt", &sources.mqtt),
    ] {
        if let Some(value) = value {
            resolver.add(key.name, json!(value), Origin::Flag(flag));
        }
    }
    let mut eiparams = take_eiparams(&mut resolver);
    let config = build::config(&mut resolver, &mut eiparams, sources)?;
    let (entries, warnings, mut notes) = resolver.into_parts();
    notes.extend(exposed_secret(sources));
    Ok(Loaded {
        config,
        entries,
        warnings,
        notes,
        eiparams: eiparams.applied,
    })
}

/// A hint if a flag on the command line contains a secret.
fn exposed_secret(sources: &Sources) -> Option<String> {
    let has_credentials = |text: &str| redact::credentials(text) != text;
    let mut words = sources.sets.iter().map(|(key, value)| {
        // `--api-key` is the only option that is a secret.
        let is_secret = match key.as_str() {
            "eiparams" => value.contains("--api-key"),
            key => keys::find(key).is_some_and(|key| key.secret) && !values::is_absent(&json!(value)),
        };
        (format!("--set {key}"), is_secret || has_credentials(value))
    });
    let mqtt = sources.mqtt.as_deref().is_some_and(has_credentials);
    let word = words.find_map(|(word, secret)| secret.then_some(word));
    let word = word.or_else(|| mqtt.then(|| "--mqtt".to_owned()))?;
    Some(format!(
        "{word} holds a password or a token, which every user of this machine can read in /proc/<pid>/cmdline while the program runs; \
         the file of --config can hold it instead, readable by you alone"
    ))
}

/// A `--mqtt` that is not a broker address is an error. So is another URL in `iot_endpoint`; any other text there is a
/// warning.
fn check_broker_flag(sources: &Sources) -> Result<(), ConfigError> {
    let Some(text) = &sources.mqtt else { return Ok(()) };
    let value = json!(text);
    if values::is_absent(&value) || (keys::IOT_ENDPOINT.parse)(&value).is_ok() {
        return Ok(());
    }
    Err(ConfigError::Flag {
        flag: "--mqtt",
        value: redact::refused(text),
        accepted: keys::IOT_ENDPOINT.info.accepted,
        example: "mqtt://localhost:1883",
    })
}

/// The effective value of a key for `config get`: switches as `yes` or `no`, absent as empty text, secrets as `***`.
/// `None`: there is no such key.
pub fn get(loaded: &Loaded, key: &str) -> Option<String> {
    loaded
        .entries
        .iter()
        .find(|entry| entry.key == key)
        .map(|entry| entry.value.clone())
}

fn add_text(resolver: &mut Resolver, sources: &Sources) -> Result<(), ConfigError> {
    let Some((origin, text)) = &sources.text else {
        return Ok(());
    };
    let parameters = text::parameters(origin, text)?;
    resolver.notes.extend(parameters.note);
    if let Some(empty) = parameters.empty {
        resolver.warnings.push(Warning {
            key: origin.to_string(),
            value: empty.to_owned(),
            accepted: "a JSON or YAML object of keys and values".to_owned(),
            used: "the default of every key".to_owned(),
        });
    }
    for key in &parameters.duplicates {
        resolver.warn_duplicate(key, parameters.values.get(key).unwrap_or(&Value::Null));
    }
    for key in parameters.outside {
        resolver.warnings.push(Warning {
            key,
            value: "beside `Parameters`".to_owned(),
            accepted: "keys within `Parameters`".to_owned(),
            used: "nothing, the key is ignored".to_owned(),
        });
    }
    for (key, value) in parameters.values {
        resolver.add(&key, value, Origin::Config);
        if let Some(name) = parameters.ambiguous.get(&key) {
            resolver.refuse_ambiguous(&key, name);
        }
    }
    Ok(())
}

/// Parses `eiparams`, and lists them without their secrets.
fn take_eiparams(resolver: &mut Resolver) -> EiParams {
    let text = resolver.take(&keys::EIPARAMS);
    let mut params = eiparams::parse(&text);
    resolver.warnings.append(&mut params.warnings);
    resolver.set_shown(&keys::EIPARAMS.info, &params.shown);
    params
}
