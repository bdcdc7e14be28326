//! A mailbox between one producer thread (GStreamer) and one consumer thread (inference): it holds the newest video
//! frame, or a short queue of audio windows.
//!
//! The supervisor reserves the mailbox for each capture that it starts. The capture opens it with its [`Reservation`]
//! and gets a [`MailboxSender`]. Each reservation starts a new epoch: a capture of an earlier epoch (a pipeline that
//! hung in its driver and woke up later) can neither open the mailbox nor send anything.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// What happens to a value that is sent while the mailbox is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverflowPolicy {
    /// It replaces the one value in the mailbox.
    KeepNewest,
    /// The sender blocks until the value in the mailbox is received: no value is lost.
    Block,
    /// The mailbox is a queue of this length; the oldest value is dropped.
    DropOldest(usize),
}

impl OverflowPolicy {
    fn capacity(self) -> usize {
        match self {
            Self::KeepNewest | Self::Block => 1,
            Self::DropOldest(capacity) => capacity.max(1),
        }
    }
}

/// What happened to a value that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendOutcome {
    /// It is in the mailbox.
    Stored,
    /// It is in the mailbox; an older value that nobody received was dropped for it.
    Replaced,
    /// It was refused: the mailbox is closed for this sender.
    Closed,
}

/// What [`Mailbox::receive`] returns.
#[derive(Debug)]
pub enum Received<T> {
    /// The oldest value, removed from the mailbox.
    Value(T),
    /// No value arrived in time.
    TimedOut,
    /// The mailbox is empty, and no value arrives until the next capture opens it. Holds the epoch that ended.
    Closed(u64),
}

/// The receiving side, which outlives the captures that fill it.
#[derive(Debug)]
pub struct Mailbox<T> {
    state: Mutex<MailboxState<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct MailboxState<T> {
    values: VecDeque<T>,
    policy: OverflowPolicy,
    /// Epoch of the newest reservation.
    reserved: u64,
    /// Epoch of the reservation that opened the mailbox last.
    epoch: u64,
    is_open: bool,
}

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Mailbox<T> {
    /// An empty mailbox, closed until a capture opens it.
    pub fn new() -> Self {
        let state = MailboxState {
            values: VecDeque::new(),
            policy: OverflowPolicy::KeepNewest,
            reserved: 0,
            epoch: 0,
            is_open: false,
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    /// Reserves the mailbox for a new capture. Revokes all earlier reservations, as [`Self::revoke`] does.
    pub fn reserve(self: &Arc<Self>) -> Reservation<T> {
        Reservation {
            epoch: self.revoke(),
            mailbox: Arc::clone(self),
        }
    }

    /// Closes the mailbox, drops its values and invalidates all reservations. Returns the epoch of the next one.
    pub fn revoke(&self) -> u64 {
        let mut state = self.state.lock();
        state.reserved += 1;
        state.values.clear();
        state.is_open = false;
        self.changed.notify_all();
        state.reserved
    }

    /// Receives the oldest value; waits at most `timeout` for one.
    pub fn receive(&self, timeout: Duration) -> Received<T> {
        let deadline = Instant::now().checked_add(timeout);
        let mut state = self.state.lock();
        loop {
            if let Some(value) = state.values.pop_front() {
                self.changed.notify_all();
                return Received::Value(value);
            }
            if !state.is_open {
                return Received::Closed(state.epoch);
            }
            match deadline {
                Some(deadline) if self.changed.wait_until(&mut state, deadline).timed_out() => {
                    return state.values.pop_front().map_or(Received::TimedOut, |value| {
                        self.changed.notify_all();
                        Received::Value(value)
                    });
                }
                Some(_) => {}
                None => self.changed.wait(&mut state),
            }
        }
    }

    /// Receives the oldest value without waiting.
    pub fn try_receive(&self) -> Received<T> {
        self.receive(Duration::ZERO)
    }

    /// Receives the value without waiting, but only if no newer value can replace it ([`OverflowPolicy::Block`]). A
    /// value that can be replaced would be outdated when it is needed.
    pub fn prefetch(&self) -> Option<T> {
        let mut state = self.state.lock();
        if state.policy != OverflowPolicy::Block {
            return None;
        }
        let value = state.values.pop_front()?;
        self.changed.notify_all();
        Some(value)
    }

    /// Whether the source waits for the receiver ([`OverflowPolicy::Block`]), so that its pace is that of the receiver.
    pub fn waits_for_receiver(&self) -> bool {
        self.state.lock().policy == OverflowPolicy::Block
    }

    /// Waits, at most `timeout`, until a capture opens the mailbox. For use after [`Received::Closed`].
    pub fn wait_until_open(&self, timeout: Duration) {
        let mut state = self.state.lock();
        if !state.is_open {
            let _ = self.changed.wait_for(&mut state, timeout);
        }
    }

    /// Closes the mailbox and drops its values. A receiver and a sender that wait return at once.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.is_open = false;
        state.values.clear();
        self.changed.notify_all();
    }
}

/// Lets one capture open the mailbox, unless it is reserved for another one first.
#[derive(Debug)]
pub struct Reservation<T> {
    mailbox: Arc<Mailbox<T>>,
    epoch: u64,
}

impl<T> Reservation<T> {
    /// Opens the mailbox, empty. `None` when the mailbox was reserved again or revoked since.
    pub fn open(&self, policy: OverflowPolicy) -> Option<MailboxSender<T>> {
        let mut state = self.mailbox.state.lock();
        if state.reserved != self.epoch {
            return None;
        }
        state.epoch = self.epoch;
        state.values.clear();
        state.policy = policy;
        state.is_open = true;
        self.mailbox.changed.notify_all();
        Some(MailboxSender {
            mailbox: Arc::clone(&self.mailbox),
            epoch: self.epoch,
        })
    }
}

/// The sending side of one capture.
#[derive(Debug)]
pub struct MailboxSender<T> {
    mailbox: Arc<Mailbox<T>>,
    epoch: u64,
}

impl<T> Clone for MailboxSender<T> {
    fn clone(&self) -> Self {
        Self {
            mailbox: Arc::clone(&self.mailbox),
            epoch: self.epoch,
        }
    }
}

impl<T> MailboxSender<T> {
    /// Sends a value. With [`OverflowPolicy::Block`] this blocks while the mailbox is full and open.
    pub fn send(&self, value: T) -> SendOutcome {
        let mut state = self.mailbox.state.lock();
        loop {
            if !state.is_open || state.epoch != self.epoch {
                return SendOutcome::Closed;
            }
            if state.values.len() < state.policy.capacity() || state.policy != OverflowPolicy::Block {
                break;
            }
            self.mailbox.changed.wait(&mut state);
        }
        let is_full = state.values.len() >= state.policy.capacity();
        let replaced = if is_full { state.values.pop_front() } else { None };
        state.values.push_back(value);
        drop(state);
        self.mailbox.changed.notify_all();
        // An old frame may be the last reference to a driver's buffer: it is dropped outside the lock.
        if replaced.is_some() {
            SendOutcome::Replaced
        } else {
            SendOutcome::Stored
        }
    }

    /// Changes the state unless a later capture has opened the mailbox.
    fn update(&self, change: impl FnOnce(&mut MailboxState<T>)) {
        let mut state = self.mailbox.state.lock();
        if state.epoch == self.epoch {
            change(&mut state);
            self.mailbox.changed.notify_all();
        }
    }
}

/// The methods of a [`MailboxSender`] that do not depend on the type of its values.
pub trait MailboxControl: Debug + Send + Sync {
    /// Closes the mailbox for sending. The values in it can still be received.
    fn finish(&self);
    /// The epoch of this sender, as [`Received::Closed`] returns it.
    fn epoch(&self) -> u64;
    /// Whether no value of this sender waits to be received.
    fn is_empty(&self) -> bool;
    /// Blocks until the values of this sender are received or dropped.
    fn wait_until_drained(&self);
    /// Closes the mailbox and drops its values, unless a later capture has opened it.
    fn close(&self);
}

impl<T: Debug + Send> MailboxControl for MailboxSender<T> {
    fn finish(&self) {
        self.update(|state| state.is_open = false);
    }

    fn epoch(&self) -> u64 {
        self.epoch
    }

    fn is_empty(&self) -> bool {
        let state = self.mailbox.state.lock();
        state.epoch != self.epoch || state.values.is_empty()
    }

    fn wait_until_drained(&self) {
        let mut state = self.mailbox.state.lock();
        while state.epoch == self.epoch && !state.values.is_empty() {
            self.mailbox.changed.wait(&mut state);
        }
    }

    fn close(&self) {
        self.update(|state| {
            state.is_open = false;
            state.values.clear();
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    const LIMIT: Duration = Duration::from_secs(20);

    fn opened(policy: OverflowPolicy) -> (Arc<Mailbox<u32>>, MailboxSender<u32>) {
        let mailbox = Arc::new(Mailbox::new());
        let sender = mailbox.reserve().open(policy).unwrap();
        (mailbox, sender)
    }

    fn drain(mailbox: &Mailbox<u32>) -> Vec<u32> {
        let mut seen = Vec::new();
        loop {
            match mailbox.receive(LIMIT) {
                Received::Value(value) => seen.push(value),
                Received::Closed(_) => return seen,
                Received::TimedOut => panic!("nothing came; so far {seen:?}"),
            }
        }
    }

    #[test]
    fn the_newest_value_replaces_the_one_before() {
        let (mailbox, sender) = opened(OverflowPolicy::KeepNewest);
        assert_eq!(sender.send(1), SendOutcome::Stored);
        assert_eq!(sender.send(2), SendOutcome::Replaced);
        assert!(matches!(mailbox.try_receive(), Received::Value(2)));
        assert!(matches!(mailbox.try_receive(), Received::TimedOut));
    }

    #[test]
    fn a_mailbox_that_was_never_opened_is_closed() {
        assert!(matches!(Mailbox::<u32>::new().receive(LIMIT), Received::Closed(_)));
    }

    #[test]
    fn the_last_value_is_received_before_the_mailbox_is_closed() {
        let (mailbox, sender) = opened(OverflowPolicy::KeepNewest);
        sender.send(7);
        sender.finish();
        assert_eq!(sender.send(8), SendOutcome::Closed);
        assert_eq!(drain(&mailbox), [7]);
    }

    #[test]
    fn closing_drops_the_value_and_wakes_a_waiting_sender() {
        let (mailbox, sender) = opened(OverflowPolicy::Block);
        sender.send(1);
        let waiting = thread::spawn({
            let sender = sender.clone();
            move || sender.send(2)
        });
        mailbox.close();
        assert_eq!(waiting.join().unwrap(), SendOutcome::Closed);
        assert!(matches!(mailbox.try_receive(), Received::Closed(_)));
    }

    #[test]
    fn closing_wakes_a_waiting_receiver() {
        let (mailbox, sender) = opened(OverflowPolicy::KeepNewest);
        let waiting = thread::spawn({
            let mailbox = Arc::clone(&mailbox);
            move || matches!(mailbox.receive(LIMIT), Received::Closed(_))
        });
        sender.close();
        assert!(waiting.join().unwrap());
    }

    #[test]
    fn an_earlier_capture_can_neither_send_nor_close_after_the_mailbox_was_opened_again() {
        let (mailbox, old) = opened(OverflowPolicy::Block);
        old.send(1);
        let new = mailbox.reserve().open(OverflowPolicy::KeepNewest).unwrap();
        assert_eq!(old.send(2), SendOutcome::Closed);
        old.close();
        old.finish();
        old.wait_until_drained();
        assert_eq!(new.send(3), SendOutcome::Stored);
        assert!(matches!(mailbox.try_receive(), Received::Value(3)));
    }

    #[test]
    fn a_capture_whose_reservation_was_revoked_cannot_open_the_mailbox() {
        let mailbox = Arc::new(Mailbox::new());
        let revoked = mailbox.reserve();
        let new = mailbox.reserve().open(OverflowPolicy::Block).unwrap();
        assert!(revoked.open(OverflowPolicy::KeepNewest).is_none());
        assert_eq!(new.send(1), SendOutcome::Stored);
        assert!(matches!(mailbox.try_receive(), Received::Value(1)));
        mailbox.revoke();
        assert_eq!(new.send(2), SendOutcome::Closed);
    }

    #[test]
    fn revoking_a_reservation_wakes_its_waiting_sender() {
        let (mailbox, sender) = opened(OverflowPolicy::Block);
        sender.send(1);
        let waiting = thread::spawn(move || sender.send(2));
        mailbox.revoke();
        assert_eq!(waiting.join().unwrap(), SendOutcome::Closed);
    }

    #[test]
    fn waiting_until_drained_ends_when_the_last_value_is_received() {
        let (mailbox, sender) = opened(OverflowPolicy::KeepNewest);
        sender.send(1);
        sender.finish();
        let waiting = thread::spawn(move || sender.wait_until_drained());
        assert!(matches!(mailbox.receive(LIMIT), Received::Value(1)));
        waiting.join().unwrap();
    }

    #[test]
    fn a_full_queue_drops_the_oldest_and_keeps_the_order() {
        let (mailbox, sender) = opened(OverflowPolicy::DropOldest(3));
        let put: Vec<_> = (1..=5).map(|value| sender.send(value)).collect();
        assert_eq!(
            put,
            [
                SendOutcome::Stored,
                SendOutcome::Stored,
                SendOutcome::Stored,
                SendOutcome::Replaced,
                SendOutcome::Replaced
            ]
        );
        sender.finish();
        assert_eq!(drain(&mailbox), [3, 4, 5]);
    }

    #[test]
    fn only_a_value_that_no_newer_one_can_replace_is_prefetched() {
        let (newest, sender) = opened(OverflowPolicy::KeepNewest);
        sender.send(1);
        assert_eq!(newest.prefetch(), None);
        assert!(matches!(newest.try_receive(), Received::Value(1)));
        let (lossless, sender) = opened(OverflowPolicy::Block);
        assert_eq!(lossless.prefetch(), None);
        sender.send(2);
        sender.finish();
        assert_eq!(lossless.prefetch(), Some(2));
        assert!(matches!(lossless.try_receive(), Received::Closed(_)));
    }

    #[test]
    fn a_blocking_mailbox_loses_and_repeats_nothing_under_load() {
        let (mailbox, sender) = opened(OverflowPolicy::Block);
        let source = thread::spawn(move || {
            for value in 0..20_000 {
                assert_eq!(sender.send(value), SendOutcome::Stored);
            }
            sender.finish();
        });
        assert_eq!(drain(&mailbox), (0..20_000).collect::<Vec<_>>());
        source.join().unwrap();
    }

    #[test]
    fn keep_newest_keeps_the_order_and_the_last_value_and_counts_the_rest() {
        let (mailbox, sender) = opened(OverflowPolicy::KeepNewest);
        let source = thread::spawn(move || {
            let replaced = (0..100_000)
                .filter(|&value| sender.send(value) == SendOutcome::Replaced)
                .count();
            sender.finish();
            replaced
        });
        let seen = drain(&mailbox);
        let replaced = source.join().unwrap();
        assert!(seen.is_sorted_by(|a, b| a < b));
        assert_eq!(seen.last(), Some(&99_999));
        assert_eq!(seen.len() + replaced, 100_000);
    }
}
