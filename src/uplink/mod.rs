//! The uplink: delivers messages to an MQTT broker and receives commands. It carries bytes and does not know the commands.
//!
//! Producers push into the [`Outbox`] and never wait. One driver task keeps a connection, sends the waiting messages, and
//! passes commands on. [`start`] starts it, [`Uplink::stop`] stops it.

mod ad_hoc_client;
pub mod address;
mod classify;
mod command_inbox;
mod connect_params;
mod connection;
mod connection_error;
mod copies;
mod destination;
mod driver;
#[doc(hidden)]
pub mod fuzzing;
mod in_flight;
mod iot_core;
mod link_state;
pub mod message;
mod outage;
pub mod outbox;
mod proxy;
mod rate_limiter;
mod recent;
mod settings;
mod spool;
mod tls;
mod uplink_task;

pub use ad_hoc_client::{AdHocClient, ReceivedMessage, ad_hoc_client_id};
pub use address::{Broker, BrokerAddress};
pub use command_inbox::{CommandRefusal, MAX_COMMAND_BYTES, ReceivedCommand};
pub use connect_params::ClientCertificate;
pub use connection_error::ConnectionError;
pub use copies::MessageCopies;
pub use destination::Destination;
pub use iot_core::{EndpointOrigin, IotCore, SignIn};
pub use link_state::LinkState;
pub use message::{Class, Message, ModelNotice, Status};
pub use outbox::{Outbox, SpoolPolicy};
pub use rate_limiter::{Rate, RateLimits};
pub use settings::{ConnectionTimes, Settings};
#[cfg(test)]
pub(crate) use spool::SteppedSpool;
pub use spool::{Spool, SpoolSettings};
pub use tls::check_files;
pub use uplink_task::{StopReport, Uplink, start};
