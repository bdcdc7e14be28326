//! What one seed chooses: the settings of the component, and what goes wrong when.

use std::ops::Range;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::config::Qos;
use crate::uplink::outbox::OutboxBounds;
use crate::uplink::{ConnectionTimes, RateLimits, SpoolPolicy};
use crate::util::backoff::BackoffPolicy;

/// Milliseconds of virtual time since the start of the simulation.
pub(super) type Millis = u64;

/// Something that happens at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Incident {
    /// Packets arrive only after this time.
    Partition(Millis),
    /// The connection is reset; what is on its way is lost.
    Reset,
    /// The broker and the network forget the connection, and the client is not told.
    HalfOpen,
    /// The broker closes the connection, as for another client with the same id.
    TakeOver,
    /// The broker restarts and is away for this time.
    BrokerRestart { away: Millis, keeps_session: bool },
    /// The broker has forgotten the session when the client connects the next time.
    ForgetSession,
    /// New connections fail in this way for this time.
    Refuse(Refusal, Millis),
    /// The broker acknowledges nothing for this time.
    Silence(Millis),
    /// The broker acknowledges a message twice.
    RepeatedAcknowledgement,
    /// The broker delivers the last command again.
    RedeliverCommand,
    /// Somebody sends a command.
    Command { retained: bool },
    /// Somebody sends a command that is larger than the client accepts.
    LargeCommand,
    /// Many inferences at once.
    Burst(u32),
    /// The disk is full for this time.
    DiskFull(Millis),
    /// The process is stopped and continues after this time: every timer is late.
    Suspend(Millis),
    /// SIGKILL, and a start after this time.
    Kill(Millis),
    /// An orderly stop, and a start after this time.
    Stop(Millis),
}

/// How a new connection fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    Closed,
    NoAnswer,
    Unavailable,
    NotAuthorized,
    NoSubscription,
    ClosedAfterAccepting,
}

const REFUSALS: [Refusal; 6] = [
    Refusal::Closed,
    Refusal::NoAnswer,
    Refusal::Unavailable,
    Refusal::NotAuthorized,
    Refusal::NoSubscription,
    Refusal::ClosedAfterAccepting,
];

/// The spool of one run.
#[derive(Debug, Clone, Copy)]
pub(super) struct SpoolPlan {
    pub max_bytes: u64,
    pub policy: SpoolPolicy,
}

/// What one seed chooses.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub seed: u64,
    pub qos: Qos,
    pub bounds: OutboxBounds,
    pub rate_limits: RateLimits,
    pub times: ConnectionTimes,
    /// `None`: messages are in memory only.
    pub spool: Option<SpoolPlan>,
    /// Time of a packet from one end to the other.
    pub latency: Range<Millis>,
    /// Time until the broker acknowledges a message. A wide range changes the order.
    pub acknowledgement: Range<Millis>,
    /// Time of one job of the disk.
    pub disk: Range<Millis>,
    pub payload: Range<usize>,
    /// Time between two inferences.
    pub interval: Range<Millis>,
    pub metrics_every: Millis,
    pub inferences: u32,
    /// From this moment on nothing goes wrong any more.
    pub healed_at: Millis,
    pub incidents: Vec<(Millis, Incident)>,
}

impl Plan {
    pub fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        // Fast enough for a backlog that lasts, or slow enough for a quiet connection.
        let (interval, most) = choose(&mut rng, &[(20..60, 1200_u32), (100..300, 400), (300..1500, 400)]);
        let inferences = rng.random_range(most / 4..most);
        let duration = u64::from(inferences) * (interval.start + interval.end) / 2;
        let healed_at = duration.clamp(60_000, 600_000);
        let spool = rng.random_bool(0.85).then(|| SpoolPlan {
            max_bytes: choose(&mut rng, &[64 << 20, 64 << 20, 64 << 20, 20 << 10]),
            policy: spool_policy(&mut rng),
        });
        let payload = choose(&mut rng, &[16..64, 100..400, 100..2000]);
        let mut plan = Self {
            seed,
            qos: if rng.random_bool(0.9) {
                Qos::AtLeastOnce
            } else {
                Qos::AtMostOnce
            },
            bounds: bounds(&mut rng, &payload),
            rate_limits: if rng.random_bool(0.5) {
                RateLimits::IOT_CORE
            } else {
                RateLimits::UNLIMITED
            },
            times: ConnectionTimes {
                backoff: BackoffPolicy {
                    max: Duration::from_secs(choose(&mut rng, &[2, 10, 60])),
                    ..BackoffPolicy::default()
                },
                jitter: super::device::jitter,
                ..ConnectionTimes::default()
            },
            spool,
            latency: choose(&mut rng, &[1..5, 20..80, 50..600]),
            acknowledgement: choose(&mut rng, &[0..2, 0..50, 0..2000]),
            disk: choose(&mut rng, &[1..4, 5..40, 100..1500]),
            payload,
            interval,
            metrics_every: rng.random_range(2000..20_000),
            inferences,
            healed_at,
            incidents: Vec::new(),
        };
        let every = (0..KINDS).filter(|_| rng.random_bool(0.4)).collect();
        let kinds = if seed.is_multiple_of(8) {
            plan.fill_memory()
        } else {
            every
        };
        plan.incidents = plan.choose_incidents(&mut rng, &kinds);
        plan
    }

    /// The memory is nearly full again and again, while older messages are in flight, on disk and read from it: a fast producer,
    /// a slow start of each connection, and short outages. Returns the kinds of incidents.
    fn fill_memory(&mut self) -> Vec<usize> {
        self.qos = Qos::AtLeastOnce;
        self.rate_limits = RateLimits::IOT_CORE;
        self.bounds.inference_window = 16;
        self.bounds.inference_bytes = 300 * (self.payload.start + self.payload.end) / 2;
        self.times.backoff.max = Duration::from_secs(2);
        self.spool = Some(SpoolPlan {
            max_bytes: 64 << 20,
            policy: SpoolPolicy::default(),
        });
        self.interval = 20..60;
        self.inferences = 1500;
        self.healed_at = 60_000;
        vec![1, 2, 3, 8, 12]
    }

    /// Each seed has only some kinds of incidents: with all of them at once, many would hide others.
    fn choose_incidents(&self, rng: &mut StdRng, kinds: &[usize]) -> Vec<(Millis, Incident)> {
        let mut incidents = Vec::new();
        let gap = choose(rng, &[3_000, 10_000, 40_000]);
        let mut at = rng.random_range(0..gap);
        while at < self.healed_at && !kinds.is_empty() {
            let kind = choose(rng, kinds);
            if self.is_possible(kind) {
                incidents.push((at, self.incident(rng, kind)));
            }
            at += rng.random_range(1..2 * gap);
        }
        let commands = rng.random_range(0..30);
        for _ in 0..commands {
            let retained = rng.random_bool(0.5);
            incidents.push((rng.random_range(0..self.healed_at), Incident::Command { retained }));
        }
        incidents
    }

    fn is_possible(&self, kind: usize) -> bool {
        kind != DISK_FULL || self.spool.is_some()
    }

    fn incident(&self, rng: &mut StdRng, kind: usize) -> Incident {
        let mut time = |range: Range<Millis>| rng.random_range(range);
        match kind {
            0 => Incident::Partition(time(100..90_000)),
            1 => Incident::Reset,
            2 => Incident::HalfOpen,
            3 => Incident::TakeOver,
            4 => Incident::BrokerRestart {
                away: time(10..60_000),
                keeps_session: true,
            },
            5 => Incident::BrokerRestart {
                away: time(10..60_000),
                keeps_session: false,
            },
            6 => Incident::ForgetSession,
            7 => {
                let length = time(1000..60_000);
                Incident::Refuse(choose(rng, &REFUSALS), length)
            }
            8 => Incident::Silence(time(100..60_000)),
            9 => Incident::RepeatedAcknowledgement,
            10 => Incident::RedeliverCommand,
            11 => Incident::LargeCommand,
            12 => Incident::Burst(rng.random_range(5..60)),
            DISK_FULL => Incident::DiskFull(time(100..60_000)),
            14 => Incident::Suspend(time(100..120_000)),
            15 => Incident::Kill(time(10..20_000)),
            _ => Incident::Stop(time(10..20_000)),
        }
    }

    /// Whether any incident fulfils `is`.
    pub fn has(&self, is: impl Fn(&Incident) -> bool) -> bool {
        self.incidents.iter().any(|(_, incident)| is(incident))
    }

    /// Whether no message may be dropped: the disk has room for all, and the memory for what is pushed while the disk writes.
    pub fn drops_nothing(&self) -> bool {
        let Some(spool) = self.spool else { return false };
        let pushed_meanwhile = 2 * self.disk.end / self.interval.start + 60;
        let fits = pushed_meanwhile as usize * self.payload.end < self.bounds.inference_bytes / 4;
        fits && spool.max_bytes > 1 << 20
            && !self.has(|incident| matches!(incident, Incident::DiskFull(_) | Incident::Suspend(_)))
    }
}

const KINDS: usize = 17;
const DISK_FULL: usize = 13;

/// The memory has room for a few messages, for fewer or more than are read from the disk at once, or for all.
fn bounds(rng: &mut StdRng, payload: &Range<usize>) -> OutboxBounds {
    let messages = choose(rng, &[8, 60, 250, 250, 20_000]);
    OutboxBounds {
        inference_bytes: messages * (payload.start + payload.end) / 2,
        inference_window: choose(rng, &[1, 4, 16, 16]),
        ..OutboxBounds::default()
    }
}

fn spool_policy(rng: &mut StdRng) -> SpoolPolicy {
    SpoolPolicy {
        grace: Duration::from_millis(choose(rng, &[0, 2000, 2000])),
        group_messages: choose(rng, &[1, 10, 100]),
        ..SpoolPolicy::default()
    }
}

fn choose<T: Clone>(rng: &mut StdRng, values: &[T]) -> T {
    values[rng.random_range(0..values.len())].clone()
}
