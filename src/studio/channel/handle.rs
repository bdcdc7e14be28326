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
    pub(super) notify: Notified,
}

/// Who is told about a message. The sender is dropped if it never comes so far.
#[derive(Debug)]
pub(super) enum Notified {
    /// Nobody.
    None,
    /// When the message is written.
    Written(oneshot::Sender<()>),
    /// When Studio has answered a ping after it.
    Received(oneshot::Sender<()>),
}

/// The newest message of each stream. One that was not written yet is replaced.
#[derive(Debug, Default)]
pub(super) struct FrameSlot {
    /// The stream that waits longest is first.
    newest: Mutex<Vec<(u64, Outgoing)>>,
    changed: Notify,
}

impl FrameSlot {
    /// Waits for a message of this connection.
    pub(super) async fn next(&self, connection: u64) -> Outgoing {
        loop {
            let oldest = {
                let mut newest = self.newest.lock();
                // What belongs to an earlier connection is dropped.
                newest.retain(|(number, _)| *number == connection);
                (!newest.is_empty()).then(|| newest.remove(0).1)
            };
            match oldest {
                Some(frame) => return frame,
                None => self.changed.notified().await,
            }
        }
    }

    fn put(&self, connection: u64, frame: Outgoing) {
        let mut newest = self.newest.lock();
        let kind = std::mem::discriminant(&frame);
        match newest
            .iter_mut()
            .find(|(_, earlier)| std::mem::discriminant(earlier) == kind)
        {
            Some(earlier) => *earlier = (connection, frame),
            None => newest.push((connection, frame)),
        }
        drop(newest);
        self.changed.notify_one();
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
            notify: Notified::None,
        };
        self.queue.try_send(queued).is_ok()
    }

    /// Sends a message and waits until it is written to the connection.
    ///
    /// # Errors
    /// There is no connection, or it ended first.
    pub async fn deliver(&self, message: Outgoing) -> Result<(), NotDelivered> {
        self.send_and_wait(message, Notified::Written).await
    }

    /// Sends a message and waits until Studio has received it: it has answered a ping after the message. What is written to a
    /// connection that is cut may be lost.
    ///
    /// # Errors
    /// There is no connection, or it ended first.
    pub async fn confirm(&self, message: Outgoing) -> Result<(), NotDelivered> {
        self.send_and_wait(message, Notified::Received).await
    }

    async fn send_and_wait(
        &self,
        message: Outgoing,
        notify: fn(oneshot::Sender<()>) -> Notified,
    ) -> Result<(), NotDelivered> {
        let connection = *self.connection.borrow();
        let (done, is_done) = oneshot::channel();
        let queued = Queued {
            connection: connection.ok_or(NotDelivered)?,
            message,
            notify: notify(done),
        };
        self.queue.send(queued).await.map_err(|_| NotDelivered)?;
        is_done.await.map_err(|_| NotDelivered)
    }

    /// Waits until the hello of a connection is accepted.
    pub async fn connected(&self) {
        let mut connection = self.connection.clone();
        if connection.wait_for(Option::is_some).await.is_err() {
            // The channel has ended.
            std::future::pending().await
        }
    }

    /// Sends a message of a stream: it replaces one of the same kind that was not written yet.
    pub fn send_newest(&self, frame: Outgoing) {
        if let Some(connection) = *self.connection.borrow() {
            self.frames.put(connection, frame);
        }
    }

    /// What a service offers may have changed. If so, the channel connects again with a new hello.
    pub fn offer_changed(&self) {
        self.offer_changed.notify_one();
    }
}
