//! What `tests/fuzz` calls here.

use std::path::Path;
use std::sync::Arc;

use super::store::Store;
use crate::config::Qos;
use crate::uplink::message::{Class, Message};
use crate::uplink::outbox::{LoadRequest, SpoolJob, Token};
use crate::util::database::{DatabaseError, catch_panics};

/// See [`crate::uplink::fuzzing::spool_file`].
pub(in crate::uplink) fn use_file(path: &Path, max_bytes: u64) -> Option<usize> {
    let mut store = Store::new(path.to_owned(), max_bytes);
    catch_panics(|| deliver_all(&mut store)).ok()
}

fn deliver_all(store: &mut Store) -> Result<usize, DatabaseError> {
    store.open()?;
    let mut delivered = Vec::new();
    let mut next = Some(Token::MIN);
    while let Some(from) = next.take() {
        let load = LoadRequest {
            from,
            messages: 3,
            bytes: 1000,
        };
        let job = SpoolJob {
            load: Some(load),
            ..SpoolJob::default()
        };
        if let Some(loaded) = store.perform(&job)?.loaded {
            assert!(loaded.next.is_none_or(|next| next > from), "loading goes on");
            delivered.extend(loaded.messages.into_iter().map(|(token, _)| token));
            next = loaded.next;
        }
    }
    assert!(delivered.is_sorted_by(|a, b| a < b), "messages are in order");
    assert!(
        delivered.last().is_none_or(|last| *last <= Token(0)),
        "those of an earlier run are before new ones"
    );
    let number = delivered.len();
    let message = Message {
        topic: Arc::from("t"),
        payload: "new".into(),
        class: Class::Inference,
        qos: Qos::AtLeastOnce,
        retain: false,
        status: None,
    };
    let job = SpoolJob {
        delete: delivered,
        write: vec![(Token(1), message)],
        load: None,
    };
    assert_eq!(store.perform(&job)?.held, 1, "only the new message is left");
    store.close()?;
    Ok(number)
}
