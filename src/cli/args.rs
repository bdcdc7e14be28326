//! Arguments that subcommands share.

use std::path::PathBuf;

use clap::Args;

use super::logging::LogFormat;
use crate::config::{ConfigError, Loaded, Sources, TextOrigin, Verbosity};

/// Environment variable with which the recipe passes the component configuration.
const CONFIG_VARIABLE: &str = "CONFIG_PARAMETERS";

#[derive(Debug, Args)]
pub(super) struct LogArgs {
    /// Format of log lines.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, help_heading = "Logging")]
    pub(super) log_format: LogFormat,
    /// Also log debug lines. RUST_LOG takes precedence.
    #[arg(long, global = true, help_heading = "Logging")]
    verbose: bool,
    /// Log warnings and errors only. RUST_LOG takes precedence.
    #[arg(long, global = true, conflicts_with = "verbose", help_heading = "Logging")]
    silent: bool,
}

impl LogArgs {
    /// The verbosity that the flags ask for.
    pub(super) fn verbosity(&self) -> Option<Verbosity> {
        match (self.verbose, self.silent) {
            (true, _) => Some(Verbosity::Verbose),
            (_, true) => Some(Verbosity::Silent),
            _ => None,
        }
    }
}

/// The sources of the configuration.
#[derive(Debug, Args, Clone)]
pub struct ConfigArgs {
    /// Component configuration, JSON or YAML: the parameters, {"Parameters": {...}}, a recipe, a deployment, the value
    /// of --update-config, effectiveConfig.yaml, or the output of `greengrass-cli component details`. Without it the
    /// environment variable CONFIG_PARAMETERS is read.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set one key, over what the configuration says; repeatable.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// The model: an .eim file, the unix socket of a running model, or builtin:ball (= ei_local_model_file).
    #[arg(long, value_name = "FILE")]
    model: Option<String>,
    /// The broker, e.g. mqtt://localhost:1883 (= iot_endpoint).
    #[arg(long, value_name = "URL")]
    mqtt: Option<String>,
    /// The source as an ordinary gst-launch line; nothing in it is decoded.
    #[arg(long, value_name = "LINE")]
    gst: Option<String>,
}

impl ConfigArgs {
    /// Loads the configuration, or the defaults when none is given. The defaults name a device and a broker too: those
    /// that `run` would use.
    pub(super) fn load_or_default(&self) -> Result<Loaded, ConfigError> {
        match self.load()? {
            Some(loaded) => Ok(loaded),
            None => crate::config::load(&Sources {
                current_dir: current_dir(),
                ..Sources::default()
            }),
        }
    }

    /// Loads the configuration. `Ok(None)`: none was given.
    pub(super) fn load(&self) -> Result<Option<Loaded>, ConfigError> {
        let text = match &self.config {
            Some(path) => Some((TextOrigin::File(path.clone()), crate::config::read_file(path)?)),
            // Invalid UTF-8 shows as replacement characters in the value.
            None => std::env::var_os(CONFIG_VARIABLE)
                .map(|text| (TextOrigin::Environment, text.to_string_lossy().into_owned())),
        };
        let given =
            text.is_some() || !self.set.is_empty() || self.model.is_some() || self.mqtt.is_some() || self.gst.is_some();
        if !given {
            return Ok(None);
        }
        let sets = self
            .set
            .iter()
            .map(|set| crate::config::parse_set(set))
            .collect::<Result<_, _>>()?;
        crate::config::load(&Sources {
            text,
            sets,
            model: self.model.clone(),
            mqtt: self.mqtt.clone(),
            gst: self.gst.clone(),
            current_dir: current_dir(),
        })
        .map(Some)
    }
}

fn current_dir() -> PathBuf {
    std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."))
}

/// The message when no configuration was given.
pub(super) const NO_CONFIGURATION: &str = "no configuration was given: there is no --config FILE, the environment variable CONFIG_PARAMETERS \
     (set by the Greengrass recipe) is not set, and there are no --set, --model, --mqtt or --gst flags. \
     For a demonstration: `ei-greengrass demo`; to run by hand: `ei-greengrass run --config FILE`";
