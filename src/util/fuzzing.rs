//! What `tests/fuzz` calls here.

use std::time::Duration;

use super::sliding_window::SlidingWindow;
use super::{redact, secret_reference, text};

pub use super::secret_reference::SecretReference;

/// The text without secrets.
pub fn credentials(text: &str) -> String {
    redact::credentials(text)
}

/// A refused value without secrets.
pub fn refused(text: &str) -> String {
    redact::refused(text)
}

/// A text that cannot be parsed, with all values hidden.
pub fn in_place(text: &str) -> String {
    redact::in_place(text)
}

/// What another program says about `source`, without the secrets of `source` and without `secret`.
pub fn mask(source: &str, secret: &str, said: &str) -> String {
    let mut words = redact::SecretWords::of(source);
    words.add(secret);
    words.mask(said)
}

/// The references to secrets in a text, as they are shown.
pub fn references(text: &str) -> Vec<String> {
    let found = secret_reference::SecretReference::find_all(text);
    found
        .into_iter()
        .filter_map(|found| Some(found.reference?.to_string()))
        .collect()
}

/// A text from outside on one line.
pub fn visible(text: &str, most: usize) -> String {
    text::visible(text, most)
}

/// A text from outside, shortened in the other ways.
pub fn shortened(text: &str) -> [String; 3] {
    [text::excerpt(text), text::first_line(text), text::cut_numbers(text)]
}

/// Whether a character must not be shown.
pub fn is_deceptive(c: char) -> bool {
    text::is_deceptive(c)
}

/// See [`SlidingWindow`].
#[derive(Debug)]
pub struct Window(SlidingWindow);

impl Window {
    /// A window of an hour.
    pub fn new(steps: u32) -> Self {
        Self(SlidingWindow::new(Duration::from_secs(3600), steps))
    }

    /// Adds an amount.
    pub fn add(&mut self, now: Duration, amount: u64) {
        self.0.add(now, amount);
    }

    /// Takes back an amount.
    pub fn take_back(&mut self, amount: u64) {
        self.0.take_back(amount);
    }

    /// The sum.
    pub fn sum(&mut self, now: Duration) -> u64 {
        self.0.sum(now)
    }

    /// The entries with their ages in milliseconds.
    pub fn ages(&mut self, now: Duration) -> Vec<(u64, u64)> {
        self.0.ages(now)
    }

    /// Adds the entries of an earlier process.
    pub fn restore(&mut self, now: Duration, elapsed: Duration, ages: &[(u64, u64)]) {
        self.0.restore(now, elapsed, ages);
    }
}
