//! What of earlier messages the maps remember: the births of Sparkplug B.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::discoveries::Discoveries;
use super::edge_node::{BirthRoom, EdgeNode, MAX_DEFINITIONS_OF_NODE, MAX_DEVICES_OF_NODE, MAX_NAME_BYTES};
use crate::core::codec::{DecodeError, FieldReader, put_bytes, put_u64};

/// Largest number of edge nodes. At the bound a node that is offline makes room for another.
const MAX_NODES: usize = 4_096;
/// Largest number of devices of all edge nodes, the nodes included.
const MAX_DEVICES: usize = 65_536;
/// Largest number of metrics that the births of all edge nodes define.
const MAX_DEFINITIONS: usize = 262_144;
/// Metrics of one device where nothing else is said.
const DEFAULT_METRICS_OF_DEVICE: usize = 256;
/// Longest name of an edge node: prefix of its tenant, group and node.
const MAX_KEY_BYTES: usize = 3 * MAX_NAME_BYTES;
/// Version of the stored form.
const VERSION: u8 = 1;

/// What of earlier messages the maps remember: births of Sparkplug B. It is part of checkpoints. A copy shares what is remembered of
/// each node until one of the two changes.
#[derive(Debug, Clone, PartialEq)]
pub struct MapMemory {
    /// By tenant, group and node, as in `acme/Plant1/Edge1`.
    nodes: BTreeMap<Box<str>, Arc<EdgeNode>>,
    /// Prefix of the topics of the tenant whose messages come.
    tenant: Box<str>,
    /// Metrics of one device that are remembered, at most.
    metrics_of_device: usize,
    sizes: MapMemorySizes,
    totals: SparkplugTotals,
    /// What discovery messages said. It is stored apart.
    pub(super) discoveries: Arc<Discoveries>,
}

/// Sizes of what maps remember.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct MapMemorySizes {
    /// Edge nodes.
    pub nodes: usize,
    /// Devices of edge nodes, the nodes included.
    pub devices: usize,
    /// Metrics that births define.
    pub metrics: usize,
}

/// Counts of all edge nodes since the journal began, those that are forgotten included.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct SparkplugTotals {
    /// Times that messages of a node were missing.
    pub gaps: u64,
    /// Messages of nodes that were missing.
    pub missed: u64,
    /// Times that a node was asked for its births.
    pub rebirths: u64,
}

/// An edge node as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EdgeNodeView {
    /// Tenant, group and node, as in `acme/Plant1/Edge1`.
    pub node: String,
    /// Whether its last birth came after its last death.
    pub online: bool,
    /// Arrival of its last birth, Unix milliseconds; `None`: there was none.
    pub born_ms: Option<i64>,
    /// Devices that were born, the node itself included.
    pub devices: usize,
    /// Devices that are online.
    pub devices_online: usize,
    /// Metrics that their births define.
    pub metrics: usize,
    /// Times that messages of the node were missing.
    pub gaps: u64,
    /// Messages that were missing.
    pub missed: u64,
}

impl Default for MapMemory {
    fn default() -> Self {
        Self {
            nodes: BTreeMap::new(),
            tenant: Box::from(""),
            metrics_of_device: DEFAULT_METRICS_OF_DEVICE,
            sizes: MapMemorySizes::default(),
            totals: SparkplugTotals::default(),
            discoveries: Arc::default(),
        }
    }
}

impl MapMemory {
    /// The messages that come are of this tenant: the prefix of its topics, empty for the box's own. Edge nodes of tenants are
    /// apart, whatever their names. Births define at most so many metrics of a device.
    pub(in crate::core) fn enter(&mut self, tenant: &str, metrics_of_device: usize) {
        self.metrics_of_device = metrics_of_device;
        if *self.tenant != *tenant {
            self.tenant = tenant.into();
        }
    }

    /// Sizes of what is remembered.
    pub fn sizes(&self) -> MapMemorySizes {
        self.sizes
    }

    /// Counts of all edge nodes.
    pub fn totals(&self) -> SparkplugTotals {
        self.totals
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.totals == SparkplugTotals::default()
    }

    /// Edge nodes, those first of which most messages were missing; at most `most`.
    pub fn edge_nodes(&self, most: usize) -> Vec<EdgeNodeView> {
        let mut nodes: Vec<_> = self.nodes.iter().collect();
        nodes.sort_by_key(|(name, node)| (Reverse(node.sequence.missed), *name));
        nodes.truncate(most);
        let views = nodes.into_iter().map(|(name, node)| EdgeNodeView {
            node: name.to_string(),
            online: node.is_online,
            born_ms: node.born_ms(),
            devices: node.devices(),
            devices_online: node.devices_online(),
            metrics: node.definitions(),
            gaps: node.sequence.gaps,
            missed: node.sequence.missed,
        });
        views.collect()
    }

    /// Under which name a node is remembered.
    pub(super) fn key(&self, group: &str, node: &str) -> String {
        let tenant = &self.tenant;
        format!("{tenant}{group}/{node}")
    }

    /// What is remembered of an edge node.
    pub(super) fn node(&self, key: &str) -> Option<&EdgeNode> {
        self.nodes.get(key).map(|node| &**node)
    }

    /// Changes what is remembered of an edge node, and keeps account. `None` where there is no room for another node.
    pub(super) fn change<R>(&mut self, key: &str, change: impl FnOnce(&mut EdgeNode, BirthRoom) -> R) -> Option<R> {
        if !self.nodes.contains_key(key) {
            self.make_room(key)?;
            self.nodes.insert(key.into(), Arc::default());
            self.sizes.nodes += 1;
        }
        let node = Arc::make_mut(self.nodes.get_mut(key)?);
        let (devices, metrics) = (node.devices(), node.definitions());
        let (gaps, missed) = (node.sequence.gaps, node.sequence.missed);
        let (other_devices, other_metrics) = (self.sizes.devices - devices, self.sizes.metrics - metrics);
        let room = BirthRoom {
            devices: MAX_DEVICES_OF_NODE.min(MAX_DEVICES - other_devices),
            definitions: MAX_DEFINITIONS_OF_NODE.min(MAX_DEFINITIONS - other_metrics),
            of_device: self.metrics_of_device,
        };
        let result = change(node, room);
        self.sizes.devices = other_devices + node.devices();
        self.sizes.metrics = other_metrics + node.definitions();
        self.totals.gaps += node.sequence.gaps - gaps;
        self.totals.missed += node.sequence.missed - missed;
        Some(result)
    }

    /// Counts that a node is asked for its births.
    pub(super) fn count_rebirth(&mut self) {
        self.totals.rebirths += 1;
    }

    /// Makes room for another node; `None` where there is none.
    fn make_room(&mut self, key: &str) -> Option<()> {
        if key.len() > MAX_KEY_BYTES {
            return None;
        }
        if self.nodes.len() >= MAX_NODES {
            let offline = self.nodes.iter().find(|(_, node)| !node.is_online).map(|(key, _)| key.clone())?;
            if let Some(node) = self.nodes.remove(&offline) {
                self.sizes.nodes -= 1;
                self.sizes.devices -= node.devices();
                self.sizes.metrics -= node.definitions();
            }
        }
        Some(())
    }

    /// Appends the stored form, which is empty where nothing is remembered.
    pub(in crate::core) fn encode(&self, out: &mut Vec<u8>) {
        if self.is_empty() {
            return;
        }
        out.push(VERSION);
        for total in [self.totals.gaps, self.totals.missed, self.totals.rebirths] {
            put_u64(total, out);
        }
        put_u64(self.nodes.len() as u64, out);
        for (key, node) in &self.nodes {
            put_bytes(key.as_bytes(), out);
            node.encode(out);
        }
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// What is not of the form, or beyond the bounds.
    pub(in crate::core) fn decode(reader: &mut FieldReader<'_>) -> Result<Self, DecodeError> {
        let mut memory = Self::default();
        if reader.rest().is_empty() {
            return Ok(memory);
        }
        if reader.u8()? != VERSION {
            return Err("an unknown version of what maps remember".into());
        }
        memory.totals = SparkplugTotals { gaps: reader.u64()?, missed: reader.u64()?, rebirths: reader.u64()? };
        for _ in 0..reader.count()? {
            let key = Box::from(reader.str()?);
            let node = EdgeNode::decode(reader)?;
            memory.sizes.devices += node.devices();
            memory.sizes.metrics += node.definitions();
            if memory.nodes.last_key_value().is_some_and(|(last, _)| *last >= key) {
                return Err("edge nodes out of order".into());
            }
            memory.nodes.insert(key, Arc::new(node));
        }
        memory.sizes.nodes = memory.nodes.len();
        let MapMemorySizes { nodes, devices, metrics } = memory.sizes;
        if nodes > MAX_NODES || devices > MAX_DEVICES || metrics > MAX_DEFINITIONS {
            return Err("more births than are remembered".into());
        }
        Ok(memory)
    }
}

#[cfg(test)]
mod tests;
