//! The Greengrass nucleus that runs this component: its kind, its directories, and the user it runs the component as.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde_json::Value as Json;
use serde_yaml::Value as Yaml;

use super::machine::Host;

/// The names of the components with this program, as in their recipes: the runner, and the data collection.
pub(super) const COMPONENTS: [&str; 2] = [
    "EdgeImpulseLinuxRunnerServiceComponent",
    "EdgeImpulseLinuxServiceComponent",
];
/// The directory of Greengrass Lite's configuration files.
const LITE_CONFIGURATION: &str = "/etc/greengrass";
/// The state directory of Greengrass Lite, unless `rootPath` moves it.
const LITE_ROOT: &str = "/var/lib/greengrass";
/// Most bytes of a unit file that are read. Greengrass Lite writes at most 10,000.
const MAX_UNIT_BYTES: u64 = 64 * 1024;

/// Where the step was started from.
#[derive(Debug, Clone, Default)]
pub struct StartedFrom {
    /// The program in the component's artifacts.
    pub binary: PathBuf,
    /// Greengrass starts each step in the component's work directory.
    pub current_dir: Option<PathBuf>,
    /// The socket of the nucleus (`AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT`), which is in its root directory.
    pub ipc_socket: Option<PathBuf>,
}

/// A nucleus.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Nucleus {
    pub kind: NucleusKind,
    /// The component whose step runs.
    component: &'static str,
    /// Directories that may be its root, the surest first. Not all of them exist.
    roots: Vec<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NucleusKind {
    /// The Java nucleus, with its directory `config`.
    Classic(PathBuf),
    /// Greengrass Lite, with its configuration files in the order in which it reads them.
    Lite(Vec<PathBuf>),
}

impl Nucleus {
    /// Finds the nucleus that started the step. `artifacts/install.sh` (`is_lite`) decides in the same way.
    pub(super) fn find(machine: &Host, from: &StartedFrom) -> Self {
        let component = component_of(from);
        let known = root_of_artifact(&from.binary);
        let config = known
            .or_else(|| from.binary.parent())
            .unwrap_or(&from.binary)
            .join("config");
        let is_classic = ["config.tlog", "effectiveConfig.yaml"]
            .iter()
            .any(|name| config.join(name).is_file());
        let files = lite_files(&machine.path(LITE_CONFIGURATION));
        let has_unit = known.is_some_and(|root| root.join(install_unit_name(component)).is_file());
        let is_lite = !is_classic && (has_unit || files.is_some());
        let mut roots: Vec<PathBuf> = known.map(Path::to_owned).into_iter().collect();
        roots.extend(
            from.current_dir
                .as_deref()
                .and_then(root_of_work_dir)
                .map(Path::to_owned),
        );
        roots.extend(from.ipc_socket.as_deref().and_then(Path::parent).map(Path::to_owned));
        if !is_lite {
            return Self {
                kind: NucleusKind::Classic(config),
                component,
                roots,
            };
        }
        let files = files.unwrap_or_default();
        roots.extend(
            files
                .iter()
                .filter_map(|file| root_path(file))
                .next_back()
                .map(|root| machine.path(root)),
        );
        roots.push(machine.path(LITE_ROOT));
        Self {
            kind: NucleusKind::Lite(files),
            component,
            roots,
        }
    }

    /// The name of the component whose step runs.
    pub(super) fn component(&self) -> &'static str {
        self.component
    }

    /// The name of the unit of the run step on Greengrass Lite.
    pub(super) fn run_unit_name(&self) -> String {
        format!("ggl.{}.service", self.component)
    }

    pub(super) fn is_lite(&self) -> bool {
        matches!(self.kind, NucleusKind::Lite(_))
    }

    /// The unit of the run step, which Greengrass Lite writes before the install step runs.
    pub(super) fn run_unit(&self) -> Option<PathBuf> {
        let mut units = self.roots.iter().map(|root| root.join(self.run_unit_name()));
        units.find(|unit| self.is_lite() && unit.is_file())
    }

    /// The component's work directory.
    pub(super) fn work_dir(&self) -> Option<PathBuf> {
        let mut directories = self.roots.iter().map(|root| root.join("work").join(self.component));
        directories.find(|directory| directory.symlink_metadata().is_ok_and(|found| found.is_dir()))
    }
}

fn install_unit_name(component: &str) -> String {
    format!("ggl.{component}.install.service")
}

/// The component that the artifacts or the work directory belong to; the runner, if neither tells.
fn component_of(from: &StartedFrom) -> &'static str {
    let directories = [from.binary.ancestors().nth(2), from.current_dir.as_deref()];
    let mut named = directories.into_iter().flatten().filter_map(|directory| {
        let known = |component: &&&str| directory.ends_with(component);
        COMPONENTS.iter().find(known).copied()
    });
    named.next().unwrap_or(COMPONENTS[0])
}

/// Greengrass puts the binary into `<root>/packages/artifacts/<component>/<version>`.
fn root_of_artifact(binary: &Path) -> Option<&Path> {
    let mut ancestors = binary.ancestors().skip(1);
    let artifacts = ancestors.find(|directory| directory.ends_with("packages/artifacts"))?;
    artifacts.ancestors().nth(2)
}

/// Whether a path is `<root>/packages/artifacts/<component>/<version>/...`.
pub(super) fn is_artifact(binary: &Path) -> bool {
    root_of_artifact(binary).is_some()
        && binary
            .ancestors()
            .nth(2)
            .is_some_and(|directory| COMPONENTS.iter().any(|component| directory.ends_with(component)))
}

/// Greengrass starts the component in `<root>/work/<component>`.
fn root_of_work_dir(directory: &Path) -> Option<&Path> {
    COMPONENTS
        .iter()
        .any(|component| directory.ends_with(Path::new("work").join(component)))
        .then(|| directory.ancestors().nth(2))
        .flatten()
}

/// `config.yaml`, then the files of `config.d` in the order of their names. `None`: Greengrass Lite is not configured.
fn lite_files(directory: &Path) -> Option<Vec<PathBuf>> {
    let (main, more) = (directory.join("config.yaml"), directory.join("config.d"));
    if !main.is_file() && !more.is_dir() {
        return None;
    }
    let mut files: Vec<_> = std::fs::read_dir(&more)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_file())
        .collect();
    files.sort();
    files.insert(0, main);
    Some(files)
}

/// `system.rootPath` of a configuration file of Greengrass Lite.
fn root_path(file: &Path) -> Option<PathBuf> {
    let root: Yaml = serde_yaml::from_slice(&std::fs::read(file).ok()?).ok()?;
    let path = PathBuf::from(root.get("system")?.get("rootPath")?.as_str()?);
    path.is_absolute().then_some(path)
}

/// Reads `User=` and `Group=` of a unit file, as `user:group` or `user`. `None`: the unit names no user.
pub(super) fn read_unit(file: &Path) -> io::Result<Option<String>> {
    let mut text = String::new();
    File::open(file)?.take(MAX_UNIT_BYTES).read_to_string(&mut text)?;
    let value = |name: &str| {
        let lines = text.lines().map(str::trim);
        let mut values = lines.filter_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix('='));
        values.next_back().map(str::trim).filter(|value| !value.is_empty())
    };
    Ok(value("User").map(|user| match value("Group") {
        Some(group) => format!("{user}:{group}"),
        None => user.to_owned(),
    }))
}

/// The `posixUser` values of a configuration.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PosixUsers {
    /// Value for this component (`services.<component>.runWith`).
    pub own: Option<String>,
    /// Value for all components (`runWithDefault`).
    pub shared: Option<String>,
}

impl PosixUsers {
    pub(super) fn chosen(self) -> Option<String> {
        self.own.or(self.shared)
    }
}

/// Reads `effectiveConfig.yaml` of the classic nucleus, or a configuration file of Greengrass Lite. If there are several
/// `runWithDefault`, the last one is used.
pub(super) fn read_yaml(path: &Path, component: &str) -> io::Result<PosixUsers> {
    let root: Yaml = serde_yaml::from_slice(&std::fs::read(path)?).map_err(io::Error::other)?;
    let own = root
        .get("services")
        .and_then(|services| services.get(component))
        .and_then(|component| component.get("runWith"));
    let mut users = PosixUsers {
        own: own.and_then(posix_user),
        shared: None,
    };
    find_shared(&root, &mut users.shared);
    Ok(users)
}

fn find_shared(value: &Yaml, found: &mut Option<String>) {
    match value {
        Yaml::Mapping(entries) => {
            for (key, value) in entries {
                if key == "runWithDefault"
                    && let Some(user) = posix_user(value)
                {
                    *found = Some(user);
                }
                find_shared(value, found);
            }
        }
        Yaml::Sequence(values) => values.iter().for_each(|value| find_shared(value, found)),
        _ => {}
    }
}

fn posix_user(run_with: &Yaml) -> Option<String> {
    match run_with.get("posixUser")? {
        Yaml::String(user) if !user.is_empty() => Some(user.clone()),
        Yaml::Number(uid) => Some(uid.to_string()),
        _ => None,
    }
}

/// Reads `config.tlog`, the classic nucleus' log of configuration changes, with one JSON object per line. The nucleus writes
/// `effectiveConfig.yaml` only when it starts or stops, so only this file contains the changes of the current deployment.
pub(super) fn read_change_log(path: &Path, component: &str) -> io::Result<PosixUsers> {
    let (mut own, mut shared) = (Setting::default(), Setting::default());
    for line in BufReader::new(File::open(path)?).split(b'\n') {
        // The last line may be incomplete.
        let Ok(change) = serde_json::from_slice::<Json>(&line?) else {
            continue;
        };
        let topic: Option<Vec<&str>> = change["TP"]
            .as_array()
            .and_then(|names| names.iter().map(Json::as_str).collect());
        let Some(topic) = topic else { continue };
        match change["W"].as_str() {
            Some("removed") => {
                own.remove(&topic);
                shared.remove(&topic);
            }
            Some("changed") => match (topic.as_slice(), change["V"].as_str()) {
                (["services", name, "runWith", "posixUser"], Some(user)) if *name == component => own.set(&topic, user),
                ([.., "runWithDefault", "posixUser"], Some(user)) => shared.set(&topic, user),
                _ => {}
            },
            _ => {}
        }
    }
    Ok(PosixUsers {
        own: own.value(),
        shared: shared.value(),
    })
}

/// A value in the change log, with the topic that set it.
#[derive(Default)]
struct Setting {
    topic: Vec<String>,
    value: String,
}

impl Setting {
    fn set(&mut self, topic: &[&str], value: &str) {
        self.topic = topic.iter().map(|&name| name.to_owned()).collect();
        value.clone_into(&mut self.value);
    }

    /// Removing a topic removes all values below it.
    fn remove(&mut self, topic: &[&str]) {
        if self.topic.len() >= topic.len() && self.topic.iter().zip(topic).all(|(own, removed)| own == removed) {
            self.value.clear();
        }
    }

    fn value(self) -> Option<String> {
        (!self.value.is_empty()).then_some(self.value)
    }
}
