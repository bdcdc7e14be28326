//! Outbox and spool together against a model: lists of what was pushed, what a broker received, and what is on disk.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::uplink::outbox::{LoadRequest, SpoolJob, Token};

#[derive(Debug, Clone)]
enum Step {
    Push(usize),
    Send,
    /// Acknowledges one message in flight.
    Ack(Index),
    Disconnect,
    Connect,
    /// The spool's thread runs.
    Work,
    /// The process is killed, and another starts.
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (4_usize..60).prop_map(Step::Push),
        6 => Just(Step::Send),
        5 => any::<Index>().prop_map(Step::Ack),
        2 => Just(Step::Disconnect),
        2 => Just(Step::Connect),
        4 => Just(Step::Work),
        1 => Just(Step::Crash),
    ];
    prop::collection::vec(step, 0..250)
}

const MEMORY: usize = 1200;

struct SpoolModel {
    path: PathBuf,
    max_bytes: u64,
    stats: Arc<Stats>,
    outbox: Outbox,
    store: Store,
    pushed: u32,
    in_flight: Vec<(Token, u32)>,
    received: BTreeSet<u32>,
    acknowledged: BTreeSet<u32>,
    /// Messages that were in memory only when the process crashed.
    lost: BTreeSet<u32>,
    /// Highest number received on this connection.
    last: Option<u32>,
    breaks: u32,
}

impl SpoolModel {
    fn new(directory: &Path, max_bytes: u64) -> Self {
        let path = directory.join("spool.redb");
        let stats = Arc::new(Stats::default());
        let (outbox, store) = Self::boot(&path, max_bytes, &stats);
        Self {
            path,
            max_bytes,
            stats,
            outbox,
            store,
            pushed: 0,
            in_flight: Vec::new(),
            received: BTreeSet::new(),
            acknowledged: BTreeSet::new(),
            lost: BTreeSet::new(),
            last: None,
            breaks: 0,
        }
    }

    fn boot(path: &Path, max_bytes: u64, stats: &Arc<Stats>) -> (Outbox, Store) {
        let bounds = OutboxBounds {
            inference_bytes: MEMORY,
            inference_window: 5,
            ..OutboxBounds::default()
        };
        let outbox = Outbox::new(bounds, Arc::clone(stats));
        outbox.attach_spool(AT_ONCE);
        let mut store = Store::new(path.to_owned(), max_bytes);
        outbox.spool_opened(store.open().expect("the spool opens"));
        (outbox, store)
    }

    fn work(&mut self) {
        while let Some(job) = self.outbox.job_now() {
            self.outbox.spool_done(self.store.perform(&job).expect("a job"));
        }
    }

    fn on_disk(&mut self) -> BTreeSet<u32> {
        let everything = LoadRequest {
            from: Token(i64::MIN),
            messages: usize::MAX,
            bytes: usize::MAX,
        };
        let job = SpoolJob {
            load: Some(everything),
            ..SpoolJob::default()
        };
        let done = self.store.perform(&job).expect("the disk can be read");
        let messages = done.loaded.expect("loaded messages").messages;
        messages.iter().map(|(_, message)| number(message)).collect()
    }

    fn crash(&mut self) {
        let kept = self.on_disk();
        let alive = (0..self.pushed).filter(|n| !self.acknowledged.contains(n) && !self.lost.contains(n));
        let gone: Vec<_> = alive.filter(|n| !kept.contains(n)).collect();
        self.lost.extend(gone);
        self.store.close().expect("closed");
        (self.outbox, self.store) = Self::boot(&self.path, self.max_bytes, &self.stats);
        self.count_break();
    }

    fn count_break(&mut self) {
        self.in_flight.clear();
        self.last = None;
        self.breaks += 1;
    }

    fn send(&mut self) -> Result<bool, TestCaseError> {
        let Some((token, message)) = self.outbox.next_to_send() else {
            return Ok(false);
        };
        let number = number(&message);
        prop_assert!(
            self.last.is_none_or(|last| number > last),
            "{number} after {:?}",
            self.last
        );
        if !self.received.insert(number) {
            prop_assert!(self.breaks > 0, "{number} twice on one connection");
        }
        self.last = Some(number);
        self.in_flight.push((token, number));
        prop_assert!(self.in_flight.len() <= 5);
        Ok(true)
    }

    fn ack(&mut self, index: &Index) -> Result<(), TestCaseError> {
        if !self.in_flight.is_empty() {
            let (token, number) = self.in_flight.remove(index.index(self.in_flight.len()));
            prop_assert!(self.outbox.acked(token));
            self.acknowledged.insert(number);
        }
        Ok(())
    }

    /// A real driver sends only when connected.
    fn step(&mut self, step: Step, online: &mut bool) -> Result<(), TestCaseError> {
        match step {
            Step::Push(size) => {
                self.outbox.push(inference(self.pushed, size));
                self.pushed += 1;
                if self.outbox.bytes() > MEMORY / 4 * 3 {
                    self.work();
                }
            }
            Step::Send if *online => drop(self.send()?),
            Step::Send => {}
            Step::Ack(index) => self.ack(&index)?,
            Step::Disconnect => {
                self.outbox.connection_lost();
                self.count_break();
                *online = false;
            }
            Step::Connect => {
                self.outbox.connected();
                *online = true;
            }
            Step::Work => {
                self.work();
                if !*online {
                    prop_assert_eq!(
                        self.outbox.undelivered().in_memory,
                        0,
                        "offline, all is on disk after a commit"
                    );
                }
            }
            Step::Crash => {
                self.crash();
                *online = false;
            }
        }
        prop_assert!(self.outbox.bytes() <= MEMORY + 10 * 60 + 128 * 60);
        Ok(())
    }

    fn drain(&mut self) -> Result<(), TestCaseError> {
        self.outbox.connected();
        loop {
            self.work();
            let mut any = false;
            while self.send()? {
                any = true;
            }
            while let Some((token, number)) = self.in_flight.pop() {
                prop_assert!(self.outbox.acked(token));
                self.acknowledged.insert(number);
                any = true;
            }
            if !any {
                break;
            }
        }
        self.outbox.flush_from(Instant::now());
        self.work();
        Ok(())
    }
}

fn memory_directory() -> TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .expect("a directory")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn nothing_is_lost_within_the_bounds_and_the_order_is_kept(
        steps in steps(),
        max_bytes in prop_oneof![3 => Just(1_u64 << 20), 1 => 300_u64..3000],
    ) {
        let directory = memory_directory();
        let mut model = SpoolModel::new(directory.path(), max_bytes);
        let mut online = false;
        let mut crashed = false;
        for step in steps {
            crashed |= matches!(step, Step::Crash);
            model.step(step, &mut online)?;
        }
        model.drain()?;
        prop_assert_eq!(model.stats.outbox_dropped.get(), 0);
        let missing: Vec<_> = (0..model.pushed)
            .filter(|n| !model.acknowledged.contains(n) && !model.lost.contains(n))
            .collect();
        if max_bytes == 1 << 20 {
            prop_assert!(missing.is_empty(), "{missing:?}");
            prop_assert_eq!(model.stats.spool_dropped.get(), 0);
        } else if !crashed {
            prop_assert_eq!(missing.len() as u64, model.stats.spool_dropped.get());
        }
        prop_assert_eq!(model.outbox.waiting(), 0);
        prop_assert_eq!(model.outbox.bytes(), 0);
        prop_assert!(!model.path.exists(), "an empty spool has no file");
    }
}
