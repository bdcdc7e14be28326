//! Region, credentials and endpoints from the AWS SDK's default chain.
//!
//! In Greengrass, the token exchange service is found through `AWS_CONTAINER_CREDENTIALS_FULL_URI` and the region through
//! `AWS_REGION`; by hand, profiles, environment and SSO work. Credentials change about hourly: fetch them for each use.

use std::fmt;
use std::sync::Arc;

use aws_config::{BehaviorVersion, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_types::service_config::ServiceConfigKey;

use super::error::AwsError;
use super::http_client;

/// Loads the configuration of the SDK's default chain. Credentials are fetched later, when they are needed; on EC2 the region
/// may come from the instance metadata service. Every client made of it uses the proxy of the environment.
pub async fn load() -> SdkConfig {
    aws_config::defaults(BehaviorVersion::latest())
        .http_client(http_client::new())
        .load()
        .await
}

/// The domain of the AWS service hosts in a region.
pub fn dns_suffix(region: &str) -> &'static str {
    if region.starts_with("cn-") {
        "amazonaws.com.cn"
    } else {
        "amazonaws.com"
    }
}

/// A service that is called without its SDK crate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AwsService {
    /// Name in hosts and in signatures, e.g. `iot`.
    pub name: &'static str,
    /// Id in the SDKs, as in `AWS_ENDPOINT_URL_<ID in capitals>` and in the `services` section of a profile.
    pub id: &'static str,
}

/// IoT Core's control plane.
pub(super) const IOT: AwsService = AwsService { name: "iot", id: "IoT" };
/// Security Token Service.
pub(super) const STS: AwsService = AwsService { name: "sts", id: "STS" };

/// Credentials and region at one moment.
#[derive(Clone)]
pub struct SigningContext {
    /// Valid now: fetch them again for the next use. Prints redacted.
    pub credentials: Credentials,
    /// The region to sign for.
    pub region: String,
}

/// Region, credentials and endpoints, loaded when first used. Clones share what was loaded.
#[derive(Clone, Default)]
pub struct AwsConfig {
    config: Arc<tokio::sync::Mutex<Option<SdkConfig>>>,
}

impl fmt::Debug for AwsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AwsConfig")
    }
}

impl AwsConfig {
    /// The configuration of the default chain. It is loaded again as long as it has no region: at boot the network may come
    /// later.
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

    /// Current credentials, from the provider itself.
    ///
    /// # Errors
    /// [`AwsError::NoCredentials`], [`AwsError::CredentialsUnavailable`]
    pub async fn credentials(&self) -> Result<Credentials, AwsError> {
        let config = self.config().await;
        let provider = config
            .credentials_provider()
            .ok_or_else(|| AwsError::NoCredentials("the credential chain is empty".into()))?;
        let credentials = provider.provide_credentials().await;
        credentials.map_err(|error| AwsError::of_credentials(&error))
    }

    /// Current credentials with the region.
    ///
    /// # Errors
    /// Those of [`Self::region`] and [`Self::credentials`].
    pub async fn signing_context(&self) -> Result<SigningContext, AwsError> {
        Ok(SigningContext {
            region: self.region().await?,
            credentials: self.credentials().await?,
        })
    }

    /// Base URL of a service: `AWS_ENDPOINT_URL_<SERVICE>`, `AWS_ENDPOINT_URL` or the profile's equivalents, else its public host.
    /// Without `/` at the end.
    pub(super) async fn base_url(&self, service: AwsService, region: &str) -> String {
        let config = self.config().await;
        let key = ServiceConfigKey::builder()
            .service_id(service.id)
            .env("AWS_ENDPOINT_URL")
            .profile("endpoint_url")
            .build();
        let configured = config
            .service_config()
            .zip(key.ok())
            .and_then(|(services, key)| services.load_config(key));
        match configured.or_else(|| config.endpoint_url().map(str::to_owned)) {
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
