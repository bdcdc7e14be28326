//! The lines that the install step prints, and their counts.

use std::fmt::Display;
use std::io::{self, Write};
use std::str::FromStr;

use crate::util::redact;

/// Numbers of printed lines of each kind.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    done: u32,
    skipped: u32,
    warnings: u32,
}

/// Parses the text that `install.sh` passes: `DONE,SKIPPED,WARNINGS`.
impl FromStr for Counts {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let numbers: Result<Vec<u32>, _> = text.split(',').map(str::parse).collect();
        match numbers.as_deref() {
            Ok(&[done, skipped, warnings]) => Ok(Self {
                done,
                skipped,
                warnings,
            }),
            _ => Err("accepted are three numbers: DONE,SKIPPED,WARNINGS"),
        }
    }
}

/// Writes a line without secrets.
fn print(line: impl Display) {
    let _ = writeln!(io::stdout(), "{}", redact::credentials(&line.to_string()));
}

/// Prints and counts lines. Write errors are ignored: the step must continue if its output is closed.
pub(super) struct StepReport {
    dry_run: bool,
    counts: Counts,
}

impl StepReport {
    pub(super) fn new(dry_run: bool, counts: Counts) -> Self {
        Self { dry_run, counts }
    }

    pub(super) fn headline(&self, text: impl Display) {
        print(format_args!("install: {text}"));
    }

    /// Reports a change, or in a dry run a change that would be made.
    pub(super) fn done(&mut self, text: impl Display) {
        let prefix = if self.dry_run { "would be done" } else { "done" };
        print(format_args!("{prefix}: {text}"));
        self.counts.done += 1;
    }

    /// Reports something that needs no change.
    pub(super) fn skipped(&mut self, text: impl Display) {
        print(format_args!("skipped: {text}"));
        self.counts.skipped += 1;
    }

    /// Reports something that is not possible and not essential.
    pub(super) fn warning(&mut self, text: impl Display) {
        let _ = writeln!(io::stderr(), "warning: {}", redact::credentials(&text.to_string()));
        self.counts.warnings += 1;
    }

    pub(super) fn finish(&self) {
        let Counts {
            done,
            skipped,
            warnings,
        } = self.counts;
        self.headline(format_args!(
            "finished, {done} done, {skipped} skipped, {warnings} warnings"
        ));
    }
}
