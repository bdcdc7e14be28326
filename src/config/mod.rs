//! The component configuration: typed, complete, with every value's origin. No `"__none__"` leaves this room.
//!
//! Layers, later ones win: the defaults of the table in `keys`, the configuration text (a file or `CONFIG_PARAMETERS`),
//! `--set key=value`, flags of their own name. A bad value is a [`Warning`] and the default; only text that cannot be
//! read at all, an unknown `launch` and a `--set` without `=` are a [`ConfigError`].

mod bounded;
mod build;
mod eiparams;
mod error;
mod keys;
mod names;
mod resolve;
mod show;
mod text;
mod types;
mod values;

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::util::redact;
pub use eiparams::Understood;
pub use error::{ConfigError, SyntaxProblem, TextOrigin, Warning};
pub use keys::{DefaultValue, KEYS, KeyInfo, defaults};
pub use names::{ThresholdError, UnknownWord, parse_threshold};
pub use resolve::{Entry, Origin};
pub use text::{MAX_TEXT_BYTES, read_file};
pub use types::*;

use eiparams::EiParams;
use resolve::Resolver;

/// Everything that a configuration is made of.
#[derive(Clone, Default)]
pub struct Sources {
    /// The configuration text. `--config` wins over the environment: the caller passes one of them.
    pub text: Option<(TextOrigin, String)>,
    /// `--set key=value`, in the order given, as made by [`parse_set`].
    pub sets: Vec<(String, String)>,
    /// `--model FILE`
    pub model: Option<String>,
    /// `--mqtt URL`
    pub mqtt: Option<String>,
    /// `--gst LINE`
    pub gst: Option<String>,
    /// The current directory: the default of `work_dir`.
    pub current_dir: PathBuf,
}

/// The effective configuration, and how it came about.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Every key with its effective value, in the order of the table.
    pub entries: Vec<Entry>,
    /// What was given and is not used as given.
    pub warnings: Vec<Warning>,
    /// Lines worth an info in the log, for example how `default_threshold` was read.
    pub notes: Vec<String>,
    /// The options of `eiparams` that were understood.
    pub eiparams: Vec<Understood>,
}

/// Splits the word of a `--set` at its first `=`.
///
/// # Errors
/// [`ConfigError::Set`] without a `=`, or without a key before it.
pub fn parse_set(word: &str) -> Result<(String, String), ConfigError> {
    match word.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.to_owned())),
        _ => {
            let end = word
                .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
                .unwrap_or(word.len());
            Err(ConfigError::Set {
                word: word.get(..end).unwrap_or_default().to_owned(),
            })
        }
    }
}

/// Resolves the layers to one configuration.
///
/// # Errors
/// Text that cannot be read ([`ConfigError::Syntax`], [`ConfigError::Shape`], [`ConfigError::TooLong`]), an unknown
/// `launch`, and a broker on the command line that is none. Everything else that is wrong is a warning.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
    check_broker_flag(sources)?;
    let mut resolver = Resolver::default();
    give_text(&mut resolver, sources)?;
    for (key, value) in &sources.sets {
        resolver.give(key, json!(value), Origin::Set);
    }
    for (key, flag, value) in [
        (&keys::EI_LOCAL_MODEL_FILE.info, "--model", &sources.model),
        (&keys::IOT_ENDPOINT.info, "--mqtt", &sources.mqtt),
    ] {
        if let Some(value) = value {
            resolver.give(key.name, json!(value), Origin::Flag(flag));
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
        eiparams: eiparams.understood,
    })
}

/// A secret on the command line, which nobody needs to put there.
fn exposed_secret(sources: &Sources) -> Option<String> {
    let has_credentials = |text: &str| redact::credentials(text) != text;
    let mut words = sources.sets.iter().map(|(key, value)| {
        // Of all options only one is a secret.
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
        "{word} holds a password or a token, which everybody on this machine can read in /proc/<pid>/cmdline while the program runs; \
         the file of --config can hold it instead, readable by you alone"
    ))
}

/// Elsewhere a broker that cannot be read leaves IoT Core, found by itself; not where a person named one on the command line.
fn check_broker_flag(sources: &Sources) -> Result<(), ConfigError> {
    let Some(text) = &sources.mqtt else { return Ok(()) };
    let value = json!(text);
    if values::is_absent(&value) || (keys::IOT_ENDPOINT.read)(&value).is_ok() {
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

fn give_text(resolver: &mut Resolver, sources: &Sources) -> Result<(), ConfigError> {
    let Some((origin, text)) = &sources.text else {
        return Ok(());
    };
    let parameters = text::parameters(origin, text)?;
    if let Some(empty) = parameters.empty {
        resolver.warnings.push(Warning {
            key: origin.to_string(),
            value: empty.to_owned(),
            accepted: "a JSON or YAML object of keys and values".to_owned(),
            used: "the default of every key".to_owned(),
        });
    }
    for key in &parameters.duplicates {
        resolver.duplicate(key, parameters.values.get(key).unwrap_or(&Value::Null));
    }
    for key in parameters.beside {
        resolver.warnings.push(Warning {
            key,
            value: "beside `Parameters`".to_owned(),
            accepted: "keys within `Parameters`".to_owned(),
            used: "nothing, the key is ignored".to_owned(),
        });
    }
    for (key, value) in parameters.values {
        resolver.give(&key, value, Origin::Config);
    }
    Ok(())
}

/// Reads `eiparams`, and lists them without what is secret in them.
fn take_eiparams(resolver: &mut Resolver) -> EiParams {
    let text = resolver.take(&keys::EIPARAMS);
    let mut params = eiparams::parse(&text);
    resolver.warnings.append(&mut params.warnings);
    resolver.amend(&keys::EIPARAMS.info, &params.shown);
    params
}

#[cfg(test)]
mod tests;
