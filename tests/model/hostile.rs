//! Models that do what a model has no reason to do, in their sandbox.

use std::net::{TcpListener, UdpSocket};

use super::*;
use crate::support::log::log_of;

/// What a model tries, and on what.
type Attempt<'a> = (&'a str, String);

const REFUSED: [&str; 2] = ["errno 1", "errno 13"];

/// The outcomes of these attempts in a sandbox; the model is in a directory of its own.
fn outcomes(sandbox: Sandbox, attempts: &[Attempt]) -> Vec<String> {
    let answers: Vec<Value> = attempts
        .iter()
        .map(|(what, on)| json!({ "attempt": what, "on": on }))
        .collect();
    let mut bench = Bench::new(json!({}));
    // It must not record its requests, which a sandbox refuses.
    fs::write(
        bench.dir.path().join("model.eim.json"),
        json!({ "answers": answers }).to_string(),
    )
    .unwrap();
    bench.settings.sandbox = sandbox;
    let mut model = bench.start().unwrap();
    assert!(model.uses_shared_memory());
    model.features();
    let outcome = |_| model.classify(16).unwrap().classification.unwrap()[0].0.clone();
    attempts.iter().map(outcome).collect()
}

#[track_caller]
fn assert_all(outcomes: &[String], attempts: &[Attempt], is_expected: impl Fn(&str) -> bool) {
    for (outcome, (what, on)) in outcomes.iter().zip(attempts) {
        assert!(is_expected(outcome), "{what} {on}: {outcome}");
    }
}

/// Files that the sandbox hides, and everything that a model can try on them.
fn files(dir: &Path) -> Vec<Attempt<'static>> {
    let secret = dir.join("spool.redb");
    fs::write(&secret, "undelivered").unwrap();
    fs::create_dir(dir.join("device")).unwrap();
    let at = |path: &Path| path.display().to_string();
    vec![
        ("read", at(&secret)),
        ("list", at(dir)),
        ("write", at(&secret)),
        ("write", at(&dir.join("new"))),
        ("make directory", at(&dir.join("newer"))),
        ("truncate", at(&secret)),
        ("change mode", at(&secret)),
        ("rename", at(&secret)),
        ("remove", at(&dir.join("spool.redb.renamed"))),
    ]
}

#[test]
fn a_model_reads_and_changes_no_file_of_others_unless_the_sandbox_is_off() {
    let dir = tempfile::tempdir().unwrap();
    let attempts = files(dir.path());
    let refused = outcomes(sandbox(SandboxMode::Auto, &[]), &attempts);
    // What it tries last would not be there, had it succeeded before.
    assert_all(&refused[..8], &attempts[..8], |outcome| REFUSED.contains(&outcome));
    assert_eq!(fs::read(dir.path().join("spool.redb")).unwrap(), b"undelivered");
    let done = outcomes(sandbox(SandboxMode::Off, &[]), &attempts);
    assert_all(&done, &attempts, |outcome| outcome == "done");
}

#[test]
fn an_allowed_path_can_be_used_and_nothing_beside_it() {
    let (allowed, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut attempts = files(allowed.path());
    attempts.retain(|(what, _)| *what != "change mode");
    let done = outcomes(sandbox(SandboxMode::Auto, &[allowed.path()]), &attempts);
    assert_all(&done, &attempts, |outcome| outcome == "done");
    let attempts = files(other.path());
    let refused = outcomes(sandbox(SandboxMode::Auto, &[allowed.path()]), &attempts);
    assert_all(&refused[..8], &attempts[..8], |outcome| REFUSED.contains(&outcome));
}

#[test]
fn a_model_does_not_see_work_dir_even_below_a_directory_of_the_system() {
    // As a root of Greengrass in /opt.
    let root = tempfile::Builder::new().prefix("ei-test-").tempdir_in("/opt").unwrap();
    let work_dir = root.path().join("work");
    fs::create_dir(&work_dir).unwrap();
    let [secret, library] = [work_dir.join("identity"), root.path().join("library")];
    for file in [&secret, &library] {
        fs::write(file, "content").unwrap();
    }
    let script = [&secret, &library].map(|path| json!({ "attempt": "read", "on": path }));
    let mut bench = Bench::new(json!({}));
    fs::write(
        bench.dir.path().join("model.eim.json"),
        json!({ "answers": script }).to_string(),
    )
    .unwrap();
    bench.settings.sandbox = sandbox(SandboxMode::Auto, &[]);
    bench.settings.work_dir = work_dir;
    let mut model = bench.start().unwrap();
    model.features();
    let mut outcome = || model.classify(16).unwrap().classification.unwrap()[0].0.clone();
    assert_eq!([outcome(), outcome()], ["errno 13", "done"]);
}

#[test]
fn a_model_has_no_network_and_reaches_no_other_process() {
    let (tcp, udp) = (
        TcpListener::bind("127.0.0.1:0").unwrap(),
        UdpSocket::bind("127.0.0.1:0").unwrap(),
    );
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("other.sock");
    let _unix = UnixListener::bind(&path).unwrap();
    let attempts = [
        ("connect by tcp", tcp.local_addr().unwrap().to_string()),
        ("send by udp", udp.local_addr().unwrap().to_string()),
        ("connect by unix", path.display().to_string()),
        ("signal the parent", String::new()),
        ("read the parent", String::new()),
        ("execute", "/bin/ls".to_owned()),
        ("trace the parent", String::new()),
    ];
    // The path of the socket is allowed, so that its refusal is not one of a file.
    let refused = outcomes(sandbox(SandboxMode::Auto, &[dir.path()]), &attempts);
    assert_all(&refused, &attempts, |outcome| REFUSED.contains(&outcome));
    // Traced, this process could be stopped.
    let attempts = &attempts[..6];
    let done = outcomes(sandbox(SandboxMode::Off, &[]), attempts);
    assert_all(&done, attempts, |outcome| outcome == "done");
}

#[test]
fn a_model_has_limits_and_a_home_of_its_own() {
    let machine = rustix::system::sysinfo();
    let memory = machine.totalram as u64 * u64::from(machine.mem_unit);
    let attempts = [
        ("limit", "Max core file size".to_owned()),
        ("limit", "Max open files".to_owned()),
        ("limit", "Max data size".to_owned()),
        ("allocate", (memory / 10 * 8).to_string()),
        ("variable", "HOME".to_owned()),
    ];
    let limited = outcomes(sandbox(SandboxMode::Auto, &[]), &attempts);
    let open_files: u64 = limited[1].parse().unwrap();
    assert!(open_files <= 4096, "{open_files}");
    assert_eq!(
        [&*limited[0], &*limited[2], &*limited[3]],
        ["0", &(memory / 4 * 3).to_string(), "refused"]
    );
    assert!(limited[4].ends_with("/work/model-cache"), "{}", limited[4]);
    let unlimited = outcomes(sandbox(SandboxMode::Off, &[]), &attempts);
    assert_eq!([&*unlimited[2], &*unlimited[3]], ["unlimited", "done"]);
    assert_eq!(unlimited[4], std::env::var("HOME").unwrap());
}

#[test]
fn what_a_model_keeps_at_home_is_there_at_its_next_start() {
    let script = |attempt: &str, on: &Path| json!({ "answers": [{ "attempt": attempt, "on": on }] }).to_string();
    let mut bench = Bench::new(json!({}));
    bench.settings.sandbox = sandbox(SandboxMode::Auto, &[]);
    let engine = bench.settings.work_dir.join("model-cache/engine");
    for attempt in ["write", "read", "rename"] {
        fs::write(bench.dir.path().join("model.eim.json"), script(attempt, &engine)).unwrap();
        let mut model = bench.start().unwrap();
        model.features();
        assert_eq!(
            model.classify(16).unwrap().classification.unwrap()[0].0,
            "done",
            "{attempt}"
        );
    }
}

#[test]
fn what_a_model_has_started_ends_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let (script, child) = (dir.path().join("model.sh"), dir.path().join("child"));
    let text = format!(
        "#!/bin/sh\nsleep 1000 &\necho $! > {}\nexec ./model.eim \"$1\"\n",
        child.display()
    );
    fs::write(&script, text.replace("./", &format!("{}/", dir.path().display()))).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    fs::copy(scripted_model(), dir.path().join("model.eim")).unwrap();
    fs::write(dir.path().join("model.eim.json"), "{}").unwrap();
    let bench = Bench::with_source(dir, ModelSource::File(script));
    let model = bench.start().unwrap();
    let child = fs::read_to_string(child).unwrap();
    let is_there = || Path::new("/proc").join(child.trim()).join("exe").exists();
    assert!(is_there());
    model.stop();
    until("the child has ended", || !is_there());
}

#[test]
fn strict_refuses_to_start_where_something_is_missing_and_auto_uses_what_there_is() {
    let without_landlock = SandboxSupport {
        landlock: 0,
        ..SandboxSupport::detect()
    };
    let with = |mode, support| {
        let mut bench = Bench::new(json!({}));
        bench.settings.sandbox = Sandbox::new(
            ModelSandboxConfig {
                mode,
                allow: vec![bench.dir.path().to_owned()],
            },
            support,
        );
        bench.start().map(drop)
    };
    with(SandboxMode::Strict, SandboxSupport::detect()).unwrap();
    let error = with(SandboxMode::Strict, without_landlock).unwrap_err();
    assert!(error.is_permanent() && !error.is_models_fault());
    let text = error.to_string();
    assert!(
        text.contains("no Landlock") && text.contains("\"auto\" starts the model"),
        "{text}"
    );

    let dir = tempfile::tempdir().unwrap();
    let attempts = [
        ("list", dir.path().display().to_string()),
        ("send by udp", "127.0.0.1:9".to_owned()),
        ("limit", "Max core file size".to_owned()),
    ];
    let config = ModelSandboxConfig::default();
    let partly = outcomes(Sandbox::new(config, without_landlock), &attempts);
    assert_eq!(partly, ["done", "errno 1", "0"]);
}

#[test]
fn what_is_missing_is_logged_once_however_often_a_model_starts() {
    let mut bench = Bench::new(json!({}));
    bench.settings.sandbox = Sandbox::new(ModelSandboxConfig::default(), SandboxSupport::NONE);
    let log = log_of(|| {
        for _ in 0..3 {
            bench.start().unwrap().stop();
        }
    });
    assert_eq!(
        log.matches("The sandbox of the model is incomplete").count(),
        1,
        "{log}"
    );
    assert!(
        log.contains("no Landlock") && log.contains("cannot be filtered"),
        "{log}"
    );
}

/// `cargo test --release --test integration figures_of_the_sandbox -- --ignored --nocapture`
#[test]
#[ignore = "prints figures; to be run by hand on a release build"]
fn figures_of_the_sandbox() {
    const STARTS: usize = 40;
    const INFERENCES: u32 = 500;
    let modes = [SandboxMode::Off, SandboxMode::Auto];
    // With the hundred libraries of this program, and with the few that a real model has.
    for name in ["builtin:nop", "scripted"] {
        let mut times = [(); 2].map(|()| [const { Vec::new() }; 2]);
        let benches = modes.map(|mode| {
            let mut bench = Bench::new(json!({}));
            // A recording opens a file for each request.
            fs::write(bench.dir.path().join("model.eim.json"), "{}").unwrap();
            if name != "scripted" {
                bench.settings.source = ModelSource::Builtin("nop=320x320".into());
                bench.settings.builtin_program = crate::support::daemon::binary().to_owned();
            }
            bench.settings.sandbox = sandbox(mode, &[]);
            bench
        });
        // In turns, so that other work on the machine meets both.
        for _ in 0..STARTS {
            for (bench, [starts, inferences]) in benches.iter().zip(&mut times) {
                let begun = Instant::now();
                let mut model = bench.start().unwrap();
                starts.push(begun.elapsed());
                let elements = model.features().len();
                let begun = Instant::now();
                for _ in 0..INFERENCES {
                    model.classify(elements).unwrap();
                }
                inferences.push(begun.elapsed() / INFERENCES);
            }
        }
        for (mode, figures) in modes.iter().zip(&mut times) {
            let [starts, inferences] = figures.each_mut().map(|times| {
                times.sort();
                times[times.len() / 2]
            });
            println!(
                "{name}, model_sandbox {mode}: start to hello {starts:.1?}, one inference {inferences:.1?} (medians)"
            );
        }
    }
}
