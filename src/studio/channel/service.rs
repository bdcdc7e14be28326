//! What a part of the component implements to use the channel.

use super::hello::HelloOffer;
use super::incoming::{Incoming, IncomingKind};

/// A part of the component that Studio talks to. All methods are called on the task of the channel and must not block: a service
/// puts messages into a bounded queue of its own and answers through its [`ChannelHandle`](super::ChannelHandle).
pub trait ChannelService: Send + Sync {
    /// The messages that it handles. Each kind belongs to one service.
    fn kinds(&self) -> &'static [IncomingKind];

    /// Adds what it offers to the hello.
    fn add_to_hello(&self, offer: &mut HelloOffer);

    /// Handles a message of [`Self::kinds`].
    fn handle(&self, message: Incoming);

    /// The connection has ended: streams that Studio asked for end too.
    fn disconnected(&self);
}
