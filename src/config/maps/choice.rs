//! Which maps are on: those of the configuration over their presets, and presets beside them.

use super::draft::{MapDraft, TOPICS_FORM, has_topics};
use super::files::{Preset, embedded_presets};
use super::known::{KnownMap, MapOrigin, MapState, PresetChoice};
use crate::config::fault::{ConfigFault, ConfigOrigin, ConfigProblem};
use crate::config::nearest::nearest;
use crate::core::formats::{MapFault, MapSettings, Maps};

/// The name in `ingest.presets` that stands for the presets that are on by default.
const AUTO: &str = "auto";

/// What says which maps are on.
#[derive(Debug)]
pub(in crate::config) struct MapChoice<'a> {
    /// The tables `[[ingest.map]]`.
    pub own: &'a [MapDraft],
    /// The preset files of a person.
    pub files: &'a [Preset],
    /// Patterns of weir's own form, which is asked before any map.
    pub native: Vec<&'a str>,
    /// The key `ingest.presets`.
    pub presets: &'a PresetChoice,
    /// Where that key stands.
    pub presets_at: ConfigOrigin,
}

/// The maps of a configuration that says nothing about them.
pub(in crate::config) fn default_maps() -> Vec<KnownMap> {
    let origin = ConfigOrigin::File(String::new());
    let native = Vec::new();
    MapChoice { own: &[], files: &[], native, presets: &PresetChoice::Auto, presets_at: origin }.resolve().0
}

/// A map with the table that it comes from.
struct MapCandidate<'a> {
    known: KnownMap,
    draft: &'a MapDraft,
    /// Whether a person named it: it has a table, or stands in `ingest.presets`.
    is_named: bool,
}

impl<'a> MapChoice<'a> {
    /// All maps, those of the configuration first: of two patterns that are equally good, the earlier one counts.
    pub fn resolve(&self) -> (Vec<KnownMap>, Vec<ConfigFault>) {
        let mut faults = self.unknown_presets();
        let mut maps = self.own_maps(&mut faults);
        let own = maps.len();
        for preset in self.all_presets() {
            for draft in &preset.maps {
                let candidate = self.preset_map(preset, draft, &maps, own);
                maps.push(candidate);
            }
        }
        self.compile(&mut maps, &mut faults);
        (maps.into_iter().map(|map| map.known).collect(), faults)
    }

    fn all_presets(&self) -> impl Iterator<Item = &'a Preset> + Clone {
        self.files.iter().chain(embedded_presets())
    }

    fn all_names(&self) -> impl Iterator<Item = &'a str> {
        self.all_presets().flat_map(|preset| preset.map_names().chain([preset.family.as_str()]))
    }

    fn unknown_presets(&self) -> Vec<ConfigFault> {
        let PresetChoice::Named(names) = self.presets else { return Vec::new() };
        let unknown =
            names.iter().filter(|name| *name != AUTO && !self.all_names().any(|known| known == name.as_str()));
        unknown.map(|name| self.presets_fault(self.no_such_preset(name))).collect()
    }

    fn presets_fault(&self, problem: ConfigProblem) -> ConfigFault {
        ConfigFault { origin: self.presets_at.clone(), key: "ingest.presets".into(), problem }
    }

    fn no_such_preset(&self, name: &str) -> ConfigProblem {
        let near = nearest(name, self.all_names()).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
        ConfigProblem::new(format!("there is no preset {name:?}"), format!("a name that `weir maps` lists{near}"))
    }

    /// The maps of the tables, over their presets.
    fn own_maps(&self, faults: &mut Vec<ConfigFault>) -> Vec<MapCandidate<'a>> {
        let mut maps: Vec<MapCandidate<'a>> = Vec::new();
        for draft in self.own {
            let base = match draft.format.as_deref().map(|format| self.base(format)) {
                None => MapSettings::default(),
                Some(Ok(base)) => base.settings.clone(),
                Some(Err(problem)) => {
                    faults.push(draft.fault("format", problem));
                    continue;
                }
            };
            let mut settings = draft.over(&base);
            settings.name.clone_from(&draft.settings.name);
            if maps.iter().any(|other| other.known.settings.name == settings.name) {
                let wrong = format!("there is another map {:?}", settings.name);
                faults
                    .push(draft.whole_fault(ConfigProblem::new(wrong, "each name once; name gives a map another one")));
                continue;
            }
            if !has_topics(&settings) {
                faults.push(draft.whole_fault(ConfigProblem::new("it has no topics", TOPICS_FORM)));
                continue;
            }
            faults.extend(self.taken_before(draft, &settings));
            maps.push(MapCandidate {
                known: KnownMap { settings, origin: MapOrigin::Config, state: MapState::On },
                draft,
                is_named: true,
            });
        }
        maps
    }

    /// The fault of a table whose messages never come to it, because weir's own form has their topics.
    fn taken_before(&self, draft: &MapDraft, settings: &MapSettings) -> Option<ConfigFault> {
        let is_taken = |pattern: &&String| self.native.iter().any(|native| covers(native, pattern));
        let pattern = settings.topics.iter().find(is_taken)?;
        let wrong = format!("messages on {pattern:?} are of weir's own form, and no map is asked");
        let expected = "topics that are not in ingest.telemetry_topics and ingest.error_topics";
        Some(draft.fault("topics", ConfigProblem::new(wrong, expected)))
    }

    /// The map of a preset that `format` names: the name of a map, or of a family with one map.
    fn base(&self, format: &str) -> Result<&'a MapDraft, ConfigProblem> {
        let mut maps = self.all_presets().flat_map(|preset| &preset.maps);
        if let Some(map) = maps.find(|map| map.settings.name == format) {
            return Ok(map);
        }
        match self.all_presets().find(|preset| preset.family == format).map(|preset| &preset.maps[..]) {
            Some([one]) => Ok(one),
            Some(several) if !several.is_empty() => {
                let names: Vec<String> = several.iter().map(|map| format!("{:?}", map.settings.name)).collect();
                let wrong = format!("the preset {format:?} has {} maps", names.len());
                Err(ConfigProblem::new(wrong, format!("one of them: {}", names.join(", "))))
            }
            _ => Err(self.no_such_preset(format)),
        }
    }

    /// A map of a preset, and whether it is on. It gives way to the maps before it.
    fn preset_map(
        &self,
        preset: &Preset,
        draft: &'a MapDraft,
        before: &[MapCandidate<'_>],
        own: usize,
    ) -> MapCandidate<'a> {
        let mut settings = draft.settings.clone();
        let name = settings.name.as_str();
        let is_format = |map: &MapCandidate<'_>| map.draft.format.as_deref() == Some(name);
        let is_taken =
            before.iter().any(|other| other.known.settings.name == name) || before[..own].iter().any(is_format);
        let mut state = if is_taken { MapState::Replaced } else { self.state(preset, draft) };
        let is_named = self.is_named(preset, draft);
        let is_embedded = matches!(preset.origin, MapOrigin::Preset(_));
        if state == MapState::On && is_embedded && !is_named && !keep_patterns(&mut settings, begins_with_literal) {
            state = MapState::Optional;
        }
        if state == MapState::On && !give_way(&mut settings, preset, before) {
            state = MapState::Replaced;
        }
        if state != MapState::On {
            settings.clone_from(&draft.settings);
        }
        MapCandidate { known: KnownMap { settings, origin: preset.origin.clone(), state }, draft, is_named }
    }

    /// Whether `ingest.presets` names the map, or its family with it.
    fn is_named(&self, preset: &Preset, draft: &MapDraft) -> bool {
        let PresetChoice::Named(names) = self.presets else { return false };
        let all_optional = preset.maps.iter().all(|map| map.optional);
        let of_family = names.contains(&preset.family) && (!draft.optional || all_optional);
        of_family || names.contains(&draft.settings.name)
    }

    /// Whether presets are on that nobody named.
    fn is_auto(&self) -> bool {
        match self.presets {
            PresetChoice::Auto => true,
            PresetChoice::Off => false,
            PresetChoice::Named(names) => names.iter().any(|name| name == AUTO),
        }
    }

    fn state(&self, preset: &Preset, draft: &MapDraft) -> MapState {
        match self.is_named(preset, draft) || self.is_auto() && !draft.optional {
            true => MapState::On,
            false if draft.optional && *self.presets != PresetChoice::Off => MapState::Optional,
            false => MapState::Off,
        }
    }

    /// Compiles the maps that are on. A preset that nobody named gives way where it is at odds with another map.
    fn compile(&self, maps: &mut [MapCandidate<'_>], faults: &mut Vec<ConfigFault>) {
        loop {
            let on: Vec<usize> = (0..maps.len()).filter(|index| maps[*index].known.state == MapState::On).collect();
            let settings: Vec<MapSettings> = on.iter().map(|index| maps[*index].known.settings.clone()).collect();
            let Err(found) = Maps::new(&settings) else { return };
            let mut gave_way = false;
            for fault in &found {
                let Some(map) = on.get(fault.map).and_then(|index| maps.get_mut(*index)) else { continue };
                if matches!(map.known.origin, MapOrigin::Preset(_)) && !map.is_named {
                    map.known.state = MapState::Replaced;
                    gave_way = true;
                }
            }
            if !gave_way {
                let of_map = |fault: &MapFault| Some(self.core_fault(&maps[*on.get(fault.map)?], fault));
                faults.extend(found.iter().filter_map(of_map));
                return;
            }
        }
    }

    fn core_fault(&self, map: &MapCandidate<'_>, fault: &MapFault) -> ConfigFault {
        let MapFault { key, message, .. } = fault;
        match &map.known.origin {
            MapOrigin::Preset(_) => {
                let wrong = format!("preset {}, {key}: {message}", map.known.settings.name);
                self.presets_fault(ConfigProblem::new(wrong, ""))
            }
            MapOrigin::Config | MapOrigin::File(_) => map.draft.fault(key, ConfigProblem::new(message.clone(), "")),
        }
    }
}

/// Takes those patterns from a map of a preset that maps of other files have. `false`: it has no topics left.
fn give_way(settings: &mut MapSettings, preset: &Preset, before: &[MapCandidate<'_>]) -> bool {
    let others = before
        .iter()
        .filter(|other| other.known.state == MapState::On && other.known.origin != preset.origin)
        .flat_map(|other| patterns(&other.known.settings));
    let taken: Vec<String> = others.map(|pattern| shape(pattern)).collect();
    keep_patterns(settings, |pattern| !taken.contains(&shape(pattern)))
}

/// Takes those patterns from a map that are not to be kept. `false`: it has no topics left.
fn keep_patterns(settings: &mut MapSettings, is_kept: impl Fn(&str) -> bool) -> bool {
    let had_topics = !settings.topics.is_empty();
    settings.topics.retain(|pattern| is_kept(pattern));
    settings.ignore.retain(|pattern| is_kept(pattern));
    if let Some(status) = &mut settings.status
        && !status.topics.is_empty()
    {
        status.topics.retain(|pattern| is_kept(pattern));
        if status.topics.is_empty() {
            settings.status = None;
        }
    }
    !had_topics || !settings.topics.is_empty()
}

/// Whether a pattern begins with a level of its own, so that it takes no messages of other devices by accident.
fn begins_with_literal(pattern: &str) -> bool {
    !pattern.starts_with(['{', '#'])
}

fn patterns(settings: &MapSettings) -> impl Iterator<Item = &String> {
    let status = settings.status.iter().flat_map(|status| &status.topics);
    settings.topics.iter().chain(status).chain(&settings.ignore)
}

/// Whether the topic filter `native` matches all topics that a pattern of a map does.
fn covers(native: &str, pattern: &str) -> bool {
    let mut levels = pattern.split('/');
    for wanted in native.split('/') {
        match (wanted, levels.next()) {
            ("#", _) => return true,
            (_, None) => return false,
            ("+", Some(level)) if level != "#" && !level.ends_with("+}") => {}
            (wanted, Some(level)) if wanted == level && level != "#" => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

/// A pattern without the names of its levels: patterns of the same shape match the same topics.
fn shape(pattern: &str) -> String {
    let levels = pattern.split('/').map(|level| match level.strip_prefix('{') {
        Some(rest) if rest.ends_with("+}") => "{+}",
        Some(rest) if rest.ends_with('}') => "{}",
        _ => level,
    });
    levels.collect::<Vec<_>>().join("/")
}
