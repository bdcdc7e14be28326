//! `generate`: the man page and the completions of the shells, for packages. The install step writes the same files.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_complete::Shell;

use super::{Exit, complain, man_page, say};
use crate::setup::{SHELL_FILE_MARK, ShellFile};

/// Arguments of `generate`.
#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// The directory for `man/man1/...` and the others, for example /usr/share.
    directory: PathBuf,
}

/// Writes the files below the directory and prints their paths.
pub(super) fn main(args: &GenerateArgs, command: &Command) -> Exit {
    for file in shell_files(command) {
        let path = args.directory.join(file.path);
        if let Err(error) = write(&path, &file.text) {
            complain(&format!("error: {} cannot be written: {error}", path.display()));
            return Exit::Failure;
        }
        say(&path.display().to_string());
    }
    Exit::Orderly
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(path, text)
}

/// The man page and the completions of this command line.
pub(super) fn shell_files(command: &Command) -> Vec<ShellFile> {
    vec![
        ShellFile {
            path: "man/man1/ei-greengrass.1",
            text: format!("{}.\\\" {SHELL_FILE_MARK}.\n", man_page::render(command)),
        },
        completion(command, Shell::Bash, "bash-completion/completions/ei-greengrass"),
        completion(command, Shell::Zsh, "zsh/site-functions/_ei-greengrass"),
        completion(command, Shell::Fish, "fish/vendor_completions.d/ei-greengrass.fish"),
    ]
}

fn completion(command: &Command, shell: Shell, path: &'static str) -> ShellFile {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command.clone(), command.get_name(), &mut script);
    // The generator for bash (4.6) writes the hyphen in the name of the program in two ways, and then finds no subcommand.
    let script = String::from_utf8_lossy(&script).replace("ei__subcmd__greengrass", "ei__greengrass");
    ShellFile {
        path,
        text: format!("{}\n# {SHELL_FILE_MARK}.\n", script.trim_end()),
    }
}
