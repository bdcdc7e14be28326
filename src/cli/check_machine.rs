//! What `run` needs from the machine in addition to model and source, in the report of `check`: the lock file,
//! directories, certificates and ports. Nothing is created.

use std::net::TcpListener;
use std::path::Path;

use crate::capture::{ClipCodec, clip_codec};
use crate::config::{Config, IotAuth, Launch};
use crate::device::peek;
use crate::lifecycle::{LockFile, holder, own_lock_path};
use crate::nucleus::Nucleus;
use crate::supervisor::{Setup, SetupError};
use crate::uplink::{ClientCertificate, check_files};
use crate::util::host::bracketed;
use crate::util::text::sentence;
use crate::util::write_access::check_directory;

/// Why `run` refuses to start.
pub(super) fn refusals(config: &Config) -> Vec<String> {
    let mut reasons = match Setup::new(config.clone(), false) {
        Ok(_) => Vec::new(),
        Err(SetupError(reasons)) => reasons,
    };
    reasons.extend(LockFile::check(&lock_file(config)).err().map(|e| sentence(&e)));
    reasons
}

/// The process that `run` would find running for this device, as text.
pub(super) fn running_instance(config: &Config) -> Option<String> {
    let pid = holder(&lock_file(config)).ok().flatten()?;
    Some(format!("an ei-greengrass is running for this device (pid {pid})"))
}

/// Why `run` starts and publishes nothing.
pub(super) fn uplink_fault(config: &Config) -> Option<String> {
    let IotAuth::X509 { cert, key, ca } = &config.iot_auth else {
        return None;
    };
    if config.runner.http_server.is_some() || config.launch == Launch::Linux {
        return None;
    }
    let certificate = ClientCertificate {
        cert: cert.clone(),
        key: key.clone(),
    };
    let error = check_files(certificate, ca.clone()).err()?;
    Some(format!(
        "`run` starts and publishes nothing until its certificate works: {}",
        sentence(&error)
    ))
}

/// What does not work now although `run` starts and infers: directories that cannot be written, ports in use.
pub(super) fn limitations(config: &Config) -> Vec<String> {
    let mut lines = Vec::new();
    if let Err(error) = check_directory(&config.work_dir) {
        lines.push(format!(
            "work_dir {} cannot be written: {error}; `run` keeps undelivered messages in memory only, and downloads no model",
            config.work_dir.display()
        ));
    }
    if let Some(cache) = &config.file_cache
        && let Err(error) = check_directory(&cache.directory)
    {
        lines.push(format!(
            "cache_file_directory {} cannot be written: {error}; `run` stores no pair until it can",
            cache.directory.display()
        ));
    }
    lines.extend(clip_limitation(config));
    if config.local_topics && Nucleus::from_env().is_none() {
        lines.push(
            "local_topics has no effect here: only a component that Greengrass started has local topics".to_owned(),
        );
    }
    if running_instance(config).is_none() {
        lines.extend(port_in_use(config));
    }
    if rustix::process::geteuid().is_root() {
        lines.push(
            "checked as root, who may read and write everything: if another user runs the component, run `check` as that user \
             (sudo -u ggc_user, on Greengrass Lite sudo -u ggcore or gg_component)"
                .to_owned(),
        );
    }
    lines
}

/// What clips of events cannot do on this machine.
fn clip_limitation(config: &Config) -> Option<String> {
    config.event_clip?;
    match clip_codec() {
        Ok(ClipCodec::H264) => None,
        Ok(ClipCodec::MotionJpeg) => Some(
            "event_clip: no H.264 encoder is installed, so clips of a source that delivers no H.264 hold JPEG pictures (MJPEG), \
             which VLC and ffmpeg play and browsers do not; install gstreamer1.0-plugins-ugly (x264enc)"
                .to_owned(),
        ),
        Err(error) => Some(format!("event_clip: {error}; `run` writes no clip until it can")),
    }
}

fn lock_file(config: &Config) -> std::path::PathBuf {
    let device = peek(&config.device_name, &config.work_dir, Path::new("/")).name;
    own_lock_path(&config.lock_filename, &device)
}

/// The port of the live page or of the inference server, if it cannot be opened.
fn port_in_use(config: &Config) -> Option<String> {
    let host = &config.preview.host;
    let (port, key, effect) = match config.runner.http_server {
        Some(port) => (port, "--run-http-server", "answers no request until it can"),
        None if config.preview.enabled => (config.preview.port, "preview_port", "shows no live page until it can"),
        None => return None,
    };
    let error = TcpListener::bind((host.as_str(), port)).err()?;
    Some(format!(
        "{key} {port} cannot be opened at {}: {error}; `run` {effect}",
        bracketed(host)
    ))
}
