//! The build of kvssink.

use std::fs;

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

#[test]
fn kvssink_is_built_once_at_a_fixed_version_as_the_service_user() {
    let machine = machine_with_kvssink();
    assert_eq!(machine.setup(&["--needs-kvssink"]).out, "yes\n");
    machine.not_called(&["git ", "useradd "]);
    machine.setup(&[]).succeeds();
    machine.called("git clone --quiet --depth 1 --branch v");
    machine.called("runuser -u ggc_user -- env HOME=");
    machine.called("DBUILD_GSTREAMER_PLUGIN=ON");
    assert!(is_built(&machine) && !marker_exists(&machine));
    assert_eq!(machine.setup(&["--needs-kvssink"]).out, "no\n");
    machine.setup(&[]).succeeds().prints("finished, 0 done");
    machine.not_called(&["git "]);
}

#[test]
fn a_failed_build_is_a_warning_and_is_tried_again_the_next_time() {
    let machine = machine_with_kvssink();
    let broken = machine.write("broken", "");
    machine
        .setup(&[])
        .succeeds()
        .warns("kvssink could not be built (error: out of memory)");
    assert!(marker_exists(&machine));
    fs::remove_file(broken).unwrap();
    machine.setup(&[]).succeeds();
    assert!(is_built(&machine));
}

#[test]
fn a_source_directory_that_is_not_ours_is_left_alone() {
    let machine = machine_with_kvssink();
    let work = format!("{SOURCE}/work");
    machine.write(&work, "mine");
    assert_eq!(machine.setup(&["--needs-kvssink"]).out, "no\n");
    machine.setup(&[]).succeeds().warns("was not created by this component");
    assert_eq!(machine.read(&work), "mine");
}

#[test]
fn kvssink_is_built_only_when_it_is_configured() {
    let mut machine = machine_with_kvssink();
    machine.configure("install_kvssink", "no");
    assert_eq!(machine.setup(&["--needs-kvssink"]).out, "no\n");
    machine.setup(&[]).succeeds();
    machine.not_called(&["git "]);
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
        .setup(&["--time-limit", "50"])
        .succeeds()
        .warns("kvssink could not be built (it did not end within ");
    machine.called("timeout -k 30 ");
    machine
        .setup(&["--time-limit", "0"])
        .succeeds()
        .warns("kvssink could not be built (the time limit of the install step has passed)");
    machine.not_called(&["timeout "]);
}

#[test]
fn a_machine_without_the_tool_timeout_gets_one_warning() {
    let machine = machine_with_kvssink();
    machine.remove_tool("timeout");
    let finished = machine.setup(&[]).succeeds();
    let warnings = finished.err.matches("the tool timeout (coreutils) is missing").count();
    assert_eq!(warnings, 1, "{}", finished.err);
    assert!(is_built(&machine));
}
