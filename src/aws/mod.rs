//! AWS: credentials and region as the SDK's default chain finds them, nothing of our own.
//!
//! In Greengrass the token exchange service is reached through `AWS_CONTAINER_CREDENTIALS_FULL_URI` and the region through
//! `AWS_REGION`; by hand profiles, environment and SSO work. Credentials change about hourly: ask the provider each time.
//! Nothing here is touched by a component that uses another broker, a local model and no bucket.

pub(crate) mod advice;
mod clock;
pub mod discovery;
mod endpoint_cache;
mod http;
mod iot_host;
pub mod request;
pub mod secret;
pub mod sigv4;

use std::fmt;
use std::sync::Arc;

use aws_config::{BehaviorVersion, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_types::service_config::ServiceConfigKey;

use crate::util::text::{first_line, sentence};

pub use clock::ClockSkew;
pub use endpoint_cache::EndpointCache;
pub use iot_host::IotHost;

/// Loads the default chain. Finding credentials happens later, when they are needed; the region may ask the instance
/// metadata service on EC2. Every client made of it uses the proxy of the environment.
pub async fn load() -> SdkConfig {
    aws_config::defaults(BehaviorVersion::latest())
        .http_client(http::client())
        .load()
        .await
}

/// The domain that the hosts of AWS services in a region end in.
pub fn dns_suffix(region: &str) -> &'static str {
    if region.starts_with("cn-") {
        "amazonaws.com.cn"
    } else {
        "amazonaws.com"
    }
}

/// A service that is reached without an SDK crate of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Service {
    /// Its name in hosts and in signatures, e.g. `iot`.
    pub name: &'static str,
    /// Its id in the SDKs: `AWS_ENDPOINT_URL_<ID in capitals>` and the profile's `services` section.
    pub id: &'static str,
}

/// IoT Core's control plane.
pub const IOT: Service = Service { name: "iot", id: "IoT" };
/// Security Token Service: says who we are.
pub const STS: Service = Service { name: "sts", id: "STS" };

/// Why nothing can be signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AwsError {
    /// Neither environment, profile nor instance name a region.
    #[error("no AWS region is known: Greengrass sets AWS_REGION; by hand set it too, or `region` in ~/.aws/config")]
    NoRegion,
    /// Nothing gives credentials.
    #[error(
        "no AWS credentials were found: in Greengrass the component needs the dependency aws.greengrass.TokenExchangeService; \
         by hand set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    )]
    NoCredentials,
    /// Something should give credentials and does not.
    #[error(
        "AWS credentials could not be had: {}. {}", .0, advice::for_credentials(.0)
    )]
    Credentials(String),
    /// The request cannot be signed.
    #[error("an AWS request could not be signed: {0}")]
    Signing(String),
}

/// Credentials and region at one moment.
#[derive(Clone)]
pub struct Session {
    /// Good for now: ask again for the next use. Prints redacted.
    pub credentials: Credentials,
    /// Where.
    pub region: String,
}

/// The way to credentials and region, found when first used. Clones share what was found.
#[derive(Clone, Default)]
pub struct Aws {
    config: Arc<tokio::sync::Mutex<Option<SdkConfig>>>,
}

impl fmt::Debug for Aws {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Aws")
    }
}

impl Aws {
    /// What the default chain found. Without a region it looks again each time: at boot the network may come later.
    pub async fn config(&self) -> SdkConfig {
        let mut kept = self.config.lock().await;
        if let Some(config) = kept.as_ref().filter(|config| config.region().is_some()) {
            return config.clone();
        }
        let config = load().await;
        *kept = Some(config.clone());
        config
    }

    /// The region.
    ///
    /// # Errors
    /// [`AwsError::NoRegion`]
    pub async fn region(&self) -> Result<String, AwsError> {
        let config = self.config().await;
        config.region().map(ToString::to_string).ok_or(AwsError::NoRegion)
    }

    /// Fresh credentials, from the provider itself.
    ///
    /// # Errors
    /// [`AwsError::NoCredentials`], [`AwsError::Credentials`]
    pub async fn credentials(&self) -> Result<Credentials, AwsError> {
        use aws_credential_types::provider::error::CredentialsError;
        let config = self.config().await;
        let provider = config.credentials_provider().ok_or(AwsError::NoCredentials)?;
        provider.provide_credentials().await.map_err(|error| match error {
            CredentialsError::CredentialsNotLoaded(_) => AwsError::NoCredentials,
            error => {
                let reason = first_line(&sentence(&error));
                AwsError::Credentials(reason.trim_end_matches('.').to_owned())
            }
        })
    }

    /// Fresh credentials with the region.
    ///
    /// # Errors
    /// Each [`AwsError`] but `Signing`.
    pub async fn session(&self) -> Result<Session, AwsError> {
        Ok(Session {
            region: self.region().await?,
            credentials: self.credentials().await?,
        })
    }

    /// Where a service is: `AWS_ENDPOINT_URL_<SERVICE>`, `AWS_ENDPOINT_URL` or the profile's equivalents, else its public host.
    /// No `/` at the end.
    pub async fn base_url(&self, service: Service, region: &str) -> String {
        let config = self.config().await;
        let key = ServiceConfigKey::builder()
            .service_id(service.id)
            .env("AWS_ENDPOINT_URL")
            .profile("endpoint_url")
            .build();
        let special = config
            .service_config()
            .zip(key.ok())
            .and_then(|(services, key)| services.load_config(key));
        match special.or_else(|| config.endpoint_url().map(str::to_owned)) {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => format!("https://{}.{region}.{}", service.name, dns_suffix(region)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_in_china_end_differently() {
        assert_eq!(dns_suffix("cn-north-1"), "amazonaws.com.cn");
        assert_eq!(dns_suffix("ca-central-1"), "amazonaws.com");
    }
}
