//! Output of subcommands to the terminal.

use std::io::{self, IsTerminal, Write};

use crate::util::redact;
use crate::util::text::visible_lines;

/// Writes sentences to stdout. Names and errors in them come from outside, so control characters and the like are escaped.
pub(super) fn say(text: &str) {
    say_painted(&visible_lines(text, usize::MAX));
}

/// Writes to stdout what another program may parse. On a terminal it is escaped as [`say`] does.
pub(super) fn say_data(text: &str) {
    if io::stdout().is_terminal() {
        say(text);
    } else {
        say_painted(text);
    }
}

/// Writes text with colours, whose values are escaped already, to stdout. Unlike `println!` it does not panic when stdout is closed
/// (`check | head -1`).
pub(super) fn say_painted(text: &str) {
    let _ = writeln!(io::stdout(), "{}", text.trim_end_matches('\n'));
}

/// Writes to stderr, without secrets and without control characters. Does not panic when stderr is closed.
pub(super) fn complain(text: &str) {
    let _ = writeln!(
        io::stderr(),
        "{}",
        visible_lines(&redact::credentials(text), usize::MAX)
    );
}
