//! The forms in which people name an S3 bucket: the name, `s3://name`, an ARN, the URL of a console, each with a
//! prefix.

use std::fmt;

use percent_encoding::percent_decode_str;
use url::Url;

/// Most bytes of a prefix. S3 accepts keys of 1024 bytes, and the name of the model follows.
const MAX_PREFIX_BYTES: usize = 512;
/// Beginnings and ends that S3 reserves.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html>
const RESERVED_STARTS: [&str; 3] = ["xn--", "sthree-", "amzn-s3-demo-"];
const RESERVED_ENDS: [&str; 5] = ["-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"];

/// A bucket, and the prefix of every key in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Bucket {
    /// A name that S3 accepts.
    pub name: String,
    /// Empty, or ends with `/`.
    pub prefix: String,
}

impl fmt::Display for S3Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        match self.prefix.trim_end_matches('/') {
            "" => Ok(()),
            prefix => write!(f, "/{prefix}"),
        }
    }
}

/// Reads a bucket in any of the forms.
///
/// # Errors
/// What is wrong with the text, as a clause after "which".
pub(super) fn parse(text: &str) -> Result<S3Bucket, String> {
    let (name, prefix) = if let Some(rest) = strip_prefix_ignoring_case(text, "s3://") {
        split_at_slash(rest)
    } else if text.starts_with("arn:") {
        split_at_slash(name_in_arn(text)?)
    } else if text.contains("://") {
        name_in_url(text)?
    } else if is_host_of_s3(text) {
        name_in_url(&format!("https://{text}"))?
    } else {
        split_at_slash(text)
    };
    if let Some(problem) = name_problem(&name) {
        return Err(format!("S3 can never have as a bucket: the name {problem}"));
    }
    Ok(S3Bucket {
        name,
        prefix: checked_prefix(&prefix)?,
    })
}

fn strip_prefix_ignoring_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

fn split_at_slash(text: &str) -> (String, String) {
    let (name, prefix) = text.split_once('/').unwrap_or((text, ""));
    (name.to_owned(), prefix.to_owned())
}

/// `name/prefix` in `arn:<partition>:s3:::name/prefix/*`.
fn name_in_arn(arn: &str) -> Result<&str, String> {
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    match parts.as_slice() {
        [_, _, "s3", "", "", resource] => Ok(resource.trim_end_matches('*')),
        [_, _, "s3" | "s3-outposts" | "s3-object-lambda", ..] => {
            Err("is the ARN of an access point or of another resource, not of a bucket".to_owned())
        }
        _ => Err("is an ARN, but not of an S3 bucket".to_owned()),
    }
}

/// Whether the text is a URL of S3 without its scheme.
fn is_host_of_s3(text: &str) -> bool {
    let host = text.split('/').next().unwrap_or_default();
    let before_domain = host.split_once(".amazonaws.").map_or("", |(before, _)| before);
    before_domain
        .split('.')
        .any(|label| label == "s3" || label.starts_with("s3-"))
}

/// Name and prefix in the URL of a console or of an object.
fn name_in_url(text: &str) -> Result<(String, String), String> {
    let no_bucket = || "is a URL that names no S3 bucket".to_owned();
    let url = Url::parse(text).map_err(|_| no_bucket())?;
    let host = url.host_str().filter(|_| matches!(url.scheme(), "http" | "https"));
    let host = host.ok_or_else(no_bucket)?;
    let path = percent_decode_str(url.path()).decode_utf8_lossy().into_owned();
    let path = path.trim_start_matches('/');
    if host.split('.').any(|label| label == "console") {
        // https://<region>.console.aws.amazon.com/s3/buckets/<name>?region=...&prefix=...
        let (_, rest) = path
            .split_once("buckets/")
            .or_else(|| path.split_once("object/"))
            .ok_or_else(no_bucket)?;
        let (name, in_path) = split_at_slash(rest);
        let in_query = url.query_pairs().find(|(key, _)| key == "prefix");
        let prefix = in_query.map_or(in_path, |(_, prefix)| prefix.into_owned());
        return Ok((name, prefix));
    }
    if !host.contains(".amazonaws.") {
        return Err(no_bucket());
    }
    let is_s3 = |label: &str| label == "s3" || label.starts_with("s3-");
    if host.split('.').next().is_some_and(is_s3) {
        // https://s3.<region>.amazonaws.com/<name>/<prefix>
        return Ok(split_at_slash(path));
    }
    // https://<name>.s3.<region>.amazonaws.com/<prefix>; the name may have dots.
    let at = host
        .rfind(".s3.")
        .or_else(|| host.rfind(".s3-"))
        .ok_or_else(no_bucket)?;
    Ok((host.get(..at).unwrap_or_default().to_owned(), path.to_owned()))
}

/// What is wrong with the name of a bucket, as a clause after "the name".
fn name_problem(name: &str) -> Option<String> {
    let is_end = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let other = name
        .chars()
        .find(|c| !(c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.')));
    if let Some(c) = other {
        return Some(match c {
            c if c.is_uppercase() => "has capital letters".to_owned(),
            c if c.is_whitespace() => "has white space".to_owned(),
            c => format!("has the character {c:?}"),
        });
    }
    let problem = match name.len() {
        0 => "is empty",
        1..3 => "is shorter than 3 characters",
        64.. => "is longer than 63 characters",
        _ if !is_end(name.chars().next()) => "does not begin with a letter or a digit",
        _ if !is_end(name.chars().last()) => "does not end with a letter or a digit",
        _ if name.contains("..") => "has two dots in a row",
        _ if name.parse::<std::net::Ipv4Addr>().is_ok() => "is an IP address",
        _ if RESERVED_STARTS.iter().any(|start| name.starts_with(start)) => "begins with letters that S3 reserves",
        _ if RESERVED_ENDS.iter().any(|end| name.ends_with(end)) => "ends with letters that S3 reserves",
        _ => return None,
    };
    Some(problem.to_owned())
}

/// The prefix with one `/` at its end; empty for none.
fn checked_prefix(prefix: &str) -> Result<String, String> {
    let prefix = prefix.trim_matches('/');
    if prefix.is_empty() {
        return Ok(String::new());
    }
    let problem = if prefix.len() > MAX_PREFIX_BYTES {
        Some("is longer than 512 bytes")
    } else if prefix.contains(|c: char| c.is_whitespace() || c.is_control()) {
        Some("has white space")
    } else if prefix.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
        Some("has an empty part, `.` or `..`")
    } else {
        None
    };
    match problem {
        Some(problem) => Err(format!("has a prefix that cannot be used: it {problem}")),
        None => Ok(format!("{prefix}/")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_form_names_bucket_and_prefix() {
        for (text, name, prefix) in [
            ("my-bucket", "my-bucket", ""),
            ("my.bucket.1/", "my.bucket.1", ""),
            ("my-bucket/a/b", "my-bucket", "a/b/"),
            ("s3://my-bucket", "my-bucket", ""),
            ("S3://my-bucket/a/", "my-bucket", "a/"),
            ("arn:aws:s3:::my-bucket", "my-bucket", ""),
            ("arn:aws:s3:::my-bucket/*", "my-bucket", ""),
            ("arn:aws-cn:s3:::my-bucket/a", "my-bucket", "a/"),
            (
                "https://s3.console.aws.amazon.com/s3/buckets/my-bucket?region=eu-west-1&prefix=a%2Fb/&showversions=false",
                "my-bucket",
                "a/b/",
            ),
            (
                "https://eu-west-1.console.aws.amazon.com/s3/buckets/my-bucket?region=eu-west-1&tab=objects",
                "my-bucket",
                "",
            ),
            ("https://my.bucket.s3.eu-west-1.amazonaws.com/a/", "my.bucket", "a/"),
            ("https://s3.eu-west-1.amazonaws.com/my-bucket/a", "my-bucket", "a/"),
            ("my.bucket.s3.amazonaws.com", "my.bucket", ""),
            ("my-bucket.s3.eu-west-1.amazonaws.com/a/", "my-bucket", "a/"),
            ("s3.eu-west-1.amazonaws.com/my-bucket/a", "my-bucket", "a/"),
            ("s3.backup.example.com/a", "s3.backup.example.com", "a/"),
        ] {
            let expected = S3Bucket {
                name: name.to_owned(),
                prefix: prefix.to_owned(),
            };
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_text_that_names_no_bucket_is_refused_with_the_reason() {
        let long = "a".repeat(64);
        for (text, reason) in [
            ("MyS3Bucket123", "capital letters"),
            ("my_bucket", "the character '_'"),
            ("s3://my_bucket/a", "the character '_'"),
            ("my bucket", "white space"),
            ("ab", "shorter"),
            (long.as_str(), "longer"),
            ("-bucket", "begin"),
            ("bucket-", "end with"),
            ("my..bucket", "two dots"),
            ("10.0.0.5", "IP address"),
            ("my-point-s3alias", "reserves"),
            ("s3://", "empty"),
            ("my-bucket/../other", "prefix"),
            ("arn:aws:s3:eu-west-1:123456789012:accesspoint/mine", "access point"),
            ("arn:aws:dynamodb:eu-west-1:123456789012:table/t", "not of an S3 bucket"),
            ("https://example.com/my-bucket", "names no S3 bucket"),
            ("https://s3.console.aws.amazon.com/s3/home", "names no S3 bucket"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_understood_is_read_the_same_again(text in "(s3://|arn:aws:s3:::|https://s3\\.amazonaws\\.com/)?[a-z0-9._/-]{0,40}") {
            if let Ok(bucket) = parse(&text) {
                prop_assert_eq!(parse(&bucket.to_string()), Ok(bucket));
            }
        }
    }
}
