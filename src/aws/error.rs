//! Why AWS did not do what it was asked: one type for all services, with one sentence for each cause.

use std::error::Error;
use std::fmt;
use std::time::SystemTime;

use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use super::clock_skew::ClockSkew;
use crate::util::backoff::Retry;
use crate::util::text::{causes, first_line, innermost, sentence};

/// Greengrass sets this for every component that depends on the token exchange service.
const TOKEN_EXCHANGE: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
/// The sources that the credential chain asks before the token exchange service, in its order: the variable that selects one,
/// the name of the source, and what removes it.
const EARLIER_SOURCES: [(&str, &str, &str); 3] = [
    (
        "AWS_ACCESS_KEY_ID",
        "AWS_ACCESS_KEY_ID in the environment",
        "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN",
    ),
    ("AWS_PROFILE", "the profile that AWS_PROFILE names", "AWS_PROFILE"),
    (
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "the token that AWS_WEB_IDENTITY_TOKEN_FILE names",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
    ),
];

/// A failure of an AWS service, or of the way there. Contains nothing secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AwsError {
    /// Neither environment, profile nor instance metadata name a region.
    #[error("no AWS region is known: Greengrass sets AWS_REGION; by hand set it too, or `region` in ~/.aws/config")]
    NoRegion,
    /// The credential chain is empty.
    #[error(
        "no AWS credentials were found ({}): in Greengrass the component needs the dependency \
         aws.greengrass.TokenExchangeService; by hand set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY{}",
        .0,
        hidden_source()
    )]
    NoCredentials(String),
    /// A provider of the credential chain fails.
    #[error("AWS credentials could not be fetched: {}. {}", .0, credentials_advice(.0))]
    CredentialsUnavailable(String),
    /// The service does not accept the credentials.
    #[error(
        "{service} does not accept the AWS credentials ({answer}): they are expired, revoked or not meant for this region. {}",
        credentials_advice("")
    )]
    CredentialsRefused {
        /// The service.
        service: String,
        /// What it answered.
        answer: Answer,
        /// Whether new credentials from the same source may be accepted.
        is_expired: bool,
    },
    /// The request cannot be signed.
    #[error("an AWS request could not be signed: {0}")]
    Signing(String),
    /// The service refuses the signature; how far the clock is off is not known.
    #[error(
        "{service} does not accept the signature ({answer}): set this machine's clock, or let NTP do it; if the clock is right, \
         check the secret access key{}",
        hidden_source()
    )]
    Signature {
        /// The service.
        service: String,
        /// What it answered.
        answer: Answer,
    },
    /// The service refuses the request, and this machine's clock is wrong.
    #[error("{0}")]
    Clock(ClockSkew),
    /// The caller lacks a permission.
    #[error(
        "{service} denies access ({answer}): allow {permission} for the role of this device{}",
        hidden_source()
    )]
    Denied {
        /// The service.
        service: String,
        /// What it answered.
        answer: Answer,
        /// The IAM action, and the resource where that matters.
        permission: String,
    },
    /// The service has a fault, or gets too many requests.
    #[error("{service} has a fault or asks to slow down ({answer})")]
    Busy {
        /// The service.
        service: String,
        /// What it answered.
        answer: Answer,
    },
    /// The service refuses the request for another reason.
    #[error("{service} refuses the request ({answer})")]
    Refused {
        /// The service.
        service: String,
        /// What it answered.
        answer: Answer,
    },
    /// No answer.
    #[error("{service} cannot be reached: {reason}; check the network, the DNS server, the firewall and HTTPS_PROXY")]
    Unreachable {
        /// The service.
        service: String,
        /// Why.
        reason: String,
    },
    /// Something else than the service answers.
    #[error("{service} gave an answer that is not understood ({problem}): is a proxy or a captive portal in between?")]
    NotUnderstood {
        /// The service.
        service: String,
        /// What is wrong with the answer.
        problem: String,
    },
    /// The region has no such endpoint.
    #[error("AWS has no such endpoint in {region} ({reason}): look at AWS_REGION and AWS_USE_FIPS_ENDPOINT")]
    NoEndpoint {
        /// The region.
        region: String,
        /// Why.
        reason: String,
    },
    /// An endpoint override is unusable.
    #[error("the AWS endpoint \"{0}\" is not a URL with a host: look at AWS_ENDPOINT_URL")]
    EndpointUrl(String),
}

/// What a service answered in place of success: `403 AccessDenied: Access Denied`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// AWS error code; empty where the service gives none.
    pub code: String,
    /// The service's own explanation; may be empty.
    pub message: String,
}

impl Answer {
    /// Only the first line of the message is kept: further lines of a refused signature repeat the signed headers, the session
    /// token among them.
    pub(crate) fn new(status: u16, code: Option<&str>, message: Option<&str>) -> Self {
        Self {
            status,
            code: code.map(first_line).unwrap_or_default(),
            message: message.map(first_line).unwrap_or_default(),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        if !self.code.is_empty() {
            write!(f, " {}", self.code)?;
        }
        if !self.message.is_empty() {
            write!(f, ": {}", self.message.trim_end_matches('.'))?;
        }
        Ok(())
    }
}

impl AwsError {
    /// Reads the failure of an SDK call to `service` that needs `permission` (`s3:PutObject on arn:...`).
    pub(crate) fn of_sdk<E>(service: &str, error: &SdkError<E, HttpResponse>, permission: &str) -> Self
    where
        E: Error + ProvideErrorMetadata + 'static,
    {
        if let Some(credentials) = causes(error).find_map(|cause| cause.downcast_ref()) {
            return Self::of_credentials(credentials);
        }
        let unreachable = |reason| Self::Unreachable {
            service: service.to_owned(),
            reason,
        };
        match error {
            SdkError::ServiceError(refusal) => {
                let (response, metadata) = (refusal.raw(), refusal.err());
                let answer = Answer::new(response.status().as_u16(), metadata.code(), metadata.message());
                Self::of_answer(service, answer, response.headers().get("date"), permission)
            }
            SdkError::ResponseError(response) => Self::NotUnderstood {
                service: service.to_owned(),
                problem: format!("HTTP {}", response.raw().status().as_u16()),
            },
            SdkError::TimeoutError(_) => unreachable("no answer in time".to_owned()),
            SdkError::DispatchFailure(failure) if failure.is_timeout() => unreachable("no answer in time".to_owned()),
            _ => unreachable(first_line(&innermost(error).to_string())),
        }
    }

    /// Why the credential chain gave nothing.
    pub(crate) fn of_credentials(error: &CredentialsError) -> Self {
        // With all causes: the innermost one does not mention SSO.
        let reason = first_line(&sentence(error)).trim_end_matches('.').to_owned();
        match error {
            CredentialsError::CredentialsNotLoaded(_) | CredentialsError::InvalidConfiguration(_) => {
                Self::NoCredentials(reason)
            }
            _ => Self::CredentialsUnavailable(reason),
        }
    }

    /// Reads an answer other than success. `date` is its `Date` header: a wrong clock explains a refusal better than the code.
    pub(crate) fn of_answer(service: &str, answer: Answer, date: Option<&str>, permission: &str) -> Self {
        let cause = Cause::of(&answer);
        if (matches!(answer.status, 401 | 403) || matches!(cause, Cause::Signature | Cause::Credentials { .. }))
            && let Some(skew) = date.and_then(|date| ClockSkew::from_date(date, SystemTime::now()))
        {
            return Self::Clock(skew);
        }
        let service = service.to_owned();
        match cause {
            Cause::Permission => Self::Denied {
                service,
                permission: missing_permission(&answer.message, permission),
                answer,
            },
            Cause::Signature => Self::Signature { service, answer },
            Cause::Credentials { is_expired } => Self::CredentialsRefused {
                service,
                answer,
                is_expired,
            },
            Cause::Load => Self::Busy { service, answer },
            Cause::Other => Self::Refused { service, answer },
        }
    }

    /// When trying again makes sense.
    pub fn retry(&self) -> Retry {
        match self {
            Self::CredentialsUnavailable(_)
            | Self::CredentialsRefused { is_expired: true, .. }
            | Self::Busy { .. }
            | Self::Unreachable { .. }
            | Self::NotUnderstood { .. } => Retry::Soon,
            _ => Retry::Later,
        }
    }

    /// Whether credentials or clock are the cause: nothing else would be accepted either.
    pub fn concerns_every_request(&self) -> bool {
        matches!(
            self,
            Self::NoCredentials(_)
                | Self::CredentialsUnavailable(_)
                | Self::CredentialsRefused { .. }
                | Self::Signing(_)
                | Self::Signature { .. }
                | Self::Clock(_)
        )
    }

    /// Identifies repeated failures for a log limiter.
    pub(crate) fn kind(&self) -> &str {
        match self {
            Self::NoRegion => "no region",
            Self::NoCredentials(_) | Self::CredentialsUnavailable(_) => "no credentials",
            Self::Signing(_) => "signing",
            Self::Clock(_) => "clock",
            Self::Unreachable { .. } => "unreachable",
            Self::NotUnderstood { .. } => "not understood",
            Self::NoEndpoint { .. } | Self::EndpointUrl(_) => "endpoint",
            Self::CredentialsRefused { answer, .. }
            | Self::Signature { answer, .. }
            | Self::Denied { answer, .. }
            | Self::Busy { answer, .. }
            | Self::Refused { answer, .. } => match answer.code.as_str() {
                "" => "refused",
                code => code,
            },
        }
    }
}

/// What an answer is about.
enum Cause {
    Permission,
    Signature,
    Credentials { is_expired: bool },
    Load,
    Other,
}

impl Cause {
    fn of(answer: &Answer) -> Self {
        match answer.code.as_str() {
            "AccessDeniedException"
            | "AccessDenied"
            | "DecryptionFailure"
            | "ForbiddenException"
            | "KMSAccessDeniedException"
            | "UnauthorizedException" => Self::Permission,
            "InvalidSignatureException"
            | "RequestExpired"
            | "RequestInTheFuture"
            | "RequestTimeTooSkewed"
            | "SignatureDoesNotMatch" => Self::Signature,
            "ExpiredToken"
            | "ExpiredTokenException"
            | "InvalidAccessKeyId"
            | "InvalidToken"
            | "TokenRefreshRequired" => Self::Credentials { is_expired: true },
            "IncompleteSignature" | "InvalidClientTokenId" | "UnrecognizedClientException" => {
                Self::Credentials { is_expired: false }
            }
            "BadDigest"
            | "IncompleteBody"
            | "InternalError"
            | "InternalFailure"
            | "InternalServiceError"
            | "LimitExceededException"
            | "RequestLimitExceeded"
            | "RequestTimeout"
            | "ServiceUnavailable"
            | "SlowDown"
            | "Throttling"
            | "ThrottlingException"
            | "TooManyRequestsException"
            | "XAmzContentSHA256Mismatch" => Self::Load,
            _ => match answer.status {
                401 | 403 => Self::Permission,
                408 | 409 | 429 | 500.. => Self::Load,
                _ => Self::Other,
            },
        }
    }
}

/// The permission that the message of a refusal names; `expected` if it names none, or one of those. S3 and Secrets Manager
/// pass on the refusals of KMS, whose actions differ from that of the request.
fn missing_permission(message: &str, expected: &str) -> String {
    let named = || {
        let (_, rest) = message.split_once("not authorized to perform: ")?;
        let mut words = rest.split_whitespace();
        let action = words.next()?.trim_end_matches(['.', ',', ';']);
        let is_action = action.contains(':') && action.bytes().all(|b| b.is_ascii_alphanumeric() || b":-".contains(&b));
        if !is_action || expected.contains(action) {
            return None;
        }
        let resource = match (words.next(), words.next(), words.next()) {
            (Some("on"), Some("resource:"), Some(arn)) => arn.trim_matches('"').trim_end_matches(['.', ',', '"']),
            _ if action.starts_with("kms:") => "the key that encrypts the data",
            _ => "the resource",
        };
        Some(format!("{action} on {resource}"))
    };
    named().unwrap_or_else(|| expected.to_owned())
}

/// What to do when credentials cannot be had for `reason`: a sentence without a full stop.
fn credentials_advice(reason: &str) -> String {
    let has_file = has_credentials_file();
    hiding_source(is_set, has_file).unwrap_or_else(|| advice(is_set(TOKEN_EXCHANGE), reason).to_owned())
}

/// The source of the credentials, to follow a failure that they may have caused; empty if they are not in doubt.
pub(crate) fn hidden_source() -> String {
    hiding_source(is_set, has_credentials_file()).map_or_else(String::new, |source| format!(". {source}"))
}

fn is_set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.is_empty())
}

/// Whether there is the file in which the credential chain looks for the default profile.
fn has_credentials_file() -> bool {
    let named = std::env::var_os("AWS_SHARED_CREDENTIALS_FILE").map(std::path::PathBuf::from);
    let file = named.or_else(|| Some(std::env::home_dir()?.join(".aws/credentials")));
    file.is_some_and(|file| file.is_file())
}

/// The source that is used in place of the token exchange service, as a sentence without a full stop.
fn hiding_source(is_set: impl Fn(&str) -> bool, has_credentials_file: bool) -> Option<String> {
    if !is_set(TOKEN_EXCHANGE) {
        return None;
    }
    let hides = |source: &str, remedy: &str| {
        format!("The credentials come from {source}, which hides the token exchange service of Greengrass: {remedy}")
    };
    let variable = EARLIER_SOURCES.iter().find(|(variable, ..)| is_set(variable));
    if let Some((_, source, variables)) = variable {
        return Some(hides(
            source,
            &format!("remove {variables} from the environment of the component"),
        ));
    }
    has_credentials_file.then(|| {
        hides(
            "~/.aws/credentials of the component's user (or AWS_SHARED_CREDENTIALS_FILE)",
            "remove that file",
        )
    })
}

fn advice(in_greengrass: bool, reason: &str) -> &'static str {
    if in_greengrass {
        return "Check the token exchange role alias and its role, and that aws.greengrass.TokenExchangeService runs; it \
                remembers a failure for up to 5 minutes";
    }
    if reason.to_ascii_lowercase().contains("sso") {
        return "Log in again: `aws sso login`, with `--profile` and the name in AWS_PROFILE if there is one";
    }
    "By hand they come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment, or from the profile that \
     AWS_PROFILE names: check that they are right and not expired"
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn refused(status: u16, code: &str, date: Option<SystemTime>) -> AwsError {
        let date = date.map(httpdate::fmt_http_date);
        let answer = Answer::new(status, Some(code), None);
        AwsError::of_answer("S3", answer, date.as_deref(), "s3:PutObject on arn:aws:s3:::photos/*")
    }

    #[test]
    fn the_role_alias_is_for_greengrass_and_the_login_for_people() {
        let expired = "the SSO token has expired and cannot be refreshed";
        assert!(advice(true, expired).contains("role alias"));
        assert!(advice(false, expired).contains("aws sso login"));
        let other = advice(false, "the process ended with 1");
        assert!(
            other.contains("AWS_PROFILE") && other.contains("environment"),
            "{other}"
        );
        assert!(!other.contains("role alias") && !other.contains("sso"), "{other}");
    }

    #[test]
    fn a_refusal_names_the_action_that_aws_names() {
        let refused = |message: &str| {
            let answer = Answer::new(403, Some("AccessDenied"), Some(message));
            AwsError::of_answer("S3", answer, None, "s3:PutObject on arn:aws:s3:::photos/*").to_string()
        };
        let user = "User: arn:aws:sts::1:assumed-role/R/i is not authorized to perform:";
        let key = "arn:aws:kms:eu-west-1:1:key/11111111-2222-3333-4444-555555555555";
        let text = refused(&format!(
            "{user} kms:GenerateDataKey on resource: {key} because no identity-based policy allows it"
        ));
        assert!(
            text.contains(&format!("allow kms:GenerateDataKey on {key} for")),
            "{text}"
        );
        assert!(!text.contains("allow s3:PutObject"), "{text}");
        let text = refused(&format!(
            "{user} kms:Decrypt on this resource because the resource does not exist in this Region"
        ));
        assert!(text.contains("allow kms:Decrypt on the key that encrypts"), "{text}");
        for message in [
            "Access Denied",
            &format!("{user} s3:PutObject on resource: \"x\" with an explicit deny"),
        ] {
            let text = refused(message);
            assert!(
                text.contains("allow s3:PutObject on arn:aws:s3:::photos/* for"),
                "{text}"
            );
        }
    }

    #[test]
    fn only_a_source_beside_the_token_exchange_service_hides_it() {
        let hides = |names: &[&str], has_file| hiding_source(|name| names.contains(&name), has_file);
        for variable in ["AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE"] {
            let text = hides(&[variable, TOKEN_EXCHANGE], true).unwrap();
            let remedy = format!("remove {variable}");
            assert!(
                text.contains(&remedy) && text.contains("hides the token exchange"),
                "{text}"
            );
            assert_eq!(hides(&[variable], true), None, "by hand it is what the user wants");
        }
        assert!(hides(&[TOKEN_EXCHANGE], true).unwrap().contains("~/.aws/credentials"));
        assert_eq!(hides(&[TOKEN_EXCHANGE], false), None);
    }

    #[test]
    fn temporary_failures_are_retried_soon_and_the_others_later() {
        for (code, retry) in [
            ("ThrottlingException", Retry::Soon),
            ("InternalServiceError", Retry::Soon),
            ("ExpiredTokenException", Retry::Soon),
            ("AccessDeniedException", Retry::Later),
            ("UnrecognizedClientException", Retry::Later),
            ("InvalidSignatureException", Retry::Later),
            ("InvalidRequestException", Retry::Later),
        ] {
            assert_eq!(refused(400, code, None).retry(), retry, "{code}");
        }
    }

    #[test]
    fn a_refusal_shows_no_canonical_request() {
        let message = "No match.\n\nThe canonical string is x-amz-security-token:hidden";
        let answer = Answer::new(400, Some("InvalidRequest"), Some(message));
        let text = AwsError::of_answer("IoT", answer, None, "").to_string();
        assert_eq!(text, "IoT refuses the request (400 InvalidRequest: No match)");
    }

    #[test]
    fn a_refusal_is_attributed_to_the_clock_only_when_that_is_off() {
        let now = SystemTime::now();
        let late = now - Duration::from_secs(3600);
        assert!(matches!(refused(403, "AccessDenied", Some(late)), AwsError::Clock(_)));
        assert!(matches!(refused(403, "", Some(late)), AwsError::Clock(_)));
        assert!(matches!(refused(400, "RequestExpired", Some(late)), AwsError::Clock(_)));
        assert!(matches!(refused(403, "", Some(now)), AwsError::Denied { .. }));
        assert!(matches!(refused(500, "", Some(late)), AwsError::Busy { .. }));
    }
}
