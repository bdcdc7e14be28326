//! Advice for credentials that cannot be fetched or are not accepted.

/// Greengrass sets this variable, the URL of the token exchange service, for every component that depends on it.
pub(super) const TOKEN_EXCHANGE: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
/// The sources that the credential chain reads before the token exchange service, in its order: the variable that selects the
/// source, the name of the source, and the variables to remove.
const EARLIER_SOURCES: [(&str, &str, &str); 3] = [
    (
        "AWS_ACCESS_KEY_ID",
        "AWS_ACCESS_KEY_ID in the environment",
        "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN",
    ),
    ("AWS_PROFILE", "the profile that AWS_PROFILE names", "AWS_PROFILE"),
    (
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "the token that AWS_WEB_IDENTITY_TOKEN_FILE names",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
    ),
];

/// Advice for credentials that cannot be fetched because of `reason`: a sentence without a full stop.
pub(super) fn credentials_advice(reason: &str) -> String {
    let has_file = has_credentials_file();
    hiding_source(is_set, has_file).unwrap_or_else(|| advice(is_set(TOKEN_EXCHANGE), reason).to_owned())
}

/// A sentence about the source of the credentials, appended to a failure that they may have caused. Empty if they cannot.
pub(crate) fn hidden_source() -> String {
    hiding_source(is_set, has_credentials_file()).map_or_else(String::new, |source| format!(". {source}"))
}

fn is_set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.is_empty())
}

/// Whether the credentials file exists, in which the credential chain looks for the default profile.
fn has_credentials_file() -> bool {
    let named = std::env::var_os("AWS_SHARED_CREDENTIALS_FILE").map(std::path::PathBuf::from);
    let file = named.or_else(|| Some(std::env::home_dir()?.join(".aws/credentials")));
    file.is_some_and(|file| file.is_file())
}

/// The source that is used instead of the token exchange service, as a sentence without a full stop.
fn hiding_source(is_set: impl Fn(&str) -> bool, has_credentials_file: bool) -> Option<String> {
    if !is_set(TOKEN_EXCHANGE) {
        return None;
    }
    let hides = |source: &str, remedy: &str| {
        format!("The credentials come from {source}, which hides the token exchange service of Greengrass: {remedy}")
    };
    let variable = EARLIER_SOURCES.iter().find(|(variable, ..)| is_set(variable));
    if let Some((_, source, variables)) = variable {
        return Some(hides(
            source,
            &format!("remove {variables} from the environment of the component"),
        ));
    }
    has_credentials_file.then(|| {
        hides(
            "~/.aws/credentials of the component's user (or AWS_SHARED_CREDENTIALS_FILE)",
            "remove that file",
        )
    })
}

fn advice(in_greengrass: bool, reason: &str) -> &'static str {
    if in_greengrass {
        return "Check the token exchange role alias and its role, and that aws.greengrass.TokenExchangeService runs; it \
                remembers a failure for up to 5 minutes";
    }
    if reason.to_ascii_lowercase().contains("sso") {
        return "Log in again: `aws sso login`, with `--profile` and the name in AWS_PROFILE if there is one";
    }
    "Outside Greengrass they come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment, or from the profile that \
     AWS_PROFILE names: check that they are right and not expired"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_advice_is_the_role_alias_in_greengrass_and_the_login_elsewhere() {
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

    #[test]
    fn only_a_source_beside_the_token_exchange_service_hides_it() {
        let hides = |names: &[&str], has_file| hiding_source(|name| names.contains(&name), has_file);
        for variable in ["AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE"] {
            let text = hides(&[variable, TOKEN_EXCHANGE], true).unwrap();
            let remedy = format!("remove {variable}");
            assert!(
                text.contains(&remedy) && text.contains("hides the token exchange"),
                "{text}"
            );
            assert_eq!(hides(&[variable], true), None, "by hand it is what the user wants");
        }
        assert!(hides(&[TOKEN_EXCHANGE], true).unwrap().contains("~/.aws/credentials"));
        assert_eq!(hides(&[TOKEN_EXCHANGE], false), None);
    }
}
