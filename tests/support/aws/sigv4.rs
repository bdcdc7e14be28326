//! An independent implementation of AWS Signature Version 4, to check the signatures of the program.
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>

use std::collections::BTreeMap;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// A key of the account.
#[derive(Debug, Clone)]
pub struct Key {
    pub id: String,
    pub secret: String,
    pub token: Option<String>,
}

/// Region and service that a request must be signed for.
#[derive(Debug, Clone)]
pub struct Scope {
    pub region: &'static str,
    pub service: &'static str,
}

/// A received GET. Header names are in lower case.
#[derive(Debug, Clone)]
pub struct Request {
    /// Path and query.
    pub target: String,
    pub headers: BTreeMap<String, String>,
}

impl Request {
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// Decoded pairs of the query.
    pub fn query(&self) -> Vec<(String, String)> {
        let query = self.target.split_once('?').map_or("", |(_, query)| query);
        url::form_urlencoded::parse(query.as_bytes()).into_owned().collect()
    }

    fn parameter(&self, name: &str) -> Result<String, String> {
        let found = self.query().into_iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value).ok_or(format!("no {name} in the query"))
    }

    fn header(&self, name: &str) -> Result<&str, String> {
        self.headers
            .get(name)
            .map(String::as_str)
            .ok_or(format!("no header {name}"))
    }

    /// The key id in a presigned query or an Authorization header.
    pub fn key_id(&self) -> Result<String, String> {
        let credential = match self.parameter("X-Amz-Credential") {
            Ok(credential) => credential,
            Err(_) => part(self.header("authorization")?, "Credential=")?.to_owned(),
        };
        Ok(credential.split('/').next().unwrap_or_default().to_owned())
    }
}

/// Checks a presigned query like IoT Core: signed host, empty payload, and a session token that is not signed.
pub fn verify_presigned(request: &Request, key: &Key, scope: &Scope) -> Result<(), String> {
    let date = request.parameter("X-Amz-Date")?;
    let credential = request.parameter("X-Amz-Credential")?;
    expect("credential", &credential, &format!("{}/{}", key.id, scope.of(&date)))?;
    expect("algorithm", &request.parameter("X-Amz-Algorithm")?, "AWS4-HMAC-SHA256")?;
    expect("signed headers", &request.parameter("X-Amz-SignedHeaders")?, "host")?;
    match &key.token {
        Some(token) => expect("token", &request.parameter("X-Amz-Security-Token")?, token)?,
        None if request.parameter("X-Amz-Security-Token").is_ok() => return Err("a token nobody gave".into()),
        None => {}
    }
    let canonical = canonical(request, &["host"], &["X-Amz-Signature", "X-Amz-Security-Token"])?;
    expect(
        "signature",
        &request.parameter("X-Amz-Signature")?,
        &signature(&canonical, &date, key, scope),
    )
}

/// Checks an Authorization header; the session token is a signed header.
pub fn verify_headers(request: &Request, key: &Key, scope: &Scope) -> Result<(), String> {
    let authorization = request.header("authorization")?;
    let date = request.header("x-amz-date")?;
    let credential = part(authorization, "Credential=")?;
    expect("credential", credential, &format!("{}/{}", key.id, scope.of(date)))?;
    let signed: Vec<_> = part(authorization, "SignedHeaders=")?.split(';').collect();
    if let Some(token) = &key.token {
        expect("token", request.header("x-amz-security-token")?, token)?;
        if !signed.contains(&"x-amz-security-token") {
            return Err("the token is not signed".into());
        }
    }
    if !signed.contains(&"host") || !signed.contains(&"x-amz-date") {
        return Err(format!("only {signed:?} are signed"));
    }
    let canonical = canonical(request, &signed, &[])?;
    expect(
        "signature",
        part(authorization, "Signature=")?,
        &signature(&canonical, date, key, scope),
    )
}

impl Scope {
    fn of(&self, date: &str) -> String {
        let day = date.get(..8).unwrap_or_default();
        format!("{day}/{}/{}/aws4_request", self.region, self.service)
    }
}

fn expect(what: &str, found: &str, wanted: &str) -> Result<(), String> {
    if found == wanted {
        Ok(())
    } else {
        Err(format!("{what} is {found}, not {wanted}"))
    }
}

fn part<'a>(authorization: &'a str, name: &str) -> Result<&'a str, String> {
    authorization
        .split([' ', ','])
        .find_map(|part| part.strip_prefix(name))
        .ok_or(format!("no {name} in Authorization"))
}

fn canonical(request: &Request, signed: &[&str], left_out: &[&str]) -> Result<String, String> {
    let mut pairs: Vec<_> = request
        .query()
        .iter()
        .filter(|(key, _)| !left_out.contains(&key.as_str()))
        .map(|(key, value)| format!("{}={}", encoded(key), encoded(value)))
        .collect();
    pairs.sort();
    let mut text = format!("GET\n{}\n{}\n", request.path(), pairs.join("&"));
    for name in signed {
        text += &format!("{name}:{}\n", request.header(name)?.trim());
    }
    text += &format!("\n{}\n{}", signed.join(";"), hex(&Sha256::digest(b"")));
    Ok(text)
}

fn signature(canonical: &str, date: &str, key: &Key, scope: &Scope) -> String {
    let day = date.get(..8).unwrap_or_default();
    let text = format!(
        "AWS4-HMAC-SHA256\n{date}\n{}\n{}",
        scope.of(date),
        hex(&Sha256::digest(canonical))
    );
    let first = mac(format!("AWS4{}", key.secret).as_bytes(), day);
    let signing = [scope.region, scope.service, "aws4_request"]
        .iter()
        .fold(first, |key, part| mac(&key, part));
    hex(&mac(&signing, &text))
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}
