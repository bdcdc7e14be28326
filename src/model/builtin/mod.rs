//! Small models inside this program, for `demo`, tests and benchmarks.
//!
//! The model file `builtin:NAME` starts this program with the hidden arguments `builtin-model NAME SOCKET`. That
//! process uses the same protocol and shared memory as a model from Edge Impulse Studio.

mod detectors;
mod error;
mod kind;
mod server;

use std::path::Path;

pub use error::BuiltinError;
use kind::BuiltinKind;
pub use kind::NAMES;

/// Checks a name without running anything.
///
/// # Errors
/// [`BuiltinError::Unknown`] lists the accepted names.
pub fn check_name(name: &str) -> Result<(), BuiltinError> {
    parse(name).map(drop)
}

/// Serves the model `name` to one client on `socket`, until the client disconnects.
///
/// Signals keep their default action and end the process at once. By then its shared memory has no name any more, or
/// the client removes it.
///
/// # Errors
/// An unknown name, or an error of the operating system.
pub fn run(name: &str, socket: &Path) -> Result<(), BuiltinError> {
    server::serve(&parse(name)?, socket)
}

fn parse(name: &str) -> Result<BuiltinKind, BuiltinError> {
    BuiltinKind::parse(name).ok_or_else(|| BuiltinError::Unknown { name: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_lists_the_accepted_ones() {
        for name in [
            "",
            "bal",
            "ball=3",
            "slow=",
            "slow=-1",
            "nop=0x1",
            "nop=9999x1",
            "nop=3",
            "crash=x",
        ] {
            let message = check_name(name).unwrap_err().to_string();
            assert!(
                message.contains("ball, classify, audio, slow[=MILLISECONDS]"),
                "{message}"
            );
        }
    }
}
