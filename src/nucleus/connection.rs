//! Connecting to the nucleus, and single requests.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use greengrass_ipc::{Client, ClientConfig, Error, IpcEnv};
use parking_lot::Mutex;
use serde_json::Value;

use super::error::NucleusError;
use super::token::{own_component, renewed_token};
use crate::util::secret::Secret;
use crate::util::text::sentence;

/// The nucleus is on the same machine: it answers within this time, or it hangs.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);

/// The nucleus that runs this component. Cheap to clone; clones share a renewed token.
#[derive(Clone)]
pub struct Nucleus {
    socket: PathBuf,
    token: Arc<Mutex<Secret>>,
}

impl fmt::Debug for Nucleus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Nucleus").field(&self.socket).finish()
    }
}

impl Nucleus {
    /// The nucleus whose socket and token are in the environment (`AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT` and
    /// `SVCUID`); `None`: Greengrass did not start this process.
    pub fn from_env() -> Option<Self> {
        let IpcEnv {
            socket_path,
            auth_token,
        } = IpcEnv::from_env().ok()?;
        Some(Self::new(socket_path, Secret::new(auth_token)))
    }

    /// The nucleus at `socket`, which knows the component by `token`.
    pub fn new(socket: impl Into<PathBuf>, token: Secret) -> Self {
        Self {
            socket: socket.into(),
            token: Arc::new(Mutex::new(token)),
        }
    }

    /// The token that the nucleus accepted last. The token exchange service accepts the same one.
    pub fn token(&self) -> Secret {
        self.token.lock().clone()
    }

    /// Opens a connection. On Greengrass Lite a new token replaces one that the nucleus no longer knows.
    ///
    /// # Errors
    /// [`NucleusError::Unreachable`], [`NucleusError::TokenRefused`], [`NucleusError::TimedOut`]
    pub(super) async fn connect(&self) -> Result<Client, NucleusError> {
        let refused = match self.connect_with(self.token()).await {
            Err(refused @ NucleusError::TokenRefused { .. }) => refused,
            result => return result,
        };
        let Some(component) = own_component() else {
            return Err(refused);
        };
        let renewed = tokio::time::timeout(REQUEST_LIMIT, renewed_token(&self.socket, &component)).await;
        let Ok(Ok(token)) = renewed else {
            return Err(refused);
        };
        tracing::info!(
            component,
            "The nucleus was restarted and has given the component a new token"
        );
        *self.token.lock() = token.clone();
        self.connect_with(token).await
    }

    async fn connect_with(&self, token: Secret) -> Result<Client, NucleusError> {
        let environment = IpcEnv {
            socket_path: self.socket.clone(),
            auth_token: token.reveal().to_owned(),
        };
        let config = ClientConfig::default().with_request_timeout(REQUEST_LIMIT);
        let connecting = Client::connect_with_config(&environment, config);
        match tokio::time::timeout(REQUEST_LIMIT, connecting).await {
            Ok(Ok(client)) => Ok(client),
            Ok(Err(Error::Handshake(reason))) => Err(NucleusError::TokenRefused {
                socket: self.socket.clone(),
                reason,
            }),
            Ok(Err(error)) => Err(NucleusError::Unreachable {
                socket: self.socket.clone(),
                reason: match &error {
                    Error::Io(error) => error.to_string(),
                    error => sentence(error),
                },
            }),
            Err(_) => Err(NucleusError::TimedOut {
                operation: "Connect",
                limit: REQUEST_LIMIT,
            }),
        }
    }
}

/// Reads a value of a component's configuration (`GetConfiguration`). `component`: `None` is the own one.
///
/// The answer is an object: the value itself if it is one, else `{"<last key>": value}`.
///
/// # Errors
/// [`NucleusError::NotFound`], [`NucleusError::TimedOut`], [`NucleusError::Failed`]
pub(super) async fn get_configuration(
    client: &Client,
    component: Option<&str>,
    path: &[&str],
) -> Result<Value, NucleusError> {
    const OPERATION: &str = "GetConfiguration";
    let component = component.map(str::to_owned);
    let path = path.iter().map(|&key| key.to_owned()).collect();
    let answer = client.get_configuration(component, path).await;
    match answer {
        Ok(answer) => answer.value.ok_or(NucleusError::NotFound { operation: OPERATION }),
        Err(error) => Err(NucleusError::of_operation(OPERATION, &error)),
    }
}
