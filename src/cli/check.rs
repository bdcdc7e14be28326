//! `check`: every effective setting, what would run, and what is wrong. Starts nothing and changes nothing.

use std::fmt::Write;
use std::path::Path;

use clap::Args;

use super::{ConfigArgs, Exit, NO_CONFIGURATION, check_online, complain, say};
use crate::capture::{CaptureError, PipelineDescription, describe};
use crate::config::{Config, Loaded, ModelSource};
use crate::device::{Topics, peek};
use crate::model::{Usable, builtin, examine};
use crate::studio::{Provider, base_url};
use crate::supervisor::{Setup, SetupError, not_available, sentence};

/// Arguments of `check`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  ei-greengrass check --config my.json\n  ei-greengrass check --config my.json --online\n\n\
    Exit code: 0; 2 when `run` would refuse this configuration; 1 when a probe of --online failed."
)]
pub struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Also try what needs the network: AWS identity and region, the IoT Core endpoint, and one message to the broker.
    #[arg(long)]
    online: bool,
}

pub(super) fn main(args: &CheckArgs) -> Exit {
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
    section(
        &mut out,
        "Not available in this version, without effect",
        not_available(config),
    );
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
        return vec!["none".to_owned()];
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
