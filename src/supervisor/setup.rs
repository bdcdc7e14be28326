//! What `run` needs to know, and what makes it refuse.

use crate::aws::IotHost;
use crate::config::{Config, Launch, ModelSource, SourceLine};
use crate::model::builtin;
use crate::uplink::{Broker, BrokerAddress};

/// Where messages go.
#[derive(Debug, Clone)]
pub enum LinkTarget {
    /// A broker with a URL.
    Broker(BrokerAddress),
    /// AWS IoT Core: the endpoint, when it is configured; else it is asked for.
    IotCore(Option<IotHost>),
    /// The screen, one line a message (`demo`).
    Screen,
}

/// A configuration that can be run.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Every setting.
    pub config: Config,
    /// The model to run; `None`: the one that Edge Impulse Studio has for this machine.
    pub model: Option<ModelSource>,
    /// Where pictures or sound come from; `None`: the camera or microphone that is there.
    pub source: Option<SourceLine>,
    /// Where messages go.
    pub link: LinkTarget,
    /// Play a source that is not live as fast as inference goes.
    pub unthrottled: bool,
}

/// Why `run` refuses: one sentence for each reason.
#[derive(Debug, thiserror::Error)]
#[error("this configuration cannot be run: {}", .0.join("; "))]
pub struct SetupError(pub Vec<String>);

impl Setup {
    /// Accepts a configuration that this version can run, with the broker it names, else IoT Core.
    ///
    /// # Errors
    /// All reasons at once why it cannot.
    pub fn new(config: Config, unthrottled: bool) -> Result<Self, SetupError> {
        let link = link_target(&config);
        Self::from_parts(config, link, unthrottled)
    }

    /// The same with messages on the screen instead of a broker.
    ///
    /// # Errors
    /// All reasons at once why it cannot.
    pub fn on_screen(config: Config) -> Result<Self, SetupError> {
        Self::from_parts(config, Ok(LinkTarget::Screen), false)
    }

    fn from_parts(config: Config, link: Result<LinkTarget, String>, unthrottled: bool) -> Result<Self, SetupError> {
        let mut reasons = Vec::new();
        if config.launch == Launch::Linux {
            reasons.push(
                "launch is \"linux\": the data collection service is not available yet; accepted: \"runner\""
                    .to_owned(),
            );
        }
        let mut part = |result: Result<(), String>| reasons.extend(result.err());
        if let Some(ModelSource::Builtin(name)) = &config.model {
            part(builtin::check_name(name).map_err(|e| e.to_string()));
        }
        part(link.as_ref().map(drop).map_err(Clone::clone));
        match link {
            Ok(link) if reasons.is_empty() => Ok(Self {
                source: config.source.clone(),
                model: config.model.clone(),
                config,
                link,
                unthrottled,
            }),
            _ => Err(SetupError(reasons)),
        }
    }
}

/// Where messages go, by `iot_endpoint`.
///
/// # Errors
/// A sentence, when it is no address.
pub fn link_target(config: &Config) -> Result<LinkTarget, String> {
    let Some(text) = config.broker.as_deref() else {
        return Ok(LinkTarget::IotCore(None));
    };
    match text.parse() {
        Ok(Broker::Url(address)) => Ok(LinkTarget::Broker(address)),
        Ok(Broker::IotCoreHost(host)) => Ok(LinkTarget::IotCore(Some(host))),
        Err(e) => Err(format!("iot_endpoint: {e}")),
    }
}
