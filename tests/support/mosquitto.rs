//! A real Mosquitto on a free port. It ends when it is dropped.
#![allow(dead_code)]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::ports::free_port;

const PROGRAM: &str = "/usr/sbin/mosquitto";

/// A running Mosquitto with its configuration and persistence in a temporary directory.
pub struct Mosquitto {
    pub port: u16,
    pub directory: TempDir,
    child: Option<Child>,
}

impl Mosquitto {
    /// Starts a broker for MQTT without TLS.
    pub fn start() -> Self {
        Self::start_with(tempfile::tempdir().expect("a directory"), "")
    }

    /// Starts a broker with more lines for the listener; `directory` contains the files that they name.
    pub fn start_with(directory: TempDir, listener_lines: &str) -> Self {
        let port = free_port();
        let path = directory.path().display();
        // Mosquitto 2.0.11 does not start if its only listener is a WebSocket listener.
        let plain = if listener_lines.contains("websockets") {
            format!("listener {} 127.0.0.1\n", free_port())
        } else {
            String::new()
        };
        let config = format!(
            "set_tcp_nodelay true\n{plain}listener {port} 127.0.0.1\n{listener_lines}\nallow_anonymous true\npersistence true\n\
             persistence_location {path}/\nautosave_interval 0\nautosave_on_changes false\nlog_dest file {path}/log\n"
        );
        std::fs::write(directory.path().join("mosquitto.conf"), config).expect("a configuration");
        let mut broker = Self {
            port,
            directory,
            child: None,
        };
        broker.up();
        broker
    }

    /// The URL for `--mqtt`.
    pub fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }

    /// Starts the broker on the same port with its saved state.
    pub fn up(&mut self) {
        // Started as root, it would change to a user that cannot read the directory.
        let config = self.directory.path().join("mosquitto.conf");
        let user = if running_as_root() { "user root\n" } else { "" };
        let text = std::fs::read_to_string(&config).expect("a configuration");
        if !text.contains(user) {
            std::fs::write(&config, format!("{user}{text}")).expect("a configuration");
        }
        let starts_before = self.starts();
        let child = Command::new(PROGRAM)
            .arg("-c")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let mut child = child.unwrap_or_else(|error| panic!("{PROGRAM} cannot be started: {error}"));
        let limit = Instant::now() + Duration::from_secs(10);
        while self.starts() == starts_before {
            let ended = child.try_wait().expect("a child");
            assert!(
                Instant::now() < limit && ended.is_none(),
                "mosquitto does not listen (ended: {ended:?}); its log:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        self.child = Some(child);
    }

    /// Stops the broker; it saves sessions and retained messages.
    pub fn down(&mut self) {
        self.end(Signal::TERM);
    }

    /// Ends the broker with this signal. With SIGKILL it saves nothing.
    pub fn end(&mut self, signal: Signal) {
        self.signal(signal);
        if let Some(mut child) = self.child.take() {
            child.wait().expect("ended");
        }
    }

    /// Sends a signal. After STOP it keeps its connections and answers nothing until CONT.
    pub fn signal(&self, signal: Signal) {
        if let Some(child) = &self.child {
            kill_process(Pid::from_child(child), signal).expect("signalled");
        }
    }

    /// How often the broker has opened all its listeners.
    fn starts(&self) -> usize {
        self.log().lines().filter(|line| line.ends_with(" running")).count()
    }

    /// The log of the broker.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

fn running_as_root() -> bool {
    Path::new("/proc/self")
        .metadata()
        .is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0)
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
