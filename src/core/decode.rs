//! Decodes a payload into its elements. Whether a field has a valid value is not checked here but in `validate`.

use std::borrow::Cow;
use std::fmt;

use crate::core::json::{JsonScanner, JsonSyntaxError, JsonToken};

/// Why a message as a whole is `malformed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MalformedMessage {
    /// The payload is not UTF-8; it is valid up to this byte offset.
    NotUtf8(usize),
    /// The payload is not JSON.
    Syntax(JsonSyntaxError),
    /// The JSON is neither an object nor an array, but this.
    NotAForm(&'static str),
    /// The JSON is an array without elements.
    EmptyArray,
    /// The message has more readings than this, `ingest.max_readings_per_message`.
    TooManyReadings(usize),
}

impl fmt::Display for MalformedMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotUtf8(at) => write!(f, "the payload is not UTF-8 at byte {at}; send JSON text"),
            Self::Syntax(JsonSyntaxError { what, at }) => {
                write!(f, "the payload is not valid JSON at byte {at}: {what}")
            }
            Self::NotAForm(kind) => {
                write!(f, "the payload is {kind}; send an object with a reading, or an array of such objects")
            }
            Self::EmptyArray => f.write_str("the payload is an array without readings"),
            Self::TooManyReadings(max) => write!(
                f,
                "the message has more than {max} readings (ingest.max_readings_per_message); send several messages"
            ),
        }
    }
}

impl From<JsonSyntaxError> for MalformedMessage {
    fn from(syntax: JsonSyntaxError) -> Self {
        Self::Syntax(syntax)
    }
}

/// One entry of a `metrics` object.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct MetricEntry<'a> {
    /// Metric name.
    pub metric: Cow<'a, str>,
    /// Value of the metric, not checked yet.
    pub value: JsonToken<'a>,
}

/// The `metrics` field.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) enum MetricsField {
    /// The field is absent or `null`.
    #[default]
    Absent,
    /// The field holds something else than an object.
    NotAnObject(&'static str),
    /// The field is an object. Its entries are this range of [`DecodedMessage::entries`].
    Entries(std::ops::Range<usize>),
}

/// The fields of one object. Unknown fields are left out; of equal keys the last counts.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct ElementFields<'a> {
    /// The field `device_id`.
    pub device_id: JsonToken<'a>,
    /// The field `metric`.
    pub metric: JsonToken<'a>,
    /// The field `value`.
    pub value: JsonToken<'a>,
    /// The field `timestamp`.
    pub timestamp: JsonToken<'a>,
    /// The field `seq`.
    pub seq: JsonToken<'a>,
    /// The field `boot`.
    pub boot: JsonToken<'a>,
    /// The field `metrics`.
    pub metrics: MetricsField,
    /// The field `error`: a string, or the JSON text of something else; `None` where it is absent, `null` or `false`.
    pub error: Option<Cow<'a, str>>,
}

/// One element of an array.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "nearly all elements are objects")]
pub(super) enum MessageElement<'a> {
    /// An object.
    Object(ElementFields<'a>),
    /// Something else, which is no reading.
    Other(&'static str),
}

/// A decoded message. Its vectors are reused from message to message.
#[derive(Debug, Default)]
pub(super) struct DecodedMessage<'a> {
    /// The object of a message that is no array. It is filled in place, because moving it would cost more than reading
    /// it.
    single: ElementFields<'a>,
    is_single: bool,
    /// Elements of a message that is an array.
    pub elements: Vec<MessageElement<'a>>,
    /// Entries of all `metrics` objects.
    pub entries: Vec<MetricEntry<'a>>,
}

impl<'a> DecodedMessage<'a> {
    /// Decodes `payload` in the place of the message before.
    pub fn decode(&mut self, payload: &'a [u8], max_readings: usize) -> Result<(), MalformedMessage> {
        self.elements.clear();
        self.entries.clear();
        self.single.clear();
        let text = std::str::from_utf8(payload).map_err(|error| MalformedMessage::NotUtf8(error.valid_up_to()))?;
        let mut scanner = JsonScanner::new(text);
        let first = scanner.peek();
        self.is_single = first == Some(b'{');
        match first {
            Some(b'{') => self.single.read(&mut scanner, 0, &mut self.entries, max_readings)?,
            Some(b'[') => scanner.array(|scanner| self.element(scanner, max_readings))?,
            _ => {
                let kind = scanner.value(0)?.kind();
                scanner.end()?;
                return Err(MalformedMessage::NotAForm(kind));
            }
        }
        scanner.end()?;
        self.check_count(max_readings)
    }

    /// Refuses a message without readings or with too many. Decoding keeps at most one element and one entry beyond the
    /// limit, which is enough to see it.
    fn check_count(&self, max_readings: usize) -> Result<(), MalformedMessage> {
        let count = if self.is_single {
            self.single.count()
        } else {
            let counts = self.elements.iter().map(|element| match element {
                MessageElement::Object(fields) => fields.count(),
                MessageElement::Other(_) => 1,
            });
            counts.sum()
        };
        match count {
            0 => Err(MalformedMessage::EmptyArray),
            _ if count.max(self.entries.len()) > max_readings => Err(MalformedMessage::TooManyReadings(max_readings)),
            _ => Ok(()),
        }
    }

    /// The object, where the message is one.
    pub fn single(&self) -> Option<&ElementFields<'a>> {
        self.is_single.then_some(&self.single)
    }

    /// Number of readings, at most.
    pub fn max_readings(&self) -> u32 {
        u32::try_from(1 + self.elements.len() + self.entries.len()).unwrap_or(u32::MAX)
    }

    /// Whether any element carries a `seq` field.
    pub fn has_sequence(&self) -> bool {
        !self.single.seq.is_none()
            || self
                .elements
                .iter()
                .any(|element| matches!(element, MessageElement::Object(fields) if !fields.seq.is_none()))
    }

    /// Whether all elements that can be readings have a sequence number, by the check of their `seq` field.
    pub fn all_have_sequence(&self, is_number: impl Fn(&JsonToken<'a>) -> bool) -> bool {
        let mut others = self.elements.iter().filter_map(|element| match element {
            MessageElement::Object(fields) => Some(fields),
            MessageElement::Other(_) => None,
        });
        self.single().is_none_or(|fields| is_number(&fields.seq)) && others.all(|fields| is_number(&fields.seq))
    }

    /// Reads one element of an array.
    fn element(&mut self, scanner: &mut JsonScanner<'a>, max_readings: usize) -> Result<(), JsonSyntaxError> {
        let element = match scanner.peek() {
            Some(b'{') => {
                let mut fields = ElementFields::default();
                fields.read(scanner, 1, &mut self.entries, max_readings)?;
                MessageElement::Object(fields)
            }
            _ => MessageElement::Other(scanner.value(1)?.kind()),
        };
        if self.elements.len() <= max_readings {
            self.elements.push(element);
        }
        Ok(())
    }
}

impl<'a> ElementFields<'a> {
    /// Reads one object. `depth` is the number of containers that are open around it.
    fn read(
        &mut self,
        scanner: &mut JsonScanner<'a>,
        depth: u32,
        entries: &mut Vec<MetricEntry<'a>>,
        max_readings: usize,
    ) -> Result<(), JsonSyntaxError> {
        let inner = depth + 1;
        scanner.object(|scanner| {
            // Nearly all keys are one of these, and written exactly like this.
            let field = if scanner.eat_key(b"\"device_id\":") {
                &mut self.device_id
            } else if scanner.eat_key(b"\"metric\":") {
                &mut self.metric
            } else if scanner.eat_key(b"\"value\":") {
                &mut self.value
            } else if scanner.eat_key(b"\"timestamp\":") {
                &mut self.timestamp
            } else if scanner.eat_key(b"\"seq\":") {
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
                        self.metrics = metrics(entries, scanner, inner, max_readings)?;
                        return Ok(());
                    }
                    "error" => {
                        self.error = fault(scanner, inner)?;
                        return Ok(());
                    }
                    _ => return scanner.skip(inner),
                }
            };
            scanner.value_into(field, inner)
        })
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

    /// Number of readings in the element.
    fn count(&self) -> usize {
        match &self.metrics {
            MetricsField::Entries(range) if self.error.is_none() => range.len().max(1),
            _ => 1,
        }
    }

    /// Forgets all fields.
    fn clear(&mut self) {
        let Self { device_id, metric, value, timestamp, seq, boot, metrics, error } = self;
        for token in [device_id, metric, value, timestamp, seq, boot] {
            *token = JsonToken::Absent;
        }
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
    scanner.object(|scanner| {
        let metric = scanner.key()?;
        let value = scanner.value(depth + 1)?;
        if entries.len() <= max_readings {
            entries.push(MetricEntry { metric, value });
        }
        Ok(())
    })?;
    drop_overwritten(entries, start);
    Ok(MetricsField::Entries(start..entries.len()))
}

fn fault<'a>(scanner: &mut JsonScanner<'a>, depth: u32) -> Result<Option<Cow<'a, str>>, JsonSyntaxError> {
    scanner.peek();
    let start = scanner.position();
    Ok(match scanner.value(depth)? {
        JsonToken::Absent | JsonToken::Null | JsonToken::Bool(false) => None,
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(payload: &[u8]) -> Result<DecodedMessage<'_>, MalformedMessage> {
        let mut message = DecodedMessage::default();
        message.decode(payload, 4).map(|()| message)
    }

    fn fields(payload: &str) -> ElementFields<'_> {
        decode(payload.as_bytes()).unwrap().single().unwrap().clone()
    }

    fn number(token: &JsonToken<'_>) -> f64 {
        match token {
            JsonToken::Number(number) => number.to_f64(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_forms() {
        let fields =
            fields(r#"{"device_id":"a","metric":"m","value":1.5,"timestamp":"x","seq":7,"boot":2,"other":[{}]}"#);
        assert_eq!(fields.device_id, JsonToken::Text("a".into()));
        assert_eq!(fields.metric, JsonToken::Text("m".into()));
        assert_eq!(number(&fields.value), 1.5);
        assert_eq!(fields.timestamp, JsonToken::Text("x".into()));
        assert_eq!(number(&fields.seq), 7.0);
        assert_eq!(number(&fields.boot), 2.0);
        assert_eq!((fields.metrics, fields.error), (MetricsField::Absent, None));
        let message = decode(br#"[{"metrics":{"a":1,"b":true}},{"value":3},4]"#).unwrap();
        assert_eq!(message.elements.len(), 3);
        assert_eq!(message.entries.len(), 2);
        assert_eq!(message.elements[2], MessageElement::Other("a number"));
    }

    #[test]
    fn the_last_of_equal_keys_counts() {
        assert_eq!(number(&fields(r#"{"value":"x","value":2}"#).value), 2.0);
        let message = decode(br#"{"metrics":{"a":1,"b":2,"a":3}}"#).unwrap();
        let seen: Vec<_> = message.entries.iter().map(|e| (e.metric.as_ref(), number(&e.value))).collect();
        assert_eq!(seen, [("b", 2.0), ("a", 3.0)]);
        assert_eq!(fields(r#"{"metrics":{"a":1},"metrics":null}"#).metrics, MetricsField::Absent);
        assert_eq!(fields(r#"{"error":"x","error":null}"#).error, None);
    }

    #[test]
    fn overwriting_among_many_entries() {
        let mut message = DecodedMessage::default();
        message.decode(br#"{"metrics":{"a":1,"b":2,"c":3,"d":4,"e":5,"f":6,"g":7,"h":8,"i":9,"c":10}}"#, 20).unwrap();
        let names: String = message.entries.iter().map(|e| e.metric.as_ref()).collect();
        assert_eq!(names, "abdefghic");
    }

    #[test]
    fn faults() {
        assert_eq!(fields(r#"{"error":"E42"}"#).error.as_deref(), Some("E42"));
        assert_eq!(fields(r#"{"error": {"code": 7} }"#).error.as_deref(), Some(r#"{"code": 7}"#));
        assert_eq!(fields(r#"{"error":17}"#).error.as_deref(), Some("17"));
        assert_eq!(fields(r#"{"error":null,"value":1}"#).error, None);
        assert_eq!(fields(r#"{"error":false,"value":1}"#).error, None);
    }

    #[test]
    fn malformed_messages() {
        let check = |payload: &[u8], expected: &str| {
            assert_eq!(decode(payload).unwrap_err().to_string(), expected);
        };
        check(b"\xff", "the payload is not UTF-8 at byte 0; send JSON text");
        check(b"", "the payload is not valid JSON at byte 0: the text ends where a JSON value is expected");
        check(b"{} x", "the payload is not valid JSON at byte 3: nothing may follow the JSON value");
        check(b"42", "the payload is a number; send an object with a reading, or an array of such objects");
        check(b"[]", "the payload is an array without readings");
        let too_many = "the message has more than 4 readings (ingest.max_readings_per_message); send several messages";
        check(b"[{},{},{},{},{}]", too_many);
        check(br#"{"metrics":{"a":1,"b":2,"c":3,"d":4,"e":5}}"#, too_many);
        check(br#"[{"metrics":{"a":1,"b":2,"c":3}},{"metrics":{"a":1,"b":2}}]"#, too_many);
        assert!(decode(br#"[{"metrics":{"a":1,"b":2,"c":3}},{}]"#).is_ok());
    }

    /// A scalar as `serde_json` sees it.
    fn scalar(token: &JsonToken<'_>) -> serde_json::Value {
        match token {
            JsonToken::Absent => "absent".into(),
            JsonToken::Null => serde_json::Value::Null,
            JsonToken::Bool(value) => (*value).into(),
            JsonToken::Number(number) => number.to_f64().into(),
            JsonToken::Text(text) => text.as_ref().into(),
            JsonToken::Array => serde_json::json!([]),
            JsonToken::Object => serde_json::json!({}),
        }
    }

    fn any_scalar() -> impl Strategy<Value = serde_json::Value> {
        prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            (-1e9f64..1e9).prop_map(Into::into),
            "[ -~äß\\n]{0,20}".prop_map(Into::into),
        ]
    }

    proptest! {
        /// Keys that are compared as a whole and keys that are scanned mean the same, and the last of equal ones counts.
        #[test]
        fn agrees_with_serde_json(
            members in prop::collection::vec(
                (prop::sample::select(vec!["device_id", "metric", "value", "timestamp", "seq", "boot", "x"]), any_scalar()),
                0..10,
            ),
            spaces in prop::sample::select(vec![("", ""), ("", " "), (" ", ""), ("\n", "\t")]),
        ) {
            let texts: Vec<_> = members
                .iter()
                .map(|(key, value)| format!("{}{key:?}{}:{}{value}", spaces.1, spaces.0, spaces.1))
                .collect();
            let text = format!("{}{{{}}}", spaces.0, texts.join(","));
            let expected: serde_json::Value = serde_json::from_str(&text).unwrap();
            let fields = fields(&text);
            for (key, token) in [
                ("device_id", &fields.device_id),
                ("metric", &fields.metric),
                ("value", &fields.value),
                ("timestamp", &fields.timestamp),
                ("seq", &fields.seq),
                ("boot", &fields.boot),
            ] {
                let expected = expected.get(key).cloned().unwrap_or("absent".into());
                prop_assert_eq!(scalar(token), expected, "{} of {}", key, text);
            }
        }
    }

    #[test]
    fn depth_counts_from_the_outside() {
        let nested = |levels: usize| format!(r#"[{{"x":{}{}}}]"#, "[".repeat(levels), "]".repeat(levels));
        assert!(decode(nested(6).as_bytes()).is_ok());
        assert!(matches!(decode(nested(7).as_bytes()), Err(MalformedMessage::Syntax(_))));
    }
}
