//! What Edge Impulse Studio answers and asks.

use ei_greengrass::fuzzing::studio::{message_in_log, parse_answer, recognise};
use ei_greengrass::studio::channel::{Incoming, MAX_RECORDS, RecordRequest};
use serde_json::Value;

use crate::input::{Input, SECRET, assert_hidden};

/// Answers of the REST API.
pub fn studio_answer(data: &[u8]) {
    let mut input = Input(data);
    let status = [200, 200, 200, 401, 404, 500][usize::from(input.byte()) % 6];
    for shown in parse_answer(status, input.0) {
        assert!(shown.len() < 100_000, "an error is bounded");
    }
}

/// Messages of the channel.
pub fn studio_message(data: &[u8]) {
    match recognise(data) {
        Some((incoming, answer)) => {
            match incoming {
                Incoming::Sample(Ok(sample)) => {
                    assert!(sample.label.chars().count() <= 200 && !sample.label.contains(char::is_control));
                    assert!(sample.length_ms.is_finite() && sample.interval_ms.is_finite());
                    assert!(!sample.category.contains('/'));
                }
                Incoming::RecordRequest(Ok(RecordRequest::List { indices, unusable })) => {
                    assert!(indices.len() + unusable <= MAX_RECORDS);
                }
                Incoming::NewModelAvailable(Ok(version)) => assert!(version != Some(0)),
                _ => {}
            }
            if let Some(answer) = answer {
                serde_json::from_str::<Value>(&answer).expect("an answer is JSON");
            }
        }
        None => hide_values(data),
    }
}

/// The log has the names of the members of a message that is not known, and no values.
fn hide_values(data: &[u8]) {
    let Ok(Value::Object(mut message)) = serde_json::from_slice(data) else {
        return;
    };
    for value in message.values_mut() {
        *value = SECRET.into();
    }
    let message = Value::Object(message).to_string();
    assert_hidden(message_in_log(message.as_bytes()));
}
