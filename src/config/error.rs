//! Errors of the configuration, which end the program with exit code 2, and warnings, which do not.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::nucleus::{NucleusError, RunningError};
use crate::util::redact;

/// The origin of configuration text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextOrigin {
    /// `--config FILE`
    File(PathBuf),
    /// `CONFIG_PARAMETERS`, which recipes of earlier versions set.
    Environment,
    /// The component's `Parameters` in the configuration of the Greengrass nucleus.
    Nucleus,
}

impl fmt::Display for TextOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Environment => f.write_str("the environment variable CONFIG_PARAMETERS"),
            Self::Nucleus => f.write_str("the configuration of the Greengrass nucleus"),
        }
    }
}

/// The configuration cannot be used. The program reports it and ends with exit code 2.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file of `--config` does not exist.
    #[error("the configuration file {} does not exist; name an existing file with --config", .0.display())]
    Missing(PathBuf),
    /// The file of `--config` cannot be read.
    #[error("the configuration file {} cannot be read: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        error: io::Error,
    },
    /// The nucleus does not tell the configuration.
    #[error("the configuration of the component cannot be read: {0}")]
    Nucleus(#[from] NucleusError),
    /// The running component cannot be asked for its configuration.
    #[error("--deployed: {0}")]
    Deployed(#[from] RunningError),
    /// The text is too long for a configuration.
    #[error("the configuration in {origin} is longer than {limit} bytes, the accepted maximum")]
    TooLong {
        /// The origin of the text.
        origin: TextOrigin,
        /// The limit in bytes.
        limit: usize,
    },
    /// The text is neither JSON nor YAML.
    #[error("{origin}, {problem}\nThe configuration is a JSON or YAML object of keys and values.")]
    Syntax {
        /// The origin of the text.
        origin: TextOrigin,
        /// What is wrong, and where.
        problem: SyntaxProblem,
    },
    /// The text is JSON or YAML without parameters.
    #[error(
        "{origin} holds {found}, but accepted are the object of keys and values itself, {{\"Parameters\": {{...}}}}, \
         a recipe with ComponentConfiguration.DefaultConfiguration.Parameters, a deployment with configurationUpdate.merge, \
         the value of --update-config, effectiveConfig.yaml, and the output of `greengrass-cli component details`"
    )]
    Shape {
        /// The origin of the text.
        origin: TextOrigin,
        /// What was found instead, as text.
        found: String,
    },
    /// `launch` names no known service.
    #[error("`launch` is {value}, but accepted is `runner`, or `linux` for the data collection service")]
    Launch {
        /// The value as given.
        value: String,
    },
    /// A value without which the component would do something else than what was asked: connect to another broker, or
    /// upload nothing.
    #[error("`{key}` is {value}, which {reason}; accepted is {accepted}")]
    Value {
        /// The key.
        key: &'static str,
        /// The value as given, credentials as `***`.
        value: String,
        /// What is wrong with it, as a clause after "which".
        reason: String,
        /// The accepted values, as text.
        accepted: &'static str,
    },
    /// The value of a flag cannot be used.
    #[error("{flag} {value} cannot be used; accepted is {accepted}, for example {flag} {example}")]
    Flag {
        /// The flag.
        flag: &'static str,
        /// Its value, credentials as `***`.
        value: String,
        /// The accepted values, as text.
        accepted: &'static str,
        /// An accepted value.
        example: &'static str,
    },
    /// A `--set` without `=`.
    #[error("--set {word} has no value; write --set KEY=VALUE, for example --set iotcore_qos=1")]
    Set {
        /// The part of the argument that looks like a key; the rest may be a secret.
        word: String,
    },
}

impl ConfigError {
    pub(super) fn from_io(path: &Path, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing(path.to_owned()),
            _ => Self::Unreadable {
                path: path.to_owned(),
                error,
            },
        }
    }
}

/// A position in a text that cannot be parsed. Shows the line with a caret below the column, secrets as `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxProblem {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The error of the parser.
    pub message: String,
    excerpt: String,
    caret: usize,
}

impl SyntaxProblem {
    /// Most characters of the line that are shown on each side of the column.
    const SHOWN: usize = 50;

    pub(super) fn new(text: &str, line: usize, column: usize, message: String) -> Self {
        let (line, column) = (line.max(1), column.max(1));
        let masked = redact::in_place(text);
        let shown: Vec<char> = masked.lines().nth(line - 1).unwrap_or_default().chars().collect();
        let at = (column - 1).min(shown.len());
        let from = at.saturating_sub(Self::SHOWN);
        let to = (at + Self::SHOWN).min(shown.len());
        // A tab has no fixed width; one blank keeps the caret in place.
        let excerpt = shown[from..to]
            .iter()
            .map(|c| if c.is_control() { ' ' } else { *c })
            .collect();
        Self {
            line,
            column,
            message,
            excerpt,
            caret: at - from,
        }
    }
}

impl fmt::Display for SyntaxProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "line {}, column {}: {}", self.line, self.column, self.message)?;
        writeln!(f, "    {}", self.excerpt)?;
        write!(f, "    {:caret$}^", "", caret = self.caret)
    }
}

/// A value that is not used as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The key or option.
    pub key: String,
    /// The value as given, shortened; `***` where it is or may be a secret.
    pub value: String,
    /// What is accepted.
    pub accepted: String,
    /// What is used instead.
    pub used: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is {}; accepted: {}; used instead: {}",
            self.key, self.value, self.accepted, self.used
        )
    }
}

/// A value as warnings show it: one line, at most 80 characters, without credentials.
pub(super) fn shown(value: &Value) -> String {
    const MOST: usize = 80;
    let text = match value {
        Value::String(text) => format!("{:?}", redact::refused(text)),
        other => redact::refused(&other.to_string()),
    };
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// A key as warnings show it: on one line and not too long.
pub(super) fn name(key: &str) -> String {
    key.chars()
        .take(64)
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}
