//! What MQTT clients published recently, to recognise redelivery of messages without sequence numbers.

use std::hash::BuildHasher;

use hashbrown::HashTable;

use crate::core::codec::{Invalid, Reader, put_bytes, put_u64};
use crate::core::device::Slot;
use crate::core::hash::xxh64;

/// Messages remembered per client.
pub(super) const REMEMBERED: usize = 64;

/// A message's identity for redelivery: packet id, topic and payload.
pub(super) fn identity(packet_id: u16, topic: &str, payload: &[u8]) -> u64 {
    xxh64(payload, xxh64(topic.as_bytes(), u64::from(packet_id)))
}

/// One client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Client {
    /// Client identifier.
    pub id: Box<str>,
    /// Key group.
    pub group: u16,
    /// Journal position of the last message remembered.
    pub last_position: u64,
    /// Identities, as a ring once it is full.
    recent: Vec<u64>,
    /// Where the ring goes on.
    next: usize,
}

impl Client {
    /// A client that published nothing yet.
    pub fn new(id: &str, group: u16) -> Self {
        Self { id: id.into(), group, last_position: 0, recent: Vec::new(), next: 0 }
    }

    fn remember(&mut self, identity: u64, position: u64) {
        self.last_position = position;
        match self.recent.get_mut(self.next) {
            Some(oldest) => *oldest = identity,
            None => self.recent.push(identity),
        }
        self.next = (self.next + 1) % REMEMBERED;
    }

    /// Appends the stored form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_bytes(self.id.as_bytes(), out);
        put_u64(self.last_position, out);
        put_u64(self.next as u64, out);
        put_u64(self.recent.len() as u64, out);
        for identity in &self.recent {
            out.extend_from_slice(&identity.to_le_bytes());
        }
    }

    /// Reads the stored form.
    pub fn decode(reader: &mut Reader<'_>, group: u16) -> Result<Self, Invalid> {
        let mut client = Self::new(reader.str()?, group);
        client.last_position = reader.u64()?;
        client.next = reader.count()?;
        let len = reader.count()?;
        if len > REMEMBERED || client.next != len % REMEMBERED && len < REMEMBERED || client.next >= REMEMBERED {
            return Err("a client's ring");
        }
        for _ in 0..len {
            client.recent.push(reader.word()?);
        }
        Ok(client)
    }
}

/// All clients that published such messages.
#[derive(Debug, Default)]
pub(super) struct Clients {
    clients: Vec<Option<Client>>,
    vacant: Vec<Slot>,
    index: HashTable<Slot>,
    hasher: foldhash::quality::RandomState,
}

impl Clients {
    /// Number of clients.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// The client at a slot.
    pub fn get(&self, slot: Slot) -> Option<&Client> {
        self.clients.get(slot as usize).and_then(Option::as_ref)
    }

    /// The client with this identifier.
    pub fn find(&self, id: &str) -> Option<Slot> {
        let hash = self.hasher.hash_one(id);
        self.index.find(hash, |&slot| self.get(slot).is_some_and(|client| *client.id == *id)).copied()
    }

    /// Whether the client at `slot` published this message recently.
    pub fn has_published(&self, slot: Slot, identity: u64) -> bool {
        self.get(slot).is_some_and(|client| client.recent.contains(&identity))
    }

    /// Remembers a message of the client at `slot`.
    pub fn remember(&mut self, slot: Slot, identity: u64, position: u64) {
        if let Some(Some(client)) = self.clients.get_mut(slot as usize) {
            client.remember(identity, position);
        }
    }

    /// Adds a client that is not there yet.
    pub fn insert(&mut self, client: Client) -> Slot {
        let hash = self.hasher.hash_one(&*client.id);
        let slot = self.vacant.pop().unwrap_or(self.clients.len() as Slot);
        match self.clients.get_mut(slot as usize) {
            Some(place) => *place = Some(client),
            None => self.clients.push(Some(client)),
        }
        let Self { clients, index, hasher, .. } = self;
        index.insert_unique(hash, slot, |&slot| {
            let client = clients.get(slot as usize).and_then(Option::as_ref);
            hasher.hash_one(client.map_or("", |client| &*client.id))
        });
        slot
    }

    /// Removes a client.
    pub fn remove(&mut self, slot: Slot) {
        let Some(client) = self.clients.get_mut(slot as usize).and_then(Option::take) else { return };
        if let Ok(entry) = self.index.find_entry(self.hasher.hash_one(&*client.id), |&other| other == slot) {
            entry.remove();
        }
        self.vacant.push(slot);
    }

    /// The half of all clients whose last message is oldest, at least one. Positions differ, so the choice is
    /// determined by the journal alone.
    pub fn oldest_half(&self) -> Vec<Slot> {
        let positions = self.clients.iter().zip(0..);
        let mut positions: Vec<(u64, Slot)> =
            positions.filter_map(|(client, slot)| client.as_ref().map(|client| (client.last_position, slot))).collect();
        positions.sort_unstable();
        positions.truncate(positions.len().div_ceil(2));
        positions.into_iter().map(|(_, slot)| slot).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_is_of_all_three() {
        let identities =
            [identity(1, "t", b"p"), identity(2, "t", b"p"), identity(1, "u", b"p"), identity(1, "t", b"q")];
        for (index, identity) in identities.iter().enumerate() {
            assert!(!identities[..index].contains(identity));
        }
    }

    #[test]
    fn the_last_64_are_remembered() {
        let mut clients = Clients::default();
        let slot = clients.insert(Client::new("c", 0));
        for identity in 0..65 {
            clients.remember(slot, identity, identity);
        }
        assert!(!clients.has_published(slot, 0));
        assert!((1..65).all(|identity| clients.has_published(slot, identity)));
    }

    #[test]
    fn the_older_half_goes() {
        let mut clients = Clients::default();
        for (position, id) in ["a", "b", "c", "d", "e"].iter().enumerate() {
            let slot = clients.insert(Client::new(id, 0));
            clients.remember(slot, 1, position as u64);
        }
        let a = clients.find("a").unwrap();
        clients.remember(a, 2, 10);
        for slot in clients.oldest_half() {
            clients.remove(slot);
        }
        let left: Vec<_> = ["a", "b", "c", "d", "e"].into_iter().filter(|id| clients.find(id).is_some()).collect();
        assert_eq!(left, ["a", "e"]);
        assert_eq!(clients.len(), 2);
    }

    #[test]
    fn the_stored_form_reads_back() {
        for count in [0, 1, 63, 64, 65, 200] {
            let mut client = Client::new("c", 9);
            for identity in 0..count {
                client.remember(identity, identity);
            }
            let mut bytes = Vec::new();
            client.encode(&mut bytes);
            assert_eq!(Client::decode(&mut Reader::new(&bytes), 9), Ok(client));
        }
    }
}
