//! The man page and the completions of shells: what they contain, where the install step puts them, and that they go with the link.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::fake_machine::FakeMachine;
use crate::support::daemon::binary;

const FILES: [&str; 4] = [
    "man/man1/ei-greengrass.1",
    "bash-completion/completions/ei-greengrass",
    "zsh/site-functions/_ei-greengrass",
    "fish/vendor_completions.d/ei-greengrass.fish",
];

fn installed(file: &str) -> String {
    format!("root/usr/local/share/{file}")
}

/// The files that `generate` writes.
fn generated() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let run = Command::new(binary())
        .arg("generate")
        .arg(directory.path())
        .output()
        .unwrap();
    assert!(run.status.success(), "{run:?}");
    let printed = String::from_utf8(run.stdout).unwrap();
    for file in FILES {
        let path = directory.path().join(file);
        assert!(printed.contains(path.to_str().unwrap()), "{printed}");
        assert!(path.is_file(), "{file}");
    }
    directory
}

/// The subcommands that `--help` lists.
fn subcommands() -> Vec<String> {
    let help = Command::new(binary()).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let list = help.split("Commands:\n").nth(1).unwrap();
    let lines = list.lines().take_while(|line| !line.is_empty());
    // A long description continues on a line that is indented further.
    let names = lines.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let names: Vec<_> = names
        .filter(|name| !name.is_empty() && *name != "help")
        .map(str::to_owned)
        .collect();
    assert!(names.len() >= 9, "{help}");
    names
}

fn is_installed(tool: &str) -> bool {
    ["/usr/bin", "/bin"]
        .iter()
        .any(|place| Path::new(place).join(tool).exists())
}

/// Runs a checker on a file and expects that it has nothing to say. Without the checker nothing is checked.
#[track_caller]
fn is_clean(tool: &str, arguments: &[&str], file: &Path) {
    if !is_installed(tool) {
        return;
    }
    let run = Command::new(tool).args(arguments).arg(file).output().unwrap();
    assert!(
        run.status.success() && run.stderr.is_empty(),
        "{tool}: {}",
        String::from_utf8_lossy(&run.stderr)
    );
}

#[test]
fn bash_completes_every_subcommand_and_the_options_of_each() {
    let directory = generated();
    let completion = directory.path().join(FILES[1]);
    let replies = |words: &str| {
        let script = format!(
            "source '{}'; COMP_WORDS=({words} ''); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _ei__greengrass ei-greengrass '' \"${{COMP_WORDS[COMP_CWORD - 1]}}\"; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            completion.display()
        );
        let run = Command::new("bash").args(["-c", &script]).output().unwrap();
        assert!(run.stderr.is_empty(), "{run:?}");
        let text = String::from_utf8(run.stdout).unwrap();
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let offered = replies("ei-greengrass");
    for subcommand in subcommands() {
        assert!(offered.contains(&subcommand), "{subcommand} in {offered:?}");
        assert!(
            !replies(&format!("ei-greengrass {subcommand}")).is_empty(),
            "{subcommand}"
        );
    }
    assert!(!offered.iter().any(|word| word == "builtin-model"), "{offered:?}");
    assert!(replies("ei-greengrass check").contains(&"--online".to_owned()));
    assert_eq!(replies("ei-greengrass run --log-format"), ["text", "json"]);
}

#[test]
fn each_shell_and_the_formatters_of_man_accept_their_file() {
    let directory = generated();
    let path = |index: usize| directory.path().join(FILES[index]);
    is_clean("groff", &["-man", "-ww", "-rF0", "-Tutf8", "-z"], &path(0));
    is_clean("mandoc", &["-T", "lint", "-W", "error"], &path(0));
    is_clean("bash", &["-n"], &path(1));
    is_clean("zsh", &["-n"], &path(2));
    is_clean("fish", &["--no-execute"], &path(3));
}

#[test]
fn the_man_page_describes_every_subcommand_with_its_options_and_examples() {
    let directory = generated();
    let page = fs::read_to_string(directory.path().join(FILES[0])).unwrap();
    let page = page.replace("\\-", "-");
    for subcommand in subcommands() {
        assert!(
            page.contains(&format!(".SS \"ei-greengrass {subcommand}")),
            "{subcommand} is not in\n{page}"
        );
    }
    for text in [
        "--online",
        "--log-format",
        "ei-greengrass check --config my.json",
        "CONFIG_PARAMETERS",
    ] {
        assert!(page.contains(text), "{text}");
    }
    for internal in ["--counts", "builtin-model", "generate"] {
        assert!(!page.contains(internal), "{internal}");
    }
}

#[test]
fn the_install_step_writes_them_with_the_link_and_again_after_an_update() {
    let machine = FakeMachine::new();
    machine
        .setup(&["--dry-run"])
        .prints("would be done: man page and completions of bash, zsh and fish in /usr/local/share");
    assert!(!machine.path("root/usr/local/share").exists());
    machine
        .setup(&[])
        .succeeds()
        .prints("done: man page and completions of bash, zsh and fish in /usr/local/share");
    let directory = generated();
    for file in FILES {
        let wanted = fs::read_to_string(directory.path().join(file)).unwrap();
        assert_eq!(machine.read(&installed(file)), wanted, "{file}");
    }
    machine
        .setup(&[])
        .succeeds()
        .prints("skipped: man page and completions of bash, zsh and fish in /usr/local/share: up to date");
    machine.write(&installed(FILES[0]), ".TH old\n.\\\" Generated by ei-greengrass.\n");
    machine.setup(&[]).succeeds().prints("done: man page");
    assert!(!machine.read(&installed(FILES[0])).contains(".TH old"));
}

#[test]
fn files_of_somebody_else_are_left_alone_and_a_read_only_system_is_a_warning() {
    let machine = FakeMachine::new();
    machine.write(&installed(FILES[1]), "mine");
    machine
        .setup(&[])
        .succeeds()
        .warns("/usr/local/share/bash-completion/completions/ei-greengrass is not of this component");
    assert_eq!(machine.read(&installed(FILES[1])), "mine");
    let machine = FakeMachine::new();
    machine.write("root/usr/local/share", "not a directory");
    machine.setup(&[]).succeeds().warns("could not be written");
}

#[test]
fn without_the_link_there_are_no_files() {
    let machine = FakeMachine::new();
    machine.write("root/usr/local/bin/ei-greengrass", "mine");
    machine.setup(&[]).succeeds();
    assert!(!machine.path("root/usr/local/share").exists());
}
