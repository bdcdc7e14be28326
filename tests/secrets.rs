//! No secret comes out, whatever form a configuration has and wherever the secret stands in it.
//!
//! The same word is part of every secret. The real program runs with it, and everything that comes out is searched for it.

use std::process::Command;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;

use crate::support::daemon::{Daemon, LIMIT, Site};
use crate::support::http::HttpServer;
use crate::support::mosquitto::Mosquitto;
use crate::support::observer::Observer;
use crate::support::ports::free_port;
use crate::support::studio::{aws_error, secret};

/// Part of every secret of these tests.
const CANARY: &str = "Canary91735";

/// Launch lines as people write them, whole and broken. `CANARY` stands for the secret.
const LINES: &[&str] = &[
    "rtspsrc:location=rtsp://admin:CANARY#x@127.0.0.1:9/cam:!:decodebin",
    "rtspsrc location=rtsp://admin:CANARY#x@127.0.0.1:9/cam latency=0 ! decodebin ! videoconvert",
    "rtspsrc:location=rtsp://admin:CANARY/x@127.0.0.1:9/cam:latency=0:!:decodebin:!:jpegenc",
    "rtspsrc:location=rtsp://admin:CANARY:!:x@127.0.0.1:9/cam:!:decodebin",
    "rtspsrc:location=rtsp://admin:x:CANARY?y@127.0.0.1:9/cam:!:decodebin",
    "rtspsrc:location=rtsp://admin:CANARY=1@127.0.0.1:9/cam:!:decodebin",
    "rtsp://admin:CANARY#x@127.0.0.1:9/cam",
    "rtspsrc location=rtsp://admin:two CANARY@127.0.0.1:9/cam ! decodebin",
    "rtspsrc location=rtsp://admin:CANARY two@127.0.0.1:9/cam ! decodebin",
    "rtspsrc location=\"rtsp://admin:CANARY@127.0.0.1:9/cam ! decodebin",
    "rtspsrc location=admin:CANARY@127.0.0.1:9/cam ! decodebin",
    "rtspsrc location = rtsp:/admin:CANARY@127.0.0.1/cam ! decodebin",
    "nosuchsrc location=rtsp://127.0.0.1:9/cam user-id=me user-pw=CANARY ! decodebin",
    "rtspsrc location=rtsp://127.0.0.1:9/cam user-id=me user-pw = \"a CANARY c\" ! decodebin",
    "rtspsrc location=rtsp://127.0.0.1:9/cam user-pw CANARY ! decodebin",
    "rtspsrc:location=rtsp://127.0.0.1:9/cam:user-pw:CANARY:!:decodebin",
    "rtspsrc location=rtsp://127.0.0.1:9/cam user-pw='never closed CANARY ! decodebin",
    "souphttpsrc location=http://127.0.0.1:9/x?X-Amz-Security-Token=CANARY&X-Amz-Signature=CANARY ! decodebin",
    "souphttpsrc:location=http://127.0.0.1:9/x?sig=CANARY:!:decodebin",
    "souphttpsrc location=http://127.0.0.1:9/x extra-headers=\"a,Authorization=(string)CANARY\" ! decodebin",
    "souphttpsrc location=http://127.0.0.1:9/x extra-headers=a,X-My=(string)\"Bearer CANARY\" ! decodebin",
    "souphttpsrc location=http://127.0.0.1:9/x extra-headers=a, X-My=(string)CANARY ! decodebin",
    "souphttpsrc location=http://127.0.0.1:9/x cookies=\"session=CANARY\" ! decodebin",
    "videotestsrc ! tee name=t t. ! queue ! x264enc ! rtmpsink location=\"rtmp://127.0.0.1:9/a/x pubUser=u pubPasswd=CANARY\" \
     t. ! queue ! videoconvert",
    "videotestsrc ! videoconvert ! jpegenc ! souphttpclientsink location=http://127.0.0.1:9/?token=CANARY",
    "videotestsrc ! kvssink stream-name=s access-key=CANARY secret-key=\"CANARY\" session-token=CANARY",
    "videotestsrc ! filesink location=/x?password=CANARY !",
    "videotestsrc password=CANARY ! videoconvert",
    "videotestsrc pattern=rtsp://a:CANARY@h ! videoconvert",
    "srtsrc:uri=srt://127.0.0.1:9?passphrase=CANARY:passphrase=CANARY:!:decodebin",
    "rtsp",
];

/// Secrets in the place of another value.
const VALUES: &[&str] = &[
    "rtsp://admin:CANARY#x@127.0.0.1:9/cam",
    "admin:CANARY@127.0.0.1:9",
    "https://h/x?X-Amz-Signature=CANARY",
    "wss://h/mqtt?token=CANARY",
    "-----BEGIN PRIVATE KEY-----\nCANARY\n-----END PRIVATE KEY-----",
    "-----BEGIN EC PRIVATE KEY----- CANARY -----END EC PRIVATE KEY-----",
    "{\"ei_api_key\": \"CANARY\"}",
    "ei_CANARY0123456789",
    "Authorization: Bearer CANARY",
    "--api-key CANARY",
    "password=CANARY",
];

fn with_canary(text: &str) -> String {
    text.replace("CANARY", CANARY)
}

/// The same for text that a device name, a topic and a file name keep in other characters.
#[track_caller]
fn assert_clean(what: &str, out: &str) {
    let lower = out.to_ascii_lowercase();
    // Also the beginning alone: a text that was cut or split.
    let plain = [CANARY, &CANARY[..6]].map(str::to_ascii_lowercase);
    let hexadecimal: String = CANARY.bytes().map(|byte| format!("{byte:02x}")).collect();
    let found = plain.iter().chain([&hexadecimal]).find_map(|form| lower.find(form));
    if let Some(at) = found.or_else(|| in_base64().iter().find_map(|form| out.find(form))) {
        let around: String = out.chars().skip(at.saturating_sub(300)).take(700).collect();
        panic!("{what} shows a secret: ...{around}...");
    }
}

/// The canary in base64 at each of the three positions that it may have in a longer text.
fn in_base64() -> [String; 3] {
    [0, 1, 2].map(|before| {
        let text = BASE64_STANDARD.encode([&b"\0\0"[..before], CANARY.as_bytes()].concat());
        // The first and the last characters depend on what stands around.
        text[4..CANARY.len()].to_owned()
    })
}

/// Everything that a command that ends by itself prints.
#[track_caller]
fn output(mut command: Command) -> String {
    let output = command.output().expect("run the program");
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    text.concat()
}

#[test]
fn check_shows_no_secret_of_a_launch_line() {
    let site = Site::new();
    for line in LINES.iter().map(|line| with_canary(line)) {
        let eiparams = format!("eiparams=--gst-launch-args '{}'", line.replace('\'', r"'\''"));
        for arguments in [
            vec!["--set".to_owned(), format!("gst_args={line}")],
            vec!["--gst".to_owned(), line.clone()],
            vec!["--set".to_owned(), eiparams],
        ] {
            let mut command = site.command("check");
            command.args(["--model", "builtin:ball"]).args(&arguments);
            assert_clean(&arguments.join(" "), &output(command));
        }
    }
}

#[test]
fn check_shows_no_secret_that_stands_in_another_key() {
    let site = Site::new();
    for value in VALUES.iter().map(|value| with_canary(value)) {
        let mut settings = serde_json::Map::new();
        for key in ei_greengrass::config::KEYS {
            // The name of a device is public: it is part of every topic. An unknown `launch` ends the program.
            if !matches!(key.name, "device_name" | "launch") {
                settings.insert(key.name.to_owned(), json!(value));
            }
            settings.insert(format!("{}x", key.name), json!(value));
        }
        let text = json!(settings).to_string();
        for (name, text) in [
            ("whole.json", text.clone()),
            ("launch.json", json!({"launch": value, "gst_args": value}).to_string()),
            ("broken.json", text.replace(',', ",\n").trim_end_matches('}').to_owned()),
            (
                "broken.yaml",
                text.replace(',', "\n").replace(['{', '}'], "") + "\n- [\n",
            ),
        ] {
            let mut command = site.bare_command();
            command.arg("check").arg("--config").arg(site.write(name, &text));
            assert_clean(&format!("{name} with {value}"), &output(command));
            let mut command = site.bare_command();
            command
                .args(["config", "get", "gst_args", "--config"])
                .arg(site.path().join(name));
            assert_clean(&format!("config get of {name} with {value}"), &output(command));
            let mut command = site.bare_command();
            command.arg("check").env("CONFIG_PARAMETERS", &text);
            assert_clean(&format!("CONFIG_PARAMETERS with {value}"), &output(command));
        }
    }
}

#[test]
fn check_shows_no_secret_in_an_option_or_a_flag() {
    let site = Site::new();
    let options = [
        "--api-key",
        "--model-file",
        "--force-target",
        "--force-engine",
        "--force-variant",
        "--impulse-id",
        "--thresholds",
        "--force-resize-mode",
        "--force-camera-resolution",
        "--camera",
        "--microphone",
        "--gst-launch-args",
        "--preview-port",
        "--preview-host",
        "--camera-color-format",
        "--shm-behavior",
        "--run-http-server",
        "--mode",
        "--no-such-option",
    ];
    for value in VALUES.iter().map(|value| with_canary(value)) {
        let quoted = value.replace('\'', "");
        let eiparams: String = options.map(|option| format!("{option} '{quoted}' ")).concat();
        let inline: String = options.map(|option| format!("{option}='{quoted}' ")).concat();
        for set in [
            format!("eiparams={eiparams}"),
            format!("eiparams={inline}"),
            format!("eiparams={value} 'never closed"),
            format!("no_such_key={value}"),
            value.clone(),
        ] {
            let mut command = site.command("check");
            command.args(["--model", "builtin:ball", "--set", &set]);
            assert_clean(&set, &output(command));
        }
        for flag in ["--mqtt", "--model", "--gst"] {
            let mut command = site.command("check");
            command.arg(format!("{flag}={value}"));
            assert_clean(&format!("{flag} {value}"), &output(command));
        }
    }
}

/// Sets every variable that holds a secret.
fn surround(command: &mut Command, secrets: &str) {
    let address = with_canary("http://me:CANARY@127.0.0.1:9");
    for variable in ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "ALL_PROXY"] {
        command.env(variable, &address);
    }
    command
        .env("NO_PROXY", "127.0.0.1")
        .env("EI_HOST", with_canary("https://me:CANARY@127.0.0.1:9/?token=CANARY"))
        .env("AWS_REGION", "eu-west-1")
        .env("AWS_ACCESS_KEY_ID", with_canary("AKIACANARYCANARY9999"))
        .env("AWS_SECRET_ACCESS_KEY", with_canary("wJalrCANARYXUtn"))
        .env("AWS_SESSION_TOKEN", with_canary("IQoJCANARY"))
        .env("AWS_MAX_ATTEMPTS", "1")
        .env("AWS_ENDPOINT_URL", secrets);
}

#[test]
fn check_online_shows_no_secret_of_the_environment_or_of_secrets_manager() {
    let value = with_canary("ei_CANARY0123456789");
    let answers = [
        secret(&json!({"other": value})),
        secret(&json!({"ei_api_key": {"a": value}})),
        secret(&json!({ value.as_str(): "a" })),
        secret(&json!({"ei_api_key": value})),
        aws_error(
            "AccessDeniedException",
            &format!("the token=\"{CANARY}\" is not accepted"),
        ),
    ];
    for answer in answers {
        let server = HttpServer::start(move |_| answer.clone());
        let site = Site::new();
        let mut command = site.command("check");
        command.args([
            "--online",
            "--set",
            "enable_cache_to_s3=yes",
            "--set",
            "s3_bucket=pictures",
        ]);
        surround(&mut command, &server.url());
        assert_clean("check --online", &output(command));
    }
}

#[test]
fn commands_that_end_by_themselves_show_no_secret() {
    let site = Site::new();
    let subcommands: &[&[&str]] = &[
        &["setup", "--dry-run"],
        &["model", "fetch"],
        &["model", "info"],
        &["send", "--timeout", "1", "get_model_info"],
        &["stop"],
        &["config", "get", "gst_args"],
        &["config", "get", "iot_endpoint"],
    ];
    for value in VALUES.iter().map(|value| with_canary(value)) {
        for subcommand in subcommands {
            let mut command = site.bare_command();
            command.args(*subcommand);
            for key in [
                "gst_args",
                "lock_filename",
                "ei_sm_secret_id",
                "s3_bucket",
                "preview_token",
                "typo",
            ] {
                command.args(["--set", &format!("{key}={value}")]);
            }
            command.args(["--set", &format!("eiparams=--api-key '{value}'")]);
            command.args(["--set", &format!("work_dir={}", site.path().display())]);
            command.args([format!("--mqtt={value}"), format!("--model={value}")]);
            surround(&mut command, "http://127.0.0.1:9");
            assert_clean(&format!("{subcommand:?} with {value}"), &output(command));
        }
        let mut command = site.bare_command();
        command.args(["setup", "--dry-run", "--config", &value]);
        assert_clean(&format!("setup with the file {value}"), &output(command));
    }
}

/// Runs the daemon with a launch line, a log format and a level, and searches everything that comes out.
fn run(line: &str, format: &str, level: &str) {
    let (site, broker, port) = (Site::new(), Mosquitto::start(), free_port());
    let observer = Observer::connect(broker.port, site.device());
    let mut command = site.command("run");
    command
        .args(["--log-format", format])
        .args(["--model", "builtin:ball", "--gst", line])
        .args(["--mqtt", &format!("mqtt://me:{CANARY}@127.0.0.1:{}", broker.port)]);
    for set in [
        "metrics_sleeptime_ms=200",
        "preview=on",
        "preview_host=127.0.0.1",
        &format!("preview_port={port}"),
        &format!("preview_token={CANARY}"),
        &format!("eiparams=--api-key ei_{CANARY}"),
        &format!("no_such_key=password={CANARY}"),
    ] {
        command.args(["--set", set]);
    }
    surround(&mut command, "http://127.0.0.1:9");
    match level {
        "invalid" => command.env("RUST_LOG", format!("ei_greengrass=token={CANARY}")),
        level => command.env("RUST_LOG", level),
    };
    let daemon = Daemon::start(command);
    let metrics = observer.wait_for_nth("model/metrics", "metrics of a source that was tried", 1, |metrics| {
        let runner = &metrics["runner"];
        runner["health"]["source"] == "running" || runner["capture_restarts"].as_u64() >= Some(1)
    });
    assert!(metrics["runner"].is_object());
    observer.command(&json!({"cmd": "get_model_info"}), |_| true);
    observer.command(
        &json!({"cmd": "no_such_command", "value": format!("password={CANARY}")}),
        |_| true,
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    for path in ["/", "/api/status", "/metrics", &format!("/no/such?token={CANARY}")] {
        let body = runtime.block_on(async {
            let client = reqwest::Client::builder().no_proxy().timeout(LIMIT).build().unwrap();
            let answer = client
                .get(format!("http://127.0.0.1:{port}{path}"))
                .send()
                .await
                .expect("an answer");
            answer.text().await.expect("a body")
        });
        assert_clean(&format!("{path} with {line}"), &body);
    }
    std::thread::sleep(Duration::from_millis(200));
    let log = daemon.stop();
    assert!(!log.is_empty() || level == "error", "{level}");
    assert_clean(&format!("the log in {format} at {level} with {line}"), &log);
    for seen in observer
        .all("")
        .iter()
        .filter(|seen| !seen.topic.ends_with("command/input"))
    {
        assert_clean(
            &format!("{} with {line}", seen.topic),
            &String::from_utf8_lossy(&seen.payload),
        );
    }
}

#[test]
fn run_shows_no_secret_in_its_log_its_page_and_its_messages() {
    let levels = ["trace", "debug", "info", "warn", "error", "invalid"];
    let formats = ["text", "json"];
    for (index, line) in LINES.iter().enumerate() {
        run(&with_canary(line), formats[index % 2], levels[index / 2 % levels.len()]);
    }
}
