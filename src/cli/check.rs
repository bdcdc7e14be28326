//! `check`: prints every effective setting, what would run, what is wrong, and the health of the running daemon. Changes
//! nothing, and starts only the model, to read its properties.

use std::fmt::Write;
use std::path::Path;

use clap::Args;

use super::check_model::ModelCheck;
use super::{ConfigArgs, Exit, NO_CONFIGURATION, check_online, check_running, complain, environment, say};
use crate::capture::{CaptureError, DeviceSelection, PipelineDescription, camera, describe_pipeline, microphone};
use crate::config::{Config, Loaded};
use crate::device::{Topics, peek};
use crate::model::ModelInput;
use crate::supervisor::{Setup, SetupError};
use crate::util::redact;
use crate::util::text::sentence;

/// Arguments of `check`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  ei-greengrass check --config my.json\n  ei-greengrass check --config my.json --online\n  \
    ei-greengrass check --cameras\n\n\
    Exit code: 0; 2 when `run` would refuse this configuration, or cannot use the model; 1 when a probe of --online failed."
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
    let loaded = match args.config.load() {
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
    let refusals = Setup::new(loaded.config.clone(), false)
        .err()
        .map_or_else(Vec::new, |SetupError(reasons)| reasons);
    let model = ModelCheck::new(&loaded.config);
    let running = check_running::lines(&loaded.config);
    say(&report(&loaded, &refusals, &model, running));
    let online = if args.online {
        check_online::main(&loaded.config)
    } else {
        Exit::Orderly
    };
    if refusals.is_empty() && model.unsupported.is_none() {
        online
    } else {
        Exit::Configuration
    }
}

/// Sets the variables that `run` would set, so that the same plugins and devices are found.
fn complete_environment(with_kvssink: bool) {
    if let Err(e) = environment::complete(with_kvssink) {
        complain(&format!("{}: {e}", environment::INCOMPLETE));
    }
}

fn report(loaded: &Loaded, refusals: &[String], model: &ModelCheck, running: Vec<String>) -> String {
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
    clean_section("Warnings", warnings.chain(model.warning.clone()).collect());
    clean_section("Device", device(config));
    let (lines, source_works) = source(config, model.input.as_ref());
    clean_section("Source", lines);
    clean_section("Model", model.lines.clone());
    clean_section("Running", running);
    clean_section("Result", result(refusals, model, source_works));
    out
}

fn result(refusals: &[String], model: &ModelCheck, source_works: bool) -> Vec<String> {
    if !refusals.is_empty() {
        return refusals
            .iter()
            .map(|reason| format!("`run` refuses: {reason}"))
            .collect();
    }
    match &model.unsupported {
        Some(reason) => vec![format!("`run` starts and stays idle: {reason}")],
        None if !source_works => {
            vec![
                "`run` starts with this configuration, but infers nothing until its source works: see Source"
                    .to_owned(),
            ]
        }
        None => vec!["`run` starts with this configuration".to_owned()],
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
    let topics = Topics::new(&device.name);
    let mut lines = vec![format!("name and MQTT client id: {}", device.name)];
    for topic in [
        &topics.inference_output,
        &topics.metrics,
        &topics.command_input,
        &topics.command_output,
    ] {
        lines.push(format!("topic: {topic}"));
    }
    lines.extend(device.warnings.iter().map(|warning| format!("warning: {warning}")));
    lines
}

/// The lines about the source, and whether GStreamer can build it.
fn source(config: &Config, input: Option<&ModelInput>) -> (Vec<String>, bool) {
    let Some(source) = &config.source else {
        let mut lines = vec![
            "not configured: each start looks for a camera, or for a microphone if the model takes audio".to_owned(),
        ];
        lines.extend(cameras(&DeviceSelection::from_options(&config.runner)).map(|line| format!("camera: {line}")));
        lines.extend(microphones().into_iter().map(|line| format!("microphone: {line}")));
        return (lines, true);
    };
    match describe_pipeline(source, input, config.microphone_channel) {
        Ok(PipelineDescription {
            line,
            effective_line,
            changes,
            missing_elements,
        }) => {
            let mut lines = vec![format!("line: {line}"), format!("runs: {effective_line}")];
            lines.extend(changes.iter().map(|change| format!("changed: {change}")));
            lines.extend(missing_elements.iter().map(|element| format!("missing: {element}")));
            (lines, missing_elements.is_empty())
        }
        Err(e) => {
            let line = format!(
                "GStreamer refuses it; `run` would retry until it works: {}",
                capture_sentence(&e)
            );
            (vec![line], false)
        }
    }
}

/// The connected cameras, and the one that would be used for a model of common size.
fn cameras(selection: &DeviceSelection) -> impl Iterator<Item = String> {
    let lines = match camera::list() {
        Err(e) => vec![capture_sentence(&e)],
        Ok(cameras) => {
            let mut lines = cameras.descriptions();
            match cameras.select(
                selection.camera.as_deref(),
                selection.minimum_size(),
                selection.color_format.as_deref(),
            ) {
                Ok(camera) => {
                    lines.push(format!("used, for models up to 640 x 480: {camera}"));
                    lines.push(format!("the same as gst_args: {}", camera.launch_line()));
                    lines.extend(camera.warnings);
                }
                Err(e) => lines.push(capture_sentence(&e)),
            }
            lines
        }
    };
    lines.into_iter()
}

fn microphones() -> Vec<String> {
    match microphone::list() {
        Err(e) => vec![capture_sentence(&e)],
        Ok(found) if found.is_empty() => {
            vec!["none was found; --microphone also takes an ALSA address such as hw:1,0".to_owned()]
        }
        Ok(found) => found,
    }
}

fn capture_sentence(error: &CaptureError) -> String {
    sentence(error).replace('\n', " ")
}
