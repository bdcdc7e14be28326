//! The nucleus of Greengrass, over its interprocess communication (IPC): the component's configuration and its changes,
//! the address of the token exchange service, and local publish/subscribe.
//!
//! The nucleus gives every lifecycle step the path of its socket and a token. Reading the own configuration needs no
//! `accessControl`; local publish/subscribe does. Outside Greengrass there is no nucleus, and nothing of this module is used.

mod connection;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod local_pubsub;
mod parameters;
mod running;
mod state;
mod token;
mod token_exchange;

pub use connection::Nucleus;
pub use error::NucleusError;
pub use local_pubsub::{LocalMessages, LocalPubSub};
pub use running::{RunningComponent, RunningError};
