//! What of earlier messages the maps remember: the births of Sparkplug B.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::discoveries::Discoveries;
use crate::core::codec::{DecodeError, FieldReader, put_bytes, put_i64, put_u64};

/// Largest number of edge nodes. At the bound a node that is offline makes room for another.
const MAX_NODES: usize = 4_096;
/// Largest number of metrics that the births of one edge node and its devices define.
pub(super) const MAX_DEFINITIONS_OF_NODE: usize = 1_024;
/// Largest number of metrics that the births of all edge nodes define.
const MAX_DEFINITIONS: usize = 262_144;
/// Longest name of a metric, of a group, of a node, of a device, and of a unit that is remembered.
const MAX_NAME_BYTES: usize = 256;
/// Time between two requests to one edge node for its births.
const REBIRTH_INTERVAL_MS: i64 = 60_000;
/// Version of the stored form.
const VERSION: u8 = 1;

/// What of earlier messages the maps remember: births of Sparkplug B. It is part of checkpoints. A copy shares what is remembered of
/// each node until one of the two changes.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct MapMemory {
    nodes: BTreeMap<(Box<str>, Box<str>), Arc<EdgeNode>>,
    definitions: usize,
    /// What discovery messages said. It is stored apart.
    pub(super) discoveries: Arc<Discoveries>,
}

/// What is remembered of an edge node.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct EdgeNode {
    /// Whether its last birth came after its last death.
    pub is_online: bool,
    /// Number of the session of its last birth, by which a death is told from that of an earlier session.
    pub session: Option<u64>,
    /// Time of its last birth, as the payload has it.
    pub birth: Option<u64>,
    last_seq: Option<u8>,
    gaps: u64,
    rebirth_asked_ms: Option<i64>,
    by_alias: BTreeMap<u64, Definition>,
    by_name: BTreeMap<(Box<str>, Box<str>), MetricForm>,
}

/// A metric that a birth defines with an alias.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Definition {
    device: Box<str>,
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

impl EdgeNode {
    fn definitions(&self) -> usize {
        self.by_alias.len() + self.by_name.len()
    }

    /// The metric with this alias.
    pub fn alias(&self, alias: u64) -> Option<&Definition> {
        self.by_alias.get(&alias)
    }

    /// Type and unit of a metric of `device` without an alias; the device is empty for the node itself.
    pub fn named(&self, device: &str, name: &str) -> Option<&MetricForm> {
        // Most nodes have aliases, and need no key here.
        if self.by_name.is_empty() { None } else { self.by_name.get(&(device.into(), name.into())) }
    }

    /// Follows the number of a message; counts a gap where messages before it are missing. An earlier number, which is of a
    /// message that comes again, changes nothing.
    pub fn follow(&mut self, seq: u64) {
        let seq = seq as u8;
        if let Some(last) = self.last_seq {
            let step = seq.wrapping_sub(last) as i8;
            self.gaps += u64::from(step > 1);
            if step < 0 {
                return;
            }
        }
        self.last_seq = Some(seq);
    }

    /// Begins to count messages anew.
    pub fn begin(&mut self, seq: Option<u64>) {
        self.last_seq = seq.map(|seq| seq as u8);
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
}

impl MapMemory {
    /// Number of edge nodes of Sparkplug B, and of metrics that their births define.
    pub fn len(&self) -> (usize, usize) {
        (self.nodes.len(), self.definitions)
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// How often messages of an edge node were missing, for each node by group and name.
    pub fn sequence_gaps(&self) -> impl Iterator<Item = (&str, &str, u64)> {
        self.nodes.iter().map(|((group, node), state)| (&**group, &**node, state.gaps))
    }

    /// What is remembered of an edge node.
    pub(super) fn node(&self, group: &str, node: &str) -> Option<&EdgeNode> {
        self.nodes.get(&(group.into(), node.into())).map(|node| &**node)
    }

    /// What is remembered of an edge node, for changes; `None` where there is no room for another.
    pub(super) fn node_mut(&mut self, group: &str, node: &str) -> Option<&mut EdgeNode> {
        let key = (Box::from(group), Box::from(node));
        if !self.nodes.contains_key(&key) {
            if group.len() > MAX_NAME_BYTES || node.len() > MAX_NAME_BYTES {
                return None;
            }
            if self.nodes.len() >= MAX_NODES {
                let offline = self.nodes.iter().find(|(_, node)| !node.is_online).map(|(key, _)| key.clone())?;
                self.definitions -= self.nodes.remove(&offline).map_or(0, |node| node.definitions());
            }
        }
        Some(Arc::make_mut(self.nodes.entry(key).or_default()))
    }

    /// Forgets what births defined for a device of a node, or for the node and all its devices.
    pub(super) fn forget(&mut self, group: &str, node: &str, device: Option<&str>) {
        let Some(state) = self.node_mut(group, node) else { return };
        let before = state.definitions();
        match device {
            None => {
                state.by_alias.clear();
                state.by_name.clear();
            }
            Some(device) => {
                state.by_alias.retain(|_, definition| &*definition.device != device);
                state.by_name.retain(|(of, _), _| &**of != device);
            }
        }
        let forgotten = before - state.definitions();
        self.definitions -= forgotten;
    }

    /// Remembers a metric of a birth. Returns whether there is room.
    pub(super) fn define(
        &mut self,
        (group, node, device): (&str, &str, &str),
        alias: Option<u64>,
        name: &str,
        form: MetricForm,
    ) -> bool {
        let is_full = self.definitions >= MAX_DEFINITIONS;
        let longest = name.len().max(device.len()).max(form.unit.as_ref().map_or(0, |unit| unit.len()));
        let Some(state) = self.node_mut(group, node).filter(|_| longest <= MAX_NAME_BYTES) else { return false };
        let is_known = match alias {
            Some(alias) => state.by_alias.contains_key(&alias),
            None => state.by_name.contains_key(&(device.into(), name.into())),
        };
        if !is_known && (is_full || state.definitions() >= MAX_DEFINITIONS_OF_NODE) {
            return false;
        }
        match alias {
            Some(alias) => {
                let definition = Definition { device: device.into(), name: name.into(), form };
                state.by_alias.insert(alias, definition);
            }
            None => {
                state.by_name.insert((device.into(), name.into()), form);
            }
        }
        self.definitions += usize::from(!is_known);
        true
    }

    /// Appends the stored form, which is empty where nothing is remembered.
    pub(in crate::core) fn encode(&self, out: &mut Vec<u8>) {
        if self.is_empty() {
            return;
        }
        out.push(VERSION);
        put_u64(self.nodes.len() as u64, out);
        for ((group, node), state) in &self.nodes {
            put_bytes(group.as_bytes(), out);
            put_bytes(node.as_bytes(), out);
            state.encode(out);
        }
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// What is not of the form, or beyond the bounds.
    pub(in crate::core) fn decode(reader: &mut FieldReader<'_>) -> Result<Self, DecodeError> {
        if reader.rest().is_empty() {
            return Ok(Self::default());
        }
        if reader.u8()? != VERSION {
            return Err("an unknown version of what maps remember".into());
        }
        let mut memory = Self::default();
        for _ in 0..reader.count()? {
            let key = (Box::from(name(reader)?), Box::from(name(reader)?));
            let state = EdgeNode::decode(reader)?;
            memory.definitions += state.definitions();
            if memory.nodes.last_key_value().is_some_and(|(last, _)| *last >= key) {
                return Err("edge nodes out of order".into());
            }
            memory.nodes.insert(key, Arc::new(state));
        }
        if memory.nodes.len() > MAX_NODES || memory.definitions > MAX_DEFINITIONS {
            return Err("more births than are remembered".into());
        }
        Ok(memory)
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

impl EdgeNode {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.is_online.into());
        put_option(self.session, out);
        put_option(self.birth, out);
        put_option(self.last_seq.map(u64::from), out);
        put_u64(self.gaps, out);
        out.push(self.rebirth_asked_ms.is_some().into());
        if let Some(asked_ms) = self.rebirth_asked_ms {
            put_i64(asked_ms, out);
        }
        put_u64(self.by_alias.len() as u64, out);
        for (alias, Definition { device, name, form }) in &self.by_alias {
            put_u64(*alias, out);
            put_bytes(device.as_bytes(), out);
            put_bytes(name.as_bytes(), out);
            form.encode(out);
        }
        put_u64(self.by_name.len() as u64, out);
        for ((device, name), form) in &self.by_name {
            put_bytes(device.as_bytes(), out);
            put_bytes(name.as_bytes(), out);
            form.encode(out);
        }
    }

    fn decode(reader: &mut FieldReader<'_>) -> Result<Self, DecodeError> {
        let mut node = Self { is_online: flag(reader)?, ..Self::default() };
        (node.session, node.birth) = (option(reader)?, option(reader)?);
        node.last_seq =
            option(reader)?.map(|seq| u8::try_from(seq).map_err(|_| DecodeError::IntegerTooLarge(8))).transpose()?;
        node.gaps = reader.u64()?;
        node.rebirth_asked_ms = if flag(reader)? { Some(reader.i64()?) } else { None };
        let aliases = reader.count()?;
        for _ in 0..aliases {
            let alias = reader.u64()?;
            let (device, name) = (name(reader)?.into(), name(reader)?.into());
            node.by_alias.insert(alias, Definition { device, name, form: MetricForm::decode(reader)? });
        }
        let names = reader.count()?;
        for _ in 0..names {
            let key = (name(reader)?.into(), name(reader)?.into());
            node.by_name.insert(key, MetricForm::decode(reader)?);
        }
        match node.definitions() {
            count if count != aliases + names => Err("a metric that is defined twice".into()),
            count if count > MAX_DEFINITIONS_OF_NODE => Err("more metrics of an edge node than are remembered".into()),
            _ => Ok(node),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn form(datatype: u32, unit: Option<&str>) -> MetricForm {
        MetricForm { datatype, unit: unit.map(Box::from) }
    }

    fn stored(memory: &MapMemory) -> Vec<u8> {
        let mut out = Vec::new();
        memory.encode(&mut out);
        out
    }

    /// Reads the whole of `bytes`.
    fn read(bytes: &[u8]) -> Result<MapMemory, DecodeError> {
        let mut reader = FieldReader::new(bytes);
        let memory = MapMemory::decode(&mut reader)?;
        reader.end().map(|()| memory)
    }

    #[test]
    fn gaps_are_counted_across_the_wrap() {
        let mut node = EdgeNode::default();
        let mut after = |seq| {
            node.follow(seq);
            node.gaps
        };
        assert_eq!([254, 255, 0, 1, 3, 2, 3, 4, 9].map(&mut after), [0, 0, 0, 0, 1, 1, 1, 1, 2]);
    }

    #[test]
    fn a_node_is_asked_once_a_minute() {
        let mut node = EdgeNode::default();
        let asked = [0, 1, 59_999, 60_000, 60_001, -5].map(|arrival_ms| node.asks_rebirth(arrival_ms));
        assert_eq!(asked, [true, false, false, true, false, true]);
    }

    #[test]
    fn births_are_bounded() {
        let mut memory = MapMemory::default();
        let defined =
            (0..2_000).filter(|alias| memory.define(("g", "n", ""), Some(*alias), "m", form(9, None))).count();
        assert_eq!((defined, memory.len()), (MAX_DEFINITIONS_OF_NODE, (1, MAX_DEFINITIONS_OF_NODE)));
        assert!(memory.define(("g", "n", ""), Some(7), "other", form(9, None)));
        assert!(!memory.define(("g", "x", ""), None, &"n".repeat(257), form(9, None)));
        memory.forget("g", "n", None);
        assert_eq!(memory.len().1, 0);
    }

    #[test]
    fn an_offline_node_makes_room() {
        let mut memory = MapMemory::default();
        for node in 0..MAX_NODES {
            memory.node_mut("g", &node.to_string()).unwrap().is_online = node != 77;
        }
        memory.node_mut("g", "new").unwrap().is_online = true;
        assert!(memory.node("g", "77").is_none());
        assert!(memory.node_mut("g", "another").is_none());
    }

    #[test]
    fn damage_is_refused() {
        let mut memory = MapMemory::default();
        memory.define(("g", "n", "d"), Some(5), "m", form(9, Some("V")));
        let bytes = stored(&memory);
        assert_eq!(read(&bytes), Ok(memory));
        assert_eq!(read(&[]), Ok(MapMemory::default()));
        for len in 1..bytes.len() {
            assert!(read(&bytes[..len]).is_err());
        }
        assert!(read(&[bytes, vec![0]].concat()).is_err());
        assert!(read(&[2, 0]).is_err());
    }

    proptest! {
        #[test]
        fn the_stored_form_reads_back(
            births in proptest::collection::vec(
                ("[ab]", "[xy]", "[d]?", proptest::option::of(any::<u64>()), "\\PC{0,9}", any::<u32>(), any::<bool>()), 0..30,
            ),
            seqs in proptest::collection::vec(any::<u64>(), 0..9),
            times: (Option<u64>, Option<u64>, i64),
        ) {
            let mut memory = MapMemory::default();
            for (group, node, device, alias, name, datatype, unit) in &births {
                memory.define((group, node, device), *alias, name, form(*datatype, unit.then_some("°C")));
                let state = memory.node_mut(group, node).unwrap();
                seqs.iter().for_each(|seq| state.follow(*seq));
                (state.session, state.birth, state.is_online) = (times.0, times.1, *unit);
                state.asks_rebirth(times.2);
            }
            prop_assert_eq!(read(&stored(&memory)), Ok(memory));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let versioned = [vec![VERSION], bytes].concat();
            if let Ok(memory) = read(&versioned) {
                prop_assert_eq!(read(&stored(&memory)), Ok(memory));
            }
        }
    }
}
