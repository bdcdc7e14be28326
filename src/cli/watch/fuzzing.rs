//! What `tests/fuzz` calls here.

use super::{Paint, lines};
use crate::uplink::ReceivedMessage;

/// What `watch` shows of a message.
pub fn watch_lines(topic: &str, payload: &[u8]) -> Vec<String> {
    let received = ReceivedMessage {
        topic: topic.to_owned(),
        payload: payload.to_vec().into(),
    };
    lines(&received, Paint(false))
}
