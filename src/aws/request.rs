//! A signed GET, for services whose SDK crate is not worth its compile time.

use std::time::{Duration, SystemTime};

use reqwest::{Client, Response, StatusCode};
use serde_json::Value;
use url::Url;

use super::{Aws, AwsError, ClockSkew, Service, sigv4};
use crate::util::text::first_line;

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// For the whole exchange.
const LIMIT: Duration = Duration::from_secs(10);
/// Answers of the services used here are a few hundred bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Why a service gave no answer. Holds nothing secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The request was never sent.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// The address in an `AWS_ENDPOINT_URL` variable is unusable.
    #[error("the AWS endpoint \"{0}\" is not a URL with a host: look at AWS_ENDPOINT_URL")]
    Address(String),
    /// No answer.
    #[error("{host} was not reached ({problem}): check network, DNS server, firewall and HTTPS_PROXY")]
    Unreachable {
        /// Host of the service.
        host: String,
        /// What failed.
        problem: String,
    },
    /// Refused because of the time.
    #[error("{0}")]
    Clock(ClockSkew),
    /// The service says no.
    #[error("{host} answered {status} {code}: {message}")]
    Refused {
        /// Host of the service.
        host: String,
        /// HTTP status.
        status: u16,
        /// AWS error code, e.g. `AccessDeniedException`; may be empty.
        code: String,
        /// The service's words; may be empty.
        message: String,
    },
    /// The answer is not what the service is known to give.
    #[error("{host} gave an answer that is not understood ({problem}): is a proxy or a captive portal in between?")]
    Answer {
        /// Host of the service.
        host: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl CallError {
    /// The service knows who asks and does not allow it.
    pub fn is_denied(&self) -> bool {
        let Self::Refused { status, code, .. } = self else {
            return false;
        };
        match code.as_str() {
            "" => *status == 403,
            code => code.starts_with("AccessDenied") || matches!(code, "UnauthorizedException" | "ForbiddenException"),
        }
    }

    /// Nothing was asked, or the answer was no, for want of good credentials.
    pub fn is_of_credentials(&self) -> bool {
        match self {
            Self::Aws(error) => *error != AwsError::NoRegion,
            Self::Refused { status, .. } => matches!(status, 400..=403) && !self.is_denied(),
            _ => false,
        }
    }
}

/// Signs and sends a GET of `path_and_query` (already percent-encoded) and gives the answer's text.
///
/// The proxy variables of the environment are honoured. Takes at most 10 s beside the finding of credentials.
///
/// # Errors
/// See [`CallError`].
pub async fn get(aws: &Aws, service: Service, path_and_query: &str) -> Result<String, CallError> {
    let session = aws.session().await?;
    let base = aws.base_url(service, &session.region).await;
    let url = format!("{base}{path_and_query}");
    let parsed = Url::parse(&url).map_err(|_| CallError::Address(base.clone()))?;
    let host = parsed.host_str().ok_or_else(|| CallError::Address(base.clone()))?;
    let authority = match parsed.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    let unreachable = |error: reqwest::Error| CallError::Unreachable {
        host: host.to_owned(),
        problem: crate::util::text::sentence(&error.without_url()),
    };
    let client = Client::builder()
        .connect_timeout(CONNECT_LIMIT)
        .timeout(LIMIT)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(unreachable)?;
    let mut request = client.get(&url);
    for (name, value) in sigv4::get_headers(&url, &authority, service.name, &session, SystemTime::now())? {
        request = request.header(name, value.reveal());
    }
    let response = request.send().await.map_err(unreachable)?;
    let head = Head::of(&response, host);
    let body = text(response).await.map_err(|error| match error {
        Body::Failed(error) => unreachable(error),
        Body::TooLong => CallError::Answer {
            host: host.to_owned(),
            problem: format!("more than {MAX_ANSWER_BYTES} bytes"),
        },
    })?;
    if head.status.is_success() {
        Ok(body)
    } else {
        Err(head.refusal(&body))
    }
}

/// What of an answer is needed beside its body.
struct Head {
    host: String,
    status: StatusCode,
    code: String,
    skew: Option<ClockSkew>,
}

impl Head {
    fn of(response: &Response, host: &str) -> Self {
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        Self {
            host: host.to_owned(),
            status: response.status(),
            // `AccessDeniedException:http://internal.amazon.com/...`
            code: header("x-amzn-errortype")
                .and_then(|code| code.split(':').next())
                .map(first_line)
                .unwrap_or_default(),
            skew: header("date").and_then(|date| ClockSkew::from_date(date, SystemTime::now())),
        }
    }

    fn refusal(self, body: &str) -> CallError {
        if let (Some(skew), 400..=403) = (self.skew, self.status.as_u16()) {
            return CallError::Clock(skew);
        }
        let json: Value = serde_json::from_str(body).unwrap_or_default();
        let message = json["message"].as_str().or(json["Message"].as_str());
        CallError::Refused {
            host: self.host,
            status: self.status.as_u16(),
            code: self.code,
            // Only the first line: further ones of a refused signature repeat the headers, the session token with them.
            message: message.map(first_line).unwrap_or_default(),
        }
    }
}

enum Body {
    Failed(reqwest::Error),
    TooLong,
}

async fn text(mut response: Response) -> Result<String, Body> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(Body::Failed)? {
        if bytes.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(Body::TooLong);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(status: u16, skew: Option<ClockSkew>) -> Head {
        Head {
            host: "iot.example".into(),
            status: StatusCode::from_u16(status).unwrap(),
            code: "AccessDeniedException".into(),
            skew,
        }
    }

    #[test]
    fn a_refusal_repeats_no_canonical_request() {
        let body = r#"{"message":"No match.\n\nThe canonical string is x-amz-security-token:hidden"}"#;
        let text = head(403, None).refusal(body).to_string();
        assert_eq!(text, "iot.example answered 403 AccessDeniedException: No match.");
    }

    #[test]
    fn a_refusal_while_the_clock_is_off_is_about_the_clock() {
        let skew = ClockSkew::from_date("Sun, 06 Nov 1994 08:49:37 GMT", SystemTime::now());
        assert!(matches!(head(403, skew).refusal("{}"), CallError::Clock(_)));
        assert!(matches!(
            head(500, skew).refusal("{}"),
            CallError::Refused { status: 500, .. }
        ));
    }
}
