//! Answers to commands as JSON.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::uplink::CommandRefusal;
use crate::util::redact;
use crate::util::text::{visible, visible_lines};

/// Most characters of a client's text that an answer repeats.
const ECHO_CHARS: usize = 64;
/// Most characters of an error.
const MAX_ERROR: usize = 4000;

/// The result of a handler.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Reply {
    /// Value of the answer key of the command; `None` if there is only an error.
    value: Option<Value>,
    error: Option<String>,
}

impl Reply {
    pub fn value(value: impl Into<Value>) -> Self {
        Self {
            value: Some(value.into()),
            error: None,
        }
    }

    pub fn error(error: impl Into<String>) -> Self {
        Self {
            value: None,
            error: Some(error.into()),
        }
    }

    /// A refused value: the setting that stays, and an error that says what is accepted.
    pub fn refused(current: impl Into<Value>, error: impl Into<String>) -> Self {
        Self {
            value: Some(current.into()),
            error: Some(error.into()),
        }
    }

    /// `{"result":{"<answer_key>":...,"error":"..."}}`
    pub fn to_json(&self, answer_key: &str) -> Bytes {
        let mut result = Map::new();
        if let Some(value) = &self.value {
            result.insert(answer_key.to_owned(), value.clone());
        }
        if let Some(error) = &self.error {
            let error = visible_lines(&redact::credentials(error), MAX_ERROR);
            result.insert("error".to_owned(), json!(error));
        }
        json!({ "result": result }).to_string().into()
    }
}

/// The answer to a message that is not executed: `{"result":{"error":"..."}}`.
pub(super) fn error_answer(error: impl ToString) -> Bytes {
    Reply::error(error.to_string()).to_json("")
}

/// The answer to a command that the uplink refuses.
pub fn refusal_answer(refusal: CommandRefusal) -> Bytes {
    error_answer(refusal)
}

/// Shortens a client's text for an answer.
pub(super) fn shortened(text: &str) -> String {
    visible(text, ECHO_CHARS)
}
