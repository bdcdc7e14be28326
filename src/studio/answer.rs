//! Parses Studio's answers.

use reqwest::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::StudioError;
use crate::util::text::excerpt;

/// Parses the answer of `host` to the request for `what`. Studio reports some failures as JSON with status 200.
///
/// # Errors
/// [`StudioError`]
pub(super) fn parse<T: DeserializeOwned>(
    what: &'static str,
    host: &str,
    status: StatusCode,
    bytes: &[u8],
) -> Result<T, StudioError> {
    let answer: Option<Value> = serde_json::from_slice(bytes).ok();
    let text = answer
        .as_ref()
        .and_then(|answer| answer["error"].as_str())
        .map(excerpt)
        .unwrap_or_default();
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        let status = status.as_u16();
        return Err(StudioError::KeyRefused { what, status, text });
    }
    if !status.is_success() {
        let status = status.as_u16();
        return Err(StudioError::Status { what, status, text });
    }
    let Some(answer) = answer else {
        return Err(StudioError::NotJson {
            what,
            host: host.to_owned(),
            looks: looks(bytes),
        });
    };
    if answer["success"] == false {
        let text = if text.is_empty() {
            "without a reason".to_owned()
        } else {
            text
        };
        return Err(StudioError::Refused { what, text });
    }
    serde_json::from_value(answer).map_err(|e| StudioError::Unexpected {
        what,
        detail: excerpt(&e.to_string()),
    })
}

fn looks(bytes: &[u8]) -> &'static str {
    let head = String::from_utf8_lossy(bytes.get(..64).unwrap_or(bytes))
        .trim_start()
        .to_ascii_lowercase();
    match head {
        head if head.is_empty() => "empty",
        head if head.starts_with("<!doctype") || head.starts_with("<html") => "a web page",
        head if head.starts_with('{') || head.starts_with('[') => "incomplete",
        _ => "something else",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::studio::api;

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "(?s).{0,9}".prop_map(Value::from),
        ];
        let names = prop::sample::select(vec![
            "success",
            "error",
            "projects",
            "impulses",
            "targets",
            "modelVariants",
            "job",
            "stdout",
            "id",
            "format",
            "variant",
            "version",
            "finished",
            "data",
        ]);
        leaf.prop_recursive(3, 24, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((names.clone(), inner), 0..4).prop_map(|members| members
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value))
                    .collect()),
            ]
        })
    }

    fn sentence<T: std::fmt::Debug>(answer: Result<T, StudioError>) -> String {
        answer.map_or_else(|error| error.to_string(), |_| String::new())
    }

    proptest! {
        #[test]
        fn any_answer_is_parsed_or_gives_an_error_of_one_short_line(
            answer in any_json(),
            rest in prop::collection::vec(any::<u8>(), 0..20),
            status in 200..600_u16,
        ) {
                        let status = StatusCode::from_u16(status).expect("a status");
            let mut damaged = answer.to_string().into_bytes();
            damaged.extend(&rest);
            for bytes in [answer.to_string().into_bytes(), damaged, rest, json!({"error": "x\n".repeat(999)}).to_string().into()] {
                for text in [
                    sentence(parse::<api::Projects>("the projects", "studio.test", status, &bytes)),
                    sentence(parse::<api::Impulses>("the impulses", "studio.test", status, &bytes)),
                    sentence(parse::<api::Targets>("the targets", "studio.test", status, &bytes)),
                    sentence(parse::<api::Variants>("the variants", "studio.test", status, &bytes)),
                    sentence(parse::<api::DeploymentInfo>("the deployment", "studio.test", status, &bytes)),
                    sentence(parse::<api::JobStarted>("the job", "studio.test", status, &bytes)),
                    sentence(parse::<api::JobStatus>("the job", "studio.test", status, &bytes)),
                    sentence(parse::<api::JobOutput>("the job", "studio.test", status, &bytes)),
                ] {
                    prop_assert!(text.chars().count() < 2 * crate::util::text::EXCERPT + 300 && !text.contains(char::is_control), "{text:?}");
                }
            }
        }
    }
}
