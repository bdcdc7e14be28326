//! An HTTP client for the AWS SDK that uses the proxy of the environment; the SDK's default client ignores it.

use std::fmt;
use std::sync::Arc;

use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::{Builder, Connector};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::connector_metadata::ConnectorMetadata;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::{RuntimeComponents, RuntimeComponentsBuilder};
use aws_smithy_types::config_bag::ConfigBag;
use url::{Host, Url};

use super::token_exchange::TokenExchange;

/// A client for all services. It uses the proxy of `HTTPS_PROXY`, `HTTP_PROXY` and `ALL_PROXY` (upper or lower case), except
/// for the hosts in `NO_PROXY`, for this machine (the token exchange service) and for the metadata services of EC2, ECS and EKS.
/// In Greengrass it follows the token exchange service to another port.
pub(super) fn new() -> SharedHttpClient {
    SharedHttpClient::new(Routes {
        token_exchange: TokenExchange::from_env().map(Arc::new),
        proxied: route(ProxyConfig::from_env),
        direct: route(ProxyConfig::disabled),
    })
}

fn route(proxy: fn() -> ProxyConfig) -> SharedHttpClient {
    Builder::new().build_with_connector_fn(move |settings, components| {
        let mut connector = Connector::builder()
            .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
            .proxy_config(proxy());
        connector.set_connector_settings(settings.cloned());
        if let Some(components) = components {
            connector.set_sleep_impl(components.sleep_impl());
        }
        connector.build()
    })
}

/// A client with and a client without the proxy. The host of each request decides which is used.
#[derive(Debug, Clone)]
struct Routes {
    /// `None`: Greengrass did not start this process.
    token_exchange: Option<Arc<TokenExchange>>,
    proxied: SharedHttpClient,
    direct: SharedHttpClient,
}

impl HttpClient for Routes {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(ProxyRouter {
            routes: self.clone(),
            settings: settings.clone(),
            components: components.clone(),
        })
    }

    fn validate_base_client_config(
        &self,
        components: &RuntimeComponentsBuilder,
        config: &ConfigBag,
    ) -> Result<(), BoxError> {
        self.proxied.validate_base_client_config(components, config)
    }

    fn connector_metadata(&self) -> Option<ConnectorMetadata> {
        self.proxied.connector_metadata()
    }
}

/// The routes with the settings of one client. Each route creates its connector at the first use.
struct ProxyRouter {
    routes: Routes,
    settings: HttpConnectorSettings,
    components: RuntimeComponents,
}

impl fmt::Debug for ProxyRouter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxyRouter")
            .field("routes", &self.routes)
            .finish_non_exhaustive()
    }
}

impl HttpConnector for ProxyRouter {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let route = if is_local(request.uri()) {
            &self.routes.direct
        } else {
            &self.routes.proxied
        };
        let connector = route.http_connector(&self.settings, &self.components);
        match &self.routes.token_exchange {
            Some(token_exchange) if token_exchange.is_addressed_by(&request) => {
                let token_exchange = token_exchange.clone();
                HttpConnectorFuture::new(async move { token_exchange.send(&connector, request).await })
            }
            _ => connector.call(request),
        }
    }
}

/// Whether the host of a URL is this machine or a metadata service of EC2, ECS or EKS, which no proxy can reach.
/// <https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html>
fn is_local(url: &str) -> bool {
    /// `fd00:ec2::254` belongs to EC2, `fd00:ec2::23` to EKS.
    const EC2: [u16; 2] = [0xfd00, 0x0ec2];
    let Ok(url) = Url::parse(url) else { return false };
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback() || address.is_link_local(),
        Some(Host::Ipv6(address)) => address.is_loopback() || address.segments().starts_with(&EC2),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_and_the_metadata_services_are_local() {
        for near in [
            "http://localhost:8080/2016-11-01/credentialprovider/",
            "http://127.0.0.1/",
            "http://[::1]:80/",
            "http://169.254.169.254/latest/api/token",
            "http://169.254.170.23/v1/credentials",
            "http://[fd00:ec2::254]/latest/api/token",
        ] {
            assert!(is_local(near), "{near}");
        }
        for far in [
            "https://secretsmanager.eu-west-1.amazonaws.com/",
            "https://localhost.example.com/",
            "http://10.0.0.1/",
            "http://[fd00::1]/",
            "no url",
        ] {
            assert!(!is_local(far), "{far}");
        }
    }
}
