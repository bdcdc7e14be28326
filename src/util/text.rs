//! Formats errors and texts from outside for log lines and terminals.

use std::error::Error;

/// Most characters of an [`excerpt`].
pub(crate) const EXCERPT: usize = 300;
/// Most characters of a [`first_line`].
const LINE: usize = 400;

/// An error and its causes, from the outermost to the innermost.
pub(crate) fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error: &&'a (dyn Error + 'static)| error.source())
}

/// The innermost cause of an error. The outer errors of a library ("dispatch failure") are not helpful.
pub(crate) fn innermost<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    causes(error).last().unwrap_or(error)
}

/// An error and its causes as one sentence.
pub(crate) fn sentence(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

/// At most `most` characters, without control characters, which can break a log line or control a terminal.
pub(crate) fn clean(text: &str, most: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(most).collect()
}

/// The first line, at most [`LINE`] characters, without control characters.
pub(crate) fn first_line(text: &str) -> String {
    clean(text.lines().next().unwrap_or_default().trim(), LINE)
}

/// The beginning of a text, at most [`EXCERPT`] characters, on one line.
pub(crate) fn excerpt(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(EXCERPT)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_line_of_a_text_is_kept() {
        assert_eq!(
            first_line("The signature does not match.\n\nThe canonical string: x"),
            "The signature does not match."
        );
        assert_eq!(first_line(&"é".repeat(9999)).chars().count(), 400);
    }

    #[test]
    fn an_excerpt_is_one_line() {
        assert_eq!(excerpt("a\nb\tc"), "a b c");
        assert_eq!(excerpt(&"é".repeat(9999)).chars().count(), EXCERPT);
    }

    #[test]
    fn a_cause_that_is_part_of_its_error_is_not_repeated() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer: {0}")]
        struct Outer(#[source] std::io::Error);

        let error = Outer(std::io::Error::other("inner"));
        assert_eq!(sentence(&error), "outer: inner");
        assert_eq!(innermost(&error).to_string(), "inner");
    }
}
