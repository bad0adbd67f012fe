//! How many connections each client address has, so that one client cannot take all there are.
//!
//! Owner: the data plane, one for all workers. Holds: an address is in the table only while it has a place, so the table
//! is never longer than the list of connections; a place is given back however its connection ends. A client with IPv6
//! has a whole /64 to itself and counts as one.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher as _;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;

/// Parts of the table, each with a lock of its own.
const PARTS: usize = 16;

type Part = Mutex<HashMap<IpAddr, usize>>;

/// See the head of the file.
#[derive(Debug)]
pub struct Addresses {
    most: usize,
    /// Random, so that nobody can choose addresses that all meet in one part.
    hasher: RandomState,
    parts: [Part; PARTS],
}

/// A place of one address; dropping it gives it back.
#[derive(Debug)]
pub struct Place {
    addresses: Arc<Addresses>,
    client: IpAddr,
}

impl Addresses {
    /// With `most` places for each address; 0: as many as anybody wants, and nothing is counted.
    pub fn new(most: usize) -> Self {
        Self { most, hasher: RandomState::new(), parts: Default::default() }
    }

    /// Takes a place. `Err` where this address has none left; `Ok(None)` where places are not counted.
    ///
    /// # Errors
    /// The address has as many as it may have.
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Result<Option<Place>, Crowded> {
        if self.most == 0 {
            return Ok(None);
        }
        let client = of_one_client(address);
        let mut part = self.part(client).lock();
        let taken = part.get(&client).copied().unwrap_or(0);
        if taken >= self.most {
            return Err(Crowded);
        }
        part.insert(client, taken + 1);
        Ok(Some(Place { addresses: self.clone(), client }))
    }

    /// Addresses that have a place.
    pub fn len(&self) -> usize {
        self.parts.iter().map(|part| part.lock().len()).sum()
    }

    /// Whether nobody has a place.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn part(&self, client: IpAddr) -> &Part {
        let at = self.hasher.hash_one(client) as usize % PARTS;
        &self.parts[at]
    }
}

/// The address has as many connections as it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crowded;

impl Drop for Place {
    fn drop(&mut self) {
        let mut part = self.addresses.part(self.client).lock();
        if let Entry::Occupied(mut taken) = part.entry(self.client) {
            *taken.get_mut() -= 1;
            if *taken.get() == 0 {
                taken.remove();
            }
        }
    }
}

/// What all addresses of one client have in common.
pub(super) fn of_one_client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_as_many_places_as_it_may_and_gets_them_back() {
        let addresses = Arc::new(Addresses::new(2));
        let enter = |text| addresses.enter(ip(text));
        let (first, _second) = (enter("192.0.2.1").unwrap(), enter("::ffff:192.0.2.1").unwrap());
        assert_eq!(enter("192.0.2.1").unwrap_err(), Crowded);
        let _other = enter("192.0.2.2").unwrap();
        drop(first);
        assert!(enter("192.0.2.1").is_ok());
    }

    #[test]
    fn a_network_of_one_client_counts_as_one_address() {
        let addresses = Arc::new(Addresses::new(1));
        let _one = addresses.enter(ip("2001:db8:0:1::1")).unwrap();
        assert!(addresses.enter(ip("2001:db8:0:1:ffff::2")).is_err());
        assert!(addresses.enter(ip("2001:db8:0:2::1")).is_ok());
    }

    #[test]
    fn nothing_is_left_of_addresses_that_went() {
        let addresses = Arc::new(Addresses::new(3));
        let all: Vec<_> = (0..900_u32).map(|n| addresses.enter(IpAddr::from((n / 3).to_be_bytes())).unwrap()).collect();
        assert_eq!(addresses.len(), 300);
        drop(all);
        assert!(addresses.is_empty());
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        let addresses = Arc::new(Addresses::new(0));
        let all: Vec<_> = (0..100).map(|_| addresses.enter(ip("192.0.2.1")).unwrap()).collect();
        assert!(addresses.is_empty() && all.iter().all(Option::is_none));
    }
}
