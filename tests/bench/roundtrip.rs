//! A request to the model that costs nothing and its answer: over a bare socket, and through our protocol.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ei_greengrass::config::ModelSource;
use ei_greengrass::model::{Interrupt, Model, ModelSettings};
use ei_greengrass::status::stats::Stats;

use super::support::daemon::{LIMIT, binary};

/// A socket to a model, and nothing around it.
pub struct BareSocket {
    model: Child,
    socket: UnixStream,
    buffer: Vec<u8>,
    directory: tempfile::TempDir,
}

impl BareSocket {
    /// Starts a model for pictures of `side` times `side` pixels.
    pub fn start(side: u32) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("socket");
        let model = Command::new(binary())
            .args(["builtin-model", &format!("nop={side}x{side}")])
            .arg(&path)
            .spawn()
            .expect("the model starts");
        let limit = Instant::now() + LIMIT;
        let socket = loop {
            match UnixStream::connect(&path) {
                Ok(socket) => break socket,
                Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
                    assert!(Instant::now() < limit, "the model does not listen");
                    std::thread::sleep(Duration::from_millis(3));
                }
                Err(e) => panic!("no connection to the model: {e}"),
            }
        };
        let mut bare = Self {
            model,
            socket,
            buffer: vec![0; 64 << 10],
            directory,
        };
        bare.ask(b"{\"hello\":1,\"id\":1}\n");
        bare
    }

    /// Sends a request and reads until the NUL byte after its answer.
    pub fn ask(&mut self, request: &[u8]) {
        self.socket.write_all(request).expect("the model reads");
        let mut length = 0;
        while length == 0 || self.buffer[length - 1] != 0 {
            let read = self.socket.read(&mut self.buffer[length..]).expect("the model answers");
            assert!(read > 0, "the model ended in {}", self.directory.path().display());
            length += read;
        }
    }
}

impl Drop for BareSocket {
    fn drop(&mut self) {
        // The model ends when its client goes; nobody waits for it longer than this.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        let _ = self.model.wait();
    }
}

/// The same model behind our own protocol.
pub fn our_model(side: u32) -> Model {
    let mut settings = ModelSettings::new(
        ModelSource::Builtin(format!("nop={side}x{side}")),
        format!("bench{}", std::process::id()),
        std::env::temp_dir(),
        Arc::new(Stats::default()),
    );
    settings.builtin_program = binary().to_owned();
    // It leaves nothing behind.
    settings.may_change_files = false;
    Model::start(&settings, &Interrupt::new()).expect("the model starts")
}
