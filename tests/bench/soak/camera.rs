//! A camera that can be unplugged: it sends a moving ball over TCP.

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::support::ports::free_port;

const FRAMES_PER_SECOND: u32 = 10;
const WIDTH: usize = 160;
const HEIGHT: usize = 120;
const RADIUS: isize = 16;
const DARK: u8 = 16;
const BRIGHT: u8 = 235;
/// How often an unplugged camera looks whether it is plugged in.
const LOOK: Duration = Duration::from_millis(20);

/// The camera. It ends when it is dropped.
pub struct Camera {
    port: u16,
    is_plugged: Arc<AtomicBool>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Camera {
    /// Starts one that is plugged in.
    pub fn start() -> Self {
        let (is_plugged, is_over) = (Arc::new(AtomicBool::new(true)), Arc::<AtomicBool>::default());
        let (port, plugged, over) = (free_port(), is_plugged.clone(), is_over.clone());
        let thread = std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                if plugged.load(Ordering::Relaxed) {
                    serve(port, &plugged);
                } else {
                    std::thread::sleep(LOOK);
                }
            }
        });
        Self {
            port,
            is_plugged,
            is_over,
            thread: Some(thread),
        }
    }

    /// The launch line that receives it.
    pub fn line(&self) -> String {
        format!(
            "tcpclientsrc host=127.0.0.1 port={} ! rawvideoparse format=i420 width={WIDTH} height={HEIGHT} framerate={FRAMES_PER_SECOND}/1",
            self.port
        )
    }

    /// Ends the stream, and every new one until [`Self::plug_in`].
    pub fn unplug(&self) {
        self.is_plugged.store(false, Ordering::Relaxed);
    }

    pub fn plug_in(&self) {
        self.is_plugged.store(true, Ordering::Relaxed);
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.unplug();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Serves one viewer after the other while the camera is plugged in. A port without a listener refuses connections.
fn serve(port: u16, is_plugged: &AtomicBool) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("the camera's port");
    listener.set_nonblocking(true).expect("a listener");
    while is_plugged.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((viewer, _)) => send_frames(viewer, is_plugged),
            Err(_) => std::thread::sleep(LOOK),
        }
    }
}

fn send_frames(mut viewer: TcpStream, is_plugged: &AtomicBool) {
    let _ = viewer.set_nonblocking(false);
    let _ = viewer.set_write_timeout(Some(Duration::from_secs(1)));
    let (begun, mut sent) = (Instant::now(), 0);
    while is_plugged.load(Ordering::Relaxed) && viewer.write_all(&frame(sent)).is_ok() {
        sent += 1;
        let due = begun + Duration::from_secs(1) * sent / FRAMES_PER_SECOND;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

/// A bright ball on a dark ground, as I420.
fn frame(number: u32) -> Vec<u8> {
    let mut pixels = vec![DARK; WIDTH * HEIGHT];
    let steps = WIDTH - 2 * RADIUS as usize;
    let centre = (RADIUS + (number as usize % steps) as isize, (HEIGHT / 2) as isize);
    for (index, pixel) in pixels.iter_mut().enumerate() {
        let (x, y) = ((index % WIDTH) as isize - centre.0, (index / WIDTH) as isize - centre.1);
        if x * x + y * y <= RADIUS * RADIUS {
            *pixel = BRIGHT;
        }
    }
    pixels.resize(WIDTH * HEIGHT * 3 / 2, 128);
    pixels
}
