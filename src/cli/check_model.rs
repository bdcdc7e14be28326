//! What `check` says of the model.

use std::path::Path;
use std::sync::Arc;

use super::model::input;
use crate::config::{Config, ModelSource};
use crate::model::{Interrupt, Model, ModelInput, ModelSettings, ModelTarget, builtin, examine};
use crate::studio::{Provider, base_url, is_missing, missing_file_message};
use crate::util::text::sentence;

/// What there is to say.
pub(super) struct ModelCheck {
    /// For the report.
    pub lines: Vec<String>,
    /// A configured file that is not there.
    pub warning: Option<String>,
    /// What the model takes, when it said so.
    pub input: Option<ModelInput>,
    /// Why this component cannot use the model, which otherwise is well.
    pub unsupported: Option<String>,
}

impl ModelCheck {
    /// Looks at the configured model; one that is a program for this machine is started and asked what it is.
    pub(super) fn of(config: &Config) -> Self {
        let (line, can_be_asked) = whence(config);
        let mut check = Self {
            lines: vec![line],
            warning: missing(config),
            input: None,
            unsupported: None,
        };
        if let (Some(source), true) = (&config.model, can_be_asked) {
            check.ask(source.clone(), &config.work_dir);
        }
        check
    }

    fn ask(&mut self, source: ModelSource, work_dir: &Path) {
        let settings = ModelSettings::new(source, "check", work_dir, Arc::default());
        match Model::read_info(&settings, &Interrupt::new()) {
            Ok(info) => {
                self.lines.push(format!(
                    "{} v{}, {}; takes {}",
                    info.name,
                    info.deploy_version,
                    info.model_type,
                    input(&info)
                ));
                self.input = Some(info.input);
                if let ModelInput::Unsupported(sensor) = info.input {
                    self.unsupported = Some(format!(
                        "the model works on sensor \"{sensor}\", and this component feeds cameras and microphones to models; \
                         configure or deploy another model"
                    ));
                }
            }
            Err(e) => self.lines.push(format!(
                "it was started and does not say what it is; `run` would try again and again: {}",
                sentence(&e).replace('\n', " ")
            )),
        }
    }
}

/// The warning that `run` gives too.
fn missing(config: &Config) -> Option<String> {
    match &config.model {
        Some(ModelSource::File(path)) if is_missing(path) => Some(missing_file_message(path)),
        _ => None,
    }
}

/// Where the model comes from, in words, and whether it is a program that can be asked. A running model's socket cannot:
/// it serves one client and ends when that one goes.
fn whence(config: &Config) -> (String, bool) {
    match &config.model {
        None => (from_studio(config), false),
        Some(ModelSource::File(path)) if is_missing(path) => {
            let instead = from_studio(config);
            let line = format!("{} is missing (ei_local_model_file); {instead}", path.display());
            (line, false)
        }
        Some(ModelSource::Builtin(name)) => match builtin::check_name(name) {
            Ok(()) => (format!("builtin:{name}, this program itself"), true),
            Err(e) => (e.to_string(), false),
        },
        Some(ModelSource::File(path)) => match examine(path) {
            Ok(ModelTarget::Program(path)) => (format!("{}, a program for this machine", path.display()), true),
            Ok(ModelTarget::Socket(path)) => (format!("{}, the socket of a running model", path.display()), false),
            Err(e) => (format!("{}; `run` would try again and again", sentence(&e)), false),
        },
    }
}

/// What stands for a model file that is not there.
fn from_studio(config: &Config) -> String {
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
        || "none was downloaded yet".to_owned(),
        |model| format!("downloaded last: {}", model.path.display()),
    );
    format!(
        "from {studio} for {target}, with the API key at {:?} of the secret {}; {earlier}",
        config.secret_name, config.secret_id
    )
}
