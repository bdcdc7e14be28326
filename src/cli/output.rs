//! Output of subcommands to the terminal.

use std::io::{self, Write};

use crate::util::redact;

/// Writes to stdout. Unlike `println!` it does not panic when stdout is closed (`check | head -1`).
pub(super) fn say(text: &str) {
    let _ = writeln!(io::stdout(), "{}", text.trim_end_matches('\n'));
}

/// Writes to stderr, without secrets. Does not panic when stderr is closed.
pub(super) fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "{}", redact::credentials(text));
}
