//! A mock of Greengrass's token exchange service: each request gets new credentials, which are valid for seconds.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::http::{Answer, HttpServer};
use super::sigv4::Key;

/// Value of `AWS_CONTAINER_AUTHORIZATION_TOKEN`.
pub const AUTHORIZATION: &str = "svcuid-0123456789abcdef";

pub struct TokenExchange {
    pub server: HttpServer,
    keys: Keys,
    /// The token that it accepts.
    token: Arc<Mutex<String>>,
    valid_for: Duration,
}

/// The keys issued up to now, and when they expire.
#[derive(Clone, Default)]
pub struct Keys(Arc<Mutex<Vec<(Key, SystemTime)>>>);

impl Keys {
    /// Keys that do not expire.
    pub fn fixed(keys: impl IntoIterator<Item = Key>) -> Self {
        let far = SystemTime::now() + Duration::from_secs(86400);
        Self(Arc::new(Mutex::new(keys.into_iter().map(|key| (key, far)).collect())))
    }

    /// The key with this id, if it has not expired.
    pub fn find(&self, id: &str) -> Result<Key, String> {
        let keys = self.0.lock().unwrap();
        let (key, until) = keys.iter().find(|(key, _)| key.id == id).ok_or("an unknown key")?;
        (SystemTime::now() < *until)
            .then(|| key.clone())
            .ok_or("an expired key".to_owned())
    }

    pub fn all(&self) -> Vec<Key> {
        self.0.lock().unwrap().iter().map(|(key, _)| key.clone()).collect()
    }

    /// The secrets, which no log may contain.
    pub fn secrets(&self) -> Vec<String> {
        let keys = self.all().into_iter();
        let secrets = keys.flat_map(|key| [Some(key.secret), key.token]).flatten();
        secrets.chain([AUTHORIZATION.to_owned()]).collect()
    }

    /// When the last key expires.
    pub fn last_end(&self) -> Option<SystemTime> {
        self.0.lock().unwrap().last().map(|(_, until)| *until)
    }
}

impl TokenExchange {
    pub fn start(valid_for: Duration) -> Self {
        Self::serve(
            Keys::default(),
            Arc::new(Mutex::new(AUTHORIZATION.to_owned())),
            valid_for,
        )
    }

    /// Stops the service and starts it on another port. Credentials stay valid.
    pub fn restart(&mut self) {
        self.server.stop();
        *self = Self::serve(self.keys.clone(), self.token.clone(), self.valid_for);
    }

    /// Accepts this token and no other.
    pub fn accept(&self, token: String) {
        *self.token.lock().unwrap() = token;
    }

    fn serve(keys: Keys, token: Arc<Mutex<String>>, valid_for: Duration) -> Self {
        let (given, accepted) = (keys.clone(), token.clone());
        let server = HttpServer::start(move |request| {
            if request.headers.get("authorization") != Some(&*accepted.lock().unwrap()) {
                // As on Greengrass Lite; the classic nucleus answers 403.
                return Answer::new(404, "No such svcuid present.");
            }
            let mut given = given.0.lock().unwrap();
            let number = given.len();
            let key = Key {
                id: format!("ASIAEXAMPLE{number:04}"),
                secret: format!("secret/{number}+{}", uuid::Uuid::new_v4().simple()),
                token: Some(format!("token/{number}+{}==", uuid::Uuid::new_v4().simple())),
            };
            let until = SystemTime::now() + valid_for;
            let answer = json!({
                "AccessKeyId": key.id, "SecretAccessKey": key.secret, "Token": key.token,
                "Expiration": rfc3339(until),
            });
            given.push((key, until));
            Answer::new(200, answer.to_string())
        });
        Self {
            server,
            keys,
            token,
            valid_for,
        }
    }

    pub fn keys(&self) -> Keys {
        self.keys.clone()
    }

    /// The environment variables that Greengrass sets.
    pub fn environment(&self) -> [(&'static str, String); 2] {
        [
            (
                "AWS_CONTAINER_CREDENTIALS_FULL_URI",
                format!("http://localhost:{}/2016-11-01/credentialprovider/", self.server.port),
            ),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN", self.token.lock().unwrap().clone()),
        ]
    }
}

/// `2026-11-23T08:19:56Z` (days to date after Howard Hinnant's `civil_from_days`).
fn rfc3339(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let (days, rest) = (seconds / 86400 + 719_468, seconds % 86400);
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}
