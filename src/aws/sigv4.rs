//! AWS Signature Version 4, for the two requests that no SDK crate makes: the WebSocket handshake of IoT Core and plain GETs.

use std::time::{Duration, SystemTime};

use aws_sigv4::http_request::{
    SessionTokenMode, SignableBody, SignableRequest, SignatureLocation, SigningInstructions, SigningSettings, sign,
};
use aws_sigv4::sign::v4;
use url::form_urlencoded;

use super::{AwsError, Session};
use crate::util::secret::Secret;

/// Name of IoT Core's data plane in signatures.
/// <https://docs.aws.amazon.com/iot/latest/developerguide/protocols.html#mqtt-ws>
const IOT_GATEWAY: &str = "iotdevicegateway";
/// How long a signed handshake may be used: it is made for one attempt.
const VALID_FOR: Duration = Duration::from_secs(300);

/// The URL of a WebSocket handshake with IoT Core, signed at `now` by presigned query. It is as good as a password.
///
/// `authority` is the host, with the port when that is not 443: exactly what the `Host` header will hold. The session token is
/// appended after signing: IoT Core does not take it as a part of what is signed.
///
/// # Errors
/// [`AwsError::Signing`], for an authority that is none.
pub fn iot_websocket_url(authority: &str, session: &Session, now: SystemTime) -> Result<Secret, AwsError> {
    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    settings.session_token_mode = SessionTokenMode::Exclude;
    settings.expires_in = Some(VALID_FOR);
    let url = format!("wss://{authority}/mqtt");
    let instructions = signed(&url, authority, IOT_GATEWAY, session, settings, now)?;
    let query = form_urlencoded_strictly(
        instructions
            .params()
            .iter()
            .map(|(name, value)| (*name, value.as_ref())),
    );
    Ok(Secret::new(format!("{url}?{query}")))
}

/// The headers that sign a GET without a body, at `now`. Their values are secrets.
///
/// # Errors
/// [`AwsError::Signing`], for a URL that is none.
pub fn get_headers(
    url: &str,
    authority: &str,
    service: &str,
    session: &Session,
    now: SystemTime,
) -> Result<Vec<(String, Secret)>, AwsError> {
    let instructions = signed(url, authority, service, session, SigningSettings::default(), now)?;
    Ok(instructions
        .headers()
        .map(|(name, value)| (name.to_owned(), Secret::new(value)))
        .collect())
}

fn signed(
    url: &str,
    authority: &str,
    service: &str,
    session: &Session,
    settings: SigningSettings,
    now: SystemTime,
) -> Result<SigningInstructions, AwsError> {
    let failed = |error: &dyn std::error::Error| AwsError::Signing(crate::util::text::sentence(error));
    let identity = session.credentials.clone().into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(&session.region)
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

/// Percent encoding as Signature Version 4 wants it: a space would be `%20`, and `/` is `%2F`.
fn form_urlencoded_strictly<'a>(params: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(params)
        .finish()
        .replace('+', "%20")
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_credential_types::Credentials;

    fn session(token: Option<&str>) -> Session {
        Session {
            credentials: Credentials::new("AKIDEXAMPLE", "the secret", token.map(str::to_owned), None, "test"),
            region: "eu-west-1".into(),
        }
    }

    fn url(token: Option<&str>) -> String {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let url = iot_websocket_url("a1-ats.iot.eu-west-1.amazonaws.com", &session(token), now).unwrap();
        url.reveal().to_owned()
    }

    #[test]
    fn the_session_token_comes_last_and_changes_no_signature() {
        let (without, with) = (url(None), url(Some("to/ken+=")));
        assert_eq!(with, format!("{without}&X-Amz-Security-Token=to%2Fken%2B%3D"));
        assert!(without.starts_with("wss://a1-ats.iot.eu-west-1.amazonaws.com/mqtt?X-Amz-Algorithm=AWS4-HMAC-SHA256&"));
        assert!(
            without.contains("X-Amz-Credential=AKIDEXAMPLE%2F20231114%2Feu-west-1%2Fiotdevicegateway%2Faws4_request&")
        );
        assert!(without.contains("&X-Amz-SignedHeaders=host&X-Amz-Signature="));
    }

    #[test]
    fn a_host_that_is_none_is_an_error() {
        let now = SystemTime::now();
        assert!(iot_websocket_url("a b", &session(None), now).is_err());
    }
}
