//! A device in the field: everything at once, over a network that fails.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{after, crash, score, version_script};
use crate::studio::write_script;
use crate::support::daemon::{Daemon, Site, scripted_model};
use crate::support::exchange::Part;
use crate::support::http::{HttpServer, Reply};
use crate::support::mosquitto::Mosquitto;
use crate::support::network::Network;
use crate::support::observer::Observer;
use crate::support::ports::free_port;
use crate::support::remote_management::{Connection, OnHello, RemoteManagement};
use crate::support::scripts::boxed;
use crate::support::studio::{self as stand_in, Shared, good_secret};

/// Time for each step: the component waits longer after each cut before it connects again.
const STEP_LIMIT: Duration = Duration::from_secs(90);
/// Pixels of a frame.
const SIZE: (usize, usize) = (64, 48);
/// Random cuts of the network.
const CUTS: u64 = 3;

/// Random numbers that another run repeats with the same seed (splitmix64).
struct Random(u64);

impl Random {
    fn between(&mut self, low: u64, high: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        low + (mixed ^ (mixed >> 31)) % (high - low)
    }
}

/// The camera: sends frames over TCP, each with another picture, as fast as they are taken.
struct Camera {
    port: u16,
    is_over: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<u64>,
}

impl Camera {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let is_over = Arc::<AtomicBool>::default();
        let over = is_over.clone();
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut frames = 0;
            while !over.load(Ordering::SeqCst) {
                stream.write_all(&frame(frames)).unwrap();
                frames += 1;
            }
            frames
        });
        Self { port, is_over, thread }
    }

    fn line(&self) -> String {
        let (width, height) = SIZE;
        let caps = format!("format=rgb width={width} height={height} framerate=100/1");
        format!("tcpclientsrc host=127.0.0.1 port={} ! rawvideoparse {caps}", self.port)
    }

    /// Ends the source, and gives the number of its frames.
    fn finish(self) -> u64 {
        self.is_over.store(true, Ordering::SeqCst);
        self.thread.join().unwrap()
    }
}

/// The number of the frame as a pattern of 16 black and white fields.
fn frame(number: u64) -> Vec<u8> {
    let (width, height) = SIZE;
    let field = |index: usize| (index / width * 4 / height) * 4 + index % width * 4 / width;
    let pixels = (0..width * height).map(|index| if number >> field(index) & 1 == 1 { 255 } else { 0 });
    pixels.flat_map(|value| [value; 3]).collect()
}

/// An ingestion that knows each sample that it has.
fn ingestion(stored: Arc<Mutex<Vec<Part>>>) -> HttpServer {
    HttpServer::start(move |request| {
        let part = Part::of(request);
        let mut stored = stored.lock();
        if stored.iter().any(|known| known.data == part.data) {
            return Reply::bytes("text/plain", "An item with this hash already exists (ids: 1)").status(400);
        }
        stored.push(part);
        Reply::json(&json!({"success": true, "files": [{"success": true}]}))
    })
}

/// The device, and the servers behind its network.
struct Field {
    site: Site,
    broker: Mosquitto,
    observer: Observer,
    network: Network,
    studio: Shared,
    remote: RemoteManagement,
    stored: Arc<Mutex<Vec<Part>>>,
    servers: [HttpServer; 3],
    page: u16,
    client: reqwest::Client,
}

impl Field {
    fn new() -> Self {
        let (site, broker) = (Site::new(), Mosquitto::start());
        let (stored, studio) = (
            Arc::default(),
            stand_in::state(std::fs::read(scripted_model()).unwrap()),
        );
        Self {
            observer: Observer::connect(broker.port, site.device()),
            network: Network::default(),
            remote: RemoteManagement::start(OnHello::Accept),
            servers: [
                stand_in::studio(&studio),
                ingestion(Arc::clone(&stored)),
                stand_in::secrets(&good_secret()),
            ],
            stored,
            studio,
            page: free_port(),
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            site,
            broker,
        }
    }

    fn deploy(&self, version: u64, answers: &[Value]) {
        let work_dir = self.site.path();
        write_script(work_dir, version, &version_script(work_dir, version, answers));
        self.studio.lock().version = Some(version);
    }

    fn run(&self, line: &str) -> Daemon {
        let through = |port| self.network.route_to(port);
        let [studio, ingestion, secrets] = &self.servers;
        let mut command = self.site.command("run");
        command.args(["--mqtt", &format!("mqtt://127.0.0.1:{}", through(self.broker.port))]);
        command.args(["--gst", line]);
        let page = format!("preview_port={}", self.page);
        for set in [
            "preview=on",
            &page,
            "iotcore_backoff=1",
            "ei_shutdown_behavior=wait_for_restart",
            "collect=yes",
            "monitor=yes",
            "model_trial_inferences=5",
            "eiparams=--force-target runner-linux-x86_64",
        ] {
            command.args(["--set", set]);
        }
        let url = |port| format!("http://127.0.0.1:{}", through(port));
        stand_in::surround(&mut command, &secrets.url(), &url(studio.port));
        command
            .env(
                "EI_REMOTE_MGMT_URL",
                format!("ws://127.0.0.1:{}", through(self.remote.port)),
            )
            .env("EI_INGESTION_URL", url(ingestion.port));
        Daemon::start(command)
    }

    /// `/api/status`, which does not go through the network.
    async fn status(&self) -> Value {
        let url = format!("http://127.0.0.1:{}/api/status", self.page);
        let answer = self.client.get(url).send().await.expect("an answer");
        answer.json().await.expect("JSON")
    }

    /// Waits until the status and the servers are as wanted. There is no one event for all of them.
    async fn wait_until(&self, what: &str, mut wanted: impl FnMut(&Value) -> bool) -> Value {
        let end = Instant::now() + STEP_LIMIT;
        loop {
            let status = self.status().await;
            if wanted(&status) {
                return status;
            }
            assert!(Instant::now() < end, "waited in vain until {what}: {status:#}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Cuts the network at random moments, which the inferences count.
    async fn cut_at_random(&self, random: &mut Random) {
        let mut next = inferences(&self.status().await);
        for cut in 0..CUTS {
            for (low, high, is_cut) in [(50, 400, true), (10, 120, false)] {
                next += random.between(low, high);
                let what = format!("inference {next} (cut {cut})");
                next = inferences(&self.wait_until(&what, |status| inferences(status) >= next).await);
                if is_cut {
                    self.network.cut();
                } else {
                    self.network.mend();
                }
            }
        }
    }

    /// Studio asks for a picture on each new connection, and again after a refusal, until ingestion has one with this label.
    async fn collect(&self, label: &str) {
        let mut asked = None;
        self.wait_until(&format!("the sample {label} is stored"), |_| {
            let connections = self.remote.connections.with(<[_]>::to_vec);
            let refusals = |connection: &Connection| connection.count(&json!({"sample": false}));
            let now = connections.last().map(|last| (connections.len(), refusals(last)));
            if let Some(connection) = connections.last().filter(|_| now != asked) {
                asked = now;
                connection.send(&json!({"sample": {
                    "label": label, "length": 10, "path": "/api/training/data", "interval": 10, "sensor": "Camera (64x48)",
                }}));
            }
            let name = format!("{label}.jpg");
            self.stored.lock().iter().any(|part| part.file_name == name)
        })
        .await;
    }

    /// Asks for the newest version, again after each failure and each lost connection, until the status is as wanted.
    async fn update(&self, asked_by: AskedBy, what: &str, wanted: impl Fn(&Value) -> bool) {
        let mut asked = None;
        self.wait_until(what, |status| {
            let is_idle = status["model"]["update"].is_null() && status["model"]["state"] == "running";
            // Another connection, or another answer.
            let now = self.exchanged(asked_by, status);
            if !wanted(status) && is_idle && now.is_some() && now != asked {
                asked = now;
                self.ask(asked_by);
            }
            wanted(status)
        })
        .await;
    }

    /// How many connections and answers there were; `None`: there is no connection.
    fn exchanged(&self, asked_by: AskedBy, status: &Value) -> Option<(usize, usize)> {
        match asked_by {
            AskedBy::Command => {
                let connects = status["counters"]["mqtt_connects"].as_u64().unwrap() as usize;
                (status["mqtt"]["state"] == "online").then(|| (connects, self.observer.answers().len()))
            }
            AskedBy::Studio => {
                let connections = self.remote.connections.with(<[_]>::to_vec);
                let answers = connections.last()?.count(&json!({"modelUpdateSuccess": "*"}));
                (status["studio"]["state"] != "offline").then_some((connections.len(), answers))
            }
        }
    }

    fn ask(&self, asked_by: AskedBy) {
        match asked_by {
            AskedBy::Command => {
                let command = json!({"cmd": "update_model"});
                self.observer.send_raw(command.to_string(), false);
            }
            AskedBy::Studio => {
                let newest = self.remote.connections.with(|all| all.last().cloned());
                newest
                    .unwrap()
                    .send(&json!({"newModelAvailable": true, "deploymentVersion": "latest"}));
            }
        }
    }
}

/// Who asks for a new version.
#[derive(Clone, Copy)]
enum AskedBy {
    Command,
    Studio,
}

fn inferences(status: &Value) -> u64 {
    status["counters"]["inferences"].as_u64().unwrap()
}

fn seed() -> u64 {
    let given = std::env::var("SCENARIO_SEED").ok().and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_in_the_field_collects_takes_a_good_version_and_gives_back_a_bad_one_and_no_inference_is_lost() {
    let seed = seed();
    println!("SCENARIO_SEED={seed} repeats this run");
    let (field, camera) = (Field::new(), Camera::start());
    let slowly = |version| json!({"delay_ms": 4, "then": boxed(score(version))});
    field.deploy(1, &[slowly(1)]);
    let daemon = field.run(&camera.line());
    field.observer.wait_for_status("started", 1);

    let mut random = Random(seed);
    let work = async {
        field.collect("before").await;
        field.deploy(2, &[slowly(2)]);
        let runs = |status: &Value| status["model"]["version"] == "v2";
        field.update(AskedBy::Command, "version 2 runs", runs).await;
        field.collect("between").await;
        // Good in its trial, then it crashes again and again.
        field.deploy(3, &after(12, 3, crash()));
        let has_failed =
            |status: &Value| status["model"]["version"] == "v2" && status["model"]["bad_version"]["version"] == "v3";
        field.update(AskedBy::Studio, "version 3 has failed", has_failed).await;
        field.collect("after").await;
    };
    tokio::join!(work, field.cut_at_random(&mut random));
    field
        .wait_until("everything is uploaded and the broker is back", |status| {
            status["studio"]["waiting"] == 0 && status["mqtt"]["state"] == "online"
        })
        .await;
    let frames = camera.finish();
    field.observer.wait_for_status("paused", 1);
    let status = field
        .wait_until("the broker has acknowledged everything", |status| {
            status["counters"]["delivered"] == status["counters"]["inferences"]
        })
        .await;
    daemon.stop();

    // Each inference arrived once, in order; a message that was sent again after a cut is the same message.
    let mut numbered: BTreeMap<u64, Value> = BTreeMap::new();
    for message in field.observer.all("inference/output") {
        let message = message.json();
        let number = message["total_inferences"].as_u64().unwrap();
        let first = numbered.entry(number).or_insert_with(|| message.clone());
        assert_eq!(*first, message, "two inferences with one number");
    }
    let counters = &status["counters"];
    let counted = inferences(&status);
    assert!(numbered.keys().copied().eq(1..=counted), "{counted} were counted");
    for (counter, expected) in [("published", counted), ("outbox_dropped", 0), ("spool_dropped", 0)] {
        assert_eq!(counters[counter], expected, "{counter}: {counters}");
    }
    // Each frame was inferred, or a newer one replaced it while the model restarted, or the model crashed on it.
    let count = |counter: &str| counters[counter].as_u64().unwrap();
    assert_eq!(
        frames,
        counted + count("frames_skipped") + count("frames_dropped"),
        "{counters}"
    );
    assert_eq!(count("frames_dropped"), 3, "{counters}");
    assert_eq!(counters["model_restarts"], 3, "{counters}");

    let version = |message: &Value| (message["box"][0]["value"].as_f64().unwrap() * 10.0).round() as u64;
    let mut versions: Vec<_> = numbered.values().map(version).collect();
    versions.dedup();
    assert_eq!(versions, [1, 2, 3, 2]);
    assert_eq!(
        counters["studio_uploads"],
        field.stored.lock().len() as u64,
        "none is uploaded twice"
    );
    assert_eq!(
        (&counters["studio_uploads_refused"], &counters["studio_uploads_dropped"]),
        (&json!(0), &json!(0))
    );
}
