//! Logs the newest inference at intervals. Greengrass keeps log files of 1 MB: a line for each of 30 inferences a
//! second would displace all other lines within minutes.

use std::fmt::Write;
use std::time::{Duration, Instant};

use crate::config::Verbosity;
use crate::model::InferenceResult;
use crate::report::detections::Detections;
use crate::util::text::clean;

/// Time between two lines.
const INTERVAL: Duration = Duration::from_secs(10);
/// The same with `--verbose`.
const VERBOSE_INTERVAL: Duration = Duration::from_secs(1);
/// Detections of one inference that a line lists.
const LISTED: usize = 5;
/// Longest label in a line, in characters.
const LABEL: usize = 40;

/// Decides which inferences are logged, and formats them.
#[derive(Debug)]
pub struct PredictionLogger {
    /// `None`: no inference is logged (`--dont-print-predictions`).
    interval: Option<Duration>,
    last: Option<Instant>,
    /// Inferences since the last line.
    since_last: u64,
}

impl PredictionLogger {
    /// One line every ten seconds, every second with `--verbose`, none when `quiet`.
    pub fn new(quiet: bool, verbosity: Verbosity) -> Self {
        let interval = match verbosity {
            Verbosity::Verbose => VERBOSE_INTERVAL,
            Verbosity::Normal | Verbosity::Silent => INTERVAL,
        };
        Self {
            interval: (!quiet && verbosity != Verbosity::Silent).then_some(interval),
            last: None,
            since_last: 0,
        }
    }

    /// Writes a line if one is due and the inference found something.
    pub fn log(&mut self, now: Instant, result: &InferenceResult, wall_ms: f32) {
        if let Some((found, skipped)) = self.line(now, result) {
            let wall_ms = wall_ms.round();
            tracing::info!(wall_ms, skipped, found, "Inference");
        }
    }

    /// What was found, and how many inferences were not logged since the last line; `None`: no line.
    fn line(&mut self, now: Instant, result: &InferenceResult) -> Option<(String, u64)> {
        self.since_last += 1;
        let interval = self.interval?;
        if self
            .last
            .is_some_and(|last| now.saturating_duration_since(last) < interval)
        {
            return None;
        }
        let found = describe(result)?;
        self.last = Some(now);
        Some((found, std::mem::take(&mut self.since_last) - 1))
    }
}

/// Lists what was found, the highest confidence first; `None`: nothing.
fn describe(result: &InferenceResult) -> Option<String> {
    let mut items: Vec<(f64, String)> = match Detections::of(result) {
        Detections::Nothing => return None,
        Detections::Freeform(arrays) => {
            let values: usize = arrays.iter().map(Vec::len).sum();
            return Some(format!("{values} values in {} arrays", arrays.len()));
        }
        Detections::Anomaly(score) => return Some(format!("anomaly {score:.2}")),
        Detections::VisualAnomaly(score) => return Some(format!("no anomalous cells, anomaly {score:.2}")),
        Detections::Grid(boxes) | Detections::Boxes(boxes) => boxes
            .iter()
            .map(|found| {
                let text = format!(
                    "{} {:.2} at {},{} {}x{}",
                    label(&found.label),
                    found.value,
                    found.x,
                    found.y,
                    found.width,
                    found.height
                );
                (found.value, text)
            })
            .collect(),
        Detections::Classes(classes) => classes
            .iter()
            .map(|(name, value)| (*value, format!("{} {value:.2}", label(name))))
            .collect(),
    };
    items.sort_by(|a, b| b.0.total_cmp(&a.0));
    let listed: Vec<_> = items.iter().take(LISTED).map(|(_, text)| text.as_str()).collect();
    let mut text = listed.join(", ");
    if items.len() > LISTED {
        let _ = write!(text, " and {} more", items.len() - LISTED);
    }
    Some(text)
}

/// A label of the model without control characters.
fn label(text: &str) -> String {
    clean(text, LABEL)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classes(values: &[(&str, f64)]) -> InferenceResult {
        InferenceResult {
            classification: Some(
                values
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), *value))
                    .collect(),
            ),
            ..Default::default()
        }
    }

    #[test]
    fn the_first_inference_is_logged_and_then_one_every_ten_seconds_or_every_second() {
        let start = Instant::now();
        for (verbosity, expected) in [
            (Verbosity::Normal, vec![0, 10, 20]),
            (Verbosity::Verbose, (0..=20).collect()),
            (Verbosity::Silent, vec![]),
        ] {
            let mut logger = PredictionLogger::new(false, verbosity);
            let result = classes(&[("cat", 0.5)]);
            let lines = (0..=40u64).filter(|half| {
                let now = start + Duration::from_millis(half * 500);
                logger.line(now, &result).is_some()
            });
            assert_eq!(
                lines.map(|half| half / 2).collect::<Vec<_>>(),
                expected,
                "{verbosity:?}"
            );
        }
        assert_eq!(
            PredictionLogger::new(true, Verbosity::Verbose).line(start, &classes(&[("a", 1.0)])),
            None
        );
    }

    #[test]
    fn a_line_lists_the_highest_confidences_and_the_number_of_skipped_inferences() {
        let (mut logger, now) = (PredictionLogger::new(false, Verbosity::Normal), Instant::now());
        assert_eq!(logger.line(now, &InferenceResult::default()), None, "nothing was found");
        let values = [
            ("a", 0.1),
            ("b\n", 0.9),
            ("c", 0.3),
            ("d", 0.2),
            ("e", 0.0),
            ("f", 0.05),
        ];
        assert_eq!(
            logger.line(now, &classes(&values)).unwrap(),
            ("b 0.90, c 0.30, d 0.20, a 0.10, f 0.05 and 1 more".to_owned(), 1)
        );
    }
}
