//! The names of the built-in models and their behaviour.

use std::time::Duration;

/// The names accepted after `builtin:`.
pub const NAMES: [&str; 8] = [
    "ball",
    "classify",
    "audio",
    "slow[=MILLISECONDS]",
    "crash[=ANSWERS]",
    "hang[=ANSWERS]",
    "garbage",
    "nop[=WIDTHxHEIGHT[,grey]]",
];

/// Answers before `crash` and `hang` fail, by default.
const ANSWERS: u64 = 5;
/// The delay of `slow` before each answer, by default.
const SLOW: Duration = Duration::from_secs(1);
/// Width and height of the input picture in pixels, by default.
const SIDE: usize = 320;
/// Pixels of the longest side that `nop` takes.
const MAX_SIDE: usize = 8192;

/// What the model detects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// The white ball, as one box.
    Ball,
    /// The brightest quarter, as one of four labels.
    Quarter,
    /// Tone or silence.
    Tone,
    /// Nothing: one fixed box at no cost.
    Nothing,
}

/// A deliberate fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// No fault.
    None,
    /// The process aborts after this many answers.
    Crash(u64),
    /// The model stops answering after this many answers.
    Hang(u64),
    /// Answers are not JSON.
    Garbage,
}

/// A built-in model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltinKind {
    /// Its name as given.
    pub name: String,
    /// What it detects.
    pub task: Task,
    /// Its deliberate fault.
    pub fault: Fault,
    /// Delay before each answer.
    pub delay: Duration,
    /// Pixels.
    pub width: usize,
    /// Pixels.
    pub height: usize,
    /// One channel instead of three.
    pub grey: bool,
}

impl BuiltinKind {
    /// Samples per second of the audio model.
    pub const FREQUENCY: usize = 16_000;
    /// Samples of a slice of the audio model: 250 ms.
    pub const SLICE: usize = 4_000;

    /// Parses a name with its parameter; `None`: there is no such model.
    pub fn parse(name: &str) -> Option<Self> {
        let (word, parameter) = match name.split_once('=') {
            Some((word, parameter)) => (word, Some(parameter)),
            None => (name, None),
        };
        let number = |default: u64| parameter.map_or(Some(default), |text| text.parse().ok());
        let mut kind = Self {
            name: name.to_owned(),
            task: Task::Ball,
            fault: Fault::None,
            delay: Duration::ZERO,
            width: SIDE,
            height: SIDE,
            grey: false,
        };
        match word {
            "ball" | "classify" | "audio" | "garbage" if parameter.is_some() => return None,
            "ball" => {}
            "classify" => kind.task = Task::Quarter,
            "audio" => kind.task = Task::Tone,
            "garbage" => kind.fault = Fault::Garbage,
            "slow" => kind.delay = Duration::from_millis(number(SLOW.as_millis() as u64)?),
            "crash" => kind.fault = Fault::Crash(number(ANSWERS)?),
            "hang" => kind.fault = Fault::Hang(number(ANSWERS)?),
            "nop" => {
                kind.task = Task::Nothing;
                if let Some(parameter) = parameter {
                    kind.set_size(parameter)?;
                }
            }
            _ => return None,
        }
        Some(kind)
    }

    fn set_size(&mut self, text: &str) -> Option<()> {
        let (size, grey) = match text.strip_suffix(",grey") {
            Some(size) => (size, true),
            None => (text, false),
        };
        let side = |text: &str| text.parse().ok().filter(|side| (1..=MAX_SIDE).contains(side));
        let (width, height) = size.split_once('x')?;
        (self.width, self.height, self.grey) = (side(width)?, side(height)?, grey);
        Some(())
    }

    /// Values of one request.
    pub fn features(&self) -> usize {
        match self.task {
            Task::Tone => Self::FREQUENCY,
            _ => self.width * self.height,
        }
    }

    /// The labels.
    pub fn labels(&self) -> &'static [&'static str] {
        match self.task {
            Task::Ball | Task::Nothing => &["ball"],
            Task::Quarter => &["top-left", "top-right", "bottom-left", "bottom-right"],
            Task::Tone => &["tone", "silence"],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_take_their_parameters() {
        assert_eq!(BuiltinKind::parse("slow").unwrap().delay, Duration::from_secs(1));
        assert_eq!(
            BuiltinKind::parse("slow=500").unwrap().delay,
            Duration::from_millis(500)
        );
        assert_eq!(BuiltinKind::parse("crash=3").unwrap().fault, Fault::Crash(3));
        assert_eq!(BuiltinKind::parse("hang").unwrap().fault, Fault::Hang(5));
        let nop = BuiltinKind::parse("nop=96x48,grey").unwrap();
        assert_eq!(
            (nop.width, nop.height, nop.grey, nop.features()),
            (96, 48, true, 96 * 48)
        );
    }

    proptest! {
        #[test]
        fn any_name_is_a_bounded_model_or_unknown(name in "(nop|slow|crash|ball|x)?=?[0-9x,grey-]{0,24}") {
            if let Some(kind) = BuiltinKind::parse(&name) {
                prop_assert!(kind.features() > 0 && kind.width <= MAX_SIDE && kind.height <= MAX_SIDE);
            }
        }
    }
}
