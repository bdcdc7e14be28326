//! The open connections of a server. If there is no place for a new one, an idle one gives way: a connection between two requests,
//! or one that has not sent the head of its first request.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::places::{ClientKey, PlaceLimits, Shortage};

/// The open connections.
#[derive(Debug)]
pub(super) struct ConnectionTable {
    limits: PlaceLimits,
    state: Mutex<TableState>,
}

#[derive(Debug, Default)]
struct TableState {
    entries: Vec<Entry>,
    next_id: u64,
}

#[derive(Debug)]
struct Entry {
    id: u64,
    client: ClientKey,
    /// Since when no request is being answered; `None`: one is.
    idle_since: Option<Instant>,
    evicted: Arc<Notify>,
}

impl TableState {
    /// The connection that gives way to one of `client`: of the client with the most connections, the one that is idle for the
    /// longest time.
    fn victim(&self, client: ClientKey, shortage: Shortage) -> Option<usize> {
        let count = |client| self.entries.iter().filter(|entry| entry.client == client).count();
        let own = count(client);
        let idle = self.entries.iter().enumerate().filter_map(|(at, entry)| {
            let since = entry.idle_since?;
            let is_candidate = match shortage {
                Shortage::OfClient => entry.client == client,
                // A client that has as many connections as the others must not take theirs.
                Shortage::Total => entry.client == client || count(entry.client) > own,
            };
            is_candidate.then(|| (at, count(entry.client), since))
        });
        let victim = idle.min_by_key(|(_, count, since)| (std::cmp::Reverse(*count), *since));
        victim.map(|(at, ..)| at)
    }
}

impl ConnectionTable {
    pub(super) fn new(limits: PlaceLimits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            state: Mutex::default(),
        })
    }

    /// A place for a new connection, which may be that of an idle one.
    ///
    /// # Errors
    /// There is no place, and no idle connection.
    pub(super) fn admit(self: &Arc<Self>, client: ClientKey) -> Result<Arc<ConnectionPlace>, Shortage> {
        let mut state = self.state.lock();
        loop {
            let holders = state.entries.iter().map(|entry| entry.client);
            let Err(shortage) = self.limits.check(client, holders) else {
                break;
            };
            let victim = state.victim(client, shortage).ok_or(shortage)?;
            state.entries.swap_remove(victim).evicted.notify_one();
        }
        let (id, evicted) = (state.next_id, Arc::new(Notify::new()));
        state.next_id += 1;
        state.entries.push(Entry {
            id,
            client,
            idle_since: Some(Instant::now()),
            evicted: evicted.clone(),
        });
        Ok(Arc::new(ConnectionPlace {
            id,
            client,
            evicted,
            table: self.clone(),
        }))
    }

    fn set_idle_since(&self, id: u64, idle_since: Option<Instant>) {
        let mut state = self.state.lock();
        if let Some(entry) = state.entries.iter_mut().find(|entry| entry.id == id) {
            entry.idle_since = idle_since;
        }
    }
}

/// The place of one connection.
#[derive(Debug)]
pub(super) struct ConnectionPlace {
    id: u64,
    client: ClientKey,
    evicted: Arc<Notify>,
    table: Arc<ConnectionTable>,
}

impl ConnectionPlace {
    /// Waits until the place was given to another connection.
    pub(super) async fn evicted(&self) {
        self.evicted.notified().await;
    }

    /// Marks the connection as busy until all clones of the result are dropped.
    pub(super) fn begin_request(self: &Arc<Self>) -> OpenRequest {
        self.table.set_idle_since(self.id, None);
        OpenRequest(Arc::new(RequestGuard(self.clone())))
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        self.table.state.lock().entries.retain(|entry| entry.id != self.id);
    }
}

/// A request that is being answered, as an extension of the request. A WebSocket holds a clone, because it outlives its request:
/// its connection holds its place and is not idle.
#[derive(Debug, Clone)]
pub(super) struct OpenRequest(Arc<RequestGuard>);

impl OpenRequest {
    pub(super) fn client(&self) -> ClientKey {
        self.0.0.client
    }
}

#[derive(Debug)]
struct RequestGuard(Arc<ConnectionPlace>);

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.0.table.set_idle_since(self.0.id, Some(Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(last: u8) -> ClientKey {
        ClientKey::of([192, 0, 2, last].into())
    }

    fn table() -> Arc<ConnectionTable> {
        ConnectionTable::new(PlaceLimits {
            total: 6,
            per_client: 3,
            device: 4,
            reserved: 1,
        })
    }

    fn is_evicted(place: &ConnectionPlace) -> bool {
        let state = place.table.state.lock();
        state.entries.iter().all(|entry| entry.id != place.id)
    }

    #[test]
    fn a_further_connection_of_a_client_takes_the_place_of_its_own_oldest_idle_one() {
        let table = table();
        let open: Vec<_> = (0..3).map(|_| table.admit(client(1)).unwrap()).collect();
        let other = table.admit(client(2)).unwrap();
        let busy = open[0].begin_request();
        let further = table.admit(client(1)).unwrap();
        assert!(!is_evicted(&open[0]), "it is busy");
        assert!(is_evicted(&open[1]));
        assert!(!is_evicted(&open[2]) && !is_evicted(&other));
        let requests = [open[2].begin_request(), further.begin_request()];
        assert_eq!(table.admit(client(1)).unwrap_err(), Shortage::OfClient);
        drop((busy, requests));
        assert!(table.admit(client(1)).is_ok());
    }

    #[test]
    fn if_all_places_are_taken_the_client_with_the_most_connections_gives_way() {
        let table = table();
        let many: Vec<_> = (0..3).map(|_| table.admit(client(1)).unwrap()).collect();
        let few: Vec<_> = (0..2).map(|_| table.admit(client(2)).unwrap()).collect();
        let third = table.admit(client(3)).unwrap();
        assert!(is_evicted(&many[0]) && !many[1..].iter().any(|place| is_evicted(place)));
        let fourth = table.admit(client(4)).unwrap();
        assert!(is_evicted(&many[1]) || is_evicted(&few[0]));
        let requests: Vec<_> = [&third, &fourth].map(|place| place.begin_request()).into();
        assert!(!is_evicted(&third) && !is_evicted(&fourth));
        drop(requests);
        drop((many, few, third, fourth));
        assert_eq!(table.state.lock().entries.len(), 0);
    }

    #[test]
    fn a_client_with_many_connections_does_not_take_the_place_of_a_client_with_one() {
        let table = table();
        let busy: Vec<_> = [1, 1, 2, 2]
            .map(|last| table.admit(client(last)).unwrap())
            .into_iter()
            .map(|place| (place.begin_request(), place))
            .collect();
        let single = table.admit(client(3)).unwrap();
        assert_eq!(table.admit(client(1)).unwrap_err(), Shortage::Total);
        assert!(!is_evicted(&single));
        drop(busy);
    }

    #[tokio::test]
    async fn a_connection_learns_that_it_gives_way() {
        let table = table();
        let open: Vec<_> = (0..3).map(|_| table.admit(client(1)).unwrap()).collect();
        let _further = table.admit(client(1)).unwrap();
        open[0].evicted().await;
    }
}
