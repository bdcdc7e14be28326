//! The man page: one page for all subcommands.

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

/// The page in roff.
pub(super) fn render(command: &Command) -> String {
    let man = Man::new(command.clone().disable_help_subcommand(true)).manual("Edge Impulse on AWS IoT Greengrass");
    let preamble = Roff::new().render();
    let mut page = preamble.clone();
    let mut add = |text: &str| page.push_str(text.strip_prefix(preamble.as_str()).unwrap_or(text));
    add(&section(|buffer| man.render_title(buffer)));
    add(&section(|buffer| man.render_name_section(buffer)));
    add(&section(|buffer| man.render_synopsis_section(buffer)));
    add(&description().render());
    add(".SH COMMANDS\n");
    for subcommand in command.get_subcommands() {
        add_subcommand(&mut add, command.get_name(), subcommand);
    }
    add(&section(|buffer| man.render_options_section(buffer)));
    add(&conclusion().render());
    page
}

/// What a function of `clap_mangen` writes. Writing to memory cannot fail.
fn section(write: impl FnOnce(&mut dyn std::io::Write) -> std::io::Result<()>) -> String {
    let mut buffer = Vec::new();
    let _ = write(&mut buffer);
    String::from_utf8_lossy(&buffer).into_owned()
}

fn description() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["DESCRIPTION"]);
    roff.text([
        bold("ei-greengrass"),
        roman(
            " is a component of AWS IoT Greengrass version 2. It takes frames from a camera or audio from a microphone, asks an \
             Edge Impulse model (.eim), and publishes the results to AWS IoT Core or to another MQTT broker. Greengrass starts it \
             with the subcommand ",
        ),
        bold("run"),
        roman(". The others are for a person at the device."),
    ]);
    roff.control("PP", []);
    roff.text([
        roman("The configuration is that of the component: "),
        bold("check"),
        roman(" shows every effective setting, and "),
        bold("sudo ei-greengrass check --deployed"),
        roman(" those of the component that runs on this device."),
    ]);
    roff
}

/// A subsection for each subcommand; one that only groups others has none of its own.
fn add_subcommand(add: &mut impl FnMut(&str), parents: &str, command: &Command) {
    let name = format!("{parents} {}", command.get_name());
    let mut nested = command.get_subcommands().peekable();
    if nested.peek().is_some() {
        for subcommand in nested {
            add_subcommand(add, &name, subcommand);
        }
        return;
    }
    add(&introduction(&name, command).render());
    // A built copy: the arguments know their number of values only then. The options for all subcommands have a section.
    let man = Man::new(command.clone().disable_help_flag(true));
    let options = section(|buffer| man.render_options_section(buffer));
    if let Some(first) = options.find("\n.TP") {
        add(&options[first + 1..]);
    }
    if let Some(help) = command.get_after_help() {
        add(&examples(&help.to_string()).render());
    }
}

fn introduction(name: &str, command: &Command) -> Roff {
    let mut roff = Roff::new();
    roff.control("SS", [name]);
    let about = command.get_long_about().or_else(|| command.get_about());
    let about = about.map(ToString::to_string).unwrap_or_default();
    roff.text([roman(format!("{}.", about.trim_end_matches('.')))]);
    roff
}

/// The end of a help text: examples as they are, lists as lists, and the rest as text.
fn examples(help: &str) -> Roff {
    let mut roff = Roff::new();
    let mut is_example = false;
    let mut is_verbatim = false;
    for line in help.lines() {
        let indented = line.starts_with("  ");
        if is_verbatim && !indented {
            roff.control("fi", []).control("RE", []);
            is_verbatim = false;
        }
        if line.is_empty() {
            continue;
        }
        if !indented {
            is_example = line.starts_with("Example");
            roff.control("PP", []).text([roman(line)]);
        } else if is_example {
            if !is_verbatim {
                roff.control("RS", ["4"]).control("nf", []);
                is_verbatim = true;
            }
            roff.text([roman(&line[2..])]);
        } else {
            roff.control("IP", ["\\(bu", "2"]).text([roman(line.trim_start())]);
        }
    }
    if is_verbatim {
        roff.control("fi", []).control("RE", []);
    }
    roff
}

fn conclusion() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["EXIT STATUS"]);
    for (code, meaning) in [
        ("0", "The subcommand did what it was asked to do."),
        ("1", "It failed; a later attempt may succeed."),
        (
            "2",
            "The configuration or the command line cannot be used. The message says what to change.",
        ),
        ("3", "Another process runs for the same device."),
    ] {
        roff.control("TP", []).text([bold(code)]).text([roman(meaning)]);
    }
    roff.control("SH", ["ENVIRONMENT"]);
    for (variable, meaning) in [
        (
            "CONFIG_PARAMETERS",
            "The component configuration, where neither --config nor the nucleus gives one.",
        ),
        (
            "RUST_LOG",
            "The level of log lines, for example debug; takes precedence over the options.",
        ),
        (
            "EI_ROOT",
            "For setup: a directory that is put before every absolute path, for image builds.",
        ),
    ] {
        roff.control("TP", []).text([bold(variable)]).text([roman(meaning)]);
    }
    roff.control("SH", ["SEE ALSO"]);
    roff.text([
        bold("gst-launch-1.0"),
        roman("(1). The README in the directory recipes of the source lists every configuration key, message and command."),
    ]);
    roff
}

#[cfg(test)]
mod tests {
    use super::examples;

    #[test]
    fn examples_keep_their_lines_and_lists_become_lists() {
        let text = examples("Example:\n  a --b \\\n      c\n\nExit code: 0.\n\nCommands:\n  x: does y").to_roff();
        assert!(text.contains(".nf\na \\-\\-b"), "{text}");
        assert!(text.contains("\n    c\n.fi\n.RE\n.PP\nExit code"), "{text}");
        assert!(text.contains(".IP \\(bu 2\nx: does y"), "{text}");
    }
}
