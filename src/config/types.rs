//! The types of the effective configuration.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::util::redact;
use crate::util::secret::Secret;

/// The effective configuration of one device.
#[derive(Clone, PartialEq)]
pub struct Config {
    /// Template of the device's name; the MAC suffix is added by [`crate::device`].
    pub device_name: String,
    /// Service launch type.
    pub launch: Launch,
    /// How often the wait loop looks at the lock file.
    pub sleep_time: Duration,
    /// Lock file without the device suffix.
    pub lock_filename: PathBuf,
    /// Where pictures come from; `None`: no pipeline was given.
    pub source: Option<SourceLine>,
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
    /// Local file cache, when switched on and a directory was given.
    pub file_cache: Option<FileCacheConfig>,
    /// Bucket of the S3 cache, when switched on and a bucket was given.
    pub s3_cache_bucket: Option<String>,
    /// The confidence filter at start.
    pub filter: FilterConfig,
    /// Interval of the metrics message.
    pub metrics_interval: Duration,
    /// Groups the service user joins (install step), space separated.
    pub user_groups: String,
    /// Install step builds `kvssink`.
    pub install_kvssink: bool,
    /// IoT Core data endpoint host, or the URL of another broker; `None`: discovered.
    pub broker: Option<String>,
    /// How to authenticate at IoT Core.
    pub iot_auth: IotAuth,
    /// Spool bound in bytes.
    pub spool_max_bytes: u64,
    /// Directory for models, spool and identity.
    pub work_dir: PathBuf,
    /// The live page.
    pub preview: PreviewConfig,
    /// Options of the existing runner (`eiparams`).
    pub runner: RunnerOptions,
}

/// Prints everything but credentials: user info in [`Config::broker`] and in source lines shows as `***`.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Taken apart field by field so that a new field cannot be forgotten here.
        let Self {
            device_name,
            launch,
            sleep_time,
            lock_filename,
            source,
            iotcore_backoff,
            qos,
            ei_bindir,
            secret_id,
            secret_name,
            model,
            shutdown_behavior,
            publish_image,
            file_cache,
            s3_cache_bucket,
            filter,
            metrics_interval,
            user_groups,
            install_kvssink,
            broker,
            iot_auth,
            spool_max_bytes,
            work_dir,
            preview,
            runner,
        } = self;
        f.debug_struct("Config")
            .field("device_name", device_name)
            .field("launch", launch)
            .field("sleep_time", sleep_time)
            .field("lock_filename", lock_filename)
            .field("source", source)
            .field("iotcore_backoff", iotcore_backoff)
            .field("qos", qos)
            .field("ei_bindir", ei_bindir)
            .field("secret_id", secret_id)
            .field("secret_name", secret_name)
            .field("model", model)
            .field("shutdown_behavior", shutdown_behavior)
            .field("publish_image", publish_image)
            .field("file_cache", file_cache)
            .field("s3_cache_bucket", s3_cache_bucket)
            .field("filter", filter)
            .field("metrics_interval", metrics_interval)
            .field("user_groups", user_groups)
            .field("install_kvssink", install_kvssink)
            .field("broker", &broker.as_deref().map(redact::credentials))
            .field("iot_auth", iot_auth)
            .field("spool_max_bytes", spool_max_bytes)
            .field("work_dir", work_dir)
            .field("preview", preview)
            .field("runner", runner)
            .finish()
    }
}

/// Service launch type (`launch`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Launch {
    /// Runs the model.
    #[default]
    Runner,
    /// The data collection service: not available yet.
    Linux,
}

/// A GStreamer source pipeline as the user gave it.
#[derive(Clone, PartialEq, Eq)]
pub enum SourceLine {
    /// From `gst_args`: spaces written as `:`; decode with `capture::gst_args::decode`.
    Encoded(String),
    /// An ordinary gst-launch line (`--gst`, `--gst-launch-args`).
    Launch(String),
}

/// Prints the line without the credentials in it (`rtsp://user:password@...`, `user-pw=...`).
impl fmt::Debug for SourceLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Encoded(line) => f.debug_tuple("Encoded").field(&redact::credentials(line)).finish(),
            Self::Launch(line) => f.debug_tuple("Launch").field(&redact::credentials(line)).finish(),
        }
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
    /// One of the models this program can be itself, by name (`builtin:ball`).
    Builtin(String),
}

/// What happens when the source ends (`ei_shutdown_behavior`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ShutdownBehavior {
    /// The capture starts again.
    #[default]
    Restart,
    /// Pause and wait for the `restart` command.
    WaitForRestart,
}

/// Local file cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileCacheConfig {
    /// Where the pairs go.
    pub directory: PathBuf,
    /// The oldest pairs are removed beyond this many bytes.
    pub max_bytes: u64,
}

/// The confidence filter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FilterConfig {
    /// Whether the filter is applied.
    pub enabled: bool,
    /// Confidence to compare with, a fraction 0 < x <= 1.
    pub threshold: f64,
    /// How to compare: `confidence <criteria> threshold` passes.
    pub criteria: Criteria,
}

impl FilterConfig {
    /// As commands and the status show it: `{"enabled":"yes","confidence_threshold":0.7,"threshold_criteria":"ge"}`.
    pub fn to_json(self) -> Value {
        json!({
            "enabled": if self.enabled { "yes" } else { "no" },
            "confidence_threshold": self.threshold,
            "threshold_criteria": self.criteria.as_str(),
        })
    }
}

/// Comparison of the confidence filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Criteria {
    /// `gt`
    Greater,
    /// `ge`
    #[default]
    GreaterOrEqual,
    /// `eq`, within 1e-6
    Equal,
    /// `le`
    LessOrEqual,
    /// `lt`
    Less,
}

/// How to authenticate at IoT Core.
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
    /// Token for what changes state; `None`: one is generated.
    pub token: Option<Secret>,
}

/// Options of the existing runner, from `eiparams`. Those that mean the same as a key (`--model-file`,
/// `--gst-launch-args`, `--preview-port`, ...) are already merged into [`Config`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RunnerOptions {
    /// `--thresholds 4.min_anomaly_score=35,...`: set at the model after its hello, one key a message.
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
    /// `--enable-camera`: the camera is opened even when the model listens to a microphone.
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

/// How a picture is brought to the model's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

/// Use of the model's shared memory (`--shm-behavior`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ShmBehavior {
    /// When offered.
    #[default]
    Auto,
    /// Fail clearly without it.
    Always,
    /// Do not open it.
    Never,
}

/// How much is logged when `RUST_LOG` is not set.
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
