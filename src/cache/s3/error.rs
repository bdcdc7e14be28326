//! Why S3 did not do what it was asked for, as sentences for the person at the device.

use std::error::Error;
use std::time::{Duration, SystemTime};

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};

use crate::aws::advice::for_credentials;
use crate::util::text::{causes, first_line, innermost, sentence};

/// SigV4 is refused beyond this difference of clocks ("RequestTimeTooSkewed": 15 minutes); a refusal without a reason is
/// put down to the clock from here on.
const SKEW: Duration = Duration::from_secs(10 * 60);

/// A failure of S3, or of the way there.
#[derive(Debug, thiserror::Error)]
pub enum S3Error {
    /// No region is known.
    #[error("no AWS region is known; Greengrass sets AWS_REGION, by hand set it or a region in the AWS profile")]
    NoRegion,
    /// No credentials were found.
    #[error("no AWS credentials: {reason}. {}", for_credentials(reason))]
    NoCredentials {
        /// What the credential chain said.
        reason: String,
    },
    /// S3 does not accept the credentials.
    #[error("S3 does not accept the credentials ({code}): they are expired, revoked or not meant for this region")]
    CredentialsRefused {
        /// The AWS error code.
        code: String,
    },
    /// No connection.
    #[error("S3 cannot be reached: {reason}; check the network, the name service and HTTPS_PROXY")]
    Unreachable {
        /// The innermost reason.
        reason: String,
    },
    /// A connection, but no answer.
    #[error("S3 did not answer in time; check the network")]
    Timeout,
    /// A fault of the service, or too many requests.
    #[error("S3 has a fault or asks to slow down ({status} {code})")]
    Service {
        /// The HTTP status.
        status: u16,
        /// The AWS error code.
        code: String,
    },
    /// Signatures are refused because of the time in them.
    #[error("S3 refuses the signature because the clock of this device is wrong; set it (timedatectl, NTP)")]
    Clock,
    /// The look-up is forbidden: S3 does not say whose the bucket is.
    #[error(
        "the bucket {bucket} (s3_bucket) may not be used: it belongs to another AWS account, or the role lacks s3:ListBucket on \
         arn:aws:s3:::{bucket}; choose another bucket or allow it"
    )]
    Forbidden {
        /// As configured.
        bucket: String,
    },
    /// Somebody else has a bucket of that name.
    #[error(
        "the bucket {bucket} (s3_bucket) belongs to another AWS account; names of buckets are unique in the world: choose another"
    )]
    NotYours {
        /// As configured.
        bucket: String,
    },
    /// One operation is not allowed.
    #[error("access to the bucket {bucket} is denied ({code}): allow {permission} for the role of this device")]
    Denied {
        /// As configured.
        bucket: String,
        /// The IAM action and its resource.
        permission: String,
        /// The AWS error code.
        code: String,
    },
    /// There is no such bucket.
    #[error("the bucket {bucket} does not exist")]
    NoSuchBucket {
        /// As configured.
        bucket: String,
    },
    /// The bucket is in another region than the one asked.
    #[error("the bucket {bucket} is not in the region asked; it is in {}", region.as_deref().unwrap_or("an unknown one"))]
    OtherRegion {
        /// As configured.
        bucket: String,
        /// Where it is, when S3 said so.
        region: Option<String>,
    },
    /// S3 does not want this request, whenever it comes.
    #[error("S3 refuses the request ({status} {code}): {message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The AWS error code.
        code: String,
        /// In S3's words.
        message: String,
    },
}

/// When something that failed is worth another try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retry {
    /// With backoff.
    Soon,
    /// Somebody has to change something first: every few minutes.
    Later,
    /// The bucket must be looked up again.
    LookUp,
    /// Others may pass: it is this object that is refused.
    Object,
}

impl S3Error {
    /// Reads the failure of an operation on `bucket` that needs `action` (an IAM action like `s3:PutObject`).
    pub(super) fn read<E>(error: &SdkError<E, HttpResponse>, bucket: &str, action: &str) -> Self
    where
        E: Error + ProvideErrorMetadata + 'static,
    {
        let SdkError::ServiceError(answer) = error else {
            return Self::without_answer(error);
        };
        let response = answer.raw();
        let status = response.status().as_u16();
        let bucket = bucket.to_owned();
        let code = answer.err().code().unwrap_or("no reason given").to_owned();
        match (status, code.as_str()) {
            (_, "RequestTimeTooSkewed") => Self::Clock,
            (_, "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" | "InvalidAccessKeyId") => {
                Self::CredentialsRefused { code }
            }
            (_, "SignatureDoesNotMatch") => Self::CredentialsRefused { code },
            (_, "BucketAlreadyExists") => Self::NotYours { bucket },
            (301 | 307, _) | (400, "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException") => {
                Self::other_region(bucket, response)
            }
            // The answer to HEAD has no body, and so no code; S3 names the region in a header all the same.
            (400, _) if bucket_region(response).is_some() && answer.err().code().is_none() => {
                Self::other_region(bucket, response)
            }
            (401 | 403, _) if clocks_differ(response, SystemTime::now()) => Self::Clock,
            (401 | 403, _) => Self::Denied {
                permission: permission(action, &bucket),
                bucket,
                code,
            },
            (404, _) => Self::NoSuchBucket { bucket },
            (408 | 409 | 429 | 500.., _) => Self::Service { status, code },
            // The upload stalled or was damaged on the way.
            (400, "RequestTimeout" | "IncompleteBody" | "BadDigest" | "XAmzContentSHA256Mismatch") => {
                Self::Service { status, code }
            }
            _ => Self::Refused {
                status,
                code,
                message: answer.err().message().unwrap_or("no reason given").to_owned(),
            },
        }
    }

    /// One entry of the errors that an answer to DeleteObjects lists.
    pub(super) fn of_deletion(bucket: &str, code: Option<&str>, message: Option<&str>) -> Self {
        let code = code.unwrap_or("no reason given").to_owned();
        match code.as_str() {
            "AccessDenied" => Self::Denied {
                permission: permission("s3:DeleteObject", bucket),
                bucket: bucket.to_owned(),
                code,
            },
            "InternalError" | "SlowDown" => Self::Service { status: 200, code },
            _ => Self::Refused {
                status: 200,
                code,
                message: message.unwrap_or("no reason given").to_owned(),
            },
        }
    }

    fn without_answer<E: Error + 'static>(error: &SdkError<E, HttpResponse>) -> Self {
        if let Some(credentials) = causes(error).find(|cause| cause.is::<CredentialsError>()) {
            return Self::NoCredentials {
                // All of it: the last cause does not name SSO.
                reason: first_line(&sentence(credentials)).trim_end_matches('.').to_owned(),
            };
        }
        match error {
            SdkError::TimeoutError(_) => Self::Timeout,
            SdkError::DispatchFailure(failure) if failure.is_timeout() => Self::Timeout,
            _ => Self::Unreachable {
                reason: innermost(error).to_string(),
            },
        }
    }

    fn other_region(bucket: String, response: &HttpResponse) -> Self {
        Self::OtherRegion {
            bucket,
            region: bucket_region(response),
        }
    }

    /// When to try again.
    pub(super) fn retry(&self) -> Retry {
        match self {
            Self::NoCredentials { .. }
            | Self::CredentialsRefused { .. }
            | Self::Unreachable { .. }
            | Self::Timeout
            | Self::Service { .. } => Retry::Soon,
            Self::NoRegion | Self::Clock | Self::Forbidden { .. } | Self::NotYours { .. } | Self::Denied { .. } => {
                Retry::Later
            }
            Self::NoSuchBucket { .. } | Self::OtherRegion { .. } => Retry::LookUp,
            Self::Refused { .. } => Retry::Object,
        }
    }

    /// What repeated failures are recognised by in the log.
    pub(in crate::cache) fn kind(&self) -> String {
        match self {
            Self::NoRegion => "no region".to_owned(),
            Self::NoCredentials { .. } => "no credentials".to_owned(),
            Self::CredentialsRefused { code }
            | Self::Service { code, .. }
            | Self::Denied { code, .. }
            | Self::Refused { code, .. } => code.clone(),
            Self::Unreachable { .. } => "unreachable".to_owned(),
            Self::Timeout => "timeout".to_owned(),
            Self::Clock => "clock".to_owned(),
            Self::Forbidden { .. } | Self::NotYours { .. } => "not ours".to_owned(),
            Self::NoSuchBucket { .. } | Self::OtherRegion { .. } => "no such bucket".to_owned(),
        }
    }
}

/// `s3:PutObject on arn:aws:s3:::photos/*`
fn permission(action: &str, bucket: &str) -> String {
    let objects = if action.ends_with("Object") { "/*" } else { "" };
    format!("{action} on arn:aws:s3:::{bucket}{objects}")
}

fn bucket_region(response: &HttpResponse) -> Option<String> {
    response.headers().get("x-amz-bucket-region").map(str::to_owned)
}

/// Whether the answer was made at quite another time than `now`.
fn clocks_differ(response: &HttpResponse, now: SystemTime) -> bool {
    let made = response
        .headers()
        .get("date")
        .and_then(|text| DateTime::from_str(text, DateTimeFormat::HttpDate).ok())
        .and_then(|time| SystemTime::try_from(time).ok());
    made.is_some_and(|made| {
        let apart = now.duration_since(made).unwrap_or_else(|early| early.duration());
        apart > SKEW
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_s3::error::ErrorMetadata;
    use aws_sdk_s3::operation::put_object::PutObjectError;
    use aws_sdk_s3::primitives::SdkBody;

    fn answered(status: u16, code: Option<&str>, headers: &[(&'static str, &'static str)]) -> S3Error {
        let mut response = HttpResponse::new(status.try_into().unwrap(), SdkBody::empty());
        for (name, value) in headers {
            response.headers_mut().insert(*name, *value);
        }
        let mut metadata = ErrorMetadata::builder();
        if let Some(code) = code {
            metadata = metadata.code(code);
        }
        let error = SdkError::service_error(PutObjectError::generic(metadata.build()), response);
        S3Error::read(&error, "photos", "s3:PutObject")
    }

    #[test]
    fn each_answer_says_what_to_do_and_when_to_try_again() {
        for (status, code, words, retry) in [
            (
                403,
                Some("AccessDenied"),
                "allow s3:PutObject on arn:aws:s3:::photos/*",
                Retry::Later,
            ),
            (403, Some("RequestTimeTooSkewed"), "clock", Retry::Later),
            (400, Some("ExpiredToken"), "ExpiredToken", Retry::Soon),
            (404, Some("NoSuchBucket"), "does not exist", Retry::LookUp),
            (503, Some("SlowDown"), "503 SlowDown", Retry::Soon),
            (409, Some("BucketAlreadyExists"), "another AWS account", Retry::Later),
            (409, Some("OperationAborted"), "OperationAborted", Retry::Soon),
            (400, Some("RequestTimeout"), "400 RequestTimeout", Retry::Soon),
            (400, Some("IncompleteBody"), "400 IncompleteBody", Retry::Soon),
            (400, Some("KeyTooLongError"), "KeyTooLongError", Retry::Object),
        ] {
            let error = answered(status, code, &[]);
            assert!(error.to_string().contains(words), "{error}");
            assert_eq!(error.retry(), retry, "{error}");
        }
    }

    #[test]
    fn a_bucket_elsewhere_is_named_with_its_region() {
        let error = answered(301, Some("PermanentRedirect"), &[("x-amz-bucket-region", "eu-west-3")]);
        assert!(matches!(error, S3Error::OtherRegion { region: Some(region), .. } if region == "eu-west-3"));
    }

    #[test]
    fn a_refusal_without_reason_from_another_time_is_put_down_to_the_clock() {
        let long_ago = answered(403, None, &[("date", "Tue, 15 Nov 1994 08:12:31 GMT")]);
        assert!(matches!(long_ago, S3Error::Clock), "{long_ago}");
        let now = DateTime::from(SystemTime::now()).fmt(DateTimeFormat::HttpDate).unwrap();
        let error = answered(403, None, &[("date", now.leak())]);
        assert!(matches!(error, S3Error::Denied { .. }), "{error}");
    }
}
