//! Why S3 did not do what it was asked.

use std::error::Error;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use crate::aws::{Answer, AwsError};
use crate::util::backoff::Retry;

const SERVICE: &str = "S3";

/// A failure of S3, or of the way there.
#[derive(Debug, thiserror::Error)]
pub enum S3Error {
    /// What can happen with every AWS service.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// The look-up is forbidden: S3 does not say whose the bucket is.
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
        "the bucket {bucket} (s3_bucket) belongs to another AWS account; names of buckets are unique in the world: choose another"
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
    #[error("the bucket {bucket} is in {}, not in the region that was asked", region.as_deref().unwrap_or("an unknown region"))]
    OtherRegion {
        /// As configured.
        bucket: String,
        /// Where it is, if S3 said so.
        region: Option<String>,
    },
    /// The task that sent the request was cancelled or panicked.
    #[error("the request to S3 was interrupted")]
    Interrupted,
}

/// What to do after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RetryPlan {
    /// Try again: with backoff, or every few minutes when somebody has to change something first.
    Wait(Retry),
    /// Look the bucket up again.
    LookUp,
    /// Try others: it is this object that S3 refuses.
    NextObject,
}

impl S3Error {
    /// Reads the failure of an operation on `bucket` that needs `action` (an IAM action like `s3:PutObject`).
    pub(super) fn of<E>(error: &SdkError<E, HttpResponse>, bucket: &str, action: &str) -> Self
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
                // The answer to HEAD has no body and so no code, but a header names the region.
                (400, None) if region.is_some() => return Self::OtherRegion { bucket, region },
                (404, _) => return Self::NoSuchBucket { bucket },
                _ => {}
            }
        }
        AwsError::of_sdk(SERVICE, error, &permission(action, bucket)).into()
    }

    /// One of the errors that an answer to DeleteObjects lists.
    pub(super) fn of_deletion(bucket: &str, code: Option<&str>, message: Option<&str>) -> Self {
        let answer = Answer::new(200, code, message);
        AwsError::of_answer(SERVICE, answer, None, &permission("s3:DeleteObject", bucket)).into()
    }

    pub(super) fn retry(&self) -> RetryPlan {
        match self {
            // Pairs can wait on disk, and credentials may appear: on EC2 they come with the network.
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
        S3Error::of(&error, "photos", "s3:PutObject")
    }

    #[test]
    fn each_answer_says_what_to_do_and_when_to_try_again() {
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
    fn a_bucket_elsewhere_is_named_with_its_region() {
        let error = answered(301, Some("PermanentRedirect"), &[("x-amz-bucket-region", "eu-west-3")]);
        assert!(matches!(error, S3Error::OtherRegion { region: Some(region), .. } if region == "eu-west-3"));
    }

    #[test]
    fn a_refusal_without_code_is_attributed_to_the_clock_if_that_is_off() {
        let long_ago = answered(403, None, &[("date", "Tue, 15 Nov 1994 08:12:31 GMT")]);
        assert!(matches!(long_ago, S3Error::Aws(AwsError::Clock(_))), "{long_ago}");
        let now = httpdate::fmt_http_date(std::time::SystemTime::now());
        let error = answered(403, None, &[("date", now.leak())]);
        assert!(matches!(error, S3Error::Aws(AwsError::Denied { .. })), "{error}");
    }
}
