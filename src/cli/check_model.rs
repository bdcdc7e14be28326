//! The model in the report of `check`.

use std::sync::Arc;

use super::model::{describe_input, model_type};
use crate::config::{Config, EffectiveValue, Launch, ModelSource, ThresholdReading};
use crate::model::{
    Interrupt, Model, ModelError, ModelInput, ModelSettings, ModelTarget, Sandbox, SandboxSupport, builtin, examine,
};
use crate::studio::{Provider, base_url, is_missing, missing_file_message};
use crate::util::text::sentence;

/// What was found out about the model.
pub(super) struct ModelCheck {
    /// For the report.
    pub lines: Vec<String>,
    /// The warning about a missing configured file, or about a threshold that the model cannot be compared with.
    pub warning: Option<String>,
    /// What the confidence filter compares the scores of this model with, if it could be started.
    threshold: Option<f64>,
    /// Labels in `events` that the model does not have, as sentences.
    pub unknown_labels: Vec<String>,
    /// The input of the model, if it could be started.
    pub input: Option<ModelInput>,
    /// Why `run` infers nothing with this model, as a line of the result.
    pub fault: Option<String>,
}

impl ModelCheck {
    /// Examines the configured model. Starts it to read its properties if it is a program for this machine.
    pub(super) fn new(config: &Config) -> Self {
        let mut check = Self {
            lines: Vec::new(),
            warning: missing_file_warning(config),
            threshold: None,
            unknown_labels: Vec::new(),
            input: None,
            fault: None,
        };
        if config.launch == Launch::Linux {
            check
                .lines
                .push("not used: launch is linux, which collects data without a model".to_owned());
            check.warning = None;
            return check;
        }
        match location(config) {
            Ok((line, can_be_started)) => {
                check.lines.push(line);
                if let (Some(source), true) = (&config.model, can_be_started) {
                    check.read_info(source.clone(), config);
                }
            }
            Err(reason) => check.fail(&reason),
        }
        check
    }

    /// Shows the threshold as it is compared with the scores of the model.
    pub(super) fn correct_threshold(&self, settings: &mut [EffectiveValue]) {
        let entry = settings.iter_mut().find(|entry| entry.key == "default_threshold");
        if let (Some(entry), Some(threshold)) = (entry, self.threshold) {
            entry.value = threshold.to_string();
        }
    }

    fn fail(&mut self, reason: &str) {
        let reason = reason.replace('\n', " ");
        self.lines.push(format!("{reason}; `run` would retry until it works"));
        self.fault = Some(format!(
            "`run` starts and infers nothing until its model works: {reason}"
        ));
    }

    fn read_info(&mut self, source: ModelSource, config: &Config) {
        let sandbox = Sandbox::new(config.model_sandbox.clone(), SandboxSupport::detect());
        self.lines.push(sandbox.describe());
        let settings = ModelSettings {
            sandbox,
            shm: config.runner.shm,
            thresholds: config.runner.thresholds.clone(),
            ..ModelSettings::new(source, "check", &config.work_dir, Arc::default())
        };
        match Model::read_info(&settings, &Interrupt::new()) {
            Ok(info) => {
                self.lines.push(format!(
                    "{} v{}, {}; takes {}",
                    info.name,
                    info.deploy_version,
                    model_type(&info),
                    describe_input(&info)
                ));
                self.input = Some(info.input);
                if let Some(events) = &config.events {
                    self.unknown_labels = events.unknown_labels(&info.labels);
                }
                let mut filter = config.filter;
                filter.scores_are_probabilities = Some(info.has_probabilities());
                self.threshold = Some(filter.threshold());
                if let Some(warning) = filter.warning() {
                    self.warning = Some(warning.to_string());
                } else if filter.reading() != ThresholdReading::Fraction {
                    self.lines.push(format!(
                        "the confidence filter reads its threshold {} as a {}: scores are compared with {}",
                        filter.given,
                        filter.reading(),
                        filter.threshold()
                    ));
                }
                // The inference server takes features of any sensor.
                let is_served = config.runner.http_server.is_some();
                let reason = info.input.unsupported_reason().filter(|_| !is_served);
                self.fault = reason
                    .map(|reason| format!("`run` starts and stays idle: {reason}; configure or deploy another model"));
            }
            Err(e @ ModelError::NoTemporaryCopy(_)) => self.lines.push(format!(
                "it is not executable; `run` makes it executable. Its properties are not known: {}",
                sentence(&e)
            )),
            Err(e) => self.fail(&sentence(&e)),
        }
    }
}

/// The warning that `run` also logs.
fn missing_file_warning(config: &Config) -> Option<String> {
    match &config.model {
        Some(ModelSource::File(path)) if is_missing(path) => Some(missing_file_message(path)),
        _ => None,
    }
}

/// Where the model comes from, and whether `check` can start it. It must not connect to the socket of a running model:
/// that serves one client and ends when the client disconnects.
///
/// # Errors
/// Why there is no model to run, as a sentence.
fn location(config: &Config) -> Result<(String, bool), String> {
    match &config.model {
        None => Ok((studio_model(config)?, false)),
        Some(ModelSource::File(path)) if is_missing(path) => {
            let fallback = studio_model(config)?;
            let line = format!("{} is missing (ei_local_model_file); {fallback}", path.display());
            Ok((line, false))
        }
        Some(ModelSource::Builtin(name)) => {
            builtin::check_name(name).map_err(|e| e.to_string())?;
            Ok((format!("builtin:{name}, part of this program"), true))
        }
        Some(ModelSource::File(path)) => match examine(path).map_err(|e| sentence(&e))? {
            ModelTarget::Program(path) => Ok((format!("{}, a program for this machine", path.display()), true)),
            ModelTarget::Socket(path) => Ok((format!("{}, the socket of a running model", path.display()), false)),
        },
    }
}

/// The model that `run` downloads when no model file is configured or the file is missing.
///
/// # Errors
/// Why Edge Impulse Studio cannot be asked.
fn studio_model(config: &Config) -> Result<String, String> {
    let provider = Provider::new(config, std::env::var("EI_HOST").ok());
    let target = match (&provider.selection.target, provider.machine.target()) {
        (Some(forced), _) => forced.clone(),
        (None, Ok(target)) => target.to_owned(),
        (None, Err(e)) => return Err(e.to_string()),
    };
    let url = base_url(provider.ei_host.as_deref()).map_err(|e| e.to_string())?;
    let studio = url.host_str().unwrap_or_default();
    let earlier = provider.earlier_model().map_or_else(
        || "no model has been downloaded yet".to_owned(),
        |model| format!("last downloaded: {}", model.path.display()),
    );
    Ok(format!(
        "from {studio} for {target}, with the API key at {:?} of the secret {}; {earlier}",
        config.secret_name, config.secret_id
    ))
}
