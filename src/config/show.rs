//! Shows effective values as text in the syntax of the configuration; empty for none.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::frame_collection::ValueBand;
use super::types::{ModelSource, Qos, ShutdownBehavior, SourceLine};

pub(super) fn switch(on: &bool) -> String {
    if *on { "yes".to_owned() } else { "no".to_owned() }
}

pub(super) fn path(path: &Path) -> String {
    path.display().to_string()
}

pub(super) fn some_path(path: &Option<PathBuf>) -> String {
    path.as_ref().map(|path| self::path(path)).unwrap_or_default()
}

pub(super) fn paths(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| self::path(path)).collect::<Vec<_>>().join(":")
}

pub(super) fn some<T: Display>(value: &Option<T>) -> String {
    value.as_ref().map(T::to_string).unwrap_or_default()
}

pub(super) fn seconds(time: &Duration) -> String {
    time.as_secs_f64().to_string()
}

pub(super) fn millis(time: &Duration) -> String {
    time.as_millis().to_string()
}

pub(super) fn minutes(time: &Duration) -> String {
    (time.as_secs() / 60).to_string()
}

pub(super) fn mebibytes(bytes: &u64) -> String {
    (bytes >> 20).to_string()
}

pub(super) fn band(band: &Option<ValueBand>) -> String {
    band.map_or_else(|| "no".to_owned(), |band| band.to_string())
}

pub(super) fn qos(qos: &Qos) -> String {
    match qos {
        Qos::AtMostOnce => "0".to_owned(),
        Qos::AtLeastOnce => "1".to_owned(),
    }
}

pub(super) fn source(source: &Option<SourceLine>) -> String {
    source.as_ref().map_or_else(String::new, |line| line.0.clone())
}

pub(super) fn model(model: &Option<ModelSource>) -> String {
    match model {
        Some(ModelSource::File(path)) => self::path(path),
        Some(ModelSource::Builtin(name)) => format!("builtin:{name}"),
        None => String::new(),
    }
}

pub(super) fn shutdown(behavior: &ShutdownBehavior) -> String {
    match behavior {
        ShutdownBehavior::Restart => String::new(),
        wait => wait.to_string(),
    }
}
