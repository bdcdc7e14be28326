//! One bucket, through the AWS SDK.

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
use crate::cache::CacheItem;
use crate::cache::names::{Part, file_name};

/// Making a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// One attempt to upload a part: long enough for a picture over a slow mobile link that four of them share.
const UPLOAD_ATTEMPT: Duration = Duration::from_secs(30);
/// An upload with the SDK's retries.
const UPLOAD: Duration = Duration::from_secs(60);
/// One attempt of everything that carries no picture.
const SMALL_ATTEMPT: Duration = Duration::from_secs(8);
/// The same with retries.
const SMALL: Duration = Duration::from_secs(16);
/// Most keys that one DeleteObjects takes (Amazon S3 API reference).
const MOST_KEYS: usize = 1000;
/// The region whose name S3 refuses as LocationConstraint: it is the one without.
const NO_CONSTRAINT: &str = "us-east-1";

/// How a bucket came to be usable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// It was there.
    There,
    /// It was made.
    Created,
}

/// A bucket and the client that reaches it.
#[derive(Debug, Clone)]
pub(super) struct Bucket {
    pub(super) name: String,
    /// Where it is, or would be made.
    pub(super) region: String,
    client: Client,
    sdk: SdkConfig,
}

impl Bucket {
    /// Makes a client; asks nobody but, where no region is set, the instance metadata service.
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
            client: client(&sdk, &region),
            region,
            sdk,
        })
    }

    /// Finds the bucket, in whatever region it is.
    ///
    /// # Errors
    /// [`S3Error::NoSuchBucket`], [`S3Error::Forbidden`], and those of the way there.
    pub(super) async fn look_up(&mut self) -> Result<(), S3Error> {
        match self.head().await {
            Err(S3Error::OtherRegion {
                region: Some(region), ..
            }) if region != self.region => {
                self.client = client(&self.sdk, &region);
                self.region = region;
                self.head().await
            }
            answer => answer,
        }
    }

    /// Finds the bucket, or makes it in the component's region.
    ///
    /// # Errors
    /// [`S3Error::NotYours`], [`AwsError::Denied`], and those of [`Self::look_up`].
    pub(super) async fn ready(&mut self) -> Result<Found, S3Error> {
        match self.look_up().await {
            Ok(()) => Ok(Found::There),
            Err(S3Error::NoSuchBucket { .. }) => self.create().await,
            Err(error) => Err(error),
        }
    }

    async fn head(&self) -> Result<(), S3Error> {
        let request = self.client.head_bucket().bucket(&self.name);
        match request.customize().config_override(small()).send().await {
            Ok(_) => Ok(()),
            Err(error) => Err(match S3Error::of(&error, &self.name, "s3:ListBucket") {
                S3Error::Aws(AwsError::Denied { .. }) => S3Error::Forbidden {
                    bucket: self.name.clone(),
                },
                other => other,
            }),
        }
    }

    async fn create(&self) -> Result<Found, S3Error> {
        let place = (self.region != NO_CONSTRAINT).then(|| {
            CreateBucketConfiguration::builder()
                .location_constraint(BucketLocationConstraint::from(self.region.as_str()))
                .build()
        });
        let request = self
            .client
            .create_bucket()
            .bucket(&self.name)
            .set_create_bucket_configuration(place);
        match request.customize().config_override(small()).send().await {
            Ok(_) => Ok(Found::Created),
            // Another device of this account was quicker.
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(|e| e.is_bucket_already_owned_by_you()) =>
            {
                Ok(Found::There)
            }
            Err(error) => Err(S3Error::of(&error, &self.name, "s3:CreateBucket")),
        }
    }

    /// Uploads a pair, the picture first: a message in the bucket always has its picture.
    ///
    /// # Errors
    /// When one of both was not taken.
    pub(super) async fn put_pair(&self, prefix: &str, pair: &CacheItem) -> Result<(), S3Error> {
        if let Some(image) = &pair.image {
            let key = key(prefix, pair.id, Part::Image);
            // A model that hears leaves its window as WAV.
            let kind = if image.starts_with(b"RIFF") {
                "audio/wav"
            } else {
                "image/jpeg"
            };
            self.put(key, image.clone(), kind).await?;
        }
        let key = key(prefix, pair.id, Part::Json);
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
        match request.send().await {
            Ok(_) => Ok(()),
            Err(error) => Err(S3Error::of(&error, &self.name, "s3:PutObject")),
        }
    }

    /// Removes objects of a bucket, which need not be there, a thousand with one request.
    ///
    /// # Errors
    /// The first object or request that failed; some may be gone all the same.
    pub(super) async fn delete(&self, bucket: &str, keys: impl Iterator<Item = String>) -> Result<(), S3Error> {
        let objects: Vec<_> = keys
            .filter_map(|key| ObjectIdentifier::builder().key(key).build().ok())
            .collect();
        for some in objects.chunks(MOST_KEYS) {
            let Ok(delete) = Delete::builder().set_objects(Some(some.to_vec())).quiet(true).build() else {
                continue;
            };
            let request = self.client.delete_objects().bucket(bucket).delete(delete);
            let answer = match request.customize().config_override(small()).send().await {
                Ok(answer) => answer,
                Err(error) => return Err(S3Error::of(&error, bucket, "s3:DeleteObject")),
            };
            if let Some(first) = answer.errors().first() {
                return Err(S3Error::of_deletion(bucket, first.code(), first.message()));
            }
        }
        Ok(())
    }
}

/// The key of one part.
pub(super) fn key(prefix: &str, id: uuid::Uuid, part: Part) -> String {
    format!("{prefix}{}", file_name(id, part))
}

fn client(sdk: &SdkConfig, region: &str) -> Client {
    let elsewhere = sdk.endpoint_url().is_some() || std::env::var_os("AWS_ENDPOINT_URL_S3").is_some();
    let config = Builder::from(sdk)
        .region(Region::new(region.to_owned()))
        // Stand-ins and other makes of S3 seldom have a name in the DNS for each bucket.
        .force_path_style(elsewhere)
        .timeout_config(timeouts(UPLOAD_ATTEMPT, UPLOAD));
    Client::from_conf(config.build())
}

fn small() -> Builder {
    Builder::new().timeout_config(timeouts(SMALL_ATTEMPT, SMALL))
}

fn timeouts(attempt: Duration, all: Duration) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT)
        .operation_attempt_timeout(attempt)
        .operation_timeout(all)
        .build()
}
