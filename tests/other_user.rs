//! A component whose files belong to another user: after a change of `posixUser`, or after a run as root by hand. And other users who
//! may write to its work directory.
//!
//! Only root can run a program as another user. Without root these tests do nothing.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use rustix::process::geteuid;
use serde_json::Value;

use crate::support::broker::{Behaviour, MockBroker};
use crate::support::daemon::{Daemon, LIMIT, Site};
use crate::support::ports::free_port;
use crate::support::scripts::{boxed, cycle, frames};

/// Users without an account.
const OLD: u32 = 52_001;
const NEW: u32 = 52_002;

/// Gives everything below a path, and the path, to a user.
fn give(path: &Path, uid: u32) {
    lchown(path, Some(uid), Some(uid)).unwrap();
    if path.symlink_metadata().unwrap().is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            give(&entry.unwrap().path(), uid);
        }
    }
}

/// Runs the component on so many frames, all of them published.
fn run(site: &Site, uid: u32, broker: &str, count: u32, more: &[&str]) -> Daemon {
    let model = site.scripted_model(&cycle(&[boxed(0.9)]));
    for name in [model.clone(), PathBuf::from(format!("{}.json", model.display()))] {
        give(&name, uid);
    }
    let mut command = site.command("run");
    command.args(["--mqtt", broker, "--unthrottled", "--model", model.to_str().unwrap()]);
    command.args(["--gst", &frames(count)]);
    for set in [
        "ei_shutdown_behavior=wait_for_restart",
        "iotcore_backoff=1",
        "metrics_sleeptime_ms=200",
    ]
    .iter()
    .chain(more)
    {
        command.args(["--set", set]);
    }
    command.env("HOME", site.path()).uid(uid).gid(uid);
    Daemon::start(command)
}

/// Runs offline until the source ends, and stops. Returns how many messages wait on disk, and the log.
#[track_caller]
fn run_offline(site: &Site, uid: u32) -> (usize, String) {
    let offline = run(site, uid, &format!("mqtt://127.0.0.1:{}", free_port()), 20, &[]);
    offline.wait_for_line("The source ended");
    let log = offline.stop();
    let line = log
        .lines()
        .find(|line| line.contains("Undelivered messages wait on disk for the next start"));
    let count = line.and_then(|line| line.rsplit_once("messages=")?.1.trim().parse().ok());
    assert!(!log.contains("are lost"), "{log}");
    (count.unwrap_or_else(|| panic!("no message is on disk: {log}")), log)
}

/// A site on which the earlier user has left undelivered messages: the directory of the device, and the number of messages.
fn site_of_old_user() -> Option<(Site, PathBuf, usize)> {
    if !geteuid().is_root() {
        return None;
    }
    let site = Site::new();
    give(site.path(), OLD);
    let (messages, _) = run_offline(&site, OLD);
    let device = device_dirs(&site).pop().unwrap();
    // The nucleus gives a new user only the top.
    lchown(site.path(), Some(NEW), Some(NEW)).unwrap();
    Some((site, device, messages))
}

/// Directories with the spool, those that were set aside too.
fn device_dirs(site: &Site) -> Vec<PathBuf> {
    let entries = fs::read_dir(site.path()).unwrap().flatten();
    let mut found: Vec<_> = entries
        .map(|entry| entry.path())
        .filter(|path| path.join("spool.redb").exists())
        .collect();
    found.sort();
    found
}

/// Waits for so many different inferences. Returns how often one came twice.
async fn repeated_of(broker: &MockBroker, count: usize) -> usize {
    let inferences = |log: &[crate::support::broker::Entry]| -> Vec<String> {
        let published = log.iter().filter_map(|entry| entry.published());
        published
            .filter(|publish| publish.topic.ends_with("inference/output"))
            .map(|publish| String::from_utf8_lossy(&publish.payload).into_owned())
            .collect()
    };
    broker
        .wait_for(&format!("{count} inferences"), LIMIT, |log| {
            inferences(log).iter().collect::<HashSet<_>>().len() >= count
        })
        .await;
    inferences(&broker.log()).len() - count
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_an_earlier_user_wait_and_are_delivered_once_when_they_can_be_read() {
    let Some((site, device, old)) = site_of_old_user() else {
        return;
    };
    let (new, log) = run_offline(&site, NEW);
    assert!(
        log.contains("ERROR") && log.contains("The directory of the device belongs to another user"),
        "{log}"
    );
    assert_eq!(device_dirs(&site).len(), 2);
    assert_eq!(device.metadata().unwrap().uid(), NEW);

    // The next start cannot read them either.
    let broker = MockBroker::start(Behaviour::default()).await;
    let online = run(&site, NEW, &broker.url(), 1, &[]);
    assert_eq!(repeated_of(&broker, new + 1).await, 0);
    broker
        .wait_for("the problem in the metrics", LIMIT, |log| {
            let mut published = log.iter().filter_map(|entry| entry.published());
            published.any(|publish| {
                let metrics: Value = serde_json::from_slice(&publish.payload).unwrap_or_default();
                let problems = metrics["runner"]["problems"].to_string();
                problems.contains("spool: messages of another user wait in ")
            })
        })
        .await;
    online.stop();

    // The install step.
    give(site.path(), NEW);
    let last = run(&site, NEW, &broker.url(), 1, &[]);
    assert_eq!(repeated_of(&broker, old + new + 2).await, 0);
    let log = last.stop();
    assert!(
        log.contains("The messages in a spool of another user are delivered now"),
        "{log}"
    );
    assert_eq!(device_dirs(&site), [] as [PathBuf; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn single_files_of_root_in_the_directory_of_the_device_do_not_stop_the_component() {
    let Some((site, device, old)) = site_of_old_user() else {
        return;
    };
    give(site.path(), NEW);
    for (file, uid) in [("spool.redb", 0), ("iot-endpoint.json", 0), ("preview_token", 0)] {
        let path = device.join(file);
        if !path.exists() {
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        lchown(&path, Some(uid), Some(uid)).unwrap();
    }
    let totals = device.join("events.json");
    fs::write(
        &totals,
        r#"{"format":1,"open":[],"unsettled":[],"counts":{"since_ts":5,"rules":{"seen":41},"lines":{}}}"#,
    )
    .unwrap();
    fs::set_permissions(&totals, fs::Permissions::from_mode(0o600)).unwrap();
    lchown(&totals, Some(0), Some(0)).unwrap();
    let (new, log) = run_offline(&site, NEW);
    assert!(
        log.contains("The totals of events belong to another user and were renamed"),
        "{log}"
    );
    assert!(
        log.contains("The spool belongs to another user and was renamed"),
        "{log}"
    );
    give(site.path(), NEW);
    let token = device.join("preview_token");
    lchown(&token, Some(0), Some(0)).unwrap();
    let broker = MockBroker::start(Behaviour::default()).await;
    let port = format!("preview_port={}", free_port());
    let preview = ["preview=on", "preview_host=127.0.0.1", &port];
    let last = run(&site, NEW, &broker.url(), 1, &preview);
    last.wait_for_line("Requests to the live page that change settings need the token in this file");
    assert_eq!(token.metadata().unwrap().uid(), NEW);
    let kept: Value = serde_json::from_slice(&fs::read(&totals).unwrap()).unwrap();
    assert_eq!(kept["counts"]["rules"]["seen"], 41);
    assert_eq!(repeated_of(&broker, old + new + 1).await, 0);
    last.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_work_directory_that_cannot_be_written_is_reported_and_messages_are_kept_in_memory() {
    let Some((site, device, _)) = site_of_old_user() else {
        return;
    };
    lchown(site.path(), Some(OLD), Some(OLD)).unwrap();
    fs::set_permissions(site.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let broker = MockBroker::start(Behaviour::default()).await;
    let lock = tempfile::tempdir().unwrap();
    give(lock.path(), NEW);
    let lock_filename = format!("lock_filename={}", lock.path().join("lock").display());
    let online = run(&site, NEW, &broker.url(), 1, &[&lock_filename]);
    assert_eq!(repeated_of(&broker, 1).await, 0);
    let log = online.log();
    assert!(log.contains("undelivered messages are kept in memory only"), "{log}");
    online.stop();
    assert_eq!(device.metadata().unwrap().uid(), OLD);
    assert!(device.join("spool.redb").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn models_of_another_user_are_copied_if_they_can_be_read() {
    let Some((site, _, _)) = site_of_old_user() else {
        return;
    };
    for (version, mode) in [("p/v1", 0o644), ("p/v2", 0o600)] {
        let directory = site.path().join("models").join(version);
        fs::create_dir_all(&directory).unwrap();
        for name in ["model.eim", "about.json"] {
            fs::write(directory.join(name), version).unwrap();
            fs::set_permissions(directory.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
    }
    lchown(site.path(), Some(NEW), Some(NEW)).unwrap();
    let broker = MockBroker::start(Behaviour::default()).await;
    let first = run(&site, NEW, &broker.url(), 1, &[]);
    first.wait_for_line("A directory of models belongs to another user and was renamed");
    first.wait_for_line("The source ended");
    first.stop();
    let model = |version: &str| fs::read_to_string(site.path().join("models").join(version).join("model.eim"));
    assert_eq!(model("p/v1").unwrap(), "p/v1");
    assert!(model("p/v2").is_err());
    give(site.path(), NEW);
    let second = run(&site, NEW, &broker.url(), 1, &[]);
    second.wait_for_line("The source ended");
    second.stop();
    assert_eq!(model("p/v2").unwrap(), "p/v2");
    assert!(!site.path().join("models.of-uid-0").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_file_that_another_user_left_behind_does_not_stop_the_component() {
    let Some((site, _, _)) = site_of_old_user() else {
        return;
    };
    give(site.path(), NEW);
    // As in /tmp: others cannot remove the file.
    fs::set_permissions(site.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    lchown(site.path(), Some(0), Some(0)).unwrap();
    let broker = MockBroker::start(Behaviour::default()).await;
    let name = format!("{}-other", site.device());
    let set = format!("device_name={name}");
    let first = run(&site, OLD, &broker.url(), 1, &[&set]);
    first.wait_for_line("The source ended");
    let path_of = |suffix: &str| {
        let entries = fs::read_dir(site.path()).unwrap().flatten();
        let mut locks = entries.map(|entry| entry.path());
        locks.find(|path| {
            let file = path.file_name().unwrap().to_string_lossy();
            file.starts_with(&format!("lock_{name}")) && file.ends_with(suffix)
        })
    };
    let usual = path_of("").unwrap();
    let mut second = run(&site, NEW, &broker.url(), 1, &[&set]);
    let (status, _) = second.wait_for_end(LIMIT);
    assert_eq!(status.code(), Some(3), "{}", second.log());
    assert!(
        second.log().contains(&format!("(pid {}, lock file", first.pid())),
        "{}",
        second.log()
    );

    first.signal(rustix::process::Signal::KILL);
    drop(first);
    let mut third = run(&site, NEW, &broker.url(), 1, &[&set]);
    third.wait_for_line("The lock file was left behind by a process of another user");
    third.wait_for_line("The source ended");
    let own = path_of(&format!(".{NEW}")).unwrap();
    assert!(usual.exists() && own.exists());
    let mut stop = site.command("stop");
    stop.args(["--set", &set]);
    let output = stop.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(output.stdout.starts_with(b"stopped"), "{output:?}");
    assert_eq!(third.wait_for_end(LIMIT).0.code(), Some(0));
    assert!(!own.exists());
}

/// A work directory of the new user in which everybody may write, after a first run. Also the directory of the device.
fn open_site() -> Option<(Site, PathBuf)> {
    if !geteuid().is_root() {
        return None;
    }
    let site = Site::new();
    give(site.path(), NEW);
    fs::set_permissions(site.path(), fs::Permissions::from_mode(0o777)).unwrap();
    run_offline(&site, NEW);
    let device = device_dirs(&site).pop().unwrap();
    Some((site, device))
}

fn plant(path: &Path, content: &str) {
    let _ = fs::remove_file(path);
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    lchown(path, Some(OLD), Some(OLD)).unwrap();
}

fn mode(path: &Path) -> u32 {
    path.symlink_metadata().unwrap().permissions().mode() & 0o7777
}

/// Everything below a path.
fn below(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| {
            let further = path.symlink_metadata().unwrap().is_dir().then(|| below(&path));
            further.into_iter().flatten().chain([path])
        })
        .collect()
}

/// Runs with the live page until it is served. Returns the daemon and the port.
fn run_with_page(site: &Site) -> (Daemon, u16) {
    let port = free_port();
    let preview = ["preview=on", "preview_host=127.0.0.1", &format!("preview_port={port}")];
    let daemon = run(site, NEW, &format!("mqtt://127.0.0.1:{}", free_port()), 5, &preview);
    daemon.wait_for_line("Listening server=\"live page\"");
    daemon.wait_for_line("The source ended");
    (daemon, port)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_another_user_has_planted_is_not_accepted() {
    let Some((site, device)) = open_site() else {
        return;
    };
    let planted = "0123456789abcdef0123456789abcdef";
    for file in ["preview_token", "iot-endpoint.json", "events.json"] {
        plant(&device.join(file), planted);
    }
    fs::set_permissions(&device, fs::Permissions::from_mode(0o777)).unwrap();
    let (daemon, port) = run_with_page(&site);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let change = |token: String| {
        let request = client.post(format!("http://127.0.0.1:{port}/api/events")).body("none");
        request.header("x-forwarded-for", "192.0.2.1").bearer_auth(token).send()
    };
    assert_eq!(change(planted.to_owned()).await.unwrap().status(), 403);
    let token = device.join("preview_token");
    let own = fs::read_to_string(&token).unwrap().trim().to_owned();
    assert_eq!(change(own).await.unwrap().status(), 200);
    assert_eq!(
        (token.metadata().unwrap().uid(), mode(&token), mode(&device)),
        (NEW, 0o600, 0o700)
    );
    let log = daemon.stop();
    let told = log
        .lines()
        .filter(|line| line.contains("is not trusted and was renamed"));
    let told: Vec<_> = told.filter(|line| line.contains(&format!("uid {OLD}"))).collect();
    assert_eq!(told.len(), 3, "{log}");
    let kept = device.join(format!("preview_token.of-uid-{OLD}"));
    assert_eq!(fs::read_to_string(kept).unwrap(), planted);
}

#[tokio::test(flavor = "multi_thread")]
async fn links_in_the_work_directory_are_not_followed() {
    let Some((site, device)) = open_site() else {
        return;
    };
    let elsewhere = tempfile::tempdir().unwrap();
    give(elsewhere.path(), NEW);
    let identity = site.path().join(site.device());
    for (path, name) in [
        (&device, "device"),
        (&identity, "identity"),
        (&site.path().join("models"), "models"),
    ] {
        let target = elsewhere.path().join(name);
        fs::create_dir(&target).unwrap();
        fs::set_permissions(&target, fs::Permissions::from_mode(0o777)).unwrap();
        give(&target, NEW);
        if path.exists() {
            fs::remove_dir_all(path).unwrap();
        }
        std::os::unix::fs::symlink(&target, path).unwrap();
        lchown(path, Some(OLD), Some(OLD)).unwrap();
    }
    let (daemon, _) = run_with_page(&site);
    let log = daemon.stop();
    assert!(log.contains("symbolic link"), "{log}");
    for name in ["device", "identity", "models"] {
        let target = elsewhere.path().join(name);
        assert_eq!(below(&target), [] as [PathBuf; 0], "{log}");
        assert_eq!(mode(&target), 0o777, "nothing is changed there");
    }
    assert!(device.symlink_metadata().unwrap().is_dir() && device.join("preview_token").exists());
    assert!(identity.join("identity").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn hard_links_and_pipes_of_other_users_are_not_used() {
    let Some((site, device)) = open_site() else {
        return;
    };
    let secret = site.write("secret", "fedcba9876543210fedcba9876543210");
    give(&secret, NEW);
    let token = device.join("preview_token");
    fs::hard_link(&secret, &token).unwrap();
    for pipe in [
        device.join("iot-endpoint.json"),
        site.path().join(site.device()).join("identity"),
    ] {
        let _ = fs::remove_file(&pipe);
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o666),
            0,
        )
        .unwrap();
        lchown(&pipe, Some(OLD), Some(OLD)).unwrap();
    }
    let (daemon, _) = run_with_page(&site);
    let log = daemon.stop();
    for reason in ["a hard link", "it is a pipe"] {
        assert!(log.contains(reason), "{log}");
    }
    assert_ne!(fs::read(&token).unwrap(), fs::read(&secret).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_can_be_written_by_others_whatever_the_umask_is() {
    if !geteuid().is_root() {
        return;
    }
    let site = Site::new();
    give(site.path(), NEW);
    let model = site.scripted_model(&cycle(&[boxed(0.9)]));
    for name in [model.clone(), PathBuf::from(format!("{}.json", model.display()))] {
        give(&name, NEW);
    }
    let before: HashSet<_> = below(site.path()).into_iter().collect();
    let mut inner = site.command("run");
    let (port, cache) = (free_port(), site.path().join("cache"));
    inner.args(["--mqtt", &format!("mqtt://127.0.0.1:{}", free_port()), "--unthrottled"]);
    inner.args(["--model", model.to_str().unwrap(), "--gst", &frames(20)]);
    for set in [
        "ei_shutdown_behavior=wait_for_restart".to_owned(),
        "iotcore_backoff=1".to_owned(),
        "preview=on".to_owned(),
        format!("preview_port={port}"),
        format!("cache_file_directory={}", cache.display()),
        "enable_cache_to_file=yes".to_owned(),
    ] {
        inner.args(["--set", &set]);
    }
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "umask 0; exec \"$0\" \"$@\""]);
    command.arg(inner.get_program()).args(inner.get_args());
    // GStreamer makes its own directory for the list of its plugins.
    let home = tempfile::tempdir().unwrap();
    give(home.path(), NEW);
    command
        .current_dir(site.path())
        .env("HOME", home.path())
        .uid(NEW)
        .gid(NEW);
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let daemon = Daemon::start(command);
    daemon.wait_for_line("Listening server=\"live page\"");
    daemon.wait_for_line("The source ended");
    let check = || {
        let created = below(site.path()).into_iter().filter(|path| !before.contains(path));
        let mut count = 0;
        for path in created {
            let expected = if path.is_dir() { 0o700 } else { 0o600 };
            assert_eq!(mode(&path), expected, "{}", path.display());
            count += 1;
        }
        count
    };
    assert!(check() > 3);
    daemon.stop();
    assert!(check() > 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_file_that_another_user_locks_does_not_prevent_the_start() {
    if !geteuid().is_root() {
        return;
    }
    let site = Site::new();
    give(site.path(), NEW);
    fs::set_permissions(site.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    lchown(site.path(), Some(0), Some(0)).unwrap();
    let broker = MockBroker::start(Behaviour::default()).await;
    // The name of the lock file has the suffix of the device.
    let first = run(&site, NEW, &broker.url(), 1, &[]);
    first.wait_for_line("The source ended");
    let lock_of = |suffix: &str| {
        let entries = fs::read_dir(site.path()).unwrap().flatten();
        let mut paths = entries.map(|entry| entry.path());
        paths.find(|path| {
            let name = path.file_name().unwrap().to_string_lossy();
            name.starts_with("lock_") && name.ends_with(suffix)
        })
    };
    let lock = lock_of("").unwrap();
    first.stop();
    for mode in [0o600, 0o666] {
        plant(&lock, "1\n");
        fs::set_permissions(&lock, fs::Permissions::from_mode(mode)).unwrap();
        let mut command = std::process::Command::new("flock");
        command
            .arg("-F")
            .arg(&lock)
            .args(["sh", "-c", "echo locked; exec sleep 60"]);
        command.uid(OLD).gid(OLD);
        let holder = Daemon::start(command);
        holder.wait_for_line("locked");
        let second = run(&site, NEW, &broker.url(), 1, &[]);
        let line = second.wait_for_line("The lock file was left behind by a process of another user");
        assert!(line.contains(&format!("of uid {OLD}")), "{line}");
        second.wait_for_line("The source ended");
        assert!(lock_of(&format!(".{NEW}")).is_some());
        second.stop();
        drop(holder);
    }
}
