//! The S3 cache (`enable_cache_to_s3`): pairs as objects `<model name>_v<deploy version>/<id>.img` and `.json`.
//!
//! An [`S3Cache`] takes pairs without ever holding up the reporting side. A thread of its own uploads them, some at a time;
//! what S3 does not take waits on disk and is sent later, oldest first. AWS is asked nothing before that thread runs.

mod clear;
mod client;
mod engine;
mod error;
mod index;
mod pending;
mod state;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_config::SdkConfig;
use parking_lot::Mutex;
use tokio::sync::watch;

pub use self::error::S3Error;

use self::client::Bucket;
use self::engine::Engine;
use super::requests::{self, Requests};
use super::{CacheError, CacheItem, S3Location};
use crate::status::health::HealthFlag;
use crate::status::stats::Stats;
use crate::util::log_limiter::{LogLimiter, like};
use crate::util::panics::PanicRestart;

/// Bytes of pairs in memory: waiting for the thread, for an upload, or being uploaded for the first time.
const MEMORY_BYTES: usize = 8 << 20;

/// What an [`S3Cache`] needs to know.
#[derive(Debug, Clone)]
pub struct S3Settings {
    /// The bucket (`s3_bucket`).
    pub bucket: String,
    /// The device's own directory, for pairs that wait (`s3-pending/`) and the record of what was uploaded (`s3-index`).
    pub directory: PathBuf,
    /// Credentials, region and endpoint; `None`: what the default chain finds.
    pub sdk: Option<SdkConfig>,
}

impl S3Settings {
    /// For this device, with the default chain.
    pub fn new(bucket: &str, work_dir: &Path, device: &str) -> Self {
        Self {
            bucket: bucket.to_owned(),
            directory: work_dir.join(device),
            sdk: None,
        }
    }
}

/// A pair and where it goes.
struct Placed {
    place: S3Location,
    pair: CacheItem,
}

type Job = requests::Job<Placed>;
type Waiting = requests::Waiting<Placed>;

/// What both sides of the queue know.
struct Shared {
    stats: Arc<Stats>,
    said: Mutex<LogLimiter>,
    flag: HealthFlag,
}

impl Shared {
    /// Counts pairs that will never be in S3, and says so, the same reason once a minute.
    fn lost(&self, pairs: usize, error: &CacheError) {
        self.stats.cache_failures.add(pairs as u64);
        if let Some(more) = self.said.lock().check(Instant::now(), &error.kind()) {
            tracing::error!("a pair of picture and message will not be in S3{}: {error}", like(more));
        }
    }
}

/// The way of pairs to S3. See the module.
pub struct S3Cache {
    requests: Requests<Placed>,
    shared: Arc<Shared>,
    /// When everything must be on disk, once the end is asked for.
    stop: watch::Sender<Option<Instant>>,
    /// Closed when the thread has ended.
    ended: watch::Receiver<()>,
}

impl S3Cache {
    /// Starts the thread, which looks the bucket up.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start(settings: S3Settings, stats: Arc<Stats>) -> io::Result<Self> {
        let (requests, mut jobs) = Requests::new(MEMORY_BYTES);
        let (stop, stopping) = watch::channel(None);
        let (end, ended) = watch::channel(());
        let shared = Arc::new(Shared {
            stats,
            said: Mutex::default(),
            flag: HealthFlag::default(),
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let for_thread = shared.clone();
        std::thread::Builder::new().name("cache-s3".into()).spawn(move || {
            runtime.block_on(async {
                let mut relief = PanicRestart::new("the S3 cache");
                loop {
                    let engine = Engine::new(settings.clone(), &mut jobs, stopping.clone(), for_thread.clone());
                    let Err(wait) = relief.attempt(engine.run()).await else {
                        break;
                    };
                    tokio::time::sleep(wait).await;
                }
            });
            drop(end);
            // A look-up of a name cannot be interrupted, and nobody waits for it any more.
            runtime.shutdown_background();
        })?;
        Ok(Self {
            requests,
            shared,
            stop,
            ended,
        })
    }

    /// Offers a pair and returns at once. `false`: it was dropped, because too much is waiting or the cache has been
    /// stopped; that is counted as a cache failure and said once a minute.
    pub fn offer(&self, place: S3Location, pair: CacheItem) -> bool {
        let bytes = pair.size();
        let offered = self.requests.offer(Placed { place, pair }, bytes);
        offered.inspect_err(|error| self.shared.lost(1, error)).is_ok()
    }

    /// Whether S3 takes what is sent, as far as that was tried.
    pub fn flag(&self) -> HealthFlag {
        self.shared.flag.clone()
    }

    /// Removes every object that this device uploaded, and every pair that still waits, as far as they were offered
    /// before. Ends within half a minute when S3 does not answer; each thousand objects take a request.
    ///
    /// # Errors
    /// When something may be left in the bucket: [`CacheError::S3`]; [`CacheError::Stopped`]; [`CacheError::Behind`] when many
    /// such commands wait already.
    pub async fn clear(&self) -> Result<(), CacheError> {
        self.requests.clear().await
    }

    /// Removes one pair, from the bucket or from those that wait.
    ///
    /// # Errors
    /// [`CacheError::NotAnId`] for everything but a UUID; [`CacheError::NoSuchPair`]; those of [`Self::clear`].
    pub async fn clear_one(&self, id: &str) -> Result<(), CacheError> {
        self.requests.clear_one(id).await
    }

    /// Puts what is in memory on disk, for the next start, and ends the thread. `false`: it took longer than `limit`; what
    /// was still in memory is given up, counted and said.
    pub async fn stop(&self, limit: Duration) -> bool {
        // An error means that the thread has ended already.
        let _ = self.stop.send(Some(Instant::now() + limit));
        let mut ended = self.ended.clone();
        // The other side sends nothing: this resolves, with an error, when the thread has ended.
        if tokio::time::timeout(limit, ended.changed()).await.is_ok() {
            return true;
        }
        let left = self.requests.room().pairs();
        self.shared.stats.cache_failures.add(left as u64);
        tracing::error!(
            "{left} pairs of picture and message for S3 are lost: writing them to the disk took longer than {limit:?}"
        );
        false
    }
}

/// Looks a bucket up with the default credentials and region, for `check --online`. Makes and changes nothing. Gives what was
/// found as a sentence: where the bucket is, or that `run` will make it. Takes 16 s at most, once credentials are there.
///
/// Permission to upload is not tried: that would leave an object.
///
/// # Errors
/// Why the bucket cannot be used, with what to do.
pub async fn probe(bucket: &str) -> Result<String, S3Error> {
    let mut client = Bucket::connect(bucket, None).await?;
    match client.look_up().await {
        Ok(()) => Ok(format!("the bucket {bucket} is there, in {}", client.region)),
        Err(S3Error::NoSuchBucket { .. }) => Ok(format!(
            "there is no bucket {bucket} yet; `run` makes it in {} (needs s3:CreateBucket)",
            client.region
        )),
        Err(error) => Err(error),
    }
}
