//! `check --online`: runs one probe for each feature that needs the network, and prints a line when it finishes.

use std::path::Path;
use std::pin::Pin;
use std::time::{Instant, SystemTime};

use super::{Exit, complain, say};
use crate::aws::secret::api_key;
use crate::aws::secret_value::{find_value, read_text};
use crate::aws::{AwsConfig, discovery};
use crate::cache;
use crate::config::{Config, IotAuth, Launch, ModelSource};
use crate::device::{Topics, peek};
use crate::studio::channel::{self, StudioAddresses};
use crate::studio::{ApiKeySource, FetchError, Provider, is_missing, upload};
use crate::supervisor::{SinkTarget, sink_target, uplink_settings};
use crate::uplink::{self, AdHocClient, Destination, EndpointOrigin, Message, ad_hoc_client_id};
use crate::util::backoff::Retry;
use crate::util::redact;
use crate::util::secret_reference::SecretReference;
use crate::util::text::sentence;

/// What the probes need.
struct ProbeContext {
    config: Config,
    /// Where messages go; the error is about `iot_endpoint`.
    link: Result<SinkTarget, String>,
    /// Address and client id of the MQTT probe; not the daemon's own id. `None`: there is no broker.
    settings: Option<uplink::Settings>,
    aws: AwsConfig,
}

/// The result of a probe.
enum ProbeResult {
    /// It works, with details.
    Works(String),
    /// It fails: the reason, and what to change.
    Fails(String),
    /// This configuration does not need it: the reason.
    NotNeeded(&'static str),
}

type Probe = for<'a> fn(&'a ProbeContext) -> Pin<Box<dyn Future<Output = ProbeResult> + 'a>>;

/// Name, what is tried, and the function; in the order of the output.
const PROBES: &[(&str, &str, Probe)] = &[
    (
        "identity",
        "finding AWS credentials and asking STS for their identity",
        |c| Box::pin(identity(c)),
    ),
    ("region", "looking for the AWS region", |c| Box::pin(region(c))),
    ("endpoint", "finding the broker's address", |c| Box::pin(endpoint(c))),
    ("secret", "asking Secrets Manager for the Edge Impulse API key", |c| {
        Box::pin(secret(c))
    }),
    (
        "studio",
        "asking Edge Impulse Studio for the project; downloading is not tried",
        |c| Box::pin(studio(c)),
    ),
    (
        "studio_channel",
        "connecting to the remote management of Edge Impulse Studio; no hello, which would replace the running component",
        |c| Box::pin(studio_channel(c)),
    ),
    (
        "studio_ingestion",
        "asking the ingestion of Edge Impulse Studio with the key; no sample is sent",
        |c| Box::pin(studio_ingestion(c)),
    ),
    (
        "source_secrets",
        "asking Secrets Manager for the secrets that gst_args names",
        |c| Box::pin(source_secrets(c)),
    ),
    ("bucket", "looking up s3_bucket; uploading is not tried", |c| {
        Box::pin(bucket(c))
    }),
    ("mqtt", "connecting and publishing to command/output", |c| {
        Box::pin(mqtt(c))
    }),
];

/// Runs every probe, also when others fail.
pub(super) fn main(config: &Config) -> Exit {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            complain(&format!("the runtime cannot be started: {e}"));
            return Exit::Failure;
        }
    };
    let context = ProbeContext::new(config);
    say("Online");
    let all_work = runtime.block_on(async {
        let mut all_work = true;
        for (name, tried, run) in PROBES {
            let (verdict, details) = match run(&context).await {
                ProbeResult::Works(details) => ("ok", details),
                ProbeResult::NotNeeded(reason) => ("not needed", reason.to_owned()),
                ProbeResult::Fails(reason) => {
                    all_work = false;
                    ("FAILS", reason)
                }
            };
            let details = redact::credentials(&details.replace('\n', " "));
            say(&format!("  {name}: {verdict} ({tried}): {details}"));
        }
        all_work
    });
    if all_work { Exit::Orderly } else { Exit::Failure }
}

impl ProbeContext {
    fn new(config: &Config) -> Self {
        let device = peek(&config.device_name, &config.work_dir, Path::new("/")).name;
        let link = sink_target(config);
        let settings = link.as_ref().ok().and_then(|target| {
            let mut settings = uplink_settings(config, target, &device, &Topics::new(&device))?;
            settings.client_id = ad_hoc_client_id(&device);
            Some(settings)
        });
        Self {
            config: config.clone(),
            link,
            settings,
            aws: AwsConfig::default(),
        }
    }

    /// Whether `run` would download a model.
    fn downloads(&self) -> bool {
        match &self.config.model {
            _ if self.config.launch == Launch::Linux => false,
            None => true,
            Some(ModelSource::File(path)) => is_missing(path),
            Some(_) => false,
        }
    }

    /// Whether `run` needs the Edge Impulse API key.
    fn needs_api_key(&self) -> bool {
        self.downloads() || self.config.wants_uploads() || self.config.wants_studio_channel()
    }

    /// Whether anything in this configuration needs AWS credentials.
    fn uses_aws(&self) -> bool {
        let signs = match &self.link {
            // With a certificate, credentials are needed only to ask for the endpoint.
            Ok(SinkTarget::IotCore(endpoint)) => endpoint.is_none() || self.config.iot_auth == IotAuth::SigV4,
            _ => false,
        };
        self.needs_api_key() || self.config.s3_cache_bucket.is_some() || signs || !self.source_secrets().is_empty()
    }

    /// The secrets that the launch line names.
    fn source_secrets(&self) -> Vec<SecretReference> {
        let line = self.config.source.as_ref().map_or("", |line| &line.0);
        let found = SecretReference::find_all(line).into_iter();
        found.filter_map(|found| found.reference).collect()
    }
}

const NO_AWS: &str = "nothing in this configuration uses AWS credentials";

async fn identity(context: &ProbeContext) -> ProbeResult {
    if !context.uses_aws() {
        return ProbeResult::NotNeeded(NO_AWS);
    }
    let credentials = match context.aws.credentials().await {
        Ok(credentials) => credentials,
        Err(e) => return ProbeResult::Fails(e.to_string()),
    };
    let key = credentials.access_key_id();
    let end = key.get(key.len().saturating_sub(4)..).unwrap_or_default();
    let validity = match credentials.expiry().map(|at| at.duration_since(SystemTime::now())) {
        None => "which do not expire".to_owned(),
        Some(Ok(left)) => format!("which expire in {} minutes", left.as_secs() / 60),
        Some(Err(_)) => "which have expired".to_owned(),
    };
    let credentials = format!("credentials with the access key …{end}, {validity}");
    match discovery::caller(&context.aws).await {
        Ok(arn) => ProbeResult::Works(format!("{arn}; {credentials}")),
        Err(e) => ProbeResult::Fails(format!("there are {credentials}, but STS does not confirm them: {e}")),
    }
}

async fn region(context: &ProbeContext) -> ProbeResult {
    if !context.uses_aws() {
        return ProbeResult::NotNeeded(NO_AWS);
    }
    match context.aws.region().await {
        Ok(region) => ProbeResult::Works(region),
        Err(e) => ProbeResult::Fails(e.to_string()),
    }
}

async fn endpoint(context: &ProbeContext) -> ProbeResult {
    let iot_core = match (&context.settings, &context.link) {
        (_, Err(reason)) => return ProbeResult::Fails(reason.clone()),
        (Some(settings), Ok(_)) => match &settings.address {
            Destination::IotCore(iot_core) => iot_core,
            Destination::Broker { .. } => return ProbeResult::NotNeeded("iot_endpoint is a URL"),
        },
        (None, Ok(_)) => return ProbeResult::NotNeeded("there is no broker"),
    };
    match iot_core.endpoint().await {
        Ok((endpoint, EndpointOrigin::Configured)) => ProbeResult::Works(format!("{endpoint}, from iot_endpoint")),
        Ok((endpoint, EndpointOrigin::Discovered)) => ProbeResult::Works(format!("{endpoint}, from DescribeEndpoint")),
        Ok((endpoint, EndpointOrigin::EndpointCache(problem))) => ProbeResult::Works(format!(
            "{endpoint}, from an earlier DescribeEndpoint; a new one failed: {problem}"
        )),
        Err(reason) => ProbeResult::Fails(reason.to_string()),
    }
}

/// Shows the name of the key, never its value.
async fn secret(context: &ProbeContext) -> ProbeResult {
    let config = &context.config;
    if !context.needs_api_key() {
        return ProbeResult::NotNeeded("the model is on this device");
    }
    let (id, name) = (&config.secret_id, &config.secret_name);
    match api_key(&context.aws.config().await, id, name).await {
        Ok(_) => ProbeResult::Works(format!("the secret {id} has the key {name:?}")),
        Err(e) if config.runner.api_key.is_some() && e.retry() == Retry::Later => {
            ProbeResult::Works(format!("the API key of eiparams (--api-key) would be used: {e}"))
        }
        Err(e) => ProbeResult::Fails(sentence(&e)),
    }
}

/// Shows the names of secrets and keys, never a value.
async fn source_secrets(context: &ProbeContext) -> ProbeResult {
    let references = context.source_secrets();
    if references.is_empty() {
        return ProbeResult::NotNeeded("gst_args names no secret");
    }
    let (mut read, mut reasons) = (Vec::new(), Vec::new());
    let config = context.aws.config().await;
    for reference in &references {
        match read_text(&config, reference)
            .await
            .and_then(|text| find_value(&text, reference))
        {
            Ok(_) => read.push(reference.to_string()),
            Err(e) => reasons.push(sentence(&e)),
        }
    }
    if reasons.is_empty() {
        let read = read.join(", ");
        return ProbeResult::Works(format!("{read} can be read (secretsmanager:GetSecretValue)"));
    }
    ProbeResult::Fails(reasons.join("; "))
}

async fn studio(context: &ProbeContext) -> ProbeResult {
    if !context.needs_api_key() {
        return ProbeResult::NotNeeded("the model is on this device");
    }
    let provider = Provider::new(&context.config, std::env::var("EI_HOST").ok());
    match provider.probe().await {
        Ok(found) => ProbeResult::Works(found),
        Err(FetchError::Secret(_)) => ProbeResult::Fails("not tried: there is no API key".into()),
        Err(e) => ProbeResult::Fails(sentence(&e)),
    }
}

async fn studio_channel(context: &ProbeContext) -> ProbeResult {
    if !context.config.wants_studio_channel() {
        return ProbeResult::NotNeeded("collect and monitor are off");
    }
    let url = match StudioAddresses::from_env().remote_management() {
        Ok(url) => url,
        Err(e) => return ProbeResult::Fails(sentence(&e)),
    };
    match channel::probe(&url).await {
        Ok(found) => ProbeResult::Works(found),
        Err(e) => ProbeResult::Fails(sentence(&e)),
    }
}

/// An upload without a file: it stores nothing.
async fn studio_ingestion(context: &ProbeContext) -> ProbeResult {
    if !context.config.wants_uploads() {
        return ProbeResult::NotNeeded("nothing is collected");
    }
    let url = match StudioAddresses::from_env().ingestion() {
        Ok(url) => url,
        Err(e) => return ProbeResult::Fails(sentence(&e)),
    };
    let Ok(key) = ApiKeySource::new(&context.config).read().await else {
        return ProbeResult::Fails("not tried: there is no API key".into());
    };
    match upload::probe(&url, &key).await {
        Ok(found) => ProbeResult::Works(found),
        Err(e) => ProbeResult::Fails(sentence(&e)),
    }
}

async fn bucket(context: &ProbeContext) -> ProbeResult {
    match &context.config.s3_cache_bucket {
        None => ProbeResult::NotNeeded("the S3 cache is off"),
        Some(bucket) => match cache::probe(&bucket.name).await {
            Ok(found) => ProbeResult::Works(found),
            Err(e) => ProbeResult::Fails(sentence(&e)),
        },
    }
}

async fn mqtt(context: &ProbeContext) -> ProbeResult {
    if context.config.launch == Launch::Linux {
        return ProbeResult::NotNeeded("launch is linux, which publishes nothing");
    }
    let Some(settings) = &context.settings else {
        return ProbeResult::Fails("not tried: there is no address to connect to".into());
    };
    let uplink::Settings {
        address,
        client_id,
        topics,
        ..
    } = settings;
    let start = Instant::now();
    let mut client = match AdHocClient::connect(settings).await {
        Ok(client) => client,
        Err(error) => return ProbeResult::Fails(format!("no connection to {address} as {client_id}: {error}")),
    };
    let time = start.elapsed();
    let published = client.publish(Message::check(topics)).await;
    client.disconnect().await;
    match published {
        Ok(()) => ProbeResult::Works(format!(
            "{address} accepted {client_id} after {} ms and acknowledged a message to {}",
            time.as_millis(),
            topics.command_output
        )),
        Err(error) => ProbeResult::Fails(format!(
            "{address} accepted {client_id}, but did not acknowledge a message to {}: {error}; on AWS IoT Core the role (or the \
             certificate's policy) needs iot:Publish on topic/{}",
            topics.command_output, topics.command_output
        )),
    }
}
