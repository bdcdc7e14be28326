//! What `tests/fuzz` calls here.

use std::path::Path;

use axum::http::{HeaderMap, Uri};

use super::access::Access;
use crate::util::secret::Secret;

pub use super::inference_server::fuzzing::{Prepared, picture, read_features, read_upload};

/// Checks a request. Returns whether it may read, whether it may change settings, and the text of a refusal.
pub fn check_access(token: &str, headers: &HeaderMap, uri: &Uri, is_local: bool) -> (bool, bool, String) {
    let access = Access::new(Some(Secret::new(token.to_owned())), "device", Path::new("/nonexistent"));
    let checked = access.check(headers, uri);
    let peer = if is_local { [127, 0, 0, 1] } else { [10, 0, 0, 9] };
    let may_change = access.may_change(peer.into(), headers, uri);
    let refusal = checked.as_ref().err().map(ToString::to_string).unwrap_or_default();
    (checked.is_ok(), may_change, refusal)
}
