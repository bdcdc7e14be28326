//! Formats errors and texts from outside for log lines and terminals.

use std::error::Error;

/// Most characters of an [`excerpt`].
pub(crate) const EXCERPT: usize = 300;
/// Most characters of a [`first_line`].
const LINE: usize = 400;
/// Most digits of a number that is shown completely. More are no number of this program: a 64-bit number has 20, a hash 40.
const MAX_DIGITS: usize = 40;
/// Digits of a longer number that are shown.
const SHOWN_DIGITS: usize = 20;

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

/// Whether a character can break a line, control a terminal, change the direction of text, or hide: control characters, and
/// what Unicode calls default ignorable. Not the joiner and the variation selectors of emoji and scripts when they are visible.
pub(crate) fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{34f}'
                | '\u{61c}'
                | '\u{115f}'
                | '\u{1160}'
                | '\u{17b4}'
                | '\u{17b5}'
                | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{3164}'
                | '\u{fe00}'..='\u{fe0d}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff0}'..='\u{fffb}'
                | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

/// A text from outside as it is shown on one line: at most `most` of its characters, deceptive ones escaped (`\u{202e}`, `\n`),
/// long numbers cut.
pub(crate) fn visible(text: &str, most: usize) -> String {
    escape(text, most, false)
}

/// The text with long numbers cut.
pub(crate) fn cut_numbers(text: &str) -> String {
    let is_short = |part: &str| part.len() <= MAX_DIGITS;
    if text.split(|c: char| !c.is_ascii_digit()).all(is_short) {
        return text.to_owned();
    }
    visible_lines(text, usize::MAX)
}

/// As [`visible`], but keeps line breaks.
pub(crate) fn visible_lines(text: &str, most: usize) -> String {
    escape(text, most, true)
}

fn escape(text: &str, most: usize, keeps_lines: bool) -> String {
    let mut shown = String::with_capacity(text.len().min(most));
    let mut digits = 0;
    for (count, (at, c)) in text.char_indices().enumerate() {
        if count == most {
            end_number(&mut shown, digits);
            let more = text[at..].chars().count();
            shown.push_str(&format!("... ({more} more characters)"));
            return shown;
        }
        if c.is_ascii_digit() {
            digits += 1;
            if digits <= MAX_DIGITS {
                shown.push(c);
            }
            continue;
        }
        end_number(&mut shown, std::mem::take(&mut digits));
        if is_deceptive(c) && !(keeps_lines && matches!(c, '\n' | '\r')) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    end_number(&mut shown, digits);
    shown
}

fn end_number(shown: &mut String, digits: usize) {
    if digits > MAX_DIGITS {
        shown.truncate(shown.len() - (MAX_DIGITS - SHOWN_DIGITS));
        shown.push_str(&format!("...({digits} digits)"));
    }
}

/// At most `most` characters, without deceptive ones, which can break a log line or control a terminal.
pub(crate) fn clean(text: &str, most: usize) -> String {
    text.chars().filter(|c| !is_deceptive(*c)).take(most).collect()
}

/// The first line, at most [`LINE`] characters, without control characters.
pub(crate) fn first_line(text: &str) -> String {
    clean(text.lines().next().unwrap_or_default().trim(), LINE)
}

/// The beginning of a text, at most [`EXCERPT`] characters, on one line.
pub(crate) fn excerpt(text: &str) -> String {
    text.chars()
        .map(|c| if is_deceptive(c) { ' ' } else { c })
        .take(EXCERPT)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_from_outside_shows_its_hidden_characters_and_the_length_of_what_is_cut() {
        for (text, shown) in [
            ("Grüße, ไทย, 图, ❤️", "Grüße, ไทย, 图, ❤️"),
            ("a\0b\x1b[2Jc", "a\\u{0}b\\u{1b}[2Jc"),
            ("a\u{202e}b\u{200b}", "a\\u{202e}b\\u{200b}"),
            ("a\nb\tc", "a\\nb\\tc"),
        ] {
            assert_eq!(visible(text, 100), shown);
        }
        assert_eq!(visible_lines("a\nb\u{7}", 100), "a\nb\\u{7}");
        assert_eq!(visible(&"é".repeat(10), 4), "éééé... (6 more characters)");
        assert_eq!(visible("1234567890123456789012345678901234567890", 100).len(), 40);
        let number = format!("-{}.5", "1".repeat(300));
        assert_eq!(visible(&number, 1000), format!("-{}...(300 digits).5", "1".repeat(20)));
        assert_eq!(
            visible(&number, 100),
            format!("-{}...(99 digits)... (203 more characters)", "1".repeat(20))
        );
    }

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
