//! Runs the real binary as a child process, with its own directory, and collects its log lines.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::events::Events;

/// Time limit of every wait. It is long enough for a busy machine with two cores.
pub const LIMIT: Duration = Duration::from_secs(30);

/// The program under test.
pub fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_ei-greengrass"))
}

/// A directory and a device for one test.
pub struct Site {
    dir: tempfile::TempDir,
    device: String,
}

impl Site {
    pub fn new() -> Self {
        let unique = uuid::Uuid::new_v4().simple().to_string();
        Self {
            dir: tempfile::tempdir().expect("temporary directory"),
            device: format!("test{}", &unique[..12]),
        }
    }

    /// Another directory for the same device, as after a change of its disk.
    pub fn copy(&self) -> Self {
        Self {
            dir: tempfile::tempdir().expect("temporary directory"),
            device: self.device.clone(),
        }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The `device_name` of this site; the component adds a suffix.
    pub fn device(&self) -> &str {
        &self.device
    }

    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, text).expect("write a file of the test");
        path
    }

    /// A copy of the scripted model with its script beside it.
    pub fn scripted_model(&self, script: &serde_json::Value) -> PathBuf {
        let model = self.path().join(format!("model-{}.eim", uuid::Uuid::new_v4().simple()));
        std::fs::copy(scripted_model(), &model).expect("copy the scripted model");
        let mut name = model.as_os_str().to_owned();
        name.push(".json");
        std::fs::write(PathBuf::from(name), script.to_string()).expect("write the script");
        model
    }

    /// `ei-greengrass <subcommand>` with lock file, work directory and device of this site, and no page.
    pub fn command(&self, subcommand: &str) -> Command {
        let mut command = self.bare_command();
        command.arg(subcommand);
        for (key, value) in [
            ("device_name", self.device.clone()),
            ("lock_filename", self.path().join("lock").display().to_string()),
            ("work_dir", self.path().display().to_string()),
            ("preview", "off".to_owned()),
            // Scripted models write what they receive beside themselves.
            ("model_allow", self.path().display().to_string()),
        ] {
            command.arg("--set").arg(format!("{key}={value}"));
        }
        command
    }

    /// The binary in this directory with a clean environment.
    pub fn bare_command(&self) -> Command {
        let mut command = Command::new(binary());
        command.current_dir(self.path()).stdin(Stdio::null());
        // Tests must not use the real credentials or instance metadata of the machine.
        command.env("AWS_EC2_METADATA_DISABLED", "true");
        for variable in [
            "RUST_LOG",
            "CONFIG_PARAMETERS",
            "SVCUID",
            "AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT",
            "AWS_REGION",
            "HTTPS_PROXY",
            "https_proxy",
            "HTTP_PROXY",
            "http_proxy",
            "ALL_PROXY",
            "all_proxy",
            "NO_PROXY",
            "no_proxy",
        ] {
            command.env_remove(variable);
        }
        command
    }

    /// `run` against `broker` with further arguments.
    pub fn run(&self, broker: &str, arguments: &[&str]) -> Daemon {
        let mut command = self.command("run");
        command.args(["--mqtt", broker]).args(arguments);
        Daemon::start(command)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        super::leftovers::remove_run_directories(self);
    }
}

/// Path of the scripted model, which is an example of this crate.
pub fn scripted_model() -> PathBuf {
    let test = std::env::current_exe().expect("path of the test");
    test.ancestors()
        .nth(2)
        .expect("target directory")
        .join("examples/scripted-model")
}

/// A running component. It is killed when this is dropped; its log is printed if the test fails.
pub struct Daemon {
    child: Child,
    log: Arc<Events<String>>,
    readers: Vec<std::thread::JoinHandle<()>>,
}

impl Daemon {
    pub fn start(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start the program");
        let log = Arc::new(Events::default());
        let stdout = BufReader::new(child.stdout.take().expect("stdout"));
        let stderr = BufReader::new(child.stderr.take().expect("stderr"));
        let readers = vec![read(stdout, log.clone()), read(stderr, log.clone())];
        Self { child, log, readers }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a log line that contains `text`.
    #[track_caller]
    pub fn wait_for_line(&self, text: &str) -> String {
        self.log.wait_for(&format!("log line with {text:?}"), LIMIT, |lines| {
            lines.iter().find(|line| line.contains(text)).cloned()
        })
    }

    /// Waits until `count` log lines contain `text`.
    #[track_caller]
    pub fn wait_for_lines(&self, text: &str, count: usize) {
        self.log
            .wait_for(&format!("{count} log lines with {text:?}"), LIMIT, |lines| {
                (lines.iter().filter(|line| line.contains(text)).count() >= count).then_some(())
            });
    }

    /// The log up to now.
    pub fn log(&self) -> String {
        self.log.with(|lines| lines.join("\n"))
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("signal the daemon");
    }

    /// Waits until the process ends by itself. Returns its status and the time until then.
    #[track_caller]
    pub fn wait_for_end(&mut self, limit: Duration) -> (ExitStatus, Duration) {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("wait for the daemon") {
                for reader in self.readers.drain(..) {
                    let _ = reader.join();
                }
                return (status, begun.elapsed());
            }
            assert!(
                begun.elapsed() < limit,
                "the daemon did not end within {limit:?}; its log:\n{}",
                self.log()
            );
            // A child that was not reaped gives no event when it ends.
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends SIGTERM, checks that the process exits with code 0, and returns the whole log.
    #[track_caller]
    pub fn stop(mut self) -> String {
        self.signal(rustix::process::Signal::TERM);
        let (status, _) = self.wait_for_end(LIMIT);
        assert_eq!(status.code(), Some(0), "the log:\n{}", self.log());
        self.log()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of the daemon (pid {})\n{}\n---", self.child.id(), self.log());
        }
    }
}

fn read(stream: impl std::io::Read + Send + 'static, log: Arc<Events<String>>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut lines = BufReader::new(stream).split(b'\n');
        while let Some(Ok(line)) = lines.next() {
            log.push(String::from_utf8_lossy(&line).into_owned());
        }
    })
}
