//! Preset files: those that are part of weir, and those of a person in the directory `ingest.map_files`.

use std::io;
use std::path::Path;
use std::sync::LazyLock;

use toml::de::DeTable;

use super::MAP_FILES;
use super::draft::{MapDraft, read_maps};
use super::known::MapOrigin;
use crate::config::fault::{ConfigFault, ConfigOrigin, ConfigProblem};

/// Largest number of preset files in a directory.
const MAX_FILES: usize = 256;
/// Larger preset files are refused unread.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The preset files that are part of weir, by family.
const EMBEDDED: &[(&str, &str)] = &[
    ("advantech_wise", include_str!("../presets/advantech_wise.toml")),
    ("ai_on_the_edge", include_str!("../presets/ai_on_the_edge.toml")),
    ("aws_shadow", include_str!("../presets/aws_shadow.toml")),
    ("azure", include_str!("../presets/azure.toml")),
    ("chirpstack_v4", include_str!("../presets/chirpstack_v4.toml")),
    ("ems_esp", include_str!("../presets/ems_esp.toml")),
    ("esphome", include_str!("../presets/esphome.toml")),
    ("evcc", include_str!("../presets/evcc.toml")),
    ("flat_eui", include_str!("../presets/flat_eui.toml")),
    ("frigate", include_str!("../presets/frigate.toml")),
    ("glances", include_str!("../presets/glances.toml")),
    ("homeassistant", include_str!("../presets/homeassistant.toml")),
    ("homie", include_str!("../presets/homie.toml")),
    ("influx", include_str!("../presets/influx.toml")),
    ("kepware_iot_gateway", include_str!("../presets/kepware_iot_gateway.toml")),
    ("modbus_array", include_str!("../presets/modbus_array.toml")),
    ("opendtu", include_str!("../presets/opendtu.toml")),
    ("openmqttgateway", include_str!("../presets/openmqttgateway.toml")),
    ("openwb", include_str!("../presets/openwb.toml")),
    ("owntracks", include_str!("../presets/owntracks.toml")),
    ("rtl_433", include_str!("../presets/rtl_433.toml")),
    ("ruuvi", include_str!("../presets/ruuvi.toml")),
    ("senml", include_str!("../presets/senml.toml")),
    ("shelly", include_str!("../presets/shelly.toml")),
    ("sparkplug_b", include_str!("../presets/sparkplug_b.toml")),
    ("tasmota", include_str!("../presets/tasmota.toml")),
    ("telegraf_json", include_str!("../presets/telegraf_json.toml")),
    ("thingsboard_gateway", include_str!("../presets/thingsboard_gateway.toml")),
    ("ttn_v3", include_str!("../presets/ttn_v3.toml")),
    ("victron", include_str!("../presets/victron.toml")),
    ("zigbee2mqtt", include_str!("../presets/zigbee2mqtt.toml")),
];

/// A preset file: the maps of one family of devices.
#[derive(Debug, Clone)]
pub struct Preset {
    /// Name of the family, which is the name of the file.
    pub family: String,
    /// Text of the file, with comments that say how to use it.
    pub text: String,
    /// Where its maps stand.
    pub(super) origin: MapOrigin,
    /// Its maps.
    pub(super) maps: Vec<MapDraft>,
}

impl Preset {
    /// Whether it is a file of a person.
    pub fn file(&self) -> Option<&str> {
        match &self.origin {
            MapOrigin::File(file) => Some(file),
            _ => None,
        }
    }

    /// Names of its maps.
    pub fn map_names(&self) -> impl Iterator<Item = &str> {
        self.maps.iter().map(|map| map.settings.name.as_str())
    }

    fn read(family: &str, file: &str, text: &str, origin: MapOrigin) -> (Self, Vec<ConfigFault>) {
        let (table, errors) = DeTable::parse_recoverable(text);
        let whole = |offset, key: &str, problem| ConfigFault {
            origin: ConfigOrigin::line_of(file, text, offset),
            key: key.to_owned(),
            problem,
        };
        let mut faults: Vec<ConfigFault> = errors
            .iter()
            .map(|error| whole(error.span().map_or(0, |span| span.start), "", ConfigProblem::new(error.message(), "")))
            .collect();
        let mut maps = Vec::new();
        // After a syntax error the parser goes on with values that it made up.
        if faults.is_empty() {
            for (name, value) in table.get_ref() {
                let offset = name.span().start;
                if name.get_ref() == "map" {
                    let (drafts, wrong) = read_maps(file, text, "map", (offset, value.get_ref()));
                    maps.extend(drafts);
                    faults.extend(wrong);
                } else {
                    let problem = ConfigProblem::new("there is no such section", "[[map]] with its keys below");
                    faults.push(whole(offset, name.get_ref(), problem));
                }
            }
        }
        (Self { family: family.to_owned(), text: text.to_owned(), origin, maps }, faults)
    }
}

/// The presets that are part of weir, in the order of their names.
pub fn embedded_presets() -> &'static [Preset] {
    static PRESETS: LazyLock<Vec<Preset>> = LazyLock::new(|| {
        let read =
            |(family, text): &(&str, &str)| Preset::read(family, family, text, MapOrigin::Preset((*family).into())).0;
        EMBEDDED.iter().map(read).collect()
    });
    &PRESETS
}

/// Faults of the presets that are part of weir; there are none.
#[cfg(test)]
pub(super) fn embedded_faults() -> Vec<ConfigFault> {
    let read = |(family, text): &(&str, &str)| Preset::read(family, family, text, MapOrigin::Config).1;
    EMBEDDED.iter().flat_map(read).collect()
}

/// Reads all files `*.toml` of a directory, in the order of their names. The files are no data of weir.
pub(in crate::config) fn read_directory(directory: &Path) -> (Vec<Preset>, Vec<ConfigFault>) {
    let fault = |file: &Path, wrong: &io::Error| ConfigFault {
        origin: ConfigOrigin::File(file.display().to_string()),
        key: String::new(),
        problem: ConfigProblem::new(format!("cannot be read: {wrong}"), "preset files, *.toml, for ingest.map_files"),
    };
    let names = match toml_files(directory) {
        Ok(names) => names,
        Err(error) => {
            let problem = ConfigProblem::new(format!("{} cannot be read: {error}", directory.display()), "a directory");
            let wrong = ConfigFault { key: MAP_FILES.into(), problem, ..fault(directory, &error) };
            return (Vec::new(), vec![wrong]);
        }
    };
    let (mut presets, mut faults) = (Vec::new(), Vec::new());
    for path in names {
        match read_file(&path) {
            Ok(text) => {
                let (family, file) =
                    (path.file_stem().unwrap_or_default().to_string_lossy(), path.display().to_string());
                let (preset, wrong) = Preset::read(&family, &file, &text, MapOrigin::File(file.clone()));
                presets.push(preset);
                faults.extend(wrong);
            }
            Err(error) => faults.push(fault(&path, &error)),
        }
    }
    (presets, faults)
}

fn toml_files(directory: &Path) -> io::Result<Vec<std::path::PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            files.push(path);
        }
        if files.len() > MAX_FILES {
            return Err(io::Error::other(format!("it has more than {MAX_FILES} preset files")));
        }
    }
    files.sort();
    Ok(files)
}

fn read_file(path: &Path) -> io::Result<String> {
    let bytes = std::fs::metadata(path)?.len();
    if bytes > MAX_FILE_BYTES {
        return Err(io::Error::other(format!("it has {bytes} bytes, more than any preset")));
    }
    std::fs::read_to_string(path)
}
