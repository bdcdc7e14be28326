//! Changes of the configuration while the component runs.

use super::setup::Setup;
use crate::config::{Config, RunnerOptions};

/// A configuration that was deployed while the component runs.
#[derive(Debug)]
pub enum ConfigUpdate {
    /// It can be run.
    Accepted(Box<ConfigChange>),
    /// It cannot be run: the present one stays in force. The reason, as a sentence.
    Refused(String),
}

/// The configuration that replaces the present one.
#[derive(Debug)]
pub struct ConfigChange {
    /// The whole new configuration.
    pub setup: Setup,
    /// The keys with another value.
    pub keys: Vec<&'static str>,
    /// Values of the new configuration that are not used as given.
    pub warnings: Vec<String>,
}

/// What a change of the configuration takes to become effective.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub(super) enum Effect {
    /// Filter, gate, metrics, caches and publishing change while the inference continues.
    AtOnce,
    /// Source and model are started again. The connection to the broker stays.
    NewSession,
    /// The whole process is replaced by a new one: device, broker, spool, live page, lock file.
    NewProcess,
}

impl Effect {
    /// The least that makes all differences effective. A setting that no other case names needs a new process.
    pub(super) fn of(old: &Config, new: &Config) -> Self {
        let at_once = with_immediate_settings(old.clone(), new);
        // The clips of events go to the caches, and start with the session.
        let moves_clips = new.event_clip.is_some()
            && (new.file_cache != old.file_cache || new.s3_cache_bucket != old.s3_cache_bucket);
        if at_once == *new && !moves_clips {
            return Self::AtOnce;
        }
        if with_session_settings(at_once, new) == *new {
            return Self::NewSession;
        }
        Self::NewProcess
    }
}

/// Takes the settings from `new` that [`Effect::AtOnce`] changes, and those that only the install step uses.
fn with_immediate_settings(old: Config, new: &Config) -> Config {
    Config {
        filter: new.filter,
        iotcore_backoff: new.iotcore_backoff,
        metrics_interval: new.metrics_interval,
        qos: new.qos,
        publish_image: new.publish_image,
        events: new.events.clone(),
        publish_inferences: new.publish_inferences,
        file_cache: new.file_cache.clone(),
        s3_cache_bucket: new.s3_cache_bucket.clone(),
        ei_bindir: new.ei_bindir.clone(),
        user_groups: new.user_groups.clone(),
        // The parts of the collection are started with the process.
        frame_collection: match (old.frame_collection, new.frame_collection) {
            (Some(_), Some(new)) => Some(new),
            (old, _) => old,
        },
        ..old
    }
}

/// Takes the settings from `new` that a session reads when it starts.
fn with_session_settings(old: Config, new: &Config) -> Config {
    Config {
        source: new.source.clone(),
        still_interval: new.still_interval,
        microphone_channel: new.microphone_channel,
        model: new.model.clone(),
        secret_id: new.secret_id.clone(),
        secret_name: new.secret_name.clone(),
        shutdown_behavior: new.shutdown_behavior,
        model_updates: new.model_updates.clone(),
        event_clip: new.event_clip,
        runner: RunnerOptions {
            verbosity: old.runner.verbosity,
            http_server: old.runner.http_server,
            preview_original_resolution: old.runner.preview_original_resolution,
            ..new.runner.clone()
        },
        ..old
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, TextOrigin, load};

    fn config(text: &str) -> Config {
        let text = Some((TextOrigin::Nucleus, text.to_owned()));
        let sources = Sources {
            text,
            ..Sources::default()
        };
        load(&sources).unwrap().config
    }

    #[test]
    fn a_collection_of_frames_that_runs_is_changed_at_once() {
        let running = config(r#"{"collect_uncertain": "0.4-0.6"}"#);
        for text in [
            r#"{"collect_uncertain": "0.3-0.7", "collect_category": "testing"}"#,
            r#"{"collect_every_minutes": 5, "collect_per_hour": 1, "collect_mb_per_day": 1}"#,
        ] {
            assert_eq!(Effect::of(&running, &config(text)), Effect::AtOnce, "{text}");
        }
        assert_eq!(Effect::of(&running, &config("{}")), Effect::NewProcess);
    }

    #[test]
    fn each_key_takes_the_least_that_makes_it_effective() {
        for (text, effect) in [
            ("{}", Effect::AtOnce),
            (r#"{"iotcore_backoff": 9}"#, Effect::AtOnce),
            (r#"{"iotcore_qos": 0}"#, Effect::AtOnce),
            (
                r#"{"default_threshold": 0.1, "enable_threshold_limit": "yes"}"#,
                Effect::AtOnce,
            ),
            (r#"{"metrics_sleeptime_ms": 1000}"#, Effect::AtOnce),
            (r#"{"publish_inference_base64_image": true}"#, Effect::AtOnce),
            (
                r#"{"events": {"rules": {"r": {"label": "a", "value_at_least": 1}}}, "publish_inferences": "no"}"#,
                Effect::AtOnce,
            ),
            (
                r#"{"enable_cache_to_file": "yes", "cache_file_directory": "/tmp/pairs"}"#,
                Effect::AtOnce,
            ),
            (r#"{"enable_cache_to_s3": "yes", "s3_bucket": "pairs"}"#, Effect::AtOnce),
            (
                r#"{"enable_cache_to_s3": "yes", "s3_bucket": "pairs", "event_clip": {}}"#,
                Effect::NewSession,
            ),
            (r#"{"ei_ggc_user_groups": "video"}"#, Effect::AtOnce),
            (r#"{"gst_args": "videotestsrc"}"#, Effect::NewSession),
            (
                r#"{"iotcore_backoff": 9, "ei_local_model_file": "/m.eim"}"#,
                Effect::NewSession,
            ),
            (r#"{"eiparams": "--thresholds 1.min_score=0.2"}"#, Effect::NewSession),
            (
                r#"{"microphone_channel": 2, "still_interval_ms": 500}"#,
                Effect::NewSession,
            ),
            (
                r#"{"model_poll_minutes": 5, "model_trial_inferences": 5}"#,
                Effect::NewSession,
            ),
            (r#"{"eiparams": "--verbose"}"#, Effect::NewProcess),
            (r#"{"eiparams": "--run-http-server 8080"}"#, Effect::NewProcess),
            (r#"{"device_name": "other"}"#, Effect::NewProcess),
            (r#"{"iot_endpoint": "mqtt://h"}"#, Effect::NewProcess),
            (r#"{"preview": "no"}"#, Effect::NewProcess),
            (r#"{"spool_max_mb": 1}"#, Effect::NewProcess),
            (r#"{"local_topics": "yes"}"#, Effect::NewProcess),
            (r#"{"collect": "yes"}"#, Effect::NewProcess),
            (r#"{"collect_uncertain": "0.4-0.6"}"#, Effect::NewProcess),
            (r#"{"collect_per_hour": 5}"#, Effect::AtOnce),
            (r#"{"monitor": "yes"}"#, Effect::NewProcess),
            (
                r#"{"gst_args": "videotestsrc", "work_dir": "/data"}"#,
                Effect::NewProcess,
            ),
        ] {
            assert_eq!(Effect::of(&config("{}"), &config(text)), effect, "{text}");
            assert_eq!(Effect::of(&config(text), &config("{}")), effect, "back from {text}");
        }
    }
}
