//! Reads the parts of a JSON object and collects what is wrong with them.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::types::LabelSet;
use crate::config::error;
use crate::config::number::{finite, integer};
use crate::config::spelling;

/// Most problems that are named.
const MAX_PROBLEMS: usize = 5;
/// Longest name of a zone, line, rule or direction, in characters.
const MAX_NAME: usize = 48;
/// Longest label, in bytes: longer ones are cut in the model's answers.
const MAX_LABEL: usize = 256;
/// Most labels of one zone, line or rule.
const MAX_LABELS: usize = 64;

/// What is wrong with a value, one clause for each problem.
#[derive(Debug, Default)]
pub(super) struct Problems {
    named: Vec<String>,
    more: usize,
}

impl Problems {
    pub(super) fn add(&mut self, problem: String) {
        if self.named.len() < MAX_PROBLEMS {
            self.named.push(problem);
        } else {
            self.more += 1;
        }
    }

    /// All problems as one clause; `None`: there is none.
    pub(super) fn into_text(self) -> Option<String> {
        if self.named.is_empty() {
            return None;
        }
        let mut text = self.named.join("; ");
        if self.more > 0 {
            text.push_str(&format!("; and {} more", self.more));
        }
        Some(text)
    }
}

/// An object of the value, with its place in it.
pub(super) struct Reader<'v> {
    pub(super) path: String,
    fields: &'v Map<String, Value>,
}

impl<'v> Reader<'v> {
    /// The object at this place. Fields with other names than `known` are problems.
    pub(super) fn new(path: String, value: &'v Value, known: &[&str], problems: &mut Problems) -> Option<Self> {
        let Value::Object(fields) = value else {
            problems.add(format!(
                "`{path}` is {}, but accepted is an object with {}",
                error::shown(value),
                known.join(", ")
            ));
            return None;
        };
        for name in fields.keys().filter(|name| !known.contains(&name.as_str())) {
            let meant = nearest(name, known.iter().copied())
                .map(|known| format!(" (did you mean `{known}`?)"))
                .unwrap_or_default();
            problems.add(format!(
                "`{path}` has the unknown name `{}`{meant}, but accepted are {}",
                error::name(name),
                known.join(", ")
            ));
        }
        Some(Self { path, fields })
    }

    /// The value of a field; null counts as absent.
    pub(super) fn get(&self, name: &str) -> Option<&'v Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The place of a field.
    pub(super) fn place(&self, name: &str) -> String {
        format!("{}.{name}", self.path)
    }

    /// A field that is refused.
    pub(super) fn refuse(&self, name: &str, accepted: &str, problems: &mut Problems) {
        let place = self.place(name);
        problems.add(match self.get(name) {
            Some(value) => format!("`{place}` is {}, but accepted is {accepted}", error::shown(value)),
            None => format!("`{place}` is missing; accepted is {accepted}"),
        });
    }

    /// A finite number; `default` if it is absent.
    pub(super) fn number(&self, name: &str, default: f64, accepted: &str, problems: &mut Problems) -> f64 {
        let Some(value) = self.get(name) else { return default };
        finite(value).unwrap_or_else(|| {
            self.refuse(name, accepted, problems);
            default
        })
    }

    /// An integer from `least` to `most`; `default` if it is absent.
    pub(super) fn integer(&self, name: &str, default: u64, (least, most): (u64, u64), problems: &mut Problems) -> u64 {
        let Some(value) = self.get(name) else { return default };
        let number = integer(value).and_then(|number| u64::try_from(number).ok());
        match number.filter(|number| (least..=most).contains(number)) {
            Some(number) => number,
            None => {
                self.refuse(name, &format!("an integer from {least} to {most}"), problems);
                default
            }
        }
    }

    /// A time in milliseconds, up to a day.
    pub(super) fn millis(&self, name: &str, default: u64, problems: &mut Problems) -> Duration {
        const DAY: u64 = 86_400_000;
        Duration::from_millis(self.integer(name, default, (0, DAY), problems))
    }

    /// A time in seconds, up to a week.
    pub(super) fn seconds(&self, name: &str, default: u64, problems: &mut Problems) -> Duration {
        const WEEK: u64 = 7 * 86_400;
        Duration::from_secs(self.integer(name, default, (0, WEEK), problems))
    }

    /// One of the names of an enum; its default if it is absent.
    pub(super) fn choice<T: FromStr + Default>(&self, name: &str, names: &[&str], problems: &mut Problems) -> T {
        let Some(value) = self.get(name) else {
            return T::default();
        };
        let text = value.as_str().map(str::trim).unwrap_or_default();
        text.parse().unwrap_or_else(|_| {
            let meant = nearest(text, names.iter().copied())
                .map(|meant| format!(" (did you mean `{meant}`?)"))
                .unwrap_or_default();
            self.refuse(name, &format!("{}{meant}", names.join(", ")), problems);
            T::default()
        })
    }

    /// Labels: one text or a list of texts; absent: every label.
    pub(super) fn labels(&self, name: &str, problems: &mut Problems) -> LabelSet {
        const ACCEPTED: &str = "a list of 1 to 64 labels; without it every label counts";
        let labels = match self.get(name) {
            None => return LabelSet::default(),
            Some(Value::Array(labels)) if (1..=MAX_LABELS).contains(&labels.len()) => {
                labels.iter().map(label).collect::<Option<Vec<_>>>()
            }
            Some(one) => label(one).map(|label| vec![label]),
        };
        labels.map(LabelSet).unwrap_or_else(|| {
            self.refuse(name, ACCEPTED, problems);
            LabelSet::default()
        })
    }

    /// A label that must be given.
    pub(super) fn label(&self, name: &str, problems: &mut Problems) -> Arc<str> {
        self.get(name).and_then(label).unwrap_or_else(|| {
            self.refuse(name, "the text of a label", problems);
            "".into()
        })
    }
}

fn label(value: &Value) -> Option<Arc<str>> {
    let text = value.as_str()?;
    (!text.is_empty() && text.len() <= MAX_LABEL).then(|| text.into())
}

/// The entries of an object of named parts. Names become labels of metrics, so they have few characters.
pub(super) fn named_entries<'v>(
    root: &Reader<'v>,
    name: &str,
    most: usize,
    problems: &mut Problems,
) -> Vec<(Arc<str>, &'v Value)> {
    let entries = match root.get(name) {
        None => return Vec::new(),
        Some(Value::Object(entries)) => entries,
        Some(other) => {
            problems.add(format!(
                "`{name}` is {}, but accepted is an object: a name for each of its entries",
                error::shown(other)
            ));
            return Vec::new();
        }
    };
    if entries.len() > most {
        problems.add(format!(
            "`{name}` has {} entries, but accepted are up to {most}",
            entries.len()
        ));
        return Vec::new();
    }
    for (key, _) in entries.iter().filter(|(key, _)| !is_name(key)) {
        problems.add(format!(
            "`{name}` has the name `{}`, but {ACCEPTED_NAME}",
            error::name(key)
        ));
    }
    entries
        .iter()
        .filter(|(key, _)| is_name(key))
        .map(|(key, value)| (key.as_str().into(), value))
        .collect()
}

/// The accepted names, as a clause.
pub(super) const ACCEPTED_NAME: &str =
    "accepted are names of 1 to 48 letters, digits, `_`, `-` and `.` without accents and blanks";

/// Whether the text can be the name of a zone, a line, a rule or a direction.
pub(super) fn is_name(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
}

/// The name that a misspelt one most likely means.
pub(super) fn nearest<'n>(given: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    spelling::nearest(given, names, 3)
}
