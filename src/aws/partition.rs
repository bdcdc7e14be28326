//! The hosts of AWS services, from the partition data in the AWS crates.

use aws_sdk_secretsmanager::config::endpoint::{DefaultResolver, Params, ResolveEndpoint};
use futures_util::FutureExt;

use super::error::AwsError;

/// The host of a service; its FIPS host if `fips`. `service` is its name in host names, for example `iot`.
///
/// # Errors
/// [`AwsError::NoEndpoint`] if the region has no such host.
pub(super) fn service_host(service: &str, region: &str, fips: bool) -> Result<String, AwsError> {
    let suffix = dns_suffix(region, fips)?;
    // In GovCloud the default host of STS is the FIPS host.
    let is_default_host = service == "sts" && region.starts_with("us-gov-");
    let label = if fips && !is_default_host { "-fips" } else { "" };
    Ok(format!("{service}{label}.{region}.{suffix}"))
}

/// Whether AWS host names of the region end with `suffix`.
pub(super) fn is_dns_suffix(region: &str, suffix: &str) -> bool {
    dns_suffix(region, false).is_ok_and(|known| known == suffix)
}

/// The part after the region in the host names of services. The AWS crates keep the partition data private, so it is read from
/// the host of Secrets Manager, which ends with the suffix of the partition (its dual-stack host does not).
fn dns_suffix(region: &str, fips: bool) -> Result<String, AwsError> {
    let none = |reason: String| AwsError::NoEndpoint {
        region: region.to_owned(),
        reason,
    };
    let params = Params::builder()
        .region(region)
        .use_fips(fips)
        .use_dual_stack(false)
        .build()
        .map_err(|error| none(error.to_string()))?;
    let resolver = DefaultResolver::new();
    // The resolver does no I/O.
    let endpoint = ResolveEndpoint::resolve_endpoint(&resolver, &params).now_or_never();
    let endpoint = endpoint
        .ok_or_else(|| none("unknown".to_owned()))?
        .map_err(|error| none(error.to_string()))?;
    let suffix = endpoint.url().split_once(&format!(".{region}."));
    suffix
        .map(|(_, suffix)| suffix.to_owned())
        .ok_or_else(|| none(format!("the host {} has an unknown form", endpoint.url())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_follow_partition_and_fips() {
        for (service, region, fips, host) in [
            ("iot", "eu-west-1", false, "iot.eu-west-1.amazonaws.com"),
            ("iot", "cn-north-1", false, "iot.cn-north-1.amazonaws.com.cn"),
            ("iot", "eusc-de-east-1", false, "iot.eusc-de-east-1.amazonaws.eu"),
            ("sts", "eusc-de-east-1", false, "sts.eusc-de-east-1.amazonaws.eu"),
            ("iot", "us-east-1", true, "iot-fips.us-east-1.amazonaws.com"),
            ("sts", "us-east-1", true, "sts-fips.us-east-1.amazonaws.com"),
            ("sts", "us-gov-west-1", true, "sts.us-gov-west-1.amazonaws.com"),
            ("iot", "us-gov-west-1", true, "iot-fips.us-gov-west-1.amazonaws.com"),
        ] {
            assert_eq!(service_host(service, region, fips).as_deref(), Ok(host));
        }
    }

    #[test]
    fn an_invalid_region_is_an_error() {
        let error = service_host("iot", "not a region", false).unwrap_err();
        assert!(error.to_string().contains("check AWS_REGION"), "{error}");
    }
}
