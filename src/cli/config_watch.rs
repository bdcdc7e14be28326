//! Follows the configuration of the nucleus while `run` runs.

use tokio::sync::mpsc;

use super::ConfigArgs;
use crate::config::{Loaded, TextOrigin, changed_keys};
use crate::nucleus::Nucleus;
use crate::supervisor::{ConfigChange, ConfigUpdate, Setup};
use crate::util::text::sentence;

/// Reads changed configurations as `run` read the first one.
pub(super) struct ConfigWatch {
    pub nucleus: Nucleus,
    /// The `Parameters` of the first configuration.
    pub text: String,
    /// What was loaded from them.
    pub loaded: Loaded,
    /// The flags of `run`, whose values win over the configuration.
    pub args: ConfigArgs,
    /// The flag `--unthrottled`.
    pub unthrottled: bool,
}

impl ConfigWatch {
    /// Starts to send changed configurations, until the receiver is dropped.
    pub(super) fn start(self) -> mpsc::Receiver<ConfigUpdate> {
        let (sender, updates) = mpsc::channel(1);
        tokio::spawn(self.run(sender));
        updates
    }

    async fn run(mut self, updates: mpsc::Sender<ConfigUpdate>) {
        let (sender, mut texts) = mpsc::channel(1);
        let nucleus = self.nucleus.clone();
        let watch = nucleus.watch_parameters(self.text.clone(), sender);
        let convert = async {
            while let Some(text) = texts.recv().await {
                let update = self.update(text);
                let is_refused = matches!(update, ConfigUpdate::Refused(_));
                if let ConfigUpdate::Refused(reason) = &update {
                    tracing::error!(
                        reason,
                        advice = "deploy a configuration that can run",
                        "The configuration that was deployed cannot run; the one before stays in force"
                    );
                }
                if updates.send(update).await.is_err() {
                    return;
                }
                if is_refused {
                    self.report_error().await;
                }
            }
        };
        tokio::select! {
            () = watch => {}
            () = convert => {}
            () = updates.closed() => {}
        }
    }

    fn update(&mut self, text: String) -> ConfigUpdate {
        let loaded = match self.args.load_text(Some((TextOrigin::Nucleus, text))) {
            Ok(loaded) => loaded,
            Err(error) => return ConfigUpdate::Refused(sentence(&error)),
        };
        let setup = match Setup::new(loaded.config.clone(), self.unthrottled) {
            Ok(setup) => setup,
            Err(error) => return ConfigUpdate::Refused(sentence(&error)),
        };
        let change = ConfigChange {
            setup,
            keys: changed_keys(&self.loaded, &loaded),
            warnings: loaded.warnings.iter().map(ToString::to_string).collect(),
        };
        self.loaded = loaded;
        ConfigUpdate::Accepted(Box::new(change))
    }

    /// The classic nucleus then restarts the component, which fails with this configuration, so that the deployment fails and
    /// can be rolled back. Greengrass Lite only accepts the report.
    async fn report_error(&self) {
        if let Err(error) = self.nucleus.report_errored().await {
            tracing::warn!(%error, "The state ERRORED could not be reported to the nucleus");
        }
    }
}
