use std::fs;
use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

const HEADER: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";

/// An empty machine to which a test adds network cards and routes, and a work directory.
struct FakeHost {
    root: TempDir,
    work: TempDir,
}

impl FakeHost {
    fn new() -> Self {
        Self {
            root: TempDir::new().unwrap(),
            work: TempDir::new().unwrap(),
        }
    }

    fn card(self, name: &str, mac: &str, flags: &str, index: u32) -> Self {
        let directory = self.root.path().join("sys/class/net").join(name);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("address"), format!("{mac}\n")).unwrap();
        fs::write(directory.join("flags"), format!("{flags}\n")).unwrap();
        fs::write(directory.join("ifindex"), format!("{index}\n")).unwrap();
        self
    }

    fn physical(self, name: &str) -> Self {
        fs::create_dir_all(self.root.path().join("sys/class/net").join(name).join("device")).unwrap();
        self
    }

    fn without(self, name: &str) -> Self {
        fs::remove_dir_all(self.root.path().join("sys/class/net").join(name)).unwrap();
        self
    }

    fn file(self, name: &str, text: &str) -> Self {
        let directory = self.root.path().join("proc/net");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(name), text).unwrap();
        self
    }

    fn routes(self, lines: &[(&str, u32)]) -> Self {
        let line = |(name, metric): &(&str, u32)| {
            format!(
                "{name}\t00000000\t010200C0\t0003\t0\t0\t{metric}\t00000000\t0\t0\t0\n{name}\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
            )
        };
        let table = format!("{HEADER}{}", lines.iter().map(line).collect::<String>());
        self.file("route", &table)
    }

    fn name(&self, template: &str) -> DeviceName {
        resolve(template, self.work.path(), self.root.path())
    }
}

fn two_cards() -> FakeHost {
    FakeHost::new()
        .card("lo", "00:00:00:00:00:00", "0x9", 1)
        .card("eth0", "A1:b2:c3:d4:e5:f6", "0x1003", 2)
        .card("wlan0", "02:00:00:00:00:01", "0x1003", 3)
}

#[test]
fn the_suffix_is_the_address_of_the_card_of_the_default_route() {
    let machine = two_cards().routes(&[("wlan0", 600), ("eth0", 100)]);
    assert_eq!(
        machine.name("Cam"),
        DeviceName {
            name: "Cam_a1b2c3d4e5f6".into(),
            warnings: vec![]
        }
    );
}

#[test]
fn an_ipv6_default_route_is_used_and_a_reject_route_is_not() {
    let zero = "0".repeat(32);
    let table = format!(
        "{zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200       lo\n\
         {zero} 00 {zero} 00 fe800000000000000000000000000001 00000400 00000002 00000000 00000003    wlan0\n\
         fe80{} 40 {zero} 00 {zero} 00000100 00000002 00000000 00000001     eth0\n",
        "0".repeat(28)
    );
    let machine = two_cards().file("route", HEADER).file("ipv6_route", &table);
    assert_eq!(machine.name("Cam").name, "Cam_020000000001");
}

#[test]
fn without_a_default_route_the_first_card_that_is_up_is_used_physical_ones_first() {
    let machine = two_cards().card("docker0", "02:42:00:00:00:09", "0x1003", 1);
    assert_eq!(machine.name("A").name, "A_024200000009");
    let machine = two_cards()
        .card("docker0", "02:42:00:00:00:09", "0x1003", 1)
        .physical("wlan0");
    assert_eq!(machine.name("A").name, "A_020000000001");
    let machine =
        FakeHost::new()
            .card("eth0", "a1:b2:c3:d4:e5:f6", "0x1002", 2)
            .card("eth1", "a1:b2:c3:d4:e5:f7", "0x1003", 3);
    assert_eq!(machine.name("A").name, "A_a1b2c3d4e5f7");
}

#[test]
fn a_machine_without_cards_gives_no_suffix_and_a_warning() {
    let machine = FakeHost::new().card("lo", "00:00:00:00:00:00", "0x9", 1);
    let device = machine.name("Cam");
    assert_eq!(device.name, "Cam");
    assert_eq!(device.warnings.len(), 1);
    assert!(device.warnings[0].contains("collide"), "{:?}", device.warnings);
    assert!(!machine.work.path().join("Cam").exists());
}

#[test]
fn a_device_that_moves_to_another_card_keeps_its_name() {
    let machine = two_cards().routes(&[("wlan0", 600)]);
    assert_eq!(machine.name("Cam").name, "Cam_020000000001");
    let machine = machine.routes(&[("eth0", 100)]);
    assert_eq!(machine.name("Cam").name, "Cam_020000000001");
    assert_eq!(
        machine.name("Other").name,
        "Other_a1b2c3d4e5f6",
        "an identity belongs to a template"
    );
}

#[test]
fn a_cloned_disk_gets_the_name_of_its_own_card() {
    let machine = two_cards().routes(&[("wlan0", 600)]);
    assert_eq!(machine.name("Cam").name, "Cam_020000000001");
    let machine = machine.without("wlan0").routes(&[("eth0", 100)]);
    assert_eq!(machine.name("Cam").name, "Cam_a1b2c3d4e5f6");
    let machine = machine
        .card("wlan0", "02:00:00:00:00:01", "0x1003", 3)
        .routes(&[("wlan0", 600)]);
    assert_eq!(
        machine.name("Cam").name,
        "Cam_a1b2c3d4e5f6",
        "the new identity is stored"
    );
}

/// A device whose identity is that of `wlan0`, after a start in which no card is there yet.
fn started_without_cards() -> FakeHost {
    let machine = two_cards().routes(&[("wlan0", 600)]);
    assert_eq!(machine.name("Cam").name, "Cam_020000000001");
    machine.without("wlan0").without("eth0").file("route", HEADER)
}

#[test]
fn a_start_without_any_card_keeps_the_name() {
    let machine = started_without_cards();
    let device = machine.name("Cam");
    assert_eq!(device.name, "Cam_020000000001");
    assert_eq!(
        device.warnings,
        ["no network card was found; the device keeps the address 020000000001 of its earlier starts in its name"]
    );
    let peeked = peek("Cam", machine.work.path(), machine.root.path());
    assert_eq!(peeked, device, "`check` and `stop` find the same name");
    // Without a stored identity there is nothing to keep, and nothing is stored.
    assert_eq!(machine.name("Other").name, "Other");
    assert!(!machine.work.path().join("Other").exists());
}

#[test]
fn virtual_interfaces_without_a_default_route_do_not_change_the_name() {
    let machine = started_without_cards().card("docker0", "02:42:00:00:00:09", "0x1003", 1);
    assert_eq!(machine.name("Cam").name, "Cam_020000000001");
    let machine = machine.card("wlan0", "02:00:00:00:00:01", "0x1003", 3);
    assert_eq!(machine.name("Cam").warnings, Vec::<String>::new());
}

#[test]
fn a_clone_gets_its_own_name_also_while_its_card_is_down() {
    let machine = started_without_cards()
        .card("eth9", "06:00:00:00:00:09", "0x1002", 2)
        .physical("eth9");
    assert_eq!(machine.name("Cam").name, "Cam_060000000009");
    // Another card that is down may be the wrong one: the stored one can still appear.
    let machine = machine.card("wlan0", "02:00:00:00:00:01", "0x1003", 3);
    assert_eq!(machine.name("Cam").name, "Cam_020000000001");
    let machine = machine.without("wlan0").card("eth9", "06:00:00:00:00:09", "0x1003", 2);
    assert_eq!(machine.name("Cam").name, "Cam_060000000009");
    let machine = machine.without("eth9");
    assert_eq!(
        machine.name("Cam").name,
        "Cam_060000000009",
        "the new identity was stored"
    );
}

#[test]
fn an_identity_that_cannot_be_read_is_a_warning() {
    let machine = two_cards().routes(&[("eth0", 0)]);
    fs::create_dir_all(machine.work.path().join("Cam/identity")).unwrap();
    let device = machine.name("Cam");
    assert_eq!(device.name, "Cam_a1b2c3d4e5f6");
    assert!(
        device.warnings[0].contains("identity cannot be read (Is a directory"),
        "{:?}",
        device.warnings
    );
}

#[test]
fn the_name_stays_when_its_card_is_down() {
    let machine = two_cards().routes(&[("wlan0", 600)]);
    machine.name("Cam");
    let machine = machine
        .card("wlan0", "02:00:00:00:00:01", "0x1002", 3)
        .routes(&[("eth0", 100)]);
    assert_eq!(machine.name("Cam").name, "Cam_020000000001");
}

#[test]
fn the_identity_is_private_and_nothing_else_is_left_in_the_directory() {
    let machine = two_cards().routes(&[("eth0", 0)]);
    machine.name("My Cam");
    let directory = machine.work.path().join("My_Cam");
    let files: Vec<_> = fs::read_dir(&directory)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(files, ["identity"]);
    assert_eq!(
        fs::metadata(directory.join("identity")).unwrap().permissions().mode() & 0o777,
        0o600
    );
}

#[test]
fn peek_returns_the_same_name_and_writes_nothing() {
    let machine = two_cards().routes(&[("eth0", 0)]);
    let peeked = peek("Cam", machine.work.path(), machine.root.path());
    assert_eq!(fs::read_dir(machine.work.path()).unwrap().count(), 0);
    assert_eq!(peeked, machine.name("Cam"));
    let machine = machine.routes(&[("wlan0", 0)]);
    assert_eq!(
        peek("Cam", machine.work.path(), machine.root.path()),
        peeked,
        "peek reads the stored identity"
    );
}

#[test]
fn a_work_directory_that_cannot_be_written_gives_a_warning_and_the_same_name() {
    let machine = two_cards().routes(&[("eth0", 0)]);
    let file = machine.work.path().join("file");
    fs::write(&file, "").unwrap();
    let device = resolve("Cam", &file, machine.root.path());
    assert_eq!(device.name, "Cam_a1b2c3d4e5f6");
    assert_eq!(device.warnings.len(), 1);
    assert!(
        device.warnings[0].contains("Cam_a1b2c3d4e5f6") && device.warnings[0].contains("identity"),
        "{:?}",
        device.warnings
    );
}

#[test]
fn a_damaged_identity_is_replaced() {
    let machine = two_cards().routes(&[("eth0", 0)]);
    let file = machine.work.path().join("Cam/identity");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    for damage in ["", "../../etc", "zz:zz:zz:zz:zz:zz", "000000000000"] {
        fs::write(&file, damage).unwrap();
        assert_eq!(machine.name("Cam").name, "Cam_a1b2c3d4e5f6", "{damage}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "a1b2c3d4e5f6\n");
    }
}

#[test]
fn a_template_is_cleaned_for_topics() {
    let machine = FakeHost::new();
    for (template, name) in [
        ("My Cam", "My_Cam"),
        ("\"My 'Cam'\"", "My_Cam"),
        ("a/b+c#d\u{7}e\0", "abcde"),
        ("Kamera Süd", "Kamera_Süd"),
        ("../../etc", "....etc"),
    ] {
        assert_eq!(machine.name(template).name, name, "{template:?}");
    }
}

#[test]
fn a_template_without_accepted_characters_becomes_the_default_with_a_warning() {
    let machine = two_cards().routes(&[("eth0", 0)]);
    for template in ["", "  ", "//", "..", ".", "../", "\"\"", "#"] {
        let device = machine.name(template);
        assert_eq!(device.name, "MyEdgeImpulseDevice_a1b2c3d4e5f6", "{template:?}");
        assert_eq!(device.warnings.len(), 1, "{template:?}");
    }
    assert!(!machine.work.path().parent().unwrap().join("identity").exists());
}

#[test]
fn a_long_template_is_cut_between_characters_and_keeps_its_suffix() {
    let machine = two_cards().routes(&[("eth0", 0)]);
    let device = machine.name(&"ü".repeat(100));
    assert_eq!(device.name, format!("{}_a1b2c3d4e5f6", "ü".repeat(57)));
    assert!(device.name.len() <= MAX_NAME_BYTES);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn any_template_gives_a_valid_topic_level_and_directory_name(template in "(?s).{0,200}") {
        let machine = two_cards().routes(&[("eth0", 0)]);
        let name = machine.name(&template).name;
        prop_assert!(name.len() <= 128 && name.ends_with("_a1b2c3d4e5f6"));
        prop_assert!(!name.contains(|c: char| c.is_control() || c.is_whitespace() || "/+#\"'".contains(c)));
        prop_assert_eq!(fs::read_dir(machine.work.path()).unwrap().count(), 1);
    }

    #[test]
    fn any_routing_table_gives_a_name(table in "(?s)[0-9a-f \t\nx]{0,200}") {
        let machine = two_cards().file("route", &table).file("ipv6_route", &table);
        prop_assert!(machine.name("Cam").name.starts_with("Cam_"));
    }
}

#[test]
fn the_id_in_studio_is_the_first_card_with_an_ipv4_address() {
    let machine = two_cards().routes(&[("wlan0", 600)]);
    assert_eq!(studio_id(machine.root.path()).as_deref(), Some("02:00:00:00:00:01"));
    let machine = two_cards().routes(&[("wlan0", 100), ("eth0", 600)]);
    assert_eq!(studio_id(machine.root.path()).as_deref(), Some("a1:b2:c3:d4:e5:f6"));
    let machine = two_cards();
    assert_eq!(studio_id(machine.root.path()).as_deref(), Some("a1:b2:c3:d4:e5:f6"));
    assert_eq!(studio_id(FakeHost::new().root.path()), None);
}
