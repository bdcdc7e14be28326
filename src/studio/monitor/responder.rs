//! Answers the requests of Studio for stored records.
//!
//! Requests wait in a bounded queue and are answered one after the other: a list in its order, a range in the order of the
//! indices. Records are read on blocking threads, one at a time, when there is room in the channel, and with a pause after each
//! answer, so that a Studio that floods a device with requests costs it a few percent of a processor.
//!
//! Only one inference in many is stored. A list gets an answer for each of its indices. A range gets the records that there
//! are, then one refusal with the first index that is not stored, if there is one.
//!
//! If Studio refuses a record, the rest of that request is not sent: there is nobody who wants it. Later requests are answered.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::record::Record;
use super::stored_records::StoredRecords;
use crate::studio::channel::{ChannelHandle, Incoming, MAX_RECORDS, Outgoing, RecordRequest};
use crate::util::log_limiter::LogLimiter;
use crate::util::panics::PanicRestart;

/// Requests that wait. Beyond that requests are refused.
const QUEUE: usize = 16;
/// Answers whose acknowledgement is recognised.
const RECENT: usize = 256;
/// Time between two answers: at most 200 a second.
const PAUSE: Duration = Duration::from_millis(5);

/// Answers requests for records. Its task ends when this is dropped.
#[derive(Debug)]
pub struct RecordResponder {
    channel: ChannelHandle,
    requests: mpsc::Sender<(u64, RecordRequest)>,
    progress: Arc<Mutex<Progress>>,
    log_limiter: Mutex<LogLimiter>,
    task: JoinHandle<()>,
}

/// What the task of the channel and the task of the answers share.
#[derive(Debug, Default)]
struct Progress {
    /// The number of the last request that was received.
    received: u64,
    /// Requests up to this number get no more answers.
    given_up: u64,
    /// The last answers: number of the request, index of the record.
    answers: VecDeque<(u64, u64)>,
}

impl RecordResponder {
    /// Starts the task.
    pub fn start(channel: ChannelHandle, records: StoredRecords) -> Self {
        let (requests, queue) = mpsc::channel(QUEUE);
        let progress = Arc::<Mutex<Progress>>::default();
        let mut answering = Answering {
            channel: channel.clone(),
            records,
            queue,
            progress: progress.clone(),
        };
        let task = tokio::spawn(async move {
            let mut restart = PanicRestart::new("studio records");
            while let Err(wait) = restart.attempt(answering.run()).await {
                tokio::time::sleep(wait).await;
            }
        });
        Self {
            channel,
            requests,
            progress,
            log_limiter: Mutex::default(),
            task,
        }
    }

    /// Takes a request; `Err`: why it cannot be used. Does not wait.
    pub fn request(&self, request: Result<RecordRequest, String>) {
        let reason = match &request {
            Ok(_) => "this device has too many requests for records at once".to_owned(),
            Err(reason) => format!("the request for records cannot be used: {reason}"),
        };
        let refusal = Incoming::RecordRequest(request.clone()).refusal(&reason);
        let number = {
            let mut progress = self.progress.lock();
            progress.received += 1;
            progress.received
        };
        let is_taken = request.is_ok_and(|request| self.requests.try_send((number, request)).is_ok());
        if !is_taken {
            self.log("refused", |suppressed| {
                tracing::info!(
                    reason,
                    suppressed,
                    "A request of Edge Impulse Studio for records is refused"
                );
            });
            // If Studio does not read its answers either, it gets none.
            let _ = refusal.map(|refusal| self.channel.send(refusal));
        }
    }

    /// Takes the acknowledgement of a record. `false`: it is not for an answer of this responder.
    pub fn acknowledge(&self, index: u64, result: &Result<(), String>) -> bool {
        let mut progress = self.progress.lock();
        let Some(at) = progress.answers.iter().position(|(_, sent)| *sent == index) else {
            return false;
        };
        let answer = progress.answers.remove(at);
        if let (Some((number, _)), Err(error)) = (answer, result) {
            progress.given_up = progress.given_up.max(number);
            drop(progress);
            self.log("acknowledgement", |suppressed| {
                tracing::warn!(
                    index,
                    error,
                    suppressed,
                    "Edge Impulse Studio refuses a stored record; the rest of its request is not sent"
                );
            });
        }
        true
    }

    /// The connection has ended: nobody waits for answers.
    pub fn disconnected(&self) {
        let mut progress = self.progress.lock();
        progress.given_up = progress.received;
        progress.answers.clear();
    }

    fn log(&self, key: &str, write: impl FnOnce(Option<u64>)) {
        let checked = self.log_limiter.lock().check(Instant::now(), key);
        if let Some(suppressed) = checked {
            write(suppressed.count());
        }
    }
}

impl Drop for RecordResponder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Ends a request: Studio is gone, or does not want the rest.
struct GivenUp;

struct Answering {
    channel: ChannelHandle,
    records: StoredRecords,
    queue: mpsc::Receiver<(u64, RecordRequest)>,
    progress: Arc<Mutex<Progress>>,
}

impl Answering {
    async fn run(&mut self) {
        while let Some((number, request)) = self.queue.recv().await {
            tracing::debug!(?number, "Edge Impulse Studio asks for stored records");
            // A request that is given up needs nothing more.
            let _ = self.answer(number, request).await;
        }
    }

    async fn answer(&self, number: u64, request: RecordRequest) -> Result<(), GivenUp> {
        match request {
            RecordRequest::Index(index) => self.answer_index(number, index).await,
            RecordRequest::List { indices, unusable } => {
                for index in indices {
                    self.answer_index(number, index).await?;
                }
                if unusable > 0 {
                    let error = format!("{unusable} entries of the list are no index, which is a whole number from 0");
                    self.send(number, None, Outgoing::RecordsRefused { index: None, error })
                        .await?;
                }
                Ok(())
            }
            RecordRequest::Range { first, last } if first > last => {
                let error = format!("the first index of the range, {first}, is above the last one, {last}");
                self.refuse(number, first, error).await
            }
            RecordRequest::Range { first, last } => self.answer_range(number, first, last).await,
        }
    }

    async fn answer_index(&self, number: u64, index: u64) -> Result<(), GivenUp> {
        self.check(number)?;
        match self.read(index, index).await {
            Ok(Some((_, message))) => self.send(number, Some(index), message).await,
            Ok(None) => {
                let error = format!("record {index} is not stored; {}", self.what_is_stored());
                self.refuse(number, index, error).await
            }
            Err(error) => self.refuse(number, index, error).await,
        }
    }

    /// The cost depends on what is stored in the range, not on its length.
    async fn answer_range(&self, number: u64, first: u64, last: u64) -> Result<(), GivenUp> {
        let (mut wanted, mut first_gap) = (Some(first), None);
        for _ in 0..MAX_RECORDS {
            let Some(from) = wanted.filter(|from| *from <= last) else {
                break;
            };
            self.check(number)?;
            match self.read(from, last).await {
                Ok(Some((index, message))) => {
                    if index > from {
                        first_gap.get_or_insert(from);
                    }
                    wanted = index.checked_add(1);
                    self.send(number, Some(index), message).await?;
                }
                Ok(None) => {
                    first_gap.get_or_insert(from);
                    wanted = None;
                }
                Err(error) => return self.refuse(number, from, error).await,
            }
        }
        if let Some(next) = wanted.filter(|next| *next <= last) {
            let error =
                format!("one request gets at most {MAX_RECORDS} records; ask for the range from {next} for more");
            return self.refuse(number, next, error).await;
        }
        let Some(gap) = first_gap else {
            return Ok(());
        };
        let stored = self.what_is_stored();
        let error =
            format!("not every index from {first} to {last} is stored, the first that is not is {gap}; {stored}");
        self.refuse(number, gap, error).await
    }

    /// Reads the first record from `first` to `last`: its index, and the message. The error is the text for Studio.
    async fn read(&self, first: u64, last: u64) -> Result<Option<(u64, Outgoing)>, String> {
        let records = self.records.clone();
        let read = move || match records.next_in(first, last) {
            Ok(record) => Ok(record.map(to_message)),
            Err(error) => Err(format!("the stored records cannot be read: {error}")),
        };
        let read = tokio::task::spawn_blocking(read).await;
        read.unwrap_or_else(|e| Err(e.to_string()))
    }

    fn what_is_stored(&self) -> String {
        let available = self.records.available();
        match available.last_index {
            0 => "no record is stored yet".to_owned(),
            last => format!("stored are some of the inferences {} to {last}", available.first_index),
        }
    }

    async fn refuse(&self, number: u64, index: u64, error: String) -> Result<(), GivenUp> {
        let index = Some(index);
        self.send(number, index, Outgoing::RecordsRefused { index, error })
            .await
    }

    /// Sends an answer, whose acknowledgement has `index`, when there is room in the channel.
    async fn send(&self, number: u64, index: Option<u64>, message: Outgoing) -> Result<(), GivenUp> {
        self.check(number)?;
        if let Some(index) = index {
            let mut progress = self.progress.lock();
            if progress.answers.len() >= RECENT {
                progress.answers.pop_front();
            }
            progress.answers.push_back((number, index));
        }
        self.channel.deliver(message).await.map_err(|_| GivenUp)?;
        tokio::time::sleep(PAUSE).await;
        Ok(())
    }

    fn check(&self, number: u64) -> Result<(), GivenUp> {
        if number <= self.progress.lock().given_up {
            return Err(GivenUp);
        }
        Ok(())
    }
}

fn to_message(record: Record) -> (u64, Outgoing) {
    let message = Outgoing::StoredRecord {
        index: record.index,
        timestamp_ms: record.timestamp_ms,
        record: record.record,
        kind: record.raw_data.kind.into(),
        data: record.raw_data.bytes,
    };
    (record.index, message)
}
