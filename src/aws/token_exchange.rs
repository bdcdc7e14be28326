//! Requests to Greengrass's token exchange service, which may move while the component runs.
//!
//! The SDK reads the address and the token once from the environment. On Greengrass Lite the service gets another port at each
//! start, and the component another token after a crash of the nucleus' IPC daemon. The nucleus knows both.

use std::time::Duration;

use aws_smithy_runtime_api::client::http::{HttpConnector, SharedHttpConnector};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};
use url::Url;

use super::credentials_advice::TOKEN_EXCHANGE;
use crate::nucleus::Nucleus;
use crate::util::secret::Secret;

/// Time for the question to the nucleus. The SDK's clients wait 5 s in all for credentials.
const NUCLEUS_LIMIT: Duration = Duration::from_secs(2);
/// The nucleus is asked no more often than this. A service that is being restarted is found by one of the next attempts.
const NUCLEUS_INTERVAL: Duration = Duration::from_secs(3);
/// The header with the token.
const AUTHORIZATION: &str = "authorization";

/// The token exchange service and where it is now.
#[derive(Debug)]
pub(super) struct TokenExchange {
    nucleus: Nucleus,
    /// The address in the environment, to which the SDK sends its requests.
    configured: Url,
    /// The token in the environment. Another value in a request is not Greengrass's, and stays.
    configured_token: Secret,
    current: Mutex<Url>,
    /// When the nucleus was asked last. The lock is held meanwhile: other requests wait for the answer.
    asked: tokio::sync::Mutex<Option<Instant>>,
}

impl TokenExchange {
    /// The service that the environment names; `None`: Greengrass did not start this process.
    pub(super) fn from_env() -> Option<Self> {
        let configured = std::env::var(TOKEN_EXCHANGE).ok()?;
        Some(Self::new(Nucleus::from_env()?, Url::parse(&configured).ok()?))
    }

    fn new(nucleus: Nucleus, configured: Url) -> Self {
        Self {
            configured_token: nucleus.token(),
            nucleus,
            current: Mutex::new(configured.clone()),
            configured,
            asked: tokio::sync::Mutex::new(None),
        }
    }

    /// Whether the SDK sends this request to the service.
    pub(super) fn is_addressed_by(&self, request: &HttpRequest) -> bool {
        Url::parse(request.uri()).is_ok_and(|url| url == self.configured)
    }

    /// Sends a request to the service. If it fails in a way that another address or token can mend, asks the nucleus for them,
    /// and sends it once more if one of them is new: the service remembers failures, so the same request is not repeated.
    ///
    /// # Errors
    /// The errors of the connector.
    pub(super) async fn send(
        &self,
        connector: &SharedHttpConnector,
        request: HttpRequest,
    ) -> Result<HttpResponse, ConnectorError> {
        let again = request.try_clone();
        let used = self.place();
        let result = connector.call(self.readdress(request, &used)).await;
        let Some(again) = again.filter(|_| may_be_outdated(&result)) else {
            return result;
        };
        self.ask_nucleus().await;
        let place = self.place();
        if place == used {
            return result;
        }
        connector.call(self.readdress(again, &place)).await
    }

    fn place(&self) -> (Url, Secret) {
        (self.current.lock().clone(), self.nucleus.token())
    }

    fn readdress(&self, mut request: HttpRequest, (address, token): &(Url, Secret)) -> HttpRequest {
        if *address != self.configured && request.set_uri(address.as_str()).is_err() {
            return request;
        }
        if *token != self.configured_token
            && request.headers().get(AUTHORIZATION) == Some(self.configured_token.reveal())
            && let Err(error) = request
                .headers_mut()
                .try_insert(AUTHORIZATION, token.reveal().to_owned())
        {
            tracing::debug!(%error, "The new token is not accepted as a header");
        }
        request
    }

    /// Asks the nucleus for the port of the service, and thereby for a new token if it no longer knows the old one.
    async fn ask_nucleus(&self) {
        let mut asked = self.asked.lock().await;
        if asked.is_some_and(|asked| asked.elapsed() < NUCLEUS_INTERVAL) {
            return;
        }
        *asked = Some(Instant::now());
        match timeout(NUCLEUS_LIMIT, self.nucleus.token_exchange_port()).await {
            Ok(Ok(port)) => {
                let mut current = self.current.lock();
                // An `http` URL does not keep its default port 80.
                if current.port_or_known_default() != Some(port) && current.set_port(Some(port)).is_ok() {
                    tracing::info!(port, "The token exchange service has a new port");
                }
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "The nucleus does not tell the port of the token exchange service")
            }
            Err(_) => tracing::debug!(limit = ?NUCLEUS_LIMIT, "The nucleus does not answer"),
        }
    }
}

/// Whether the service may be elsewhere, or may know the component by another token. Greengrass Lite answers 404 to an unknown
/// token, the classic nucleus 403. Anything may listen on a port that the service has left.
fn may_be_outdated(result: &Result<HttpResponse, ConnectorError>) -> bool {
    match result {
        Ok(response) => matches!(response.status().as_u16(), 400 | 401 | 403 | 404),
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use aws_smithy_runtime_api::client::http::HttpConnectorFuture;
    use aws_smithy_types::body::SdkBody;
    use tokio::net::UnixListener;

    use super::*;

    const URL: &str = "http://localhost:1234/2016-11-01/credentialprovider/";

    /// Answers every request with this status, and counts them.
    #[derive(Debug, Clone)]
    struct StatusConnector(u16, Arc<AtomicUsize>);

    impl HttpConnector for StatusConnector {
        fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
            self.1.fetch_add(1, Ordering::SeqCst);
            let status = self.0.try_into().unwrap();
            HttpConnectorFuture::ready(Ok(HttpResponse::new(status, SdkBody::empty())))
        }
    }

    fn exchange(socket: &std::path::Path) -> TokenExchange {
        TokenExchange::new(Nucleus::new(socket, Secret::new("first")), URL.parse().unwrap())
    }

    #[tokio::test]
    async fn a_refusal_is_not_repeated_when_nothing_changed_and_the_nucleus_is_asked_rarely() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = asked.clone();
        // Closes each connection at once: the token is refused.
        let nucleus = tokio::spawn(async move {
            while listener.accept().await.is_ok() {
                counter.fetch_add(1, Ordering::SeqCst);
            }
        });
        let exchange = exchange(&socket);
        for (status, total) in [(200, 0), (404, 1), (403, 1), (500, 1)] {
            let count = Arc::new(AtomicUsize::new(0));
            let connector = SharedHttpConnector::new(StatusConnector(status, count.clone()));
            let response = exchange.send(&connector, HttpRequest::get(URL).unwrap()).await.unwrap();
            assert_eq!(response.status().as_u16(), status);
            assert_eq!(count.load(Ordering::SeqCst), 1);
            assert_eq!(asked.load(Ordering::SeqCst), total, "after the answer {status}");
        }
        nucleus.abort();
    }

    #[test]
    fn only_the_token_of_greengrass_is_replaced_and_only_for_the_service() {
        let exchange = exchange("/nonexistent".as_ref());
        let new = (URL.replace("1234", "99").parse().unwrap(), Secret::new("second"));
        for (token, expected) in [("first", "second"), ("mine", "mine")] {
            let mut request = HttpRequest::get(URL).unwrap();
            request.headers_mut().insert(AUTHORIZATION, token);
            assert!(exchange.is_addressed_by(&request));
            let request = exchange.readdress(request, &new);
            assert_eq!(request.headers().get(AUTHORIZATION), Some(expected));
            assert_eq!(request.uri(), URL.replace("1234", "99"));
        }
        for other in [
            "http://localhost:1235/2016-11-01/credentialprovider/",
            "http://localhost:1234/other",
        ] {
            assert!(!exchange.is_addressed_by(&HttpRequest::get(other).unwrap()), "{other}");
        }
    }
}
