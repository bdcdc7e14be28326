//! The link in `ei_bindir`, and the lingering session on Ubuntu.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::fake_machine::FakeMachine;

const LINK: &str = "root/usr/local/bin/ei-greengrass";

#[test]
fn the_binary_is_linked_and_an_old_link_of_the_component_is_replaced() {
    let machine = FakeMachine::new();
    machine.setup(&[]).succeeds();
    let link = machine.path(LINK);
    assert_eq!(fs::read_link(&link).unwrap(), machine.binary());
    fs::remove_file(&link).unwrap();
    let old = "/greengrass/v2/packages/artifacts/EdgeImpulseLinuxRunnerServiceComponent/1.9.0/ei-greengrass";
    symlink(old, &link).unwrap();
    machine.setup(&[]).succeeds();
    assert_eq!(fs::read_link(&link).unwrap(), machine.binary());
    let names = fs::read_dir(link.parent().unwrap()).unwrap().count();
    assert_eq!(names, 1, "nothing temporary is left");
}

#[test]
fn a_foreign_file_or_link_in_place_of_the_link_is_left_alone() {
    let machine = FakeMachine::new();
    let link = machine.write(LINK, "mine");
    machine.setup(&[]).succeeds().warns("left alone");
    assert_eq!(machine.read(LINK), "mine");
    fs::remove_file(&link).unwrap();
    symlink("/opt/other", &link).unwrap();
    machine.setup(&[]).succeeds().warns("left alone");
    assert_eq!(fs::read_link(&link).unwrap(), Path::new("/opt/other"));
}

#[test]
fn white_space_in_the_root_of_greengrass_and_in_ei_bindir_is_kept() {
    let mut machine = FakeMachine::classic("my green grass");
    machine.write(
        "my green grass/config/effectiveConfig.yaml",
        "runWithDefault:\n  posixUser: \"edge:staff\"\n",
    );
    machine.configure("ei_bindir", "/opt/my tools");
    machine.setup(&[]).succeeds().prints("service user edge:staff");
    let link = machine.path("root/opt/my tools/ei-greengrass");
    assert_eq!(fs::read_link(link).unwrap(), machine.binary());
}

/// A machine with systemd, and the names of its units for the removal of the component.
fn machine_with_systemd() -> (FakeMachine, [String; 2]) {
    let machine = FakeMachine::classic("my $gg 100%");
    fs::create_dir_all(machine.path("root/run/systemd/system")).unwrap();
    machine.fake(
        "systemctl",
        r#"case "$*" in
        restart*) touch "$machine/active" ;;
        is-active*) [ -e "$machine/active" ] ;;
        esac"#,
    );
    let units = ["path", "service"].map(|kind| format!("root/etc/systemd/system/ei-greengrass-removal.{kind}"));
    (machine, units)
}

#[test]
fn a_path_unit_watches_the_binary_so_that_the_link_goes_with_the_component() {
    let (machine, [path_unit, service_unit]) = machine_with_systemd();
    machine
        .setup(&[])
        .succeeds()
        .prints("done: /etc/systemd/system/ei-greengrass-removal.path started");
    for call in [
        "daemon-reload",
        "enable ei-greengrass-removal.path",
        "restart ei-greengrass-removal.path",
    ] {
        machine.called(&format!("systemctl {call}\n"));
    }
    let binary = machine.binary().to_str().unwrap().replace('%', "%%");
    let (path_unit, service_unit) = (machine.read(&path_unit), machine.read(&service_unit));
    assert!(path_unit.contains(&format!("\nPathChanged={binary}\n")), "{path_unit}");
    assert!(
        service_unit.contains(&format!("\nConditionPathExists=!{binary}\n")),
        "{service_unit}"
    );
    machine
        .setup(&[])
        .succeeds()
        .prints("ei-greengrass-removal.path: up to date");
    machine.not_called(&["systemctl restart", "systemctl enable"]);
}

/// The command of the service, as systemd runs it.
fn exec_start(service_unit: &str) -> Vec<String> {
    let line = service_unit
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart=/bin/sh "))
        .unwrap();
    let mut words: Vec<String> = vec![line.split_once(' ').unwrap().0.to_owned()];
    let quoted = line.split_once(' ').unwrap().1;
    let mut word = String::new();
    let mut characters = quoted.chars();
    let mut is_open = false;
    while let Some(character) = characters.next() {
        match character {
            '"' if is_open => words.push(std::mem::take(&mut word)),
            '"' | ' ' if !is_open || character == '"' => {}
            '\\' => word.extend(characters.next()),
            other => word.push(other),
        }
        if character == '"' {
            is_open = !is_open;
        }
    }
    words
        .iter()
        .map(|word| word.replace("$$", "$").replace("%%", "%"))
        .collect()
}

#[test]
fn the_service_removes_the_link_with_its_files_and_its_own_units_but_no_other_link() {
    let (machine, units) = machine_with_systemd();
    let link = machine.path(LINK);
    let (page, foreign) = (
        machine.path("root/usr/local/share/man/man1/ei-greengrass.1"),
        machine.path("root/usr/local/share/zsh/site-functions/_ei-greengrass"),
    );
    for (target, is_kept) in [(machine.binary(), false), ("/opt/other".into(), true)] {
        let _ = fs::remove_file(&link);
        machine.setup(&[]).succeeds();
        let mut arguments = exec_start(&machine.read(&units[1]));
        *arguments.last_mut().unwrap() = machine.path("root/etc/systemd/system").display().to_string();
        fs::remove_file(&link).unwrap();
        symlink(target, &link).unwrap();
        assert!(page.exists());
        fs::write(&foreign, "mine").unwrap();
        let run = std::process::Command::new("/bin/sh")
            .args(&arguments)
            .env("PATH", machine.path("bin"))
            .output();
        let run = run.unwrap();
        assert!(run.status.success() && run.stderr.is_empty(), "{arguments:?} {run:?}");
        assert_eq!(link.symlink_metadata().is_ok(), is_kept, "{arguments:?}");
        assert_eq!(page.exists(), is_kept, "the man page goes with the link");
        assert!(foreign.exists(), "a file of somebody else is kept");
        fs::remove_file(&foreign).unwrap();
        for unit in &units {
            assert!(!machine.path(unit).exists(), "{unit}");
        }
        machine.called("systemctl --no-block stop ei-greengrass-removal.path\n");
    }
}

#[test]
fn the_user_lingers_on_ubuntu_with_pipewire() {
    let machine = FakeMachine::new();
    machine.write("root/etc/os-release", "NAME=x\nID=\"ubuntu\"\nID_LIKE=debian\n");
    machine.fake("pipewire", "");
    machine.fake(
        "loginctl",
        r#"mkdir -p "$machine/root/var/lib/systemd/linger" && touch "$machine/root/var/lib/systemd/linger/$2""#,
    );
    machine.setup(&[]).succeeds();
    machine.called("timeout -k 30 60 loginctl enable-linger ggc_user\n");
    machine.setup(&[]).succeeds();
    machine.not_called(&["loginctl "]);
}

#[test]
fn ubuntu_with_pipewire_but_without_loginctl_is_a_warning() {
    let machine = FakeMachine::new();
    machine.write("root/etc/os-release", "ID=ubuntu\nID_LIKE=debian\n");
    machine.fake("pipewire", "");
    machine.setup(&[]).succeeds().warns("loginctl is missing");
}
