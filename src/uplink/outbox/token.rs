//! Names of messages in the outbox.

/// Names one message in the outbox. Later messages have greater tokens; those of earlier runs are not above zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub(in crate::uplink) i64);

impl Token {
    /// Before all others.
    pub(super) const MIN: Self = Self(i64::MIN);
}
