//! Arguments that subcommands share.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;

use super::logging::LogFormat;
use crate::config::{ConfigError, Loaded, Sources, TextOrigin, Verbosity};
use crate::nucleus::{Nucleus, NucleusError, RunningComponent};

/// Environment variable with which recipes of earlier versions pass the component configuration.
const CONFIG_VARIABLE: &str = "CONFIG_PARAMETERS";
/// How long a subcommand other than `run` waits for a nucleus that is being restarted.
const NUCLEUS_LIMIT: Duration = Duration::from_secs(15);
/// Pause between two attempts to reach the nucleus.
const NUCLEUS_RETRY: Duration = Duration::from_secs(1);

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
    /// of --update-config, effectiveConfig.yaml, or the output of `greengrass-cli component details`. Without it a
    /// component asks the Greengrass nucleus, or reads the environment variable CONFIG_PARAMETERS if it is set.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The configuration of the component that Greengrass runs on this machine. Needs root. PID chooses one of several.
    #[arg(long, value_name = "PID", num_args = 0..=1, require_equals = true, conflicts_with = "config")]
    deployed: Option<Option<u32>>,
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
        if let Some(pid) = self.deployed {
            let RunningComponent { nucleus, current_dir } = RunningComponent::find(pid)?;
            let text = (TextOrigin::Nucleus, parameters_in_time(&nucleus)?);
            return self.load_sources(Some(text), current_dir).map(Some);
        }
        let text = match &self.config {
            Some(path) => Some((TextOrigin::File(path.clone()), crate::config::read_file(path)?)),
            None => match (configuration_variable(), self.nucleus()) {
                (Some(text), _) => Some((TextOrigin::Environment, text)),
                (None, Some(nucleus)) => Some((TextOrigin::Nucleus, parameters_in_time(&nucleus)?)),
                (None, None) => None,
            },
        };
        let given =
            text.is_some() || !self.set.is_empty() || self.model.is_some() || self.mqtt.is_some() || self.gst.is_some();
        given.then(|| self.load_text(text)).transpose()
    }

    /// The nucleus that has the configuration; `None`: it comes from elsewhere.
    pub(super) fn nucleus(&self) -> Option<Nucleus> {
        if self.config.is_some() || configuration_variable().is_some() {
            return None;
        }
        Nucleus::from_env()
    }

    /// Loads this configuration text, with the values of the flags.
    pub(super) fn load_text(&self, text: Option<(TextOrigin, String)>) -> Result<Loaded, ConfigError> {
        self.load_sources(text, current_dir())
    }

    fn load_sources(&self, text: Option<(TextOrigin, String)>, current_dir: PathBuf) -> Result<Loaded, ConfigError> {
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
            current_dir,
        })
    }
}

/// The component's `Parameters`, for a subcommand other than `run`.
fn parameters_in_time(nucleus: &Nucleus) -> Result<String, NucleusError> {
    let deadline = Instant::now() + NUCLEUS_LIMIT;
    read_parameters(nucleus, |_| Instant::now() < deadline)
}

/// The text of `CONFIG_PARAMETERS`. Invalid UTF-8 shows as replacement characters in the value.
fn configuration_variable() -> Option<String> {
    std::env::var_os(CONFIG_VARIABLE).map(|text| text.to_string_lossy().into_owned())
}

/// Reads the component's `Parameters` from the nucleus. After a failure, `retry` decides whether it is asked again.
pub(super) fn read_parameters(
    nucleus: &Nucleus,
    mut retry: impl FnMut(&NucleusError) -> bool,
) -> Result<String, NucleusError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| NucleusError::Failed {
        operation: "GetConfiguration",
        reason: format!("the runtime cannot be started: {error}"),
    })?;
    runtime.block_on(async {
        loop {
            match nucleus.parameters().await {
                Err(error) if retry(&error) => tokio::time::sleep(NUCLEUS_RETRY).await,
                result => return result,
            }
        }
    })
}

fn current_dir() -> PathBuf {
    std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."))
}

/// The message when no configuration was given.
pub(super) const NO_CONFIGURATION: &str = "no configuration was given: Greengrass did not start this program, there is no --config FILE, the environment \
     variable CONFIG_PARAMETERS is not set, and there are no --set, --model, --mqtt or --gst flags. \
     For a demonstration: `ei-greengrass demo`; to run by hand: `ei-greengrass run --config FILE`";
