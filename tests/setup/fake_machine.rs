//! A machine for one test: a root directory, and a `PATH` that holds only fakes, which note their calls.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Map, Value, json};

use crate::support::daemon::binary;

const COMPONENT: &str = "EdgeImpulseLinuxRunnerServiceComponent";
/// What the fakes and `install.sh` themselves run.
const REAL_TOOLS: &[&str] = &[
    "sh", "env", "cat", "grep", "sed", "awk", "mkdir", "rm", "touch", "dirname", "head", "tail", "tr", "cut", "mktemp",
    "date", "chmod", "uname", "readlink",
];

pub struct FakeMachine {
    directory: tempfile::TempDir,
    artifacts: PathBuf,
    configuration: Map<String, Value>,
    package_manager: &'static str,
}

/// How a run ended.
pub struct Finished {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Finished {
    #[track_caller]
    pub fn succeeds(self) -> Self {
        assert_eq!(self.code, Some(0), "{}\n{}", self.out, self.err);
        assert!(self.out.contains("install: finished"), "{}\n{}", self.out, self.err);
        self
    }

    #[track_caller]
    pub fn fails(self) -> Self {
        assert_eq!(self.code, Some(1), "{}\n{}", self.out, self.err);
        self
    }

    #[track_caller]
    pub fn prints(self, text: &str) -> Self {
        assert!(
            self.out.contains(text),
            "{text:?} is not in\n{}\n{}",
            self.out,
            self.err
        );
        self
    }

    #[track_caller]
    pub fn warns(self, text: &str) -> Self {
        assert!(
            self.err.contains(text),
            "{text:?} is not in\n{}\n{}",
            self.err,
            self.out
        );
        self
    }
}

impl FakeMachine {
    /// A Debian machine without an account of Greengrass, with the binary in `artifacts`.
    pub fn new() -> Self {
        Self::with_artifacts("artifacts")
    }

    /// With the binary where the classic nucleus puts it, below `root`.
    pub fn classic(root: &str) -> Self {
        Self::with_artifacts(&format!("{root}/packages/artifacts/{COMPONENT}/2.0.0"))
    }

    /// The same for the component that collects data.
    pub fn classic_with_data_collection(root: &str) -> Self {
        Self::with_artifacts(&format!(
            "{root}/packages/artifacts/EdgeImpulseLinuxServiceComponent/2.0.0"
        ))
    }

    /// With Greengrass Lite below `root`, which has written the unit of the run step for this user and group.
    pub fn lite(root: &str, user: &str, group: &str) -> Self {
        let machine = Self::classic(root);
        machine.write("root/etc/greengrass/config.yaml", "system:\n  rootPath: /elsewhere\n");
        machine.write_unit(root, user, group);
        fs::create_dir_all(machine.work_dir()).unwrap();
        machine
    }

    /// The unit of the run step, as Greengrass Lite writes it.
    pub fn write_unit(&self, root: &str, user: &str, group: &str) {
        self.write(
            &format!("{root}/ggl.{COMPONENT}.service"),
            format!(
                "[Unit]\nStartLimitBurst=3\nDescription=User=nobody\n\n[Service]\nRestart=on-failure\nSyslogIdentifier={COMPONENT}\n\
                 TimeoutSec=120\nUser={user}\nGroup={group}\n\n[Install]\nWantedBy=greengrass-lite.target\n"
            ),
        );
    }

    fn with_artifacts(artifacts: &str) -> Self {
        // In the target directory, so that the binary can be linked instead of copied.
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let machine = Self {
            artifacts: directory.path().join(artifacts),
            directory,
            configuration: Map::new(),
            package_manager: "apt",
        };
        for path in [
            "bin",
            "members",
            "temporary",
            "root/etc/ssl/certs",
            "root/home",
            "root/dev",
            "root/proc",
            "root/run",
            artifacts,
        ] {
            fs::create_dir_all(machine.path(path)).unwrap();
        }
        fs::hard_link(binary(), machine.binary()).unwrap();
        machine.write("calls", "");
        machine.write(
            "root/etc/group",
            "video:x:44:\naudio:x:29:\ninput:x:104:\nusers:x:100:\n",
        );
        machine.write("root/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n");
        machine.write("root/etc/os-release", "ID=debian\n");
        for tool in REAL_TOOLS {
            let mut directories = ["/usr/bin", "/bin"]
                .iter()
                .map(|directory| Path::new(directory).join(tool));
            let real = directories.find(|path| path.exists()).unwrap();
            symlink(real, machine.path("bin").join(tool)).unwrap();
        }
        machine.fake("timeout", r#"shift 3; exec "$@""#);
        machine.fake("chown", "");
        machine.fake("chgrp", "");
        machine.fake(
            "getent",
            r#"awk -F: -v name="$2" '$1 == name || $3 == name { print; found = 1 } END { exit !found }' "$machine/root/etc/$1""#,
        );
        machine.fake(
            "id",
            r#"case "$*" in
            -u) echo 0 ;;
            "-u "*) awk -F: -v name="$2" '$1 == name { print $3; found = 1 } END { exit !found }' "$machine/root/etc/passwd" ;;
            "-nG "*) cat "$machine/members/$2" 2>/dev/null ;;
            esac"#,
        );
        machine.fake("groupadd", r#"shift; echo "$1:x:900:" >>"$machine/root/etc/group""#);
        machine.fake(
            "useradd",
            r#"for name in "$@"; do :; done
            echo "$name:x:900:900::/home/$name:/bin/sh" >>"$machine/root/etc/passwd"
            mkdir -p "$machine/root/home/$name""#,
        );
        machine.fake("usermod", r#"printf "%s " "$2" >>"$machine/members/$3""#);
        machine
    }

    /// A command that notes its call, then runs the shell script `body`, in which `$machine` is this directory.
    pub fn fake(&self, name: &str, body: &str) {
        let directory = self.directory.path().display();
        let text = format!(
            "#!/bin/sh\nprintf '%s\\n' \"{name} $*\" >>\"{directory}/calls\"\nmachine=\"{directory}\"\n{body}\n"
        );
        let path = self.write(&format!("bin/{name}"), text);
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }

    pub fn remove_tool(&self, name: &str) {
        fs::remove_file(self.path("bin").join(name)).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// Adds a line to a file.
    pub fn append(&self, name: &str, line: &str) {
        let text = fs::read_to_string(self.path(name)).unwrap_or_default();
        self.write(name, text + line + "\n");
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    pub fn binary(&self) -> PathBuf {
        self.artifacts.join("ei-greengrass")
    }

    /// Sets a key of the component configuration.
    pub fn configure(&mut self, key: &str, value: &str) {
        self.configuration.insert(key.to_owned(), json!(value));
    }

    /// As `install.sh` found it.
    pub fn set_package_manager(&mut self, name: &'static str) {
        self.package_manager = name;
    }

    /// Runs `ei-greengrass setup`.
    pub fn setup(&self, arguments: &[&str]) -> Finished {
        self.setup_with(arguments, &[])
    }

    /// Runs `ei-greengrass setup` with further environment variables.
    pub fn setup_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Finished {
        self.setup_in(&self.work_dir(), arguments, variables)
    }

    /// Runs `ei-greengrass setup` in a directory, if it exists, with further environment variables.
    pub fn setup_in(&self, directory: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Finished {
        let mut command = Command::new(self.binary());
        command.args(["setup", "--package-manager", self.package_manager]);
        command.args(arguments);
        self.run(command, directory, variables)
    }

    /// Runs the binary with these arguments only.
    pub fn run_binary(&self, arguments: &[&str]) -> Finished {
        let mut command = Command::new(self.binary());
        command.args(arguments);
        self.run(command, &self.work_dir(), &[])
    }

    /// Runs `install.sh` beside the binary.
    pub fn install(&self, arguments: &[&str]) -> Finished {
        let mut command = Command::new("/bin/sh");
        command.arg(self.copy_install_script()).args(arguments);
        self.run(command, &self.work_dir(), &[])
    }

    /// Copies `install.sh` to its place beside the binary.
    pub fn copy_install_script(&self) -> PathBuf {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("artifacts/install.sh");
        let copy = self.artifacts.join("install.sh");
        fs::copy(script, &copy).unwrap();
        copy
    }

    /// The component's work directory, from which Greengrass starts each step. Exists only on a machine with a nucleus.
    pub fn work_dir(&self) -> PathBuf {
        let root = self.artifacts.ancestors().nth(4).unwrap();
        root.join("work").join(COMPONENT)
    }

    fn run(&self, mut command: Command, directory: &Path, variables: &[(&str, &str)]) -> Finished {
        self.write("calls", "");
        let parameters = Value::Object(self.configuration.clone()).to_string();
        command
            .env_clear()
            .env("PATH", self.path("bin"))
            .env("EI_ROOT", self.path("root"))
            .env("TMPDIR", self.path("temporary"))
            .env("CONFIG_PARAMETERS", parameters)
            .envs(variables.iter().copied());
        if directory.is_dir() {
            command.current_dir(directory);
        }
        let output = command.output().unwrap();
        Finished {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// The calls of the last run.
    pub fn calls(&self) -> String {
        self.read("calls")
    }

    #[track_caller]
    pub fn called(&self, call: &str) {
        assert!(self.calls().contains(call), "{call:?} is not in\n{}", self.calls());
    }

    #[track_caller]
    pub fn not_called(&self, calls: &[&str]) {
        for call in calls {
            assert!(!self.calls().contains(call), "{call:?} is in\n{}", self.calls());
        }
    }
}
