//! Which user Greengrass runs the component as, and that it exists.

use std::fs;

use super::fake_machine::FakeMachine;

#[test]
fn user_group_and_home_are_created_and_the_groups_joined() {
    let machine = FakeMachine::new();
    machine.setup(&[]).succeeds().prints("service user ggc_user:ggc_group");
    machine.called("groupadd --system ggc_group\n");
    machine.called("useradd --system --create-home --gid ggc_group ggc_user\n");
    assert_eq!(machine.read("members/ggc_user"), "video audio input users ");
}

#[test]
fn busybox_tools_create_the_user_where_there_are_no_others() {
    let machine = FakeMachine::new();
    for tool in ["groupadd", "useradd", "usermod"] {
        machine.remove_tool(tool);
    }
    machine.fake("addgroup", "");
    machine.fake("adduser", "");
    machine.setup(&[]).succeeds();
    for call in [
        "addgroup -S ggc_group\n",
        "adduser -S -D -G ggc_group ggc_user\n",
        "addgroup ggc_user video\n",
    ] {
        machine.called(call);
    }
}

#[test]
fn a_missing_home_of_an_existing_user_is_created() {
    let machine = FakeMachine::new();
    machine.append("root/etc/group", "ggc_group:x:900:");
    machine.append("root/etc/passwd", "ggc_user:x:900:900::/home/ggc_user:/bin/sh");
    machine.setup(&[]).succeeds();
    let home = machine.path("root/home/ggc_user");
    assert!(home.is_dir());
    machine.called(&format!("chown ggc_user:ggc_group {}\n", home.display()));
    machine.not_called(&["useradd "]);
}

#[test]
fn a_user_that_is_meant_to_have_no_home_gets_none() {
    let mut machine = FakeMachine::new();
    machine.configure("install_kvssink", "yes");
    machine.append("root/etc/group", "ggc_group:x:900:");
    machine.append("root/etc/passwd", "ggc_user:x:900:900::/nonexistent:/bin/false");
    machine.setup(&[]).succeeds().warns("kvssink is not built");
    assert!(!machine.path("root/nonexistent").exists());
}

#[test]
fn a_user_that_cannot_be_created_ends_the_step() {
    let machine = FakeMachine::new();
    machine.fake("useradd", r#"echo "useradd: cannot lock /etc/passwd" >&2; exit 1"#);
    machine
        .setup(&[])
        .fails()
        .warns("error: user ggc_user could not be created (useradd: cannot lock /etc/passwd)");
}

#[test]
fn users_and_groups_are_found_without_getent() {
    let machine = FakeMachine::classic("gg");
    machine.remove_tool("getent");
    machine.write(
        "gg/config/effectiveConfig.yaml",
        "runWithDefault:\n  posixUser: 1000:1000\n",
    );
    machine.append("root/etc/passwd", "pi:x:1000:1000::/home/pi:/bin/sh");
    machine.append("root/etc/group", "pi:x:1000:");
    machine
        .setup(&[])
        .succeeds()
        .prints("service user pi:pi")
        .prints("skipped: group pi: exists");
    assert_eq!(machine.read("members/pi"), "video audio input users ");
}

// ------------------------------------------------------------------------------------- Greengrass Lite

/// A configuration file of Greengrass Lite that names a user.
fn lite_config(machine: &FakeMachine, file: &str, posix_user: &str) {
    machine.write(
        &format!("root/etc/greengrass/{file}"),
        format!(
            "---\nservices:\n  aws.greengrass.NucleusLite:\n    configuration:\n      runWithDefault:\n        posixUser: \"{posix_user}\"\n"
        ),
    );
}

#[test]
fn lite_runs_components_as_ggcore() {
    let machine = FakeMachine::new();
    machine.write(
        "root/etc/greengrass/config.d/greengrass-lite.yaml",
        "services:\n  aws.greengrass.NucleusLite:\n    configuration:\n",
    );
    machine.setup(&[]).succeeds().prints("service user ggcore:ggcore");
    machine.called("usermod -aG video ggcore\n");
    assert!(!machine.read("root/etc/passwd").contains("ggc_user"));
}

#[test]
fn lite_runs_components_as_its_configured_user() {
    let machine = FakeMachine::new();
    machine.write(
        "root/etc/greengrass/config.d/greengrass-lite.yaml",
        "services:\n  N:\n    configuration:\n      runWithDefault:\n        posixUser: \"edge:staff\"\n",
    );
    machine.setup(&[]).succeeds().prints("service user edge:staff");
}

#[test]
fn the_run_unit_of_lite_names_the_user_that_a_deployment_has_set() {
    let machine = FakeMachine::lite("gg", "edge", "staff");
    lite_config(&machine, "config.yaml", "pi:pi");
    machine.setup(&[]).succeeds().prints("service user edge:staff");
    machine.write_unit("gg", "other", "others");
    machine.setup(&[]).succeeds().prints("service user other:others");
}

#[test]
fn the_run_unit_of_lite_is_found_by_root_path_work_directory_or_socket() {
    const COMPONENT: &str = "EdgeImpulseLinuxRunnerServiceComponent";
    let machine = FakeMachine::new();
    lite_config(&machine, "config.yaml", "pi:pi");
    machine.write_unit("root/var/lib/greengrass", "edge", "staff");
    machine.setup(&[]).succeeds().prints("service user edge:staff");
    machine.write(
        "root/etc/greengrass/config.d/root.yaml",
        "system:\n  rootPath: /data/greengrass\n",
    );
    machine.write_unit("root/data/greengrass", "moved", "moved");
    machine.setup(&[]).succeeds().prints("service user moved:moved");
    machine.write_unit("elsewhere", "socket", "socket");
    let socket = machine.path("elsewhere/gg-ipc.socket");
    let variable = (
        "AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT",
        socket.to_str().unwrap(),
    );
    machine
        .setup_with(&[], &[variable])
        .succeeds()
        .prints("service user socket:socket");
    machine.write_unit("state", "worker", "worker");
    let work_dir = machine.path("state/work").join(COMPONENT);
    fs::create_dir_all(&work_dir).unwrap();
    machine
        .setup_in(&work_dir, &[], &[variable])
        .succeeds()
        .prints("service user worker:worker");
}

#[test]
fn a_user_in_the_run_unit_that_is_no_name_is_a_warning() {
    let machine = FakeMachine::lite("gg", "-o root; id", "x");
    machine
        .setup(&[])
        .succeeds()
        .prints("service user ggcore:ggcore")
        .warns("service is not understood; ggcore:ggcore is used");
}

#[test]
fn lite_is_recognized_by_config_yaml_alone() {
    let machine = FakeMachine::new();
    lite_config(&machine, "config.yaml", "edge:staff");
    machine.setup(&[]).succeeds().prints("service user edge:staff");
    machine.write(
        "root/etc/greengrass/config.yaml",
        "system:\n  rootPath: /var/lib/greengrass\n",
    );
    machine.setup(&[]).succeeds().prints("service user ggcore:ggcore");
}

#[test]
fn lite_reads_config_yaml_then_config_d_by_name_and_the_last_user_counts() {
    let machine = FakeMachine::new();
    lite_config(&machine, "config.yaml", "first:first");
    lite_config(&machine, "config.d/greengrass-lite.yaml", "second:second");
    lite_config(&machine, "config.d/z-mine.yaml", "edge:staff");
    lite_config(&machine, "config.d/a.yaml", "third:third");
    machine.write("root/etc/greengrass/config.d/zz-no-user.yaml", "services: {}\n");
    machine.setup(&[]).succeeds().prints("service user edge:staff");
}

#[test]
fn a_file_that_is_no_yaml_is_a_warning_and_the_others_count() {
    let machine = FakeMachine::new();
    lite_config(&machine, "config.yaml", "edge:staff");
    machine.write("root/etc/greengrass/config.d/broken.yaml", "a: [\n");
    machine
        .setup(&[])
        .succeeds()
        .prints("service user edge:staff")
        .warns("broken.yaml cannot be read");
}

// ------------------------------------------------------------------------------------------- classic

#[test]
fn classic_accepts_numbers_as_the_configured_user() {
    let machine = FakeMachine::classic("gg");
    machine.write(
        "gg/config/effectiveConfig.yaml",
        "configuration:\n  runWithDefault:\n    posixUser: 1000:1000\n",
    );
    machine.append("root/etc/passwd", "pi:x:1000:1000::/home/pi:/bin/sh");
    machine.append("root/etc/group", "pi:x:1000:");
    machine.setup(&[]).succeeds().prints("service user pi:pi");
}

#[test]
fn a_posix_user_that_is_no_name_is_a_warning_and_the_default_is_used() {
    let machine = FakeMachine::classic("gg");
    machine.write(
        "gg/config/effectiveConfig.yaml",
        "runWithDefault:\n  posixUser: \"-o root; id:$(id)\"\n",
    );
    machine
        .setup(&[])
        .succeeds()
        .prints("service user ggc_user:ggc_group")
        .warns("posixUser '-o root; id:$(id)' in ")
        .warns("effectiveConfig.yaml is not understood; ggc_user:ggc_group is used");
}

#[test]
fn a_binary_below_a_classic_root_belongs_to_classic_though_lite_is_installed() {
    let machine = FakeMachine::classic("gg");
    let effective = machine.write(
        "gg/config/effectiveConfig.yaml",
        "runWithDefault:\n  posixUser: \"edge:staff\"\n",
    );
    lite_config(&machine, "config.d/greengrass-lite.yaml", "ggcore:ggcore");
    machine.setup(&[]).succeeds().prints("service user edge:staff");
    // Lite puts artifacts into the same directories, but its root has no such configuration.
    fs::remove_file(effective).unwrap();
    machine.setup(&[]).succeeds().prints("service user ggcore:ggcore");
}

/// As the nucleus writes it, with `run_with` where the component's `runWith` is.
fn effective_config(machine: &FakeMachine, run_with: &str) {
    let text = format!(
        r#"---
services:
  aws.greengrass.Nucleus:
    componentType: "NUCLEUS"
    configuration:
      awsRegion: "eu-west-1"
      runWithDefault:
        posixUser: "ggc_user:ggc_group"
    dependencies: []
    version: "2.12.0"
  AnotherComponent:
    dependencies: []
    lifecycle:
      run:
        script: |-
          cat <<EOF
          runWith:
            posixUser: nobody
          EOF
    runWith:
      posixUser: "another:another"
    version: "1.0.0"
  EdgeImpulseLinuxRunnerServiceComponent:
    componentType: "GENERIC"
    configuration:
      Parameters:
        device_name: "posixUser: cam"
    dependencies:
    - "aws.greengrass.TokenExchangeService:HARD"
    lifecycle:
      Setenv:
        CONFIG_PARAMETERS: "{{configuration:/Parameters}}"
      run:
        Script: "exec \"{{artifacts:path}}/ei-greengrass\" run"
{run_with}    version: "2.0.0"
  main:
    dependencies:
    - "EdgeImpulseLinuxRunnerServiceComponent:HARD"
system:
  rootpath: "/greengrass/v2"
"#
    );
    machine.write("gg/config/effectiveConfig.yaml", text);
}

#[test]
fn the_posix_user_of_the_component_comes_before_the_default_one() {
    let machine = FakeMachine::classic("gg");
    effective_config(&machine, "    runWith:\n      posixUser: \"edge:staff\"\n");
    machine.setup(&[]).succeeds().prints("service user edge:staff");
    effective_config(&machine, "    runWith: {posixUser: \"edge:staff\"}\n");
    machine.setup(&[]).succeeds().prints("service user edge:staff");
    // Without one of its own the default counts, whatever other components have.
    effective_config(&machine, "");
    machine.setup(&[]).succeeds().prints("service user ggc_user:ggc_group");
}

#[test]
fn the_data_collection_has_its_own_posix_user() {
    let machine = FakeMachine::classic_with_data_collection("gg");
    effective_config(&machine, "");
    for line in [
        r#"{"TS":2,"TP":["services","EdgeImpulseLinuxRunnerServiceComponent","runWith","posixUser"],"W":"changed","V":"runner:runner"}"#,
        r#"{"TS":3,"TP":["services","EdgeImpulseLinuxServiceComponent","runWith","posixUser"],"W":"changed","V":"edge:staff"}"#,
    ] {
        machine.append("gg/config/config.tlog", line);
    }
    machine.setup(&[]).succeeds().prints("service user edge:staff");
}

#[test]
fn the_posix_user_of_this_deployment_is_found_before_the_nucleus_writes_effective_config() {
    let machine = FakeMachine::classic("gg");
    effective_config(&machine, "");
    let log = "gg/config/config.tlog";
    for line in [
        r#"{"TS":1,"TP":["services","aws.greengrass.Nucleus","configuration","runWithDefault","posixUser"],"W":"changed","V":"pi:pi"}"#,
        r#"{"TS":2,"TP":["services","EdgeImpulseLinuxRunnerServiceComponent","configuration","Parameters","posixUser"],"W":"changed","V":"a:a"}"#,
        r#"{"TS":2,"TP":["services","EdgeImpulseLinuxRunnerServiceComponent","runWith","posixUser"],"W":"changed","V":"old:old"}"#,
        r#"{"TS":3,"TP":["services","EdgeImpulseLinuxRunnerServiceComponent","runWith","posixUser"],"W":"changed","V":"edge:staff"}"#,
        r#"{"TS":4,"TP":["services","EdgeImpulseLinuxRunnerServiceComponent","runWith","posixUser"],"W":"timestampUpdated","V":null}"#,
        r#"{"TS":5,"TP":["services","AnotherComponent","runWith","posixUser"],"W":"changed","V":"another:another"}"#,
        r#"{"TS":5,"TP":["services","AnotherComponent"],"W":"removed","V":null}"#,
        r#"{"TS":5,"TP":["services","Edge"#,
    ] {
        machine.append(log, line);
    }
    machine.setup(&[]).succeeds().prints("service user edge:staff");
    let removed = |topic: &str| format!(r#"{{"TS":6,"TP":[{topic}],"W":"removed","V":null}}"#);
    machine.append(
        log,
        &removed(r#""services","EdgeImpulseLinuxRunnerServiceComponent","runWith""#),
    );
    machine.setup(&[]).succeeds().prints("service user pi:pi");
    machine.append(
        log,
        &removed(r#""services","aws.greengrass.Nucleus","configuration","runWithDefault""#),
    );
    machine.setup(&[]).succeeds().prints("service user ggc_user:ggc_group");
}
