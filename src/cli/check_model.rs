//! The model in the report of `check`.

use std::sync::Arc;

use super::model::{describe_input, model_type};
use crate::config::{Config, ModelSource};
use crate::model::{Interrupt, Model, ModelInput, ModelSettings, ModelTarget, builtin, examine};
use crate::studio::{Provider, base_url, is_missing, missing_file_message};
use crate::util::text::sentence;

/// What was found out about the model.
pub(super) struct ModelCheck {
    /// For the report.
    pub lines: Vec<String>,
    /// The warning about a missing configured file.
    pub warning: Option<String>,
    /// The input of the model, if it could be started.
    pub input: Option<ModelInput>,
    /// Why this component cannot use the model, although it starts.
    pub unsupported: Option<String>,
}

impl ModelCheck {
    /// Examines the configured model. Starts it to read its properties if it is a program for this machine.
    pub(super) fn new(config: &Config) -> Self {
        let (line, can_be_started) = location(config);
        let mut check = Self {
            lines: vec![line],
            warning: missing_file_warning(config),
            input: None,
            unsupported: None,
        };
        if let (Some(source), true) = (&config.model, can_be_started) {
            check.read_info(source.clone(), config);
        }
        check
    }

    fn read_info(&mut self, source: ModelSource, config: &Config) {
        let settings = ModelSettings::new(source, "check", &config.work_dir, Arc::default());
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
                let mut filter = config.filter;
                filter.set_threshold(filter.given, info.has_probabilities());
                if let Some(reading) = filter.reading() {
                    self.lines.push(format!(
                        "the confidence filter reads its threshold {} as a {reading}: scores are compared with {}",
                        filter.given, filter.threshold
                    ));
                }
                let reason = info.input.unsupported_reason();
                self.unsupported = reason.map(|reason| format!("{reason}; configure or deploy another model"));
            }
            Err(e) => self.lines.push(format!(
                "it was started, but its properties cannot be read; `run` would retry until it works: {}",
                sentence(&e).replace('\n', " ")
            )),
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
fn location(config: &Config) -> (String, bool) {
    match &config.model {
        None => (studio_model(config), false),
        Some(ModelSource::File(path)) if is_missing(path) => {
            let fallback = studio_model(config);
            let line = format!("{} is missing (ei_local_model_file); {fallback}", path.display());
            (line, false)
        }
        Some(ModelSource::Builtin(name)) => match builtin::check_name(name) {
            Ok(()) => (format!("builtin:{name}, part of this program"), true),
            Err(e) => (e.to_string(), false),
        },
        Some(ModelSource::File(path)) => match examine(path) {
            Ok(ModelTarget::Program(path)) => (format!("{}, a program for this machine", path.display()), true),
            Ok(ModelTarget::Socket(path)) => (format!("{}, the socket of a running model", path.display()), false),
            Err(e) => (format!("{}; `run` would retry until it works", sentence(&e)), false),
        },
    }
}

/// The model that `run` downloads when no model file is configured or the file is missing.
fn studio_model(config: &Config) -> String {
    let provider = Provider::new(config, std::env::var("EI_HOST").ok());
    let target = match (&provider.selection.target, provider.machine.target()) {
        (Some(forced), _) => forced.clone(),
        (None, Ok(target)) => target.to_owned(),
        (None, Err(e)) => return e.to_string(),
    };
    let studio = match base_url(provider.ei_host.as_deref()) {
        Ok(url) => url.host_str().unwrap_or_default().to_owned(),
        Err(e) => return e.to_string(),
    };
    let earlier = provider.earlier_model().map_or_else(
        || "no model has been downloaded yet".to_owned(),
        |model| format!("last downloaded: {}", model.path.display()),
    );
    format!(
        "from {studio} for {target}, with the API key at {:?} of the secret {}; {earlier}",
        config.secret_name, config.secret_id
    )
}
