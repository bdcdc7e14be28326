//! Region, credentials and endpoints from the AWS SDK's default chain.
//!
//! In Greengrass, `AWS_CONTAINER_CREDENTIALS_FULL_URI` names the token exchange service and `AWS_REGION` the region. Outside
//! Greengrass, profiles, the environment and SSO work. Credentials change about hourly, so they are fetched for each use.

use std::fmt;
use std::sync::Arc;

use aws_config::{BehaviorVersion, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_types::service_config::ServiceConfigKey;

use super::error::AwsError;
use super::http_client;
use super::partition::service_host;

/// Loads the configuration of the SDK's default chain. Credentials are fetched later, when they are needed. On EC2 the region
/// may come from the instance metadata service. Every client with this configuration uses the proxy of the environment.
pub async fn load() -> SdkConfig {
    aws_config::defaults(BehaviorVersion::latest())
        .http_client(http_client::new())
        .load()
        .await
}

/// A service that is called without its SDK crate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AwsService {
    /// Name in host names and signatures, for example `iot`.
    pub name: &'static str,
    /// Id in the SDKs, as in `AWS_ENDPOINT_URL_<ID in capitals>` and in the `services` section of a profile.
    pub id: &'static str,
}

/// IoT Core's control plane.
pub(super) const IOT: AwsService = AwsService { name: "iot", id: "IoT" };
/// Security Token Service.
pub(super) const STS: AwsService = AwsService { name: "sts", id: "STS" };

/// Credentials and region for one signature.
#[derive(Clone)]
pub struct SigningContext {
    /// Valid only for a short time: fetch them again for the next use. `Debug` redacts them.
    pub credentials: Credentials,
    /// The region to sign for.
    pub region: String,
}

/// Region, credentials and endpoints. They are loaded at the first use; clones share them.
#[derive(Clone, Default)]
pub struct AwsConfig {
    config: Arc<tokio::sync::Mutex<Option<SdkConfig>>>,
    /// The services for which the warning about dual-stack endpoints was logged.
    logged_dual_stack: Arc<parking_lot::Mutex<Vec<&'static str>>>,
}

impl fmt::Debug for AwsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AwsConfig")
    }
}

impl AwsConfig {
    /// The configuration of the default chain. While it has no region, each call loads it again: at boot the network may not
    /// be ready.
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

    /// Current credentials from the provider.
    ///
    /// # Errors
    /// [`AwsError::NoCredentials`], [`AwsError::CredentialsUnavailable`]
    pub async fn credentials(&self) -> Result<Credentials, AwsError> {
        let config = self.config().await;
        let provider = config
            .credentials_provider()
            .ok_or_else(|| AwsError::NoCredentials("the credential chain is empty".into()))?;
        let credentials = provider.provide_credentials().await;
        credentials.map_err(|error| AwsError::from_credentials_error(&error))
    }

    /// Current credentials with the region.
    ///
    /// # Errors
    /// The errors of [`Self::region`] and [`Self::credentials`].
    pub async fn signing_context(&self) -> Result<SigningContext, AwsError> {
        Ok(SigningContext {
            region: self.region().await?,
            credentials: self.credentials().await?,
        })
    }

    /// Whether the environment or the profile asks for FIPS endpoints.
    pub async fn use_fips(&self) -> bool {
        self.config().await.use_fips().unwrap_or_default()
    }

    /// Whether the environment or the profile asks for dual-stack endpoints.
    pub async fn use_dual_stack(&self) -> bool {
        self.config().await.use_dual_stack().unwrap_or_default()
    }

    /// Logs once for each service that its dual-stack host is not used, because the AWS crates in use do not contain it.
    fn log_dual_stack(&self, service: AwsService, host: &str) {
        let mut logged = self.logged_dual_stack.lock();
        if logged.contains(&service.name) {
            return;
        }
        logged.push(service.name);
        tracing::warn!(
            service = service.id,
            host,
            advice = %format_args!("set AWS_ENDPOINT_URL_{} to a dual-stack host", service.id.to_ascii_uppercase()),
            "AWS_USE_DUALSTACK_ENDPOINT does not apply to this service"
        );
    }

    /// Base URL of a service, without `/` at the end: `AWS_ENDPOINT_URL_<SERVICE>`, `AWS_ENDPOINT_URL` or the same settings of
    /// the profile, else its public host.
    ///
    /// # Errors
    /// [`AwsError::NoEndpoint`]
    pub(super) async fn base_url(&self, service: AwsService, region: &str) -> Result<String, AwsError> {
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
            Some(url) => Ok(url.trim_end_matches('/').to_owned()),
            None => {
                let host = service_host(service.name, region, config.use_fips().unwrap_or_default())?;
                if config.use_dual_stack().unwrap_or_default() {
                    self.log_dual_stack(service, &host);
                }
                Ok(format!("https://{host}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aws(builder: aws_types::sdk_config::Builder) -> AwsConfig {
        let config = builder.region(aws_types::region::Region::new("us-west-2")).build();
        AwsConfig {
            config: Arc::new(tokio::sync::Mutex::new(Some(config))),
            ..AwsConfig::default()
        }
    }

    #[tokio::test]
    async fn fips_applies_to_iot_and_sts_and_dual_stack_is_logged() {
        for (builder, iot, sts) in [
            (
                SdkConfig::builder(),
                "https://iot.us-west-2.amazonaws.com",
                "https://sts.us-west-2.amazonaws.com",
            ),
            (
                SdkConfig::builder().use_fips(true),
                "https://iot-fips.us-west-2.amazonaws.com",
                "https://sts-fips.us-west-2.amazonaws.com",
            ),
            (
                SdkConfig::builder().use_dual_stack(true),
                "https://iot.us-west-2.amazonaws.com",
                "https://sts.us-west-2.amazonaws.com",
            ),
            (
                SdkConfig::builder().use_fips(true).endpoint_url("http://h/"),
                "http://h",
                "http://h",
            ),
        ] {
            let aws = aws(builder);
            let is_logged = aws.use_dual_stack().await;
            assert_eq!(aws.base_url(IOT, "us-west-2").await.as_deref(), Ok(iot));
            assert_eq!(aws.base_url(STS, "us-west-2").await.as_deref(), Ok(sts));
            let logged: &[&str] = if is_logged { &["iot", "sts"] } else { &[] };
            assert_eq!(*aws.logged_dual_stack.lock(), logged);
        }
    }
}
