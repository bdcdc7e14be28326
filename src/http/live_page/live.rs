//! The page's own WebSocket, `/live`: the state of the device once a second (`status`), and the newest inference
//! (`moment`) at most [`VIEWS_PER_SECOND`](super::VIEWS_PER_SECOND) times a second, followed by its picture as a binary message: so boxes
//! are drawn on the very picture they belong to. A slow client misses moments; none waits for it.

use std::time::Duration;

use axum::extract::ws::{Message, WebSocket};
use serde_json::Value;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::messages;
use super::server::Site;
use super::socket::SILENT;

const STATUS_EVERY: Duration = Duration::from_secs(1);
/// Every so many states the client is asked whether it is still there.
const PING_EVERY: u32 = 20;

/// Serves one client until it goes.
pub(super) async fn serve(mut socket: WebSocket, site: &Site) {
    // Any end is the end of this client: it went, or it took nothing for too long.
    let _ = talk(&mut socket, site).await;
}

async fn talk(socket: &mut WebSocket, site: &Site) -> Result<(), axum::Error> {
    let mut viewer = site.live_tap.add_viewer();
    viewer.want_pictures(true);
    let mut moments = site.moments();
    moments.mark_unchanged();
    let mut status = interval(STATUS_EVERY);
    status.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut ticks, mut heard) = (0, Instant::now());
    loop {
        tokio::select! {
            biased;
            received = socket.recv() => match received {
                // The page has nothing to say but that it is there.
                Some(Ok(_)) => heard = Instant::now(),
                Some(Err(e)) => return Err(e),
                None => return Ok(()),
            },
            _ = status.tick() => {
                if heard.elapsed() > SILENT {
                    return Ok(());
                }
                let mut state = site.registry.status_document();
                state.insert("type".to_owned(), "status".into());
                socket.send(Message::Text(Value::Object(state).to_string().into())).await?;
                ticks += 1;
                if ticks % PING_EVERY == 0 {
                    socket.send(Message::Ping(Default::default())).await?;
                }
            }
            Ok(()) = moments.changed() => {
                let Some(moment) = moments.borrow_and_update().clone() else { continue };
                socket.send(Message::Text(messages::moment(&moment))).await?;
                if let Some(jpeg) = &moment.jpeg {
                    socket.send(Message::Binary(jpeg.clone())).await?;
                }
            }
        }
    }
}
