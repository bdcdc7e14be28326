//! `check --online`: tries each thing that needs the network, and prints one line for each as it finishes.

use std::path::Path;
use std::pin::Pin;
use std::time::{Instant, SystemTime};

use super::{Exit, complain, say};
use crate::aws::secret::api_key;
use crate::aws::{AwsConfig, discovery};
use crate::cache;
use crate::config::{Config, IotAuth, ModelSource};
use crate::device::{Topics, peek};
use crate::studio::{FetchError, Provider, is_missing};
use crate::supervisor::{SinkTarget, sink_target, uplink_settings};
use crate::uplink::{self, AdHocClient, Destination, EndpointOrigin, Message, ad_hoc_client_id};
use crate::util::backoff::Retry;
use crate::util::redact;
use crate::util::text::sentence;

/// What the probes look at.
struct Context {
    config: Config,
    /// Where messages go; an error is a refused `iot_endpoint`.
    link: Result<SinkTarget, String>,
    /// As which client, and to where, the MQTT probe connects; not the daemon's own id.
    settings: Option<uplink::Settings>,
    aws: AwsConfig,
}

/// What came of a probe.
enum Finding {
    /// It works: what came back.
    Works(String),
    /// It does not: what came back, and what to change.
    Fails(String),
    /// This configuration does not need it.
    NotNeeded(&'static str),
}

type Run = for<'a> fn(&'a Context) -> Pin<Box<dyn Future<Output = Finding> + 'a>>;

/// In this order: what it is called, what is tried, and how.
const PROBES: &[(&str, &str, Run)] = &[
    ("identity", "AWS credentials, and asking STS whose they are", |c| {
        Box::pin(identity(c))
    }),
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
    ("bucket", "looking up s3_bucket; uploading is not tried", |c| {
        Box::pin(bucket(c))
    }),
    ("mqtt", "connecting, and publishing to command/output", |c| {
        Box::pin(mqtt(c))
    }),
];

/// Runs every probe, whatever the others found.
pub(super) fn main(config: &Config) -> Exit {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            complain(&format!("the runtime cannot be started: {e}"));
            return Exit::Failure;
        }
    };
    let context = Context::new(config);
    say("Online");
    let all_work = runtime.block_on(async {
        let mut all_work = true;
        for (name, tried, run) in PROBES {
            let (verdict, words) = match run(&context).await {
                Finding::Works(words) => ("ok", words),
                Finding::NotNeeded(words) => ("not needed", words.to_owned()),
                Finding::Fails(words) => {
                    all_work = false;
                    ("FAILS", words)
                }
            };
            let words = redact::credentials(&words.replace('\n', " "));
            say(&format!("  {name}: {verdict} ({tried}): {words}"));
        }
        all_work
    });
    if all_work { Exit::Orderly } else { Exit::Failure }
}

impl Context {
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
            None => true,
            Some(ModelSource::File(path)) => is_missing(path),
            Some(_) => false,
        }
    }

    /// Whether anything of this configuration speaks to AWS with credentials.
    fn uses_aws(&self) -> bool {
        let signs = match &self.link {
            // With a certificate they are needed only to ask for the endpoint.
            Ok(SinkTarget::IotCore(endpoint)) => endpoint.is_none() || self.config.iot_auth == IotAuth::SigV4,
            _ => false,
        };
        self.downloads() || self.config.s3_cache_bucket.is_some() || signs
    }
}

const NO_AWS: &str = "nothing of this configuration uses AWS credentials";

async fn identity(context: &Context) -> Finding {
    if !context.uses_aws() {
        return Finding::NotNeeded(NO_AWS);
    }
    let credentials = match context.aws.credentials().await {
        Ok(credentials) => credentials,
        Err(e) => return Finding::Fails(e.to_string()),
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
        Ok(arn) => Finding::Works(format!("{arn}; {credentials}")),
        Err(e) => Finding::Fails(format!("there are {credentials}; {e}")),
    }
}

async fn region(context: &Context) -> Finding {
    if !context.uses_aws() {
        return Finding::NotNeeded(NO_AWS);
    }
    match context.aws.region().await {
        Ok(region) => Finding::Works(region),
        Err(e) => Finding::Fails(e.to_string()),
    }
}

async fn endpoint(context: &Context) -> Finding {
    let iot_core = match (&context.settings, &context.link) {
        (_, Err(reason)) => return Finding::Fails(reason.clone()),
        (Some(settings), Ok(_)) => match &settings.address {
            Destination::IotCore(iot_core) => iot_core,
            Destination::Broker { .. } => return Finding::NotNeeded("iot_endpoint is a URL"),
        },
        (None, Ok(_)) => return Finding::NotNeeded("there is no broker"),
    };
    match iot_core.endpoint().await {
        Ok((endpoint, EndpointOrigin::Configured)) => Finding::Works(format!("{endpoint}, from iot_endpoint")),
        Ok((endpoint, EndpointOrigin::Discovered)) => Finding::Works(format!("{endpoint}, from DescribeEndpoint")),
        Ok((endpoint, EndpointOrigin::EndpointCache(problem))) => {
            Finding::Works(format!("{endpoint}, known from before; asking failed: {problem}"))
        }
        Err(reason) => Finding::Fails(reason.to_string()),
    }
}

/// Says which key was found, never what it holds.
async fn secret(context: &Context) -> Finding {
    let config = &context.config;
    if !context.downloads() {
        return Finding::NotNeeded("the model is on this device");
    }
    let (id, name) = (&config.secret_id, &config.secret_name);
    match api_key(&context.aws.config().await, id, name).await {
        Ok(_) => Finding::Works(format!("the secret {id} has the key {name:?}")),
        Err(e) if config.runner.api_key.is_some() && e.retry() == Retry::Later => {
            Finding::Works(format!("the API key of eiparams (--api-key) would be used: {e}"))
        }
        Err(e) => Finding::Fails(sentence(&e)),
    }
}

async fn studio(context: &Context) -> Finding {
    if !context.downloads() {
        return Finding::NotNeeded("the model is on this device");
    }
    let provider = Provider::new(&context.config, std::env::var("EI_HOST").ok());
    match provider.probe().await {
        Ok(found) => Finding::Works(found),
        Err(FetchError::Secret(_)) => Finding::Fails("not tried: there is no API key".into()),
        Err(e) => Finding::Fails(sentence(&e)),
    }
}

async fn bucket(context: &Context) -> Finding {
    match &context.config.s3_cache_bucket {
        None => Finding::NotNeeded("the S3 cache is off"),
        Some(bucket) => match cache::probe(bucket).await {
            Ok(found) => Finding::Works(found),
            Err(e) => Finding::Fails(sentence(&e)),
        },
    }
}

async fn mqtt(context: &Context) -> Finding {
    let Some(settings) = &context.settings else {
        return Finding::Fails("not tried: there is no address to connect to".into());
    };
    let uplink::Settings {
        address,
        client_id,
        topics,
        ..
    } = settings;
    let begun = Instant::now();
    let mut client = match AdHocClient::connect(settings).await {
        Ok(client) => client,
        Err(error) => return Finding::Fails(format!("no connection to {address} as {client_id}: {error}")),
    };
    let time = begun.elapsed();
    let published = client.publish(Message::check(topics)).await;
    client.disconnect().await;
    match published {
        Ok(()) => Finding::Works(format!(
            "{address} accepted {client_id} after {} ms and acknowledged a message to {}",
            time.as_millis(),
            topics.command_output
        )),
        Err(error) => Finding::Fails(format!(
            "{address} accepted {client_id} and then took no message to {}: {error}; on AWS IoT Core the role (or the \
             certificate's policy) needs iot:Publish on topic/{}",
            topics.command_output, topics.command_output
        )),
    }
}
