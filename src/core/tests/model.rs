//! A slow model of the operator that is meant to be obviously right: it keeps every reading, looks at every device in
//! every batch, and reads no JSON.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Input;
use super::model_numbers::{ModelNumbered, ModelNumbers, ModelObjection};
use crate::core::record;
use crate::core::settings::{SequenceBits, Settings, WatermarkScope};

/// One element of a message.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ModelElement {
    pub device: &'static str,
    pub seq: Option<u64>,
    pub boot: Option<u8>,
    pub time_ms: Option<i64>,
    pub readings: Vec<(&'static str, i32)>,
}

/// One message.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ModelMessage {
    pub user: Option<&'static str>,
    pub client: &'static str,
    pub packet_id: u16,
    pub dup: bool,
    pub elements: Vec<ModelElement>,
}

/// One record.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum ModelRecord {
    Message(ModelMessage),
    Tick,
    Resumed,
    /// The replay of one of the errors so far, chosen by this number.
    Replay(usize),
    /// An operator lets these devices be forgotten.
    Forget(Vec<&'static str>),
}

/// An error in the errors log.
#[derive(Debug, Clone)]
struct ModelError {
    message: ModelMessage,
    index: u32,
    position: u64,
    first_arrival_ms: i64,
    unseen: bool,
    /// Number of its message and of its element. Readings without a device are rejected together as one element.
    element: (u64, usize),
}

/// How a message is delivered.
#[derive(Debug, Clone, Copy)]
struct ModelDelivery {
    /// When the message first arrived.
    first_arrival_ms: i64,
    /// Of a replay: the error, the index of its reading, whether its `seq` was not remembered, message and element.
    replay: Option<(u64, u32, bool, (u64, usize))>,
}

impl ModelElement {
    fn json(&self) -> String {
        let mut fields = vec![format!(r#""device_id":"{}""#, self.device)];
        fields.extend(self.seq.map(|seq| format!(r#""seq":{seq}"#)));
        fields.extend(self.boot.map(|boot| format!(r#""boot":{boot}"#)));
        fields.extend(self.time_ms.map(|time| format!(r#""timestamp":{time}"#)));
        if let [(metric, value)] = self.readings[..] {
            fields.push(format!(r#""metric":"{metric}","value":{value}"#));
        } else {
            let metrics: Vec<_> =
                self.readings.iter().map(|(metric, value)| format!(r#""{metric}":{value}"#)).collect();
            fields.push(format!(r#""metrics":{{{}}}"#, metrics.join(",")));
        }
        format!("{{{}}}", fields.join(","))
    }
}

impl ModelMessage {
    pub fn payload(&self) -> String {
        let elements: Vec<_> = self.elements.iter().map(ModelElement::json).collect();
        if let [element] = &elements[..] { element.clone() } else { format!("[{}]", elements.join(",")) }
    }
}

impl ModelRecord {
    fn input(&self, stored: &[ModelError]) -> Input {
        match self {
            ModelRecord::Replay(_) if stored.is_empty() => Input::Tick,
            ModelRecord::Replay(pick) => {
                let error_seq = pick % stored.len();
                let error = &stored[error_seq];
                let payload = error.message.payload();
                let mut bytes = Vec::new();
                let mut item = Vec::new();
                let (error_seq, index, unseen) = (error_seq as u64, error.index, error.unseen);
                record::ReplayItem { error_seq, index, readings: 1, unseen }.encode(&mut item);
                let replay = record::ReplayRecord {
                    position: error.position,
                    whole: false,
                    arrival_ms: error.first_arrival_ms,
                    client_id: error.message.client,
                    topic: "any",
                    own_device: None,
                    user: error.message.user,
                    items: record::ReplayItems(&item),
                    payload: payload.as_bytes(),
                };
                record::encode_replay(&replay, &mut bytes);
                Input::Encoded(bytes)
            }
            ModelRecord::Message(message) => Input::Publish {
                user: message.user.map(str::to_owned),
                client: message.client.to_owned(),
                topic: "any".to_owned(),
                packet_id: message.packet_id,
                qos: 1,
                dup: message.dup,
                payload: message.payload().into_bytes(),
            },
            ModelRecord::Tick => Input::Tick,
            ModelRecord::Resumed => Input::Resumed,
            ModelRecord::Forget(devices) => {
                let mut bytes = Vec::new();
                record::encode_forget(devices.iter().copied(), &mut bytes);
                Input::Encoded(bytes)
            }
        }
    }
}

#[derive(Debug, Default)]
struct ModelWindow {
    /// Times and values in journal order.
    readings: Vec<(i64, i32)>,
    firings: u32,
    touched: bool,
}

#[derive(Debug, Default)]
struct ModelDevice {
    user: Option<&'static str>,
    first_seen_ms: i64,
    watermark_ms: Option<i64>,
    newest_ms: Option<i64>,
    newest_seen_ms: Option<i64>,
    last_arrival_ms: i64,
    last_awake_ms: i64,
    seqs: BTreeSet<u64>,
    numbers: ModelNumbers,
    boot: Option<u8>,
    metrics: BTreeSet<&'static str>,
    /// Windows by end and metric. None is ever dropped.
    windows: BTreeMap<(i64, &'static str), ModelWindow>,
}

impl ModelDevice {
    fn open_ends(&self) -> impl Iterator<Item = i64> + '_ {
        self.windows.iter().filter(|(_, w)| w.firings == 0 && !w.touched).map(|(&(end, _), _)| end)
    }
}

/// Messages that a client published, when its present period began, and the numbers of messages in this period and the
/// one before.
#[derive(Debug, Default)]
struct ModelClient {
    messages: VecDeque<(u16, String)>,
    period_ms: Option<i64>,
    counts: (usize, usize),
}

#[derive(Debug)]
pub(super) struct Model {
    settings: Settings,
    devices: BTreeMap<&'static str, ModelDevice>,
    /// Clients by user and client identifier, each with the position of its last message.
    clients: BTreeMap<(Option<&'static str>, &'static str), (u64, ModelClient)>,
    watermark_ms: Option<i64>,
    newest_ms: Option<i64>,
    last_arrival_ms: i64,
    now_ms: Option<i64>,
    listening_since_ms: i64,
    paused_ms: i64,
    swept_ms: i64,
    lsn: u64,
    arrival_ms: i64,
    effects: Vec<String>,
    stored: Vec<ModelError>,
    replayed: BTreeSet<u64>,
    /// Messages and elements of which a replayed reading may have been counted already.
    undecided: BTreeSet<(u64, usize)>,
    /// Messages and elements of which a reading was replayed and found not to be counted already.
    resumed: BTreeSet<(u64, usize)>,
}

impl Model {
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            devices: BTreeMap::new(),
            clients: BTreeMap::new(),
            watermark_ms: None,
            newest_ms: None,
            last_arrival_ms: i64::MIN,
            now_ms: None,
            listening_since_ms: i64::MIN,
            paused_ms: 0,
            swept_ms: 0,
            lsn: 0,
            arrival_ms: 0,
            effects: Vec::new(),
            stored: Vec::new(),
            replayed: BTreeSet::new(),
            undecided: BTreeSet::new(),
            resumed: BTreeSet::new(),
        }
    }

    /// Inputs of the operator for the next batch.
    pub fn inputs(&self, records: &[ModelRecord]) -> Vec<Input> {
        records.iter().map(|record| record.input(&self.stored)).collect()
    }

    fn is_global(&self) -> bool {
        self.settings.watermark == WatermarkScope::Global
    }

    /// Applies a batch; returns its effects as [`super::properties::line`] prints them.
    pub fn apply(&mut self, arrival_ms: i64, records: &[ModelRecord]) -> Vec<String> {
        let before_ms = self.now_ms.unwrap_or(arrival_ms);
        self.now_ms = Some(arrival_ms);
        self.arrival_ms = arrival_ms;
        let gap_ms = arrival_ms - before_ms;
        if records.first() == Some(&ModelRecord::Resumed) {
            self.paused_ms += gap_ms;
            self.listening_since_ms = arrival_ms;
        } else if let Some(ttl_ms) = self.settings.device_ttl_ms {
            let part = if self.settings.has_field_rules() { 8 } else { 2 };
            self.paused_ms += (gap_ms - ttl_ms / part).max(0);
        }
        self.look_at_silence();
        self.forget_silent();
        let stored = self.stored.clone();
        for record in records {
            match record {
                ModelRecord::Message(message) => {
                    let redelivered = self.check_redelivery(message);
                    self.message(message, redelivered, ModelDelivery { first_arrival_ms: arrival_ms, replay: None });
                }
                ModelRecord::Replay(_) if stored.is_empty() => {}
                ModelRecord::Replay(pick) => {
                    let seq = pick % stored.len();
                    let ModelError { message, index, first_arrival_ms, unseen, element, .. } = &stored[seq];
                    let (seq, first_arrival_ms) = (seq as u64, *first_arrival_ms);
                    if self.replayed.insert(seq) {
                        let replay = Some((seq, *index, *unseen, *element));
                        self.message(message, false, ModelDelivery { first_arrival_ms, replay });
                    }
                }
                ModelRecord::Resumed => self.listening_since_ms = arrival_ms,
                ModelRecord::Tick => {}
                ModelRecord::Forget(devices) => {
                    self.fire(|_, window| window.touched);
                    self.forget(|id, _| devices.contains(&id));
                }
            }
            self.lsn += 1;
        }
        self.fire(|_, window| window.touched);
        std::mem::take(&mut self.effects)
    }

    pub fn close_all(&mut self) -> Vec<String> {
        self.fire(|_, window| window.firings == 0);
        std::mem::take(&mut self.effects)
    }

    fn look_at_silence(&mut self) {
        let now_ms = self.arrival_ms;
        let since = self.listening_since_ms;
        let Settings { idle_timeout_ms, out_of_orderness_ms: bound_ms, backlog, .. } = self.settings;
        let cap_ms = self.cap_ms();
        let moved = |newest: Option<i64>, last_arrival: i64, open_end: Option<i64>| {
            let silence_ms = now_ms.saturating_sub(last_arrival.max(since));
            let is_silent = idle_timeout_ms.is_some_and(|timeout_ms| silence_ms >= timeout_ms);
            let newest = newest?;
            let passed = backlog.then_some(newest - bound_ms - 1);
            let silent = open_end.filter(|_| is_silent).map(|end| (newest + silence_ms - bound_ms - 1).min(end - 1));
            passed.max(silent).map(|moved| moved.min(cap_ms))
        };
        if self.is_global() {
            let open_end = self.devices.values().flat_map(ModelDevice::open_ends).max();
            self.watermark_ms = self.watermark_ms.max(moved(self.newest_ms, self.last_arrival_ms, open_end));
        } else {
            for device in self.devices.values_mut() {
                let open_end = device.open_ends().max();
                device.watermark_ms =
                    device.watermark_ms.max(moved(device.newest_ms, device.last_arrival_ms, open_end));
            }
        }
        self.fire_due();
    }

    /// With `window.backlog` no watermark is ahead of the arrival.
    fn cap_ms(&self) -> i64 {
        if self.settings.backlog { self.arrival_ms - self.settings.out_of_orderness_ms - 1 } else { i64::MAX }
    }

    fn fire_due(&mut self) {
        let (is_global, global) = (self.is_global(), self.watermark_ms);
        self.fire(|device, window| {
            let watermark = if is_global { global } else { device };
            window.firings == 0 && !window.touched && watermark.is_some_and(|watermark| window.end_ms - 1 <= watermark)
        });
    }

    /// Fires the windows chosen, by the device's watermark and the window, in order of (end, device, metric).
    fn fire(&mut self, choose: impl Fn(Option<i64>, Candidate) -> bool) {
        let mut chosen = Vec::new();
        for (&id, device) in &self.devices {
            for (&(end_ms, metric), window) in &device.windows {
                let candidate = Candidate { end_ms, firings: window.firings, touched: window.touched };
                if choose(device.watermark_ms, candidate) {
                    chosen.push((end_ms, id, metric));
                }
            }
        }
        chosen.sort();
        for (end_ms, id, metric) in chosen {
            let window = self.devices.get_mut(id).unwrap().windows.get_mut(&(end_ms, metric)).unwrap();
            let values = || window.readings.iter().map(|&(_, value)| f64::from(value));
            let first_ms = window.readings.iter().map(|&(time, _)| time).min().unwrap();
            let last_ms = window.readings.iter().map(|&(time, _)| time).max().unwrap();
            let first = window.readings.iter().find(|&&(time, _)| time == first_ms).unwrap().1;
            let last = window.readings.iter().rfind(|&&(time, _)| time == last_ms).unwrap().1;
            let start_ms = end_ms - self.settings.window_ms;
            self.effects.push(format!(
                "{id}/{metric} {start_ms}..{end_ms} #{} count {} sum {:?} min {:?} max {:?} first {:?} last {:?}",
                window.firings,
                window.readings.len(),
                values().sum::<f64>(),
                values().fold(f64::INFINITY, f64::min),
                values().fold(f64::NEG_INFINITY, f64::max),
                f64::from(first),
                f64::from(last),
            ));
            window.firings += 1;
            window.touched = false;
        }
    }

    fn forget_silent(&mut self) {
        let Some(ttl_ms) = self.settings.device_ttl_ms else { return };
        if self.swept_ms == 0 {
            self.swept_ms = self.arrival_ms;
        }
        if self.arrival_ms - self.swept_ms < (ttl_ms / 64).max(1000) {
            return;
        }
        self.swept_ms = self.arrival_ms;
        let awake_ms = self.arrival_ms - self.paused_ms;
        self.forget(|_, device| awake_ms - device.last_awake_ms >= ttl_ms);
    }

    fn forget(&mut self, choose: impl Fn(&str, &ModelDevice) -> bool) {
        let all = std::mem::take(&mut self.devices);
        let (gone, kept) = all.into_iter().partition(|(id, device)| choose(id, device));
        self.devices = gone;
        self.fire(|_, window| window.firings == 0);
        self.devices = kept;
    }

    fn message(&mut self, message: &ModelMessage, redelivered: bool, delivery: ModelDelivery) {
        let watermarks: BTreeMap<_, _> = self.devices.iter().map(|(&id, device)| (id, device.watermark_ms)).collect();
        let mut index = 0;
        let mut accepted = false;
        for number in 0..message.elements.len() {
            let readings = message.elements[number].readings.len() as u32;
            if delivery.replay.is_none_or(|(_, wanted, ..)| (index..index + readings).contains(&wanted)) {
                accepted |= self.element(message, number, redelivered, delivery, &watermarks, index);
            }
            index += readings;
        }
        let (bound_ms, cap_ms) = (self.settings.out_of_orderness_ms, self.cap_ms());
        let after = |newest: Option<i64>| newest.map(|newest| (newest - bound_ms - 1).min(cap_ms));
        if self.is_global() && accepted {
            self.watermark_ms = self.watermark_ms.max(after(self.newest_ms));
        }
        for device in self.devices.values_mut() {
            device.watermark_ms = device.watermark_ms.max(after(device.newest_ms));
        }
        self.fire_due();
    }

    fn check_redelivery(&mut self, message: &ModelMessage) -> bool {
        let with_seq = message.elements.iter().filter(|element| seq(&self.settings, element).is_some()).count();
        let numbered = if self.settings.has_field_rules() { with_seq == message.elements.len() } else { with_seq > 0 };
        if !self.settings.dedup || numbered {
            return false;
        }
        let identity = (message.packet_id, message.payload());
        if let Some((_, recent)) = self.clients.get_mut(&(message.user, message.client))
            && message.dup
            && recent.messages.contains(&identity)
        {
            recent.period_ms = Some(self.arrival_ms);
            recent.counts.1 = recent.counts.1.max(recent.messages.len());
            return true;
        }
        let count = self.clients.len();
        if !self.clients.contains_key(&(message.user, message.client)) && count >= self.settings.max_devices.max(1) {
            let mut by_age: Vec<_> = self.clients.iter().map(|(&id, &(lsn, _))| (lsn, id)).collect();
            by_age.sort();
            by_age.iter().take(count.div_ceil(2)).for_each(|(_, id)| drop(self.clients.remove(id)));
        }
        let (last, recent) = self.clients.entry((message.user, message.client)).or_default();
        *last = self.lsn;
        if recent.period_ms.is_none_or(|period_ms| self.arrival_ms - period_ms >= 10_000) {
            recent.period_ms = Some(self.arrival_ms);
            recent.counts = (0, recent.counts.0);
        }
        recent.counts.0 += 1;
        recent.messages.push_back(identity);
        while recent.messages.len() > 64.max(recent.counts.0 + recent.counts.1) {
            recent.messages.pop_front();
        }
        false
    }

    /// Whether a reading was accepted.
    fn element(
        &mut self,
        message: &ModelMessage,
        number: usize,
        redelivered: bool,
        delivery: ModelDelivery,
        watermarks: &BTreeMap<&str, Option<i64>>,
        first_index: u32,
    ) -> bool {
        let element = &message.elements[number];
        let time_ms = element.time_ms.unwrap_or(delivery.first_arrival_ms);
        let (max_future_ms, max_age_ms) = (self.settings.max_future_ms.unwrap(), self.settings.max_age_ms.unwrap());
        let time_problem = if time_ms > self.arrival_ms + max_future_ms {
            Some("timestamp_in_future")
        } else if element.time_ms.is_some() && time_ms < delivery.first_arrival_ms - max_age_ms {
            Some("timestamp_too_old")
        } else {
            None
        };
        let own = || self.devices.values().filter(|device| device.user == message.user);
        let new = own().filter(|device| self.arrival_ms - device.first_seen_ms < 3_600_000);
        let room = self.devices.len() < self.settings.max_devices
            && self.settings.max_devices_per_user.is_none_or(|limit| own().count() < limit)
            && self.settings.max_new_devices_per_hour.is_none_or(|limit| new.count() < limit);
        if room && !self.devices.contains_key(element.device) {
            let device = ModelDevice { user: message.user, first_seen_ms: self.arrival_ms, ..ModelDevice::default() };
            self.devices.insert(element.device, device);
        }
        let own_ms = watermarks.get(element.device).copied().flatten();
        let watermark_ms = if self.is_global() { self.watermark_ms } else { own_ms };
        let mut objection = (redelivered && seq(&self.settings, element).is_none()).then_some("duplicate");
        let (now_ms, bits, by_numbers) =
            (self.arrival_ms, self.settings.sequence_bits, !self.settings.has_field_rules());
        // Without a state of the device the number is not looked at. Rules 0 take that for a reading that counts.
        let mut numbered = by_numbers;
        if let Some(device) = self.devices.get_mut(element.device) {
            device.last_arrival_ms = self.arrival_ms;
            device.last_awake_ms = self.arrival_ms - self.paused_ms;
            self.last_arrival_ms = self.arrival_ms;
            let valid = time_problem.is_none();
            match delivery.replay {
                _ if !self.settings.dedup => {}
                None if by_numbers => {
                    let duplicate = deduplicate_by_numbers(device, element, time_ms, valid, message.dup);
                    objection = objection.or(duplicate.then_some("duplicate"));
                }
                None => {
                    let judged = deduplicate(device, element, time_ms, valid, message.dup, now_ms, bits);
                    objection = objection.or(judged);
                }
                Some((_, _, unseen, origin)) => {
                    let own = !unseen || self.resumed.contains(&origin);
                    objection = if by_numbers {
                        let duplicate = deduplicate_replayed_by_numbers(device, element, time_ms, valid, own);
                        duplicate.then_some("duplicate")
                    } else {
                        let again = unseen && !own && self.undecided.contains(&origin);
                        let same_boot =
                            element.boot.is_none() || device.boot.is_none_or(|boot| Some(boot) == element.boot);
                        numbered = same_boot && element.seq.is_some_and(|seq| seq <= bits.largest());
                        if again && numbered {
                            device.boot = element.boot.or(device.boot);
                            Some("seq_repeated")
                        } else {
                            deduplicate_replayed(device, element, time_ms, valid, own, now_ms, bits)
                        }
                    };
                }
            }
        }
        let is_new = !self.devices.contains_key(element.device);
        // Under rules 0 the rejection of a replay is an error of its own.
        let (unseen, origin) = match delivery.replay {
            Some((_, _, unseen, origin)) if !by_numbers => (unseen && is_new, origin),
            replay => (replay.is_none() && is_new, (self.lsn, number)),
        };
        if let Some((_, _, unseen, origin)) = delivery.replay
            && numbered
            && (unseen || by_numbers)
        {
            match objection {
                None => drop(self.resumed.insert(origin)),
                Some("seq_repeated") => drop(self.undecided.insert(origin)),
                Some(_) => {}
            }
        }
        let mut any = false;
        for (index, &(metric, value)) in (first_index..).zip(&element.readings) {
            if delivery.replay.is_some_and(|(_, wanted, ..)| wanted != index) {
                continue;
            }
            let problem = time_problem.or(objection);
            let outcome = problem.map_or_else(|| self.place(element.device, metric, time_ms, value, watermark_ms), Err);
            match outcome {
                Ok(()) => any = true,
                Err(reason) => {
                    let replay_of = delivery.replay.map_or("-".into(), |(seq, ..)| seq.to_string());
                    let (device, position) = (element.device, self.lsn);
                    self.effects.push(format!("{reason} {device}/{metric} {position} {index} {replay_of}"));
                    let unseen = unseen && (!by_numbers || reason == "too_many_devices");
                    let (message, first_arrival_ms) = (message.clone(), delivery.first_arrival_ms);
                    let element = origin;
                    self.stored.push(ModelError { message, index, position, first_arrival_ms, unseen, element });
                }
            }
        }
        any
    }

    fn place(
        &mut self,
        id: &'static str,
        metric: &'static str,
        time_ms: i64,
        value: i32,
        watermark_ms: Option<i64>,
    ) -> Result<(), &'static str> {
        let settings = &self.settings;
        let device = self.devices.get_mut(id).ok_or("too_many_devices")?;
        if !device.metrics.contains(metric) && device.metrics.len() >= settings.max_metrics_per_device {
            return Err("too_many_metrics");
        }
        let end_ms = (time_ms.div_euclid(settings.window_ms) + 1) * settings.window_ms;
        if watermark_ms.is_some_and(|watermark| end_ms - 1 + settings.allowed_lateness_ms <= watermark) {
            return Err("late");
        }
        device.metrics.insert(metric);
        let window = device.windows.entry((end_ms, metric)).or_default();
        window.readings.push((time_ms, value));
        window.touched |= watermark_ms.is_some_and(|watermark| end_ms - 1 <= watermark);
        device.newest_ms = device.newest_ms.max(Some(time_ms));
        self.newest_ms = self.newest_ms.max(Some(time_ms));
        Ok(())
    }
}

/// Properties of a window by which [`Model::fire`] may choose.
struct Candidate {
    end_ms: i64,
    firings: u32,
    touched: bool,
}

/// The number of an element; a number beyond the width of the counters is none.
fn seq(settings: &Settings, element: &ModelElement) -> Option<u64> {
    let largest = if settings.has_field_rules() { settings.sequence_bits.largest() } else { u64::MAX };
    element.seq.filter(|&seq| seq <= largest)
}

/// Judges an element by its number.
fn deduplicate(
    device: &mut ModelDevice,
    element: &ModelElement,
    time_ms: i64,
    valid: bool,
    dup: bool,
    now_ms: i64,
    bits: SequenceBits,
) -> ModelObjection {
    let other_boot = element.boot.is_some() && device.boot.is_some() && device.boot != element.boot;
    let boot = element.boot.or(device.boot);
    let Some(seq) = element.seq.filter(|&seq| seq <= bits.largest()) else {
        if other_boot {
            device.numbers.restart();
        }
        device.boot = boot;
        return None;
    };
    let stated = element.time_ms.is_some();
    let numbered = ModelNumbered {
        reading: (seq, element.json()),
        dated: dup || stated || !valid,
        newer: valid && device.newest_seen_ms.is_none_or(|newest| time_ms > newest) && (stated || !dup),
        valid,
    };
    if valid {
        device.newest_seen_ms = device.newest_seen_ms.max(Some(time_ms));
    }
    let objection = device.numbers.judge(&numbered, other_boot, now_ms, bits);
    if objection.is_none() || !other_boot {
        device.boot = boot;
    }
    objection
}

/// Judges a replayed element by its number.
fn deduplicate_replayed(
    device: &mut ModelDevice,
    element: &ModelElement,
    time_ms: i64,
    valid: bool,
    own: bool,
    now_ms: i64,
    bits: SequenceBits,
) -> ModelObjection {
    if let Some(boot) = element.boot
        && *device.boot.get_or_insert(boot) != boot
    {
        return None;
    }
    let reading = (element.seq.filter(|&seq| seq <= bits.largest())?, element.json());
    let stated = element.time_ms.is_some();
    let newer = valid && stated && device.newest_seen_ms.is_none_or(|newest| time_ms > newest);
    if valid {
        device.newest_seen_ms = device.newest_seen_ms.max(Some(time_ms));
    }
    device.numbers.judge_replayed(&ModelNumbered { reading, dated: true, newer, valid }, own, now_ms, bits)
}

/// Deduplicates a replayed reading under rules 0. Its `seq` does not count where it was remembered for the same message.
fn deduplicate_replayed_by_numbers(
    device: &mut ModelDevice,
    element: &ModelElement,
    time_ms: i64,
    valid: bool,
    remembered: bool,
) -> bool {
    if let Some(boot) = element.boot
        && *device.boot.get_or_insert(boot) != boot
    {
        return false;
    }
    let Some(seq) = element.seq else { return false };
    let newer = valid && element.time_ms.is_some() && device.newest_seen_ms.is_none_or(|newest| time_ms > newest);
    if valid {
        device.newest_seen_ms = device.newest_seen_ms.max(Some(time_ms));
    }
    !device.seqs.insert(seq) && !remembered && !newer
}

/// Deduplicates a reading under rules 0.
fn deduplicate_by_numbers(
    device: &mut ModelDevice,
    element: &ModelElement,
    time_ms: i64,
    valid: bool,
    dup: bool,
) -> bool {
    if let Some(boot) = element.boot {
        if device.boot.is_some_and(|before| before != boot) {
            device.seqs.clear();
        }
        device.boot = Some(boot);
    }
    let Some(seq) = element.seq else { return false };
    let newer = valid && device.newest_seen_ms.is_none_or(|newest| time_ms > newest);
    if valid {
        device.newest_seen_ms = device.newest_seen_ms.max(Some(time_ms));
    }
    if device.seqs.insert(seq) {
        return false;
    }
    // The arrival time of a redelivered message does not tell a restart.
    if newer && (element.time_ms.is_some() || !dup) {
        device.seqs = [seq].into();
        return false;
    }
    true
}
