//! Bounds of the outbox.

/// Limits of memory and of messages in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxBounds {
    /// Most payload bytes of inferences in memory. When it is exceeded, the oldest that is not being sent is dropped. A
    /// spool writes them to disk before that.
    pub inference_bytes: usize,
    /// Most payload bytes of answers and notices in memory. When it is exceeded, the oldest that is not being sent is dropped.
    pub urgent_bytes: usize,
    /// Most answers and notices in memory; dropped in the same way.
    pub urgent_messages: usize,
    /// Most inferences sent and not acknowledged; at most [`MAX_WINDOW`].
    pub inference_window: usize,
    /// Most answers, notices and clearings sent and not acknowledged; at most [`MAX_WINDOW`].
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

/// Most bytes of a payload. With topic and header it stays below the packet limit of the connection: a larger packet
/// would end each new connection. (IoT Core itself accepts 128 KiB.)
pub const MAX_PAYLOAD_BYTES: usize = 255 * 1024;

/// Both windows together stay below the request capacity of a connection, so that publishing never waits.
pub const MAX_WINDOW: usize = 24;
