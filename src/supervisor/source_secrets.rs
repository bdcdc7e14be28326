//! The secrets that the launch line names: read from AWS Secrets Manager when a source starts, and kept in memory.

use std::collections::HashMap;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::Handle;

use crate::aws::secret_value::{SecretValueError, find_value, read_text};
use crate::aws::{AwsConfig, AwsError};
use crate::capture::SecretResolver;
use crate::util::backoff::{Backoff, BackoffPolicy};
use crate::util::clock::rounded;
use crate::util::log_limiter::LogLimiter;
use crate::util::secret::Secret;
use crate::util::secret_reference::SecretReference;
use crate::util::text::sentence;

/// A value that is older than this is read again at the next start of the source.
const MAX_AGE: Duration = Duration::from_secs(300);
/// Longest wait for Secrets Manager. A start of the source is given up after 30 s.
const READ_LIMIT: Duration = Duration::from_secs(15);
/// The same while an earlier value can be used instead.
const REFRESH_LIMIT: Duration = Duration::from_secs(5);

/// Reads each secret once for each start of the source that may need a new value: after a failure, because its password may have
/// been changed, and for a new session. While AWS cannot be asked, the value that was read last is used.
#[derive(Debug)]
pub(super) struct SourceSecrets {
    aws: AwsConfig,
    runtime: Handle,
    known: Mutex<HashMap<String, KnownSecret>>,
    log_limiter: Mutex<LogLimiter>,
}

#[derive(Debug)]
struct KnownSecret {
    text: Secret,
    read_at: Instant,
    is_stale: bool,
    /// Of attempts to read it again.
    backoff: Backoff,
    next_attempt: Instant,
}

impl SourceSecrets {
    /// `runtime`: where the requests run.
    pub(super) fn new(runtime: Handle) -> Self {
        Self {
            aws: AwsConfig::default(),
            runtime,
            known: Mutex::default(),
            log_limiter: Mutex::default(),
        }
    }

    /// The next start of the source reads every secret again.
    pub(super) fn mark_stale(&self) {
        for known in self.known.lock().values_mut() {
            known.is_stale = true;
        }
    }

    /// The text of the secret, from AWS or from memory.
    fn text(&self, reference: &SecretReference) -> Result<Secret, SecretValueError> {
        let now = Instant::now();
        let earlier = {
            let known = self.known.lock();
            let known = known.get(&reference.id);
            if let Some(known) = known.filter(|known| !known.must_be_read(now)) {
                return Ok(known.text.clone());
            }
            known.map(|known| known.text.clone())
        };
        let limit = if earlier.is_some() { REFRESH_LIMIT } else { READ_LIMIT };
        match (self.read(reference, limit), earlier) {
            (Ok(text), earlier) => {
                if earlier.is_some_and(|earlier| earlier != text) {
                    tracing::info!(secret = reference.id, "A secret of the launch line has changed");
                }
                let known = KnownSecret::new(text.clone());
                self.known.lock().insert(reference.id.clone(), known);
                Ok(text)
            }
            (Err(error), Some(earlier)) if error.is_transient() => {
                self.postpone(reference, &error);
                Ok(earlier)
            }
            (Err(error), _) => Err(error),
        }
    }

    /// Asks Secrets Manager. Blocks for `limit` at most, also when the runtime ends meanwhile.
    fn read(&self, reference: &SecretReference, limit: Duration) -> Result<Secret, SecretValueError> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let (aws, asked) = (self.aws.clone(), reference.clone());
        let task = self.runtime.spawn(async move {
            let text = read_text(&aws.config().await, &asked).await;
            // Fails only when the start of the source was given up.
            let _ = sender.send(text);
        });
        receiver.recv_timeout(limit).unwrap_or_else(|_| {
            task.abort();
            Err(SecretValueError::Aws {
                reference: reference.clone(),
                error: Box::new(AwsError::Unreachable {
                    service: "Secrets Manager".to_owned(),
                    reason: "no answer in time".to_owned(),
                }),
            })
        })
    }

    /// Uses the earlier value until the next attempt.
    fn postpone(&self, reference: &SecretReference, error: &SecretValueError) {
        let now = Instant::now();
        let mut all = self.known.lock();
        let Some(known) = all.get_mut(&reference.id) else {
            return;
        };
        let wait = known.backoff.failed(now);
        known.next_attempt = now + wait;
        if let Some(suppressed) = self.log_limiter.lock().check_words(now, &error.to_string()) {
            tracing::warn!(
                secret = reference.id,
                retry_in = ?rounded(wait),
                suppressed = suppressed.count(),
                error = %sentence(error),
                "A secret of the launch line cannot be read again; the value that was read last is used"
            );
        }
    }
}

impl KnownSecret {
    fn new(text: Secret) -> Self {
        let now = Instant::now();
        Self {
            text,
            read_at: now,
            is_stale: false,
            backoff: Backoff::new(BackoffPolicy::default()),
            next_attempt: now,
        }
    }

    fn must_be_read(&self, now: Instant) -> bool {
        let is_old = self.is_stale || now.saturating_duration_since(self.read_at) > MAX_AGE;
        is_old && now >= self.next_attempt
    }
}

impl SecretResolver for SourceSecrets {
    fn resolve(&self, references: &[SecretReference]) -> Result<Vec<Secret>, String> {
        let value = |reference| find_value(&self.text(reference)?, reference);
        let values: Result<Vec<_>, SecretValueError> = references.iter().map(value).collect();
        values.map_err(|error| sentence(&error))
    }
}
