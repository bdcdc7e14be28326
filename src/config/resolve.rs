//! Resolves the layers (defaults, text, `--set`, flags, `eiparams`) to one effective value per key, with its origin.

use std::collections::HashMap;
use std::fmt;

use serde_json::Value;

use super::eiparams::EiParams;
use super::error::{self, Warning};
use super::json_text::given_twice;
use super::keys::{self, KEYS, Key, KeyInfo};
use super::values::{self, InvalidValue};
use crate::util::redact::{self, STARS};

/// The layer of an effective value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The built-in default: no value was given, or it is not accepted.
    Default,
    /// The configuration text.
    Config,
    /// `--set key=value`
    Set,
    /// A flag, for example `--model`.
    Flag(&'static str),
    /// An equivalent option in `eiparams`.
    EiParams,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "default",
            Self::Config => "config",
            Self::Set => "--set",
            Self::Flag(name) => name,
            Self::EiParams => "eiparams",
        })
    }
}

/// The effective value of one key, as `check` lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EffectiveValue {
    /// The key.
    pub key: &'static str,
    /// The value: switches as `yes` or `no`, empty for none, secrets as `***`.
    pub value: String,
    /// Its layer.
    pub origin: Origin,
    /// Why the value has no effect, if it has none.
    pub remark: Option<String>,
}

/// Collects the given values, then returns each once, typed.
#[derive(Default)]
pub(super) struct Resolver {
    given: HashMap<&'static str, (Value, Origin)>,
    /// Values of the configuration text that have a name twice, with that name.
    ambiguous: HashMap<&'static str, String>,
    entries: Vec<EffectiveValue>,
    pub(super) warnings: Vec<Warning>,
    pub(super) notes: Vec<String>,
}

impl Resolver {
    /// Adds a value of the next layer, which replaces that of an earlier one. An unknown key is a warning.
    pub(super) fn add(&mut self, name: &str, value: Value, origin: Origin) {
        match keys::find(name) {
            Some(key) => {
                self.given.insert(key.name, (value, origin));
            }
            None => self.warnings.push(unknown(name, &value)),
        }
    }

    /// Refuses the value of the configuration text: it has this name twice, so what it means is not known. Only keys with
    /// objects as values are affected.
    pub(super) fn refuse_ambiguous(&mut self, name: &str, twice: &str) {
        if let Some(key) = keys::find(name) {
            self.ambiguous.insert(key.name, twice.to_owned());
        }
    }

    /// Whether a value other than "none" is given for the key.
    pub(super) fn has(&self, key: &KeyInfo) -> bool {
        self.given
            .get(key.name)
            .is_some_and(|(value, _)| !values::is_absent(value))
    }

    /// Returns the effective value of the key without taking it.
    pub(super) fn peek<T: Default>(&self, key: &Key<T>) -> T {
        let given = self.given.get(key.info.name).map(|(value, _)| value);
        let given = given.filter(|value| !values::is_absent(value));
        let parsed = given.and_then(|value| (key.parse)(value).ok());
        parsed.map_or_else(|| key.default(), |parsed| parsed.value)
    }

    /// Takes the key's effective value. A value that is not accepted is a warning, and the default is used.
    pub(super) fn take<T: Default>(&mut self, key: &Key<T>) -> T {
        let given = self
            .given
            .remove(key.info.name)
            .filter(|(value, _)| !values::is_absent(value));
        let Some((value, origin)) = given else {
            return self.take_default(key);
        };
        let twice = self.ambiguous.get(key.info.name).filter(|_| origin == Origin::Config);
        let parsed = match (key.parse)(&value) {
            Ok(_) if twice.is_some() => {
                let reason = twice.map(|name| given_twice(name));
                self.warn(&key.info, &value, origin, "none".to_owned(), reason);
                return self.take_default(key);
            }
            Ok(parsed) => parsed,
            Err(invalid) => {
                let used = (key.show)(&key.default());
                let used = if used.is_empty() { "none".to_owned() } else { used };
                self.warn(&key.info, &value, origin, used, invalid.reason);
                return self.take_default(key);
            }
        };
        if parsed.corrected {
            self.warn(&key.info, &value, origin, (key.show)(&parsed.value), None);
        }
        self.notes.extend(parsed.note);
        self.record(&key.info, (key.show)(&parsed.value), origin);
        parsed.value
    }

    /// Like [`Resolver::take`], but returns a value that is not accepted.
    pub(super) fn try_take<T: Default>(&mut self, key: &Key<T>) -> Result<T, Value> {
        match self.refused(key) {
            Some((value, _)) => Err(value),
            None => Ok(self.take(key)),
        }
    }

    /// The value of the key that is not accepted, and what is wrong with it.
    pub(super) fn refused<T: Default>(&self, key: &Key<T>) -> Option<(Value, InvalidValue)> {
        let (value, _) = self.given.get(key.info.name)?;
        if values::is_absent(value) {
            return None;
        }
        let invalid = (key.parse)(value).err()?;
        Some((value.clone(), invalid))
    }

    /// Like [`Resolver::take`], with a value of `eiparams` below the key and above the default.
    pub(super) fn take_or<T: Default>(
        &mut self,
        key: &Key<T>,
        params: &mut EiParams,
        options: &[&str],
        offered: Option<T>,
    ) -> T {
        match offered {
            Some(value) if !self.has(&key.info) => {
                self.record(&key.info, (key.show)(&value), Origin::EiParams);
                value
            }
            Some(_) => {
                params.mark_overridden(options, &format!("`{}`", key.info.name));
                self.take(key)
            }
            None => self.take(key),
        }
    }

    fn take_default<T: Default>(&mut self, key: &Key<T>) -> T {
        let value = key.default();
        self.record(&key.info, (key.show)(&value), Origin::Default);
        value
    }

    /// `reason`: what is wrong with the value, as a clause after "which".
    fn warn(&mut self, key: &KeyInfo, value: &Value, origin: Origin, used: String, reason: Option<String>) {
        let reason = reason.map(|reason| format!(", which {reason}")).unwrap_or_default();
        self.warnings.push(Warning {
            key: if let Origin::Flag(flag) = origin {
                flag.to_owned()
            } else {
                key.name.to_owned()
            },
            value: if key.secret || key.hides_refused {
                STARS.to_owned()
            } else {
                format!("{}{reason}", error::shown(value))
            },
            accepted: key.accepted.to_owned(),
            used,
        });
    }

    /// Records an effective value; a later one for the same key replaces it.
    pub(super) fn record(&mut self, key: &KeyInfo, value: String, origin: Origin) {
        let entry = EffectiveValue {
            key: key.name,
            value: redact::credentials(&value),
            origin,
            remark: key.remark.map(str::to_owned),
        };
        match self.entries.iter_mut().find(|old| old.key == key.name) {
            Some(old) => *old = entry,
            None => self.entries.push(entry),
        }
    }

    /// Whether the key was taken and its effective value is not none.
    pub(super) fn has_effective(&self, key: &KeyInfo) -> bool {
        let entry = self.entries.iter().find(|entry| entry.key == key.name);
        entry.is_some_and(|entry| !entry.value.is_empty())
    }

    /// Corrects the shown value of a key that depends on other keys.
    pub(super) fn set_shown(&mut self, key: &KeyInfo, value: &str) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.key == key.name) {
            entry.value = value.to_owned();
        }
    }

    /// Adds a remark to those keys that were given.
    pub(super) fn add_remark(&mut self, keys: &[&KeyInfo], remark: &str) {
        for entry in &mut self.entries {
            if entry.origin != Origin::Default && keys.iter().any(|key| key.name == entry.key) {
                entry.remark = Some(remark.to_owned());
            }
        }
    }

    /// Warns about a key that occurs more than once in the configuration text.
    pub(super) fn warn_duplicate(&mut self, name: &str, value: &Value) {
        let secret = keys::find(name).is_some_and(|key| key.secret) || redact::is_secret_name(name);
        self.warnings.push(Warning {
            key: error::name(name),
            value: "given more than once".to_owned(),
            accepted: "each key once".to_owned(),
            used: format!(
                "the last value, {}",
                if secret { STARS.to_owned() } else { error::shown(value) }
            ),
        });
    }

    /// The entries in the order of the table.
    pub(super) fn into_parts(mut self) -> (Vec<EffectiveValue>, Vec<Warning>, Vec<String>) {
        self.entries
            .sort_by_key(|entry| KEYS.iter().position(|key| key.name == entry.key));
        (self.entries, self.warnings, self.notes)
    }
}

fn unknown(name: &str, value: &Value) -> Warning {
    let nearest = keys::nearest(name);
    let secret = redact::is_secret_name(name) || nearest.is_some_and(|key| key.secret);
    Warning {
        key: error::name(name),
        value: if secret { STARS.to_owned() } else { error::shown(value) },
        accepted: match nearest {
            Some(key) => format!("only the keys that `check` lists (did you mean `{}`?)", key.name),
            None => "only the keys that `check` lists".to_owned(),
        },
        used: "nothing, the key is ignored".to_owned(),
    }
}
