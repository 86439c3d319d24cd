//! The fields of one object of a message.

use std::borrow::Cow;

use crate::core::json::{JsonScanner, JsonSyntaxError, JsonToken};
use crate::core::timestamp;

/// One entry of a `metrics` object.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::core) struct MetricEntry<'a> {
    /// Metric name.
    pub metric: Cow<'a, str>,
    /// Value of the metric, not checked yet.
    pub value: JsonToken<'a>,
}

/// The `metrics` field.
#[derive(Debug, Clone, PartialEq, Default)]
pub(in crate::core) enum MetricsField {
    /// The field is absent or `null`.
    #[default]
    Absent,
    /// The field holds something else than an object.
    NotAnObject(&'static str),
    /// The field is an object. Its entries are this range of `DecodedMessage::entries`.
    Entries(std::ops::Range<usize>),
}

/// Fields in which devices state the time, besides `timestamp` itself, in whatever case. The first that states one counts.
const TIME_FIELDS: [&str; 3] = ["timestamp", "ts", "time"];

/// The fields of one object. Unknown fields are left out; of equal keys the last counts.
#[derive(Debug, Clone, PartialEq, Default)]
pub(in crate::core) struct ElementFields<'a> {
    /// The field `device_id`.
    pub device_id: JsonToken<'a>,
    /// The field `metric`.
    pub metric: JsonToken<'a>,
    /// The field `value`.
    pub value: JsonToken<'a>,
    /// The field `timestamp`.
    pub timestamp: JsonToken<'a>,
    /// The field that states the time where `timestamp` states none, or one that looks like no time; a strict scanner leaves
    /// it absent.
    pub other_time: JsonToken<'a>,
    /// Number of [`TIME_FIELDS`] from that of `other_time` on; 0 where `other_time` looks like no time.
    other_time_precedence: usize,
    /// The field `seq`.
    pub seq: JsonToken<'a>,
    /// The field `boot`.
    pub boot: JsonToken<'a>,
    /// The field `metrics`.
    pub metrics: MetricsField,
    /// The field `error`: a string, or the JSON text of something else; `None` where it is absent, `null`, `NaN` or `false`.
    pub error: Option<Cow<'a, str>>,
}

impl<'a> ElementFields<'a> {
    /// Reads one object. `depth` is the number of containers that are open around it.
    pub(super) fn read(
        &mut self,
        scanner: &mut JsonScanner<'a>,
        depth: u32,
        entries: &mut Vec<MetricEntry<'a>>,
        max_readings: usize,
    ) -> Result<(), JsonSyntaxError> {
        let inner = depth + 1;
        scanner.object(|scanner| {
            // Nearly all keys are one of these, and written exactly like this.
            let next = scanner.next_eight();
            let field = if scanner.eat_key(next, b"\"device_id\":") {
                &mut self.device_id
            } else if scanner.eat_key(next, b"\"metric\":") {
                &mut self.metric
            } else if scanner.eat_key(next, b"\"value\":") {
                &mut self.value
            } else if scanner.eat_key(next, b"\"timestamp\":") {
                &mut self.timestamp
            } else if scanner.eat_key(next, b"\"seq\":") {
                &mut self.seq
            } else {
                match scanner.key()?.as_ref() {
                    "device_id" => &mut self.device_id,
                    "metric" => &mut self.metric,
                    "value" => &mut self.value,
                    "timestamp" => &mut self.timestamp,
                    "seq" => &mut self.seq,
                    "boot" => &mut self.boot,
                    "metrics" => {
                        self.drop_metrics(entries, scanner.is_lenient());
                        self.metrics = metrics(entries, scanner, inner, max_readings)?;
                        return Ok(());
                    }
                    "error" => {
                        self.error = fault(scanner, inner)?;
                        return Ok(());
                    }
                    key => match TIME_FIELDS.iter().position(|field| field.eq_ignore_ascii_case(key)) {
                        Some(rank) if scanner.is_lenient() => {
                            let time = scanner.value(inner)?;
                            self.note_time(rank, time);
                            return Ok(());
                        }
                        _ => return scanner.skip(inner),
                    },
                }
            };
            scanner.value_into(field, inner)
        })
    }

    /// An element with several metrics.
    pub fn of_metrics(
        device_id: JsonToken<'a>,
        timestamp: JsonToken<'a>,
        seq: JsonToken<'a>,
        boot: JsonToken<'a>,
        entries: std::ops::Range<usize>,
    ) -> Self {
        Self { device_id, timestamp, seq, boot, metrics: MetricsField::Entries(entries), ..Self::default() }
    }

    /// Number of indexes that the element takes among the readings of its message: one per metric in the form with
    /// `metrics`, else one.
    pub fn indexes(&self, is_fault: bool) -> u32 {
        match &self.metrics {
            MetricsField::Entries(range) if !is_fault && self.metric.is_none() && self.value.is_none() => {
                u32::try_from(range.len()).unwrap_or(u32::MAX).max(1)
            }
            _ => 1,
        }
    }

    /// Keeps the time of a field of [`TIME_FIELDS`] unless one that goes before it states the time. What looks like no time
    /// hides none.
    fn note_time(&mut self, rank: usize, time: JsonToken<'a>) {
        let precedence = if timestamp::looks_like_time(&time) { TIME_FIELDS.len() - rank } else { 0 };
        if precedence >= self.other_time_precedence {
            (self.other_time, self.other_time_precedence) = (time, precedence);
        }
    }

    /// What states the time where `timestamp` states none.
    pub fn stated_other_time(&self) -> Option<&JsonToken<'a>> {
        (self.other_time_precedence > 0).then_some(&self.other_time)
    }

    /// Drops the entries of a field `metrics` that comes again. A strict scanner keeps them, and counts them among the readings
    /// of the message.
    fn drop_metrics(&mut self, entries: &mut Vec<MetricEntry<'a>>, lenient: bool) {
        if let MetricsField::Entries(range) = &self.metrics
            && lenient
        {
            entries.truncate(range.start);
        }
    }

    /// Whether the element has a reading, whatever else it has.
    pub fn has_reading(&self) -> bool {
        match &self.metrics {
            MetricsField::Entries(range) if !range.is_empty() => true,
            _ => !self.metric.is_none() && self.value != JsonToken::Absent,
        }
    }

    /// Number of readings in the element. `error_beside` says whether readings beside an `error` count.
    pub(super) fn count(&self, error_beside: bool) -> usize {
        match &self.metrics {
            MetricsField::Entries(range) if error_beside || self.error.is_none() => range.len().max(1),
            _ => 1,
        }
    }

    /// Forgets all fields.
    pub(super) fn clear(&mut self) {
        let Self { device_id, metric, value, timestamp, other_time, other_time_precedence, seq, boot, metrics, error } =
            self;
        for token in [device_id, metric, value, timestamp, other_time, seq, boot] {
            token.replace(JsonToken::Absent);
        }
        *other_time_precedence = 0;
        *metrics = MetricsField::Absent;
        *error = None;
    }
}

/// Reads the `metrics` field and appends its entries.
fn metrics<'a>(
    entries: &mut Vec<MetricEntry<'a>>,
    scanner: &mut JsonScanner<'a>,
    depth: u32,
    max_readings: usize,
) -> Result<MetricsField, JsonSyntaxError> {
    if scanner.peek() != Some(b'{') {
        let token = scanner.value(depth)?;
        return Ok(if token.is_none() { MetricsField::Absent } else { MetricsField::NotAnObject(token.kind()) });
    }
    let start = entries.len();
    let mut is_full = false;
    scanner.object(|scanner| {
        let metric = scanner.key()?;
        let value = scanner.value(depth + 1)?;
        if entries.len() > max_readings {
            is_full = is_full || !has_room(entries, start, max_readings, scanner.is_lenient());
        }
        if !is_full {
            entries.push(MetricEntry { metric, value });
        }
        Ok(())
    })?;
    drop_overwritten(entries, start);
    Ok(MetricsField::Entries(start..entries.len()))
}

/// Whether one more entry is kept, where there are more than `max_readings`. Some may be overwritten ones: they are removed
/// once there are twice as many, so that a metric that comes again and again hides no other one. Where more than
/// `max_readings` stay, the message has too many. A strict scanner removes none, so that a metric may be missing.
#[cold]
fn has_room(entries: &mut Vec<MetricEntry<'_>>, start: usize, max_readings: usize, lenient: bool) -> bool {
    if lenient && entries.len() > max_readings.saturating_mul(2) {
        drop_overwritten(entries, start);
        return entries.len() <= max_readings;
    }
    lenient
}

fn fault<'a>(scanner: &mut JsonScanner<'a>, depth: u32) -> Result<Option<Cow<'a, str>>, JsonSyntaxError> {
    scanner.peek();
    let start = scanner.position();
    Ok(match scanner.value(depth)? {
        JsonToken::Absent | JsonToken::Null | JsonToken::BareWord | JsonToken::Bool(false) => None,
        JsonToken::Text(text) => Some(text),
        _ => Some(Cow::Borrowed(scanner.text_since(start))),
    })
}

/// Removes entries from `start` on whose metric comes again behind them: of equal keys the last counts.
fn drop_overwritten(entries: &mut Vec<MetricEntry<'_>>, start: usize) {
    let Some(new) = entries.get(start..) else { return };
    // Nearly every message has a few metrics, all different.
    let distinct = match new.len() {
        0 | 1 => true,
        2..=8 => new.iter().enumerate().all(|(i, a)| new.iter().skip(i + 1).all(|b| a.metric != b.metric)),
        _ => false,
    };
    if distinct {
        return;
    }
    let mut order: Vec<usize> = (0..new.len()).collect();
    order.sort_by(|&a, &b| new.get(a).map(|e| &e.metric).cmp(&new.get(b).map(|e| &e.metric)).then(a.cmp(&b)));
    let mut overwritten = vec![false; new.len()];
    for pair in order.windows(2) {
        if let [a, b] = *pair
            && new.get(a).map(|e| &e.metric) == new.get(b).map(|e| &e.metric)
            && let Some(flag) = overwritten.get_mut(a)
        {
            *flag = true;
        }
    }
    let mut index = 0;
    entries.retain(|_| {
        let keep = index < start || !overwritten.get(index - start).copied().unwrap_or(false);
        index += 1;
        keep
    });
}
