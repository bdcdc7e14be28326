//! Makes a message small enough for the local publish/subscribe.

use bytes::Bytes;
use serde_json::{Map, Value, json};

/// Lists of results in an inference message, with the fields that count what is left out.
const LISTS: [(&str, &str); 2] = [("grid", "grid_omitted"), ("box", "box_omitted")];
const LABELS: (&str, &str) = ("c", "c_omitted");
/// Room for a count in the message.
const COUNT_DIGITS: usize = 20;

/// A message that was shortened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ShortMessage {
    pub payload: Bytes,
    /// The number of cells, boxes or labels that are left out: the weakest ones. 0: only the picture is left out.
    pub omitted: u64,
}

/// The message without its picture (`image_omitted`), and with the strongest results that fit if it is still too large. `None`:
/// it cannot be made small enough.
pub(super) fn shorten(payload: &[u8], max: usize) -> Option<ShortMessage> {
    let Value::Object(mut message) = serde_json::from_slice(payload).ok()? else {
        return None;
    };
    if message.remove("image").is_some() {
        message.insert("image_omitted".to_owned(), true.into());
    }
    let mut omitted = 0;
    if length(&message) > max {
        omitted = cut_results(&mut message, max)?;
    }
    let payload = Value::Object(message).to_string().into();
    Some(ShortMessage { payload, omitted })
}

/// Leaves out the weakest results; returns their number.
fn cut_results(message: &mut Map<String, Value>, max: usize) -> Option<u64> {
    for (key, omitted_key) in LISTS {
        if let Some(Value::Array(list)) = message.get(key) {
            let cells = list.iter().map(|cell| (cell["value"].as_f64(), cell.clone()));
            let (kept, omitted) = strongest(cells.collect(), room(message, key, max)?);
            return Some(set_results(message, (key, json!(kept)), omitted_key, omitted));
        }
    }
    let (key, omitted_key) = LABELS;
    let labels = message.get(key)?.as_object()?;
    let labels = labels
        .iter()
        .map(|(label, score)| (score.as_f64(), json!({ label: score })));
    let (kept, omitted) = strongest(labels.collect(), room(message, key, max)?);
    let kept: Map<_, _> = kept
        .into_iter()
        .filter_map(|label| match label {
            Value::Object(label) => Some(label),
            _ => None,
        })
        .flatten()
        .collect();
    Some(set_results(message, (key, json!(kept)), omitted_key, omitted))
}

/// The bytes that the results may have; `None`: the rest of the message is too large.
fn room(message: &Map<String, Value>, key: &str, max: usize) -> Option<usize> {
    let results = message.get(key)?.to_string().len();
    let note = key.len() + r#","_omitted":[]"#.len() + COUNT_DIGITS;
    max.checked_sub(length(message) - results + note)
}

/// The results with the highest values that fit into `room`, and the number of the others.
fn strongest(mut results: Vec<(Option<f64>, Value)>, mut room: usize) -> (Vec<Value>, u64) {
    results.sort_by(|(a, _), (b, _)| b.unwrap_or(f64::MIN).total_cmp(&a.unwrap_or(f64::MIN)));
    let total = results.len();
    let has_room = |(_, result): &(_, Value)| match room.checked_sub(result.to_string().len() + 1) {
        Some(left) => {
            room = left;
            true
        }
        None => false,
    };
    let kept: Vec<_> = results
        .into_iter()
        .take_while(has_room)
        .map(|(_, result)| result)
        .collect();
    let omitted = (total - kept.len()) as u64;
    (kept, omitted)
}

/// Replaces the results, and adds those left out to the number that the message has already.
fn set_results(
    message: &mut Map<String, Value>,
    (key, results): (&str, Value),
    omitted_key: &str,
    omitted: u64,
) -> u64 {
    let before = message.get(omitted_key).and_then(Value::as_u64).unwrap_or(0);
    message.insert(key.to_owned(), results);
    message.insert(omitted_key.to_owned(), (before + omitted).into());
    omitted
}

fn length(message: &Map<String, Value>) -> usize {
    json!(message).to_string().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 1000;

    fn shortened(message: &Value) -> Option<(Value, u64)> {
        let short = shorten(message.to_string().as_bytes(), MAX)?;
        assert!(short.payload.len() <= MAX, "{} bytes", short.payload.len());
        Some((serde_json::from_slice(&short.payload).unwrap(), short.omitted))
    }

    #[test]
    fn the_picture_is_left_out_first() {
        let message = json!({"id": "x", "box": [{"value": 0.5}], "image": "A".repeat(5000)});
        let (short, omitted) = shortened(&message).unwrap();
        assert_eq!(
            short,
            json!({"id": "x", "box": [{"value": 0.5}], "image_omitted": true})
        );
        assert_eq!(omitted, 0);
    }

    #[test]
    fn the_strongest_results_are_kept() {
        let cells: Vec<_> = (0..200)
            .map(|n| json!({"value": f64::from((n * 37) % 200) / 200.0, "x": n}))
            .collect();
        for (key, omitted_key) in LISTS {
            let message = json!({key: cells, omitted_key: 5, "image": "A", "ts": 7});
            let (short, omitted) = shortened(&message).unwrap();
            let kept = short[key].as_array().unwrap();
            assert!(kept.len() > 20, "{short}");
            assert_eq!(omitted, 200 - kept.len() as u64);
            assert_eq!(short[omitted_key], 5 + omitted);
            for (rank, cell) in kept.iter().enumerate() {
                assert_eq!(cell["value"], (199 - rank) as f64 / 200.0);
            }
            assert_eq!((&short["ts"], &short["image_omitted"]), (&json!(7), &json!(true)));
        }
        let labels: Map<_, _> = (0..200)
            .map(|n| (format!("label {n}"), json!(f64::from(n) / 200.0)))
            .collect();
        let (short, omitted) = shortened(&json!({"c": labels})).unwrap();
        let kept = short["c"].as_object().unwrap();
        assert_eq!(omitted, 200 - kept.len() as u64);
        assert!(kept.len() > 20 && kept.contains_key("label 199") && !kept.contains_key("label 0"));
    }

    #[test]
    fn a_message_that_cannot_be_shortened_is_refused() {
        for message in [
            json!({"freeform": vec![0.5; 1000]}),
            json!({"info": "A".repeat(2000), "box": [{"value": 1}]}),
            json!([1, 2]),
        ] {
            assert_eq!(shortened(&message), None);
        }
        assert_eq!(shorten(b"no JSON", MAX), None);
    }
}
