//! Mocks of AWS services and of proxies. They do not use the AWS crates.

pub mod certificates;
pub mod gateway;
pub mod http;
pub mod proxy;
pub mod sigv4;
pub mod token_exchange;
