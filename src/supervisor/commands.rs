//! Carries out commands and answers them.

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;

use super::context::Context;
use crate::commands::{Answer, Command, CommandError};
use crate::config::{Criteria, parse_threshold};
use crate::inference::publisher::Caches;
use crate::model::ModelInfo;
use crate::report::Report;
use crate::uplink::{Message, ReceivedCommand};
use crate::util::text::excerpt;

/// What is to happen after a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    GoOn,
    Restart,
}

/// What commands act on.
pub(super) struct CommandHandler<'a> {
    pub context: &'a Context,
    pub report: &'a Mutex<Report>,
    pub model: Option<&'a Arc<ModelInfo>>,
    pub caches: &'a Caches,
}

impl CommandHandler<'_> {
    /// Does what the command says and publishes the answer.
    pub(super) fn carry_out(&self, incoming: &ReceivedCommand) -> After {
        let command = match incoming.parse() {
            Ok(command) => command,
            Err(e) => {
                tracing::warn!("a command is refused: {e}");
                self.answer(&Answer::Error(e));
                return After::GoOn;
            }
        };
        tracing::info!("command {}", excerpt(&String::from_utf8_lossy(&incoming.payload)));
        let answer = match &command {
            Command::Restart => {
                self.answer(&Answer::Restart);
                return After::Restart;
            }
            Command::EnableFilter => self.switch_filter(true),
            Command::DisableFilter => self.switch_filter(false),
            Command::GetFilterConfig => Answer::FilterConfig(self.report.lock().filter()),
            Command::SetCriteria(value) => self.set_criteria(value),
            Command::GetCriteria => self.criteria(None),
            Command::SetConfidence(value) => self.set_confidence(value),
            Command::GetConfidence => self.confidence(None),
            Command::GetModelInfo => self.model_info(),
            Command::ResetMetrics => {
                self.report.lock().reset_metrics();
                Answer::MetricsReset
            }
            Command::ClearCache => {
                self.clear_cache();
                return After::GoOn;
            }
            Command::ClearCacheFile(id) => {
                self.clear_cache_file(id.clone());
                return After::GoOn;
            }
        };
        self.answer(&answer);
        After::GoOn
    }

    fn answer(&self, answer: &Answer) {
        self.context.outbox.push(Message::answer(
            &self.context.topics,
            answer,
            self.context.setup.config.qos,
        ));
    }

    fn switch_filter(&self, enabled: bool) -> Answer {
        let mut report = self.report.lock();
        report.set_filter_enabled(enabled);
        Answer::FilterConfig(report.filter())
    }

    fn set_criteria(&self, value: &Value) -> Answer {
        match value.as_str().and_then(|text| text.parse::<Criteria>().ok()) {
            Some(criteria) => {
                self.report.lock().set_criteria(criteria);
                self.criteria(None)
            }
            None => self.criteria(Some("accepted: gt, ge, eq, le, lt".to_owned())),
        }
    }

    fn criteria(&self, error: Option<String>) -> Answer {
        Answer::Criteria {
            current: self.report.lock().filter().criteria,
            error,
        }
    }

    fn set_confidence(&self, value: &Value) -> Answer {
        match parse_threshold(value) {
            Ok(threshold) => {
                self.report.lock().set_threshold(threshold);
                self.confidence(None)
            }
            Err(e) => self.confidence(Some(e.to_string())),
        }
    }

    fn confidence(&self, error: Option<String>) -> Answer {
        Answer::Confidence {
            current: self.report.lock().filter().threshold,
            error,
        }
    }

    fn model_info(&self) -> Answer {
        match self.model {
            Some(info) => Answer::ModelInfo {
                name: info.name.clone(),
                version: format!("v{}", info.deploy_version),
                params: Value::Object(info.parameters_with_sensor_type()),
            },
            None => Answer::Error(CommandError::NoModel),
        }
    }

    /// Answers when every cache got to it: writes that came before are part of what is cleared. A cache that is off is
    /// clear.
    fn clear_cache(&self) {
        if self.caches.files.is_none() && self.caches.s3.is_none() {
            return self.answer(&Answer::CacheCleared { local: true, s3: true });
        }
        let (caches, reply) = (self.caches.clone(), self.reply());
        tokio::spawn(async move {
            let local = async { Some(caches.files.as_ref()?.clear().await) };
            let s3 = async { Some(caches.s3.as_ref()?.clear().await) };
            let (local, s3) = tokio::join!(local, s3);
            let ok = |outcome: Option<Result<_, _>>| outcome.is_none_or(|result| result.is_ok());
            reply(&Answer::CacheCleared {
                local: ok(local),
                s3: ok(s3),
            });
        });
    }

    fn clear_cache_file(&self, id: String) {
        let (caches, reply) = (self.caches.clone(), self.reply());
        tokio::spawn(async move {
            // A value that is no id is refused by every cache.
            if uuid::Uuid::try_parse(&id).is_err() {
                let error = Some("accepted: the id of a cached pair, a uuid".to_owned());
                return reply(&Answer::CacheFileCleared {
                    local: false,
                    s3: false,
                    id,
                    error,
                });
            }
            let local = async { Some(caches.files.as_ref()?.clear_one(&id).await) };
            let s3 = async { Some(caches.s3.as_ref()?.clear_one(&id).await) };
            let (local, s3) = tokio::join!(local, s3);
            let ok = |outcome: Option<Result<_, _>>| outcome.is_none_or(|result| result.is_ok());
            let (local, s3) = (ok(local), ok(s3));
            reply(&Answer::CacheFileCleared {
                local,
                s3,
                id,
                error: None,
            });
        });
    }

    fn reply(&self) -> impl Fn(&Answer) + Send + 'static {
        let (outbox, topics, qos) = (
            self.context.outbox.clone(),
            self.context.topics.clone(),
            self.context.setup.config.qos,
        );
        move |answer| {
            outbox.push(Message::answer(&topics, answer, qos));
        }
    }
}
