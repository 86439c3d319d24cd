//! What is remembered of an edge node of Sparkplug B: its last birth, where its numbers are, its devices, and their metrics.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::node_sequence::NodeSequence;
use crate::core::codec::{DecodeError, FieldReader, put_bytes, put_i64, put_u64};

/// Largest number of devices of one edge node, the node itself included. At the bound one that is offline makes room.
pub(super) const MAX_DEVICES_OF_NODE: usize = 1_024;
/// Largest number of metrics that the births of one edge node and its devices define.
pub(super) const MAX_DEFINITIONS_OF_NODE: usize = 16_384;
/// Longest name of a metric, of a group, of a node, of a device, and of a unit that is remembered.
pub(super) const MAX_NAME_BYTES: usize = 256;
/// Time between two requests to one edge node for its births.
const REBIRTH_INTERVAL_MS: i64 = 60_000;
/// The node itself among its devices.
const ITSELF: &str = "";

/// What is remembered of an edge node.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct EdgeNode {
    /// Whether its last birth came after its last death.
    pub is_online: bool,
    birth: Option<NodeBirth>,
    /// Number of its births.
    births: u64,
    /// Where its numbers are.
    pub sequence: NodeSequence,
    rebirth_asked_ms: Option<i64>,
    devices: BTreeMap<Arc<str>, NodeDevice>,
    /// Whether a device was born since the birth of the node for which there was no room.
    lacks_room: bool,
    by_alias: BTreeMap<u64, Definition>,
    /// Number of metrics without an alias, of all devices.
    named: usize,
}

/// A birth of an edge node.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct NodeBirth {
    /// Its time, Unix milliseconds as the payload has it.
    pub timestamp: Option<u64>,
    /// Number of the session, by which a death is told from that of an earlier session.
    pub session: Option<u64>,
    /// Its number among the messages.
    pub seq: Option<u64>,
    /// When it arrived, Unix milliseconds.
    pub arrival_ms: i64,
}

/// What a birth changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BirthEffect {
    /// Whether it is the last birth, sent again. It changes nothing.
    pub is_repeated: bool,
    /// Number of its message.
    pub position: Option<u64>,
    /// Ids of the devices that are offline from now on, until a birth of theirs.
    pub offline: Vec<Box<str>>,
}

/// A device of an edge node, or the node itself.
#[derive(Debug, Default, Clone, PartialEq)]
struct NodeDevice {
    /// Device id, as the map made it of the topic of the birth.
    id: Box<str>,
    is_online: bool,
    /// Whether it was born since the birth of the node.
    is_born: bool,
    /// Number of its metrics with an alias.
    aliases: usize,
    /// Its metrics without an alias.
    named: BTreeMap<Box<str>, MetricForm>,
}

/// A metric that a birth defines with an alias.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Definition {
    device: Arc<str>,
    /// Name of the metric.
    pub name: Box<str>,
    /// Type and unit of the metric.
    pub form: MetricForm,
}

/// Type and unit of a metric.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct MetricForm {
    /// Number of the type; 0 where it is not known.
    pub datatype: u32,
    /// Unit.
    pub unit: Option<Box<str>>,
}

/// Room for what the births of an edge node define.
#[derive(Debug, Clone, Copy)]
pub(super) struct BirthRoom {
    /// Devices of the node, at most; the node itself is one.
    pub devices: usize,
    /// Metrics of the node and its devices, at most.
    pub definitions: usize,
    /// Metrics of one device, or of the node itself, at most.
    pub of_device: usize,
}

impl EdgeNode {
    /// Number of metrics that births define.
    pub fn definitions(&self) -> usize {
        self.by_alias.len() + self.named
    }

    /// Number of devices that were born, the node itself included.
    pub fn devices(&self) -> usize {
        self.devices.len()
    }

    /// How many of its devices are online, the node itself included.
    pub fn devices_online(&self) -> usize {
        self.devices
            .iter()
            .filter(|(name, device)| if ***name == *ITSELF { self.is_online } else { device.is_online })
            .count()
    }

    /// Arrival of its last birth, Unix milliseconds.
    pub fn born_ms(&self) -> Option<i64> {
        self.birth.map(|birth| birth.arrival_ms)
    }

    /// The metric with this alias.
    pub fn alias(&self, alias: u64) -> Option<&Definition> {
        self.by_alias.get(&alias)
    }

    /// Type and unit of a metric of `device` without an alias; the device is empty for the node itself.
    pub fn named(&self, device: &str, name: &str) -> Option<&MetricForm> {
        self.devices.get(device)?.named.get(name)
    }

    /// Whether the births of the node, and of this device of it, are known.
    pub fn is_born(&self, device: &str) -> bool {
        self.is_online && self.devices.get(device).map_or(self.lacks_room, |device| device.is_born)
    }

    /// What tells the run since the last birth from others.
    pub fn run(&self) -> Option<String> {
        let NodeBirth { timestamp, arrival_ms, .. } = self.birth?;
        let time_ms = timestamp.filter(|time_ms| *time_ms > 0).or(u64::try_from(arrival_ms).ok());
        Some(format!("{}.{}", time_ms.unwrap_or_default(), self.births))
    }

    /// A birth of the node. Its messages count anew, and what it and its devices have defined is forgotten. In another session the
    /// devices are offline until they are born. In the same one the node was asked for its births, and they stay as they are.
    pub fn node_birth(&mut self, birth: NodeBirth) -> BirthEffect {
        let known = self.birth.filter(|_| self.is_online);
        let is_same = |known: NodeBirth| NodeBirth { arrival_ms: birth.arrival_ms, ..known } == birth;
        if birth.timestamp.is_some_and(|time_ms| time_ms > 0) && known.is_some_and(is_same) {
            return BirthEffect { is_repeated: true, position: self.sequence.first(), offline: Vec::new() };
        }
        let goes_on = birth.session.is_some() && known.is_some_and(|known| known.session == birth.session);
        let offline = if goes_on { Vec::new() } else { self.devices_offline() };
        self.by_alias.clear();
        self.named = 0;
        for device in self.devices.values_mut() {
            (device.is_born, device.aliases) = (false, 0);
            device.named.clear();
        }
        (self.is_online, self.birth, self.lacks_room) = (true, Some(birth), false);
        self.births += 1;
        BirthEffect { is_repeated: false, position: Some(self.sequence.begin(birth.seq)), offline }
    }

    /// A death of the node: the ids of the devices that go offline with it. `None`: it is the death of a session before the last
    /// birth, and says nothing: a broker may send a will late.
    pub fn node_death(&mut self, session: Option<u64>) -> Option<Vec<Box<str>>> {
        let born = self.birth.filter(|_| self.is_online).and_then(|birth| birth.session);
        if born.zip(session).is_some_and(|(born, died)| born != died) {
            return None;
        }
        self.is_online = false;
        Some(self.devices_offline())
    }

    /// Takes all devices offline; the ids of those that were not.
    fn devices_offline(&mut self) -> Vec<Box<str>> {
        let online = self.devices.iter_mut().filter(|(name, device)| device.is_online && ***name != *ITSELF);
        let ids = online.map(|(_, device)| {
            device.is_online = false;
            device.id.clone()
        });
        ids.collect()
    }

    /// A birth of a device, or of the node itself: what it defined before is forgotten. Returns whether there is room for it.
    pub fn device_birth(&mut self, device: &str, id: Box<str>, room: BirthRoom) -> bool {
        if let Some(known) = self.devices.get_mut(device) {
            (known.id, known.is_online, known.is_born) = (id, true, true);
            self.named -= known.named.len();
            known.named.clear();
            if std::mem::take(&mut known.aliases) > 0 {
                self.by_alias.retain(|_, definition| *definition.device != *device);
            }
            return true;
        }
        let fits = device.len() <= MAX_NAME_BYTES && id.len() <= MAX_NAME_BYTES;
        if !fits || self.devices.len() >= room.devices && !self.forget_offline_device() {
            self.lacks_room = true;
            return false;
        }
        self.devices.insert(device.into(), NodeDevice { id, is_online: true, is_born: true, ..NodeDevice::default() });
        true
    }

    /// Forgets a device that is offline, if there is one.
    fn forget_offline_device(&mut self) -> bool {
        let gone = self.devices.iter().find(|(name, device)| !device.is_online && ***name != *ITSELF);
        let Some(gone) = gone.map(|(name, _)| Arc::clone(name)) else { return false };
        self.named -= self.devices.remove(&gone).map_or(0, |device| device.named.len());
        self.by_alias.retain(|_, definition| definition.device != gone);
        true
    }

    /// A death of a device.
    pub fn device_death(&mut self, device: &str) {
        if let Some(known) = self.devices.get_mut(device) {
            (known.is_online, known.is_born) = (false, false);
        }
    }

    /// Remembers a metric of a birth of this device, see [`EdgeNode::device_birth`]. Returns whether there is room.
    pub fn define(&mut self, device: &str, alias: Option<u64>, name: &str, form: MetricForm, room: BirthRoom) -> bool {
        let longest = name.len().max(form.unit.as_ref().map_or(0, |unit| unit.len()));
        if longest > MAX_NAME_BYTES {
            return false;
        }
        // An alias that another device has is of this one from now on.
        if let Some(definition) = alias.and_then(|alias| self.by_alias.remove(&alias))
            && let Some(owner) = self.devices.get_mut(&definition.device)
        {
            owner.aliases -= 1;
        }
        let is_full = self.definitions() >= room.definitions;
        let Some(key) = self.devices.get_key_value(device).map(|(key, _)| Arc::clone(key)) else { return false };
        let Some(known) = self.devices.get_mut(device) else { return false };
        let is_new = alias.is_some() || !known.named.contains_key(name);
        if is_new && (is_full || known.aliases + known.named.len() >= room.of_device) {
            return false;
        }
        if let Some(alias) = alias {
            known.aliases += 1;
            self.by_alias.insert(alias, Definition { device: key, name: name.into(), form });
        } else {
            known.named.insert(name.into(), form);
            self.named += usize::from(is_new);
        }
        true
    }

    /// Whether the node must be asked for its births: not within a minute after it was asked last.
    pub fn asks_rebirth(&mut self, arrival_ms: i64) -> bool {
        let asks = self
            .rebirth_asked_ms
            .is_none_or(|asked_ms| !(0..REBIRTH_INTERVAL_MS).contains(&arrival_ms.saturating_sub(asked_ms)));
        if asks {
            self.rebirth_asked_ms = Some(arrival_ms);
        }
        asks
    }

    /// Appends the stored form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.is_online.into());
        out.push(self.birth.is_some().into());
        if let Some(birth) = self.birth {
            birth.encode(out);
        }
        put_u64(self.births, out);
        self.sequence.encode(out);
        out.push(self.rebirth_asked_ms.is_some().into());
        if let Some(asked_ms) = self.rebirth_asked_ms {
            put_i64(asked_ms, out);
        }
        out.push(self.lacks_room.into());
        put_u64(self.devices.len() as u64, out);
        for (name, device) in &self.devices {
            put_bytes(name.as_bytes(), out);
            device.encode(out);
        }
        put_u64(self.by_alias.len() as u64, out);
        let names: Vec<&Arc<str>> = self.devices.keys().collect();
        for (alias, Definition { device, name, form }) in &self.by_alias {
            put_u64(*alias, out);
            // Devices have an order, so that a number stands for each.
            put_u64(names.binary_search(&device).unwrap_or_default() as u64, out);
            put_bytes(name.as_bytes(), out);
            form.encode(out);
        }
    }

    /// Reads the stored form.
    pub fn decode(reader: &mut FieldReader<'_>) -> Result<Self, DecodeError> {
        let mut node = Self { is_online: flag(reader)?, ..Self::default() };
        node.birth = if flag(reader)? { Some(NodeBirth::decode(reader)?) } else { None };
        node.births = reader.u64()?;
        node.sequence = NodeSequence::decode(reader)?;
        node.rebirth_asked_ms = if flag(reader)? { Some(reader.i64()?) } else { None };
        node.lacks_room = flag(reader)?;
        let devices = reader.count()?;
        for _ in 0..devices {
            let name = name(reader)?.into();
            let device = NodeDevice::decode(reader)?;
            node.named += device.named.len();
            node.devices.insert(name, device);
        }
        let aliases = reader.count()?;
        let names: Vec<Arc<str>> = node.devices.keys().cloned().collect();
        for _ in 0..aliases {
            let alias = reader.u64()?;
            let index = usize::try_from(reader.u64()?).unwrap_or(usize::MAX);
            let device = names.get(index).ok_or("a metric of no device")?;
            if let Some(owner) = node.devices.get_mut(device) {
                owner.aliases += 1;
            }
            let definition = Definition {
                device: Arc::clone(device),
                name: name(reader)?.into(),
                form: MetricForm::decode(reader)?,
            };
            node.by_alias.insert(alias, definition);
        }
        if node.devices.len() != devices || node.by_alias.len() != aliases {
            return Err("a device or a metric that is defined twice".into());
        }
        if devices > MAX_DEVICES_OF_NODE || node.definitions() > MAX_DEFINITIONS_OF_NODE {
            return Err("more devices or metrics of an edge node than are remembered".into());
        }
        Ok(node)
    }
}

impl NodeBirth {
    fn encode(self, out: &mut Vec<u8>) {
        put_option(self.timestamp, out);
        put_option(self.session, out);
        put_option(self.seq, out);
        put_i64(self.arrival_ms, out);
    }

    fn decode(reader: &mut FieldReader<'_>) -> Result<Self, DecodeError> {
        let (timestamp, session, seq) = (option(reader)?, option(reader)?, option(reader)?);
        Ok(Self { timestamp, session, seq, arrival_ms: reader.i64()? })
    }
}

impl NodeDevice {
    /// Appends the stored form. The number of aliases is told by the metrics.
    fn encode(&self, out: &mut Vec<u8>) {
        put_bytes(self.id.as_bytes(), out);
        out.push(self.is_online.into());
        out.push(self.is_born.into());
        put_u64(self.named.len() as u64, out);
        for (name, form) in &self.named {
            put_bytes(name.as_bytes(), out);
            form.encode(out);
        }
    }

    fn decode(reader: &mut FieldReader<'_>) -> Result<Self, DecodeError> {
        let mut device = Self { id: name(reader)?.into(), ..Self::default() };
        (device.is_online, device.is_born) = (flag(reader)?, flag(reader)?);
        let names = reader.count()?;
        for _ in 0..names {
            let name = name(reader)?.into();
            device.named.insert(name, MetricForm::decode(reader)?);
        }
        if device.named.len() == names { Ok(device) } else { Err("a metric that is defined twice".into()) }
    }
}

impl MetricForm {
    fn encode(&self, out: &mut Vec<u8>) {
        put_u64(self.datatype.into(), out);
        out.push(self.unit.is_some().into());
        if let Some(unit) = &self.unit {
            put_bytes(unit.as_bytes(), out);
        }
    }

    fn decode(reader: &mut FieldReader<'_>) -> Result<Self, DecodeError> {
        let datatype = reader.u32()?;
        let unit = if flag(reader)? { Some(name(reader)?.into()) } else { None };
        Ok(Self { datatype, unit })
    }
}

fn name<'a>(reader: &mut FieldReader<'a>) -> Result<&'a str, DecodeError> {
    let name = reader.str()?;
    if name.len() > MAX_NAME_BYTES { Err("a name that is too long".into()) } else { Ok(name) }
}

/// Appends a number that may be missing.
fn put_option(number: Option<u64>, out: &mut Vec<u8>) {
    out.push(number.is_some().into());
    if let Some(number) = number {
        put_u64(number, out);
    }
}

fn flag(reader: &mut FieldReader<'_>) -> Result<bool, DecodeError> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err("a flag that is neither 0 nor 1".into()),
    }
}

fn option(reader: &mut FieldReader<'_>) -> Result<Option<u64>, DecodeError> {
    if flag(reader)? { reader.u64().map(Some) } else { Ok(None) }
}
