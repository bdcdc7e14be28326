//! Groups that the service user joins.

use super::fake_machine::FakeMachine;

#[test]
fn an_unknown_group_is_skipped_with_a_warning() {
    let mut machine = FakeMachine::new();
    machine.configure("ei_ggc_user_groups", "video nosuchgroup audio");
    machine.setup(&[]).succeeds().warns("group nosuchgroup does not exist");
    assert_eq!(machine.read("members/ggc_user"), "video audio ");
}

#[test]
fn group_names_are_checked_and_never_reach_a_shell() {
    let mut machine = FakeMachine::new();
    let harm = machine.path("harm");
    machine.configure(
        "ei_ggc_user_groups",
        &format!("video; -G * $(touch {}) a", harm.display()),
    );
    machine.setup(&[]).succeeds();
    assert!(!harm.exists(), "the value was executed");
    assert_eq!(
        machine.read("members/ggc_user"),
        "video audio input users ",
        "the default"
    );
    machine.configure("ei_ggc_user_groups", "Video a.b 1a");
    machine
        .setup(&[])
        .succeeds()
        .warns("group 'Video' in ei_ggc_user_groups is no group name")
        .warns("group 'a.b' in ei_ggc_user_groups is no group name")
        .warns("group '1a' in ei_ggc_user_groups is no group name");
    machine.not_called(&["usermod "]);
}

#[test]
fn a_jetson_with_the_group_render_joins_it() {
    let machine = FakeMachine::new();
    machine.write("root/etc/nv_tegra_release", "");
    machine.append("root/etc/group", "render:x:105:");
    machine.setup(&[]).succeeds().prints("board jetson");
    machine.called("usermod -aG render ggc_user\n");
}

#[test]
fn other_boards_do_not_join_render() {
    let machine = FakeMachine::new();
    machine.append("root/etc/group", "render:x:105:");
    machine.setup(&[]).succeeds();
    machine.not_called(&["render"]);
}

#[test]
fn without_a_readable_configuration_the_defaults_are_used() {
    let mut machine = FakeMachine::new();
    machine.configure("launch", "nonsense");
    machine
        .setup(&[])
        .succeeds()
        .warns("the configuration could not be read (")
        .warns("ei_ggc_user_groups is taken as 'video audio input users'")
        .warns("ei_bindir is taken as '/usr/local/bin'")
        .warns("install_kvssink is taken as 'no'");
    machine.called("usermod -aG video ggc_user\n");
}
