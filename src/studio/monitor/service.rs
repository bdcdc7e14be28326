//! The service of the channel: what the hello says about the model, and the stream of inferences.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use serde_json::json;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

use super::pending::PendingSummaries;
use super::recorder::{MonitorState, Recorder};
use super::responder::RecordResponder;
use super::sender;
use super::store::AvailableRecords;
use super::tap::MonitorTap;
use crate::status::damaged_files;
use crate::status::stats::Stats;
use crate::studio::channel::{ChannelHandle, ChannelService, HelloMode, HelloOffer, Incoming, IncomingKind, Outgoing};
use crate::studio::inference_info::inference_info;
use crate::util::panics::PanicRestart;

/// Which numbers of inferences are used, beside the summaries.
const INDICES: &str = "indices.json";

/// What the monitoring needs.
pub struct MonitorSettings {
    /// The tap of the inference loop.
    pub tap: Arc<MonitorTap>,
    /// Sends records and summaries.
    pub channel: ChannelHandle,
    /// Directory of the stored records.
    pub records: PathBuf,
    /// Directory of the summaries that wait.
    pub summaries: PathBuf,
    /// Counts.
    pub stats: Arc<Stats>,
}

/// Shows the running model to Studio. Its task ends when this is dropped.
pub struct Monitor {
    state: Arc<MonitorState>,
    channel: ChannelHandle,
    sender: JoinHandle<()>,
    sent_all: Arc<Notify>,
    recorded: Mutex<Option<oneshot::Receiver<()>>>,
    /// How often the stream was turned on or off.
    stream: Arc<Mutex<u64>>,
}

impl Monitor {
    /// Starts the thread and the task.
    ///
    /// # Errors
    /// The system cannot start a thread.
    pub fn start(settings: MonitorSettings) -> std::io::Result<Self> {
        let MonitorSettings {
            tap,
            channel,
            records,
            summaries,
            stats,
        } = settings;
        for directory in [&records, &summaries] {
            damaged_files::make_way_for_directory(directory, &stats);
        }
        let state = Arc::new(MonitorState {
            tap,
            model: Mutex::default(),
            streamed: Mutex::default(),
            pending: Mutex::new(PendingSummaries::new(summaries.clone())),
            stored: OnceLock::new(),
            has_summary: Notify::new(),
            stats,
        });
        let (done, recorded) = oneshot::channel();
        let runtime = Handle::current();
        let (thread_state, thread_channel) = (state.clone(), channel.clone());
        std::thread::Builder::new().name("monitor".into()).spawn(move || {
            Recorder::new(thread_state, thread_channel, runtime, records, summaries.join(INDICES)).run();
            // Nobody waits if the process ends without an orderly stop.
            let _ = done.send(());
        })?;
        let sent_all = Arc::new(Notify::new());
        let (task_state, task_channel, task_sent_all) = (state.clone(), channel.clone(), sent_all.clone());
        let sender = tokio::spawn(async move {
            let mut restart = PanicRestart::new("studio summaries");
            loop {
                let sending = sender::run(task_state.clone(), task_channel.clone(), task_sent_all.clone());
                if let Err(wait) = restart.attempt(sending).await {
                    tokio::time::sleep(wait).await;
                }
            }
        });
        Ok(Self {
            state,
            channel,
            sender,
            sent_all,
            recorded: Mutex::new(Some(recorded)),
            stream: Arc::default(),
        })
    }

    /// Writes what the loop has left, and sends the summaries if there is a connection.
    pub async fn stop(&self, deadline: tokio::time::Instant) {
        self.state.tap.close_window();
        self.state.tap.close();
        let recorded = self.recorded.lock().take();
        if let Some(recorded) = recorded {
            let _ = tokio::time::timeout_at(deadline, recorded).await;
        }
        // An earlier notification may have been left: the second one is about the last summary.
        let is_empty = || self.state.pending.lock().is_empty();
        while self.channel.is_connected() && !is_empty() {
            if tokio::time::timeout_at(deadline, self.sent_all.notified())
                .await
                .is_err()
            {
                break;
            }
        }
    }

    fn responder(&self) -> Option<&RecordResponder> {
        self.state.stored.get().map(|(_, responder)| responder)
    }

    fn start_stream(&self) {
        self.end_stream();
        let number = *self.stream.lock();
        let (channel, tap, stream) = (self.channel.clone(), self.state.tap.clone(), self.stream.clone());
        tokio::spawn(async move {
            // The first record must not come before the answer.
            let is_told = channel.deliver(Outgoing::InferenceStreamStarted(true)).await.is_ok();
            let present = stream.lock();
            if is_told && *present == number {
                tap.set_streaming(true);
            }
        });
    }

    /// Whether it was on.
    fn end_stream(&self) -> bool {
        let mut stream = self.stream.lock();
        *stream += 1;
        self.state.streamed.lock().clear();
        self.state.tap.set_streaming(false)
    }

    /// A refused record of the stream ends it.
    fn on_acknowledgement(&self, index: Option<u64>, result: Result<(), String>) {
        let is_streamed = {
            let mut streamed = self.state.streamed.lock();
            let at = streamed.iter().position(|sent| Some(*sent) == index);
            at.and_then(|at| streamed.remove(at)).is_some()
        };
        let Err(error) = result else { return };
        // A record without an index can only be one of the stream.
        if (is_streamed || index.is_none()) && self.end_stream() {
            tracing::info!(
                index,
                error,
                "Edge Impulse Studio refuses an inference, and the stream ends"
            );
        }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.sender.abort();
        self.end_stream();
        self.state.tap.close();
    }
}

impl ChannelService for Monitor {
    fn kinds(&self) -> &'static [IncomingKind] {
        &[
            IncomingKind::StartInferenceStream,
            IncomingKind::StopInferenceStream,
            IncomingKind::RecordRequest,
            IncomingKind::RecordAck,
        ]
    }

    fn add_to_hello(&self, offer: &mut HelloOffer) {
        // Without a model there is nothing to monitor yet.
        if let Some(info) = &*self.state.model.lock() {
            offer.mode = HelloMode::Inference;
            offer.more.push(("inferenceInfo", inference_info(info)));
            let stored = self.state.stored.get();
            let available = stored.map_or_else(AvailableRecords::default, |(records, _)| records.available());
            offer.changing.push(("availableRecords", json!(available)));
        }
    }

    fn handle(&self, message: Incoming) {
        match message {
            Incoming::StartInferenceStream => self.start_stream(),
            Incoming::StopInferenceStream => {
                self.end_stream();
                self.channel.send(Outgoing::InferenceStreamStopped(true));
            }
            Incoming::RecordRequest(request) => match self.responder() {
                Some(responder) => responder.request(request),
                None => {
                    let refusal = Incoming::RecordRequest(request).refusal("no model is loaded yet");
                    let _ = refusal.map(|refusal| self.channel.send(refusal));
                }
            },
            Incoming::RecordAck { index, result } => {
                let is_answer = |index| self.responder().is_some_and(|r| r.acknowledge(index, &result));
                if !index.is_some_and(is_answer) {
                    self.on_acknowledgement(index, result);
                }
            }
            _ => {}
        }
    }

    fn disconnected(&self) {
        self.end_stream();
        if let Some(responder) = self.responder() {
            responder.disconnected();
        }
    }
}
