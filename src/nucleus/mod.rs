//! The nucleus of Greengrass, over its interprocess communication (IPC): the component's configuration and its changes, and
//! the address of the token exchange service.
//!
//! The nucleus gives every lifecycle step the path of its socket and a token. Reading the own configuration needs no
//! `accessControl`. Outside Greengrass there is no nucleus, and nothing of this module is used.

mod connection;
mod error;
mod parameters;
mod running;
mod state;
mod token;
mod token_exchange;

pub use connection::Nucleus;
pub use error::NucleusError;
pub use running::{RunningComponent, RunningError};
