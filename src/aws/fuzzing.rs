//! What `tests/fuzz` calls here.

use super::{Answer, discovery, request, secret};
use crate::util::secret::Secret;

pub use super::secret_value::find_value;

/// The endpoint in an answer of IoT Core, and the identity in one of STS.
pub fn parse_discovery(text: &str) -> (Option<String>, Option<String>) {
    let endpoint = discovery::parse_endpoint(text).map(|host| {
        let shown = host.to_string();
        assert_eq!(shown.parse().as_ref(), Ok(&host), "what is shown is read");
        assert!(host.region().is_none_or(|region| shown.contains(region)));
        shown
    });
    (endpoint, discovery::parse_arn(text))
}

/// A refusal as it is shown, with the permission that is missing.
pub fn refusal(status: u16, code: &str, body: &str) -> String {
    let answer = Answer::new(status, Some(code), request::xml_text(body, "Message").or(Some(body)));
    super::answer::Cause::of(&answer);
    let permission = super::answer::missing_permission(&answer.message, "iot:DescribeEndpoint");
    format!("{answer}; {permission}")
}

/// The API key in the text of a secret, or why there is none.
pub fn api_key(text: &str) -> Result<Secret, String> {
    secret::parse(Some(text), "EI_API_KEY", "ei_api_key").map_err(|error| error.to_string())
}
