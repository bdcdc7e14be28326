//! The table of keys: name, default, accepted values, parser and display. `check`, `config get` and the test that compares
//! the recipe use the same table. A new key is a static here, an entry of [`KEYS`], a field of
//! [`Config`](super::types::Config) and a line in `build.rs`, which reads it.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use strum::{Display, EnumString};

use super::bucket::S3Bucket;
use super::event_clip::EventClipConfig;
use super::events::EventsConfig;
use super::frame_collection::{SampleCategory, ValueBand};
use super::number::{self, ACCEPTED_THRESHOLD, as_fraction};
use super::show;
use super::spelling;
use super::types::{Criteria, Launch, MicrophoneChannel, ModelSource, Qos, SandboxMode, ShutdownBehavior, SourceLine};
use super::values::{self, Parser};
use crate::device::DEFAULT_TEMPLATE;
use crate::util::secret::{Redacted, Secret};

/// A default as the recipe writes it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum DefaultValue {
    /// `"__none__"`
    Absent,
    /// A text.
    Text(&'static str),
    /// An integer.
    Integer(i64),
    /// Any other number.
    Number(f64),
}

impl DefaultValue {
    /// The JSON value in a recipe.
    pub fn to_json(self) -> Value {
        match self {
            Self::Absent => json!("__none__"),
            Self::Text(text) => json!(text),
            Self::Integer(number) => json!(number),
            Self::Number(number) => json!(number),
        }
    }
}

/// A key without the type of its value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KeyInfo {
    /// The key.
    pub name: &'static str,
    /// Used when the key is absent or its value is not accepted.
    pub default: DefaultValue,
    /// The accepted values, as text for messages.
    pub accepted: &'static str,
    /// Why the key has no effect, if it has none.
    pub remark: Option<&'static str>,
    /// The value is or may contain a secret: warnings show `***`.
    pub secret: bool,
    /// A value that is not accepted may be a secret that was pasted in the wrong place: warnings show `***`.
    pub hides_refused: bool,
}

/// A key with the type of its value.
pub(super) struct Key<T> {
    pub(super) info: KeyInfo,
    pub(super) parse: Parser<T>,
    /// The effective value as text that `parse` accepts; empty if absent.
    pub(super) show: fn(&T) -> String,
}

impl<T> Key<T> {
    const fn new(
        name: &'static str,
        default: DefaultValue,
        accepted: &'static str,
        parse: Parser<T>,
        show: fn(&T) -> String,
    ) -> Self {
        Self {
            info: KeyInfo {
                name,
                default,
                accepted,
                remark: None,
                secret: false,
                hides_refused: false,
            },
            parse,
            show,
        }
    }

    const fn without_effect(mut self, remark: &'static str) -> Self {
        self.info.remark = Some(remark);
        self
    }

    const fn hiding_refused(mut self) -> Self {
        self.info.hides_refused = true;
        self
    }

    const fn secret(mut self) -> Self {
        self.info.secret = true;
        self
    }
}

impl<T: Default> Key<T> {
    /// The default. A test parses every default, so the fallback to the type's own default is never used.
    pub(super) fn default(&self) -> T {
        match self.info.default {
            DefaultValue::Absent => T::default(),
            given => (self.parse)(&given.to_json())
                .map(|parsed| parsed.value)
                .unwrap_or_default(),
        }
    }
}

use DefaultValue::{Absent, Integer, Number, Text};

const SWITCH: &str = "yes or no";
const ONE_LINE: &str = "a text on one line";
const PATH: &str = "a path";
const MINUTES: &str = "minutes, an integer from 0 to 10080";
const MIB: &str = "MiB, an integer from 1 to 16777216";
const NO_RUNTIME: &str = "has no effect here: nothing needs Node.js or libvips";

const fn switch(name: &'static str, default: &'static str) -> Key<bool> {
    Key::new(name, Text(default), SWITCH, values::switch, show::switch)
}

const fn text(name: &'static str, default: &'static str) -> Key<String> {
    Key::new(name, Text(default), ONE_LINE, values::text, String::clone)
}

const fn path(name: &'static str, default: &'static str) -> Key<PathBuf> {
    Key::new(name, Text(default), PATH, values::path, |path| show::path(path))
}

const fn optional_path(name: &'static str) -> Key<Option<PathBuf>> {
    Key::new(name, Absent, PATH, values::some_path, show::some_path)
}

const fn minutes(name: &'static str, default: i64) -> Key<Duration> {
    Key::new(name, Integer(default), MINUTES, values::minutes, show::minutes)
}

const fn mebibytes(name: &'static str, default: i64) -> Key<u64> {
    Key::new(name, Integer(default), MIB, values::mebibytes, show::mebibytes)
}

pub(super) static NODE_VERSION: Key<String> = text("node_version", "20.12.1").without_effect(NO_RUNTIME);
pub(super) static VIPS_VERSION: Key<String> = text("vips_version", "8.12.1").without_effect(NO_RUNTIME);
pub(super) static DEVICE_NAME: Key<String> = Key::new(
    "device_name",
    Text(DEFAULT_TEMPLATE),
    "a text",
    values::any_text,
    String::clone,
);
pub(super) static LAUNCH: Key<Launch> = Key::new(
    "launch",
    Text("runner"),
    Launch::ACCEPTED,
    values::choice,
    ToString::to_string,
);
pub(super) static SLEEP_TIME_SEC: Key<Duration> = Key::new(
    "sleep_time_sec",
    Integer(10),
    "seconds, from 0.1 to 86400",
    values::seconds,
    show::seconds,
);
pub(super) static LOCK_FILENAME: Key<PathBuf> = path("lock_filename", "/tmp/ei_lockfile_runner");
pub(super) static GST_ARGS: Key<Option<SourceLine>> = Key::new(
    "gst_args",
    Absent,
    "a GStreamer source pipeline as text, spaces written as `:`",
    values::encoded_source,
    show::source,
);
pub(super) static EIPARAMS: Key<String> = Key::new(
    "eiparams",
    Text("--greengrass"),
    "runner options as text",
    values::any_text,
    String::clone,
)
.secret();
pub(super) static IOTCORE_BACKOFF: Key<u32> = Key::new(
    "iotcore_backoff",
    Text("5"),
    "an integer",
    values::count,
    ToString::to_string,
);
pub(super) static IOTCORE_QOS: Key<Qos> = Key::new("iotcore_qos", Text("1"), "0 or 1", values::qos, show::qos);
pub(super) static EI_BINDIR: Key<PathBuf> = path("ei_bindir", "/usr/local/bin");
pub(super) static EI_SM_SECRET_ID: Key<String> = Key::new(
    "ei_sm_secret_id",
    Text("EI_API_KEY"),
    "the name or ARN of a secret in Secrets Manager, not its content",
    values::secret_id,
    String::clone,
)
.hiding_refused();
pub(super) static EI_SM_SECRET_NAME: Key<String> = Key::new(
    "ei_sm_secret_name",
    Text("ei_api_key"),
    "the name of the key inside the secret, not the API key itself",
    values::secret_name,
    String::clone,
)
.hiding_refused();
pub(super) static EI_GGC_USER_GROUPS: Key<String> = Key::new(
    "ei_ggc_user_groups",
    Text("video audio input users"),
    "group names separated by blanks",
    values::groups,
    String::clone,
);
pub(super) static INSTALL_KVSSINK: Key<bool> = switch("install_kvssink", "no");
pub(super) static PUBLISH_IMAGE: Key<bool> = switch("publish_inference_base64_image", "no");
pub(super) static ENABLE_CACHE_TO_FILE: Key<bool> = switch("enable_cache_to_file", "no");
pub(super) static EI_POLL_SLEEPTIME_MS: Key<u32> = Key::new(
    "ei_poll_sleeptime_ms",
    Integer(2500),
    "milliseconds",
    values::count,
    ToString::to_string,
)
.without_effect("has no effect here: commands arrive by subscription, at once");
pub(super) static EI_LOCAL_MODEL_FILE: Key<Option<ModelSource>> = Key::new(
    "ei_local_model_file",
    Absent,
    "the path of an .eim file or of the socket of a running one, or builtin:NAME",
    values::model,
    show::model,
);
pub(super) static EI_SHUTDOWN_BEHAVIOR: Key<ShutdownBehavior> = Key::new(
    "ei_shutdown_behavior",
    Absent,
    ShutdownBehavior::ACCEPTED,
    values::choice,
    show::shutdown,
);
pub(super) static CACHE_FILE_DIRECTORY: Key<Option<PathBuf>> = optional_path("cache_file_directory");
pub(super) static ENABLE_THRESHOLD_LIMIT: Key<bool> = switch("enable_threshold_limit", "no");
pub(super) static METRICS_SLEEPTIME_MS: Key<Duration> = Key::new(
    "metrics_sleeptime_ms",
    Integer(30_000),
    "milliseconds, above 100 (60000 is used for 100 and below) and up to 2147483647",
    values::metrics_interval,
    show::millis,
);
pub(super) static DEFAULT_THRESHOLD: Key<f64> = Key::new(
    "default_threshold",
    Number(number::DEFAULT_THRESHOLD),
    ACCEPTED_THRESHOLD,
    values::threshold,
    |given| as_fraction(*given).unwrap_or(*given).to_string(),
);
pub(super) static THRESHOLD_CRITERIA: Key<Criteria> = Key::new(
    "threshold_criteria",
    Text("ge"),
    Criteria::ACCEPTED,
    values::choice,
    ToString::to_string,
);
pub(super) static ENABLE_CACHE_TO_S3: Key<bool> = switch("enable_cache_to_s3", "no");
pub(super) static S3_BUCKET: Key<Option<S3Bucket>> = Key::new(
    "s3_bucket",
    Absent,
    "the name of an S3 bucket, with a prefix as in name/prefix; also s3://name, the ARN and the URL of the console",
    values::bucket,
    show::some,
);

pub(super) static STILL_INTERVAL_MS: Key<Duration> = Key::new(
    "still_interval_ms",
    Integer(1000),
    "milliseconds, from 10 to 86400000",
    values::still_interval,
    show::millis,
);
pub(super) static MICROPHONE_CHANNEL: Key<MicrophoneChannel> = Key::new(
    "microphone_channel",
    Text("auto"),
    MicrophoneChannel::ACCEPTED,
    values::microphone_channel,
    ToString::to_string,
);
pub(super) static IOT_ENDPOINT: Key<Option<Redacted>> = Key::new(
    "iot_endpoint",
    Absent,
    "a host name (name:443 for another port), or a URL with mqtt://, mqtts://, ws:// or wss://",
    values::broker,
    show::some,
);
pub(super) static IOT_AUTH: Key<AuthMethod> = Key::new(
    "iot_auth",
    Text("sigv4"),
    "sigv4, or x509 with iot_cert and iot_key",
    values::choice,
    ToString::to_string,
);
pub(super) static IOT_CERT: Key<Option<PathBuf>> = optional_path("iot_cert");
pub(super) static IOT_KEY: Key<Option<PathBuf>> = optional_path("iot_key").hiding_refused();
pub(super) static IOT_CA: Key<Option<PathBuf>> = optional_path("iot_ca");
pub(super) static CACHE_FILE_MAX_MB: Key<u64> = mebibytes("cache_file_max_mb", 1024);
pub(super) static EVENTS: Key<Option<EventsConfig>> = Key::new(
    "events",
    Absent,
    "an object with zones, lines and rules, or the JSON text of one",
    values::some_events,
    show::some,
);
pub(super) static PUBLISH_INFERENCES: Key<bool> = switch("publish_inferences", "yes");
pub(super) static EVENT_CLIP: Key<Option<EventClipConfig>> = Key::new(
    "event_clip",
    Absent,
    "an object such as {\"pre_s\":5,\"post_s\":5,\"max_mb\":512}, or its JSON text",
    values::some_event_clip,
    show::some,
);
pub(super) static SPOOL_MAX_MB: Key<u64> = mebibytes("spool_max_mb", 64);
pub(super) static WORK_DIR: Key<Option<PathBuf>> = optional_path("work_dir");
pub(super) static LOCAL_TOPICS: Key<bool> = switch("local_topics", "no");
pub(super) static COLLECT: Key<bool> = switch("collect", "no");
pub(super) static COLLECT_UNCERTAIN: Key<Option<ValueBand>> = Key::new(
    "collect_uncertain",
    Text("no"),
    ValueBand::ACCEPTED,
    values::band,
    show::band,
);
pub(super) static COLLECT_PER_HOUR: Key<u32> = Key::new(
    "collect_per_hour",
    Integer(10),
    "an integer from 0 to 3600",
    values::per_hour,
    ToString::to_string,
);
pub(super) static COLLECT_EVERY_MINUTES: Key<Duration> = minutes("collect_every_minutes", 0);
pub(super) static COLLECT_CATEGORY: Key<SampleCategory> = Key::new(
    "collect_category",
    Text("training"),
    SampleCategory::ACCEPTED,
    values::choice,
    ToString::to_string,
);
pub(super) static COLLECT_MB_PER_DAY: Key<u64> = mebibytes("collect_mb_per_day", 20);
pub(super) static MONITOR: Key<bool> = switch("monitor", "no");
pub(super) static MONITOR_MAX_STORAGE_MB: Key<u64> = mebibytes("monitor_max_storage_mb", 250);
pub(super) static MONITOR_SUMMARY_INTERVAL_MS: Key<Duration> = Key::new(
    "monitor_summary_interval_ms",
    Integer(60_000),
    "milliseconds, from 60000 to 86400000",
    values::summary_interval,
    show::millis,
);
pub(super) static MONITOR_RECORD_INTERVAL_MS: Key<Duration> = Key::new(
    "monitor_record_interval_ms",
    Integer(1000),
    "milliseconds, from 10 to 86400000",
    values::still_interval,
    show::millis,
);
pub(super) static MODEL_POLL_MINUTES: Key<Duration> = minutes("model_poll_minutes", 0);
pub(super) static MODEL_TRIAL_INFERENCES: Key<u32> = Key::new(
    "model_trial_inferences",
    Integer(30),
    "an integer from 1 to 100000",
    values::trial_inferences,
    ToString::to_string,
);
pub(super) static MODEL_PROBATION_MINUTES: Key<Duration> = minutes("model_probation_minutes", 10);
pub(super) static MODEL_SHA256: Key<Option<String>> = Key::new(
    "model_sha256",
    Absent,
    "64 hexadecimal digits, as sha256sum prints them",
    values::some_sha256,
    show::some,
);
pub(super) static MODEL_SANDBOX: Key<SandboxMode> = Key::new(
    "model_sandbox",
    Text("auto"),
    SandboxMode::ACCEPTED,
    values::choice,
    ToString::to_string,
);
pub(super) static MODEL_ALLOW: Key<Vec<PathBuf>> = Key::new(
    "model_allow",
    Absent,
    "absolute paths, as a list or with colons between them",
    values::paths,
    |paths| show::paths(paths),
);
pub(super) static PREVIEW: Key<bool> = switch("preview", "on");
pub(super) static PREVIEW_HOST: Key<String> = Key::new(
    "preview_host",
    Text("0.0.0.0"),
    "an IP address or a host name",
    values::host,
    String::clone,
);
pub(super) static PREVIEW_PORT: Key<u16> = Key::new(
    "preview_port",
    Integer(4912),
    "a port from 0 (any free one) to 65535",
    values::port,
    ToString::to_string,
);
pub(super) static PREVIEW_TOKEN: Key<Option<Secret>> =
    Key::new("preview_token", Absent, ONE_LINE, values::some_secret, show::some).secret();

/// Every key, in the order of the tutorial, then those that this component adds.
pub static KEYS: [&KeyInfo; 61] = [
    &NODE_VERSION.info,
    &VIPS_VERSION.info,
    &DEVICE_NAME.info,
    &LAUNCH.info,
    &SLEEP_TIME_SEC.info,
    &LOCK_FILENAME.info,
    &GST_ARGS.info,
    &EIPARAMS.info,
    &IOTCORE_BACKOFF.info,
    &IOTCORE_QOS.info,
    &EI_BINDIR.info,
    &EI_SM_SECRET_ID.info,
    &EI_SM_SECRET_NAME.info,
    &EI_GGC_USER_GROUPS.info,
    &INSTALL_KVSSINK.info,
    &PUBLISH_IMAGE.info,
    &ENABLE_CACHE_TO_FILE.info,
    &EI_POLL_SLEEPTIME_MS.info,
    &EI_LOCAL_MODEL_FILE.info,
    &EI_SHUTDOWN_BEHAVIOR.info,
    &CACHE_FILE_DIRECTORY.info,
    &ENABLE_THRESHOLD_LIMIT.info,
    &METRICS_SLEEPTIME_MS.info,
    &DEFAULT_THRESHOLD.info,
    &THRESHOLD_CRITERIA.info,
    &ENABLE_CACHE_TO_S3.info,
    &S3_BUCKET.info,
    &STILL_INTERVAL_MS.info,
    &MICROPHONE_CHANNEL.info,
    &IOT_ENDPOINT.info,
    &IOT_AUTH.info,
    &IOT_CERT.info,
    &IOT_KEY.info,
    &IOT_CA.info,
    &CACHE_FILE_MAX_MB.info,
    &EVENTS.info,
    &PUBLISH_INFERENCES.info,
    &EVENT_CLIP.info,
    &SPOOL_MAX_MB.info,
    &WORK_DIR.info,
    &LOCAL_TOPICS.info,
    &COLLECT.info,
    &COLLECT_UNCERTAIN.info,
    &COLLECT_PER_HOUR.info,
    &COLLECT_EVERY_MINUTES.info,
    &COLLECT_CATEGORY.info,
    &COLLECT_MB_PER_DAY.info,
    &MONITOR.info,
    &MONITOR_MAX_STORAGE_MB.info,
    &MONITOR_SUMMARY_INTERVAL_MS.info,
    &MONITOR_RECORD_INTERVAL_MS.info,
    &MODEL_POLL_MINUTES.info,
    &MODEL_TRIAL_INFERENCES.info,
    &MODEL_PROBATION_MINUTES.info,
    &MODEL_SHA256.info,
    &MODEL_SANDBOX.info,
    &MODEL_ALLOW.info,
    &PREVIEW.info,
    &PREVIEW_HOST.info,
    &PREVIEW_PORT.info,
    &PREVIEW_TOKEN.info,
];

/// Each key with its default as a recipe writes it (`"__none__"` for none).
pub fn defaults() -> impl Iterator<Item = (&'static str, Value)> {
    KEYS.iter().map(|key| (key.name, key.default.to_json()))
}

/// The key of this name.
pub fn find(name: &str) -> Option<&'static KeyInfo> {
    KEYS.iter().copied().find(|key| key.name.eq_ignore_ascii_case(name))
}

/// The known key that a misspelt name most likely means.
pub(super) fn nearest(name: &str) -> Option<&'static KeyInfo> {
    find(spelling::nearest(name, KEYS.iter().map(|key| key.name), 5)?)
}

/// The value of `iot_auth`, without the files that `x509` needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, EnumString, Display)]
#[strum(serialize_all = "lowercase", ascii_case_insensitive)]
pub(super) enum AuthMethod {
    #[default]
    SigV4,
    X509,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_finds_the_nearest_key_and_other_words_find_none() {
        for (typo, key) in [
            ("iotcore_qoss", "iotcore_qos"),
            ("Device_Name", "device_name"),
            ("gst-args", "gst_args"),
            ("defualt_threshold", "default_threshold"),
            ("previw", "preview"),
        ] {
            assert_eq!(nearest(typo).map(|k| k.name), Some(key), "{typo}");
        }
        for word in ["temperature", "x", ""] {
            assert_eq!(nearest(word), None, "{word}");
        }
    }

    #[test]
    fn keys_are_unique() {
        let mut names: Vec<_> = KEYS.iter().map(|key| key.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), KEYS.len());
    }
}
