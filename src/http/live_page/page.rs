//! The HTML page: one self-contained file.

use axum::http::HeaderMap;
use axum::response::Response;

use crate::http::html_page;

const HTML: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
/// One script: `page.js` shows the state, `zones.js` zones, lines and events, `editor.js`, `pointer.js` and `keyboard.js` let a
/// person draw them.
const SCRIPT: &str = concat!(
    include_str!("page/page.js"),
    include_str!("page/zones.js"),
    include_str!("page/pointer.js"),
    include_str!("page/keyboard.js"),
    include_str!("page/editor.js"),
    include_str!("page/start.js"),
);

/// The response with the page.
pub(super) fn response(request_headers: &HeaderMap) -> Response {
    html_page::response(HTML, STYLE, SCRIPT, request_headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_one_file_without_other_addresses() {
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
            "the policy does not allow it"
        );
    }
}
