use super::*;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Child, Command};

const DEVICE: &str = "cam_a1b2c3";

fn base() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn bases(base: &tempfile::TempDir) -> Vec<PathBuf> {
    vec![base.path().to_owned()]
}

/// The directory that a killed daemon leaves behind.
fn orphan(base: &tempfile::TempDir, device: &str, model: Option<ProcessId>, segments: &[&str]) -> PathBuf {
    let mut directory = RuntimeDir::create(&bases(base), device).unwrap();
    // Pid 1 is running, but it has another start time.
    directory.state.owner = Some(ProcessId {
        pid: 1,
        started: u64::MAX,
    });
    directory.state.model = model;
    directory.state.segments = segments.iter().map(|name| (*name).to_owned()).collect();
    directory.save().unwrap();
    fs::write(directory.socket(), "").unwrap();
    let path = directory.path.clone();
    std::mem::forget(directory);
    path
}

/// A process that has `argument` in its command line.
fn sleeper(argument: &Path) -> Child {
    Command::new("/bin/sh")
        .args(["-c", "while :; do sleep 0.05; done", "sh"])
        .arg(argument)
        .spawn()
        .unwrap()
}

fn id(child: &Child) -> ProcessId {
    ProcessId::of(i32::try_from(child.id()).unwrap()).unwrap()
}

#[test]
fn a_directory_is_private_and_its_owner_removes_it() {
    let base = base();
    let directory = RuntimeDir::create(&bases(&base), DEVICE).unwrap();
    let path = directory.path.clone();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(directory.socket().starts_with(&path));
    assert_eq!(
        sweep_in(&bases(&base), DEVICE),
        0,
        "the directory of a running daemon is left alone"
    );
    drop(directory);
    assert!(!path.exists());
}

#[test]
fn the_socket_path_is_short_for_every_device_name() {
    let names = [
        "x".repeat(128),
        "ünï/../{cödé}".to_owned(),
        String::new(),
        "a.b".to_owned(),
    ];
    let prefixes: Vec<String> = names.iter().map(|name| prefix(name)).collect();
    for prefix in &prefixes {
        assert!(
            "/dev/shm/".len() + prefix.len() + 16 + "/model.sock".len() <= MAX_SOCKET_PATH,
            "{prefix}"
        );
        assert!(!prefix.contains('/'));
    }
    assert_ne!(prefix(&"x".repeat(128)), prefix(&"x".repeat(127)));
    assert_ne!(prefix("a.b"), prefix("ab"));
    assert_eq!(prefix("a.b"), prefix("a.b"));
}

#[test]
fn a_base_that_does_not_work_is_skipped() {
    let good = base();
    let long = good.path().join("x".repeat(100));
    fs::create_dir(&long).unwrap();
    let all = [PathBuf::from("/proc/nothing"), long, good.path().to_owned()];
    assert!(RuntimeDir::create(&all, DEVICE).unwrap().path.starts_with(good.path()));
    assert!(
        RuntimeDir::create(&all[..2], DEVICE)
            .unwrap_err()
            .to_string()
            .contains("too long")
    );
}

#[test]
fn leftovers_of_a_killed_daemon_are_removed_with_the_model_and_its_memory() {
    let base = base();
    let mut segment = shm::OwnedSegment::new(4).unwrap();
    let path = orphan(&base, DEVICE, None, &[segment.name(), "/../etc/passwd"]);
    let mut child = sleeper(&path.join(SOCKET));
    fs::remove_dir_all(&path).unwrap();
    let path = orphan_at(&path, Some(id(&child)), &[segment.name()]);
    assert_eq!(sweep_in(&bases(&base), DEVICE), 1);
    assert!(!path.exists());
    assert!(!Path::new("/dev/shm").join(&segment.name()[1..]).exists());
    use std::os::unix::process::ExitStatusExt;
    assert!(child.wait().unwrap().signal().is_some());
    segment.unlink();
}

fn orphan_at(path: &Path, model: Option<ProcessId>, segments: &[&str]) -> PathBuf {
    fs::create_dir(path).unwrap();
    let state = RuntimeDirState {
        owner: None,
        model,
        segments: segments.iter().map(|name| (*name).to_owned()).collect(),
    };
    fs::write(path.join(STATE_FILE), serde_json::to_vec(&state).unwrap()).unwrap();
    path.to_owned()
}

#[test]
fn another_process_with_the_same_pid_is_left_alone() {
    let base = base();
    // Started on another socket.
    let mut other = sleeper(Path::new("/somewhere/else.sock"));
    orphan(&base, DEVICE, Some(id(&other)), &[]);
    assert_eq!(sweep_in(&bases(&base), DEVICE), 1);
    assert!(other.try_wait().unwrap().is_none());
    // The right socket, but started at another time.
    let path = base.path().join(format!("{}{:016x}", prefix(DEVICE), 7));
    let mut later = sleeper(&path.join(SOCKET));
    orphan_at(
        &path,
        Some(ProcessId {
            started: 1,
            ..id(&later)
        }),
        &[],
    );
    assert_eq!(sweep_in(&bases(&base), DEVICE), 1);
    assert!(later.try_wait().unwrap().is_none());
    for child in [&mut other, &mut later] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn a_sweep_touches_nothing_else() {
    let base = base();
    let other_device = orphan(&base, "other", None, &[]);
    let longer_name = orphan(&base, "cam_a1b2c3d4", None, &[]);
    let other_user = base.path().join(format!("ei-greengrass.4242.{DEVICE}.{:016x}", 1));
    fs::create_dir(&other_user).unwrap();
    let outside = base.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("precious"), "").unwrap();
    let link = base.path().join(format!("{}{:016x}", prefix(DEVICE), 2));
    symlink(&outside, &link).unwrap();
    assert_eq!(sweep_in(&bases(&base), DEVICE), 0);
    for path in [
        &other_device,
        &longer_name,
        &other_user,
        &link,
        &outside.join("precious"),
    ] {
        assert!(path.exists(), "{}", path.display());
    }
}

#[test]
fn a_link_in_place_of_the_state_file_is_not_followed() {
    let base = base();
    let path = orphan(&base, DEVICE, None, &[]);
    let outside = base.path().join("outside.json");
    let segment = shm::OwnedSegment::new(1).unwrap();
    let state = RuntimeDirState {
        owner: None,
        model: None,
        segments: vec![segment.name().to_owned()],
    };
    fs::write(&outside, serde_json::to_vec(&state).unwrap()).unwrap();
    fs::remove_file(path.join(STATE_FILE)).unwrap();
    symlink(&outside, path.join(STATE_FILE)).unwrap();
    assert_eq!(sweep_in(&bases(&base), DEVICE), 1);
    assert!(outside.exists());
    assert!(Path::new("/dev/shm").join(&segment.name()[1..]).exists());
}
