//! Events on their way into the outbox, with their pictures.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use uuid::Uuid;

use super::event::{Event, EventKind};
use crate::capture::Picture;
use crate::report::{EncodedPicture, PictureInMessage, PictureRef, add_picture_to};

/// Pictures that may wait to be encoded. Further events go out without their picture.
const MAX_PICTURES: usize = 8;
/// Most events whose best picture is kept. Further ones show the present.
const MAX_BEST: usize = 32;

/// The events that are not in the outbox yet, the oldest first.
#[derive(Default)]
pub(super) struct EventQueue {
    waiting: VecDeque<Arc<QueuedEvent>>,
    /// For open events, the picture with the highest value.
    best: BTreeMap<Uuid, Arc<Picture>>,
    last_number: u64,
}

/// An event that waits.
pub(super) struct QueuedEvent {
    /// Grows with each event.
    pub number: u64,
    pub event: Event,
    picture: EventPicture,
    /// The message, once it has its picture.
    payload: OnceLock<Bytes>,
}

enum EventPicture {
    NotWanted,
    Missing,
    Given(Arc<Picture>),
}

impl EventQueue {
    /// Adds an event. `present`: the picture of this moment, `None` if messages have no pictures or if only time has passed.
    /// A start and a crossing show the present; an update and an end show the moment with the highest value.
    pub fn push(&mut self, event: Event, present: Option<&Arc<Picture>>) {
        let picture = match event.event {
            EventKind::Start => {
                if let Some(present) = present
                    && self.best.len() < MAX_BEST
                {
                    self.best.insert(event.id, present.clone());
                }
                present.cloned()
            }
            EventKind::Update => self.best.get(&event.id).or(present).cloned(),
            EventKind::End => self.best.remove(&event.id),
            EventKind::Cross => present.cloned(),
        };
        let pictures = self.waiting.iter().filter(|queued| queued.has_picture()).count();
        self.last_number += 1;
        self.waiting.push_back(Arc::new(QueuedEvent {
            number: self.last_number,
            event,
            picture: match picture {
                Some(picture) if pictures < MAX_PICTURES => EventPicture::Given(picture),
                Some(_) => EventPicture::Missing,
                None => EventPicture::NotWanted,
            },
            payload: OnceLock::new(),
        }));
    }

    /// Whether the best picture of one of these events is kept.
    pub fn shows_any(&self, ids: &[Uuid]) -> bool {
        ids.iter().any(|id| self.best.contains_key(id))
    }

    /// Keeps the picture for those of these events whose pictures are kept.
    pub fn keep_best(&mut self, ids: &[Uuid], picture: &Arc<Picture>) {
        for id in ids {
            if let Some(best) = self.best.get_mut(id) {
                best.clone_from(picture);
            }
        }
    }

    /// Messages have no pictures any more.
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
        matches!(self.picture, EventPicture::Given(_))
    }

    /// The message; encodes its picture, which takes time.
    pub fn encode(&self) -> &Bytes {
        self.payload.get_or_init(|| match &self.picture {
            EventPicture::NotWanted => self.message(PictureInMessage::NotWanted),
            EventPicture::Missing => self.message(PictureInMessage::Missing),
            EventPicture::Given(picture) => {
                let encoded = EncodedPicture::new(PictureRef {
                    width: picture.width,
                    height: picture.height,
                    grey: picture.grey,
                    data: &picture.data,
                });
                match &encoded {
                    Ok(encoded) => self.message(PictureInMessage::Encoded(encoded)),
                    Err(_) => self.message(PictureInMessage::Missing),
                }
            }
        })
    }

    /// The message; without its picture, if that is not encoded yet.
    pub fn message_now(&self) -> Bytes {
        let without_picture = || match self.picture {
            EventPicture::NotWanted => self.message(PictureInMessage::NotWanted),
            EventPicture::Missing | EventPicture::Given(_) => self.message(PictureInMessage::Missing),
        };
        self.payload.get_or_init(without_picture).clone()
    }

    fn message(&self, picture: PictureInMessage<'_>) -> Bytes {
        // Cannot fail: every key is a text.
        let mut json = serde_json::to_string(&self.event).unwrap_or_default();
        add_picture_to(&mut json, picture);
        json.into()
    }
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

    fn shown(queue: &mut EventQueue) -> Option<u8> {
        match &queue.pop_until(u64::MAX).expect("an event").picture {
            EventPicture::Given(picture) => Some(picture.data[0]),
            EventPicture::NotWanted | EventPicture::Missing => None,
        }
    }

    #[test]
    fn the_end_of_an_event_shows_its_best_moment() {
        let (mut queue, id) = (EventQueue::default(), Uuid::from_u128(1));
        let event = |kind| Event::new(kind, id, 0);
        queue.push(event(EventKind::Start), Some(&picture(1)));
        assert_eq!(shown(&mut queue), Some(1));
        assert!(queue.shows_any(&[id]) && !queue.shows_any(&[Uuid::nil()]));
        queue.keep_best(&[id, Uuid::nil()], &picture(2));
        queue.push(event(EventKind::Update), Some(&picture(3)));
        queue.push(event(EventKind::Cross), Some(&picture(4)));
        queue.push(event(EventKind::End), None);
        assert_eq!(
            [shown(&mut queue), shown(&mut queue), shown(&mut queue)],
            [Some(2), Some(4), Some(2)]
        );
        assert!(queue.best.is_empty());
        queue.push(event(EventKind::End), None);
        assert_eq!(shown(&mut queue), None);
    }

    #[test]
    fn pictures_are_bounded_and_messages_are_not() {
        let mut queue = EventQueue::default();
        for number in 0..100 {
            queue.push(
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
        assert!(last.ends_with(br#","image_omitted":true}"#));
    }
}
