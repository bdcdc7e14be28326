//! Reads `posixUser`, the user that runs the component, from the configuration of the Greengrass nucleus.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use serde_json::Value as Json;
use serde_yaml::Value as Yaml;

/// The name of the component, as in its recipe.
pub(super) const COMPONENT: &str = "EdgeImpulseLinuxRunnerServiceComponent";

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
pub(super) fn read_yaml(path: &Path) -> io::Result<PosixUsers> {
    let root: Yaml = serde_yaml::from_slice(&std::fs::read(path)?).map_err(io::Error::other)?;
    let own = root
        .get("services")
        .and_then(|services| services.get(COMPONENT))
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
pub(super) fn read_change_log(path: &Path) -> io::Result<PosixUsers> {
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
                (["services", COMPONENT, "runWith", "posixUser"], Some(user)) => own.set(&topic, user),
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
