//! The channel: a WebSocket to the remote management of Edge Impulse Studio, shared by everything that Studio asks of a device.
//!
//! [`ChannelTask`] connects, says [`hello`], keeps the connection alive and connects again with backoff. Services
//! ([`ChannelService`]) add to the hello what they offer, name the [`Incoming`] messages that they handle, and send through a
//! [`ChannelHandle`]. A message that no service handles is answered with a refusal, so Studio never waits.
//!
//! Nothing here blocks another part: the queue of outgoing messages is bounded, pictures of a stream replace each other, and
//! services put incoming messages into queues of their own. What is sent while there is no connection is not kept; a service
//! that must not lose a message waits for [`ChannelHandle::deliver`].
//!
//! The facts about the protocol are those of `edge-impulse-linux` 1.25.2.

mod bounded_json;
mod connection;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod handle;
mod hello;
mod incoming;
mod limits;
mod outgoing;
mod registration;
mod service;
mod socket;
mod studio_device;
mod task;

pub use error::ChannelError;
pub use handle::{ChannelEnds, ChannelHandle, NotDelivered};
pub use hello::{HelloMode, HelloOffer, Sensor};
pub use incoming::{Incoming, IncomingKind, MAX_RECORDS, RecordRequest, SampleRequest, SnapshotResolution};
pub use limits::ChannelLimits;
pub use outgoing::Outgoing;
pub use service::ChannelService;
pub use socket::probe;
pub use studio_device::StudioDevice;
pub use task::{ChannelSettings, ChannelTask, StudioAddresses, channel};
