//! Stand-ins for AWS and for what lies between: nothing of the AWS crates is used here.

pub mod certificates;
pub mod gateway;
pub mod http;
pub mod proxy;
pub mod sigv4;
pub mod token_exchange;
