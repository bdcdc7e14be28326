//! The types of the effective configuration.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use strum::{Display, EnumString, IntoStaticStr, VariantNames};

use super::bucket::S3Bucket;
use super::error::Warning;
use super::event_clip::EventClipConfig;
use super::events::EventsConfig;
use super::frame_collection::FrameCollectionConfig;
use super::number::{ACCEPTED_THRESHOLD, DEFAULT_THRESHOLD, ThresholdError, as_fraction};
use crate::util::redact;
use crate::util::secret::{Redacted, Secret};

/// The effective configuration of one device.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Template of the device's name; the MAC suffix is added by [`crate::device`].
    pub device_name: String,
    /// Service launch type.
    pub launch: Launch,
    /// How often the lock file is checked.
    pub sleep_time: Duration,
    /// Lock file without the device suffix.
    pub lock_filename: PathBuf,
    /// The configured source; `None`: a camera or microphone of the machine.
    pub source: Option<SourceLine>,
    /// Pause between two still pictures of an HTTP source.
    pub still_interval: Duration,
    /// The channel of a microphone with several.
    pub microphone_channel: MicrophoneChannel,
    /// Publish every Nth inference that passes the filter; at least 1.
    pub iotcore_backoff: u32,
    /// MQTT QoS of everything published.
    pub qos: Qos,
    /// Where the install step links the binary.
    pub ei_bindir: PathBuf,
    /// Secrets Manager secret id.
    pub secret_id: String,
    /// Key inside the secret's JSON that holds the Edge Impulse API key.
    pub secret_name: String,
    /// The model to run; `None`: download it from Edge Impulse Studio.
    pub model: Option<ModelSource>,
    /// What happens when the source ends.
    pub shutdown_behavior: ShutdownBehavior,
    /// Add the inferred image to the published message.
    pub publish_image: bool,
    /// Zones, lines and rules for events; `None`: there are no events.
    pub events: Option<EventsConfig>,
    /// Whether inferences are published. Without it only events are.
    pub publish_inferences: bool,
    /// The local file cache, if it is enabled and has a directory.
    pub file_cache: Option<FileCacheConfig>,
    /// The bucket of the S3 cache, if it is enabled and has a bucket.
    pub s3_cache_bucket: Option<S3Bucket>,
    /// The clips of events, if they are wanted and there is a cache for them.
    pub event_clip: Option<EventClipConfig>,
    /// The confidence filter at start.
    pub filter: FilterConfig,
    /// Interval of the metrics message.
    pub metrics_interval: Duration,
    /// Groups the service user joins (install step), space separated.
    pub user_groups: String,
    /// Whether the install step builds `kvssink`.
    pub install_kvssink: bool,
    /// IoT Core data endpoint host, or the URL of another broker; `None`: discovered.
    pub broker: Option<Redacted>,
    /// How to authenticate to IoT Core.
    pub iot_auth: IotAuth,
    /// Maximum size of the spool in bytes.
    pub spool_max_bytes: u64,
    /// Directory for models, spool and identity.
    pub work_dir: PathBuf,
    /// Whether messages and commands also use the local topics of Greengrass.
    pub local_topics: bool,
    /// Whether Edge Impulse Studio can ask for samples beside the running inference.
    pub collect: bool,
    /// Which inputs are uploaded to Edge Impulse Studio without a request; `None`: none.
    pub frame_collection: Option<FrameCollectionConfig>,
    /// What Edge Impulse Studio sees of the running model; `None`: nothing.
    pub monitor: Option<MonitorConfig>,
    /// How a new version of the model replaces the running one.
    pub model_updates: ModelUpdateConfig,
    /// What the process of the model may do.
    pub model_sandbox: ModelSandboxConfig,
    /// The live page.
    pub preview: PreviewConfig,
    /// Options of the existing runner (`eiparams`).
    pub runner: RunnerOptions,
}

impl Config {
    /// Whether anything asks for the channel of Edge Impulse Studio.
    pub fn wants_studio_channel(&self) -> bool {
        self.wants_samples() || self.monitor.is_some()
    }

    /// Whether Edge Impulse Studio can ask for samples.
    pub fn wants_samples(&self) -> bool {
        self.collect || self.launch == Launch::Linux
    }

    /// Whether anything uploads samples to Edge Impulse Studio.
    pub fn wants_uploads(&self) -> bool {
        self.wants_samples() || self.frame_collection.is_some()
    }
}

/// Service launch type (`launch`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, EnumString, IntoStaticStr, Display, VariantNames)]
#[strum(serialize_all = "snake_case", ascii_case_insensitive)]
pub enum Launch {
    /// Runs the model.
    #[default]
    Runner,
    /// Collects data for Edge Impulse Studio, without a model.
    Linux,
}

impl Launch {
    /// The accepted names, for messages.
    pub const ACCEPTED: &str = "runner, linux";
}

/// A GStreamer source pipeline as the user gave it: a gst-launch line, in which `gst_args` may write spaces as `:`. The
/// capture module decodes it.
#[derive(Clone, PartialEq, Eq)]
pub struct SourceLine(pub String);

/// Prints the line without the credentials in it (`rtsp://user:password@...`, `user-pw=...`).
impl fmt::Debug for SourceLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SourceLine")
            .field(&redact::credentials(&self.0))
            .finish()
    }
}

/// MQTT quality of service of everything published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Qos {
    /// 0
    AtMostOnce,
    /// 1
    #[default]
    AtLeastOnce,
}

/// Where the model comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelSource {
    /// An `.eim` file, or the unix socket of a running model.
    File(PathBuf),
    /// A model that is built into this program, by name (`builtin:ball`).
    Builtin(String),
}

/// Which channel of a microphone the model gets (`microphone_channel`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MicrophoneChannel {
    /// A mix of all channels where their positions are known (left, right, ...), else the first one. Arrays of
    /// microphones name no positions, and often have channels that are no microphones.
    #[default]
    Auto,
    /// A mix of all channels.
    Mix,
    /// This channel, counted from 1.
    Number(u8),
}

impl MicrophoneChannel {
    /// The accepted values, for messages.
    pub const ACCEPTED: &str = "auto, mix, or the number of a channel from 1 to 32";
    /// The largest number.
    pub const LAST: u8 = 32;
}

impl fmt::Display for MicrophoneChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Mix => f.write_str("mix"),
            Self::Number(number) => number.fmt(f),
        }
    }
}

/// What happens when the source ends (`ei_shutdown_behavior`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, EnumString, IntoStaticStr, Display, VariantNames)]
#[strum(ascii_case_insensitive)]
pub enum ShutdownBehavior {
    /// The capture starts again.
    #[default]
    #[strum(serialize = "none")]
    Restart,
    /// Pause and wait for the `restart` command.
    // The second name is that of the old component's code.
    #[strum(to_string = "wait_for_restart", serialize = "wait_on_restart")]
    WaitForRestart,
}

impl ShutdownBehavior {
    /// The accepted names, for messages.
    pub const ACCEPTED: &str = "none, wait_for_restart (or wait_on_restart)";
}

/// Local file cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileCacheConfig {
    /// The directory of the pairs of picture and message.
    pub directory: PathBuf,
    /// Maximum size in bytes; beyond it the oldest pairs are removed.
    pub max_bytes: u64,
}

/// The confidence filter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FilterConfig {
    /// Whether the filter is applied.
    pub enabled: bool,
    /// The threshold as it was given; a finite number.
    pub given: f64,
    /// Whether the model's scores are probabilities; `None`: no model was loaded yet.
    pub scores_are_probabilities: Option<bool>,
    /// How to compare: `confidence <criteria> threshold` passes.
    pub criteria: Criteria,
}

impl FilterConfig {
    /// The confidence to compare with: `given` as a fraction, or as the score itself where the scores are no
    /// probabilities. The default of `default_threshold` where `given` is no probability.
    pub fn threshold(self) -> f64 {
        match self.reading() {
            ThresholdReading::Score => self.given,
            _ => as_fraction(self.given).unwrap_or(DEFAULT_THRESHOLD),
        }
    }

    /// How `given` is read.
    pub fn reading(self) -> ThresholdReading {
        if self.scores_are_probabilities == Some(false) {
            return ThresholdReading::Score;
        }
        match as_fraction(self.given) {
            None => ThresholdReading::Default,
            Some(_) if self.given > 1.0 => ThresholdReading::Percentage,
            Some(_) => ThresholdReading::Fraction,
        }
    }

    /// Sets the threshold.
    ///
    /// # Errors
    /// The scores are probabilities, and this is none.
    pub fn set_threshold(&mut self, given: f64) -> Result<(), ThresholdError> {
        let changed = Self { given, ..*self };
        if changed.reading() == ThresholdReading::Default {
            return Err(ThresholdError);
        }
        *self = changed;
        Ok(())
    }

    /// The warning about a `default_threshold` that is no threshold for the probabilities of this model.
    pub fn warning(self) -> Option<Warning> {
        (self.reading() == ThresholdReading::Default).then(|| Warning {
            key: "default_threshold".to_owned(),
            value: self.given.to_string(),
            accepted: ACCEPTED_THRESHOLD.to_owned(),
            used: self.threshold().to_string(),
        })
    }

    /// As commands and the status show it: `{"enabled":"yes","confidence_threshold":0.7,"threshold_criteria":"ge"}`,
    /// with `"threshold_reading":"score"` where the threshold is no fraction.
    pub fn to_json(self) -> Value {
        let mut shown = json!({
            "enabled": if self.enabled { "yes" } else { "no" },
            "confidence_threshold": self.threshold(),
            "threshold_criteria": self.criteria.to_string(),
        });
        if self.reading() == ThresholdReading::Score {
            shown["threshold_reading"] = self.reading().to_string().into();
        }
        shown
    }
}

/// How the threshold of the confidence filter is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display)]
#[strum(serialize_all = "lowercase")]
pub enum ThresholdReading {
    /// A probability.
    Fraction,
    /// A probability in percent.
    Percentage,
    /// The score itself.
    Score,
    /// It is no probability: the default is used.
    Default,
}

/// Comparison of the confidence filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, EnumString, IntoStaticStr, Display, VariantNames)]
#[strum(ascii_case_insensitive)]
pub enum Criteria {
    /// `gt`
    #[strum(serialize = "gt")]
    Greater,
    /// `ge`
    #[default]
    #[strum(serialize = "ge")]
    GreaterOrEqual,
    /// `eq`, within 1e-6
    #[strum(serialize = "eq")]
    Equal,
    /// `le`
    #[strum(serialize = "le")]
    LessOrEqual,
    /// `lt`
    #[strum(serialize = "lt")]
    Less,
}

impl Criteria {
    /// The accepted names, for messages.
    pub const ACCEPTED: &str = "gt, ge, eq, le, lt";
}

/// How a new version of the model replaces the running one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelUpdateConfig {
    /// How often Studio is asked for a new version; `None`: never.
    pub poll: Option<Duration>,
    /// Inputs that a new model must answer beside the running one before it takes over.
    pub trial_inferences: u32,
    /// How long the model before can come back.
    pub probation: Duration,
    /// SHA-256 of the model file, 64 lower-case hexadecimal digits; `None`: any file.
    pub sha256: Option<String>,
}

/// What the process of the model may do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelSandboxConfig {
    /// Whether it is restricted.
    pub mode: SandboxMode,
    /// Paths that it may use beside those that every model gets; absolute.
    pub allow: Vec<PathBuf>,
}

/// Whether the model runs in a sandbox (`model_sandbox`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, EnumString, IntoStaticStr, Display, VariantNames)]
#[strum(serialize_all = "lowercase", ascii_case_insensitive)]
pub enum SandboxMode {
    /// In what the kernel has for a sandbox.
    #[default]
    Auto,
    /// In a complete sandbox, or not at all.
    Strict,
    /// In none.
    Off,
}

impl SandboxMode {
    /// The accepted names, for messages.
    pub const ACCEPTED: &str = "auto, strict, off";
}

/// The monitoring of the running model in Edge Impulse Studio.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MonitorConfig {
    /// Maximum size of the stored records in bytes.
    pub max_storage_bytes: u64,
    /// The time that one summary covers.
    pub summary_interval: Duration,
    /// At most one record is stored in this time.
    pub record_interval: Duration,
}

/// How to authenticate to IoT Core.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IotAuth {
    /// WebSocket signed with the component's role.
    SigV4,
    /// Client certificate.
    X509 {
        /// Certificate file (PEM).
        cert: PathBuf,
        /// Private key file (PEM).
        key: PathBuf,
        /// CA file (PEM); `None`: the machine's own roots.
        ca: Option<PathBuf>,
    },
}

/// The live page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreviewConfig {
    /// Whether a port is opened.
    pub enabled: bool,
    /// Address to listen on.
    pub host: String,
    /// Port to listen on.
    pub port: u16,
    /// Token for requests that change state; `None`: one is generated.
    pub token: Option<Secret>,
}

/// Options of the existing runner, from `eiparams`. Those that mean the same as a key (`--model-file`,
/// `--gst-launch-args`, `--preview-port`, ...) are already merged into [`Config`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RunnerOptions {
    /// `--thresholds 4.min_anomaly_score=35,...`: sent to the model after its hello, one key per message.
    pub thresholds: Vec<Threshold>,
    /// `--force-resize-mode`
    pub resize_mode: Option<ResizeMode>,
    /// `--force-camera-resolution W,H`
    pub camera_resolution: Option<(u32, u32)>,
    /// `--shm-behavior`
    pub shm: ShmBehavior,
    /// `--silent` / `--verbose`
    pub verbosity: Verbosity,
    /// `--dont-print-predictions`: no line per inference in the log.
    pub quiet_predictions: bool,
    /// `--force-target`
    pub force_target: Option<String>,
    /// `--force-engine`
    pub force_engine: Option<String>,
    /// `--force-variant`, or `int8` by `--quantized`
    pub force_variant: Option<String>,
    /// `--impulse-id`
    pub impulse_id: Option<u64>,
    /// `--camera`
    pub camera: Option<String>,
    /// `--enable-camera`: open the camera for audio models too.
    pub enable_camera: bool,
    /// `--microphone`
    pub microphone: Option<String>,
    /// `--camera-color-format`
    pub camera_color_format: Option<String>,
    /// `--preview-original-resolution`
    pub preview_original_resolution: bool,
    /// `--run-http-server P`, `--mode http-server`
    pub http_server: Option<u16>,
    /// `--api-key`
    pub api_key: Option<Secret>,
    /// `--disable-camera`: `launch: linux` opens no camera.
    pub disable_camera: bool,
    /// `--disable-microphone`: `launch: linux` opens no microphone.
    pub disable_microphone: bool,
}

/// One `id.key=value` of `--thresholds`.
#[derive(Debug, Clone, PartialEq)]
pub struct Threshold {
    /// Block id as in the model's `thresholds`.
    pub id: i64,
    /// Parameter name, e.g. `min_score`.
    pub key: String,
    /// The value.
    pub value: f64,
}

/// How a picture is resized to the model's input size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumString, IntoStaticStr, Display, VariantNames)]
#[strum(serialize_all = "kebab-case", ascii_case_insensitive)]
pub enum ResizeMode {
    /// Stretch both sides.
    Squash,
    /// The short side fits, the rest is cropped, centred.
    FitShortest,
    /// The long side fits, the rest is black, centred.
    FitLongest,
    /// The picture's own size.
    None,
}

impl ResizeMode {
    /// The accepted names, for messages.
    pub const ACCEPTED: &str = "squash, fit-shortest, fit-longest, none";
}

/// Use of the model's shared memory (`--shm-behavior`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, EnumString, IntoStaticStr, Display, VariantNames)]
#[strum(serialize_all = "snake_case", ascii_case_insensitive)]
pub enum ShmBehavior {
    /// Use it if the model offers it.
    #[default]
    Auto,
    /// Fail without it.
    Always,
    /// Do not use it.
    Never,
}

impl ShmBehavior {
    /// The accepted names, for messages.
    pub const ACCEPTED: &str = "auto, always, never";
}

/// The log level when `RUST_LOG` is not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verbosity {
    /// warnings and errors
    Silent,
    /// info
    #[default]
    Normal,
    /// debug
    Verbose,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_accepted_in_any_case_and_shown_as_documented() {
        assert_eq!("GE".parse::<Criteria>().map(<&str>::from), Ok("ge"));
        assert_eq!("Fit-Shortest".parse::<ResizeMode>(), Ok(ResizeMode::FitShortest));
        for name in ["wait_on_restart", "wait_for_restart"] {
            assert_eq!(name.parse::<ShutdownBehavior>(), Ok(ShutdownBehavior::WaitForRestart));
        }
        assert_eq!(ShutdownBehavior::WaitForRestart.to_string(), "wait_for_restart");
        assert!("maybe".parse::<ShmBehavior>().is_err());
    }

    #[test]
    fn the_accepted_names_of_messages_are_those_of_the_parser() {
        for (accepted, names) in [
            (Launch::ACCEPTED, Launch::VARIANTS),
            (Criteria::ACCEPTED, Criteria::VARIANTS),
            (ResizeMode::ACCEPTED, ResizeMode::VARIANTS),
            (ShmBehavior::ACCEPTED, ShmBehavior::VARIANTS),
        ] {
            assert_eq!(accepted, names.join(", "));
        }
    }
}
