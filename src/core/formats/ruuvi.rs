//! Data of Ruuvi sensors in the JSON of a Ruuvi Gateway: `data` is a Bluetooth advertisement in hex, with a frame in data
//! format 3, 5, 6, or C5 in it. Values that a frame says are not available are absent.

use std::borrow::Cow;
use std::rc::Rc;

use crate::core::formats::{Sample, SampleNames, SampleValue};
use crate::core::json::{JsonScanner, JsonToken};

/// Longest advertisement, extended ones included.
const MAX_ADVERTISEMENT: usize = 255;
/// Kind of the part of an advertisement that is the manufacturer's.
const MANUFACTURER_DATA: u8 = 0xff;
/// Number of Ruuvi Innovations among the manufacturers.
const RUUVI: [u8; 2] = [0x99, 0x04];

/// The values in a message of a gateway, in the order of the frame, and `rssi`. The time of the message is `SampleTime::None`:
/// it stands in the JSON, where the paths of the map find it. A frame of another manufacturer is one sample `data` that
/// is no reading. Format 6 has no sequence number here, because it has 8 bits and the others 16.
///
/// # Errors
/// What is no JSON object with an advertisement in `data`, or a frame that is cut short.
pub(in crate::core) fn decode(text: &str) -> Result<Vec<Sample<'_>>, String> {
    let (data, rssi) = fields(text)?;
    let bytes = hex(&data)?;
    let frame = frame(&bytes)?;
    let mut samples = RuuviFrame { samples: Vec::with_capacity(10), names: Rc::default(), seq: None };
    match frame {
        None => samples.push("data", SampleValue::Other),
        Some([3, rest @ ..]) => samples.format_3(rest)?,
        Some([5, rest @ ..]) => samples.format_5(rest)?,
        Some([6, rest @ ..]) => samples.format_6(rest)?,
        Some([0xc5, rest @ ..]) => samples.format_c5(rest)?,
        Some(_) => samples.push("data", SampleValue::Other),
    }
    if let Some(rssi) = rssi {
        samples.number("rssi", Some(rssi));
    }
    let RuuviFrame { mut samples, seq, .. } = samples;
    for sample in &mut samples {
        sample.seq = seq;
    }
    Ok(samples)
}

/// `data` and `rssi` of the JSON.
fn fields(text: &str) -> Result<(Cow<'_, str>, Option<f64>), String> {
    let mut scanner = JsonScanner::with_leniency(text, true);
    if scanner.peek() != Some(b'{') {
        return Err("expected a JSON object with `data`, as a Ruuvi Gateway sends it".into());
    }
    let (mut data, mut rssi) = (JsonToken::Absent, None);
    let read = scanner.object(|scanner| {
        let key = scanner.key()?;
        match (&*key, scanner.value(1)?) {
            ("data", value) => data = value,
            ("rssi", JsonToken::Number(number)) => rssi = Some(number.to_f64()),
            _ => {}
        }
        Ok(())
    });
    read.and_then(|()| scanner.end()).map_err(|error| format!("{} (at byte {})", error.what, error.at))?;
    match data {
        JsonToken::Text(data) => Ok((data, rssi)),
        JsonToken::Absent => {
            Err("the object has no `data`: a Ruuvi Gateway sends the advertisement there, in hex".into())
        }
        other => Err(format!("`data` is {}, and should be an advertisement in hex", other.kind())),
    }
}

fn hex(text: &str) -> Result<Vec<u8>, String> {
    if text.len() > 2 * MAX_ADVERTISEMENT {
        return Err(format!("`data` has {} characters, and an advertisement has at most 510", text.len()));
    }
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let byte = |(at, [high, low]): (usize, &[u8; 2])| {
        let byte = digit(*high).zip(digit(*low)).map(|(high, low)| high << 4 | low);
        byte.ok_or_else(|| format!("`data` is not hex at character {}", 2 * at + 1))
    };
    let bytes = pairs.iter().enumerate().map(byte).collect::<Result<_, _>>()?;
    if rest.is_empty() { Ok(bytes) } else { Err("`data` has an odd number of hex digits".into()) }
}

/// The frame of Ruuvi in an advertisement, if there is one.
fn frame(mut rest: &[u8]) -> Result<Option<&[u8]>, String> {
    let whole = rest.len();
    while let Some((&len, after)) = rest.split_first() {
        if len == 0 {
            return Ok(None);
        }
        let at = whole - rest.len();
        let Some((part, after)) = after.split_at_checked(usize::from(len)) else {
            return Err(format!("the advertisement in `data` is cut short: its part at byte {at} has {len} bytes"));
        };
        if let [MANUFACTURER_DATA, low, high, frame @ ..] = part
            && [*low, *high] == RUUVI
        {
            return Ok(Some(frame));
        }
        rest = after;
    }
    Ok(None)
}

fn cut_short(format: &str, bytes: usize) -> String {
    format!("the frame in `data` is cut short: data format {format} has {bytes} bytes")
}

/// Unsigned values of which the highest means that there is none.
fn available(raw: u16, none: u16) -> Option<f64> {
    (raw != none).then(|| f64::from(raw))
}

fn available_signed(raw: [u8; 2]) -> Option<f64> {
    let raw = i16::from_be_bytes(raw);
    (raw != i16::MIN).then(|| f64::from(raw))
}

/// Collects the values of a frame.
struct RuuviFrame<'a> {
    samples: Vec<Sample<'a>>,
    names: Rc<SampleNames<'a>>,
    seq: Option<u64>,
}

impl<'a> RuuviFrame<'a> {
    fn push(&mut self, key: &'static str, value: SampleValue<'a>) {
        self.samples.push(Sample::new(Rc::clone(&self.names), key.into(), value));
    }

    fn number(&mut self, key: &'static str, number: Option<f64>) {
        self.push(key, number.map_or(SampleValue::Absent, SampleValue::Number));
    }

    /// Temperature, humidity and pressure as all formats but 3 have them.
    fn climate(&mut self, temperature: [u8; 2], humidity: [u8; 2], pressure: [u8; 2]) {
        self.number("temperature", available_signed(temperature).map(|raw| raw / 200.0));
        self.number("humidity", available(u16::from_be_bytes(humidity), u16::MAX).map(|raw| raw / 400.0));
        self.number("pressure", available(u16::from_be_bytes(pressure), u16::MAX).map(|raw| raw + 50_000.0));
    }

    fn acceleration(&mut self, axes: [[u8; 2]; 3], of: impl Fn([u8; 2]) -> Option<f64>) {
        for (key, raw) in ["acceleration_x", "acceleration_y", "acceleration_z"].into_iter().zip(axes) {
            self.number(key, of(raw).map(|milli| milli / 1_000.0));
        }
    }

    /// Voltage and power of transmission, which share 16 bits, the counter of movements, and the sequence number.
    fn power(&mut self, power: [u8; 2], movements: u8, seq: [u8; 2]) {
        let power = u16::from_be_bytes(power);
        self.number("voltage", available(power >> 5, 0x7ff).map(|raw| (raw + 1_600.0) / 1_000.0));
        self.number("tx_power", available(power & 0x1f, 0x1f).map(|raw| raw * 2.0 - 40.0));
        self.number("movement_counter", available(movements.into(), 0xff));
        let seq = u16::from_be_bytes(seq);
        self.seq = (seq != u16::MAX).then(|| seq.into());
    }

    fn format_3(&mut self, frame: &[u8]) -> Result<(), String> {
        let Some(&[humidity, whole, hundredths, p0, p1, x0, x1, y0, y1, z0, z1, v0, v1]) = frame.first_chunk() else {
            return Err(cut_short("3", 14));
        };
        let magnitude = f64::from(u32::from(whole & 0x7f) * 100 + u32::from(hundredths)) / 100.0;
        self.number("temperature", Some(if whole & 0x80 == 0 { magnitude } else { -magnitude }));
        self.number("humidity", Some(f64::from(humidity) / 2.0));
        self.number("pressure", Some(f64::from(u16::from_be_bytes([p0, p1])) + 50_000.0));
        self.acceleration([[x0, x1], [y0, y1], [z0, z1]], |raw| Some(f64::from(i16::from_be_bytes(raw))));
        self.number("voltage", Some(f64::from(u16::from_be_bytes([v0, v1])) / 1_000.0));
        Ok(())
    }

    fn format_5(&mut self, frame: &[u8]) -> Result<(), String> {
        let Some(&[t0, t1, h0, h1, p0, p1, x0, x1, y0, y1, z0, z1, w0, w1, movements, s0, s1]) = frame.first_chunk()
        else {
            return Err(cut_short("5", 24));
        };
        self.climate([t0, t1], [h0, h1], [p0, p1]);
        self.acceleration([[x0, x1], [y0, y1], [z0, z1]], available_signed);
        self.power([w0, w1], movements, [s0, s1]);
        Ok(())
    }

    fn format_c5(&mut self, frame: &[u8]) -> Result<(), String> {
        let Some(&[t0, t1, h0, h1, p0, p1, w0, w1, movements, s0, s1]) = frame.first_chunk() else {
            return Err(cut_short("C5", 18));
        };
        self.climate([t0, t1], [h0, h1], [p0, p1]);
        self.power([w0, w1], movements, [s0, s1]);
        Ok(())
    }

    fn format_6(&mut self, frame: &[u8]) -> Result<(), String> {
        let Some(&[t0, t1, h0, h1, p0, p1, d0, d1, c0, c1, voc, nox, light, _, _, flags]) = frame.first_chunk() else {
            return Err(cut_short("6", 20));
        };
        self.climate([t0, t1], [h0, h1], [p0, p1]);
        self.number("pm2_5", available(u16::from_be_bytes([d0, d1]), u16::MAX).map(|raw| raw / 10.0));
        self.number("co2", available(u16::from_be_bytes([c0, c1]), u16::MAX));
        let nine_bits = |high: u8, low: u8| u16::from(high) << 1 | u16::from(low & 1);
        self.number("voc", available(nine_bits(voc, flags >> 6), 0x1ff));
        self.number("nox", available(nine_bits(nox, flags >> 7), 0x1ff));
        // 255 steps of equal ratio from 0 to 65,535 lx; the program that sends them rounds to hundredths.
        let lux = |code: f64| ((code * 65_536_f64.ln() / 254.0).exp_m1() * 100.0).round() / 100.0;
        self.number("luminosity", available(light.into(), 0xff).map(lux));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What an advertisement gives: keys with their numbers, and the sequence number.
    fn values(data: &str) -> (Vec<(String, Option<f64>)>, Option<u64>) {
        let text = format!(r#"{{"gw_mac":"00:00:5E:00:53:01","aoa":[],"data":"{data}"}}"#);
        let samples = decode(&text).unwrap();
        let seq = samples[0].seq;
        let number = |sample: &Sample<'_>| match sample.value {
            SampleValue::Number(number) => Some(number),
            SampleValue::Absent => None,
            ref other => panic!("{other:?}"),
        };
        (samples.iter().map(|sample| (sample.key.to_string(), number(sample))).collect(), seq)
    }

    fn check(data: &str, expected: &[(&str, Option<f64>)], seq: Option<u64>) {
        let (found, found_seq) = values(data);
        let expected: Vec<_> = expected.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect();
        assert_eq!((found, found_seq), (expected, seq));
    }

    /// The values that Ruuvi publishes with the format.
    #[test]
    fn format_5_of_the_documentation() {
        check(
            "0201061BFF99040512FC5394C37C0004FFFC040CAC364200CDCBB8334C884F",
            &[
                ("temperature", Some(24.3)),
                ("humidity", Some(53.49)),
                ("pressure", Some(100_044.0)),
                ("acceleration_x", Some(0.004)),
                ("acceleration_y", Some(-0.004)),
                ("acceleration_z", Some(1.036)),
                ("voltage", Some(2.977)),
                ("tx_power", Some(4.0)),
                ("movement_counter", Some(66.0)),
            ],
            Some(205),
        );
    }

    #[test]
    fn what_is_not_available_is_absent() {
        let (values, seq) = values("1BFF9904058000FFFFFFFF800080008000FFFFFFFFFFFFFFFFFFFFFF");
        assert_eq!((values.len(), seq), (9, None));
        assert!(values.iter().all(|(_, value)| value.is_none()), "{values:?}");
    }

    #[test]
    fn format_3_of_the_documentation() {
        check(
            "02010611FF990403291A1ECE1EFC18F94202CA0B53",
            &[
                ("temperature", Some(26.3)),
                ("humidity", Some(20.5)),
                ("pressure", Some(102_766.0)),
                ("acceleration_x", Some(-1.0)),
                ("acceleration_y", Some(-1.726)),
                ("acceleration_z", Some(0.714)),
                ("voltage", Some(2.899)),
            ],
            None,
        );
    }

    #[test]
    fn format_c5() {
        let (values, seq) = values("15FF9904C512FC5394C37CAC364200CDCBB8334C884F");
        assert_eq!((values[0].1, values[3].1, seq), (Some(24.3), Some(2.977), Some(205)));
    }

    /// The values that Ruuvi publishes with the format.
    #[test]
    fn format_6_of_the_documentation() {
        check(
            "17FF990406170C5668C79E007000C90501D9FFCD004C884F",
            &[
                ("temperature", Some(29.5)),
                ("humidity", Some(55.3)),
                ("pressure", Some(101_102.0)),
                ("pm2_5", Some(11.2)),
                ("co2", Some(201.0)),
                ("voc", Some(10.0)),
                ("nox", Some(2.0)),
                ("luminosity", Some(13_026.67)),
            ],
            None,
        );
    }

    #[test]
    fn other_frames_are_no_readings() {
        let samples = decode(r#"{"data":"0201061AFF4C000215","rssi":-70}"#).unwrap_err();
        assert_eq!(samples, "the advertisement in `data` is cut short: its part at byte 3 has 26 bytes");
        let samples = decode(r#"{"data":"02010603FF4C00","rssi":-70}"#).unwrap();
        assert_eq!((&*samples[0].key, &samples[0].value), ("data", &SampleValue::Other));
        assert_eq!((&*samples[1].key, &samples[1].value), ("rssi", &SampleValue::Number(-70.0)));
    }

    #[test]
    fn faults_are_told() {
        let refused = |text: &str| decode(text).unwrap_err();
        assert_eq!(
            refused(r#"{"state":"online"}"#),
            "the object has no `data`: a Ruuvi Gateway sends the advertisement there, in hex"
        );
        assert_eq!(refused(r#"{"data":5}"#), "`data` is a number, and should be an advertisement in hex");
        assert_eq!(refused(r#"{"data":"0g"}"#), "`data` is not hex at character 1");
        assert_eq!(refused(r#"{"data":"020"}"#), "`data` has an odd number of hex digits");
        assert_eq!(
            refused(r#"{"data":"05FF99040501"}"#),
            "the frame in `data` is cut short: data format 5 has 24 bytes"
        );
        assert!(refused(r#"{"data":"02"#).contains("at byte"));
        assert!(refused("[]").starts_with("expected a JSON object"));
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64), text: String) {
            let _ = decode(&text);
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            if let Ok(samples) = decode(&format!(r#"{{"data":"{hex}"}}"#)) {
                prop_assert!(samples.len() <= 10);
            }
            let framed = format!(r#"{{"data":"{:02x}ff9904{hex}"}}"#, bytes.len() + 3);
            let _ = decode(&framed);
        }
    }
}
