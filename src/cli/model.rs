//! `model fetch` downloads the model from Edge Impulse Studio; `model info` prints the properties of a model.

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};
use tokio::sync::watch;

use super::{ConfigArgs, Exit, LogArgs, complain, logging};
use crate::config::{Config, Loaded, ModelSource};
use crate::model::{
    Interrupt, Model, ModelInfo, ModelInput, ModelSettings, ModelTarget, Sandbox, SandboxSupport, examine,
};
use crate::studio::{FetchError, FetchStage, ModelStore, Provider};
use crate::util::text::sentence;

/// Arguments of `model`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  ei-greengrass model fetch --config my.json\n  ei-greengrass model info ./model.eim"
)]
pub struct ModelCommand {
    #[command(subcommand)]
    action: ModelAction,
}

#[derive(Debug, Subcommand)]
enum ModelAction {
    /// Download the model for this machine from Edge Impulse Studio, once; the last line is its path.
    #[command(
        after_help = "Example:\n  ei-greengrass model fetch --set eiparams='--api-key ei_...' --set work_dir=/tmp/work\n\n\
        Exit code: 0; 2 when the configuration, a permission or the project must be changed; 1 when a later attempt may succeed."
    )]
    Fetch {
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Show the properties of a model: name, version, input, labels, thresholds, engine.
    #[command(after_help = "Example:\n  ei-greengrass model info\n  ei-greengrass model info ./model.eim")]
    Info {
        /// An .eim file, or builtin:NAME; without it the model that `run` would use, if it is on this device.
        file: Option<String>,
        #[command(flatten)]
        config: ConfigArgs,
    },
}

pub(super) fn main(command: &ModelCommand, log: &LogArgs) -> Exit {
    crate::util::private_dir::deny_writing_by_others();
    match &command.action {
        ModelAction::Fetch { config } => with_config(config, |loaded| fetch(loaded, log)),
        ModelAction::Info { file, config } => with_config(config, |loaded| info(file.as_deref(), loaded, log)),
    }
}

fn with_config(args: &ConfigArgs, execute: impl FnOnce(&Loaded) -> Exit) -> Exit {
    match args.load_or_default() {
        Ok(loaded) => execute(&loaded),
        Err(e) => {
            complain(&sentence(&e));
            Exit::Configuration
        }
    }
}

fn fetch(loaded: &Loaded, log: &LogArgs) -> Exit {
    let config = &loaded.config;
    logging::init(log.log_format, log.verbosity().unwrap_or(config.runner.verbosity));
    for warning in &loaded.warnings {
        tracing::warn!(detail = %warning, "Configuration warning");
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            tracing::error!(error = %e, "The async runtime cannot be started");
            return Exit::Failure;
        }
    };
    let provider = Provider::new(config, std::env::var("EI_HOST").ok());
    provider.store.remove_leftovers();
    let stage = watch::Sender::new(FetchStage::Selecting);
    let result = runtime.block_on(async {
        tokio::select! {
            result = provider.fetch_once(&stage) => Some(result),
            // Dropping the task removes the partial download.
            _ = tokio::signal::ctrl_c() => None,
        }
    });
    runtime.shutdown_background();
    match result {
        Some(Ok(model)) => {
            println!("{}", model.path.display());
            Exit::Orderly
        }
        Some(Err(e)) => {
            tracing::error!(error = %sentence(&e), "The model was not downloaded");
            exit_for(&e)
        }
        None => {
            tracing::warn!("Interrupted; nothing was downloaded");
            Exit::Failure
        }
    }
}

fn exit_for(error: &FetchError) -> Exit {
    match error.retry() {
        crate::util::backoff::Retry::Later => Exit::Configuration,
        crate::util::backoff::Retry::Soon => Exit::Failure,
    }
}

fn info(file: Option<&str>, loaded: &Loaded, log: &LogArgs) -> Exit {
    let config = &loaded.config;
    logging::init(log.log_format, log.verbosity().unwrap_or_default());
    let (source, location) = match find_model(file, config) {
        Ok(found) => found,
        Err(text) => {
            complain(&text);
            return Exit::Configuration;
        }
    };
    let settings = ModelSettings {
        sandbox: Sandbox::new(config.model_sandbox.clone(), SandboxSupport::detect()),
        ..ModelSettings::new(source, "info", &config.work_dir, Arc::default())
    };
    match Model::read_info(&settings, &Interrupt::new()) {
        Ok(info) => {
            print!("{}", describe(&location, &info));
            Exit::Orderly
        }
        Err(e) => {
            complain(&sentence(&e));
            Exit::Failure
        }
    }
}

/// The model to start, and its location as text.
fn find_model(file: Option<&str>, config: &Config) -> Result<(ModelSource, String), String> {
    let source = match (file, &config.model) {
        (Some(text), _) => match text.strip_prefix("builtin:") {
            Some(name) => ModelSource::Builtin(name.to_owned()),
            None => ModelSource::File(PathBuf::from(text)),
        },
        (None, Some(source)) => source.clone(),
        (None, None) => {
            let store = ModelStore::new(&config.work_dir);
            let newest = Provider::new(config, std::env::var("EI_HOST").ok())
                .earlier_model()
                .or_else(|| store.newest(None));
            let Some(model) = newest else {
                return Err(format!(
                    "there is no model in {} yet: name a file (ei-greengrass model info FILE), or download one (ei-greengrass model fetch)",
                    store.root().display()
                ));
            };
            ModelSource::File(model.path)
        }
    };
    match &source {
        ModelSource::Builtin(name) => {
            let location = format!("builtin:{name}");
            Ok((source, location))
        }
        ModelSource::File(path) => match examine(path) {
            Ok(ModelTarget::Program(program)) => Ok((source, program.display().to_string())),
            Ok(ModelTarget::Socket(socket)) => Err(format!(
                "{} is the socket of a running model, which ends when its only client disconnects: name the .eim file instead",
                socket.display()
            )),
            Err(e) => Err(sentence(&e)),
        },
    }
}

fn describe(location: &str, info: &ModelInfo) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(out, "{name:<11}{}", escaped(&value));
    };
    line("file", location.to_owned());
    line("name", info.name.clone());
    line("version", format!("v{}", info.deploy_version));
    line("owner", info.owner.clone());
    line("project", info.project_id.to_string());
    line("type", model_type(info));
    line("anomaly", anomaly(info));
    line("input", describe_input(info));
    line("labels", info.labels.join(", "));
    for threshold in info.settable_thresholds() {
        line("threshold", threshold);
    }
    line("engine", engine_name(info));
    out
}

/// The text with its control characters as `\n`, `\u{1b}`: a label must not move the cursor of a terminal.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        // Format characters reorder or hide text.
        let is_format = matches!(character, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
        if character.is_control() || is_format {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    out
}

/// The type of a model as text.
pub(super) fn model_type(info: &ModelInfo) -> String {
    if info.is_visual_anomaly() {
        format!("visual anomaly detection (model_type {})", info.model_type)
    } else {
        info.model_type.clone()
    }
}

/// The anomaly detection block.
fn anomaly(info: &ModelInfo) -> String {
    match info.anomaly_type() {
        0 => "none".to_owned(),
        1 => "K-means (1)".to_owned(),
        2 => "GMM (2)".to_owned(),
        3 => "visual GMM (3)".to_owned(),
        4 => "visual PatchCore (4)".to_owned(),
        other => format!("number {other}"),
    }
}

/// The input of a model as text.
pub(super) fn describe_input(info: &ModelInfo) -> String {
    match info.input {
        ModelInput::Image {
            width,
            height,
            grey,
            resize,
        } => {
            let colours = if grey { "grey" } else { "RGB" };
            let resize = resize.map_or_else(|| "not specified".to_owned(), |mode| mode.to_string());
            format!("pictures of {width} x {height}, {colours}, resize mode {resize}")
        }
        ModelInput::Audio {
            frequency, slice_size, ..
        } => format!(
            "audio of {frequency} Hz, {} values, slices of {slice_size}",
            info.features
        ),
        ModelInput::SeveralImages(frames) => format!("{frames} pictures at a time, {} values", info.features),
        ModelInput::Unsupported(sensor) => format!("{} values of sensor {sensor}", info.features),
    }
}

/// `inferencing_engine` is a number: the constants `EI_CLASSIFIER_*` of `model_metadata.h` in Edge Impulse's
/// inferencing SDK.
fn engine_name(info: &ModelInfo) -> String {
    let number = info
        .raw_parameters
        .get("inferencing_engine")
        .and_then(|number| number.as_u64());
    let Some(number) = number else {
        return "not specified".to_owned();
    };
    let name = match number {
        1 => "uTensor",
        2 => "TensorFlow Lite Micro, or EON Compiler",
        3 => "Cube.AI",
        4 => "TensorFlow Lite",
        5 => "TensaiFlow",
        6 => "TensorRT",
        7 => "DRP-AI",
        8 => "TensorFlow Lite with TIDL",
        9 => "Akida",
        10 => "Syntiant",
        11 => "ONNX with TIDL",
        12 => "MemryX",
        13 => "Ethos",
        14 => "ATON",
        15 => "CEVA NPN",
        16 => "Axon",
        17 => "vision-language server",
        255 => "none",
        _ => return format!("number {number}"),
    };
    format!("{name} ({number})")
}
