//! What a person can do when there are no credentials: in Greengrass something else than by hand.

/// Set by Greengrass for every component with the token exchange service, and by nobody at a terminal.
const EXCHANGE: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI";

/// A sentence without a full stop: what to do when credentials cannot be had for `reason`.
pub(crate) fn for_credentials(reason: &str) -> &'static str {
    advice(std::env::var_os(EXCHANGE).is_some(), reason)
}

fn advice(in_greengrass: bool, reason: &str) -> &'static str {
    if in_greengrass {
        return "Look at the token exchange role alias and its role, and whether aws.greengrass.TokenExchangeService runs; it \
                remembers a failure for up to 5 minutes";
    }
    if reason.to_ascii_lowercase().contains("sso") {
        return "Log in anew: `aws sso login`, with `--profile` and the name in AWS_PROFILE when there is one";
    }
    "By hand they come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment, or from the profile that \
     AWS_PROFILE names: look whether they are right and not expired"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_role_alias_is_for_greengrass_and_the_login_for_people() {
        let expired = "the SSO token has expired and cannot be refreshed";
        assert!(advice(true, expired).contains("role alias"));
        assert!(advice(false, expired).contains("aws sso login"));
        let other = advice(false, "the process ended with 1");
        assert!(
            other.contains("AWS_PROFILE") && other.contains("environment"),
            "{other}"
        );
        assert!(!other.contains("role alias") && !other.contains("sso"), "{other}");
    }
}
