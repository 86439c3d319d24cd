//! Recent messages of each MQTT client: they tell redelivered messages that have no sequence numbers.

use std::collections::VecDeque;
use std::hash::BuildHasher;

use hashbrown::HashTable;

use crate::core::codec::{DecodeError, FieldReader, put_bytes, put_i64, put_u64};
use crate::core::device::Slot;
use crate::core::hash::xxh64;
use crate::core::user::RecordedUser;

/// Messages remembered of every client, however slowly it publishes. What a client has in flight without an
/// acknowledgement is among its last messages.
pub(super) const REMEMBERED: usize = 64;
/// Messages remembered of a client that publishes more than [`REMEMBERED`] of them in two periods of [`PERIOD_MS`],
/// because it may have more in flight. The 32 KiB that they take are held only while the client publishes that much.
pub(super) const MAX_REMEMBERED: usize = 4_096;
/// Journal time after which a message of a client that goes on publishing was certainly acknowledged: far longer than a
/// sync and a round trip. Messages of the present period and of the one before are remembered.
pub(super) const PERIOD_MS: i64 = 10_000;
/// Messages beyond [`REMEMBERED`] that all clients together may have: 8 MiB. At this limit no client gets more.
const MAX_EXTRA: usize = 1 << 20;

/// Identity by which a redelivered message is known: a hash of packet id, topic and payload.
pub(super) fn identity(packet_id: u16, topic: &str, payload: &[u8]) -> u64 {
    xxh64(payload, xxh64(topic.as_bytes(), u64::from(packet_id)))
}

/// What tells clients apart: two users may use the same client identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(super) struct ClientKey<'a> {
    /// Client identifier.
    pub id: &'a str,
    /// User of the client.
    pub user: RecordedUser<&'a str>,
}

impl<'a> ClientKey<'a> {
    /// The same client, as a version recorded it that did not record users.
    pub fn without_user(self) -> Self {
        Self { user: RecordedUser::Unknown, ..self }
    }
}

/// One client and its recent messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RememberedClient {
    /// Client identifier.
    id: Box<str>,
    /// User of the client.
    user: RecordedUser<Box<str>>,
    /// Key group of the client.
    pub group: u16,
    /// Journal position of the last remembered message.
    pub last_position: u64,
    /// Identities of recent messages, oldest first.
    recent: VecDeque<u64>,
    /// When the present period began, in journal time.
    period_ms: i64,
    /// Numbers of messages remembered in the present period and in the one before.
    counts: [u32; 2],
}

impl RememberedClient {
    /// A client that published nothing yet.
    pub fn new(key: ClientKey<'_>, group: u16) -> Self {
        let (id, user, recent) = (key.id.into(), key.user.to_kept(), VecDeque::new());
        Self { id, user, group, last_position: 0, recent, period_ms: i64::MIN, counts: [0; 2] }
    }

    /// What tells the client apart from others.
    pub fn key(&self) -> ClientKey<'_> {
        ClientKey { id: &self.id, user: self.user.as_deref() }
    }

    /// Number of identities beyond [`REMEMBERED`].
    fn extra(&self) -> usize {
        self.recent.len().saturating_sub(REMEMBERED)
    }

    fn remember(&mut self, identity: u64, position: u64, now_ms: i64, may_grow: bool) {
        self.last_position = position;
        if now_ms.saturating_sub(self.period_ms) >= PERIOD_MS {
            self.period_ms = now_ms;
            self.counts = [0, self.counts[0]];
        }
        self.counts[0] = self.counts[0].saturating_add(1);
        let published = self.counts[0].saturating_add(self.counts[1]) as usize;
        let grown = if may_grow { MAX_REMEMBERED } else { self.recent.len().max(REMEMBERED) };
        let limit = published.clamp(REMEMBERED, grown);
        let outdated = (self.recent.len() + 1).saturating_sub(limit);
        self.recent.drain(..outdated);
        if outdated > 1 {
            self.recent.shrink_to(limit);
        }
        self.recent.push_back(identity);
    }

    /// Keeps all messages remembered now for another period: the client sends again what was not acknowledged, however
    /// long ago it was published.
    fn note_redelivery(&mut self, now_ms: i64) {
        self.period_ms = now_ms;
        // At most MAX_REMEMBERED.
        self.counts[1] = self.counts[1].max(self.recent.len() as u32);
    }

    /// Appends the stored form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_bytes(self.id.as_bytes(), out);
        self.user.encode(out);
        put_u64(self.last_position, out);
        put_i64(self.period_ms, out);
        for count in self.counts {
            put_u64(u64::from(count), out);
        }
        put_u64(self.recent.len() as u64, out);
        for identity in &self.recent {
            out.extend_from_slice(&identity.to_le_bytes());
        }
    }

    /// Reads the stored form.
    pub fn decode(reader: &mut FieldReader<'_>, group: u16) -> Result<Self, DecodeError> {
        let key = ClientKey { id: reader.str()?, user: RecordedUser::decode(reader)? };
        Self::decode_messages(reader, key, group)
    }

    /// Reads the stored form of group format 2, which has no users.
    pub fn decode_without_user(reader: &mut FieldReader<'_>, group: u16) -> Result<Self, DecodeError> {
        let key = ClientKey { id: reader.str()?, user: RecordedUser::Unknown };
        Self::decode_messages(reader, key, group)
    }

    fn decode_messages(reader: &mut FieldReader<'_>, key: ClientKey<'_>, group: u16) -> Result<Self, DecodeError> {
        let mut client = Self::new(key, group);
        client.last_position = reader.u64()?;
        client.period_ms = reader.i64()?;
        client.counts = [reader.u32()?, reader.u32()?];
        let len = reader.count()?;
        if len > MAX_REMEMBERED {
            return Err(DecodeError::Content("a client's messages"));
        }
        for _ in 0..len {
            client.recent.push_back(reader.u64_le()?);
        }
        Ok(client)
    }

    /// Reads the stored form of group format 1: a ring of at most [`REMEMBERED`] identities, and the index at which it
    /// goes on.
    pub fn decode_ring(reader: &mut FieldReader<'_>, group: u16) -> Result<Self, DecodeError> {
        let mut client = Self::new(ClientKey { id: reader.str()?, user: RecordedUser::Unknown }, group);
        client.last_position = reader.u64()?;
        let next = reader.count()?;
        let len = reader.count()?;
        if len > REMEMBERED || next != len % REMEMBERED && len < REMEMBERED || next >= REMEMBERED {
            return Err(DecodeError::Content("a client's ring"));
        }
        for _ in 0..len {
            client.recent.push_back(reader.u64_le()?);
        }
        if len == REMEMBERED {
            client.recent.rotate_left(next);
        }
        Ok(client)
    }
}

/// All clients that published messages at QoS 1 or 2 without sequence numbers.
#[derive(Debug, Default)]
pub(super) struct Clients {
    clients: Vec<Option<RememberedClient>>,
    vacant: Vec<Slot>,
    index: HashTable<Slot>,
    /// Number of identities beyond [`REMEMBERED`] of all clients.
    extra: usize,
    hasher: foldhash::quality::RandomState,
}

impl Clients {
    /// Number of clients.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// The client at a slot.
    pub fn get(&self, slot: Slot) -> Option<&RememberedClient> {
        self.clients.get(slot as usize).and_then(Option::as_ref)
    }

    /// The client with this key.
    pub fn find(&self, key: ClientKey<'_>) -> Option<Slot> {
        let hash = self.hasher.hash_one(key);
        self.index.find(hash, |&slot| self.get(slot).is_some_and(|client| client.key() == key)).copied()
    }

    /// Whether the client at `slot` published this message recently.
    pub fn has_published(&self, slot: Slot, identity: u64) -> bool {
        self.get(slot).is_some_and(|client| client.recent.contains(&identity))
    }

    /// Remembers a message of the client at `slot`.
    pub fn remember(&mut self, slot: Slot, identity: u64, position: u64, now_ms: i64) {
        if let Some(Some(client)) = self.clients.get_mut(slot as usize) {
            let others = self.extra - client.extra();
            client.remember(identity, position, now_ms, self.extra < MAX_EXTRA);
            self.extra = others + client.extra();
        }
    }

    /// Notes that the client at `slot` sends messages again.
    pub fn note_redelivery(&mut self, slot: Slot, now_ms: i64) {
        if let Some(Some(client)) = self.clients.get_mut(slot as usize) {
            client.note_redelivery(now_ms);
        }
    }

    /// Ends periods that began in a time that was wrong at `now_ms`.
    pub fn set_back(&mut self, now_ms: i64) {
        for client in self.clients.iter_mut().flatten() {
            client.period_ms = client.period_ms.min(now_ms);
        }
    }

    /// Adds a client that is not there yet.
    pub fn insert(&mut self, client: RememberedClient) -> Slot {
        self.extra += client.extra();
        let hash = self.hasher.hash_one(client.key());
        let slot = self.vacant.pop().unwrap_or(self.clients.len() as Slot);
        match self.clients.get_mut(slot as usize) {
            Some(place) => *place = Some(client),
            None => self.clients.push(Some(client)),
        }
        let Self { clients, index, hasher, .. } = self;
        index.insert_unique(hash, slot, |&slot| {
            let client = clients.get(slot as usize).and_then(Option::as_ref);
            hasher.hash_one(client.map_or(ClientKey::default(), RememberedClient::key))
        });
        slot
    }

    /// Removes a client.
    pub fn remove(&mut self, slot: Slot) {
        let Some(client) = self.clients.get_mut(slot as usize).and_then(Option::take) else { return };
        self.extra -= client.extra();
        if let Ok(entry) = self.index.find_entry(self.hasher.hash_one(client.key()), |&other| other == slot) {
            entry.remove();
        }
        self.vacant.push(slot);
    }

    /// The half of all clients whose last messages are oldest, at least one client. Positions of messages differ, so the
    /// choice depends on the journal alone.
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

    fn key(id: &str) -> ClientKey<'_> {
        ClientKey { id, user: RecordedUser::Anonymous }
    }

    #[test]
    fn identity_is_of_all_three() {
        let identities =
            [identity(1, "t", b"p"), identity(2, "t", b"p"), identity(1, "u", b"p"), identity(1, "t", b"q")];
        for (index, identity) in identities.iter().enumerate() {
            assert!(!identities[..index].contains(identity));
        }
    }

    /// Whether all of `from..to` are remembered, and nothing else.
    fn remembers(clients: &Clients, slot: Slot, from: u64, to: u64) {
        let recent: Vec<u64> = clients.get(slot).unwrap().recent.iter().copied().collect();
        assert_eq!(recent, (from..to).collect::<Vec<_>>());
        assert_eq!(clients.extra, (to - from).saturating_sub(64) as usize);
    }

    #[test]
    fn of_a_slow_client_the_last_64_are_remembered() {
        let mut clients = Clients::default();
        let slot = clients.insert(RememberedClient::new(key("c"), 0));
        for identity in 0..1_000 {
            clients.remember(slot, identity, identity, identity as i64 * 320);
            remembers(&clients, slot, (identity + 1).saturating_sub(64), identity + 1);
        }
        assert_eq!(clients.get(slot).unwrap().recent.capacity(), 64);
    }

    #[test]
    fn of_a_fast_client_so_much_that_it_can_have_in_flight() {
        let mut clients = Clients::default();
        let slot = clients.insert(RememberedClient::new(key("c"), 0));
        for identity in 0..1_000 {
            clients.remember(slot, identity, identity, 5);
        }
        remembers(&clients, slot, 0, 1_000);
        // A period later the first period's are still there, two periods later they are not.
        clients.remember(slot, 1_000, 0, 5 + PERIOD_MS);
        remembers(&clients, slot, 0, 1_001);
        clients.remember(slot, 1_001, 0, 5 + 2 * PERIOD_MS);
        remembers(&clients, slot, 1_002 - 64, 1_002);
        assert!(clients.get(slot).unwrap().recent.capacity() <= 128);
        for identity in 1_002..10_000 {
            clients.remember(slot, identity, identity, 5 + 2 * PERIOD_MS);
        }
        remembers(&clients, slot, 10_000 - MAX_REMEMBERED as u64, 10_000);
        clients.remove(slot);
        assert_eq!(clients.extra, 0);
    }

    #[test]
    fn nothing_that_is_sent_again_is_forgotten_on_the_way() {
        let mut clients = Clients::default();
        let slot = clients.insert(RememberedClient::new(key("c"), 0));
        for identity in 0..700 {
            clients.remember(slot, identity, identity, 0);
        }
        // An hour later the client is back and sends all again, 300 of which never came.
        let now_ms = 3_600_000;
        for identity in 0..700 {
            assert!(clients.has_published(slot, identity));
            clients.note_redelivery(slot, now_ms);
        }
        for identity in 700..1_000 {
            clients.remember(slot, identity, identity, now_ms + 1);
        }
        remembers(&clients, slot, 0, 1_000);
    }

    #[test]
    fn all_clients_together_are_bounded() {
        let mut clients = Clients::default();
        let names: Vec<String> = (0..300).map(|number| number.to_string()).collect();
        let slots: Vec<Slot> = names.iter().map(|name| clients.insert(RememberedClient::new(key(name), 0))).collect();
        for slot in &slots {
            for identity in 0..5_000 {
                clients.remember(*slot, identity, 0, 0);
            }
        }
        assert_eq!(clients.extra, MAX_EXTRA);
        remembers_last(&clients, slots[0], MAX_REMEMBERED);
        remembers_last(&clients, slots[299], REMEMBERED);
        // Where one needs less another may have more.
        for period in 1..3 {
            clients.remember(slots[0], 5_000, 0, period * PERIOD_MS);
        }
        for identity in 0..5_000 {
            clients.remember(slots[299], identity, 0, 0);
        }
        remembers_last(&clients, slots[299], MAX_REMEMBERED);
    }

    fn remembers_last(clients: &Clients, slot: Slot, count: usize) {
        assert_eq!(clients.get(slot).unwrap().recent.len(), count);
    }

    #[test]
    fn the_older_half_goes() {
        let mut clients = Clients::default();
        for (position, id) in ["a", "b", "c", "d", "e"].iter().enumerate() {
            let slot = clients.insert(RememberedClient::new(key(id), 0));
            clients.remember(slot, 1, position as u64, 0);
        }
        let a = clients.find(key("a")).unwrap();
        clients.remember(a, 2, 10, 0);
        for slot in clients.oldest_half() {
            clients.remove(slot);
        }
        let left: Vec<_> = ["a", "b", "c", "d", "e"].into_iter().filter(|id| clients.find(key(id)).is_some()).collect();
        assert_eq!(left, ["a", "e"]);
        assert_eq!(clients.len(), 2);
    }

    #[test]
    fn the_stored_form_reads_back() {
        for count in [0, 1, 63, 64, 65, 200, 5_000] {
            let mut client = RememberedClient::new(key("c"), 9);
            for identity in 0..count {
                client.remember(identity, identity, identity as i64 * 10, true);
            }
            let mut bytes = Vec::new();
            client.encode(&mut bytes);
            assert_eq!(RememberedClient::decode(&mut FieldReader::new(&bytes), 9), Ok(client));
        }
    }

    #[test]
    fn a_client_of_another_user_is_another_client() {
        let mut clients = Clients::default();
        let users =
            [RecordedUser::Unknown, RecordedUser::Anonymous, RecordedUser::Named("a"), RecordedUser::Named("b")];
        let keys = users.map(|user| ClientKey { id: "c", user });
        let slots = keys.map(|key| clients.insert(RememberedClient::new(key, 0)));
        assert_eq!(keys.map(|key| clients.find(key)), slots.map(Some));
        clients.remember(slots[2], 7, 0, 0);
        assert_eq!(slots.map(|slot| clients.has_published(slot, 7)), [false, false, true, false]);
        clients.remove(slots[2]);
        assert_eq!(keys.map(|key| clients.find(key).is_some()), [true, true, false, true]);
    }

    /// Group format 2.
    #[test]
    fn a_client_without_user_is_read() {
        let mut bytes = Vec::new();
        let client = RememberedClient::new(ClientKey { id: "c", user: RecordedUser::Unknown }, 9);
        client.encode(&mut bytes);
        bytes.remove(2);
        assert_eq!(RememberedClient::decode_without_user(&mut FieldReader::new(&bytes), 9), Ok(client));
    }

    #[test]
    fn a_ring_of_before_is_read() {
        let ring = |next: u64, identities: &[u64]| {
            let mut bytes = vec![1, b'c', 7];
            put_u64(next, &mut bytes);
            put_u64(identities.len() as u64, &mut bytes);
            identities.iter().for_each(|identity| bytes.extend_from_slice(&identity.to_le_bytes()));
            RememberedClient::decode_ring(&mut FieldReader::new(&bytes), 9)
        };
        assert_eq!(ring(2, &[5, 6]).unwrap().recent, [5, 6]);
        let full: Vec<u64> = (0..64).collect();
        let rotated: Vec<u64> = (3..64).chain(0..3).collect();
        assert_eq!(ring(3, &full).unwrap().recent, rotated);
        assert_eq!(ring(0, &full).unwrap().recent, full);
        assert_eq!(ring(0, &full).unwrap().last_position, 7);
        assert!(ring(1, &[5, 6]).is_err() && ring(64, &full).is_err());
    }
}
