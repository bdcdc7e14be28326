//! The recipe: what Greengrass accepts, what the program reads from it, and what its scripts do.

use crate::support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ei_greengrass::config::{Sources, TextOrigin, load, read_file};
use serde_json::{Value, json};

use support::daemon::{Daemon, LIMIT, Site, binary};
use support::mosquitto::Mosquitto;
use support::nucleus::Nucleus;
use support::observer::Observer;
use support::scripts::{boxed, script};

const RECIPE: &str = "recipes/EdgeImpulseLinuxRunnerServiceComponent.yaml";

fn recipe_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(RECIPE)
}

fn recipe() -> Value {
    serde_yaml::from_str(&std::fs::read_to_string(recipe_path()).unwrap()).unwrap()
}

fn parameters() -> serde_json::Map<String, Value> {
    recipe()["ComponentConfiguration"]["DefaultConfiguration"]["Parameters"]
        .as_object()
        .unwrap()
        .clone()
}

/// All keys of objects in lower case: the development kit does the same before it validates.
fn lower_case(value: Value) -> Value {
    match value {
        Value::Object(object) => object
            .into_iter()
            .map(|(key, value)| (key.to_lowercase(), lower_case(value)))
            .collect(),
        Value::Array(list) => list.into_iter().map(lower_case).collect(),
        other => other,
    }
}

/// Writes `(?i)` out letter by letter. The kit validates with Python, which accepts this flag; JSON Schema does not.
fn expand_case_flag(pattern: &str) -> String {
    let Some(rest) = pattern.strip_prefix("(?i)") else {
        return pattern.to_owned();
    };
    let either = |c: char| match c.is_ascii_alphabetic() {
        true => format!("[{}{}]", c.to_ascii_lowercase(), c.to_ascii_uppercase()),
        false => c.to_string(),
    };
    rest.chars().map(either).collect()
}

fn schema() -> Value {
    fn expand(value: &mut Value) {
        match value {
            Value::Object(object) => {
                for (key, value) in object {
                    match value {
                        Value::String(pattern) if key == "pattern" => *pattern = expand_case_flag(pattern),
                        other => expand(other),
                    }
                }
            }
            Value::Array(list) => list.iter_mut().for_each(expand),
            _ => {}
        }
    }
    let mut schema = serde_json::from_str(include_str!("data/gdk-recipe-schema.json")).unwrap();
    expand(&mut schema);
    schema
}

#[test]
fn the_recipe_passes_the_development_kits_schema() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    let good = lower_case(recipe());
    let errors: Vec<_> = validator.iter_errors(&good).map(|error| error.to_string()).collect();
    assert_eq!(errors, Vec::<String>::new());
    let mut bad = good;
    bad["componentversion"] = json!(2);
    assert!(!validator.is_valid(&bad), "the schema refuses a wrong type");
}

/// The script of a lifecycle step, which all manifests share.
fn lifecycle_script(recipe: &Value, step: &str) -> String {
    let step = &recipe["Lifecycle"]["all"][step];
    step.as_str()
        .or_else(|| step["Script"].as_str())
        .unwrap_or_else(|| panic!("no script: {step}"))
        .to_owned()
}

#[test]
fn greengrass_lite_reads_the_whole_recipe() {
    let text = std::fs::read_to_string(recipe_path()).unwrap();
    assert!(text.len() <= 8196, "{} bytes", text.len());
    let recipe = recipe();
    let manifests = recipe["Manifests"].as_array().unwrap();
    let architectures: Vec<_> = manifests
        .iter()
        .map(|manifest| &manifest["Platform"]["architecture"])
        .collect();
    assert_eq!(architectures, ["aarch64", "amd64", "arm"]);
    for manifest in manifests {
        assert_eq!(manifest["Platform"]["runtime"], "*");
        // Both nuclei use the global lifecycle only for a manifest without one of its own.
        let keys: Vec<_> = manifest.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["Platform", "Artifacts"]);
    }
    for step in ["install", "run", "shutdown"] {
        let script = lifecycle_script(&recipe, step);
        assert!(
            !script.replace("{artifacts:path}", "").contains(['{', '}']),
            "Lite cuts {script:?} at a brace"
        );
    }
}

/// `GG_MAX_OBJECT_SUBOBJECTS` of Lite (`gg/object.h` of aws-greengrass-component-sdk).
const LITE_OBJECTS: usize = 255;

/// The objects of a document as Lite counts them: two for each entry of a map, one for each entry of a list.
fn objects(value: &Value) -> usize {
    match value {
        Value::Object(map) => 2 * map.len() + map.values().map(objects).sum::<usize>(),
        Value::Array(list) => list.len() + list.iter().map(objects).sum::<usize>(),
        _ => 0,
    }
}

/// The objects of a recipe as a device gets it: AWS adds three keys to each artifact.
fn objects_on_a_device(mut recipe: Value) -> usize {
    for manifest in recipe["Manifests"].as_array_mut().unwrap() {
        for artifact in manifest["Artifacts"].as_array_mut().unwrap() {
            for key in ["Digest", "Algorithm", "Unarchive"] {
                artifact[key] = json!("");
            }
        }
    }
    objects(&recipe)
}

/// The recipe of the data collection.
const LINUX_RECIPE: &str = "recipes/EdgeImpulseLinuxServiceComponent.yaml";

fn linux_recipe() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(LINUX_RECIPE);
    serde_yaml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn the_recipe_of_the_data_collection_differs_in_name_and_parameters_only() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    assert!(validator.is_valid(&lower_case(linux_recipe())));
    let (mut runner, mut linux) = (recipe(), linux_recipe());
    assert_eq!(linux["ComponentName"], "EdgeImpulseLinuxServiceComponent");
    assert!(objects_on_a_device(linux.clone()) < objects_on_a_device(runner.clone()));
    for recipe in [&mut runner, &mut linux] {
        for key in ["ComponentName", "ComponentDescription", "ComponentConfiguration"] {
            recipe.as_object_mut().unwrap().remove(key);
        }
    }
    assert_eq!(linux, runner);
}

#[test]
fn the_recipe_of_the_data_collection_has_its_defaults() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(LINUX_RECIPE);
    let text = read_file(&path).unwrap();
    let loaded = load(&Sources {
        text: Some((TextOrigin::File(path), text)),
        ..Sources::default()
    })
    .unwrap();
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let built_in = load(&Sources {
        text: Some((TextOrigin::Nucleus, r#"{"launch": "linux"}"#.to_owned())),
        ..Sources::default()
    });
    assert_eq!(loaded.config, built_in.unwrap().config);
}

#[test]
fn package_sh_writes_the_recipe_of_the_data_collection_with_the_same_files() {
    let site = Site::new();
    let head = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0";
    std::fs::write(site.path().join("binary"), head).unwrap();
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("artifacts/package.sh"));
    command.args([
        "my-bucket",
        "2.1.0",
        "--out",
        "build",
        "--binary",
        "amd64=binary",
        "--component",
        "linux",
    ]);
    command
        .current_dir(site.path())
        .env("PATH", "/usr/bin:/bin")
        .env_remove("AWS_REGION");
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let written = "build/recipes/EdgeImpulseLinuxServiceComponent-2.1.0.yaml";
    let recipe = std::fs::read_to_string(site.path().join(written)).unwrap();
    let recipe: Value = serde_yaml::from_str(&recipe).unwrap();
    assert_eq!(
        recipe["Manifests"][0]["Artifacts"][0]["Uri"],
        "s3://my-bucket/artifacts/EdgeImpulseServiceComponent/2.1.0/amd64/ei-greengrass"
    );
}

#[test]
fn greengrass_lite_has_room_for_thirty_more_keys_in_the_recipe() {
    let count = objects_on_a_device(recipe());
    assert!(count + 2 * 30 <= LITE_OBJECTS, "{count} objects");
}

/// The number of objects that package.sh prints for the recipe it writes, and that recipe.
fn package(architectures: &[(&str, u8)]) -> (usize, Value) {
    let site = Site::new();
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("artifacts/package.sh"));
    command
        .args(["my-bucket", "2.1.0", "--out", "build"])
        .current_dir(site.path());
    // Without the AWS CLI of this machine.
    command
        .env("PATH", "/usr/bin:/bin")
        .env("AWS_PROFILE", "none")
        .env_remove("AWS_REGION");
    for (architecture, machine) in architectures {
        let mut head = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0".to_vec();
        head.extend([*machine, 0]);
        std::fs::write(site.path().join(architecture), head).unwrap();
        command.arg("--binary").arg(format!("{architecture}={architecture}"));
    }
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let before = text.split(" of 255 objects").next().unwrap();
    let count = before
        .rsplit(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap_or_else(|_| panic!("{text}"));
    let written = "build/recipes/EdgeImpulseLinuxRunnerServiceComponent-2.1.0.yaml";
    let recipe = std::fs::read_to_string(site.path().join(written)).unwrap();
    (count, serde_yaml::from_str(&recipe).unwrap())
}

#[test]
fn package_sh_counts_the_objects_as_greengrass_lite_does() {
    for architectures in [&[("amd64", 62)][..], &[("aarch64", 183), ("amd64", 62), ("arm", 40)]] {
        let (count, recipe) = package(architectures);
        assert_eq!(recipe["Manifests"].as_array().unwrap().len(), architectures.len());
        assert_eq!(count, objects_on_a_device(recipe));
    }
}

#[test]
fn the_program_reads_the_recipe_without_a_warning_and_finds_its_own_defaults() {
    let path = recipe_path();
    let text = read_file(&path).unwrap();
    let loaded = load(&Sources {
        text: Some((TextOrigin::File(path), text)),
        ..Sources::default()
    })
    .unwrap();
    assert_eq!(
        loaded.warnings.iter().map(ToString::to_string).collect::<Vec<_>>(),
        Vec::<String>::new()
    );
    let built_in = load(&Sources::default()).unwrap();
    assert_eq!(loaded.config, built_in.config);
}

#[test]
fn the_recipe_names_the_keys_of_the_tutorial_and_no_other() {
    // The file has a trailing comma, as the tutorial has.
    let tutorial: serde_yaml::Value =
        serde_yaml::from_str(&include_str!("data/tutorial-config.json").replace('\t', " ")).unwrap();
    let mut tutorial: Vec<_> = tutorial
        .as_mapping()
        .unwrap()
        .keys()
        .map(|key| key.as_str().unwrap().to_owned())
        .collect();
    let mut in_recipe: Vec<_> = parameters().into_iter().map(|(key, _)| key).collect();
    in_recipe.sort();
    tutorial.sort();
    assert_eq!(in_recipe, tutorial);
    assert_eq!(in_recipe.len(), 27);
}

/// Values as the classic nucleus passes them.
fn typed(parameters: serde_json::Map<String, Value>) -> Value {
    Value::Object(parameters)
}

/// Values as Lite passes them from a JSON recipe: texts, numbers with all their digits.
fn as_text(parameters: serde_json::Map<String, Value>) -> Value {
    let text = |value: Value| match value {
        Value::Number(number) if number.is_f64() => json!(format!("{:.15}", number.as_f64().unwrap())),
        Value::Number(number) => json!(number.to_string()),
        other => other,
    };
    parameters.into_iter().map(|(key, value)| (key, text(value))).collect()
}

/// The environment variables that Greengrass sets for every component beside those of its token and its socket, and
/// those of its proxy. None of these addresses answers.
const GREENGRASS: [(&str, &str); 14] = [
    ("AWS_IOT_THING_NAME", "thing"),
    ("AWS_REGION", "eu-west-1"),
    ("AWS_DEFAULT_REGION", "eu-west-1"),
    ("GGC_VERSION", "2.14.0"),
    ("GG_ROOT_CA_PATH", "/greengrass/v2/rootCA.pem"),
    (
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "http://localhost:9/2016-11-01/credentialprovider/",
    ),
    ("ALL_PROXY", PROXY),
    ("all_proxy", PROXY),
    ("HTTP_PROXY", PROXY),
    ("http_proxy", PROXY),
    ("HTTPS_PROXY", PROXY),
    ("https_proxy", PROXY),
    ("NO_PROXY", "localhost"),
    ("no_proxy", "localhost"),
];
const PROXY: &str = "http://me:the-proxy-password@127.0.0.1:9";

/// A script of the recipe as Greengrass runs it, with the binary in the directory of the artifacts. The configuration is
/// nowhere but in the nucleus.
fn component_script(step: &str, site: &Site, nucleus: &Nucleus) -> Command {
    let artifacts = site.path().join("artifacts");
    if !artifacts.exists() {
        std::fs::create_dir(&artifacts).unwrap();
        std::os::unix::fs::symlink(binary(), artifacts.join("ei-greengrass")).unwrap();
    }
    let script = lifecycle_script(&recipe(), step);
    // The path of Lite ends with a slash, so the script must accept a double one.
    let script = script.replace("{artifacts:path}", &format!("{}/", artifacts.display()));
    let mut command = Command::new("sh");
    command
        .args(["-c", &script])
        .env_remove("RUST_LOG")
        .env_remove("CONFIG_PARAMETERS")
        .env_remove("NO_PROXY")
        .env_remove("no_proxy")
        .envs(GREENGRASS)
        .env("AWS_CONTAINER_AUTHORIZATION_TOKEN", nucleus.token())
        .current_dir(site.path())
        .stdin(Stdio::null());
    nucleus.environment(&mut command);
    command
}

fn the_component_runs_and_shuts_down(form: fn(serde_json::Map<String, Value>) -> Value) {
    let (site, broker) = (Site::new(), Mosquitto::start());
    let observer = Observer::connect(broker.port, site.device());
    let mut parameters = parameters();
    for (key, value) in [
        ("device_name", json!(site.device())),
        ("lock_filename", json!(site.path().join("lock"))),
        (
            "ei_local_model_file",
            json!(site.scripted_model(&script(&[boxed(0.9)]))),
        ),
        (
            "gst_args",
            json!("videotestsrc:is-live=true:!:video/x-raw,width=64,height=48:!:jpegenc"),
        ),
        ("iot_endpoint", json!(broker.url())),
        ("preview", json!("no")),
    ] {
        parameters.insert(key.to_owned(), value);
    }
    let nucleus = Nucleus::start(form(parameters));
    let mut daemon = Daemon::start(component_script("run", &site, &nucleus));
    observer.wait_for_count("inference/output", 3);
    let shutdown = component_script("shutdown", &site, &nucleus).output().unwrap();
    assert!(shutdown.status.success(), "{shutdown:?}");
    let (status, _) = daemon.wait_for_end(LIMIT);
    assert_eq!(status.code(), Some(0));
    observer.wait_for_status("stopped", 1);
    let log = daemon.log();
    assert!(!log.contains("WARN"), "{log}");
    assert!(
        !log.contains(&nucleus.token()) && !log.contains("the-proxy-password"),
        "{log}"
    );
}

#[test]
fn the_recipes_install_script_runs_the_artifact_which_can_read_the_configuration() {
    let site = Site::new();
    let mut parameters = parameters();
    let quoted = "it's \"$(touch harm)\" ; `touch harm` $HOME \\ {x}";
    parameters.insert("device_name".to_owned(), json!(quoted));
    let nucleus = Nucleus::start(Value::Object(parameters));
    let mut command = component_script("install", &site, &nucleus);
    // In place of the real script, which would change this machine. It is not executable, because artifacts may not be.
    site.write(
        "artifacts/install.sh",
        "printf '%s\\n' \"$0\" \"$#\" \"$PWD\" >called\nenv -0 >environment\n\
         \"${0%/*}/ei-greengrass\" config get device_name >device_name\nexit 7\n",
    );
    let output = command.output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(7),
        "the exit code of the script is that of the step: {output:?}"
    );
    let called = std::fs::read_to_string(site.path().join("called")).unwrap();
    let mut called = called.lines();
    let script = PathBuf::from(called.next().unwrap());
    assert_eq!(
        script.canonicalize().unwrap(),
        site.path().join("artifacts/install.sh").canonicalize().unwrap()
    );
    assert_eq!(called.next(), Some("0"), "no arguments");
    let environment = std::fs::read_to_string(site.path().join("environment")).unwrap();
    let variable = |name: &str| {
        let mut all = environment.split('\0').filter_map(|entry| entry.split_once('='));
        all.find(|(found, _)| *found == name).map(|(_, value)| value.to_owned())
    };
    for (name, value) in GREENGRASS {
        assert_eq!(variable(name).as_deref(), Some(value), "{name}");
    }
    assert!(
        !environment.contains("touch harm"),
        "no configuration passes through the environment"
    );
    let device_name = std::fs::read_to_string(site.path().join("device_name")).unwrap();
    assert_eq!(device_name, format!("{quoted}\n"), "{output:?}");
    assert!(!site.path().join("harm").exists());
}

#[test]
fn the_recipes_scripts_run_the_component_with_typed_values() {
    the_component_runs_and_shuts_down(typed);
}

#[test]
fn the_recipes_scripts_run_the_component_with_values_as_text() {
    the_component_runs_and_shuts_down(as_text);
}

#[test]
fn the_documented_command_shows_the_deployed_configuration() {
    let site = Site::new();
    let deployed = json!({"device_name": "as deployed", "work_dir": site.path(), "lock_filename": site.path().join("lock"),
        "ei_local_model_file": "builtin:ball", "iot_endpoint": "mqtt://127.0.0.1:9", "preview": "no",
        "gst_args": "videotestsrc:is-live=true:!:video/x-raw,width=64,height=48"});
    let nucleus = Nucleus::start(deployed);
    let daemon = Daemon::start(component_script("run", &site, &nucleus));
    daemon.wait_for_line("No connection to the broker");
    let document = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes/README.md")).unwrap();
    let section = document.split_once("### The deployed configuration").unwrap().1;
    let line = section.lines().find_map(|line| line.strip_prefix("sudo ")).unwrap();
    let mut command = Command::new("sh");
    command
        // Other tests run components too.
        .args(["-c", &format!("{line}={}", daemon.pid())])
        .env(
            "PATH",
            format!("{}:/usr/bin:/bin", site.path().join("artifacts").display()),
        )
        .env_remove("CONFIG_PARAMETERS")
        .current_dir(site.path());
    let output = command.output().unwrap();
    let report = String::from_utf8(output.stdout).unwrap();
    assert!(
        report.contains("= as deployed  (config)"),
        "{report}{:?}",
        String::from_utf8(output.stderr)
    );
    daemon.stop();
}
