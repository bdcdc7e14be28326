//! HTML pages that consist of a single file.
//!
//! The style and the script of a page have a nonce, which is new for each response. No other script may run, and
//! the page loads nothing from another host.

use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};
use uuid::Uuid;

/// Builds the response with a page: inserts style and script, and sets the content security policy. `request_headers` must
/// have passed [`Access::check`](super::access::Access::check): `Host` becomes part of the policy, because in older versions
/// of Safari `'self'` does not include a WebSocket to the same host.
pub(super) fn response(html: &str, style: &str, script: &str, request_headers: &HeaderMap) -> Response {
    let nonce = Uuid::new_v4().simple().to_string();
    let page = html
        .replace("{{style}}", style)
        .replace("{{script}}", script)
        .replace("{{nonce}}", &nonce);
    let host = request_headers
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
    fn only_elements_with_the_nonce_may_run_and_each_response_has_a_new_nonce() {
        let policy = |headers: &HeaderMap| {
            let response = response("", "", "", headers);
            let policy = &response.headers()[header::CONTENT_SECURITY_POLICY];
            policy.to_str().unwrap().to_owned()
        };
        let (one, two) = (policy(&HeaderMap::new()), policy(&HeaderMap::new()));
        assert_ne!(one, two);
        assert!(one.starts_with("default-src 'none'; script-src 'nonce-"));
        assert!(!one.contains("unsafe"));
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("pi.local:4912; script-src *"));
        assert!(!policy(&headers).contains('*'), "a host cannot add to the policy");
    }
}
