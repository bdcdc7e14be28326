//! AWS: credentials, region, endpoints and secrets, and [`AwsError`] for everything that AWS refuses.
//!
//! Nothing here is used by a component with another broker, a local model and no bucket.

mod access;
mod clock_skew;
pub mod discovery;
mod endpoint_cache;
mod error;
mod http_client;
mod iot_host;
mod partition;
mod request;
pub mod secret;
pub mod secret_value;
pub mod sigv4;

pub use access::{AwsConfig, SigningContext, load};
pub use clock_skew::ClockSkew;
pub use endpoint_cache::EndpointCache;
pub use error::AwsError;
pub(crate) use error::{Answer, hidden_source};
pub use iot_host::{IotHost, IotHostError};
