//! Asks ingestion whether it takes samples with this key, without a sample.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::Value;
use url::Url;

use super::ingestion::{IngestionClient, IngestionReply};
use crate::studio::error::StudioError;
use crate::util::secret::Secret;
use crate::util::text::excerpt;

/// Time for the connection, and then for the answer.
const LIMIT: Duration = Duration::from_secs(10);

/// Why ingestion would take no sample.
#[derive(Debug, thiserror::Error)]
pub enum IngestionFault {
    /// The request cannot be made.
    #[error(transparent)]
    Client(#[from] StudioError),
    /// No connection or no answer.
    #[error(
        "the ingestion of Edge Impulse Studio ({host}) cannot be reached: {reason}; check the network, DNS and proxy (HTTPS_PROXY) of this device"
    )]
    Unreachable {
        /// Host of the request.
        host: String,
        /// Why.
        reason: String,
    },
    /// The key is refused.
    #[error(
        "{host} refuses the API key (HTTP {status}{told}): create a key in Studio (Dashboard, Keys) and store it in the secret (ei_sm_secret_id)"
    )]
    KeyRefused {
        /// Host of the request.
        host: String,
        /// HTTP status.
        status: u16,
        /// What it says, after a colon.
        told: String,
    },
    /// Ingestion is overloaded or out of order.
    #[error(
        "{host} cannot take samples now (HTTP {status}{told}): try again later; the component keeps samples on disk meanwhile"
    )]
    NotNow {
        /// Host of the request.
        host: String,
        /// HTTP status.
        status: u16,
        /// What it says, after a colon.
        told: String,
    },
    /// Another server answers.
    #[error(
        "{host} answers with HTTP {status}, and not as ingestion does: check EI_HOST and EI_INGESTION_URL, and that no proxy or login page answers"
    )]
    NotIngestion {
        /// Host of the request.
        host: String,
        /// HTTP status.
        status: u16,
    },
}

/// Sends an upload without a file: nothing can be stored, and a wrong key is refused. Returns the result as text.
///
/// # Errors
/// [`IngestionFault`]
pub async fn probe(ingestion: &Url, key: &Secret) -> Result<String, IngestionFault> {
    let host = ingestion.host_str().unwrap_or_default().to_owned();
    let client = IngestionClient::new(LIMIT)?;
    match client.upload_nothing(ingestion, key, LIMIT).await? {
        Ok(reply) => judge(host, &reply),
        Err(reason) => Err(IngestionFault::Unreachable { host, reason }),
    }
}

fn judge(host: String, IngestionReply { status, text }: &IngestionReply) -> Result<String, IngestionFault> {
    let code = status.as_u16();
    let answer: Value = serde_json::from_slice(text).unwrap_or_default();
    let plain = String::from_utf8_lossy(text);
    let told = match answer["error"].as_str().unwrap_or(&plain).trim() {
        "" => String::new(),
        told => format!(": {}", excerpt(told)),
    };
    // Ingestion answers JSON, or a line of plain text.
    let is_page = answer.is_null() && plain.trim_start().starts_with('<');
    match *status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if !is_page => Err(IngestionFault::KeyRefused {
            host,
            status: code,
            told,
        }),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => Err(IngestionFault::NotNow {
            host,
            status: code,
            told,
        }),
        status if status.is_server_error() => Err(IngestionFault::NotNow {
            host,
            status: code,
            // A page of a gateway says no more than its status.
            told: if is_page { String::new() } else { told },
        }),
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
            Err(IngestionFault::NotIngestion { host, status: code })
        }
        status if is_page || status.is_redirection() || status.is_success() && answer.is_null() => {
            Err(IngestionFault::NotIngestion { host, status: code })
        }
        _ => Ok(format!(
            "{host} answers and does not refuse the key (HTTP {code}{told}); no sample was sent"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(status: u16, text: &str) -> String {
        let reply = IngestionReply {
            status: StatusCode::from_u16(status).unwrap(),
            text: text.as_bytes().to_vec(),
        };
        judge("h".to_owned(), &reply).unwrap_or_else(|fault| format!("FAILS {fault}"))
    }

    #[test]
    fn an_answer_about_the_missing_file_means_that_the_key_is_not_refused() {
        for (status, text) in [
            (400, r#"{"success":false,"error":"no files"}"#),
            (400, "no files"),
            (421, ""),
            (422, "no files"),
            (200, r#"{"success":true,"files":[]}"#),
        ] {
            let told = judged(status, text);
            assert!(told.contains("does not refuse the key"), "{status} {text}: {told}");
        }
    }

    #[test]
    fn what_fails_says_what_to_do() {
        for (status, text, part) in [
            (
                401,
                r#"{"success":false,"error":"Invalid API key"}"#,
                "(HTTP 401: Invalid API key): create a key",
            ),
            (403, "", "(HTTP 403): create a key"),
            (401, "<html>", "check EI_HOST"),
            (500, "<html>", "(HTTP 500): try again later"),
            (503, "busy", "(HTTP 503: busy): try again later"),
            (429, "", "try again later"),
            (404, r#"{"error":"no"}"#, "check EI_HOST"),
            (302, "", "check EI_HOST"),
            (200, "<html>", "check EI_HOST"),
            (200, "", "check EI_HOST"),
        ] {
            let told = judged(status, text);
            assert!(
                told.starts_with("FAILS") && told.contains(part),
                "{status} {text}: {told}"
            );
        }
    }
}
