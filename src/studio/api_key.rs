//! Where the Edge Impulse API key comes from.

use futures_util::future::BoxFuture;

use crate::aws::secret::{SecretError, api_key};
use crate::config::Config;
use crate::util::backoff::Retry;
use crate::util::secret::Secret;

/// Reads the API key when it is needed: a deployment or somebody in Secrets Manager may change it.
pub type ApiKeyReader = Box<dyn Fn() -> BoxFuture<'static, Result<Secret, SecretError>> + Send + Sync>;

/// Where the Edge Impulse API key comes from.
#[derive(Debug, Clone)]
pub struct ApiKeySource {
    /// Secrets Manager secret id.
    pub secret_id: String,
    /// Key in the secret.
    pub secret_name: String,
    /// `--api-key`: used if the secret is refused.
    pub option: Option<Secret>,
}

impl ApiKeySource {
    /// The source that a configuration names.
    pub fn new(config: &Config) -> Self {
        Self {
            secret_id: config.secret_id.clone(),
            secret_name: config.secret_name.clone(),
            option: config.runner.api_key.clone(),
        }
    }

    /// The key in Secrets Manager, or `--api-key` if Secrets Manager refuses.
    ///
    /// # Errors
    /// [`SecretError`]
    pub async fn read(&self) -> Result<Secret, SecretError> {
        let aws = crate::aws::load().await;
        match (api_key(&aws, &self.secret_id, &self.secret_name).await, &self.option) {
            (Err(e), Some(option)) if e.retry() == Retry::Later => {
                tracing::info!(error = %e, "Using the API key of eiparams (--api-key)");
                Ok(option.clone())
            }
            (result, _) => result,
        }
    }
}
