//! What `tests/fuzz` calls here.

use super::Incoming;
use super::incoming::{self, Recognised};

/// Recognises a message of Studio, and answers it as a device without services. `None`: it is ignored.
pub fn recognise(text: &[u8]) -> Option<(Incoming, Option<String>)> {
    match incoming::recognise(text) {
        Recognised::Known(_, incoming) => {
            let answer = incoming
                .refusal("nobody handles it")
                .map(|answer| answer.to_text().to_string());
            Some((incoming, answer))
        }
        Recognised::Unknown(_) | Recognised::NotJson => None,
    }
}

/// What the log has of a message that is ignored.
pub fn message_in_log(text: &[u8]) -> Option<String> {
    match incoming::recognise(text) {
        Recognised::Unknown(members) => Some(members),
        Recognised::Known(..) | Recognised::NotJson => None,
    }
}
