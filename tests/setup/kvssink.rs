//! The build of kvssink.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use rustix::fs::{FlockOperation, flock};

use super::fake_machine::FakeMachine;

const SOURCE: &str = "root/home/ggc_user/amazon-kinesis-video-streams-producer-sdk-cpp";

pub fn machine_with_kvssink() -> FakeMachine {
    let mut machine = FakeMachine::new();
    machine.configure("install_kvssink", "yes");
    machine.fake("runuser", r#"shift 3; exec "$@""#);
    machine.fake("git", r#"for name in "$@"; do :; done; mkdir -p "$name""#);
    machine.fake(
        "cmake",
        r#"case "$1" in
        --build) [ ! -e "$machine/broken" ] || { echo "error: out of memory" >&2; exit 2; }
            mkdir -p "$2" && touch "$2/libgstkvssink.so" ;;
        esac"#,
    );
    machine
}

fn is_built(machine: &FakeMachine) -> bool {
    machine.path(SOURCE).join("build/libgstkvssink.so").is_file()
}

fn marker_exists(machine: &FakeMachine) -> bool {
    machine.path(&format!("{SOURCE}.building")).exists()
}

/// A machine with systemd, whose `systemd-run` notes the arguments. The service is active if `service-active` exists.
pub fn add_systemd(machine: &FakeMachine) {
    fs::create_dir_all(machine.path("root/run/systemd/system")).unwrap();
    machine.fake(
        "systemctl",
        r#"case "$*" in
        "is-active --quiet ei-greengrass-install") [ -e "$machine/service-active" ] ;;
        esac"#,
    );
    machine.fake(
        "systemd-run",
        r#"[ ! -e "$machine/broken" ] || { echo "Failed to start" >&2; exit 1; }"#,
    );
}

#[test]
fn the_install_step_starts_a_service_that_builds_kvssink_and_builds_nothing_itself() {
    let machine = machine_with_kvssink();
    add_systemd(&machine);
    machine.copy_install_script();
    machine
        .setup(&[])
        .succeeds()
        .prints("done: service ei-greengrass-install started: it builds kvssink (journalctl -u ei-greengrass-install)");
    machine.called("systemd-run --quiet --unit=ei-greengrass-install ");
    machine.called("/install.sh --finish --kvssink\n");
    machine.not_called(&["git ", "cmake "]);
    machine.write("service-active", "");
    machine
        .setup(&[])
        .succeeds()
        .prints("skipped: service ei-greengrass-install: at work");
    machine.not_called(&["git ", "systemd-run "]);
}

#[test]
fn the_step_names_the_command_that_builds_kvssink_where_the_service_cannot_be_started() {
    let machine = machine_with_kvssink();
    machine.copy_install_script();
    let command = format!("{} setup --kvssink", machine.binary().display());
    machine
        .setup(&[])
        .succeeds()
        .warns("kvssink is not built (error: the service ei-greengrass-install cannot be started: this machine has no systemd)")
        .warns(&command);
    add_systemd(&machine);
    machine.write("broken", "");
    machine.setup(&[]).succeeds().warns("Failed to start").warns(&command);
}

#[test]
fn missing_packages_are_installed_by_the_service_too() {
    let machine = FakeMachine::new();
    add_systemd(&machine);
    machine.copy_install_script();
    machine
        .setup(&["--lacks-packages"])
        .succeeds()
        .prints("started: it installs the packages that are missing");
    machine.called("/install.sh --finish\n");
}

#[test]
fn the_service_gets_the_proxies_in_a_file_that_only_root_can_read() {
    let machine = machine_with_kvssink();
    add_systemd(&machine);
    machine.copy_install_script();
    machine
        .setup_with(&[], &[("https_proxy", "http://me:se\"cret@proxy:3128")])
        .succeeds();
    let file = machine.path("root/run/ei-greengrass-install.env");
    assert_eq!(
        fs::read_to_string(&file).unwrap(),
        "https_proxy=\"http://me:se\\\"cret@proxy:3128\"\n"
    );
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    machine.called(&format!("--property=EnvironmentFile=-{} ", file.display()));
    machine.not_called(&["cret@"]);
}

#[test]
fn by_hand_the_packages_are_installed_before_the_build() {
    let machine = machine_with_kvssink();
    machine.copy_install_script();
    machine.fake("dpkg-query", "");
    machine.fake("apt-get", "");
    machine.run_binary(&["setup", "--kvssink"]).succeeds();
    let calls = machine.calls();
    let (packages, build) = (calls.find("liblog4cplus-dev"), calls.find("cmake --build"));
    assert!(packages.is_some() && packages < build, "{calls}");
    assert!(is_built(&machine));
}

#[test]
fn kvssink_is_built_once_at_a_fixed_version_as_the_service_user() {
    let machine = machine_with_kvssink();
    machine.setup(&["--kvssink"]).succeeds();
    machine.called("git clone --quiet --depth 1 --branch v");
    machine.called("runuser -u ggc_user -- env HOME=");
    machine.called("DBUILD_GSTREAMER_PLUGIN=ON");
    assert!(is_built(&machine) && !marker_exists(&machine));
    machine.setup(&["--kvssink"]).succeeds().prints("finished, 0 done");
    machine.not_called(&["git "]);
    machine.setup(&[]).succeeds().prints("skipped: kvssink: built");
}

#[test]
fn a_second_build_at_the_same_time_is_refused() {
    let machine = machine_with_kvssink();
    let lock = fs::File::create(machine.path("root/run/ei-greengrass-kvssink.lock")).unwrap();
    flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
    machine
        .setup(&["--kvssink"])
        .fails()
        .warns("error: kvssink is being built already");
    machine.not_called(&["git ", "rm "]);
}

#[test]
fn a_failed_build_is_an_error_and_is_tried_again_the_next_time() {
    let machine = machine_with_kvssink();
    let broken = machine.write("broken", "");
    machine
        .setup(&["--kvssink"])
        .fails()
        .warns("kvssink could not be built (error: out of memory)");
    assert!(marker_exists(&machine));
    fs::remove_file(broken).unwrap();
    machine.setup(&["--kvssink"]).succeeds();
    assert!(is_built(&machine));
}

#[test]
fn a_source_directory_that_is_not_ours_is_left_alone() {
    let machine = machine_with_kvssink();
    let work = format!("{SOURCE}/work");
    machine.write(&work, "mine");
    machine.setup(&[]).succeeds().warns("was not created by this component");
    machine
        .setup(&["--kvssink"])
        .fails()
        .warns("was not created by this component");
    assert_eq!(machine.read(&work), "mine");
}

#[test]
fn the_install_step_builds_kvssink_only_when_it_is_configured() {
    let mut machine = machine_with_kvssink();
    add_systemd(&machine);
    machine.configure("install_kvssink", "no");
    machine.setup(&[]).succeeds();
    machine.not_called(&["git ", "systemd-run "]);
}

#[test]
fn kvssink_is_not_built_without_a_package_manager() {
    let mut machine = machine_with_kvssink();
    machine.set_package_manager("none");
    machine.fake("gst-inspect-1.0", "");
    machine
        .setup(&[])
        .succeeds()
        .warns("kvssink cannot be built: this image has no package manager");
    machine.not_called(&["git "]);
}

#[test]
fn a_command_that_hangs_is_named_with_its_limit() {
    let machine = machine_with_kvssink();
    // As timeout ends when it had to end a command.
    machine.fake("timeout", "exit 124");
    machine
        .setup(&["--kvssink", "--time-limit", "50"])
        .fails()
        .warns("kvssink could not be built (it did not end within ");
    machine.called("timeout -k 30 ");
    machine
        .setup(&["--kvssink", "--time-limit", "0"])
        .fails()
        .warns("kvssink could not be built (the time limit of the install step has passed)");
    machine.not_called(&["timeout "]);
}

#[test]
fn a_machine_without_the_tool_timeout_gets_one_warning() {
    let machine = machine_with_kvssink();
    machine.remove_tool("timeout");
    let finished = machine.setup(&["--kvssink"]).succeeds();
    let warnings = finished.err.matches("the tool timeout (coreutils) is missing").count();
    assert_eq!(warnings, 1, "{}", finished.err);
    assert!(is_built(&machine));
}
