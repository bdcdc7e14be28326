//! Builds the [`Config`] from the resolved values, including the keys that depend on each other.

use serde_json::json;

use super::bucket::S3Bucket;
use super::eiparams::{EiParams, MonitorOptions};
use super::error::{self, ConfigError, Warning};
use super::event_clip::EventClipConfig;
use super::events::EventsConfig;
use super::frame_collection::FrameCollectionConfig;
use super::keys::{self, AuthMethod, Key, KeyInfo};
use super::resolve::{Origin, Resolver};
use super::sources::Sources;
use super::types::*;
use super::values;
use crate::util::secret::Redacted;

/// The lock file of `launch: linux`, as in the existing component.
const LINUX_LOCK_FILE: &str = "/tmp/ei_lockfile_linux";

pub(super) fn config(values: &mut Resolver, params: &mut EiParams, sources: &Sources) -> Result<Config, ConfigError> {
    values.take(&keys::NODE_VERSION);
    values.take(&keys::VIPS_VERSION);
    values.take(&keys::EI_POLL_SLEEPTIME_MS);
    let launch = values.try_take(&keys::LAUNCH).map_err(|value| ConfigError::Launch {
        value: error::shown(&value),
    })?;
    let broker = broker(values)?;
    let model = params.model.take();
    let file_cache = file_cache(values);
    let s3_cache_bucket = s3_bucket(values)?;
    let event_clip = event_clip(values, file_cache.is_some() || s3_cache_bucket.is_some());
    Ok(Config {
        device_name: values.take(&keys::DEVICE_NAME),
        launch,
        sleep_time: values.take(&keys::SLEEP_TIME_SEC),
        lock_filename: lock_filename(values, launch),
        source: source(values, params, sources),
        still_interval: values.take(&keys::STILL_INTERVAL_MS),
        microphone_channel: values.take(&keys::MICROPHONE_CHANNEL),
        iotcore_backoff: values.take(&keys::IOTCORE_BACKOFF),
        qos: values.take(&keys::IOTCORE_QOS),
        ei_bindir: values.take(&keys::EI_BINDIR),
        secret_id: values.take(&keys::EI_SM_SECRET_ID),
        secret_name: values.take(&keys::EI_SM_SECRET_NAME),
        model: values.take_or(&keys::EI_LOCAL_MODEL_FILE, params, &["--model-file"], model.map(Some)),
        shutdown_behavior: values.take(&keys::EI_SHUTDOWN_BEHAVIOR),
        publish_image: values.take(&keys::PUBLISH_IMAGE),
        file_cache,
        s3_cache_bucket,
        event_clip,
        events: events(values, launch, params),
        publish_inferences: publish_inferences(values),
        filter: filter(values),
        metrics_interval: values.take(&keys::METRICS_SLEEPTIME_MS),
        user_groups: values.take(&keys::EI_GGC_USER_GROUPS),
        install_kvssink: values.take(&keys::INSTALL_KVSSINK),
        broker,
        iot_auth: iot_auth(values),
        spool_max_bytes: values.take(&keys::SPOOL_MAX_MB),
        work_dir: work_dir(values, sources),
        local_topics: values.take(&keys::LOCAL_TOPICS),
        collect: values.take(&keys::COLLECT),
        frame_collection: frame_collection(values, launch),
        monitor: monitor(values, params, launch),
        model_updates: model_updates(values),
        model_sandbox: model_sandbox(values),
        preview: preview(values, params),
        runner: params.options.clone(),
    })
}

/// The data collection has a lock file of its own, because it may run beside the runner.
fn lock_filename(values: &mut Resolver, launch: Launch) -> std::path::PathBuf {
    let is_given = values.has(&keys::LOCK_FILENAME.info);
    let path = values.take(&keys::LOCK_FILENAME);
    if is_given || launch == Launch::Runner {
        return path;
    }
    values.set_shown(&keys::LOCK_FILENAME.info, LINUX_LOCK_FILE);
    LINUX_LOCK_FILE.into()
}

/// An address that is not accepted is an error: without it the component would connect to IoT Core instead.
fn broker(values: &mut Resolver) -> Result<Option<Redacted>, ConfigError> {
    values.try_take(&keys::IOT_ENDPOINT).map_err(|value| {
        let is_url = value.as_str().is_some_and(|text| text.contains("://"));
        ConfigError::Value {
            key: keys::IOT_ENDPOINT.info.name,
            value: error::shown(&value),
            reason: format!(
                "is not the {} of an MQTT broker",
                if is_url { "URL" } else { "address" }
            ),
            accepted: keys::IOT_ENDPOINT.info.accepted,
        }
    })
}

/// A bucket name that S3 does not accept is an error if the S3 cache is on: every upload would fail.
fn s3_bucket(values: &mut Resolver) -> Result<Option<S3Bucket>, ConfigError> {
    if values.peek(&keys::ENABLE_CACHE_TO_S3)
        && let Some((value, invalid)) = values.refused(&keys::S3_BUCKET)
    {
        return Err(ConfigError::Value {
            key: keys::S3_BUCKET.info.name,
            value: error::shown(&value),
            reason: invalid
                .reason
                .unwrap_or_else(|| "is not the name of a bucket".to_owned()),
            accepted: keys::S3_BUCKET.info.accepted,
        });
    }
    Ok(value_if_on(values, &keys::ENABLE_CACHE_TO_S3, &keys::S3_BUCKET))
}

/// `--gst` wins over `gst_args`, and `gst_args` wins over the options of `eiparams`.
fn source(values: &mut Resolver, params: &mut EiParams, sources: &Sources) -> Option<SourceLine> {
    const OPTIONS: [&str; 2] = ["--gst-launch-args", "--gst-source"];
    let line = sources
        .gst
        .as_deref()
        .map(str::trim)
        .filter(|line| !values::is_absent(&json!(line)));
    if let Some(line) = line {
        values.record(&keys::GST_ARGS.info, line.to_owned(), Origin::Flag("--gst"));
        params.mark_overridden(&OPTIONS, "`--gst`");
        return Some(SourceLine(line.to_owned()));
    }
    let offered = params.gst.take().map(Some);
    values.take_or(&keys::GST_ARGS, params, &OPTIONS, offered)
}

/// The value of `key` if `switch` is on. A switch that is on without a value is a warning, and counts as off.
fn value_if_on<T>(values: &mut Resolver, switch: &Key<bool>, key: &Key<Option<T>>) -> Option<T> {
    let on = values.take(switch);
    let value = values.take(key);
    if !on {
        values.add_remark(&[&key.info], &format!("has no effect: `{}` is off", switch.info.name));
        return None;
    }
    if value.is_none() {
        values.warnings.push(Warning {
            key: switch.info.name.to_owned(),
            value: format!("on, and `{}` names none", key.info.name),
            accepted: format!("yes together with {} in `{}`", key.info.accepted, key.info.name),
            used: "no".to_owned(),
        });
        values.set_shown(&switch.info, "no");
    }
    value
}

fn file_cache(values: &mut Resolver) -> Option<FileCacheConfig> {
    let directory = value_if_on(values, &keys::ENABLE_CACHE_TO_FILE, &keys::CACHE_FILE_DIRECTORY);
    let max_bytes = values.take(&keys::CACHE_FILE_MAX_MB);
    if directory.is_none() {
        values.add_remark(&[&keys::CACHE_FILE_MAX_MB.info], "has no effect: the file cache is off");
    }
    Some(FileCacheConfig {
        directory: directory?,
        max_bytes,
    })
}

/// Clips go to the caches, so they need one.
fn event_clip(values: &mut Resolver, has_cache: bool) -> Option<EventClipConfig> {
    let clip = values.take(&keys::EVENT_CLIP);
    if clip.is_some() && !has_cache {
        let remark = "has no effect: `enable_cache_to_file` and `enable_cache_to_s3` are off";
        values.add_remark(&[&keys::EVENT_CLIP.info], remark);
    }
    clip.filter(|_| has_cache)
}

fn events(values: &mut Resolver, launch: Launch, params: &EiParams) -> Option<EventsConfig> {
    let events = values.take(&keys::EVENTS);
    let remark = match (launch, params.options.http_server) {
        (Launch::Linux, _) => "has no effect: `launch` is linux",
        (_, Some(_)) => "has no effect: the inference server makes no events",
        _ => return events,
    };
    values.add_remark(&[&keys::EVENTS.info], remark);
    events
}

fn publish_inferences(values: &mut Resolver) -> bool {
    let is_on = values.take(&keys::PUBLISH_INFERENCES);
    if !is_on && !values.has_effective(&keys::EVENTS.info) {
        let remark = "without `events` no results are published until the command set_events_config sets some";
        values.add_remark(&[&keys::PUBLISH_INFERENCES.info], remark);
    }
    is_on
}

fn filter(values: &mut Resolver) -> FilterConfig {
    let given = values.take(&keys::DEFAULT_THRESHOLD);
    let filter = FilterConfig {
        enabled: values.take(&keys::ENABLE_THRESHOLD_LIMIT),
        given,
        scores_are_probabilities: None,
        criteria: values.take(&keys::THRESHOLD_CRITERIA),
    };
    if !filter.enabled {
        let keys = [&keys::DEFAULT_THRESHOLD.info, &keys::THRESHOLD_CRITERIA.info];
        values.add_remark(
            &keys,
            "has no effect until `enable_threshold_limit` or a command switches the filter on",
        );
    }
    filter
}

/// `x509` needs a certificate and a key; without them `sigv4` is used.
fn iot_auth(values: &mut Resolver) -> IotAuth {
    const FILES: [&KeyInfo; 3] = [&keys::IOT_CERT.info, &keys::IOT_KEY.info, &keys::IOT_CA.info];
    let auth = values.take(&keys::IOT_AUTH);
    let (cert, key, ca) = (
        values.take(&keys::IOT_CERT),
        values.take(&keys::IOT_KEY),
        values.take(&keys::IOT_CA),
    );
    match (auth, cert, key) {
        (AuthMethod::X509, Some(cert), Some(key)) => return IotAuth::X509 { cert, key, ca },
        (AuthMethod::X509, cert, _) => {
            let missing = if cert.is_none() { "iot_cert" } else { "iot_key" };
            values.warnings.push(Warning {
                key: keys::IOT_AUTH.info.name.to_owned(),
                value: format!("x509, and `{missing}` names no file"),
                accepted: "x509 together with files in `iot_cert` and `iot_key`".to_owned(),
                used: "sigv4".to_owned(),
            });
            values.set_shown(&keys::IOT_AUTH.info, "sigv4");
        }
        (AuthMethod::SigV4, ..) => {}
    }
    values.add_remark(&FILES, "has no effect: `iot_auth` is sigv4");
    IotAuth::SigV4
}

/// The keys beside `collect_uncertain` and `collect_every_minutes` have no effect without one of these.
fn frame_collection(values: &mut Resolver, launch: Launch) -> Option<FrameCollectionConfig> {
    let every = values.take(&keys::COLLECT_EVERY_MINUTES);
    let config = FrameCollectionConfig {
        band: values.take(&keys::COLLECT_UNCERTAIN),
        per_hour: values.take(&keys::COLLECT_PER_HOUR),
        every: (!every.is_zero()).then_some(every),
        category: values.take(&keys::COLLECT_CATEGORY),
        bytes_per_day: values.take(&keys::COLLECT_MB_PER_DAY),
    };
    let triggers = [&keys::COLLECT_UNCERTAIN.info, &keys::COLLECT_EVERY_MINUTES.info];
    let bounds = [
        &keys::COLLECT_PER_HOUR.info,
        &keys::COLLECT_CATEGORY.info,
        &keys::COLLECT_MB_PER_DAY.info,
    ];
    if launch == Launch::Linux {
        let remark = "has no effect: launch is linux, which runs no model";
        values.add_remark(&triggers, remark);
        values.add_remark(&bounds, remark);
        return None;
    }
    if config.band.is_none() && config.every.is_none() {
        values.add_remark(
            &bounds,
            "has no effect: `collect_uncertain` and `collect_every_minutes` are off",
        );
        return None;
    }
    Some(config)
}

fn monitor(values: &mut Resolver, params: &mut EiParams, launch: Launch) -> Option<MonitorConfig> {
    const SWITCH: &str = "--monitor";
    const SIZE: &str = "--monitor-max-storage-size";
    const SUMMARY: &str = "--monitor-summary-interval-ms";
    let MonitorOptions {
        is_on,
        max_storage_bytes,
        summary_interval,
    } = std::mem::take(&mut params.monitor);
    let given = [
        given_name(values, &keys::MONITOR_MAX_STORAGE_MB),
        given_name(values, &keys::MONITOR_SUMMARY_INTERVAL_MS),
        given_name(values, &keys::MONITOR_RECORD_INTERVAL_MS),
        max_storage_bytes.map(|_| format!("eiparams {SIZE}")),
        summary_interval.map(|_| format!("eiparams {SUMMARY}")),
    ];
    let is_on = values.take_or(&keys::MONITOR, params, &[SWITCH], is_on);
    let monitor = MonitorConfig {
        max_storage_bytes: values.take_or(&keys::MONITOR_MAX_STORAGE_MB, params, &[SIZE], max_storage_bytes),
        summary_interval: values.take_or(&keys::MONITOR_SUMMARY_INTERVAL_MS, params, &[SUMMARY], summary_interval),
        record_interval: values.take(&keys::MONITOR_RECORD_INTERVAL_MS),
    };
    if is_on && launch == Launch::Runner {
        return Some(monitor);
    }
    if is_on {
        values.warnings.push(Warning {
            key: keys::MONITOR.info.name.to_owned(),
            value: "on, and `launch` is linux, which runs no model".to_owned(),
            accepted: "yes together with launch runner".to_owned(),
            used: "no".to_owned(),
        });
        values.set_shown(&keys::MONITOR.info, "no");
        return None;
    }
    values.warnings.extend(given.into_iter().flatten().map(|key| Warning {
        key,
        value: "given, and monitoring is off".to_owned(),
        accepted: "a value together with `monitor` yes, or with --monitor in `eiparams`".to_owned(),
        used: "nothing, it has no effect".to_owned(),
    }));
    None
}

/// The name of the key, if it is given with another value than its default.
fn given_name<T: Default + PartialEq>(values: &Resolver, key: &Key<T>) -> Option<String> {
    (values.peek(key) != key.default()).then(|| key.info.name.to_owned())
}

fn model_updates(values: &mut Resolver) -> ModelUpdateConfig {
    let poll = values.take(&keys::MODEL_POLL_MINUTES);
    ModelUpdateConfig {
        poll: (!poll.is_zero()).then_some(poll),
        trial_inferences: values.take(&keys::MODEL_TRIAL_INFERENCES),
        probation: values.take(&keys::MODEL_PROBATION_MINUTES),
        sha256: values.take(&keys::MODEL_SHA256),
    }
}

fn model_sandbox(values: &mut Resolver) -> ModelSandboxConfig {
    let sandbox = ModelSandboxConfig {
        mode: values.take(&keys::MODEL_SANDBOX),
        allow: values.take(&keys::MODEL_ALLOW),
    };
    if sandbox.mode == SandboxMode::Off {
        values.add_remark(&[&keys::MODEL_ALLOW.info], "has no effect: `model_sandbox` is off");
    }
    sandbox
}

fn work_dir(values: &mut Resolver, sources: &Sources) -> std::path::PathBuf {
    values.take(&keys::WORK_DIR).unwrap_or_else(|| {
        values.set_shown(&keys::WORK_DIR.info, &sources.current_dir.display().to_string());
        sources.current_dir.clone()
    })
}

fn preview(values: &mut Resolver, params: &mut EiParams) -> PreviewConfig {
    let (host, port) = (params.preview_host.take(), params.preview_port.take());
    let preview = PreviewConfig {
        enabled: values.take(&keys::PREVIEW),
        host: values.take_or(&keys::PREVIEW_HOST, params, &["--preview-host"], host),
        port: values.take_or(&keys::PREVIEW_PORT, params, &["--preview-port"], port),
        token: values.take(&keys::PREVIEW_TOKEN),
    };

    if preview.token.is_some() && !preview.enabled {
        values.add_remark(&[&keys::PREVIEW_TOKEN.info], "has no effect: `preview` is off");
    }
    preview
}
