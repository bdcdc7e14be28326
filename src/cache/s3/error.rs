//! Why a request to S3 failed.

use std::error::Error;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use crate::aws::{Answer, AwsError};
use crate::util::backoff::Retry;

const SERVICE: &str = "S3";

/// A failure of S3 or of the connection to it.
#[derive(Debug, thiserror::Error)]
pub enum S3Error {
    /// A failure that can happen with every AWS service.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// S3 forbids the look-up and does not say who owns the bucket.
    #[error(
        "the bucket {bucket} (s3_bucket) cannot be used: it belongs to another AWS account, or the role lacks s3:ListBucket on \
         arn:aws:s3:::{bucket}; choose another bucket or allow it"
    )]
    Forbidden {
        /// As configured.
        bucket: String,
    },
    /// The name of the bucket is taken.
    #[error(
        "the bucket {bucket} (s3_bucket) belongs to another AWS account; bucket names are unique across all accounts: choose another name"
    )]
    NotYours {
        /// As configured.
        bucket: String,
    },
    /// There is no such bucket.
    #[error("the bucket {bucket} does not exist")]
    NoSuchBucket {
        /// As configured.
        bucket: String,
    },
    /// The bucket is in another region than the request was sent to.
    #[error("the bucket {bucket} is in {}, not in the region of the request", region.as_deref().unwrap_or("an unknown region"))]
    OtherRegion {
        /// As configured.
        bucket: String,
        /// Region of the bucket, if S3 returned it.
        region: Option<String>,
    },
    /// The task that sent the request was cancelled or panicked.
    #[error("the request to S3 was interrupted")]
    Interrupted,
}

/// What to do after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RetryPlan {
    /// Try again: with backoff, or every few minutes if a setting must be changed first.
    Wait(Retry),
    /// Look the bucket up again.
    LookUp,
    /// Continue with other objects: S3 refuses only this one.
    NextObject,
}

impl S3Error {
    /// Classifies the failure of an operation on `bucket` that needs `action`, an IAM action such as `s3:PutObject`.
    pub(super) fn from_sdk_error<E>(error: &SdkError<E, HttpResponse>, bucket: &str, action: &str) -> Self
    where
        E: Error + ProvideErrorMetadata + 'static,
    {
        if let SdkError::ServiceError(refusal) = error {
            let (response, code) = (refusal.raw(), refusal.err().code());
            let region = response.headers().get("x-amz-bucket-region").map(str::to_owned);
            let bucket = bucket.to_owned();
            match (response.status().as_u16(), code) {
                (_, Some("BucketAlreadyExists")) => return Self::NotYours { bucket },
                (301 | 307, _) | (400, Some("AuthorizationHeaderMalformed" | "IllegalLocationConstraintException")) => {
                    return Self::OtherRegion { bucket, region };
                }
                // The answer to HEAD has no body and therefore no code, but a header contains the region.
                (400, None) if region.is_some() => return Self::OtherRegion { bucket, region },
                (404, _) => return Self::NoSuchBucket { bucket },
                _ => {}
            }
        }
        AwsError::from_sdk_error(SERVICE, error, &permission(action, bucket)).into()
    }

    /// Converts an error in the answer to DeleteObjects.
    pub(super) fn from_deletion_error(bucket: &str, code: Option<&str>, message: Option<&str>) -> Self {
        let answer = Answer::new(200, code, message);
        AwsError::from_answer(SERVICE, answer, None, &permission("s3:DeleteObject", bucket)).into()
    }

    pub(super) fn retry(&self) -> RetryPlan {
        match self {
            // Pairs can wait on disk, and credentials may appear later: on EC2 they need the network.
            Self::Aws(AwsError::NoCredentials(_)) | Self::Interrupted => RetryPlan::Wait(Retry::Soon),
            Self::Aws(AwsError::Refused { .. }) => RetryPlan::NextObject,
            Self::Aws(error) => RetryPlan::Wait(error.retry()),
            Self::Forbidden { .. } | Self::NotYours { .. } => RetryPlan::Wait(Retry::Later),
            Self::NoSuchBucket { .. } | Self::OtherRegion { .. } => RetryPlan::LookUp,
        }
    }

    /// Identifies repeated failures for a log limiter.
    pub(in crate::cache) fn kind(&self) -> &str {
        match self {
            Self::Aws(error) => error.kind(),
            Self::Forbidden { .. } | Self::NotYours { .. } => "not ours",
            Self::NoSuchBucket { .. } | Self::OtherRegion { .. } => "no such bucket",
            Self::Interrupted => "interrupted",
        }
    }
}

/// `s3:PutObject on arn:aws:s3:::photos/*`
fn permission(action: &str, bucket: &str) -> String {
    let objects = if action.ends_with("Object") { "/*" } else { "" };
    format!("{action} on arn:aws:s3:::{bucket}{objects}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_s3::error::ErrorMetadata;
    use aws_sdk_s3::operation::put_object::PutObjectError;
    use aws_sdk_s3::primitives::SdkBody;

    const SOON: RetryPlan = RetryPlan::Wait(Retry::Soon);
    const LATER: RetryPlan = RetryPlan::Wait(Retry::Later);

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
        S3Error::from_sdk_error(&error, "photos", "s3:PutObject")
    }

    #[test]
    fn each_error_has_advice_and_a_retry_plan() {
        for (status, code, words, retry) in [
            (
                403,
                Some("AccessDenied"),
                "allow s3:PutObject on arn:aws:s3:::photos/*",
                LATER,
            ),
            (403, Some("RequestTimeTooSkewed"), "clock", LATER),
            (400, Some("ExpiredToken"), "ExpiredToken", SOON),
            (404, Some("NoSuchBucket"), "does not exist", RetryPlan::LookUp),
            (503, Some("SlowDown"), "503 SlowDown", SOON),
            (409, Some("BucketAlreadyExists"), "another AWS account", LATER),
            (409, Some("OperationAborted"), "OperationAborted", SOON),
            (400, Some("RequestTimeout"), "400 RequestTimeout", SOON),
            (400, Some("IncompleteBody"), "400 IncompleteBody", SOON),
            (400, Some("KeyTooLongError"), "KeyTooLongError", RetryPlan::NextObject),
        ] {
            let error = answered(status, code, &[]);
            assert!(error.to_string().contains(words), "{error}");
            assert_eq!(error.retry(), retry, "{error}");
        }
    }

    #[test]
    fn the_error_for_a_bucket_in_another_region_contains_the_region() {
        let error = answered(301, Some("PermanentRedirect"), &[("x-amz-bucket-region", "eu-west-3")]);
        assert!(matches!(error, S3Error::OtherRegion { region: Some(region), .. } if region == "eu-west-3"));
    }

    #[test]
    fn a_refusal_without_a_code_is_explained_by_the_clock_if_the_clock_is_wrong() {
        let long_ago = answered(403, None, &[("date", "Tue, 15 Nov 1994 08:12:31 GMT")]);
        assert!(matches!(long_ago, S3Error::Aws(AwsError::Clock(_))), "{long_ago}");
        let now = httpdate::fmt_http_date(std::time::SystemTime::now());
        let error = answered(403, None, &[("date", now.leak())]);
        assert!(matches!(error, S3Error::Aws(AwsError::Denied { .. })), "{error}");
    }
}
