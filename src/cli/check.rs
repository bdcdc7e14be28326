//! `check`: prints every effective setting, what would run, what is wrong, and the health of the running daemon.
//! Changes nothing, and starts only the model, to read its properties.

use std::fmt::Write;
use std::path::Path;

use clap::Args;

use super::check_model::ModelCheck;
use super::check_source::{SourceCheck, cameras, microphones};
use super::{
    ConfigArgs, Exit, NO_CONFIGURATION, check_exposed, check_machine, check_online, check_running, complain,
    environment, say,
};
use crate::capture::DeviceSelection;
use crate::config::{Config, Launch, Loaded};
use crate::device::{Topics, peek};
use crate::util::redact;
use crate::util::text::sentence;

/// Arguments of `check`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  ei-greengrass check --config my.json\n  ei-greengrass check --config my.json --online\n  \
    ei-greengrass check --cameras\n\n\
    Exit code: 0; 2 when `run` refuses this configuration, or cannot use its model, source or certificate; 1 when a probe of --online failed."
)]
pub struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Also try what needs the network: AWS identity and region, the IoT Core endpoint, and one message to the broker.
    #[arg(long)]
    online: bool,
    /// List only the connected cameras and microphones, with the one that would be used. Needs no configuration.
    #[arg(long)]
    cameras: bool,
}

pub(super) fn main(args: &CheckArgs) -> Exit {
    if args.cameras {
        let config = args.config.load().ok().flatten().map(|loaded| loaded.config);
        complete_environment(config.as_ref().is_some_and(|config| config.install_kvssink));
        let runner = config.map(|config| config.runner);
        let mut out = String::new();
        section(
            &mut out,
            "Cameras",
            cameras(&DeviceSelection::from_options(&runner.unwrap_or_default())),
        );
        section(&mut out, "Microphones", microphones());
        say(&out);
        return Exit::Orderly;
    }
    let mut loaded = match args.config.load() {
        Ok(Some(loaded)) => loaded,
        Ok(None) => {
            complain(NO_CONFIGURATION);
            return Exit::Configuration;
        }
        Err(e) => {
            complain(&sentence(&e));
            return Exit::Configuration;
        }
    };
    complete_environment(loaded.config.install_kvssink);
    let model = ModelCheck::new(&loaded.config);
    model.correct_threshold(&mut loaded.entries);
    let source = SourceCheck::new(&loaded.config, model.input.as_ref());
    let verdict = Verdict::new(&loaded.config, &model, &source);
    say(&report(&loaded, &verdict, &model, source));
    let online = if args.online {
        check_online::main(&loaded.config)
    } else {
        Exit::Orderly
    };
    if verdict.works { online } else { Exit::Configuration }
}

/// Sets the variables that `run` would set, so that the same plugins and devices are found.
fn complete_environment(with_kvssink: bool) {
    if let Err(e) = environment::complete_without_changes(with_kvssink) {
        complain(&format!("{}: {e}", environment::INCOMPLETE));
    }
}

fn report(loaded: &Loaded, verdict: &Verdict, model: &ModelCheck, source: SourceCheck) -> String {
    let mut out = String::new();
    let config = &loaded.config;
    section(&mut out, "Settings", settings(loaded));
    section(
        &mut out,
        "eiparams",
        loaded.eiparams.iter().map(|u| format!("{}: {}", u.option, u.meaning)),
    );
    let mut clean_section = |title, lines: Vec<String>| {
        section(&mut out, title, lines.iter().map(|line| redact::credentials(line)));
    };
    clean_section("Notes", loaded.notes.clone());
    let warnings = loaded.warnings.iter().map(ToString::to_string);
    let exposed = check_exposed::warnings(&loaded.entries);
    clean_section(
        "Warnings",
        warnings
            .chain(exposed)
            .chain(model.warning.clone())
            .chain(model.unknown_labels.clone())
            .collect(),
    );
    clean_section("Device", device(config));
    clean_section("Source", source.lines);
    clean_section("Model", model.lines.clone());
    clean_section("Limitations", check_machine::limitations(config));
    clean_section("Running", check_running::lines(config));
    clean_section("Result", verdict.lines.clone());
    out
}

/// What `run` does with the configuration.
struct Verdict {
    /// `run` starts, and nothing has to be changed.
    works: bool,
    lines: Vec<String>,
}

impl Verdict {
    fn new(config: &Config, model: &ModelCheck, source: &SourceCheck) -> Self {
        let refusals = check_machine::refusals(config);
        if !refusals.is_empty() {
            let lines = refusals.iter().map(|reason| format!("`run` refuses: {reason}"));
            return Self {
                works: false,
                lines: lines.collect(),
            };
        }
        let without_source =
            |reason: &String| format!("`run` starts, but infers nothing until its source works: see Source: {reason}");
        let source_fault = source.fault.as_ref().map(without_source);
        let faults = [model.fault.clone(), source_fault, check_machine::uplink_fault(config)];
        let works = faults.iter().all(Option::is_none);
        let not_installed = source.not_installed.as_ref().map(without_source);
        let mut lines: Vec<_> = faults.into_iter().flatten().chain(not_installed).collect();
        if lines.is_empty() {
            lines.push(Self::start(config, source));
        }
        Self { works, lines }
    }

    /// The line for a configuration without faults.
    fn start(config: &Config, source: &SourceCheck) -> String {
        let absent = source.absent.as_ref().map_or_else(String::new, |absent| {
            format!("; it infers nothing while {absent}: see Source")
        });
        match check_machine::running_instance(config) {
            None => format!("`run` starts with this configuration{absent}"),
            Some(instance) => {
                format!("`run` can start with this configuration{absent}; now it ends with exit code 3: {instance}")
            }
        }
    }
}

fn section(out: &mut String, title: &str, lines: impl IntoIterator<Item = String>) {
    let mut lines = lines.into_iter().peekable();
    if lines.peek().is_none() {
        return;
    }
    let _ = writeln!(out, "{title}");
    for line in lines {
        let _ = writeln!(out, "  {line}");
    }
}

fn settings(loaded: &Loaded) -> Vec<String> {
    let key_width = loaded.entries.iter().map(|entry| entry.key.len()).max().unwrap_or(0);
    loaded
        .entries
        .iter()
        .map(|entry| {
            let value = if entry.value.is_empty() { "(none)" } else { &entry.value };
            let remark = entry
                .remark
                .as_ref()
                .map(|remark| format!("; {remark}"))
                .unwrap_or_default();
            format!("{:key_width$} = {value}  ({}{remark})", entry.key, entry.origin)
        })
        .collect()
}

fn device(config: &Config) -> Vec<String> {
    let device = peek(&config.device_name, &config.work_dir, Path::new("/"));
    if config.launch == Launch::Linux {
        let mut lines = vec![format!(
            "name in Edge Impulse Studio, unless it has another one there: {}",
            device.name
        )];
        lines.extend(device.warnings.iter().map(|warning| format!("warning: {warning}")));
        return lines;
    }
    let topics = Topics::new(&device.name);
    let mut lines = vec![format!("name and MQTT client id: {}", device.name)];
    for topic in [
        &topics.inference_output,
        &topics.metrics,
        &topics.events,
        &topics.command_input,
        &topics.command_output,
    ] {
        lines.push(format!("topic: {topic}"));
    }
    lines.extend(device.warnings.iter().map(|warning| format!("warning: {warning}")));
    lines
}
