//! The faults, one function each. Each waits until the daemon delivers again.

use std::fs::{self, File};
use std::io::Write;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::process::spool_file;
use crate::support::leftovers::children_of;
use crate::world::{World, now_ms};

/// Longest wait for deliveries: attempts are at most 60 s apart.
const RECOVERY: Duration = Duration::from_secs(120);
/// Longest wait until nothing but live messages is under way.
const CATCH_UP: Duration = Duration::from_secs(180);
/// So many messages under way are live ones.
const LIVE: u64 = 100;
/// Offline, what is older than this is on disk at a SIGKILL: the group commit, on a busy machine.
const COMMITTED: Duration = Duration::from_secs(2);
/// In seconds.
const DAY: i64 = 24 * 3600;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    ConnectionCut,
    BrokerKilled,
    BrokerAway,
    BrokerStalled,
    BrokerHung,
    ModelKilled,
    Restart,
    StoppedOnline,
    StoppedOffline,
    KilledOnline,
    KilledOffline,
    NetworkLost,
    CameraUnplugged,
    DiskFull,
    ClockJumped,
}

impl Kind {
    /// These leave the process alone.
    pub const GENTLE: [Self; 7] = [
        Self::ConnectionCut,
        Self::BrokerKilled,
        Self::BrokerAway,
        Self::BrokerStalled,
        Self::BrokerHung,
        Self::ModelKilled,
        Self::Restart,
    ];
    /// These end it.
    pub const DEADLY: [Self; 4] = [
        Self::StoppedOnline,
        Self::StoppedOffline,
        Self::KilledOnline,
        Self::KilledOffline,
    ];

    /// All, in the order of the table.
    pub const ALL: [Self; 15] = [
        Self::ConnectionCut,
        Self::BrokerKilled,
        Self::BrokerAway,
        Self::BrokerStalled,
        Self::BrokerHung,
        Self::NetworkLost,
        Self::CameraUnplugged,
        Self::ModelKilled,
        Self::DiskFull,
        Self::ClockJumped,
        Self::Restart,
        Self::StoppedOnline,
        Self::StoppedOffline,
        Self::KilledOnline,
        Self::KilledOffline,
    ];
    /// What a device meets in a day. The process lives on.
    pub const OF_A_DAY: [Self; 9] = [
        Self::BrokerAway,
        Self::BrokerStalled,
        Self::ConnectionCut,
        Self::NetworkLost,
        Self::CameraUnplugged,
        Self::ModelKilled,
        Self::DiskFull,
        Self::ClockJumped,
        Self::Restart,
    ];

    pub fn words(self) -> &'static str {
        match self {
            Self::ConnectionCut => "connection cut",
            Self::BrokerKilled => "broker SIGKILLed, back within 1.5 s",
            Self::BrokerAway => "broker away for 4 to 20 s",
            Self::BrokerStalled => "broker stopped (SIGSTOP) for 1 to 10 s",
            Self::BrokerHung => "broker stopped (SIGSTOP) for 22 to 30 s",
            Self::ModelKilled => "model process SIGKILLed",
            Self::Restart => "command `restart`",
            Self::StoppedOnline => "daemon stopped (SIGTERM) online, started again",
            Self::StoppedOffline => "daemon stopped (SIGTERM) offline, started again",
            Self::KilledOnline => "daemon SIGKILLed online, started again",
            Self::KilledOffline => "daemon SIGKILLed offline, started again",
            Self::NetworkLost => "network lost for 5 to 25 s",
            Self::CameraUnplugged => "camera unplugged for 2 to 12 s",
            Self::DiskFull => "disk full during an outage of 5 to 15 s",
            Self::ClockJumped => "clock 400 days ahead, then 400 days behind, then right",
        }
    }
}

/// What a fault did.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    pub kind: Kind,
    /// From the end of the fault (the broker is back, the process was started) to the first new message at the subscriber.
    pub recovery: Duration,
    /// And until only live messages are under way; `None`: not within the limit.
    pub caught_up: Option<Duration>,
    pub published: u64,
    pub duplicates: u64,
    pub lost: u64,
}

impl World {
    /// Does it and waits for deliveries; `None` when they did not come, which is a problem noted, or the end.
    pub fn inflict(&mut self, kind: Kind) -> Option<Outcome> {
        let (duplicates, gaps) = self.counts();
        let published = self.published();
        let (over, back) = match kind {
            Kind::ConnectionCut => self.cut(),
            Kind::BrokerKilled => {
                let away = self.between(50, 1_500);
                self.broker_away(Signal::KILL, away)
            }
            Kind::BrokerAway => {
                let away = self.between(4_000, 20_000);
                let signal = if away.as_millis().is_multiple_of(2) {
                    Signal::KILL
                } else {
                    Signal::TERM
                };
                self.broker_away(signal, away)
            }
            Kind::BrokerStalled => {
                let time = self.between(1_000, 10_000);
                self.stall(time)
            }
            Kind::BrokerHung => {
                let time = self.between(22_000, 30_000);
                self.stall(time)
            }
            Kind::ModelKilled => self.kill_model(),
            Kind::Restart => self.restart(),
            Kind::StoppedOnline => self.stop(true),
            Kind::StoppedOffline => self.stop(false),
            Kind::KilledOnline => self.kill(true),
            Kind::KilledOffline => self.kill(false),
            Kind::NetworkLost => {
                let away = self.between(5_000, 25_000);
                self.lose_network(away)
            }
            Kind::CameraUnplugged => self.unplug_camera(),
            Kind::DiskFull => self.fill_disk(),
            Kind::ClockJumped => self.jump_clock(),
        };
        if self.is_over() {
            return None;
        }
        let Some(back) = back else {
            self.problems.push(format!(
                "after {:?}: no message within {RECOVERY:?} after: {}",
                self.elapsed(),
                kind.words()
            ));
            return None;
        };
        let caught_up = self.until(CATCH_UP, |world| {
            world.figures.get("mqtt_connected") == 1 && world.figures.get("messages_waiting") <= LIVE
        });
        let (duplicates_after, gaps_after) = self.counts();
        Some(Outcome {
            kind,
            recovery: back.saturating_duration_since(over),
            caught_up: caught_up.map(|_| over.elapsed()),
            published: self.published() - published,
            duplicates: duplicates_after - duplicates,
            lost: gaps_after.saturating_sub(gaps),
        })
    }

    fn counts(&self) -> (u64, u64) {
        let ledger = self.ledger.lock();
        (
            ledger.duplicates,
            ledger.runs.iter().map(crate::ledger::Run::gaps).sum(),
        )
    }

    /// Waits for the inference that the ledger watches for.
    fn first_message(&mut self) -> Option<Instant> {
        self.until(RECOVERY, |world| world.ledger.lock().watched().is_some());
        self.ledger.lock().watched()
    }

    fn cut(&mut self) -> (Instant, Option<Instant>) {
        self.gate.cut();
        let over = Instant::now();
        // What the gate had passed on may still arrive.
        self.pass(Duration::from_millis(20));
        self.ledger.lock().watch(0);
        (over, self.first_message())
    }

    fn broker_away(&mut self, signal: Signal, away: Duration) -> (Instant, Option<Instant>) {
        self.broker.end(signal);
        self.gate.close();
        self.until(RECOVERY, |world| !world.subscriber.is_subscribed());
        self.pass(away);
        self.broker.up();
        self.until(RECOVERY, |world| world.subscriber.is_subscribed());
        self.open_gate()
    }

    fn open_gate(&mut self) -> (Instant, Option<Instant>) {
        self.ledger.lock().watch(0);
        let over = Instant::now();
        self.gate.open();
        (over, self.first_message())
    }

    fn lose_network(&mut self, away: Duration) -> (Instant, Option<Instant>) {
        self.gate.close();
        self.pass(away);
        self.open_gate()
    }

    fn unplug_camera(&mut self) -> (Instant, Option<Instant>) {
        let away = self.between(2_000, 12_000);
        let camera = |world: &Self, is_plugged| {
            let surroundings = world.surroundings.as_ref().expect("a camera");
            if is_plugged {
                surroundings.camera.plug_in();
            } else {
                surroundings.camera.unplug();
            }
        };
        camera(self, false);
        self.pass(away);
        let over = Instant::now();
        // The last frame before may be under way.
        self.ledger.lock().watch(now_ms());
        camera(self, true);
        (over, self.first_message())
    }

    /// The disk has no room left when the outage begins, so the messages wait in memory.
    fn fill_disk(&mut self) -> (Instant, Option<Instant>) {
        let filling = self.surroundings.as_ref().and_then(|surroundings| {
            let path = surroundings.disk.as_ref()?.path().join("filling");
            let mut file = File::create(&path).ok()?;
            let block = vec![0; 1 << 16];
            while file.write_all(&block).is_ok() {}
            Some(path)
        });
        let away = self.between(5_000, 15_000);
        let result = self.lose_network(away);
        if let Some(filling) = filling {
            let _ = fs::remove_file(filling);
        }
        result
    }

    fn jump_clock(&mut self) -> (Instant, Option<Instant>) {
        for days in [400, -400, 0] {
            if let Some(surroundings) = &self.surroundings {
                surroundings.clock.jump_to(days * DAY);
            }
            if days != 0 {
                let time = self.between(1_000, 4_000);
                self.pass(time);
            }
        }
        let over = Instant::now();
        self.ledger.lock().watch(0);
        (over, self.first_message())
    }

    fn stall(&mut self, time: Duration) -> (Instant, Option<Instant>) {
        self.broker.signal(Signal::STOP);
        self.pass(time);
        self.ledger.lock().watch(0);
        let over = Instant::now();
        self.broker.signal(Signal::CONT);
        (over, self.first_message())
    }

    fn kill_model(&mut self) -> (Instant, Option<Instant>) {
        let over = Instant::now();
        for child in children_of(self.daemon.pid()) {
            if let Some(pid) = Pid::from_raw(child as i32) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        // One answer may be under way.
        self.ledger.lock().watch(now_ms() + 10);
        (over, self.first_message())
    }

    fn restart(&mut self) -> (Instant, Option<Instant>) {
        let runs = self.ledger.lock().runs.len();
        let over = Instant::now();
        self.send_restart();
        let took = self.until(RECOVERY, |world| world.ledger.lock().runs.len() > runs);
        (over, took.map(|took| over + took))
    }

    fn stop(&mut self, online: bool) -> (Instant, Option<Instant>) {
        if !online {
            self.go_offline();
        }
        self.poll();
        self.end_daemon(RECOVERY);
        self.come_back(online)
    }

    fn kill(&mut self, online: bool) -> (Instant, Option<Instant>) {
        let kind = if online {
            Kind::KilledOnline
        } else {
            Kind::KilledOffline
        };
        if !online {
            self.go_offline();
        }
        let found = self.kill_daemon(kind);
        if !online && found.is_none_or(|(_, age)| age > COMMITTED) && !self.is_over() {
            self.problems.push(format!(
                "after {:?} a SIGKILL while offline found on disk: {found:?} (the newest, and its age)",
                self.elapsed()
            ));
        }
        self.come_back(online)
    }

    /// Closes the network until what waits is on disk.
    fn go_offline(&mut self) {
        self.gate.close();
        self.until(RECOVERY, |world| spool_file(&world.site).is_some());
        // Any moment of some commits may be hit.
        let more = self.between(1_000, 4_000);
        self.pass(more);
    }

    fn come_back(&mut self, online: bool) -> (Instant, Option<Instant>) {
        let runs = self.ledger.lock().runs.len();
        let over = Instant::now();
        self.start_daemon();
        if !online {
            let still_away = self.between(0, 5_000);
            self.pass(still_away);
            return self.open_gate();
        }
        let took = self.until(RECOVERY, |world| world.ledger.lock().runs.len() > runs);
        (over, took.map(|took| over + took))
    }
}
