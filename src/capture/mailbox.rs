//! The one place between GStreamer's thread, which brings frames, and the inference thread, which takes them; for sound
//! a short queue, since windows of sound are processed in order.
//!
//! Whoever starts a capture reserves the slot for it; the capture opens it with its [`Reservation`] and gets a [`MailboxSender`]. Each
//! reservation is a new generation: one of an earlier generation (a pipeline that hung in its driver and woke up later) can
//! neither open the slot nor put anything in.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gstreamer as gst;
use parking_lot::{Condvar, Mutex};

/// One frame of the source.
#[derive(Debug, Clone)]
pub struct Frame {
    /// The frame as GStreamer delivered it, by reference.
    pub sample: gst::Sample,
    /// When it came.
    pub at: Instant,
}

impl Frame {
    /// The same frame in memory of its own: the source has its buffer back. `None` for a frame without data or format,
    /// or when there is no memory for it.
    pub fn detached(&self) -> Option<Self> {
        let buffer = self.sample.buffer()?.copy_deep().ok()?;
        let caps = self.sample.caps_owned()?;
        Some(Self {
            sample: gst::Sample::builder().buffer(&buffer).caps(&caps).build(),
            at: self.at,
        })
    }
}

/// What happens when a frame comes while those before were not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// The newer frame replaces it.
    NewestWins,
    /// The feed waits until it was taken: every frame once.
    Lossless,
    /// So many are kept, in order; beyond it the oldest is dropped.
    OldestDropped(usize),
}

impl Policy {
    /// How many values may wait.
    fn room(self) -> usize {
        match self {
            Self::NewestWins | Self::Lossless => 1,
            Self::OldestDropped(room) => room.max(1),
        }
    }
}

/// What became of a frame that was put in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// The place was free.
    Stored,
    /// An older one that nobody had taken was dropped for it.
    Replaced,
    /// The slot takes nothing more from this feed.
    Closed,
}

/// What a look into the slot gave.
#[derive(Debug)]
pub enum Taken<T = Frame> {
    /// A frame; it is gone from the slot.
    Frame(T),
    /// None yet.
    TimedOut,
    /// None, and none will come until a capture is started again. The number of the opening that is over.
    Closed(u64),
}

/// The slot of the inference loop. It outlives the captures that fill it.
pub type FrameMailbox = Mailbox<Frame>;

/// The slot; generic so that its rules can be tested with plain numbers.
#[derive(Debug)]
pub struct Mailbox<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<T> {
    values: VecDeque<T>,
    policy: Policy,
    /// The newest reservation.
    reserved: u64,
    /// The reservation with which it was opened last.
    generation: u64,
    /// Values may be put in.
    open: bool,
}

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Mailbox<T> {
    /// An empty slot, closed until a capture opens it.
    pub fn new() -> Self {
        let state = State {
            values: VecDeque::new(),
            policy: Policy::NewestWins,
            reserved: 0,
            generation: 0,
            open: false,
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    /// Reserves the slot for a new source. What an earlier one left is thrown away, its feed is shut, and a ticket of before
    /// that was not used yet is of no use any more.
    pub fn reserve(self: &Arc<Self>) -> Reservation<T> {
        Reservation {
            number: self.revoke(),
            slot: Arc::clone(self),
        }
    }

    /// Shuts the slot for all tickets there are; a new one opens it. Gives the number of the next ticket.
    pub fn revoke(&self) -> u64 {
        let mut state = self.state.lock();
        state.reserved += 1;
        state.values.clear();
        state.open = false;
        self.changed.notify_all();
        state.reserved
    }

    /// Takes the oldest value, waiting at most `timeout` for one.
    pub fn take(&self, timeout: Duration) -> Taken<T> {
        let deadline = Instant::now().checked_add(timeout);
        let mut state = self.state.lock();
        loop {
            if let Some(value) = state.values.pop_front() {
                self.changed.notify_all();
                return Taken::Frame(value);
            }
            if !state.open {
                return Taken::Closed(state.generation);
            }
            match deadline {
                Some(deadline) if self.changed.wait_until(&mut state, deadline).timed_out() => {
                    return state.values.pop_front().map_or(Taken::TimedOut, |value| {
                        self.changed.notify_all();
                        Taken::Frame(value)
                    });
                }
                Some(_) => {}
                None => self.changed.wait(&mut state),
            }
        }
    }

    /// Takes the value if there is one, without waiting.
    pub fn try_take(&self) -> Taken<T> {
        self.take(Duration::ZERO)
    }

    /// Takes the value if there is one that no newer will replace: a [`Policy::Lossless`] source waits until it is gone, so
    /// nothing is older for having been taken early.
    pub fn take_ahead(&self) -> Option<T> {
        let mut state = self.state.lock();
        if state.policy != Policy::Lossless {
            return None;
        }
        let value = state.values.pop_front()?;
        self.changed.notify_all();
        Some(value)
    }

    /// Waits, at most `timeout`, until a source opens the slot. For after [`Taken::Closed`].
    pub fn wait_until_open(&self, timeout: Duration) {
        let mut state = self.state.lock();
        if !state.open {
            let _ = self.changed.wait_for(&mut state, timeout);
        }
    }

    /// Throws the value away.
    pub fn clear(&self) {
        self.state.lock().values.clear();
        self.changed.notify_all();
    }

    /// Shuts the slot and throws the value away: takers and a waiting feed return at once.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.open = false;
        state.values.clear();
        self.changed.notify_all();
    }
}

/// The right to open the slot, until somebody else gets it.
#[derive(Debug)]
pub struct Reservation<T = Frame> {
    slot: Arc<Mailbox<T>>,
    number: u64,
}

impl<T> Clone for Reservation<T> {
    fn clone(&self) -> Self {
        Self {
            slot: Arc::clone(&self.slot),
            number: self.number,
        }
    }
}

impl<T> Reservation<T> {
    /// Opens the slot. `None`: it has been reserved for another source, or revoked, since.
    pub fn open(&self, policy: Policy) -> Option<MailboxSender<T>> {
        let mut state = self.slot.state.lock();
        if state.reserved != self.number {
            return None;
        }
        state.generation = self.number;
        state.values.clear();
        state.policy = policy;
        state.open = true;
        self.slot.changed.notify_all();
        Some(MailboxSender {
            slot: Arc::clone(&self.slot),
            generation: self.number,
        })
    }
}

/// The right of one source to put values into the slot.
#[derive(Debug)]
pub struct MailboxSender<T = Frame> {
    slot: Arc<Mailbox<T>>,
    generation: u64,
}

impl<T> Clone for MailboxSender<T> {
    fn clone(&self) -> Self {
        Self {
            slot: Arc::clone(&self.slot),
            generation: self.generation,
        }
    }
}

impl<T> MailboxSender<T> {
    /// Puts a value in. With [`Policy::Lossless`] this waits until the value before was taken or the slot is shut.
    pub fn put(&self, value: T) -> Put {
        let mut state = self.slot.state.lock();
        loop {
            if !self.may_put(&state) {
                return Put::Closed;
            }
            if state.values.len() < state.policy.room() || state.policy != Policy::Lossless {
                break;
            }
            self.slot.changed.wait(&mut state);
        }
        let is_full = state.values.len() >= state.policy.room();
        let replaced = if is_full { state.values.pop_front() } else { None };
        state.values.push_back(value);
        drop(state);
        self.slot.changed.notify_all();
        // An old frame may be the last reference to a driver's buffer: it is let go outside the lock.
        if replaced.is_some() { Put::Replaced } else { Put::Stored }
    }

    fn may_put(&self, state: &State<T>) -> bool {
        state.open && state.generation == self.generation
    }
}

/// What a capture needs of a [`MailboxSender`] besides putting values in, whatever the values are.
pub trait MailboxSink: Debug + Send + Sync {
    /// No value will follow. Those in the slot can still be taken; after them the slot is closed.
    fn finish(&self);
    /// The number of this opening of the slot, as [`Taken::Closed`] names it.
    fn generation(&self) -> u64;
    /// Waits until the values of this feed were taken or thrown away.
    fn wait_until_taken(&self);
    /// Shuts the slot as [`Mailbox::close`] does, unless another source has opened it since.
    fn close(&self);
}

impl<T: Debug + Send> MailboxSink for MailboxSender<T> {
    fn finish(&self) {
        let mut state = self.slot.state.lock();
        if state.generation == self.generation {
            state.open = false;
            self.slot.changed.notify_all();
        }
    }

    fn generation(&self) -> u64 {
        self.generation
    }

    fn wait_until_taken(&self) {
        let mut state = self.slot.state.lock();
        while state.generation == self.generation && !state.values.is_empty() {
            self.slot.changed.wait(&mut state);
        }
    }

    fn close(&self) {
        let mut state = self.slot.state.lock();
        if state.generation == self.generation {
            state.open = false;
            state.values.clear();
            self.slot.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    const LIMIT: Duration = Duration::from_secs(20);

    fn slot(policy: Policy) -> (Arc<Mailbox<u32>>, MailboxSender<u32>) {
        let slot = Arc::new(Mailbox::new());
        let feed = slot.reserve().open(policy).unwrap();
        (slot, feed)
    }

    fn drain(slot: &Mailbox<u32>) -> Vec<u32> {
        let mut seen = Vec::new();
        loop {
            match slot.take(LIMIT) {
                Taken::Frame(value) => seen.push(value),
                Taken::Closed(_) => return seen,
                Taken::TimedOut => panic!("nothing came; so far {seen:?}"),
            }
        }
    }

    #[test]
    fn the_newest_value_replaces_the_one_before() {
        let (slot, feed) = slot(Policy::NewestWins);
        assert_eq!(feed.put(1), Put::Stored);
        assert_eq!(feed.put(2), Put::Replaced);
        assert!(matches!(slot.try_take(), Taken::Frame(2)));
        assert!(matches!(slot.try_take(), Taken::TimedOut));
    }

    #[test]
    fn a_slot_nobody_opened_is_closed() {
        assert!(matches!(Mailbox::<u32>::new().take(LIMIT), Taken::Closed(_)));
    }

    #[test]
    fn the_last_value_is_taken_before_the_slot_is_closed() {
        let (slot, feed) = slot(Policy::NewestWins);
        feed.put(7);
        feed.finish();
        assert_eq!(feed.put(8), Put::Closed);
        assert_eq!(drain(&slot), [7]);
    }

    #[test]
    fn closing_throws_away_and_wakes_a_waiting_feed() {
        let (slot, feed) = slot(Policy::Lossless);
        feed.put(1);
        let waiting = thread::spawn({
            let feed = feed.clone();
            move || feed.put(2)
        });
        slot.close();
        assert_eq!(waiting.join().unwrap(), Put::Closed);
        assert!(matches!(slot.try_take(), Taken::Closed(_)));
    }

    #[test]
    fn closing_wakes_a_waiting_taker() {
        let (slot, feed) = slot(Policy::NewestWins);
        let waiting = thread::spawn({
            let slot = Arc::clone(&slot);
            move || matches!(slot.take(LIMIT), Taken::Closed(_))
        });
        feed.close();
        assert!(waiting.join().unwrap());
    }

    #[test]
    fn an_earlier_source_cannot_put_or_close_after_the_slot_was_opened_again() {
        let (slot, old) = slot(Policy::Lossless);
        old.put(1);
        let new = slot.reserve().open(Policy::NewestWins).unwrap();
        assert_eq!(old.put(2), Put::Closed);
        old.close();
        old.finish();
        old.wait_until_taken();
        assert_eq!(new.put(3), Put::Stored);
        assert!(matches!(slot.try_take(), Taken::Frame(3)));
    }

    #[test]
    fn a_source_that_was_given_up_cannot_open_the_slot_late() {
        let slot = Arc::new(Mailbox::new());
        let given_up = slot.reserve();
        let new = slot.reserve().open(Policy::Lossless).unwrap();
        assert!(given_up.open(Policy::NewestWins).is_none());
        assert_eq!(new.put(1), Put::Stored);
        assert!(matches!(slot.try_take(), Taken::Frame(1)));
        slot.revoke();
        assert_eq!(new.put(2), Put::Closed);
    }

    #[test]
    fn a_source_that_is_given_up_while_it_waits_for_room_goes_on() {
        let (slot, feed) = slot(Policy::Lossless);
        feed.put(1);
        let waiting = thread::spawn(move || feed.put(2));
        slot.revoke();
        assert_eq!(waiting.join().unwrap(), Put::Closed);
    }

    #[test]
    fn waiting_for_the_last_value_ends_when_it_is_taken() {
        let (slot, feed) = slot(Policy::NewestWins);
        feed.put(1);
        feed.finish();
        let waiting = thread::spawn(move || feed.wait_until_taken());
        assert!(matches!(slot.take(LIMIT), Taken::Frame(1)));
        waiting.join().unwrap();
    }

    #[test]
    fn a_full_queue_drops_the_oldest_and_keeps_the_order() {
        let (slot, feed) = slot(Policy::OldestDropped(3));
        let put: Vec<_> = (1..=5).map(|value| feed.put(value)).collect();
        assert_eq!(
            put,
            [Put::Stored, Put::Stored, Put::Stored, Put::Replaced, Put::Replaced]
        );
        feed.finish();
        assert_eq!(drain(&slot), [3, 4, 5]);
    }

    #[test]
    fn only_what_no_newer_value_replaces_is_taken_ahead() {
        let (newest, feed) = slot(Policy::NewestWins);
        feed.put(1);
        assert_eq!(newest.take_ahead(), None);
        assert!(matches!(newest.try_take(), Taken::Frame(1)));
        let (lossless, feed) = slot(Policy::Lossless);
        assert_eq!(lossless.take_ahead(), None);
        feed.put(2);
        feed.finish();
        assert_eq!(lossless.take_ahead(), Some(2));
        assert!(matches!(lossless.try_take(), Taken::Closed(_)));
    }

    #[test]
    fn clearing_keeps_the_slot_open() {
        let (slot, feed) = slot(Policy::NewestWins);
        feed.put(1);
        slot.clear();
        assert!(matches!(slot.try_take(), Taken::TimedOut));
        assert_eq!(feed.put(2), Put::Stored);
    }

    #[test]
    fn lossless_loses_and_repeats_nothing_under_load() {
        let (slot, feed) = slot(Policy::Lossless);
        let source = thread::spawn(move || {
            for value in 0..20_000 {
                assert_eq!(feed.put(value), Put::Stored);
            }
            feed.finish();
        });
        assert_eq!(drain(&slot), (0..20_000).collect::<Vec<_>>());
        source.join().unwrap();
    }

    #[test]
    fn newest_wins_keeps_the_order_and_the_last_value_and_counts_the_rest() {
        let (slot, feed) = slot(Policy::NewestWins);
        let source = thread::spawn(move || {
            let replaced = (0..100_000).filter(|&value| feed.put(value) == Put::Replaced).count();
            feed.finish();
            replaced
        });
        let seen = drain(&slot);
        let replaced = source.join().unwrap();
        assert!(seen.is_sorted_by(|a, b| a < b));
        assert_eq!(seen.last(), Some(&99_999));
        assert_eq!(seen.len() + replaced, 100_000);
    }
}
