//! Discovery of the account's IoT Core data endpoint, and of the identity of the caller.

use serde_json::Value;

use super::access::{AwsConfig, IOT, STS};
use super::error::AwsError;
use super::iot_host::IotHost;
use super::request::{get, xml_text};
use crate::util::text::first_line;

/// `DescribeEndpoint` for the endpoint with a certificate of Amazon Trust Services.
/// <https://docs.aws.amazon.com/iot/latest/apireference/API_DescribeEndpoint.html>
const DESCRIBE_ENDPOINT: &str = "/endpoint?endpointType=iot%3AData-ATS";
/// <https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html>
const GET_CALLER_IDENTITY: &str = "/?Action=GetCallerIdentity&Version=2011-06-15";

/// Requests the data endpoint from IoT Core. Needs the permission `iot:DescribeEndpoint`.
///
/// # Errors
/// See [`AwsError`].
pub async fn iot_endpoint(aws: &AwsConfig) -> Result<IotHost, AwsError> {
    let answer = get(aws, IOT, DESCRIBE_ENDPOINT, "iot:DescribeEndpoint").await?;
    parse_endpoint(&answer).ok_or_else(|| AwsError::NotUnderstood {
        service: "AWS IoT".into(),
        problem: "it has no endpointAddress".into(),
    })
}

pub(super) fn parse_endpoint(answer: &str) -> Option<IotHost> {
    let json: Value = serde_json::from_str(answer).ok()?;
    json["endpointAddress"].as_str()?.parse().ok()
}

/// Requests the ARN of the role or user of the credentials from STS. This needs no permission.
///
/// # Errors
/// See [`AwsError`].
pub async fn caller(aws: &AwsConfig) -> Result<String, AwsError> {
    let answer = get(aws, STS, GET_CALLER_IDENTITY, "sts:GetCallerIdentity").await?;
    parse_arn(&answer).ok_or_else(|| AwsError::NotUnderstood {
        service: "AWS STS".into(),
        problem: "it has no Arn".into(),
    })
}

pub(super) fn parse_arn(xml: &str) -> Option<String> {
    let arn = xml_text(xml, "Arn")?;
    arn.starts_with("arn:").then(|| first_line(arn))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_a_host_name_is_parsed_as_an_endpoint() {
        let host = parse_endpoint(r#"{"endpointAddress":"a1-ats.iot.eu-west-1.amazonaws.com"}"#);
        assert_eq!(
            host.map(|h| h.to_string()).as_deref(),
            Some("a1-ats.iot.eu-west-1.amazonaws.com")
        );
        for answer in [
            "",
            "<html>",
            "{}",
            r#"{"endpointAddress":"a b"}"#,
            r#"{"endpointAddress":7}"#,
        ] {
            assert_eq!(parse_endpoint(answer), None, "{answer}");
        }
    }

    #[test]
    fn the_arn_is_parsed_from_the_answer() {
        let xml = "<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>arn:aws:sts::1:assumed-role/R/i</Arn></x>";
        assert_eq!(parse_arn(xml).as_deref(), Some("arn:aws:sts::1:assumed-role/R/i"));
        assert_eq!(parse_arn("<Arn>hello</Arn>"), None);
    }

    proptest! {
        #[test]
        fn any_answer_gives_valid_values_or_none(text in "\\PC{0,60}", odd in "(?s).{0,20}") {
            for answer in [text.clone(), serde_json::json!({"endpointAddress": text}).to_string()] {
                if let Some(host) = parse_endpoint(&answer) {
                    prop_assert_eq!(host.to_string().parse(), Ok(host));
                }
            }
            let arn = parse_arn(&format!("<Arn>arn:{odd}</Arn>"));
            prop_assert!(arn.is_none_or(|arn| !arn.contains(char::is_control)));
        }
    }
}
