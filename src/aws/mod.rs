//! AWS: credentials, region, endpoints and secrets, and [`AwsError`] for all failures.
//!
//! A component with another broker, a local model and no bucket does not use this module.

mod access;
mod answer;
mod clock_skew;
mod credentials_advice;
pub mod discovery;
mod endpoint_cache;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod http_client;
mod iot_host;
mod partition;
mod request;
pub mod secret;
pub mod secret_value;
pub mod sigv4;
mod token_exchange;

pub use access::{AwsConfig, SigningContext, load};
pub(crate) use answer::Answer;
pub use clock_skew::ClockSkew;
pub(crate) use credentials_advice::hidden_source;
pub use endpoint_cache::EndpointCache;
pub use error::AwsError;
pub use iot_host::{IotHost, IotHostError};
