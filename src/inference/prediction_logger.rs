//! What the model sees as lines of the log: the newest inference now and then. Greengrass keeps log files of 1 MB, and a
//! line for each of 30 inferences a second would push everything else out within minutes.

use std::fmt::Write;
use std::time::{Duration, Instant};

use crate::config::Verbosity;
use crate::model::InferenceResult;
use crate::report::findings::Detections;
use crate::util::text::clean;

/// Time between two lines.
const EVERY: Duration = Duration::from_secs(10);
/// The same with `--verbose`.
const EVERY_VERBOSE: Duration = Duration::from_secs(1);
/// Items of one inference that are named.
const NAMED: usize = 5;
/// Longest label in a line, in characters.
const LABEL: usize = 40;

/// Decides which inferences are told, and words them.
#[derive(Debug)]
pub struct PredictionLogger {
    /// `None`: none is (`--dont-print-predictions`).
    every: Option<Duration>,
    last: Option<Instant>,
    /// Inferences since the last line.
    since: u64,
}

impl PredictionLogger {
    /// One line every ten seconds, every second with `--verbose`, none when `quiet`.
    pub fn new(quiet: bool, verbosity: Verbosity) -> Self {
        let every = match verbosity {
            Verbosity::Verbose => EVERY_VERBOSE,
            Verbosity::Normal | Verbosity::Silent => EVERY,
        };
        Self {
            every: (!quiet && verbosity != Verbosity::Silent).then_some(every),
            last: None,
            since: 0,
        }
    }

    /// Writes a line about this inference when it is time for one and it found something.
    pub fn notify(&mut self, now: Instant, result: &InferenceResult, wall_ms: f32) {
        if let Some(line) = self.line(now, result, wall_ms) {
            tracing::info!("{line}");
        }
    }

    fn line(&mut self, now: Instant, result: &InferenceResult, wall_ms: f32) -> Option<String> {
        self.since += 1;
        let every = self.every?;
        if self
            .last
            .is_some_and(|last| now.saturating_duration_since(last) < every)
        {
            return None;
        }
        let found = words(result)?;
        self.last = Some(now);
        let more = match std::mem::take(&mut self.since) - 1 {
            0 => String::new(),
            more => format!(", {more} more since the last line"),
        };
        Some(format!("inference ({wall_ms:.0} ms{more}): {found}"))
    }
}

/// What was found, the most certain first; `None`: nothing.
fn words(result: &InferenceResult) -> Option<String> {
    let mut items: Vec<(f64, String)> = match Detections::of(result) {
        Detections::Nothing => return None,
        Detections::Freeform(arrays) => {
            let values: usize = arrays.iter().map(Vec::len).sum();
            return Some(format!("{values} values in {} arrays", arrays.len()));
        }
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
    let named: Vec<_> = items.iter().take(NAMED).map(|(_, text)| text.as_str()).collect();
    let mut text = named.join(", ");
    if items.len() > NAMED {
        let _ = write!(text, " and {} more", items.len() - NAMED);
    }
    Some(text)
}

/// A model's label, without what would break a log line.
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
    fn the_first_inference_is_told_and_then_one_every_ten_seconds_or_every_second() {
        let start = Instant::now();
        for (verbosity, told) in [
            (Verbosity::Normal, vec![0, 10, 20]),
            (Verbosity::Verbose, (0..=20).collect()),
            (Verbosity::Silent, vec![]),
        ] {
            let mut prediction_logger = PredictionLogger::new(false, verbosity);
            let result = classes(&[("cat", 0.5)]);
            let lines = (0..=40u64).filter(|half| {
                let now = start + Duration::from_millis(half * 500);
                prediction_logger.line(now, &result, 3.0).is_some()
            });
            assert_eq!(lines.map(|half| half / 2).collect::<Vec<_>>(), told, "{verbosity:?}");
        }
        assert_eq!(
            PredictionLogger::new(true, Verbosity::Verbose).line(start, &classes(&[("a", 1.0)]), 1.0),
            None
        );
    }

    #[test]
    fn a_line_names_the_most_certain_and_how_many_there_were() {
        let (mut prediction_logger, now) = (PredictionLogger::new(false, Verbosity::Normal), Instant::now());
        assert_eq!(
            prediction_logger.line(now, &InferenceResult::default(), 1.0),
            None,
            "nothing was found"
        );
        let values = [
            ("a", 0.1),
            ("b\n", 0.9),
            ("c", 0.3),
            ("d", 0.2),
            ("e", 0.0),
            ("f", 0.05),
        ];
        assert_eq!(
            prediction_logger.line(now, &classes(&values), 2.6).unwrap(),
            "inference (3 ms, 1 more since the last line): b 0.90, c 0.30, d 0.20, a 0.10, f 0.05 and 1 more"
        );
    }
}
