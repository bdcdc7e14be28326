//! An answer of an AWS service other than success, and its meaning.

use std::fmt;

use crate::util::text::first_line;

/// An answer other than success: `403 AccessDenied: Access Denied`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// AWS error code; empty if the answer has none.
    pub code: String,
    /// The message of the service; may be empty.
    pub message: String,
}

impl Answer {
    /// Keeps only the first line of the message: the next lines of a refused signature repeat the signed headers with the
    /// session token.
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

/// What an answer complains about.
pub(super) enum Cause {
    Permission,
    Signature,
    Credentials { is_expired: bool },
    Overload,
    Other,
}

impl Cause {
    pub fn of(answer: &Answer) -> Self {
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
            | "XAmzContentSHA256Mismatch" => Self::Overload,
            _ => match answer.status {
                401 | 403 => Self::Permission,
                408 | 409 | 429 | 500.. => Self::Overload,
                _ => Self::Other,
            },
        }
    }
}

/// The permission in the message of a refusal; `expected` if there is none or if it is one of those. S3 and Secrets Manager
/// pass on refusals of KMS, whose actions differ from that of the request.
pub(super) fn missing_permission(message: &str, expected: &str) -> String {
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
