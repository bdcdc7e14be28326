//! AWS: credentials and region as the SDK's default chain finds them, nothing of our own.
//!
//! In Greengrass the token exchange service is reached through `AWS_CONTAINER_CREDENTIALS_FULL_URI` and the region through
//! `AWS_REGION`; by hand profiles, environment and SSO work. Credentials change about hourly: ask the provider each time.

pub mod secret;

use aws_config::{BehaviorVersion, SdkConfig};

/// Loads the default chain. Finding credentials happens later, when they are needed; the region may ask the instance
/// metadata service on EC2.
pub async fn load() -> SdkConfig {
    aws_config::defaults(BehaviorVersion::latest()).load().await
}
