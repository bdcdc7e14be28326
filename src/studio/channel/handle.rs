//! How services send. The queue is bounded, and belongs to one connection: what is sent without a connection is not kept.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::outgoing::Outgoing;

/// Messages that wait to be written. Beyond that Studio does not read, or one of its requests causes too many answers.
const QUEUE: usize = 64;

/// A message that was not written: there is no connection, or it ended first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no connection to Edge Impulse Studio")]
pub struct NotDelivered;

/// Sends messages on the channel.
#[derive(Debug, Clone)]
pub struct ChannelHandle {
    queue: mpsc::Sender<Queued>,
    frames: Arc<FrameSlot>,
    offer_changed: Arc<Notify>,
    /// The number of the connection whose hello was accepted; `None`: there is none.
    connection: watch::Receiver<Option<u64>>,
}

/// The other end of all handles.
#[derive(Debug)]
pub struct ChannelEnds {
    pub(super) queue: mpsc::Receiver<Queued>,
    pub(super) frames: Arc<FrameSlot>,
    pub(super) offer_changed: Arc<Notify>,
    pub(super) connection: watch::Sender<Option<u64>>,
}

/// A message for one connection.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) connection: u64,
    pub(super) message: Outgoing,
    /// Told when the message is written; dropped if it is not.
    pub(super) written: Option<oneshot::Sender<()>>,
}

/// The newest picture of a stream. A picture that was not written yet is replaced.
#[derive(Debug, Default)]
pub(super) struct FrameSlot {
    newest: Mutex<Option<(u64, Outgoing)>>,
    changed: Notify,
}

impl FrameSlot {
    /// Waits for a picture of this connection.
    pub(super) async fn next(&self, connection: u64) -> Outgoing {
        loop {
            let newest = self.newest.lock().take();
            match newest {
                Some((number, frame)) if number == connection => return frame,
                // A picture of an earlier connection.
                Some(_) => {}
                None => self.changed.notified().await,
            }
        }
    }
}

/// Both ends of a channel that is not started yet.
pub(super) fn ends() -> (ChannelHandle, ChannelEnds) {
    let (sender, queue) = mpsc::channel(QUEUE);
    let (connection, watched) = watch::channel(None);
    let (frames, offer_changed) = (Arc::new(FrameSlot::default()), Arc::new(Notify::new()));
    let handle = ChannelHandle {
        queue: sender,
        frames: frames.clone(),
        offer_changed: offer_changed.clone(),
        connection: watched,
    };
    let ends = ChannelEnds {
        queue,
        frames,
        offer_changed,
        connection,
    };
    (handle, ends)
}

impl ChannelHandle {
    /// Whether the hello of the present connection was accepted.
    pub fn is_connected(&self) -> bool {
        self.connection.borrow().is_some()
    }

    /// Sends a message without waiting. `false`: there is no connection, or too many messages wait.
    pub fn send(&self, message: Outgoing) -> bool {
        let Some(connection) = *self.connection.borrow() else {
            return false;
        };
        let queued = Queued {
            connection,
            message,
            written: None,
        };
        self.queue.try_send(queued).is_ok()
    }

    /// Sends a message and waits until it is written to the connection.
    ///
    /// # Errors
    /// There is no connection, or it ended first.
    pub async fn deliver(&self, message: Outgoing) -> Result<(), NotDelivered> {
        let connection = *self.connection.borrow();
        let (written, is_written) = oneshot::channel();
        let queued = Queued {
            connection: connection.ok_or(NotDelivered)?,
            message,
            written: Some(written),
        };
        self.queue.send(queued).await.map_err(|_| NotDelivered)?;
        is_written.await.map_err(|_| NotDelivered)
    }

    /// Sends a picture of a stream: it replaces one that was not written yet.
    pub fn send_newest(&self, frame: Outgoing) {
        if let Some(connection) = *self.connection.borrow() {
            *self.frames.newest.lock() = Some((connection, frame));
            self.frames.changed.notify_one();
        }
    }

    /// What a service offers may have changed. If so, the channel connects again with a new hello.
    pub fn offer_changed(&self) {
        self.offer_changed.notify_one();
    }
}
