use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

use super::*;

/// Base name, key, value, time and unit of each sample, as text.
fn shown(samples: &[Sample<'_>]) -> Vec<String> {
    let line = |sample: &Sample<'_>| {
        let (base, unit) = (sample.name("bn").unwrap_or("-"), sample.unit.as_deref().unwrap_or("-"));
        format!("{base} {} {:?} {:?} {unit}", sample.key, sample.value, sample.time)
    };
    samples.iter().map(line).collect()
}

fn check(text: &str, expected: &[&str]) {
    assert_eq!(shown(&decode(text).unwrap()), expected, "{text}");
}

fn check_cbor(payload: &[u8], expected: &[&str]) {
    assert_eq!(shown(&decode_cbor(payload).unwrap()), expected);
}

/// Records of RFC 8428, section 5.1.
#[test]
fn base_values_carry_over() {
    check(
        r#"[{"bn":"urn:dev:ow:10e2073a01080063:","n":"voltage","t":0,"u":"V","v":120.1},{"n":"current","t":0,"u":"A","v":1.2}]"#,
        &[
            "urn:dev:ow:10e2073a01080063 voltage Number(120.1) None V",
            "urn:dev:ow:10e2073a01080063 current Number(1.2) None A",
        ],
    );
    check(
        r#"[{"bn":"urn:dev:ow:10e2073a01080063/","bt":1276020076.001,"bu":"A","bver":5},{"n":"voltage","u":"V","v":120.1},{"n":"current","t":-5,"v":1.2},{"n":"current","v":0.14e1}]"#,
        &[
            "urn:dev:ow:10e2073a01080063 voltage Number(120.1) At(1276020076001) V",
            "urn:dev:ow:10e2073a01080063 current Number(1.2) At(1276020071001) A",
            "urn:dev:ow:10e2073a01080063 current Number(1.4) At(1276020076001) A",
        ],
    );
    check(
        r#"[{"bn":"a.","bv":100,"bs":7,"n":"x","v":1},{"n":"y","v":-1,"s":2},{"bn":"b/","bv":0,"n":"z","s":1}]"#,
        &[
            "a x Number(101.0) None -",
            "a y Number(99.0) None -",
            "a y.sum Number(9.0) None -",
            "b z.sum Number(8.0) None -",
        ],
    );
}

#[test]
fn names_without_a_base_name() {
    check(
        r#"[{"n":"urn:dev:ow:10e2073a01080063:level","t":-5,"v":2.5}]"#,
        &["urn:dev:ow:10e2073a01080063 level Number(2.5) FromArrival(-5000) -"],
    );
    check(
        r#"[{"n":"urn:dev:ow:10e2073a01080063","u":"Cel","v":23.1}]"#,
        &["urn:dev:ow:10e2073a01080063 urn:dev:ow:10e2073a01080063 Number(23.1) None Cel"],
    );
    check(r#"{"n":"room/temp","v":1}"#, &["- room/temp Number(1.0) None -"]);
    check(
        r#"[{"bn":"sensor-1","n":"/temp","v":1},{"v":2}]"#,
        &["sensor-1 temp Number(1.0) None -", "sensor-1 sensor-1 Number(2.0) None -"],
    );
    check(
        r#"[{"bn":"urn:dev:mac:0024befffe804ff1/temp","n":"","v":1}]"#,
        &["urn:dev:mac:0024befffe804ff1 temp Number(1.0) None -"],
    );
}

#[test]
fn values_of_all_kinds() {
    check(
        r#"[{"bn":"d:","n":"open","vb":true},{"n":"label","vs":"Mach\u0061"},{"n":"blob","vd":"aGk="},{"n":"text","v":"5.5"},{"n":"gone","v":null},{"n":"none"},{"n":"nan","v":NaN}]"#,
        &[
            "d open Bool(true) None -",
            "d label Text(\"Macha\") None -",
            "d blob Other None -",
            "d text Text(\"5.5\") None -",
            "d gone Absent None -",
            "d none Absent None -",
            "d nan Absent None -",
        ],
    );
}

#[test]
fn times_below_2_to_the_28_are_relative() {
    let time = |t: &str| decode(&format!(r#"[{{"n":"a","v":1,"t":{t}}}]"#)).unwrap()[0].time;
    assert_eq!(time("268435455"), SampleTime::FromArrival(268_435_455_000));
    assert_eq!(time("268435456"), SampleTime::At(268_435_456_000));
    assert_eq!(time("1276020076.3051"), SampleTime::At(1_276_020_076_305));
    assert_eq!(time("1e300"), SampleTime::At(i64::MAX));
}

#[test]
fn a_wrong_record_does_not_lose_the_others() {
    check(
        r#"[{"bn":"d:","n":"a","v":1},{"n":"b","v":[1]},{"n":"c","t":"now","v":1},{"n":"d","v":2,"other":{"x":[]}}]"#,
        &[
            "d a Number(1.0) None -",
            "-  Malformed(\"record 2: `v` is an array, an object or bytes, and should be a number\") None -",
            "-  Malformed(\"record 3: `t` is text, and should be a number\") None -",
            "d d Number(2.0) None -",
        ],
    );
    check(r#"[{"v":1,"n":""}]"#, &["-  Malformed(\"record 1: it has neither a name nor a base name\") None -"]);
}

#[test]
fn faults_are_told() {
    let refused = |text: &str| decode(text).unwrap_err();
    assert_eq!(
        refused(r#"[{"n":"a","v":1},{"n":"b","v":1,"new_":5}]"#),
        "record 2: the label `new_` must be understood, and is not known"
    );
    assert_eq!(refused(r#"[{"bver":11,"n":"a","v":1}]"#), "record 1: version 11 (`bver`) is not known; 10 is");
    assert_eq!(refused(r#"[{"bt":"x"}]"#), "record 1: `bt` is text, and should be a number");
    assert_eq!(refused("[5]"), "expected a SenML record, which is an object (at byte 1)");
    assert_eq!(refused("5"), "expected an array of SenML records");
    assert!(refused(r#"[{"n":"a","v":1}"#).contains("at byte 16"));
    assert!(decode(r#"[{"bver":26,"n":"a","v":1}]"#).is_ok());
}

/// From RFC 8428, section 6, and the same with a label as text, a length that is not known, and a decimal fraction.
#[test]
fn records_in_cbor() {
    let payload = STANDARD
        .decode("h6cheBt1cm46ZGV2Om93OjEwZTIwNzNhMDEwODAwNjoi+0HTA6FbABBiI2FBIAUAZ3ZvbHRhZ2UBYVYC+0BeBmZmZmZmowBnY3VycmVudAYkAvs/8zMzMzMzM6MAZ2N1cnJlbnQGIwL7P/TMzMzMzM2jAGdjdXJyZW50BiIC+z/2ZmZmZmZmowBnY3VycmVudAYhAvk+AKMAZ2N1cnJlbnQGIAL7P/mZmZmZmZqjAGdjdXJyZW50BgAC+z/7MzMzMzMz")
        .unwrap();
    check_cbor(
        &payload,
        &[
            "urn:dev:ow:10e2073a0108006 voltage Number(120.1) At(1276020076001) V",
            "urn:dev:ow:10e2073a0108006 current Number(1.2) At(1276020071001) A",
            "urn:dev:ow:10e2073a0108006 current Number(1.3) At(1276020072001) A",
            "urn:dev:ow:10e2073a0108006 current Number(1.4) At(1276020073001) A",
            "urn:dev:ow:10e2073a0108006 current Number(1.5) At(1276020074001) A",
            "urn:dev:ow:10e2073a0108006 current Number(1.6) At(1276020075001) A",
            "urn:dev:ow:10e2073a0108006 current Number(1.7) At(1276020076001) A",
        ],
    );
    let payload = [0x9f, 0xbf, 0x61, b'n', 0x61, b'x', 0x02, 0xc4, 0x82, 0x21, 0x19, 0x6a, 0xb3, 0xff, 0xff];
    check_cbor(&payload, &["- x Number(273.15) None -"]);
    check_cbor(&[0xa2, 0x00, 0x61, b'x', 0x08, 0x42, 1, 2], &["- x Other None -"]);
}

#[test]
fn faults_in_cbor_name_their_byte() {
    let refused = |payload: &[u8]| decode_cbor(payload).unwrap_err();
    assert_eq!(refused(&[0x05]), "expected an array of SenML records");
    assert_eq!(refused(&[0x81, 0x05]), "expected a SenML record, which is a map (at byte 1)");
    assert_eq!(refused(&[0x80, 0x00]), "something follows the array of SenML records (at byte 1)");
    assert_eq!(refused(&[0x82, 0xa2, 0x00, 0x61]), "cut short: the data ends within an item (at byte 4)");
    assert_eq!(refused(&[0x81, 0xa1, 0x00, 0xc4, 0x80]), "a decimal fraction is an array of two integers (at byte 4)");
    assert_eq!(refused(&[0x81, 0xa1, 0x41, 0, 0]), "expected a label, which is an integer or text (at byte 2)");
    assert!(refused(&[0x81, 0xa1, 0x62, b'x', b'_', 0]).contains("must be understood"));
}

proptest! {
    #[test]
    fn never_panics(text: String, bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let _ = decode(&text);
        let _ = decode_cbor(&bytes);
        let _ = decode_cbor(&[&[0x9f, 0xbf][..], &bytes].concat());
    }

    #[test]
    fn any_names_are_read(base in proptest::option::of("[a:/_.é]{0,6}"), name in proptest::option::of("[urn:d/é]{0,9}")) {
        let record = serde_json::json!([{"bn": base.clone().unwrap_or_default(), "n": name.clone().unwrap_or_default(), "vb": true}]);
        let text = record.to_string();
        let samples = decode(&text).unwrap();
        prop_assert!(samples.len() <= 1);
        for sample in samples {
            prop_assert!(!sample.key.is_empty() || matches!(sample.value, SampleValue::Malformed(_)));
        }
    }
}
