//! Bounds of the outbox.

/// Limits of memory and of messages in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxBounds {
    /// Payload bytes of inferences in memory; beyond it the oldest that is not being sent is dropped. With a spool they go
    /// to disk well before.
    pub inference_bytes: usize,
    /// Payload bytes of answers and notices in memory; beyond it the oldest that is not being sent is dropped.
    pub urgent_bytes: usize,
    /// Number of answers and notices in memory, likewise.
    pub urgent_messages: usize,
    /// Inferences sent and not acknowledged; at most [`MAX_WINDOW`].
    pub inference_window: usize,
    /// Answers, notices and clearings sent and not acknowledged; at most [`MAX_WINDOW`].
    pub urgent_window: usize,
}

impl Default for OutboxBounds {
    fn default() -> Self {
        Self {
            inference_bytes: 4 << 20,
            urgent_bytes: 1 << 20,
            urgent_messages: 1024,
            inference_window: 16,
            urgent_window: 16,
        }
    }
}

/// No single payload may be larger: with topic and header it stays below the packet limit of the connection, where a
/// larger one would end every connection anew. (IoT Core itself takes 128 KiB.)
pub const MAX_PAYLOAD_BYTES: usize = 255 * 1024;

/// Both windows together stay below what a connection takes at once, so that handing over a message never waits.
pub const MAX_WINDOW: usize = 24;
