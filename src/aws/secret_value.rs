//! The value that a `{{secret:NAME:KEY}}` of a launch line names.

use aws_config::SdkConfig;
use serde_json::Value;

use super::error::AwsError;
use super::secret::{SecretError, listed, read};
use crate::util::backoff::Retry;
use crate::util::secret::Secret;
use crate::util::secret_reference::SecretReference;

/// Why a reference has no value. Never holds a value of the secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretValueError {
    /// Secrets Manager does not give it.
    #[error("{reference} needs secretsmanager:GetSecretValue and is denied: {error}")]
    Denied {
        /// The reference.
        reference: SecretReference,
        /// The refusal.
        error: Box<AwsError>,
    },
    /// Secrets Manager cannot be asked.
    #[error("{reference} cannot be read: {error}")]
    Aws {
        /// The reference.
        reference: SecretReference,
        /// Why.
        error: Box<AwsError>,
    },
    /// No such secret.
    #[error(
        "{reference}: there is no such secret in region {region}: create it there, or correct the name in gst_args; a secret \
         of another region or account is named by its ARN"
    )]
    NotFound {
        /// The reference.
        reference: SecretReference,
        /// Region asked.
        region: String,
    },
    /// The secret has key/value pairs and the reference names no key.
    #[error(
        "{reference} names no key, and the secret has key/value pairs: name one of its keys after a colon; it has {}",
        listed(present)
    )]
    NoKey {
        /// The reference.
        reference: SecretReference,
        /// Names of the keys.
        present: Vec<String>,
    },
    /// The secret has no such key.
    #[error(
        "{reference}: the secret has no such key, it has {}: name one of them in gst_args, or add the key",
        listed(present)
    )]
    KeyAbsent {
        /// The reference.
        reference: SecretReference,
        /// Names of the keys.
        present: Vec<String>,
    },
    /// The secret has no key/value pairs and the reference names a key.
    #[error("{reference} names a key, but the secret is {what}: leave out the key, or store key/value pairs")]
    NotPairs {
        /// The reference.
        reference: SecretReference,
        /// What it is.
        what: &'static str,
    },
    /// The value cannot stand in a launch line.
    #[error("{reference} holds {what}: it must be text")]
    NotText {
        /// The reference.
        reference: SecretReference,
        /// What it is.
        what: &'static str,
    },
}

impl SecretValueError {
    /// Whether it says nothing about the secret itself, so that the value that was read last may still be good.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Aws { error, .. } => error.retry() == Retry::Soon || error.concerns_every_request(),
            _ => false,
        }
    }

    fn of(error: SecretError, reference: &SecretReference) -> Self {
        let reference = reference.clone();
        match error {
            SecretError::NotFound { region, .. } => Self::NotFound { reference, region },
            SecretError::Aws { error, .. } if matches!(*error, AwsError::Denied { .. }) => {
                Self::Denied { reference, error }
            }
            SecretError::Aws { error, .. } => Self::Aws { reference, error },
            // Only the API key is read in such a way.
            SecretError::NotJson { .. } | SecretError::KeyAbsent { .. } | SecretError::NotText { .. } => {
                Self::NotText {
                    reference,
                    what: "no text",
                }
            }
        }
    }
}

/// The text of the secret that `reference` names, with all its keys.
///
/// # Errors
/// Those of the request, and [`SecretValueError::NotText`] if the secret is binary.
pub async fn read_text(config: &SdkConfig, reference: &SecretReference) -> Result<Secret, SecretValueError> {
    match read(config, &reference.id).await {
        Ok(Some(text)) => Ok(text),
        Ok(None) => Err(SecretValueError::NotText {
            reference: reference.clone(),
            what: "binary data",
        }),
        Err(error) => Err(SecretValueError::of(error, reference)),
    }
}

/// The value of `reference` in the text of its secret. A number is taken as text.
///
/// # Errors
/// What is wrong with the secret or the reference.
pub fn find_value(text: &Secret, reference: &SecretReference) -> Result<Secret, SecretValueError> {
    let not_text = |what| SecretValueError::NotText {
        reference: reference.clone(),
        what,
    };
    let parsed: Result<Value, _> = serde_json::from_str(text.reveal());
    let value = match (parsed, &reference.key) {
        (Ok(Value::Object(object)), None) => {
            return Err(SecretValueError::NoKey {
                reference: reference.clone(),
                present: object.keys().cloned().collect(),
            });
        }
        // Secrets that are made with `echo` end in a line break.
        (_, None) => text.reveal().trim_end_matches(['\r', '\n']).to_owned(),
        (Ok(Value::Object(mut object)), Some(key)) => match object.remove(key) {
            Some(Value::String(value)) => value,
            Some(Value::Number(number)) => number.to_string(),
            Some(Value::Null) => return Err(not_text("null")),
            Some(_) => return Err(not_text("a value that is not text")),
            None => {
                return Err(SecretValueError::KeyAbsent {
                    reference: reference.clone(),
                    present: object.keys().cloned().collect(),
                });
            }
        },
        (parsed, Some(_)) => {
            return Err(SecretValueError::NotPairs {
                reference: reference.clone(),
                what: if parsed.is_ok() { "no JSON object" } else { "plain text" },
            });
        }
    };
    if value.is_empty() {
        return Err(not_text("an empty text"));
    }
    if value.contains('\0') {
        return Err(not_text("a text with a NUL character"));
    }
    Ok(Secret::new(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(key: Option<&str>) -> SecretReference {
        SecretReference {
            id: "cam".to_owned(),
            key: key.map(str::to_owned),
        }
    }

    #[test]
    fn a_value_is_the_text_of_a_key_or_the_whole_secret() {
        for (text, key, value) in [
            (r#"{"pw": " a\\b ", "pin": 1234}"#, Some("pw"), " a\\b "),
            (r#"{"pw": "x", "pin": 1234}"#, Some("pin"), "1234"),
            ("Hunter 2\n", None, "Hunter 2"),
            ("1234", None, "1234"),
        ] {
            let found = find_value(&Secret::new(text), &reference(key)).unwrap();
            assert_eq!(found.reveal(), value, "{text}");
        }
    }

    #[test]
    fn each_unusable_value_has_its_own_message_and_none_shows_a_value() {
        for (text, key, message) in [
            (r#"{"pw": "Hunter2"}"#, None, "it has \"pw\""),
            (r#"{"pw": "Hunter2", "b": 1}"#, Some("password"), "it has \"pw\", \"b\""),
            ("Hunter2", Some("pw"), "the secret is plain text"),
            ("[\"Hunter2\"]", Some("pw"), "the secret is no JSON object"),
            (r#"{"pw": ["Hunter2"]}"#, Some("pw"), "a value that is not text"),
            (r#"{"pw": null}"#, Some("pw"), "null"),
            (r#"{"pw": ""}"#, Some("pw"), "an empty text"),
            ("{\"pw\": \"Hunter2\\u0000\"}", Some("pw"), "a NUL character"),
        ] {
            let error = find_value(&Secret::new(text), &reference(key)).unwrap_err();
            let shown = error.to_string();
            assert!(shown.contains(message) && shown.contains("{{secret:cam"), "{shown}");
            assert!(!format!("{error:?} {shown}").contains("Hunter2"), "{error:?}");
            assert!(!error.is_transient());
        }
    }
}
