//! The component that the nucleus runs on this machine, for subcommands that a person calls beside it.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::connection::Nucleus;
use crate::util::secret::Secret;

/// A process of the component that the nucleus has started.
#[derive(Debug)]
pub struct RunningComponent {
    /// The nucleus, with the token of the process.
    pub nucleus: Nucleus,
    /// Its current directory, where it keeps its files unless `work_dir` is configured.
    pub current_dir: PathBuf,
}

/// Why the running component cannot be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunningError {
    /// There is no such process.
    #[error("no component that Greengrass has started runs on this machine; the log of Greengrass says why")]
    None,
    /// There are several, and none was chosen.
    #[error(
        "several components that Greengrass has started run on this machine: name the process, for example --deployed={}",
        .0.first().copied().unwrap_or_default()
    )]
    Several(Vec<u32>),
    /// Another user must not read the environment of the process.
    #[error("the environment of the process {0} cannot be read: run this as root")]
    Denied(u32),
    /// Greengrass did not start this process.
    #[error("Greengrass has not started the process {0}, or it is no `ei-greengrass run`")]
    NotStarted(u32),
}

impl RunningComponent {
    /// The process `pid`, or the only one on this machine.
    ///
    /// # Errors
    /// There is none or several, or this user must not read its environment.
    pub fn find(pid: Option<u32>) -> Result<Self, RunningError> {
        if let Some(pid) = pid {
            return Self::read(pid)?.ok_or(RunningError::NotStarted(pid));
        }
        let pids = fs::read_dir("/proc").into_iter().flatten();
        let pids = pids.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let (mut found, mut denied) = (Vec::new(), None);
        for pid in pids.filter(|pid| runs_component(*pid)) {
            match Self::read(pid) {
                Ok(component) => found.extend(component.map(|component| (pid, component))),
                Err(error) => denied = Some(error),
            }
        }
        match (found.len(), denied) {
            (0, Some(denied)) => Err(denied),
            (0, None) => Err(RunningError::None),
            (1, _) => found.pop().map(|(_, component)| component).ok_or(RunningError::None),
            _ => Err(RunningError::Several(found.into_iter().map(|(pid, _)| pid).collect())),
        }
    }

    /// `None`: Greengrass did not start this process.
    fn read(pid: u32) -> Result<Option<Self>, RunningError> {
        let process = Path::new("/proc").join(pid.to_string());
        let Ok(environment) = fs::read(process.join("environ")) else {
            let exists = runs_component(pid);
            return if exists {
                Err(RunningError::Denied(pid))
            } else {
                Ok(None)
            };
        };
        let variables: Vec<_> = environment.split(|byte| *byte == 0).collect();
        let value = |name: &str| {
            let mut values = variables.iter().filter_map(|line| line.strip_prefix(name.as_bytes()));
            let value = values.find_map(|value| value.strip_prefix(b"="))?;
            Some(OsString::from_vec(value.to_vec()))
        };
        let socket = value(greengrass_ipc::SOCKET_PATH_ENV);
        let token = value(greengrass_ipc::AUTH_TOKEN_ENV).and_then(|token| token.into_string().ok());
        Ok(socket.zip(token).map(|(socket, token)| Self {
            nucleus: Nucleus::new(socket, Secret::new(token)),
            current_dir: fs::read_link(process.join("cwd")).unwrap_or_default(),
        }))
    }
}

/// Whether the process is `ei-greengrass run`, by its command line.
fn runs_component(pid: u32) -> bool {
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut words = command
        .split(|byte| *byte == 0)
        .map(|word| OsString::from_vec(word.to_vec()));
    let is_program = words
        .next()
        .is_some_and(|program| Path::new(&program).file_name() == Some(OsStr::new("ei-greengrass")));
    is_program && words.any(|word| word == "run")
}
