//! Identifiers of messages in the outbox.

/// Identifies a message in the outbox. Later messages have greater tokens; messages of earlier runs have tokens up to 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub(in crate::uplink) i64);

impl Token {
    /// Before all others.
    pub(in crate::uplink) const MIN: Self = Self(i64::MIN);
}
