//! Secrets in AWS Secrets Manager: how one is read, and the Edge Impulse API key in one.

use std::time::Duration;

use aws_config::SdkConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_secretsmanager::config::Region;
use aws_sdk_secretsmanager::config::http::HttpResponse;
use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_secretsmanager::operation::get_secret_value::GetSecretValueError;
use serde_json::Value;

use super::error::AwsError;
use crate::util::backoff::Retry;
use crate::util::secret::Secret;
use crate::util::text::excerpt;

const SERVICE: &str = "Secrets Manager";
/// Time limit of the whole call, including the SDK's retries.
const LIMIT: Duration = Duration::from_secs(30);
/// Most key names in an error message.
const LISTED: usize = 20;

/// Why there is no API key. Never contains a value of the secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The request to Secrets Manager failed.
    #[error("the secret {id} cannot be read: {error}")]
    Aws {
        /// Secret id.
        id: String,
        /// Why.
        error: Box<AwsError>,
    },
    /// No such secret.
    #[error(
        "there is no secret {id} in region {region} ({code}): create it there, or set ei_sm_secret_id to the name or ARN of the one that holds the API key"
    )]
    NotFound {
        /// Secret id.
        id: String,
        /// Region of the request.
        region: String,
        /// AWS error code.
        code: String,
    },
    /// The value is neither a JSON object nor a bare API key.
    #[error(
        "the secret {id} is {what}: store it as key/value pairs, the API key as the value of \"{key}\" (ei_sm_secret_name names that key), or as the bare text ei_..."
    )]
    NotJson {
        /// Secret id.
        id: String,
        /// The configured key.
        key: String,
        /// Kind of the value.
        what: &'static str,
    },
    /// The object has no such key.
    #[error(
        "the secret {id} has no key {key:?}, it has {}: set ei_sm_secret_name to one of them, or add the key",
        listed(present)
    )]
    KeyAbsent {
        /// Secret id.
        id: String,
        /// The configured key.
        key: String,
        /// Names of the keys that exist.
        present: Vec<String>,
    },
    /// The key's value cannot be an API key.
    #[error("the key {key:?} of the secret {id} holds {what}: it must be the Edge Impulse API key as text (ei_...)")]
    NotText {
        /// Secret id.
        id: String,
        /// The configured key.
        key: String,
        /// Kind of the value.
        what: &'static str,
    },
}

impl SecretError {
    /// When the secret can be requested again.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Aws { error, .. } => error.retry(),
            _ => Retry::Later,
        }
    }
}

/// Names of keys, for a message.
pub(super) fn listed(names: &[String]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    let mut text = names
        .iter()
        .take(LISTED)
        .map(|name| format!("{:?}", excerpt(name)))
        .collect::<Vec<_>>()
        .join(", ");
    if names.len() > LISTED {
        text.push_str(", ...");
    }
    text
}

/// The API key: the text at `key` in the JSON of secret `id`. A secret with an ARN is read in the region of the ARN.
///
/// # Errors
/// [`SecretError`]; each text says what to do.
pub async fn api_key(config: &SdkConfig, id: &str, key: &str) -> Result<Secret, SecretError> {
    let text = read(config, id).await?;
    parse(text.as_ref().map(Secret::reveal), id, key)
}

/// The text of secret `id`; `None`: it is binary. A secret with an ARN is read in the region of the ARN.
///
/// # Errors
/// [`SecretError::Aws`], [`SecretError::NotFound`]
pub(super) async fn read(config: &SdkConfig, id: &str) -> Result<Option<Secret>, SecretError> {
    let Some(region) = arn_region(id).or_else(|| config.region().cloned()) else {
        return Err(SecretError::Aws {
            id: id.to_owned(),
            error: Box::new(AwsError::NoRegion),
        });
    };
    let timeouts = TimeoutConfig::builder()
        .operation_timeout(LIMIT)
        .operation_attempt_timeout(LIMIT / 3)
        .build();
    let settings = aws_sdk_secretsmanager::config::Builder::from(config)
        .region(region.clone())
        .timeout_config(timeouts)
        .build();
    let client = aws_sdk_secretsmanager::Client::from_conf(settings);
    match client.get_secret_value().secret_id(id).send().await {
        Ok(answer) => Ok(answer.secret_string().map(Secret::new)),
        Err(error) => Err(classify(&error, id, region.as_ref())),
    }
}

/// The region in `arn:<partition>:secretsmanager:<region>:<account>:secret:<name>`.
fn arn_region(id: &str) -> Option<Region> {
    let mut parts = id.split(':');
    let is_arn = parts.next()? == "arn";
    let region = parts.nth(2)?;
    let is_region = region.contains('-') && region.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    (is_arn && is_region).then(|| Region::new(region.to_owned()))
}

/// The value of `key` in the text of the secret.
pub(super) fn parse(text: Option<&str>, id: &str, key: &str) -> Result<Secret, SecretError> {
    let not_json = |what| SecretError::NotJson {
        id: id.to_owned(),
        key: key.to_owned(),
        what,
    };
    let text = text.ok_or_else(|| not_json("binary, not text"))?;
    if is_bare_key(text.trim()) {
        return Ok(Secret::new(text.trim()));
    }
    let value: Value = serde_json::from_str(text).map_err(|_| not_json("not JSON"))?;
    let Value::Object(object) = value else {
        return Err(not_json("JSON, but not an object"));
    };
    let what = match object.get(key) {
        Some(Value::String(text)) if !text.trim().is_empty() => return Ok(Secret::new(text.trim())),
        Some(Value::String(_)) => "an empty text",
        Some(Value::Null) => "null",
        Some(_) => "a value that is not text",
        None => {
            return Err(SecretError::KeyAbsent {
                id: id.to_owned(),
                key: key.to_owned(),
                present: object.keys().cloned().collect(),
            });
        }
    };
    Err(SecretError::NotText {
        id: id.to_owned(),
        key: key.to_owned(),
        what,
    })
}

/// Whether the whole text of a secret is an Edge Impulse API key, stored as plain text.
fn is_bare_key(text: &str) -> bool {
    text.strip_prefix("ei_")
        .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_alphanumeric()))
}

fn classify(error: &SdkError<GetSecretValueError, HttpResponse>, id: &str, region: &str) -> SecretError {
    let (mut code, mut message) = (None, "");
    if let Some(refusal) = error.as_service_error() {
        code = refusal.code();
        message = refusal.message().unwrap_or_default();
    }
    let error = match (error, code) {
        (_, Some("ResourceNotFoundException")) => {
            return SecretError::NotFound {
                id: id.to_owned(),
                region: region.to_owned(),
                code: "ResourceNotFoundException".to_owned(),
            };
        }
        // Answers of Secrets Manager always contain a code.
        (SdkError::ServiceError(answer), None) => AwsError::NotUnderstood {
            service: SERVICE.to_owned(),
            problem: format!("HTTP {}", answer.raw().status().as_u16()),
        },
        _ => AwsError::from_sdk_error(
            SERVICE,
            error,
            &permission(id, region, code.unwrap_or_default(), message),
        ),
    };
    SecretError::Aws {
        id: id.to_owned(),
        error: Box::new(error),
    }
}

/// The IAM action and its resource; also the action on the KMS key if KMS refuses.
fn permission(id: &str, region: &str, code: &str, message: &str) -> String {
    let resource = if id.starts_with("arn:") {
        id.to_owned()
    } else {
        format!("arn:*:secretsmanager:{region}:*:secret:{id}-*")
    };
    let is_of_kms = matches!(code, "DecryptionFailure" | "KMSAccessDeniedException") || message.contains("KMS");
    let kms = if is_of_kms {
        ", and kms:Decrypt on the key that encrypts the secret,"
    } else {
        ""
    };
    format!("secretsmanager:GetSecretValue on {resource}{kms}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_secretsmanager::error::ErrorMetadata;
    use aws_smithy_types::body::SdkBody;
    use proptest::prelude::*;

    #[test]
    fn a_secret_that_is_only_the_key_is_accepted() {
        let key = parse(Some("ei_0123abcd\n"), "EI_API_KEY", "ei_api_key").unwrap();
        assert_eq!(key.reveal(), "ei_0123abcd");
        for text in ["ei_", "ei_01 23", "hello", "\"ei_0123\""] {
            assert!(parse(Some(text), "EI_API_KEY", "ei_api_key").is_err(), "{text}");
        }
    }

    #[test]
    fn the_region_is_read_from_an_arn() {
        for (id, region) in [
            ("arn:aws:secretsmanager:us-west-2:1:secret:EI-abc", Some("us-west-2")),
            ("arn:aws-cn:secretsmanager:cn-north-1:1:secret:EI", Some("cn-north-1")),
            ("arn:aws:secretsmanager::1:secret:EI", None),
            ("EI_API_KEY", None),
        ] {
            assert_eq!(arn_region(id), region.map(Region::from_static), "{id}");
        }
    }

    #[test]
    fn white_space_around_the_key_is_removed() {
        let key = parse(
            Some(r#"{"ei_api_key": " ei_0123\n", "other": "x"}"#),
            "EI_API_KEY",
            "ei_api_key",
        )
        .unwrap();
        assert_eq!(key.reveal(), "ei_0123");
    }

    #[test]
    fn each_unusable_secret_has_its_own_message_and_none_shows_a_value() {
        for (content, expected) in [
            (None, "is binary"),
            (Some("key ei_0123456789"), "is not JSON"),
            (Some(r#"["ei_0123456789"]"#), "not an object"),
            (
                Some(r#"{"wrong": "ei_0123456789", "more": 1}"#),
                r#"has no key "ei_api_key", it has "wrong", "more""#,
            ),
            (Some("{}"), "it has none"),
            (Some(r#"{"ei_api_key": " "}"#), "holds an empty text"),
            (
                Some(r#"{"ei_api_key": {"a": "ei_0123456789"}}"#),
                "holds a value that is not text",
            ),
        ] {
            let error = parse(content, "EI_API_KEY", "ei_api_key").unwrap_err();
            let text = format!("{error} {error:?}");
            assert!(
                text.contains(expected) && text.contains("EI_API_KEY"),
                "{text} lacks {expected}"
            );
            assert!(!text.contains("0123456789"), "{text}");
            assert_eq!(error.retry(), Retry::Later);
        }
    }

    fn refused(code: &str, message: &str) -> SecretError {
        let metadata = ErrorMetadata::builder().code(code).message(message).build();
        let response = HttpResponse::new(400.try_into().unwrap(), SdkBody::empty());
        let error = SdkError::service_error(GetSecretValueError::generic(metadata), response);
        classify(&error, "EI_API_KEY", "eu-west-1")
    }

    #[test]
    fn a_refusal_contains_the_role_and_the_missing_permission() {
        let message = "User: arn:aws:sts::123456789012:assumed-role/GreengrassV2TokenExchangeRole/abc is not authorized \
                       to perform: secretsmanager:GetSecretValue on resource: EI_API_KEY because no identity-based policy allows it";
        let text = refused("AccessDeniedException", message).to_string();
        for part in [
            "assumed-role/GreengrassV2TokenExchangeRole/abc",
            "allow secretsmanager:GetSecretValue on",
            "secret:EI_API_KEY-*",
            "AccessDeniedException",
        ] {
            assert!(text.contains(part), "{text} lacks {part}");
        }
        assert!(!text.contains("kms"), "{text}");
        let kms = refused("AccessDeniedException", "Access to KMS is not allowed");
        assert!(kms.to_string().contains("kms:Decrypt"), "{kms}");
    }

    #[test]
    fn a_missing_secret_is_requested_again_later() {
        let error = refused("ResourceNotFoundException", "");
        assert!(matches!(error, SecretError::NotFound { .. }), "{error}");
        assert_eq!(error.retry(), Retry::Later);
        assert_eq!(refused("ThrottlingException", "").retry(), Retry::Soon);
    }

    proptest! {
        #[test]
        fn any_secret_gives_the_key_or_an_error_without_its_values(
            name in "[a-c]{1,2}",
            around in "(?s)[{}\\[\\]\",: ]{0,8}",
            value in prop_oneof![Just("\"VALUE\""), Just("[\"VALUE\"]"), Just("{\"a\":\"VALUE\"}"), Just("VALUE")],
        ) {
            for text in [format!("{{\"{name}\":{value}}}"), format!("{{\"{name}\"{around}{value}{around}}}"), around] {
                match parse(Some(&text), "id", "a") {
                    // The text around may belong to the value: {"a":"VALUE:"}
                    Ok(key) => {
                        let json: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
                        prop_assert_eq!(json["a"].as_str().map(str::trim), Some(key.reveal()));
                    }
                    Err(error) => prop_assert!(!format!("{error} {error:?}").contains("VALUE"), "{}", error),
                }
            }
        }
    }
}
