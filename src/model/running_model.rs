//! A running model: start, inferences, end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};
use tracing::{debug, info, warn};

use super::answer::{self, ModelAnswer};
use super::client::{ModelClient, WORKING};
use super::connection::WaitProgress;
use super::error::ModelError;
use super::feature_buffer::{FeatureBuffer, WrittenFeatures};
use super::interrupt::Interrupt;
use super::protocol::{InferenceResult, MAX_FEATURES, ModelInfo, ModelInput};
use super::request;
use super::settings::ModelSettings;
use crate::config::Threshold;
use crate::status::stats::Stats;
use crate::util::clock::rounded;

/// A model process, or a connection to one that this program did not start. Dropping it ends the process.
#[derive(Debug)]
pub struct Model {
    client: ModelClient,
    info: Arc<ModelInfo>,
    features: FeatureBuffer,
    stats: Arc<Stats>,
    /// Audio slices are sent as `classify_continuous`.
    is_continuous: bool,
}

impl Model {
    /// Starts the model (or connects to a running one), sends the hello request, opens the shared memory and sets the
    /// thresholds. Where [`ModelInfo::slow_first_inference`] is set, call [`warm_up`](Self::warm_up) next.
    ///
    /// # Errors
    /// [`ModelError`]; nothing is left behind then.
    pub fn start(settings: &ModelSettings, interrupt: &Interrupt) -> Result<Self, ModelError> {
        let mut client = ModelClient::open(settings, interrupt)?;
        let hello = client.hello()?;
        let mut model = Self {
            is_continuous: matches!(hello.info.input, ModelInput::Audio { continuous: true, .. }),
            features: FeatureBuffer::open(settings.shm, &hello, &settings.shm_health)?,
            client,
            info: Arc::new(hello.info),
            stats: Arc::clone(&settings.stats),
        };
        model.set_thresholds(&settings.thresholds)?;
        Ok(model)
    }

    /// [Starts](Self::start) the model, reads its information and ends it. Changes no file.
    ///
    /// # Errors
    /// Those of [`start`](Self::start), and [`ModelError::NoTemporaryCopy`]; nothing is left behind either way.
    pub fn read_info(settings: &ModelSettings, interrupt: &Interrupt) -> Result<Arc<ModelInfo>, ModelError> {
        let settings = ModelSettings {
            may_change_files: false,
            ..settings.clone()
        };
        let model = Self::start(&settings, interrupt)?;
        Ok(model.info.clone())
    }

    /// The model information, with the thresholds in force.
    pub fn info(&self) -> &Arc<ModelInfo> {
        &self.info
    }

    /// Room for the values of one request ([`ModelInfo::features`]). They stay until they are overwritten, which may
    /// happen while the model works: [`send`](Self::send) makes a copy.
    pub fn features(&mut self) -> &mut [f32] {
        let elements = self.info.features;
        self.features.values(elements)
    }

    /// Room for another number of values, after [`set_parameter`](Self::set_parameter) has changed the input size.
    /// Values that do not fit into the shared memory are sent as JSON.
    ///
    /// # Errors
    /// More than 64 Mi values.
    pub fn features_for(&mut self, elements: usize) -> Result<&mut [f32], ModelError> {
        match u64::try_from(elements) {
            Ok(count) if count <= MAX_FEATURES => Ok(self.features.values(elements)),
            _ => Err(ModelError::TooManyValues {
                elements,
                accepted: MAX_FEATURES as usize,
            }),
        }
    }

    /// Asks the model to classify the first `elements` values of [`features`](Self::features). For an audio model in
    /// continuous mode `elements` is the slice size. Exactly one [`receive`](Self::receive) must follow.
    ///
    /// # Errors
    /// [`ModelError`]; see [`ModelError::is_fatal`].
    pub fn send(&mut self, elements: usize) -> Result<(), ModelError> {
        let is_slice = matches!(self.info.input, ModelInput::Audio { slice_size, .. } if slice_size == elements);
        let continuous = self.is_continuous && is_slice;
        let id = self.client.next_id();
        let request = &mut self.client.request;
        match self.features.write(elements)? {
            WrittenFeatures::Shared => request::classify_shm(request, id, elements, continuous),
            WrittenFeatures::Json(values) => request::classify(request, id, values, continuous),
        }
        self.client.send()
    }

    /// Whether an audio model gets slices (`classify_continuous`) and keeps the window itself.
    pub fn is_continuous(&self) -> bool {
        self.is_continuous
    }

    /// Sends whole windows (`classify`) from now on: the model refuses slices.
    pub fn use_whole_windows(&mut self) {
        self.is_continuous = false;
    }

    /// Waits for the answer to [`send`](Self::send).
    ///
    /// # Errors
    /// [`ModelError`]; see [`ModelError::is_fatal`].
    pub fn receive(&mut self) -> Result<InferenceResult, ModelError> {
        let limit = self.client.timeouts.classify;
        self.receive_within(limit, None)
    }

    /// [`send`](Self::send) and [`receive`](Self::receive).
    ///
    /// # Errors
    /// Those of [`send`](Self::send) and [`receive`](Self::receive).
    pub fn classify(&mut self, elements: usize) -> Result<InferenceResult, ModelError> {
        self.send(elements)?;
        self.receive()
    }

    /// Sets one key of one block, as `--thresholds` does.
    ///
    /// # Errors
    /// [`ModelError::Refused`] with the model's message, [`ModelError::Unsendable`], or a fatal error.
    pub fn set_threshold(&mut self, threshold: &Threshold) -> Result<(), ModelError> {
        let Threshold { id: block, key, value } = threshold;
        let id = self.client.next_id();
        request::set_threshold(&mut self.client.request, id, *block, key, *value)
            .ok_or_else(|| ModelError::Unsendable(format!("threshold {block}.{key}={value}")))?;
        self.client.send()?;
        self.client.receive_acknowledgement("a threshold")?;
        Arc::make_mut(&mut self.info).apply_thresholds(std::slice::from_ref(threshold));
        Ok(())
    }

    /// Sets these thresholds, and logs those that the model refuses.
    ///
    /// # Errors
    /// A fatal [`ModelError`].
    pub fn set_thresholds(&mut self, thresholds: &[Threshold]) -> Result<(), ModelError> {
        for threshold in thresholds {
            match self.set_threshold(threshold) {
                Err(error) if error.is_fatal() => return Err(error),
                Err(error) => warn!(
                    threshold = format!("{}.{}", threshold.id, threshold.key),
                    %error,
                    accepted = self.settable_thresholds(),
                    "The model refused a threshold"
                ),
                Ok(()) => debug!(
                    threshold = format!("{}.{}", threshold.id, threshold.key),
                    value = threshold.value,
                    "Threshold set"
                ),
            }
        }
        Ok(())
    }

    /// Sets parameters of the model, e.g. `image_resize_mode`. Many models refuse.
    ///
    /// # Errors
    /// As [`set_threshold`](Self::set_threshold).
    pub fn set_parameter(&mut self, parameters: &Map<String, Value>) -> Result<(), ModelError> {
        let id = self.client.next_id();
        request::set_parameter(&mut self.client.request, id, parameters)
            .ok_or_else(|| ModelError::Unsendable(Value::Object(parameters.clone()).to_string()))?;
        self.client.send()?;
        self.client.receive_acknowledgement("a parameter")
    }

    /// The pid, if this program started the process.
    pub fn pid(&self) -> Option<u32> {
        self.client.pid()
    }

    /// Whether features are passed in shared memory.
    pub fn uses_shared_memory(&self) -> bool {
        self.features.uses_shared_memory()
    }

    /// Closes the connection and ends the process (SIGINT, then SIGKILL after a second), then removes its shared memory
    /// and its directory. A process that this program did not start only loses the connection.
    pub fn stop(self) {
        drop(self);
    }

    fn receive_within(
        &mut self,
        limit: Duration,
        progress: Option<WaitProgress<'_>>,
    ) -> Result<InferenceResult, ModelError> {
        let answer = self.client.receive(WORKING, limit, progress, answer::parse)?;
        self.accept(answer)
    }

    /// [`classify`](Self::classify), with `timing` exactly as the model sent it. Parses the answer twice: not for every
    /// frame.
    ///
    /// # Errors
    /// As [`classify`](Self::classify).
    pub fn classify_with_timing(&mut self, elements: usize) -> Result<(InferenceResult, Value), ModelError> {
        self.send(elements)?;
        let limit = self.client.timeouts.classify;
        let mut timing = Value::Null;
        let answer = self.client.receive(WORKING, limit, None, |frame| {
            timing = answer::timing(frame);
            answer::parse(frame)
        })?;
        Ok((self.accept(answer)?, timing))
    }

    /// The result of an answer, with the outputs from shared memory.
    fn accept(&mut self, answer: ModelAnswer) -> Result<InferenceResult, ModelError> {
        let ModelAnswer {
            id,
            result,
            freeform_in_shm,
            mut cleaned,
        } = answer;
        self.client.check_id(id, result.is_err())?;
        let mut result = result.map_err(|reason| ModelError::Refused {
            request: "the features",
            reason,
        })?;
        if freeform_in_shm {
            cleaned += self.features.copy_outputs(&mut result)?;
        }
        self.stats.answers_cleaned.add(cleaned);
        Ok(result)
    }

    /// Requests a first answer and waits for it up to an hour: TensorRT and GPU delegates build their engines then.
    ///
    /// # Errors
    /// A fatal [`ModelError`].
    pub fn warm_up(&mut self) -> Result<(), ModelError> {
        info!("The first answer of this model may take up to an hour; it is requested now");
        let elements = self.info.features;
        self.features.values(elements).fill(0.0);
        self.send(elements)?;
        let begin = Instant::now();
        let timeouts = self.client.timeouts;
        let progress = WaitProgress {
            interval: timeouts.progress,
            report: &mut |waited| info!(waited = ?rounded(waited), "The model is preparing its first answer"),
        };
        match self.receive_within(timeouts.slow_first, Some(progress)) {
            Ok(_) => info!(took = ?rounded(begin.elapsed()), "The model is ready"),
            Err(error) if error.is_fatal() => return Err(error),
            Err(error) => warn!(%error, "The model refused the first input"),
        }
        Ok(())
    }

    fn settable_thresholds(&self) -> String {
        match self.info.settable_thresholds() {
            none if none.is_empty() => "none".to_owned(),
            thresholds => thresholds.join(", "),
        }
    }
}
