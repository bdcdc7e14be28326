//! Shares of what is limited (connections, viewers, uploads), so that no client takes all places.
//!
//! A client is an IPv4 address, or the /64 of an IPv6 address, because one machine can use all addresses of a /64. Some places are
//! kept for the device itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// A client as the limits count it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClientKey(IpAddr);

impl ClientKey {
    pub(super) fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(v6) if !v6.is_loopback() => {
                let network = v6.to_bits() >> 64 << 64;
                Ipv6Addr::from_bits(network).into()
            }
            address => address,
        })
    }

    /// Whether it is the usual loopback address. The other ones (127.0.0.2) are clients like others.
    fn is_device(self) -> bool {
        self.0 == Ipv4Addr::LOCALHOST || self.0 == Ipv6Addr::LOCALHOST
    }
}

/// How places are shared.
#[derive(Debug, Clone, Copy)]
pub(super) struct PlaceLimits {
    /// Most places in use.
    pub total: usize,
    /// Most places of one client.
    pub per_client: usize,
    /// Most places of the device itself. A proxy on the device brings many clients.
    pub device: usize,
    /// Places that only the device itself can take.
    pub reserved: usize,
}

/// Why a client gets no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shortage {
    /// It has all places that one client can have.
    OfClient,
    /// Others have taken the places.
    Total,
}

impl PlaceLimits {
    /// Whether `client` can take a place beside the clients that hold one.
    pub(super) fn check(
        &self,
        client: ClientKey,
        holders: impl Iterator<Item = ClientKey> + Clone,
    ) -> Result<(), Shortage> {
        let own = holders.clone().filter(|holder| *holder == client).count();
        let most = if client.is_device() {
            self.device
        } else {
            self.per_client
        };
        let others = holders.clone().filter(|holder| !holder.is_device()).count();
        if own >= most {
            Err(Shortage::OfClient)
        } else if holders.count() >= self.total || (!client.is_device() && others + self.reserved >= self.total) {
            Err(Shortage::Total)
        } else {
            Ok(())
        }
    }
}

/// Places that are given back when their [`Place`] is dropped.
#[derive(Debug)]
pub(super) struct Places {
    limits: PlaceLimits,
    holders: Mutex<Vec<ClientKey>>,
    freed: Notify,
}

impl Places {
    pub(super) fn new(limits: PlaceLimits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            holders: Mutex::default(),
            freed: Notify::new(),
        })
    }

    /// A place for a client.
    ///
    /// # Errors
    /// Why there is none now.
    pub(super) fn try_take(self: &Arc<Self>, client: ClientKey) -> Result<Place, Shortage> {
        let mut holders = self.holders.lock();
        self.limits.check(client, holders.iter().copied())?;
        holders.push(client);
        Ok(Place {
            client,
            places: self.clone(),
        })
    }

    /// A place for a client, as soon as there is one.
    pub(super) async fn take(self: &Arc<Self>, client: ClientKey) -> Place {
        loop {
            let freed = self.freed.notified();
            if let Ok(place) = self.try_take(client) {
                return place;
            }
            freed.await;
        }
    }
}

/// A place that a client holds.
#[derive(Debug)]
pub(super) struct Place {
    client: ClientKey,
    places: Arc<Places>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut holders = self.places.holders.lock();
        if let Some(at) = holders.iter().position(|holder| *holder == self.client) {
            holders.swap_remove(at);
        }
        drop(holders);
        self.places.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: PlaceLimits = PlaceLimits {
        total: 8,
        per_client: 3,
        device: 7,
        reserved: 2,
    };

    fn client(address: &str) -> ClientKey {
        ClientKey::of(address.parse().unwrap())
    }

    fn take(places: &Arc<Places>, address: &str, count: usize) -> Vec<Place> {
        let taken = (0..count).map(|_| places.try_take(client(address)));
        taken.filter_map(Result::ok).collect()
    }

    #[test]
    fn a_client_is_an_ipv4_address_or_a_network_of_ipv6() {
        for (one, other, is_same) in [
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("127.0.0.1", "127.0.0.2", false),
            ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", true),
            ("2001:db8:1:2::1", "2001:db8:1:3::1", false),
            ("::1", "::2", false),
        ] {
            assert_eq!(client(one) == client(other), is_same, "{one} and {other}");
        }
        for (address, is_device) in [
            ("127.0.0.1", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("127.0.0.2", false),
            ("::2", false),
        ] {
            assert_eq!(client(address).is_device(), is_device, "{address}");
        }
    }

    #[test]
    fn no_client_takes_all_places_and_some_are_kept_for_the_device() {
        let places = Places::new(LIMITS);
        let first = take(&places, "2001:db8::1", 10);
        assert_eq!(first.len(), 3);
        assert_eq!(places.try_take(client("2001:db8::2")).unwrap_err(), Shortage::OfClient);
        let second = take(&places, "192.0.2.1", 10);
        assert_eq!(second.len(), 3);
        assert_eq!(places.try_take(client("192.0.2.2")).unwrap_err(), Shortage::Total);
        let own = take(&places, "127.0.0.1", 10);
        assert_eq!(own.len(), 2, "they were kept");
        drop(first);
        assert_eq!(take(&places, "192.0.2.2", 1).len(), 1);
        drop((second, own));
        assert_eq!(take(&places, "127.0.0.1", 10).len(), 7);
        assert_eq!(places.holders.lock().len(), 0);
    }

    #[tokio::test]
    async fn a_client_that_waits_gets_the_place_that_becomes_free() {
        let places = Places::new(LIMITS);
        let mut taken = take(&places, "192.0.2.1", 3);
        let waiting = tokio::spawn({
            let places = places.clone();
            async move { places.take(client("192.0.2.1")).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        taken.pop();
        waiting.await.unwrap();
    }
}
