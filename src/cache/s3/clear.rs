//! Removes the objects that this device uploaded.

use std::collections::HashSet;
use std::sync::Arc;

use uuid::Uuid;

use super::bucket::{BucketClient, key};
use super::error::{RetryPlan, S3Error};
use super::index::UploadIndex;
use super::settings::S3Settings;
use crate::cache::error::CacheError;
use crate::cache::names::PairPart;
use crate::cache::s3_location::S3Location;
use crate::util::backoff::Retry;

/// Most pairs and clips that are removed with the same requests.
const BATCH: usize = 1000;

/// What a command removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClearTarget {
    All,
    One {
        id: Uuid,
        /// Whether the pair was waiting or its upload was running.
        was_waiting: bool,
    },
}

/// Removes objects from S3, and returns the index without the removed pairs. `bucket` is `None` if it has not been looked up
/// yet; a client is then created if there are objects to remove.
pub(super) async fn run(
    mut index: UploadIndex,
    target: ClearTarget,
    bucket: Option<Arc<BucketClient>>,
    settings: S3Settings,
) -> (UploadIndex, Result<(), CacheError>) {
    let client = LazyClient { bucket, settings };
    let result = match target {
        ClearTarget::All => clear_all(&mut index, client).await,
        ClearTarget::One { id, was_waiting } => clear_one(&mut index, id, was_waiting, client).await,
    };
    (index, result)
}

struct LazyClient {
    bucket: Option<Arc<BucketClient>>,
    settings: S3Settings,
}

impl LazyClient {
    async fn connect(self) -> Result<Arc<BucketClient>, S3Error> {
        match self.bucket {
            Some(bucket) => Ok(bucket),
            None => BucketClient::connect(&self.settings.bucket, self.settings.sdk)
                .await
                .map(Arc::new),
        }
    }
}

async fn clear_one(index: &mut UploadIndex, id: Uuid, was_waiting: bool, client: LazyClient) -> Result<(), CacheError> {
    let Some(location) = index.find(id)? else {
        return if was_waiting {
            Ok(())
        } else {
            Err(CacheError::NoSuchPair { id })
        };
    };
    let bucket = client.connect().await?;
    delete(&bucket, &location, &[id], &index.clips()?).await?;
    index.forget(&[id])
}

/// Continues with the other objects if S3 refuses one, and with the other buckets if S3 refuses a bucket. Stops if S3 is
/// unreachable.
async fn clear_all(index: &mut UploadIndex, client: LazyClient) -> Result<(), CacheError> {
    let uploaded = index.all()?;
    if uploaded.is_empty() {
        return Ok(());
    }
    let clips = index.clips()?;
    let client = client.connect().await?;
    let (mut result, mut refused_buckets) = (Ok(()), Vec::new());
    for (location, ids) in &uploaded {
        for batch in ids.chunks(BATCH) {
            if refused_buckets.contains(&&location.bucket) {
                break;
            }
            let Err(error) = delete(&client, location, batch, &clips).await else {
                index.forget(batch)?;
                continue;
            };
            let plan = error.retry();
            result = Err(error.into());
            match plan {
                RetryPlan::Wait(Retry::Soon) => return result,
                RetryPlan::Wait(Retry::Later) | RetryPlan::LookUp => refused_buckets.push(&location.bucket),
                RetryPlan::NextObject => {}
            }
        }
    }
    result
}

/// Removes the messages first, so that a message that is left always has its picture. `clips`: the ids that are clips.
async fn delete(
    client: &BucketClient,
    location: &S3Location,
    ids: &[Uuid],
    clips: &HashSet<Uuid>,
) -> Result<(), S3Error> {
    for part in [PairPart::Json, PairPart::Image, PairPart::Clip] {
        let has_part = |id: &&Uuid| clips.contains(id) == (part == PairPart::Clip);
        let keys = ids.iter().filter(has_part).map(|id| key(&location.prefix, *id, part));
        match client.delete(&location.bucket, keys).await {
            // The objects were deleted with the bucket.
            Err(S3Error::NoSuchBucket { .. }) => return Ok(()),
            other => other?,
        }
    }
    Ok(())
}
