//! Text from outside that is shown.

use ei_greengrass::fuzzing::cli::{log_lines, watch_lines};
use ei_greengrass::fuzzing::util::{
    credentials, in_place, is_deceptive, mask, references, refused, shortened, visible,
};
use serde_json::{Map, Value};

use crate::input::{Input, SECRET, assert_hidden};

/// Secrets in each of the forms that are recognised, in the midst of any other text.
pub fn redaction(data: &[u8]) {
    let mut input = Input(data);
    let form = input.byte();
    let (before, after) = (input.part_text(), input.part_text());
    for reference in references(&before) {
        assert_eq!(
            references(&reference),
            std::slice::from_ref(&reference),
            "what is shown is read"
        );
    }
    let secret = match form % 8 {
        0 => format!("rtsp://user:{SECRET}@camera/live"),
        1 => format!("mqtts://user:{SECRET}@broker:8883"),
        2 => format!("user-pw={SECRET}"),
        3 => format!("password={SECRET}"),
        4 => format!("https://host/path?token={SECRET}"),
        5 => format!("--api-key {SECRET}"),
        6 => format!("\"password\": \"{SECRET}\""),
        _ => format!("rtsp://camera/live user-id=me user-pw={SECRET}"),
    };
    let text = format!("{before} {secret} {after}");
    let shown = credentials(&text);
    assert_hidden([&shown, &refused(&text), &in_place(&text), &mask(&text, SECRET, &text)]);
    assert!(shown.len() <= text.len() * 3 + 3);
    assert_eq!(
        in_place(&text).chars().count(),
        text.chars().count(),
        "lines and columns stay"
    );
}

/// Texts in the log and on terminals.
pub fn log_text(data: &[u8]) {
    let text = Input(data).text();
    let [plain, json] = log_lines(&text);
    for line in [&plain, &json] {
        let line = line.strip_suffix('\n').expect("a line");
        assert!(!line.contains(is_deceptive), "{line:?}");
    }
    serde_json::from_str::<Map<String, Value>>(&json).expect("a line of JSON");
    for short in [
        visible(&text, 100),
        shortened(&text)[0].clone(),
        shortened(&text)[1].clone(),
    ] {
        assert!(!short.contains(is_deceptive), "{short:?}");
    }
    shortened(&text);
}

/// Messages that `watch` prints.
pub fn watched_message(data: &[u8]) {
    let mut input = Input(data);
    let suffix = [
        "output/inference",
        "events/zone",
        "metrics/model",
        "command/output",
        "command/input",
        "output/other",
    ][usize::from(input.byte()) % 6];
    let topic = format!("device/{suffix}");
    for line in watch_lines(&topic, input.0) {
        assert!(!line.contains(is_deceptive), "{line:?}");
    }
}
