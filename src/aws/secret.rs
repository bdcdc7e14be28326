//! The Edge Impulse API key, out of AWS Secrets Manager.

use std::error::Error;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_config::timeout::TimeoutConfig;
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_secretsmanager::config::http::HttpResponse;
use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_secretsmanager::operation::get_secret_value::GetSecretValueError;
use serde_json::Value;

use crate::util::backoff::Retry;
use crate::util::secret::Secret;
use crate::util::text::{excerpt, innermost, sentence};

/// Asking once, the SDK's own retries included, takes at most this long.
const LIMIT: Duration = Duration::from_secs(30);
/// Key names that a message lists at most.
const LISTED: usize = 20;

/// Why there is no API key. Never holds a value of the secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The credential chain is empty.
    #[error(
        "the secret {id} cannot be read: there are no AWS credentials. In Greengrass let the component depend on \
         aws.greengrass.TokenExchangeService; by hand set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY ({reason})"
    )]
    NoCredentials {
        /// Secret id.
        id: String,
        /// What the chain said.
        reason: String,
    },
    /// A provider of the chain is there and fails.
    #[error(
        "the secret {id} cannot be read: the AWS credentials could not be fetched ({reason}). {}",
        super::advice::for_credentials(reason)
    )]
    CredentialsUnavailable {
        /// Secret id.
        id: String,
        /// What the provider said.
        reason: String,
    },
    /// No region.
    #[error(
        "the secret {id} cannot be read: no AWS region is set; Greengrass sets AWS_REGION, by hand set it yourself"
    )]
    NoRegion {
        /// Secret id.
        id: String,
    },
    /// A permission is missing.
    #[error(
        "{who} may not read the secret {id} ({code}): allow {permission} on {resource} in the policy of that role{kms}"
    )]
    Denied {
        /// Secret id.
        id: String,
        /// The role, as AWS names it.
        who: Box<str>,
        /// AWS error code.
        code: String,
        /// The IAM action.
        permission: Box<str>,
        /// What to allow it on.
        resource: Box<str>,
        /// More to do when the key that encrypts the secret refuses.
        kms: &'static str,
    },
    /// No such secret.
    #[error(
        "there is no secret {id} in region {region} ({code}): create it there, or set ei_sm_secret_id to the name or ARN of the one that holds the API key"
    )]
    NotFound {
        /// Secret id.
        id: String,
        /// Region asked.
        region: String,
        /// AWS error code.
        code: String,
    },
    /// The value is not a JSON object.
    #[error(
        "the secret {id} is {what}: store it as key/value pairs, {{\"{key}\": \"<API key>\"}} (ei_sm_secret_name names the key)"
    )]
    NotJson {
        /// Secret id.
        id: String,
        /// Key asked for.
        key: String,
        /// What it is instead.
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
        /// Key asked for.
        key: String,
        /// Names of the keys that exist.
        present: Vec<String>,
    },
    /// The key's value cannot be an API key.
    #[error("the key {key:?} of the secret {id} holds {what}: it must be the Edge Impulse API key as text (ei_...)")]
    NotText {
        /// Secret id.
        id: String,
        /// Key asked for.
        key: String,
        /// What it is instead.
        what: &'static str,
    },
    /// AWS asks for patience.
    #[error("Secrets Manager is busy and did not give the secret {id} ({code}); it is asked again")]
    Throttled {
        /// Secret id.
        id: String,
        /// AWS error code.
        code: String,
    },
    /// No answer.
    #[error(
        "Secrets Manager could not be reached for the secret {id}: {reason}; look at the network, DNS and proxy (HTTPS_PROXY) of this device"
    )]
    Unreachable {
        /// Secret id.
        id: String,
        /// Why.
        reason: String,
    },
    /// The signature was refused for its time.
    #[error(
        "AWS refuses the request for the secret {id} ({code}): {message}; the clock of this device may be off, set it (NTP)"
    )]
    Clock {
        /// Secret id.
        id: String,
        /// AWS error code.
        code: String,
        /// AWS's words.
        message: String,
    },
    /// The credentials themselves are refused.
    #[error("AWS does not accept the credentials that were used for the secret {id} ({code}): {message}")]
    BadCredentials {
        /// Secret id.
        id: String,
        /// AWS error code.
        code: String,
        /// AWS's words.
        message: String,
        /// Whether fresh ones may do.
        expired: bool,
    },
    /// Anything else.
    #[error("Secrets Manager did not give the secret {id} ({code}): {message}")]
    Other {
        /// Secret id.
        id: String,
        /// AWS error code, or the HTTP status.
        code: String,
        /// AWS's words.
        message: String,
        /// A fault on the side of AWS.
        theirs: bool,
    },
}

impl SecretError {
    /// When asking again makes sense.
    pub fn retry(&self) -> Retry {
        match self {
            Self::CredentialsUnavailable { .. }
            | Self::Throttled { .. }
            | Self::Unreachable { .. }
            | Self::BadCredentials { expired: true, .. }
            | Self::Other { theirs: true, .. } => Retry::Soon,
            _ => Retry::Later,
        }
    }
}

fn listed(names: &[String]) -> String {
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

/// The API key: the text at `key` in the JSON of secret `id`.
///
/// # Errors
/// [`SecretError`], each with what to do about it.
pub async fn api_key(config: &SdkConfig, id: &str, key: &str) -> Result<Secret, SecretError> {
    let Some(region) = config.region().map(ToString::to_string) else {
        return Err(SecretError::NoRegion { id: id.to_owned() });
    };
    let timeouts = TimeoutConfig::builder()
        .operation_timeout(LIMIT)
        .operation_attempt_timeout(LIMIT / 3)
        .build();
    let settings = aws_sdk_secretsmanager::config::Builder::from(config)
        .timeout_config(timeouts)
        .build();
    let client = aws_sdk_secretsmanager::Client::from_conf(settings);
    match client.get_secret_value().secret_id(id).send().await {
        Ok(answer) => take(answer.secret_string(), id, key),
        Err(error) => Err(classify(&error, id, &region)),
    }
}

/// Takes the key out of the secret's text.
fn take(text: Option<&str>, id: &str, key: &str) -> Result<Secret, SecretError> {
    let not_json = |what| SecretError::NotJson {
        id: id.to_owned(),
        key: key.to_owned(),
        what,
    };
    let text = text.ok_or_else(|| not_json("binary, not text"))?;
    let value: Value = serde_json::from_str(text).map_err(|_| not_json("not JSON"))?;
    let Value::Object(object) = value else {
        return Err(not_json("JSON, but not an object"));
    };
    let what = match object.get(key) {
        Some(Value::String(text)) if !text.trim().is_empty() => return Ok(Secret::new(text.trim())),
        Some(Value::String(_)) => "an empty text",
        Some(Value::Null) => "null",
        Some(_) => "no text",
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

fn classify(error: &SdkError<GetSecretValueError, HttpResponse>, id: &str, region: &str) -> SecretError {
    let id = id.to_owned();
    if let Some((service, code)) = error.as_service_error().and_then(|e| Some((e, e.code()?))) {
        return refusal(id, region, code, &excerpt(service.message().unwrap_or_default()));
    }
    if let Some(credentials) = cause::<CredentialsError>(error) {
        let reason = excerpt(&sentence(credentials));
        return match credentials {
            CredentialsError::CredentialsNotLoaded(_) | CredentialsError::InvalidConfiguration(_) => {
                SecretError::NoCredentials { id, reason }
            }
            _ => SecretError::CredentialsUnavailable { id, reason },
        };
    }
    SecretError::Unreachable {
        id,
        reason: match error {
            SdkError::TimeoutError(_) => format!("no answer within {} s", LIMIT.as_secs()),
            SdkError::ResponseError(_) | SdkError::ServiceError(_) => {
                let status = error.raw_response().map_or(0, |answer| answer.status().as_u16());
                format!("what came back is no answer of Secrets Manager (HTTP {status}; a login page, or a proxy?)")
            }
            _ => excerpt(&innermost(error).to_string()),
        },
    }
}

/// An answer of AWS that is no secret.
fn refusal(id: String, region: &str, code: &str, message: &str) -> SecretError {
    let (code, message) = (code.to_owned(), message.to_owned());
    match &*code {
        "AccessDeniedException" | "AccessDenied" | "DecryptionFailure" | "KMSAccessDeniedException" => {
            denied(id, region, code, &message)
        }
        "ResourceNotFoundException" => SecretError::NotFound {
            id,
            region: region.to_owned(),
            code,
        },
        "ThrottlingException"
        | "Throttling"
        | "TooManyRequestsException"
        | "RequestLimitExceeded"
        | "LimitExceededException" => SecretError::Throttled { id, code },
        "SignatureDoesNotMatch"
        | "InvalidSignatureException"
        | "RequestTimeTooSkewed"
        | "RequestExpired"
        | "RequestInTheFuture" => SecretError::Clock { id, code, message },
        "ExpiredTokenException" | "ExpiredToken" => SecretError::BadCredentials {
            id,
            code,
            message,
            expired: true,
        },
        "UnrecognizedClientException" | "InvalidClientTokenId" | "IncompleteSignature" => SecretError::BadCredentials {
            id,
            code,
            message,
            expired: false,
        },
        _ => SecretError::Other {
            theirs: matches!(
                &*code,
                "InternalServiceError" | "InternalFailure" | "ServiceUnavailable"
            ),
            id,
            code,
            message,
        },
    }
}

/// AWS says who lacks which permission: `User: <arn> is not authorized to perform: <action> on resource: ...`.
fn denied(id: String, region: &str, code: String, message: &str) -> SecretError {
    let word_after = |mark: &str| {
        let (_, rest) = message.split_once(mark)?;
        rest.split_whitespace()
            .next()
            .map(|word| Box::<str>::from(word.trim_end_matches([',', '.'])))
    };
    let is_kms = code != "AccessDeniedException" && code != "AccessDenied" || message.contains("KMS");
    SecretError::Denied {
        who: word_after("User: ").unwrap_or_else(|| "the role of this device".into()),
        permission: word_after("to perform: ").unwrap_or_else(|| "secretsmanager:GetSecretValue".into()),
        code,
        resource: if id.starts_with("arn:") {
            (*id).into()
        } else {
            format!("arn:*:secretsmanager:{region}:*:secret:{id}-*").into()
        },
        id,
        kms: if is_kms {
            ", and kms:Decrypt on the key that encrypts the secret"
        } else {
            ""
        },
    }
}

fn cause<'a, T: Error + 'static>(mut error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    loop {
        match error.downcast_ref() {
            Some(found) => return Some(found),
            None => error = error.source()?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_key_comes_out_of_the_json_without_white_space_around_it() {
        let key = take(
            Some(r#"{"ei_api_key": " ei_0123\n", "other": "x"}"#),
            "EI_API_KEY",
            "ei_api_key",
        )
        .unwrap();
        assert_eq!(key.reveal(), "ei_0123");
    }

    #[test]
    fn each_wrong_secret_has_its_own_sentence_and_none_shows_a_value() {
        for (text, expected) in [
            (None, "is binary"),
            (Some("ei_0123456789"), "is not JSON"),
            (Some(r#"["ei_0123456789"]"#), "not an object"),
            (
                Some(r#"{"wrong": "ei_0123456789", "more": 1}"#),
                r#"has no key "ei_api_key", it has "wrong", "more""#,
            ),
            (Some("{}"), "it has none"),
            (Some(r#"{"ei_api_key": " "}"#), "holds an empty text"),
            (Some(r#"{"ei_api_key": {"a": "ei_0123456789"}}"#), "holds no text"),
        ] {
            let error = take(text, "EI_API_KEY", "ei_api_key").unwrap_err();
            let said = format!("{error} {error:?}");
            assert!(
                said.contains(expected) && said.contains("EI_API_KEY"),
                "{said} lacks {expected}"
            );
            assert!(!said.contains("0123456789"), "{said}");
            assert_eq!(error.retry(), Retry::Later);
        }
    }

    #[test]
    fn a_refusal_names_role_permission_and_what_to_do() {
        let message = "User: arn:aws:sts::123456789012:assumed-role/GreengrassV2TokenExchangeRole/abc is not authorized \
                       to perform: secretsmanager:GetSecretValue on resource: EI_API_KEY because no identity-based policy allows it";
        let error = refusal("EI_API_KEY".into(), "eu-west-1", "AccessDeniedException", message);
        let said = error.to_string();
        for part in [
            "assumed-role/GreengrassV2TokenExchangeRole/abc",
            "secretsmanager:GetSecretValue",
            "secret:EI_API_KEY-*",
            "AccessDeniedException",
        ] {
            assert!(said.contains(part), "{said} lacks {part}");
        }
        assert!(!said.contains("kms"), "{said}");
        let kms = refusal(
            "EI_API_KEY".into(),
            "eu-west-1",
            "AccessDeniedException",
            "Access to KMS is not allowed",
        );
        assert!(kms.to_string().contains("kms:Decrypt"), "{kms}");
    }

    #[test]
    fn what_may_pass_by_itself_is_tried_soon_and_the_rest_later() {
        for (code, retry) in [
            ("ThrottlingException", Retry::Soon),
            ("InternalServiceError", Retry::Soon),
            ("ExpiredTokenException", Retry::Soon),
            ("ResourceNotFoundException", Retry::Later),
            ("AccessDeniedException", Retry::Later),
            ("UnrecognizedClientException", Retry::Later),
            ("InvalidSignatureException", Retry::Later),
            ("InvalidRequestException", Retry::Later),
        ] {
            assert_eq!(refusal("s".into(), "r", code, "").retry(), retry, "{code}");
        }
    }

    proptest! {
        #[test]
        fn any_secret_gives_the_key_or_an_error_without_its_values(
            name in "[a-c]{1,2}",
            around in "(?s)[{}\\[\\]\",: ]{0,8}",
            value in prop_oneof![Just("\"VALUE\""), Just("[\"VALUE\"]"), Just("{\"a\":\"VALUE\"}"), Just("VALUE")],
        ) {
            for text in [format!("{{\"{name}\":{value}}}"), format!("{{\"{name}\"{around}{value}{around}}}"), around] {
                match take(Some(&text), "id", "a") {
                    Ok(key) => prop_assert_eq!(key.reveal(), "VALUE"),
                    Err(error) => prop_assert!(!format!("{error} {error:?}").contains("VALUE"), "{}", error),
                }
            }
        }
    }
}
