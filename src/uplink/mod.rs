//! The uplink: delivers messages to an MQTT broker and brings commands back.

pub mod address;
pub mod commands;
pub mod message;
pub mod outbox;

pub use address::{Broker, BrokerAddress};
pub use message::{Class, Message, Status};
pub use outbox::Outbox;
