//! AWS Signature Version 4 for requests without an SDK crate: the WebSocket handshake of IoT Core and GET requests.

use std::time::{Duration, SystemTime};

use aws_sigv4::http_request::{
    SessionTokenMode, SignableBody, SignableRequest, SignatureLocation, SigningInstructions, SigningSettings, sign,
};
use aws_sigv4::sign::v4;
use url::form_urlencoded;

use super::access::SigningContext;
use super::error::AwsError;
use crate::util::secret::Secret;

/// Name of IoT Core's data plane in signatures.
/// <https://docs.aws.amazon.com/iot/latest/developerguide/protocols.html#mqtt-ws>
const IOT_GATEWAY: &str = "iotdevicegateway";
/// How long a signed handshake is valid. It is used for one attempt only.
const VALID_FOR: Duration = Duration::from_secs(300);

/// The URL of a WebSocket handshake with IoT Core, presigned at `now`. It is a secret, because it gives access.
///
/// `authority` is the exact `Host` header of the request: the host, with the port unless it is 443. The session token is
/// appended after signing, because IoT Core refuses it in the signed query.
///
/// # Errors
/// [`AwsError::Signing`] for an invalid authority.
pub fn iot_websocket_url(authority: &str, context: &SigningContext, now: SystemTime) -> Result<Secret, AwsError> {
    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    settings.session_token_mode = SessionTokenMode::Exclude;
    settings.expires_in = Some(VALID_FOR);
    let url = format!("wss://{authority}/mqtt");
    let instructions = sign_request(&url, authority, IOT_GATEWAY, context, settings, now)?;
    let query = percent_encoded(
        instructions
            .params()
            .iter()
            .map(|(name, value)| (*name, value.as_ref())),
    );
    Ok(Secret::new(format!("{url}?{query}")))
}

/// The headers that sign a GET without a body at `now`. Their values are secrets.
///
/// # Errors
/// [`AwsError::Signing`] for an invalid URL.
pub fn get_headers(
    url: &str,
    authority: &str,
    service: &str,
    context: &SigningContext,
    now: SystemTime,
) -> Result<Vec<(String, Secret)>, AwsError> {
    let instructions = sign_request(url, authority, service, context, SigningSettings::default(), now)?;
    Ok(instructions
        .headers()
        .map(|(name, value)| (name.to_owned(), Secret::new(value)))
        .collect())
}

fn sign_request(
    url: &str,
    authority: &str,
    service: &str,
    context: &SigningContext,
    settings: SigningSettings,
    now: SystemTime,
) -> Result<SigningInstructions, AwsError> {
    let failed = |error: &dyn std::error::Error| AwsError::Signing(crate::util::text::sentence(error));
    let identity = context.credentials.clone().into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(&context.region)
        .name(service)
        .time(now)
        .settings(settings)
        .build()
        .map_err(|error| failed(&error))?;
    let headers = [("host", authority)].into_iter();
    let request =
        SignableRequest::new("GET", url, headers, SignableBody::Bytes(b"")).map_err(|error| failed(&error))?;
    let (instructions, _) = sign(request, &params.into())
        .map_err(|error| failed(&error))?
        .into_parts();
    Ok(instructions)
}

/// Percent encoding as Signature Version 4 requires it: `%20` for a space, `%2F` for `/`.
fn percent_encoded<'a>(params: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(params)
        .finish()
        .replace('+', "%20")
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_credential_types::Credentials;

    fn context(token: Option<&str>) -> SigningContext {
        SigningContext {
            credentials: Credentials::new("AKIDEXAMPLE", "the secret", token.map(str::to_owned), None, "test"),
            region: "eu-west-1".into(),
        }
    }

    fn url(token: Option<&str>) -> String {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let url = iot_websocket_url("a1-ats.iot.eu-west-1.amazonaws.com", &context(token), now).unwrap();
        url.reveal().to_owned()
    }

    #[test]
    fn the_session_token_is_last_and_does_not_change_the_signature() {
        let (without, with) = (url(None), url(Some("to/ken+=")));
        assert_eq!(with, format!("{without}&X-Amz-Security-Token=to%2Fken%2B%3D"));
        assert!(without.starts_with("wss://a1-ats.iot.eu-west-1.amazonaws.com/mqtt?X-Amz-Algorithm=AWS4-HMAC-SHA256&"));
        assert!(
            without.contains("X-Amz-Credential=AKIDEXAMPLE%2F20231114%2Feu-west-1%2Fiotdevicegateway%2Faws4_request&")
        );
        assert!(without.contains("&X-Amz-SignedHeaders=host&X-Amz-Signature="));
    }

    #[test]
    fn an_invalid_host_is_an_error() {
        let now = SystemTime::now();
        assert!(iot_websocket_url("a b", &context(None), now).is_err());
    }
}
