//! The page: one self-contained file. Its style and script may run because they carry a nonce that is new for each answer;
//! nothing else may, and nothing is fetched from anywhere but this device.

use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};
use uuid::Uuid;

const HTML: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");

/// The live page.
pub(super) fn live(headers: &HeaderMap) -> Response {
    with_policy(HTML, STYLE, SCRIPT, headers)
}

/// Puts style and script into the page, and says in the policy that only these are to be trusted. `headers` are those of
/// the request, whose `Host` has been checked: older Safari does not count a WebSocket to the same host as `'self'`.
pub(crate) fn with_policy(html: &str, style: &str, script: &str, headers: &HeaderMap) -> Response {
    let nonce = Uuid::new_v4().simple().to_string();
    let page = html
        .replace("{{style}}", style)
        .replace("{{script}}", script)
        .replace("{{nonce}}", &nonce);
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .filter(|host| {
            host.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b".-:[]_".contains(&b))
        });
    let sockets = host
        .map(|host| format!(" ws://{host} wss://{host}"))
        .unwrap_or_default();
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src 'self' data: blob:; \
         connect-src 'self'{sockets}; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    );
    let mut response = Html(page).into_response();
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_one_file_and_names_no_other_address() {
        for text in [HTML, STYLE, SCRIPT] {
            for outside in [
                "http://",
                "https://",
                "//cdn",
                "@import",
                "innerHTML",
                "insertAdjacentHTML",
                "document.write",
            ] {
                assert!(!text.contains(outside), "{outside} in the page");
            }
        }
        assert!(
            !HTML.contains(" style=") && !HTML.contains(" onclick="),
            "the policy would not let it"
        );
    }

    #[test]
    fn only_what_carries_the_nonce_may_run_and_each_answer_has_its_own() {
        let policy = |response: &Response| {
            let policy = &response.headers()[header::CONTENT_SECURITY_POLICY];
            policy.to_str().unwrap().to_owned()
        };
        let (one, two) = (live(&HeaderMap::new()), live(&HeaderMap::new()));
        assert_ne!(policy(&one), policy(&two));
        assert!(policy(&one).starts_with("default-src 'none'; script-src 'nonce-"));
        assert!(!policy(&one).contains("unsafe"));
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("pi.local:4912; script-src *"));
        assert!(
            !policy(&live(&headers)).contains('*'),
            "a host cannot add to the policy"
        );
    }
}
