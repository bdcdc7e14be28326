//! `check`: every effective setting, what would run, and what is wrong. Starts nothing and changes nothing.

use std::fmt::Write;
use std::path::Path;

use clap::Args;

use super::{ConfigArgs, Exit, NO_CONFIGURATION, check_online, complain, environment, say};
use crate::capture::{CaptureError, PipelineDescription, Wishes, camera, describe, microphone};
use crate::config::{Config, Loaded, ModelSource};
use crate::device::{Topics, peek};
use crate::model::{Usable, builtin, examine};
use crate::studio::{Provider, base_url};
use crate::supervisor::{Setup, SetupError, sentence};

/// Arguments of `check`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  ei-greengrass check --config my.json\n  ei-greengrass check --config my.json --online\n  \
    ei-greengrass check --cameras\n\n\
    Exit code: 0; 2 when `run` would refuse this configuration; 1 when a probe of --online failed."
)]
pub struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Also try what needs the network: AWS identity and region, the IoT Core endpoint, and one message to the broker.
    #[arg(long)]
    online: bool,
    /// List only the cameras and microphones that are there, with the one that would be used. Needs no configuration.
    #[arg(long)]
    cameras: bool,
}

pub(super) fn main(args: &CheckArgs) -> Exit {
    if args.cameras {
        let config = args.config.load().ok().flatten().map(|loaded| loaded.config);
        complete_environment(config.as_ref().is_some_and(|config| config.install_kvssink));
        let runner = config.map(|config| config.runner);
        let mut out = String::new();
        section(&mut out, "Cameras", cameras(&Wishes::of(&runner.unwrap_or_default())));
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
    say(&report(&loaded, &refusals));
    let online = if args.online {
        check_online::main(&loaded.config)
    } else {
        Exit::Orderly
    };
    if refusals.is_empty() {
        online
    } else {
        Exit::Configuration
    }
}

/// Sees what `run` would see.
fn complete_environment(with_kvssink: bool) {
    if let Err(e) = environment::complete(with_kvssink) {
        complain(&format!("{}{e}", environment::GOES_ON));
    }
}

fn report(loaded: &Loaded, refusals: &[String]) -> String {
    let mut out = String::new();
    let config = &loaded.config;
    section(&mut out, "Settings", settings(loaded));
    section(
        &mut out,
        "eiparams",
        loaded.eiparams.iter().map(|u| format!("{}: {}", u.option, u.meaning)),
    );
    section(&mut out, "Notes", loaded.notes.iter().cloned());
    section(&mut out, "Warnings", loaded.warnings.iter().map(ToString::to_string));
    section(&mut out, "Device", device(config));
    section(&mut out, "Source", source(config));
    section(&mut out, "Model", [model(config)]);
    section(
        &mut out,
        "Result",
        if refusals.is_empty() {
            vec!["`run` starts with this configuration".to_owned()]
        } else {
            refusals
                .iter()
                .map(|reason| format!("`run` refuses: {reason}"))
                .collect()
        },
    );
    out
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

fn source(config: &Config) -> Vec<String> {
    let Some(source) = &config.source else {
        let mut lines = vec![
            "none given: a camera, or for a model that hears a microphone, is looked for at each start".to_owned(),
        ];
        lines.extend(cameras(&Wishes::of(&config.runner)).map(|line| format!("camera: {line}")));
        lines.extend(microphones().into_iter().map(|line| format!("microphone: {line}")));
        return lines;
    };
    match describe(source) {
        Ok(PipelineDescription {
            line,
            runs,
            changes,
            missing,
        }) => {
            let mut lines = vec![format!("line: {line}"), format!("runs: {runs}")];
            lines.extend(changes.iter().map(|change| format!("changed: {change}")));
            lines.extend(missing.iter().map(|element| format!("missing: {element}")));
            lines
        }
        Err(e) => vec![format!(
            "GStreamer refuses it; `run` would try again and again: {}",
            capture_sentence(&e)
        )],
    }
}

/// What is there, and what would be used for a model of common size.
fn cameras(wishes: &Wishes) -> impl Iterator<Item = String> {
    let lines = match camera::found() {
        Err(e) => vec![capture_sentence(&e)],
        Ok(cameras) => {
            let mut lines = cameras.lines();
            match cameras.choose(wishes.camera.as_deref(), wishes.need(), wishes.color_format.as_deref()) {
                Ok(choice) => {
                    lines.push(format!("used, for models up to 640 x 480: {choice}"));
                    lines.push(format!("the same as gst_args: {}", choice.line()));
                    lines.extend(choice.remarks);
                }
                Err(e) => lines.push(capture_sentence(&e)),
            }
            lines
        }
    };
    lines.into_iter()
}

fn microphones() -> Vec<String> {
    match microphone::found() {
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

fn model(config: &Config) -> String {
    match &config.model {
        None => from_studio(config),
        Some(ModelSource::File(path)) if matches!(path.try_exists(), Ok(false)) => {
            format!(
                "{} is missing (ei_local_model_file); {}",
                path.display(),
                from_studio(config)
            )
        }
        Some(ModelSource::Builtin(name)) => match builtin::check_name(name) {
            Ok(()) => format!("builtin:{name}, this program itself"),
            Err(e) => e.to_string(),
        },
        Some(ModelSource::File(path)) => match examine(path) {
            Ok(Usable::Program(path)) => format!("{}, a program for this machine", path.display()),
            Ok(Usable::Socket(path)) => format!("{}, the socket of a running model", path.display()),
            Err(e) => format!("{}; `run` would try again and again", sentence(&e)),
        },
    }
}

/// What stands for a model file that is not there.
fn from_studio(config: &Config) -> String {
    let provider = Provider::new(config, std::env::var("EI_HOST").ok());
    let target = match (&provider.wanted.target, provider.machine.target()) {
        (Some(forced), _) => forced.clone(),
        (None, Ok(target)) => target.to_owned(),
        (None, Err(e)) => return e.to_string(),
    };
    let studio = match base_url(provider.ei_host.as_deref()) {
        Ok(url) => url.host_str().unwrap_or_default().to_owned(),
        Err(e) => return e.to_string(),
    };
    let earlier = provider.earlier().map_or_else(
        || "none was downloaded yet".to_owned(),
        |model| format!("downloaded last: {}", model.path.display()),
    );
    format!(
        "from {studio} for {target}, with the API key at {:?} of the secret {}; {earlier}",
        config.secret_name, config.secret_id
    )
}
