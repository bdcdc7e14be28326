//! Requests as bytes, written into a reused buffer.
//!
//! The model counts braces without parsing strings: a single brace inside a string would desynchronise the connection
//! permanently. So no string with a brace is ever written.

use std::io::Write;

use serde_json::{Map, Value};

/// The first request of a connection.
pub fn hello(out: &mut Vec<u8>, id: i32) {
    out.clear();
    put(out, format_args!("{{\"hello\":1,\"id\":{id}}}\n"));
}

/// Classifies the values in shared memory: a picture or a window, or with `continuous` the next audio slice.
pub fn classify_shm(out: &mut Vec<u8>, id: i32, elements: usize, continuous: bool) {
    out.clear();
    let kind = if continuous {
        "classify_continuous_shm"
    } else {
        "classify_shm"
    };
    put(
        out,
        format_args!("{{\"{kind}\":{{\"elements\":{elements}}},\"id\":{id}}}\n"),
    );
}

/// Classifies the values in the request. Values that are not finite are sent as 0.
pub fn classify(out: &mut Vec<u8>, id: i32, features: &[f32], continuous: bool) {
    out.clear();
    let kind = if continuous { "classify_continuous" } else { "classify" };
    put(out, format_args!("{{\"{kind}\":["));
    for (index, feature) in features.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        number(out, *feature);
    }
    put(out, format_args!("],\"id\":{id}}}\n"));
}

/// Sets one key of one block. `None`: the key or the value cannot be sent.
pub fn set_threshold(out: &mut Vec<u8>, id: i32, block: i64, key: &str, value: f64) -> Option<()> {
    let is_plain = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !is_plain || !value.is_finite() {
        return None;
    }
    out.clear();
    put(
        out,
        format_args!("{{\"set_threshold\":{{\"id\":{block},\"{key}\":{value}}},\"id\":{id}}}\n"),
    );
    Some(())
}

/// Sets parameters of the model. `None`: a string in them has a brace.
pub fn set_parameter(out: &mut Vec<u8>, id: i32, parameters: &Map<String, Value>) -> Option<()> {
    let is_sendable = parameters.iter().all(|(key, value)| {
        let text = match value {
            Value::String(text) => text.as_str(),
            Value::Array(_) | Value::Object(_) => return false,
            _ => "",
        };
        !key.contains(['{', '}']) && !text.contains(['{', '}'])
    });
    if !is_sendable {
        return None;
    }
    out.clear();
    out.extend_from_slice(b"{\"set_parameter\":");
    serde_json::to_writer(&mut *out, parameters).ok()?;
    put(out, format_args!(",\"id\":{id}}}\n"));
    Some(())
}

/// Writing into a `Vec` cannot fail.
fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(text);
}

/// Pixels and samples are whole numbers: writing their digits directly is ten times as fast as formatting a float.
fn number(out: &mut Vec<u8>, value: f32) {
    /// Below this every whole `f32` is exact.
    const EXACT: f32 = 16_777_216.0;
    if !value.is_finite() {
        out.push(b'0');
    } else if value.fract() != 0.0 || value.abs() > EXACT {
        put(out, format_args!("{value}"));
    } else {
        if value < 0.0 {
            out.push(b'-');
        }
        let mut digits = [0u8; 10];
        let mut at = digits.len();
        let mut rest = value.abs() as u32;
        loop {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        out.extend_from_slice(&digits[at..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = b"left over".to_vec();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn requests_are_the_ones_that_recorded_models_accepted() {
        assert_eq!(text(|out| hello(out, 1)), "{\"hello\":1,\"id\":1}\n");
        assert_eq!(
            text(|out| classify_shm(out, 3, 9216, false)),
            "{\"classify_shm\":{\"elements\":9216},\"id\":3}\n"
        );
        assert_eq!(
            text(|out| classify(out, 22, &[1.0, -274.0, 8421504.0, 0.5, f32::NAN, -0.0], true)),
            "{\"classify_continuous\":[1,-274,8421504,0.5,0,0],\"id\":22}\n"
        );
        assert_eq!(
            text(|out| set_threshold(out, 18, 18, "min_score", 0.95).unwrap()),
            "{\"set_threshold\":{\"id\":18,\"min_score\":0.95},\"id\":18}\n"
        );
    }

    #[test]
    fn no_brace_is_ever_sent_inside_a_string() {
        let mut out = Vec::new();
        assert_eq!(set_threshold(&mut out, 1, 1, "min{score", 0.5), None);
        assert_eq!(set_threshold(&mut out, 1, 1, "min_score", f64::NAN), None);
        let parameters = |value: Value| Map::from_iter([("image_resize_mode".to_owned(), value)]);
        assert_eq!(set_parameter(&mut out, 1, &parameters("no}ne".into())), None);
        assert_eq!(set_parameter(&mut out, 1, &parameters("none".into())), Some(()));
        assert_eq!(out, b"{\"set_parameter\":{\"image_resize_mode\":\"none\"},\"id\":1}\n");
    }

    proptest! {
        #[test]
        fn written_features_parse_to_the_same_values(features in prop::collection::vec(prop::num::f32::NORMAL | prop::num::f32::ZERO, 0..50)) {
            let mut out = Vec::new();
            classify(&mut out, 7, &features, false);
            let value: Value = serde_json::from_slice(&out).unwrap();
            let read: Vec<f32> = value["classify"].as_array().unwrap().iter().map(|n| n.as_f64().unwrap() as f32).collect();
            prop_assert_eq!(read, features);
        }
    }
}
