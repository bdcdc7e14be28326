//! The WebSocket of the live page, `/live`: a `status` message every second, and at most
//! [`VIEWS_PER_SECOND`](crate::inference::live_tap::VIEWS_PER_SECOND) times a second a `moment` message with the newest
//! inference. The picture of the inference follows as a binary message, so that boxes and picture belong together. An
//! `events` message has the zones, lines and rules; it comes first, and after each change. A slow client misses inferences.

use std::time::Duration;

use axum::extract::ws::{Message, WebSocket};
use serde_json::Value;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::events_api::EventsDocument;
use super::messages;
use super::page_state::{CLIENT_TIMEOUT, PageState};

const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// A ping follows after this many status messages.
const STATUS_PER_PING: u32 = 20;

/// Serves one client until it disconnects.
/// `may_change`: it may change settings without the token.
pub(super) async fn serve(mut socket: WebSocket, state: &PageState, may_change: bool) {
    // An error ends only this client: it disconnected, or it read no data for too long.
    let _ = run(&mut socket, state, may_change).await;
}

async fn run(socket: &mut WebSocket, state: &PageState, may_change: bool) -> Result<(), axum::Error> {
    let mut viewer = state.live_tap.add_viewer();
    viewer.want_pictures(true);
    let mut frames = state.new_frames();
    let mut status = interval(STATUS_INTERVAL);
    status.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut ticks, mut last_received) = (0, Instant::now());
    let mut revision = None;
    loop {
        tokio::select! {
            biased;
            received = socket.recv() => match received {
                // Any message shows that the client is alive; the content is ignored.
                Some(Ok(_)) => last_received = Instant::now(),
                Some(Err(e)) => return Err(e),
                None => return Ok(()),
            },
            _ = status.tick() => {
                if last_received.elapsed() > CLIENT_TIMEOUT {
                    return Ok(());
                }
                if let Some(events) = &state.events
                    && revision.replace(events.revision()) != Some(events.revision())
                {
                    let message = messages::events(&EventsDocument::of(events), may_change);
                    socket.send(Message::Text(message)).await?;
                }
                let mut document = state.registry.status_document();
                document.insert("type".to_owned(), "status".into());
                socket.send(Message::Text(Value::Object(document).to_string().into())).await?;
                ticks += 1;
                if ticks % STATUS_PER_PING == 0 {
                    socket.send(Message::Ping(Default::default())).await?;
                }
            }
            Ok(()) = frames.changed() => {
                let Some(frame) = frames.borrow_and_update().clone() else { continue };
                socket.send(Message::Text(messages::moment(&frame))).await?;
                if let Some(jpeg) = &frame.jpeg {
                    socket.send(Message::Binary(jpeg.clone())).await?;
                }
            }
        }
    }
}
