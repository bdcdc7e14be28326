//! One bucket, accessed with the AWS SDK.

use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{Builder, Region};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{BucketLocationConstraint, CreateBucketConfiguration, Delete, ObjectIdentifier};
use bytes::Bytes;

use super::error::S3Error;
use crate::aws::AwsError;
use crate::cache::item::CacheItem;
use crate::cache::names::{PairPart, file_name};

/// Time limit for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Time limit for one attempt to upload an object: enough for a picture on a slow mobile link that four uploads share.
const UPLOAD_ATTEMPT: Duration = Duration::from_secs(30);
/// Time limit for an upload with the SDK's retries.
const UPLOAD: Duration = Duration::from_secs(60);
/// Time limit for one attempt to upload a clip, which is up to a hundred times as large as a picture.
const CLIP_ATTEMPT: Duration = Duration::from_secs(600);
/// Time limit for the upload of a clip with the SDK's retries.
const CLIP_UPLOAD: Duration = Duration::from_secs(900);
/// Time limit for one attempt of a request without a picture.
const SMALL_ATTEMPT: Duration = Duration::from_secs(8);
/// Time limit for a request without a picture, with the SDK's retries.
const SMALL: Duration = Duration::from_secs(16);
/// Most keys in one DeleteObjects request (Amazon S3 API reference).
const MAX_KEYS: usize = 1000;
/// S3 refuses the name of this region as LocationConstraint; a bucket there is created without one.
const REGION_WITHOUT_CONSTRAINT: &str = "us-east-1";

/// Whether a bucket existed or was created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BucketOrigin {
    /// It existed.
    Existing,
    /// It was created.
    Created,
}

/// A bucket and its client.
#[derive(Debug, Clone)]
pub(super) struct BucketClient {
    pub(super) name: String,
    /// Region of the bucket, or region in which it would be created.
    pub(super) region: String,
    client: Client,
    sdk: SdkConfig,
}

impl BucketClient {
    /// Creates a client. Sends no request, except to the instance metadata service if no region is set.
    ///
    /// # Errors
    /// [`AwsError::NoRegion`].
    pub(super) async fn connect(name: &str, sdk: Option<SdkConfig>) -> Result<Self, S3Error> {
        let sdk = match sdk {
            Some(sdk) => sdk,
            None => crate::aws::load().await,
        };
        let region = sdk.region().ok_or(AwsError::NoRegion)?.to_string();
        Ok(Self {
            name: name.to_owned(),
            client: new_client(&sdk, &region),
            region,
            sdk,
        })
    }

    /// Looks the bucket up, in any region.
    ///
    /// # Errors
    /// [`S3Error::NoSuchBucket`], [`S3Error::Forbidden`], [`S3Error::Aws`].
    pub(super) async fn look_up(&mut self) -> Result<(), S3Error> {
        match self.head().await {
            Err(S3Error::OtherRegion {
                region: Some(region), ..
            }) if region != self.region => {
                self.client = new_client(&self.sdk, &region);
                self.region = region;
                self.head().await
            }
            answer => answer,
        }
    }

    /// Looks the bucket up, and creates it in the component's region if it does not exist.
    ///
    /// # Errors
    /// [`S3Error::NotYours`], [`AwsError::Denied`], and those of [`Self::look_up`].
    pub(super) async fn look_up_or_create(&mut self) -> Result<BucketOrigin, S3Error> {
        match self.look_up().await {
            Ok(()) => Ok(BucketOrigin::Existing),
            Err(S3Error::NoSuchBucket { .. }) => self.create().await,
            Err(error) => Err(error),
        }
    }

    async fn head(&self) -> Result<(), S3Error> {
        let request = self.client.head_bucket().bucket(&self.name);
        match request.customize().config_override(small_request()).send().await {
            Ok(_) => Ok(()),
            Err(error) => Err(match S3Error::from_sdk_error(&error, &self.name, "s3:ListBucket") {
                S3Error::Aws(AwsError::Denied { .. }) => S3Error::Forbidden {
                    bucket: self.name.clone(),
                },
                other => other,
            }),
        }
    }

    async fn create(&self) -> Result<BucketOrigin, S3Error> {
        let constraint = (self.region != REGION_WITHOUT_CONSTRAINT).then(|| {
            CreateBucketConfiguration::builder()
                .location_constraint(BucketLocationConstraint::from(self.region.as_str()))
                .build()
        });
        let request = self
            .client
            .create_bucket()
            .bucket(&self.name)
            .set_create_bucket_configuration(constraint);
        match request.customize().config_override(small_request()).send().await {
            Ok(_) => Ok(BucketOrigin::Created),
            // Another device of this account has just created it.
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(|e| e.is_bucket_already_owned_by_you()) =>
            {
                Ok(BucketOrigin::Existing)
            }
            Err(error) => Err(S3Error::from_sdk_error(&error, &self.name, "s3:CreateBucket")),
        }
    }

    /// Uploads the picture, then the message: a message in the bucket always has its picture. Of a clip only the video.
    ///
    /// # Errors
    /// An upload failed.
    pub(super) async fn put_pair(&self, prefix: &str, pair: &CacheItem) -> Result<(), S3Error> {
        if let (Some(clip), PairPart::Clip) = (&pair.image, pair.picture_part()) {
            let key = key(prefix, pair.id, PairPart::Clip);
            return self.put(key, clip.clone(), "video/mp4").await;
        }
        if let Some(image) = &pair.image {
            let key = key(prefix, pair.id, PairPart::Image);
            // Audio models store their window as WAV.
            let content_type = if image.starts_with(b"RIFF") {
                "audio/wav"
            } else {
                "image/jpeg"
            };
            self.put(key, image.clone(), content_type).await?;
        }
        let key = key(prefix, pair.id, PairPart::Json);
        self.put(key, pair.json.clone(), "application/json").await
    }

    async fn put(&self, key: String, bytes: Bytes, content_type: &str) -> Result<(), S3Error> {
        let request = self
            .client
            .put_object()
            .bucket(&self.name)
            .key(key)
            .content_type(content_type)
            .body(ByteStream::from(bytes));
        let limits = match content_type {
            "video/mp4" => timeouts(CLIP_ATTEMPT, CLIP_UPLOAD),
            _ => timeouts(UPLOAD_ATTEMPT, UPLOAD),
        };
        let limits = Builder::new().timeout_config(limits);
        match request.customize().config_override(limits).send().await {
            Ok(_) => Ok(()),
            Err(error) => Err(S3Error::from_sdk_error(&error, &self.name, "s3:PutObject")),
        }
    }

    /// Removes objects of a bucket, up to a thousand per request. Missing objects are no error.
    ///
    /// # Errors
    /// The first failure. Other objects may have been removed.
    pub(super) async fn delete(&self, bucket: &str, keys: impl Iterator<Item = String>) -> Result<(), S3Error> {
        let objects: Vec<_> = keys
            .filter_map(|key| ObjectIdentifier::builder().key(key).build().ok())
            .collect();
        for chunk in objects.chunks(MAX_KEYS) {
            let Ok(delete) = Delete::builder().set_objects(Some(chunk.to_vec())).quiet(true).build() else {
                continue;
            };
            let request = self.client.delete_objects().bucket(bucket).delete(delete);
            let answer = match request.customize().config_override(small_request()).send().await {
                Ok(answer) => answer,
                Err(error) => return Err(S3Error::from_sdk_error(&error, bucket, "s3:DeleteObject")),
            };
            if let Some(first) = answer.errors().first() {
                return Err(S3Error::from_deletion_error(bucket, first.code(), first.message()));
            }
        }
        Ok(())
    }
}

/// The object key of one part of a pair.
pub(super) fn key(prefix: &str, id: uuid::Uuid, part: PairPart) -> String {
    format!("{prefix}{}", file_name(id, part))
}

fn new_client(sdk: &SdkConfig, region: &str) -> Client {
    let is_custom_endpoint = sdk.endpoint_url().is_some() || std::env::var_os("AWS_ENDPOINT_URL_S3").is_some();
    let config = Builder::from(sdk)
        .region(Region::new(region.to_owned()))
        // Other implementations of S3 usually have no DNS name for each bucket.
        .force_path_style(is_custom_endpoint)
        .timeout_config(timeouts(UPLOAD_ATTEMPT, UPLOAD));
    Client::from_conf(config.build())
}

fn small_request() -> Builder {
    Builder::new().timeout_config(timeouts(SMALL_ATTEMPT, SMALL))
}

fn timeouts(attempt: Duration, all: Duration) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT)
        .operation_attempt_timeout(attempt)
        .operation_timeout(all)
        .build()
}

/// Looks a bucket up with the default credentials and region, for `check --online`. Changes nothing. Returns a sentence that
/// says where the bucket is, or that `run` will create it. Takes at most 16 s plus the time to fetch credentials.
///
/// Does not test the permission to upload: that would leave an object behind.
///
/// # Errors
/// The bucket cannot be used; the text says why and what to do.
pub async fn probe(bucket: &str) -> Result<String, S3Error> {
    let mut client = BucketClient::connect(bucket, None).await?;
    match client.look_up().await {
        Ok(()) => Ok(format!("the bucket {bucket} exists, in {}", client.region)),
        Err(S3Error::NoSuchBucket { .. }) => Ok(format!(
            "there is no bucket {bucket} yet; `run` creates it in {} (needs s3:CreateBucket)",
            client.region
        )),
        Err(error) => Err(error),
    }
}
