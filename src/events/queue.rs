//! Events on their way into the outbox, with their pictures.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use uuid::Uuid;

use super::event::{Event, EventKind};
use crate::cache::{CacheItem, PairDestination, PairPart, file_name};
use crate::capture::Picture;
use crate::report::{EncodedPicture, PictureInMessage, PictureRef, add_picture_to};

/// Pictures that may wait to be encoded. Further events go out without their picture.
const MAX_PICTURES: usize = 8;
/// Most events whose best picture is kept. Further ones show the present.
const MAX_BEST: usize = 32;

/// Where the pictures of events go.
#[derive(Clone, Default)]
pub(super) struct PictureOutputs {
    /// Into the messages.
    pub in_messages: bool,
    /// Into the caches, each with its message.
    pub pairs: PairDestination,
}

impl PictureOutputs {
    /// Whether pictures go anywhere.
    pub fn any(&self) -> bool {
        self.in_messages || self.pairs.count() > 0
    }
}

/// The events that are not in the outbox yet, the oldest first.
#[derive(Default)]
pub(super) struct EventQueue {
    waiting: VecDeque<Arc<QueuedEvent>>,
    /// For open events, the picture with the highest value.
    best: BTreeMap<Uuid, ShownPicture>,
    last_number: u64,
}

/// A picture that messages show.
#[derive(Clone)]
struct ShownPicture {
    picture: Arc<Picture>,
    /// The pair that a cache has of it.
    pair: Option<Uuid>,
}

/// An event that waits.
pub(super) struct QueuedEvent {
    /// Grows with each event.
    pub number: u64,
    pub event: Event,
    picture: EventPicture,
    /// Where the picture goes.
    outputs: PictureOutputs,
    written: OnceLock<WrittenEvent>,
}

/// The message of an event.
pub(super) struct WrittenEvent {
    pub json: Bytes,
    /// How many caches do not get the picture of the event.
    pub missing_pairs: u64,
}

enum EventPicture {
    NotWanted,
    Missing,
    Given {
        picture: Arc<Picture>,
        /// The pair to write. `None`: no cache is on, or the caches have the picture already.
        new_pair: Option<Uuid>,
    },
}

impl EventQueue {
    /// Adds an event. `present`: the picture of this moment, `None` if pictures go nowhere or if only time has passed.
    /// A start and a crossing show the present; an update and an end show the moment with the highest value. A picture that
    /// several messages show is in the caches once. Returns `false` if the picture is left out because too many wait.
    pub fn push(&mut self, mut event: Event, present: Option<&Arc<Picture>>, outputs: &PictureOutputs) -> bool {
        let pictures = self.waiting.iter().filter(|queued| queued.has_picture()).count();
        let shown = self.shown_picture(&event, present);
        let is_left_out = shown.is_some() && pictures >= MAX_PICTURES;
        let picture = match shown {
            None => EventPicture::NotWanted,
            Some(_) if is_left_out => EventPicture::Missing,
            Some(ShownPicture { picture, pair }) => {
                let new_pair = (outputs.pairs.count() > 0 && pair.is_none()).then(Uuid::new_v4);
                if let Some(id) = pair.or(new_pair) {
                    event.picture = Some(file_name(id, PairPart::Image));
                }
                if let Some(best) = self.best.get_mut(&event.id).filter(|_| new_pair.is_some()) {
                    best.pair = new_pair;
                }
                EventPicture::Given { picture, new_pair }
            }
        };
        if let Some(location) = outputs.pairs.location()
            && (event.picture.is_some() || event.clip.is_some())
        {
            event.s3_bucket = Some(location.bucket.clone());
            event.s3_prefix = Some(location.prefix.clone());
        }
        self.last_number += 1;
        self.waiting.push_back(Arc::new(QueuedEvent {
            number: self.last_number,
            event,
            picture,
            outputs: outputs.clone(),
            written: OnceLock::new(),
        }));
        !is_left_out
    }

    fn shown_picture(&mut self, event: &Event, present: Option<&Arc<Picture>>) -> Option<ShownPicture> {
        let present = present.map(|picture| ShownPicture {
            picture: picture.clone(),
            pair: None,
        });
        match event.event {
            EventKind::Start => {
                if let Some(present) = &present
                    && self.best.len() < MAX_BEST
                {
                    self.best.insert(event.id, present.clone());
                }
                present
            }
            EventKind::Update => self.best.get(&event.id).cloned().or(present),
            EventKind::End => self.best.remove(&event.id),
            EventKind::Cross => present,
        }
    }

    /// Whether the best picture of one of these events is kept.
    pub fn shows_any(&self, ids: &[Uuid]) -> bool {
        ids.iter().any(|id| self.best.contains_key(id))
    }

    /// Keeps the picture for those of these events whose pictures are kept.
    pub fn keep_best(&mut self, ids: &[Uuid], picture: &Arc<Picture>) {
        for id in ids {
            if let Some(best) = self.best.get_mut(id) {
                *best = ShownPicture {
                    picture: picture.clone(),
                    pair: None,
                };
            }
        }
    }

    /// Pictures go nowhere any more.
    pub fn forget_pictures(&mut self) {
        self.best.clear();
    }

    /// The events that wait.
    pub fn waiting(&self) -> impl ExactSizeIterator<Item = &Arc<QueuedEvent>> {
        self.waiting.iter()
    }

    /// Takes the oldest event, if its number is not above `number`.
    pub fn pop_until(&mut self, number: u64) -> Option<Arc<QueuedEvent>> {
        self.waiting.front().filter(|queued| queued.number <= number)?;
        self.waiting.pop_front()
    }
}

impl QueuedEvent {
    fn has_picture(&self) -> bool {
        matches!(self.picture, EventPicture::Given { .. })
    }

    /// Makes the message and gives the pair to the caches. Encodes the picture, which takes time.
    pub fn encode(&self) {
        self.written.get_or_init(|| {
            let EventPicture::Given { picture, new_pair } = &self.picture else {
                return self.without_picture();
            };
            if !self.outputs.in_messages && new_pair.is_none() {
                return self.without_picture();
            }
            let encoded = EncodedPicture::new(PictureRef {
                width: picture.width,
                height: picture.height,
                grey: picture.grey,
                data: &picture.data,
            });
            let Ok(encoded) = encoded else {
                return self.without_picture();
            };
            let json = message(
                &self.event,
                match self.outputs.in_messages {
                    true => PictureInMessage::Encoded(&encoded),
                    false => PictureInMessage::NotWanted,
                },
            );
            if let Some(id) = new_pair {
                self.outputs.pairs.offer(CacheItem {
                    id: *id,
                    image: Some(encoded.jpeg().clone()),
                    json: json.clone(),
                });
            }
            WrittenEvent { json, missing_pairs: 0 }
        });
    }

    /// The message; without its picture, if that is not encoded yet.
    pub fn message_now(&self) -> &WrittenEvent {
        self.written.get_or_init(|| self.without_picture())
    }

    fn without_picture(&self) -> WrittenEvent {
        let (is_wanted, lacks_pair) = match &self.picture {
            EventPicture::NotWanted => (false, false),
            EventPicture::Missing => (true, true),
            EventPicture::Given { new_pair, .. } => (true, new_pair.is_some()),
        };
        let mut event = self.event.clone();
        if lacks_pair {
            event.picture = None;
        }
        let picture = match is_wanted && self.outputs.in_messages {
            true => PictureInMessage::Missing,
            false => PictureInMessage::NotWanted,
        };
        WrittenEvent {
            json: message(&event, picture),
            missing_pairs: if lacks_pair { self.outputs.pairs.count() } else { 0 },
        }
    }
}

fn message(event: &Event, picture: PictureInMessage<'_>) -> Bytes {
    // Cannot fail: every key is a text.
    let mut json = serde_json::to_string(event).unwrap_or_default();
    add_picture_to(&mut json, picture);
    json.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(brightness: u8) -> Arc<Picture> {
        Arc::new(Picture {
            width: 1,
            height: 1,
            grey: true,
            data: vec![brightness],
        })
    }

    fn push(queue: &mut EventQueue, event: Event, present: Option<&Arc<Picture>>) {
        let outputs = PictureOutputs {
            in_messages: true,
            ..PictureOutputs::default()
        };
        queue.push(event, present, &outputs);
    }

    fn shown(queue: &mut EventQueue) -> Option<u8> {
        match &queue.pop_until(u64::MAX).expect("an event").picture {
            EventPicture::Given { picture, .. } => Some(picture.data[0]),
            EventPicture::NotWanted | EventPicture::Missing => None,
        }
    }

    #[test]
    fn the_end_of_an_event_shows_its_best_moment() {
        let (mut queue, id) = (EventQueue::default(), Uuid::from_u128(1));
        let event = |kind| Event::new(kind, id, 0);
        push(&mut queue, event(EventKind::Start), Some(&picture(1)));
        assert_eq!(shown(&mut queue), Some(1));
        assert!(queue.shows_any(&[id]) && !queue.shows_any(&[Uuid::nil()]));
        queue.keep_best(&[id, Uuid::nil()], &picture(2));
        push(&mut queue, event(EventKind::Update), Some(&picture(3)));
        push(&mut queue, event(EventKind::Cross), Some(&picture(4)));
        push(&mut queue, event(EventKind::End), None);
        assert_eq!(
            [shown(&mut queue), shown(&mut queue), shown(&mut queue)],
            [Some(2), Some(4), Some(2)]
        );
        assert!(queue.best.is_empty());
        push(&mut queue, event(EventKind::End), None);
        assert_eq!(shown(&mut queue), None);
    }

    #[test]
    fn pictures_are_bounded_and_messages_are_not() {
        let mut queue = EventQueue::default();
        for number in 0..100 {
            push(
                &mut queue,
                Event::new(EventKind::Start, Uuid::from_u128(number), 0),
                Some(&picture(0)),
            );
        }
        assert_eq!((queue.waiting().len(), queue.best.len()), (100, MAX_BEST));
        assert_eq!(
            queue.waiting().filter(|queued| queued.has_picture()).count(),
            MAX_PICTURES
        );
        let last = queue.waiting().last().unwrap().message_now();
        assert!(last.json.ends_with(br#","image_omitted":true}"#));
    }
}
