//! Removing what this device uploaded.

use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

use super::S3Settings;
use super::client::{Bucket, key};
use super::error::{RetryPlan, S3Error};
use super::index::{Index, Uploaded};
use crate::cache::names::Part;
use crate::cache::{CacheError, S3Location};
use crate::util::backoff::Retry;

/// Pairs removed together: two requests.
const BATCH: usize = 1000;

/// What a command wants removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    All,
    One {
        id: Uuid,
        /// It still waited, or was on its way.
        waited: bool,
    },
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => write!(f, "clearing the cache"),
            Self::One { id, .. } => write!(f, "removing the pair {id}"),
        }
    }
}

/// Removes from S3, and gives the index back with what is left. Without `bucket` (it was not found yet) a client is made
/// for it, when there is something to remove.
pub(super) async fn run(
    mut index: Index,
    what: What,
    bucket: Option<Arc<Bucket>>,
    settings: S3Settings,
) -> (Index, Result<(), CacheError>) {
    let client = Client { bucket, settings };
    let result = match what {
        What::All => all(&mut index, client).await,
        What::One { id, waited } => one(&mut index, id, waited, client).await,
    };
    (index, result)
}

struct Client {
    bucket: Option<Arc<Bucket>>,
    settings: S3Settings,
}

impl Client {
    async fn connected(self) -> Result<Arc<Bucket>, S3Error> {
        match self.bucket {
            Some(bucket) => Ok(bucket),
            None => Bucket::connect(&self.settings.bucket, self.settings.sdk)
                .await
                .map(Arc::new),
        }
    }
}

async fn one(index: &mut Index, id: Uuid, waited: bool, client: Client) -> Result<(), CacheError> {
    let Some(place) = index.find(id)? else {
        return if waited {
            Ok(())
        } else {
            Err(CacheError::NoSuchPair { id })
        };
    };
    let bucket = client.connected().await?;
    delete(&bucket, &place, &[id]).await?;
    index.forget(id)
}

async fn all(index: &mut Index, client: Client) -> Result<(), CacheError> {
    let uploaded = index.uploaded()?;
    if uploaded.pairs.is_empty() {
        return Ok(());
    }
    let bucket = client.connected().await?;
    let (left, result) = delete_all(&bucket, uploaded).await;
    index.replace(&left)?;
    result.map_err(CacheError::from)
}

/// Goes on after objects that are refused, and with other buckets after one that is; stops when S3 is not to be had. Gives
/// the pairs that may still be there.
async fn delete_all(bucket: &Bucket, uploaded: Uploaded) -> (Uploaded, Result<(), S3Error>) {
    let Uploaded { places, pairs } = uploaded;
    let (mut left, mut result) = (Vec::new(), Ok(()));
    let (mut over, mut closed) = (false, Vec::new());
    let batches = pairs.chunk_by(|a, b| a.1 == b.1).flat_map(|same| same.chunks(BATCH));
    for batch in batches {
        let Some(place) = batch.first().and_then(|(_, number)| places.get(*number)) else {
            continue;
        };
        if over || closed.contains(&place.bucket) {
            left.extend_from_slice(batch);
            continue;
        }
        let ids: Vec<_> = batch.iter().map(|(id, _)| *id).collect();
        if let Err(error) = delete(bucket, place, &ids).await {
            left.extend_from_slice(batch);
            match error.retry() {
                RetryPlan::Wait(Retry::Soon) => over = true,
                RetryPlan::Wait(Retry::Later) | RetryPlan::LookUp => closed.push(place.bucket.clone()),
                RetryPlan::NextObject => {}
            }
            result = Err(error);
        }
    }
    (Uploaded { places, pairs: left }, result)
}

/// Removes the messages first: one that is still there always has its picture.
async fn delete(bucket: &Bucket, place: &S3Location, ids: &[Uuid]) -> Result<(), S3Error> {
    for part in [Part::Json, Part::Image] {
        let keys = ids.iter().map(|id| key(&place.prefix, *id, part));
        match bucket.delete(&place.bucket, keys).await {
            // With the bucket went what was in it.
            Err(S3Error::NoSuchBucket { .. }) => return Ok(()),
            other => other?,
        }
    }
    Ok(())
}
