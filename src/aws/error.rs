//! Why a request to AWS failed: one type for all services, with one sentence for each cause.

use std::error::Error;
use std::time::SystemTime;

use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use super::answer::{Answer, Cause, missing_permission};
use super::clock_skew::ClockSkew;
use super::credentials_advice::{credentials_advice, hidden_source};
use crate::util::backoff::Retry;
use crate::util::text::{causes, first_line, innermost, sentence};

/// A failure of an AWS service or of the connection to it. Contains no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AwsError {
    /// Environment, profile and instance metadata contain no region.
    #[error(
        "no AWS region is known: Greengrass sets AWS_REGION; outside Greengrass set AWS_REGION, or `region` in ~/.aws/config"
    )]
    NoRegion,
    /// The credential chain is empty.
    #[error(
        "no AWS credentials were found ({}): in Greengrass the component needs the dependency \
         aws.greengrass.TokenExchangeService; outside Greengrass set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY{}",
        .0,
        hidden_source()
    )]
    NoCredentials(String),
    /// A provider of the credential chain failed.
    #[error("AWS credentials could not be fetched: {}. {}", .0, credentials_advice(.0))]
    CredentialsUnavailable(String),
    /// The service does not accept the credentials.
    #[error(
        "{service} does not accept the AWS credentials ({answer}): they are expired, revoked or not valid in this region. {}",
        credentials_advice("")
    )]
    CredentialsRefused {
        /// The service.
        service: String,
        /// Its answer.
        answer: Answer,
        /// Whether new credentials from the same source may be accepted.
        is_expired: bool,
    },
    /// The request cannot be signed.
    #[error("an AWS request could not be signed: {0}")]
    Signing(String),
    /// The service refuses the signature. The time of the server is not known.
    #[error(
        "{service} does not accept the signature ({answer}): set this machine's clock, or use NTP; if the clock is right, \
         check the secret access key{}",
        hidden_source()
    )]
    Signature {
        /// The service.
        service: String,
        /// Its answer.
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
        /// Its answer.
        answer: Answer,
        /// The IAM action and its resource.
        permission: String,
    },
    /// The service has a fault or receives too many requests.
    #[error("{service} has a fault or asks to slow down ({answer})")]
    Busy {
        /// The service.
        service: String,
        /// Its answer.
        answer: Answer,
    },
    /// The service refuses the request for another reason.
    #[error("{service} refuses the request ({answer})")]
    Refused {
        /// The service.
        service: String,
        /// Its answer.
        answer: Answer,
    },
    /// The service did not answer.
    #[error("{service} cannot be reached: {reason}; check the network, the DNS server, the firewall and HTTPS_PROXY")]
    Unreachable {
        /// The service.
        service: String,
        /// Why.
        reason: String,
    },
    /// The answer does not come from the service, or it is damaged.
    #[error(
        "the answer of {service} cannot be read ({problem}); check whether a proxy or a captive portal answers instead"
    )]
    NotUnderstood {
        /// The service.
        service: String,
        /// What is wrong with the answer.
        problem: String,
    },
    /// The region has no such endpoint.
    #[error("AWS has no such endpoint in {region} ({reason}): check AWS_REGION and AWS_USE_FIPS_ENDPOINT")]
    NoEndpoint {
        /// The region.
        region: String,
        /// Why.
        reason: String,
    },
    /// An endpoint override is unusable.
    #[error("the AWS endpoint \"{0}\" is not a URL with a host: check AWS_ENDPOINT_URL")]
    EndpointUrl(String),
}

impl AwsError {
    /// Classifies the failure of an SDK call to `service` that needs `permission` (`s3:PutObject on arn:...`).
    pub(crate) fn from_sdk_error<E>(service: &str, error: &SdkError<E, HttpResponse>, permission: &str) -> Self
    where
        E: Error + ProvideErrorMetadata + 'static,
    {
        if let Some(credentials) = causes(error).find_map(|cause| cause.downcast_ref()) {
            return Self::from_credentials_error(credentials);
        }
        let unreachable = |reason| Self::Unreachable {
            service: service.to_owned(),
            reason,
        };
        match error {
            SdkError::ServiceError(refusal) => {
                let (response, metadata) = (refusal.raw(), refusal.err());
                let answer = Answer::new(response.status().as_u16(), metadata.code(), metadata.message());
                Self::from_answer(service, answer, response.headers().get("date"), permission)
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

    /// Converts a failure of the credential chain.
    pub(crate) fn from_credentials_error(error: &CredentialsError) -> Self {
        // With all causes, because the innermost one does not mention SSO.
        let reason = first_line(&sentence(error)).trim_end_matches('.').to_owned();
        match error {
            CredentialsError::CredentialsNotLoaded(_) | CredentialsError::InvalidConfiguration(_) => {
                Self::NoCredentials(reason)
            }
            _ => Self::CredentialsUnavailable(reason),
        }
    }

    /// Classifies an answer other than success. `date` is its `Date` header: a wrong clock explains a refusal better than the code.
    pub(crate) fn from_answer(service: &str, answer: Answer, date: Option<&str>, permission: &str) -> Self {
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
            Cause::Overload => Self::Busy { service, answer },
            Cause::Other => Self::Refused { service, answer },
        }
    }

    /// When the request can be tried again.
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

    /// Whether credentials or the clock are the cause, so that every other request fails too.
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn refused(status: u16, code: &str, date: Option<SystemTime>) -> AwsError {
        let date = date.map(httpdate::fmt_http_date);
        let answer = Answer::new(status, Some(code), None);
        AwsError::from_answer("S3", answer, date.as_deref(), "s3:PutObject on arn:aws:s3:::photos/*")
    }

    #[test]
    fn a_refusal_contains_the_action_in_the_answer_of_aws() {
        let refused = |message: &str| {
            let answer = Answer::new(403, Some("AccessDenied"), Some(message));
            AwsError::from_answer("S3", answer, None, "s3:PutObject on arn:aws:s3:::photos/*").to_string()
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
    fn a_refusal_does_not_contain_the_canonical_request() {
        let message = "No match.\n\nThe canonical string is x-amz-security-token:hidden";
        let answer = Answer::new(400, Some("InvalidRequest"), Some(message));
        let text = AwsError::from_answer("IoT", answer, None, "").to_string();
        assert_eq!(text, "IoT refuses the request (400 InvalidRequest: No match)");
    }

    #[test]
    fn a_refusal_is_explained_by_the_clock_only_if_the_clock_is_wrong() {
        let now = SystemTime::now();
        let late = now - Duration::from_secs(3600);
        assert!(matches!(refused(403, "AccessDenied", Some(late)), AwsError::Clock(_)));
        assert!(matches!(refused(403, "", Some(late)), AwsError::Clock(_)));
        assert!(matches!(refused(400, "RequestExpired", Some(late)), AwsError::Clock(_)));
        assert!(matches!(refused(403, "", Some(now)), AwsError::Denied { .. }));
        assert!(matches!(refused(500, "", Some(late)), AwsError::Busy { .. }));
    }
}
