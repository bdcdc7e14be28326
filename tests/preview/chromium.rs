//! A headless Chromium with one page, driven over its DevTools protocol.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use futures_util::{SinkExt, StreamExt};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// A browser on a busy machine of two cores takes its time to start.
const LIMIT: Duration = Duration::from_secs(60);

/// How the browser looks at the page.
#[derive(Debug, Clone, Copy)]
pub struct View {
    pub width: u32,
    pub height: u32,
    pub dark: bool,
    pub mobile: bool,
}

impl View {
    pub const DESK: Self = Self {
        width: 1280,
        height: 900,
        dark: false,
        mobile: false,
    };
    pub const PHONE: Self = Self {
        width: 390,
        height: 844,
        dark: false,
        mobile: true,
    };
}

pub struct Chromium {
    child: Child,
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    session: String,
    id: u64,
    profile: tempfile::TempDir,
}

impl Chromium {
    /// Opens the page.
    pub async fn open(url: &str, view: View) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let mut child = Command::new("chromium")
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--no-proxy-server",
                "--remote-debugging-port=0",
                "about:blank",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            // Its sockets and locks stay behind when it is killed.
            .env("TMPDIR", profile.path())
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("chromium is installed by tests/setup.sh");
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let address = tokio::task::spawn_blocking(move || {
            let mut lines = stderr.lines().map_while(Result::ok);
            let address = lines.find_map(|line| line.strip_prefix("DevTools listening on ").map(str::to_owned));
            // What it complains about from now on is read and forgotten, so that it never waits for us.
            std::thread::spawn(move || lines.for_each(drop));
            address
        });
        let address = tokio::time::timeout(LIMIT, address)
            .await
            .expect("in time")
            .unwrap()
            .expect("an address");
        let (socket, _) = connect_async(&address).await.expect("DevTools");
        let mut browser = Self {
            child,
            socket,
            session: String::new(),
            id: 0,
            profile,
        };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"})).await["targetId"].clone();
        let attached = browser
            .call("Target.attachToTarget", json!({"targetId": target, "flatten": true}))
            .await;
        browser.session = attached["sessionId"].as_str().unwrap().to_owned();
        browser.look(view).await;
        browser.call("Page.enable", json!({})).await;
        browser.call("Page.navigate", json!({"url": url})).await;
        let loaded = "location.href !== 'about:blank' && document.readyState === 'complete'";
        browser.wait_for(loaded, |loaded| *loaded == true).await;
        browser
    }

    /// Changes size and colours.
    pub async fn look(&mut self, view: View) {
        let scale = if view.mobile { 2 } else { 1 };
        self.call(
            "Emulation.setDeviceMetricsOverride",
            json!({"width": view.width, "height": view.height, "deviceScaleFactor": scale, "mobile": view.mobile}),
        )
        .await;
        let scheme = if view.dark { "dark" } else { "light" };
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call("Emulation.setEmulatedMedia", features).await;
    }

    /// One command of the protocol.
    pub async fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.id += 1;
        let mut message = json!({"id": self.id, "method": method, "params": parameters});
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        self.socket
            .send(Message::text(message.to_string()))
            .await
            .expect("sent");
        loop {
            let next = tokio::time::timeout(LIMIT, self.socket.next())
                .await
                .expect("an answer in time");
            let Message::Text(text) = next.expect("the browser runs").expect("a message") else {
                continue;
            };
            let answer: Value = serde_json::from_str(&text).unwrap();
            if answer["id"] == self.id {
                assert!(answer.get("error").is_none(), "{method}: {answer}");
                return answer["result"].clone();
            }
        }
    }

    /// The value of an expression on the page.
    pub async fn eval(&mut self, expression: &str) -> Value {
        let parameters = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let answer = self.call("Runtime.evaluate", parameters).await;
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// Waits until an expression gives something that holds, and gives it.
    pub async fn wait_for(&mut self, expression: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let end = tokio::time::Instant::now() + LIMIT;
        loop {
            let value = self.eval(expression).await;
            if holds(&value) {
                return value;
            }
            assert!(tokio::time::Instant::now() < end, "{expression} is still {value}");
            // The page changes at the device's pace; there is no event of it to wait for.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the text of an element contains `text`.
    pub async fn wait_for_text(&mut self, id: &str, text: &str) -> String {
        let found = self
            .wait_for(
                &format!("document.getElementById('{id}')?.textContent ?? ''"),
                |value| value.as_str().is_some_and(|value| value.contains(text)),
            )
            .await;
        found.as_str().unwrap().to_owned()
    }

    /// Waits until nothing on the page is wider than the window, and the text of each of these elements is not cut off.
    pub async fn wait_until_it_fits(&mut self, ids: &[&str]) {
        let wider = "document.documentElement.scrollWidth - innerWidth";
        self.wait_for(wider, |more| more.as_f64().is_some_and(|more| more <= 0.0))
            .await;
        for id in ids {
            let fits = format!(
                "(() => {{ const at = document.getElementById('{id}'), box = at.getBoundingClientRect();
                   return box.width > 0 && box.left >= 0 && box.right <= innerWidth && at.scrollWidth <= at.clientWidth + 1; }})()"
            );
            self.wait_for(&fits, |fits| *fits == true).await;
        }
    }

    /// Presses the mouse at the first place, moves it over the others and releases it at the last one. Places are pixels of the window.
    pub async fn drag_mouse(&mut self, places: &[(f64, f64)]) {
        let mouse = |kind: &str, (x, y): (f64, f64)| json!({"type": kind, "x": x, "y": y, "button": "left", "buttons": 1, "clickCount": 1});
        let (first, last) = (places[0], places[places.len() - 1]);
        self.call("Input.dispatchMouseEvent", mouse("mousePressed", first))
            .await;
        for place in &places[1..] {
            self.call("Input.dispatchMouseEvent", mouse("mouseMoved", *place)).await;
        }
        self.call("Input.dispatchMouseEvent", mouse("mouseReleased", last))
            .await;
    }

    /// The same with a finger.
    pub async fn drag_finger(&mut self, places: &[(f64, f64)]) {
        let touch = |kind: &str, points: &[(f64, f64)]| {
            let points: Vec<_> = points.iter().map(|(x, y)| json!({"x": x, "y": y})).collect();
            json!({"type": kind, "touchPoints": points})
        };
        self.call("Input.dispatchTouchEvent", touch("touchStart", &places[..1]))
            .await;
        for place in &places[1..] {
            self.call("Input.dispatchTouchEvent", touch("touchMove", &[*place]))
                .await;
        }
        self.call("Input.dispatchTouchEvent", touch("touchEnd", &[])).await;
    }

    /// Clicks an element with the mouse, after scrolling to it.
    pub async fn click(&mut self, id: &str) {
        let middle = format!(
            "(() => {{ const at = document.getElementById('{id}');
               if (!at || at.disabled || !at.offsetWidth) return null;
               at.scrollIntoView({{block: 'nearest'}});
               at.addEventListener('click', () => {{ window.clicked = at.id; }}, {{once: true, capture: true}});
               window.clicked = '';
               const box = at.getBoundingClientRect(); return [box.left + box.width / 2, box.top + box.height / 2]; }})()"
        );
        let end = tokio::time::Instant::now() + LIMIT;
        loop {
            let middle = self.wait_for(&middle, |middle| !middle.is_null()).await;
            let place = (middle[0].as_f64().unwrap(), middle[1].as_f64().unwrap());
            self.drag_mouse(&[place]).await;
            // Something above it may have grown in the meantime.
            if self.eval("window.clicked").await == id {
                return;
            }
            assert!(tokio::time::Instant::now() < end, "{id} cannot be clicked");
        }
    }

    /// Selects what an input has and types over it. The input keeps the focus.
    pub async fn overtype(&mut self, id: &str, text: &str) {
        self.click(id).await;
        self.eval(&format!("document.getElementById('{id}').select()")).await;
        self.call("Input.insertText", json!({"text": text})).await;
    }

    /// The same, then leaves the input.
    pub async fn type_into(&mut self, id: &str, text: &str) {
        self.overtype(id, text).await;
        // Leaving the input takes the change over.
        self.eval(&format!("document.getElementById('{id}').blur()")).await;
    }

    /// Writes what the page looks like to the tests' output directory.
    pub async fn screenshot(&mut self, name: &str) -> PathBuf {
        let shot = self.call("Page.captureScreenshot", json!({"format": "png"})).await;
        let png = base64::engine::general_purpose::STANDARD
            .decode(shot["data"].as_str().unwrap())
            .unwrap();
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("page");
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join(format!("{name}.png"));
        std::fs::write(&path, png).unwrap();
        path
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
        // Its other processes end when they end, and until then write to the profile.
        let begun = Instant::now();
        while std::fs::remove_dir_all(self.profile.path()).is_err() && begun.elapsed() < LIMIT {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
