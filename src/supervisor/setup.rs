//! A configuration that was checked for `run`, with the destination of its messages. The install step is `crate::setup`.

use crate::aws::IotHost;
use crate::config::{Config, Launch, ModelSource, SourceLine};
use crate::model::builtin;
use crate::uplink::{Broker, BrokerAddress};

/// The destination of messages.
#[derive(Debug, Clone)]
pub enum SinkTarget {
    /// A broker with a URL.
    Broker(BrokerAddress),
    /// AWS IoT Core with the configured endpoint; `None`: the endpoint is discovered.
    IotCore(Option<IotHost>),
    /// Stdout, one line per message (`demo`). The inference server and the data collection have this too, because they
    /// publish nothing.
    Stdout,
}

/// A configuration that can be run.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Every setting.
    pub config: Config,
    /// The model to run; `None`: the one from Edge Impulse Studio for this machine.
    pub model: Option<ModelSource>,
    /// The source of pictures or audio; `None`: the first camera or microphone of the machine.
    pub source: Option<SourceLine>,
    /// The destination of messages.
    pub sink: SinkTarget,
    /// Play a source that is not live as fast as the inference allows.
    pub unthrottled: bool,
}

/// Why a configuration cannot be run: one sentence for each reason.
#[derive(Debug, thiserror::Error)]
#[error("this configuration cannot be run: {}", .0.join("; "))]
pub struct SetupError(pub Vec<String>);

impl Setup {
    /// A setup with the configured broker, or IoT Core without one. The inference server (`--run-http-server`) publishes
    /// nothing.
    ///
    /// # Errors
    /// All reasons why this version cannot run the configuration.
    pub fn new(config: Config, unthrottled: bool) -> Result<Self, SetupError> {
        let sink = match config.runner.http_server {
            Some(_) => Ok(SinkTarget::Stdout),
            None => sink_target(&config),
        };
        Self::with_sink(config, sink, unthrottled)
    }

    /// A setup that prints messages to stdout.
    ///
    /// # Errors
    /// The errors of [`Self::new`].
    pub fn with_stdout(config: Config) -> Result<Self, SetupError> {
        Self::with_sink(config, Ok(SinkTarget::Stdout), false)
    }

    fn with_sink(config: Config, sink: Result<SinkTarget, String>, unthrottled: bool) -> Result<Self, SetupError> {
        let mut reasons = Vec::new();
        if let (Some(ModelSource::Builtin(name)), Launch::Runner) = (&config.model, config.launch) {
            reasons.extend(builtin::check_name(name).err().map(|e| e.to_string()));
        }
        reasons.extend(sink.as_ref().err().cloned());
        match sink {
            Ok(sink) if reasons.is_empty() => Ok(Self {
                source: config.source.clone(),
                model: config.model.clone(),
                config,
                sink,
                unthrottled,
            }),
            _ => Err(SetupError(reasons)),
        }
    }
}

/// The destination that `iot_endpoint` configures. The data collection has none.
///
/// # Errors
/// A sentence, if the value is not an address.
pub fn sink_target(config: &Config) -> Result<SinkTarget, String> {
    if config.launch == Launch::Linux {
        return Ok(SinkTarget::Stdout);
    }
    let Some(text) = config.broker.as_deref() else {
        return Ok(SinkTarget::IotCore(None));
    };
    match text.parse() {
        Ok(Broker::Url(address)) => Ok(SinkTarget::Broker(address)),
        Ok(Broker::IotCoreHost(host)) => Ok(SinkTarget::IotCore(Some(host))),
        Err(e) => Err(format!("iot_endpoint: {e}")),
    }
}
