//! Parses `eiparams`: options of the existing runner (`edge-impulse-linux-runner`), split as a shell splits words.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::error::{self, Warning};
use super::number::{finite, integer};
use super::types::{ModelSource, ResizeMode, RunnerOptions, ShmBehavior, SourceLine, Threshold, Verbosity};
use super::values;
use crate::util::redact::{self, STARS};
use crate::util::secret::Secret;

/// Port of `--mode http-server`, as in the existing runner.
const HTTP_SERVER_PORT: u16 = 1337;
/// Largest accepted side of a camera picture.
const MAX_SIDE: u32 = 16_384;
const IGNORED: &str = "nothing, the option is ignored";

/// A known option, for `check`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppliedOption {
    /// The option as written, a secret as `***`.
    pub option: String,
    /// What it does here, as text.
    pub meaning: String,
}

/// The parsed options.
#[derive(Debug, Default)]
pub(super) struct EiParams {
    pub(super) options: RunnerOptions,
    /// `--model-file`
    pub(super) model: Option<ModelSource>,
    /// `--gst-launch-args`, `--gst-source`
    pub(super) gst: Option<SourceLine>,
    /// `--width`
    width: Option<u32>,
    /// `--height`
    height: Option<u32>,
    pub(super) monitor: MonitorOptions,
    /// `--preview-host`
    pub(super) preview_host: Option<String>,
    /// `--preview-port`
    pub(super) preview_port: Option<u16>,
    pub(super) applied: Vec<AppliedOption>,
    pub(super) warnings: Vec<Warning>,
    /// The whole text without secrets and without the values of unknown options.
    pub(super) shown: String,
}

/// The options of the monitoring, which have keys of the same meaning.
#[derive(Debug, Default)]
pub(super) struct MonitorOptions {
    /// `--monitor`
    pub(super) is_on: Option<bool>,
    /// `--monitor-max-storage-size`
    pub(super) max_storage_bytes: Option<u64>,
    /// `--monitor-summary-interval-ms`
    pub(super) summary_interval: Option<Duration>,
}

/// One option of the runner.
struct RunnerOption {
    name: &'static str,
    /// The accepted values, as text; `None`: the option takes no value.
    accepted: Option<&'static str>,
    /// The value that the option alone stands for; `None`: the value must be there.
    alone: Option<&'static str>,
    /// Applies the value (empty for options without one) and returns what it means; `None`: the value is not accepted.
    apply: fn(&mut EiParams, &str) -> Option<String>,
}

const fn flag(name: &'static str, apply: fn(&mut EiParams, &str) -> Option<String>) -> RunnerOption {
    RunnerOption {
        name,
        accepted: None,
        alone: None,
        apply,
    }
}

/// A flag that may have a value.
const fn switch(name: &'static str, apply: fn(&mut EiParams, &str) -> Option<String>) -> RunnerOption {
    RunnerOption {
        name,
        accepted: Some("true, false, or no value, which means true"),
        alone: Some("true"),
        apply,
    }
}

const fn option(
    name: &'static str,
    accepted: &'static str,
    apply: fn(&mut EiParams, &str) -> Option<String>,
) -> RunnerOption {
    RunnerOption {
        name,
        accepted: Some(accepted),
        alone: None,
        apply,
    }
}

const A_NAME: &str = "a name";
const A_LINE: &str = "a gst-launch line";
const A_SIDE: &str = "pixels, from 1 to 16384";
const A_PORT: &str = "a port from 0 to 65535";

static OPTIONS: [RunnerOption; 36] = [
    flag("--greengrass", |_, _| {
        meaning("run as a Greengrass component, which this program always does")
    }),
    flag("--silent", |p, _| {
        p.options.verbosity = Verbosity::Silent;
        meaning("log warnings and errors only")
    }),
    flag("--verbose", |p, _| {
        p.options.verbosity = Verbosity::Verbose;
        meaning("log details")
    }),
    option("--model-file", "a path, or builtin:NAME", |p, v| {
        p.model = values::model(&text(v)?).ok()?.value;
        meaning("use this model and download none")
    }),
    option("--force-target", A_NAME, |p, v| {
        p.options.force_target = Some(word(v)?);
        meaning("download the model for this target")
    }),
    option("--force-engine", A_NAME, |p, v| {
        p.options.force_engine = Some(word(v)?);
        meaning("download the model for this inference engine")
    }),
    option("--force-variant", "a variant, for example int8 or float32", |p, v| {
        p.options.force_variant = Some(word(v)?);
        meaning("download this variant of the model, whatever --quantized says")
    }),
    flag("--quantized", |p, _| {
        p.options.force_variant.get_or_insert_with(|| "int8".to_owned());
        meaning("download the int8 variant of the model, unless --force-variant names one")
    }),
    option("--impulse-id", "an integer", |p, v| {
        p.options.impulse_id = Some(u64::try_from(integer(&text(v)?)?).ok()?);
        meaning("download the model of this impulse")
    }),
    option(
        "--thresholds",
        "ID.NAME=NUMBER,..., for example 4.min_score=0.5",
        |p, v| {
            p.options.thresholds = thresholds(v)?;
            meaning("set these thresholds at the model")
        },
    ),
    option("--force-resize-mode", ResizeMode::ACCEPTED, |p, v| {
        p.options.resize_mode = Some(v.trim().parse().ok()?);
        meaning("bring pictures to the model's size in this way")
    }),
    option(
        "--force-camera-resolution",
        "WIDTH,HEIGHT, each from 1 to 16384",
        |p, v| {
            p.options.camera_resolution = Some(resolution(v)?);
            meaning("ask the camera for this picture size, or the nearest above, where no pipeline is given")
        },
    ),
    option("--camera", "a name or a device path", |p, v| {
        p.options.camera = Some(word(v)?);
        meaning("use this camera where no pipeline is given")
    }),
    flag("--enable-camera", |p, _| {
        p.options.enable_camera = true;
        meaning("open the camera for microphone models too (its microphone may need it)")
    }),
    option("--microphone", "a name or a device", |p, v| {
        p.options.microphone = Some(word(v)?);
        meaning("use this microphone where no pipeline is given")
    }),
    option("--gst-launch-args", A_LINE, gst_line),
    option("--gst-source", A_LINE, gst_line),
    option("--camera-color-format", "a format, for example YUY2", |p, v| {
        p.options.camera_color_format = Some(word(v)?);
        meaning("ask the camera for this colour format, if it has it, where no pipeline is given")
    }),
    option("--preview-port", A_PORT, |p, v| {
        p.preview_port = Some(values::port(&text(v)?).ok()?.value);
        meaning("serve the live page on this port")
    }),
    option("--preview-host", "an IP address or a host name", |p, v| {
        p.preview_host = Some(values::host(&text(v)?).ok()?.value);
        meaning("serve the live page on this address")
    }),
    flag("--preview-original-resolution", |p, _| {
        p.options.preview_original_resolution = true;
        meaning("show the camera's own picture on the live page")
    }),
    flag("--dont-print-predictions", |p, _| {
        p.options.quiet_predictions = true;
        meaning("write no log line about inferences (else one every 10 s at most, with --verbose every second)")
    }),
    option("--shm-behavior", ShmBehavior::ACCEPTED, |p, v| {
        p.options.shm = v.trim().parse().ok()?;
        meaning("use of the model's shared memory")
    }),
    option("--run-http-server", A_PORT, |p, v| {
        p.options.http_server = Some(values::port(&text(v)?).ok()?.value);
        meaning("answer inference requests over HTTP on this port")
    }),
    option("--mode", "http-server", |p, v| {
        v.eq_ignore_ascii_case("http-server").then_some(())?;
        p.options.http_server.get_or_insert(HTTP_SERVER_PORT);
        meaning("answer inference requests over HTTP on port 1337, or on that of --run-http-server")
    }),
    flag("--disable-camera", |p, _| {
        p.options.disable_camera = true;
        meaning("with launch linux: open no camera")
    }),
    flag("--disable-microphone", |p, _| {
        p.options.disable_microphone = true;
        meaning("with launch linux: open no microphone")
    }),
    option("--width", A_SIDE, |p, v| {
        p.width = Some(side(v)?);
        p.use_size();
        meaning("together with --height: = --force-camera-resolution")
    }),
    option("--height", A_SIDE, |p, v| {
        p.height = Some(side(v)?);
        p.use_size();
        meaning("together with --width: = --force-camera-resolution")
    }),
    option("--fake-camera", "the path of a JPEG file", |p, v| {
        p.gst = Some(still_picture(&word(v)?)?);
        meaning("deliver this picture ten times a second instead of a camera's")
    }),
    option("--hmac-key", "a key", |_, v| {
        word(v)?;
        meaning("nothing: files for Edge Impulse Studio are not signed")
    }),
    flag("--dont-prompt-for-device-name", |_, _| {
        meaning("nothing: this program never asks for a name")
    }),
    switch("--monitor", |p, v| {
        let is_on = values::switch(&text(v)?).ok()?.value;
        p.monitor.is_on = Some(is_on);
        meaning(if is_on {
            "show Edge Impulse Studio what the model infers"
        } else {
            "do not show Edge Impulse Studio what the model infers"
        })
    }),
    option(
        "--monitor-max-storage-size",
        "MiB, an integer from 1 to 16777216",
        |p, v| {
            p.monitor.max_storage_bytes = Some(values::mebibytes(&text(v)?).ok()?.value);
            meaning("with --monitor: store at most this much of inferences for Edge Impulse Studio")
        },
    ),
    option(
        "--monitor-summary-interval-ms",
        "milliseconds, from 60000 to 86400000",
        |p, v| {
            p.monitor.summary_interval = Some(values::summary_interval(&text(v)?).ok()?.value);
            meaning("with --monitor: the time that one summary of inferences covers")
        },
    ),
    option("--api-key", "an Edge Impulse API key", |p, v| {
        p.options.api_key = Some(Secret::new(word(v)?));
        meaning("download the model with this key when Secrets Manager has none")
    }),
];

fn meaning(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn text(value: &str) -> Option<Value> {
    let value = json!(value);
    (!values::is_absent(&value)).then_some(value)
}

/// Any text on one line that is not empty.
fn word(value: &str) -> Option<String> {
    values::text(&text(value)?).ok().map(|parsed| parsed.value)
}

fn gst_line(params: &mut EiParams, value: &str) -> Option<String> {
    params.gst = Some(SourceLine(text(value)?.as_str()?.trim().to_owned()));
    meaning("take pictures from this pipeline")
}

fn thresholds(text: &str) -> Option<Vec<Threshold>> {
    let one = |part: &str| {
        let (name, value) = part.trim().split_once('=')?;
        let (id, key) = name.split_once('.')?;
        let is_name = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let value = finite(&json!(value))?;
        is_name.then_some(Threshold {
            id: id.trim().parse().ok()?,
            key: key.to_owned(),
            value,
        })
    };
    text.split(',')
        .filter(|part| !part.trim().is_empty())
        .map(one)
        .collect::<Option<Vec<_>>>()
        .filter(|all| !all.is_empty())
}

fn resolution(text: &str) -> Option<(u32, u32)> {
    let (width, height) = text.split_once([',', 'x', 'X'])?;
    Some((side(width)?, side(height)?))
}

fn side(text: &str) -> Option<u32> {
    text.trim().parse().ok().filter(|side| (1..=MAX_SIDE).contains(side))
}

/// A launch line that plays the picture. `None`: the path has characters that a launch line gives another meaning.
fn still_picture(path: &str) -> Option<SourceLine> {
    let is_plain = !path.contains(['"', '\\', '!', '%']);
    is_plain.then(|| {
        SourceLine(format!(
            "multifilesrc location=\"{path}\" loop=true caps=\"image/jpeg,framerate=10/1\" ! jpegdec"
        ))
    })
}

/// Parses the options. An option that cannot be used is ignored with a warning.
pub(super) fn parse(text: &str) -> EiParams {
    let mut params = EiParams::default();
    let words = params.split(text);
    let mut words = words.iter().map(String::as_str).peekable();
    let mut shown = Vec::new();
    let mut unknown = HashSet::new();
    let mut stray = 0_usize;
    while let Some(word) = words.next() {
        if !word.starts_with("--") {
            stray += 1;
            shown.push(STARS.to_owned());
            continue;
        }
        let (name, inline) = word
            .split_once('=')
            .map_or((word, None), |(name, value)| (name, Some(value)));
        let known = OPTIONS.iter().find(|option| option.name == name);
        let takes_value = known.is_none_or(|option| option.accepted.is_some());
        let value = match inline {
            None if takes_value => words.next_if(|next| !next.starts_with("--")),
            inline => inline,
        };
        shown.push(match known {
            Some(option) => params.take(option, value, inline.is_some()),
            None => params.refuse(name, value, &mut unknown),
        });
    }
    if stray > 0 {
        params.warn(
            "eiparams",
            format!("a text with words that belong to no option ({stray})"),
            "options that begin with -- and their values",
            "the options, the words are ignored",
        );
    }
    params.shown = shown.join(" ");
    params
}

impl EiParams {
    /// Uses `--width` and `--height` when both are given, as the program of Edge Impulse does.
    fn use_size(&mut self) {
        if let (Some(width), Some(height)) = (self.width, self.height) {
            self.options.camera_resolution.get_or_insert((width, height));
        }
    }

    /// Splits as a shell does, or at blanks when a quote is open.
    fn split(&mut self, text: &str) -> Vec<String> {
        shlex::split(text).unwrap_or_else(|| {
            self.warn(
                "eiparams",
                "a text with a quote that is not closed".to_owned(),
                "words as in a shell, each quote closed",
                "the text split at its blanks",
            );
            text.split_whitespace().map(str::to_owned).collect()
        })
    }

    /// Applies a known option, and returns how it is shown.
    fn take(&mut self, option: &RunnerOption, value: Option<&str>, inline: bool) -> String {
        let written = written(option.name, value, inline);
        let meaning = match (option.accepted, value.or(option.alone)) {
            (None, None) => (option.apply)(self, ""),
            (Some(_), Some(value)) => (option.apply)(self, value),
            _ => None,
        };
        if let Some(meaning) = meaning {
            self.applied.push(AppliedOption {
                option: written.clone(),
                meaning,
            });
            return written;
        }
        let value = match value {
            None => "without a value".to_owned(),
            Some(_) if redact::is_secret_name(option.name) => STARS.to_owned(),
            Some(value) => error::shown(&json!(value)),
        };
        let accepted = option.accepted.unwrap_or("the option alone, without a value");
        self.warn(&format!("eiparams {}", option.name), value, accepted, IGNORED);
        written
    }

    /// Warns about an unknown option, once per name, and returns how it is shown.
    fn refuse(&mut self, name: &str, value: Option<&str>, seen: &mut HashSet<String>) -> String {
        // Text after an unusual character may be a value, and so a secret: it is not shown.
        let is_odd = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
        let end = name.find(is_odd).unwrap_or(name.len());
        let name = name.get(..end.min(64)).unwrap_or_default();
        if seen.insert(name.to_owned()) {
            let value = "unknown, or without meaning here".to_owned();
            self.warn(
                &format!("eiparams {name}"),
                value,
                "the options named in recipes/README.md",
                IGNORED,
            );
        }
        match value {
            Some(_) => format!("{name} {STARS}"),
            None => name.to_owned(),
        }
    }

    fn warn(&mut self, key: &str, value: String, accepted: &str, used: &str) {
        self.warnings.push(Warning {
            key: key.to_owned(),
            value,
            accepted: accepted.to_owned(),
            used: used.to_owned(),
        });
    }

    /// Marks the options of these names as overridden by a key or flag.
    pub(super) fn mark_overridden(&mut self, options: &[&str], by: &str) {
        for applied in &mut self.applied {
            let name = applied.option.split([' ', '=']).next().unwrap_or_default();
            if options.contains(&name) {
                applied.meaning = format!("has no effect: {by} means the same and is set");
            }
        }
    }
}

/// The option as it was written, quoted where needed, a secret as `***`.
fn written(name: &str, value: Option<&str>, inline: bool) -> String {
    let Some(value) = value else { return name.to_owned() };
    let value = if redact::is_secret_name(name) {
        STARS.to_owned()
    } else {
        let value = redact::credentials(value);
        shlex::try_quote(&value)
            .map(|quoted| quoted.into_owned())
            .unwrap_or_default()
    };
    format!("{name}{}{value}", if inline { '=' } else { ' ' })
}

#[cfg(test)]
mod tests;
