//! A map, compiled from its settings.

use super::glob::Glob;
use super::mapped::{MAX_PATTERNS, MapFault, MapRole};
use super::path::{EachPath, Path};
use super::pattern::{Captures, LevelNames, Pattern};
use super::settings::{EmptyPayload, MapSettings, PayloadFormat, StatusSettings, TimeUnit};
use super::template::Template;
use super::times::TimeRules;
use super::values::ValueRules;

/// A map, compiled.
#[derive(Debug)]
pub(super) struct CompiledMap {
    topics: Vec<Pattern>,
    status_topics: Vec<Pattern>,
    ignore: Vec<Pattern>,
    pub payload: PayloadFormat,
    pub time_unit: TimeUnit,
    pub empty: EmptyPayload,
    /// Paths at which elements repeat; the first that finds any counts. Empty: the document is the element.
    pub each: Vec<EachPath>,
    pub when: Vec<(Path, Vec<serde_json::Value>)>,
    pub device: Template,
    pub metric: Template,
    pub value: Path,
    pub separator: Box<str>,
    /// Names of the elements of an array.
    pub names: Vec<Box<str>>,
    pub include: Vec<Glob>,
    pub exclude: Vec<Glob>,
    pub rename: Vec<(Box<str>, Box<str>)>,
    pub time: TimeRules,
    pub seq: Option<Path>,
    pub seq_default: Option<u64>,
    pub boot: Option<Path>,
    pub values: ValueRules,
    pub status: Option<StatusRules>,
    pub rebirth: bool,
}

/// How a map reads the liveness of devices.
#[derive(Debug)]
pub(super) struct StatusRules {
    /// Whether messages of the map's own topics may say it.
    pub is_on_own_topics: bool,
    pub online: Vec<Box<str>>,
    pub offline: Vec<Box<str>>,
    pub pointer: Path,
    /// Template of the device id; `None`: that of the map.
    pub device: Option<Template>,
}

/// Collects the faults of a map.
struct MapFaults<'f> {
    map: usize,
    found: &'f mut Vec<MapFault>,
}

impl MapFaults<'_> {
    fn add(&mut self, key: &str, message: String) {
        self.found.push(MapFault { map: self.map, key: key.to_owned(), message });
    }

    fn take<T: Default>(&mut self, key: &str, result: Result<T, String>) -> T {
        result.unwrap_or_else(|message| {
            self.add(key, message);
            T::default()
        })
    }

    fn patterns(&mut self, key: &str, texts: &[String], names: &mut LevelNames) -> Vec<Pattern> {
        if texts.len() > MAX_PATTERNS {
            self.add(key, format!("the map has {} patterns here, and at most {MAX_PATTERNS} are allowed", texts.len()));
        }
        let parsed = texts.iter().take(MAX_PATTERNS).map(|text| Pattern::parse(text, names));
        parsed
            .filter_map(|pattern| match pattern {
                Ok(pattern) => Some(pattern),
                Err(message) => {
                    self.add(key, message);
                    None
                }
            })
            .collect()
    }

    fn paths(&mut self, settings: &MapSettings) {
        if settings.payload == PayloadFormat::Json {
            return;
        }
        let has_time = !settings.time.is_empty() && settings.payload != PayloadFormat::Ruuvi;
        for (key, is_set) in [
            ("each", !settings.each.is_empty()),
            ("when", !settings.when.is_empty()),
            ("value", !settings.value.is_empty()),
            ("time", has_time),
            ("seq", !settings.seq.is_empty()),
            ("boot", !settings.boot.is_empty()),
        ] {
            if is_set {
                self.add(
                    key,
                    "the payload is no JSON document, so that no path leads into it; leave the key out".into(),
                );
            }
        }
    }
}

fn names_of(patterns: &[Pattern]) -> u16 {
    patterns.iter().map(Pattern::names).fold(0, |all, one| all | one)
}

fn optional_path(path: &str) -> Result<Option<Path>, String> {
    if path.is_empty() { Ok(None) } else { Path::parse(path).map(Some) }
}

fn boxed(texts: &[String]) -> Vec<Box<str>> {
    texts.iter().map(|text| text.as_str().into()).collect()
}

impl CompiledMap {
    /// Compiles the map with the index `map`. Faults are added to `found`; with any of them the map is of no use.
    pub fn new(map: usize, settings: &MapSettings, found: &mut Vec<MapFault>) -> Self {
        let mut faults = MapFaults { map, found };
        let mut names = LevelNames::default();
        let topics = faults.patterns("topics", &settings.topics, &mut names);
        let status_texts = settings.status.as_ref().map_or(&[][..], |status| &status.topics);
        let status_topics = faults.patterns("status.topics", status_texts, &mut names);
        let ignore = faults.patterns("ignore", &settings.ignore, &mut names);
        let each: Vec<_> =
            settings.each.iter().map(|path| faults.take("each", EachPath::parse(path, &mut names).map(Some))).collect();
        let each: Vec<_> = each.into_iter().flatten().collect();
        faults.paths(settings);
        let known = each.iter().map(EachPath::names).fold(names_of(&topics), |all, one| all | one);
        let has_paths = matches!(settings.payload, PayloadFormat::Json | PayloadFormat::Ruuvi);
        let template = |text: &str, known| Template::parse(text, &names, known, has_paths);
        let device = faults.take("device", template(&settings.device, known));
        let metric = faults.take("metric", template(&settings.metric, known));
        let status = settings.status.as_ref();
        let status =
            status.map(|status| StatusRules::new(status, settings, &names, names_of(&status_topics), &mut faults));
        let when = settings.when.iter().map(|(path, values)| (faults.take("when", Path::parse(path)), values.clone()));
        let when = when.collect();
        if !matches!(settings.seq_bits, None | Some(8 | 16 | 32)) {
            faults.add("seq_bits", "expected 8, 16 or 32".into());
        }
        let value = faults.take("value", Path::parse(&settings.value));
        let seq = faults.take("seq", optional_path(&settings.seq));
        let boot = faults.take("boot", optional_path(&settings.boot));
        Self {
            payload: settings.payload,
            time_unit: settings.time_unit,
            empty: settings.empty,
            when,
            value,
            separator: settings.separator.as_str().into(),
            names: boxed(&settings.names),
            include: settings.include.iter().map(|glob| Glob::new(glob)).collect(),
            exclude: settings.exclude.iter().map(|glob| Glob::new(glob)).collect(),
            rename: settings.rename.iter().map(|(key, name)| (key.as_str().into(), name.as_str().into())).collect(),
            time: TimeRules::new(settings, &mut |key, message| faults.add(key, message)),
            seq,
            seq_default: settings.seq_default,
            boot,
            values: ValueRules::new(settings, &mut |key, message| faults.add(key, message)),
            rebirth: settings.rebirth,
            topics,
            status_topics,
            ignore,
            each,
            device,
            metric,
            status,
        }
    }

    /// All patterns with what they say, each with its index within its role.
    pub fn patterns(&self) -> impl Iterator<Item = (MapRole, u16, &Pattern)> {
        [MapRole::Readings, MapRole::Status, MapRole::Ignore]
            .into_iter()
            .flat_map(|role| (0..).zip(self.of_role(role)).map(move |(index, pattern)| (role, index, pattern)))
    }

    fn of_role(&self, role: MapRole) -> &[Pattern] {
        match role {
            MapRole::Readings => &self.topics,
            MapRole::Status => &self.status_topics,
            MapRole::Ignore => &self.ignore,
        }
    }

    /// The names that a pattern sets in `topic`.
    pub fn captures<'a>(&self, role: MapRole, pattern: u16, topic: &'a str) -> Captures<'a> {
        let mut captures = Captures::default();
        if let Some(pattern) = self.of_role(role).get(usize::from(pattern)) {
            pattern.capture(topic, &mut captures);
        }
        captures
    }

    /// The name that `rename` gives to `key`.
    pub fn renamed(&self, key: &str) -> Option<&str> {
        let index = self.rename.binary_search_by(|(from, _)| (**from).cmp(key)).ok()?;
        self.rename.get(index).map(|(_, name)| &**name)
    }
}

impl StatusRules {
    fn new(
        status: &StatusSettings,
        settings: &MapSettings,
        names: &LevelNames,
        known: u16,
        faults: &mut MapFaults<'_>,
    ) -> Self {
        let is_on_own_topics = status.topics.is_empty();
        let (key, text) =
            if status.device.is_empty() { ("device", &settings.device) } else { ("status.device", &status.device) };
        // On its own topics the map knows its names, and says about its device once what is wrong.
        let device = if is_on_own_topics && status.device.is_empty() {
            None
        } else {
            let known = if is_on_own_topics { u16::MAX } else { known };
            let template = Template::parse(text, names, known, true);
            let template = template.map_err(|message| match key {
                "device" => format!("{message} of `status`; set `status.device`"),
                _ => message,
            });
            Some(faults.take("status.device", template))
        };
        if status.online.is_empty() && status.offline.is_empty() {
            faults.add("status", "`online` or `offline` names the texts that say whether the device is online".into());
        }
        Self {
            is_on_own_topics,
            online: boxed(&status.online),
            offline: boxed(&status.offline),
            pointer: faults.take("status.pointer", Path::parse(&status.pointer)),
            device,
        }
    }
}
