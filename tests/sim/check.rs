//! Compares the results of weir with the reference model.

use std::collections::BTreeMap;

use weir::core::output::WindowResult;
use weir::core::settings::WatermarkScope;

use super::explain::tell_device;
use super::language::metric_name;
use super::ledger::{Expected, ExpectedAggregate, MessageId, SimLedger, WindowBounds};
use super::outputs::{NewestWindows, Outputs, replay};
use super::plan::SimPlan;
use super::process::SimProcess;

/// Checks a weir that has processed its journal. `at_end`: everything is acknowledged and all windows are closed.
pub fn check(process: &SimProcess, plan: &SimPlan, ledger: &SimLedger, at_end: bool) -> Result<(), String> {
    let judged = judge(process, plan, ledger, at_end);
    if let (Err(_), Ok(device)) = (&judged, std::env::var("WEIR_SIM_DEVICE")) {
        tell_device(&device, process, ledger)?;
    }
    judged
}

fn judge(process: &SimProcess, plan: &SimPlan, ledger: &SimLedger, at_end: bool) -> Result<(), String> {
    let settings = &plan.settings;
    let status = process.pipeline.status();
    if status.totals.unaccounted() != 0 {
        return Err(format!("{} readings are unaccounted for", status.totals.unaccounted()));
    }
    if status.replay_mismatches != 0 {
        return Err(format!("{} replayed results differ from the stored ones", status.replay_mismatches));
    }
    // Of a series with very many absences the shortest ones are forgotten.
    let tells_absences = status.totals.fired_runs_merged == 0;
    let [journal, windows, errors] = &process.logs;
    let outputs = Outputs::read(windows, errors)?;
    outputs.newest()?;
    if journal.stats().first.0 == 0 {
        let again = replay(journal, settings, ledger)?;
        if let Some((id, message)) = ledger.missing(&again.present) {
            let payload = String::from_utf8_lossy(&message.payload);
            return Err(format!("acknowledged message {id} of {} is not in the journal: {payload}", message.client));
        }
        if again.missed > 0 {
            return Err(format!("{} messages of edge nodes are missing, and none was lost", again.missed));
        }
        same("windows", &outputs.windows, &again.outputs.windows)?;
        same("errors", &outputs.errors, &again.outputs.errors)?;
        if !plan.clock_lies {
            compare(&again.closed, plan, ledger, &|id| again.present.contains(&id), tells_absences)?;
        }
    }
    let (absent, sent) = (status.totals.values_absent, ledger.absent_values());
    if absent > *sent.end() || at_end && absent < *sent.start() {
        return Err(format!("{absent} absent values are counted, and {sent:?} came"));
    }
    if plan.clock_lies {
        // While the clock of the box is wrong, right readings are rejected. Afterwards they are not.
        return ledger.judge_right(&outputs.rejections(ledger)?, settings, plan.sizes_ms());
    }
    if at_end {
        // QoS 0 messages are expected only if the journal has them.
        let counted = |id: MessageId| ledger.messages[id].acknowledged || ledger.messages[id].lossy;
        compare(&outputs, plan, ledger, &counted, tells_absences)?;
    }
    Ok(())
}

fn same(log: &str, stored: &[Vec<u8>], computed: &[Vec<u8>]) -> Result<(), String> {
    if let Some(seq) = stored.iter().zip(computed).position(|(stored, computed)| stored != computed) {
        return Err(format!(
            "record {seq} of the {log} log is not what the journal gives: {} instead of {}",
            stored[seq].escape_ascii(),
            computed[seq].escape_ascii()
        ));
    }
    if stored.len() != computed.len() {
        return Err(format!("the {log} log has {} records, the journal gives {}", stored.len(), computed.len()));
    }
    Ok(())
}

fn compare(
    outputs: &Outputs,
    plan: &SimPlan,
    ledger: &SimLedger,
    counted: &dyn Fn(MessageId) -> bool,
    tells_absences: bool,
) -> Result<(), String> {
    let settings = &plan.settings;
    let is_global = settings.watermark == WatermarkScope::Global;
    let rejections = outputs.rejections(ledger)?;
    if let Some(((id, index), _)) = rejections.iter().find(|((id, _), _)| !counted(*id)) {
        return Err(format!("reading {index} of message {id} was rejected and must not have been received"));
    }
    let found = under_one_name(outputs.newest()?);
    are_apart(outputs)?;
    let bounds = WindowBounds { sizes_ms: plan.sizes_ms(), found: &found };
    let expected = ledger.expect(counted, &rejections, &bounds, settings.allowed_lateness_ms, is_global)?;
    if tells_absences && let Some(key) = expected.late_without_window() {
        return Err(format!("readings in the window of {key:?} are late, and it has never fired"));
    }
    compare_windows(&found, expected)
}

/// The windows of a series that has another name in each version of the maps.
fn under_one_name(newest: NewestWindows<'_>) -> NewestWindows<'_> {
    let mut found = NewestWindows::new();
    for ((device, metric, start_ms), windows) in newest {
        found.entry((device, metric_name(&metric).to_owned(), start_ms)).or_default().extend(windows);
    }
    found
}

/// Windows of one series do not overlap, and begin where one of their size does. Where the clock was set back, windows may come
/// again, of another size too: they begin above revision 0.
fn are_apart(outputs: &Outputs) -> Result<(), String> {
    let mut fired: BTreeMap<(&str, &str), Vec<(i64, i64)>> = BTreeMap::new();
    for bytes in &outputs.windows {
        let window = WindowResult::decode(bytes).map_err(|error| error.to_string())?;
        let (start_ms, end_ms) = (window.window_start_ms, window.window_end_ms);
        if start_ms.rem_euclid(end_ms - start_ms) != 0 {
            return Err(format!("{window:?} does not begin where one of its size does"));
        }
        if window.supersedes.is_some() {
            continue;
        }
        let others = fired.entry((window.device_id, window.metric)).or_default();
        let overlapped = others.iter().find(|&&(from_ms, until_ms)| from_ms < end_ms && start_ms < until_ms);
        if let Some(overlapped) = overlapped.filter(|_| window.revision == 0) {
            return Err(format!("{window:?} overlaps the window {overlapped:?}, which fired before"));
        }
        others.push((start_ms, end_ms));
    }
    Ok(())
}

fn compare_windows(found: &NewestWindows<'_>, mut expected: Expected) -> Result<(), String> {
    for (key, windows) in found {
        let total: u64 = windows.iter().map(|window| window.count).sum();
        let sum: f64 = windows.iter().map(|window| window.sum).sum();
        if let Some(aggregate) = expected.windows.remove(key) {
            let agrees = match &windows[..] {
                [window] => agrees(window, &aggregate),
                // Its time was set back.
                _ => total == aggregate.count && sum == aggregate.sum,
            };
            if !agrees {
                return Err(format!("the window of {key:?} is {windows:?} and should be {aggregate:?}"));
            }
        } else if let Some(count) = expected.lossy.get(key) {
            if total > *count {
                return Err(format!("the window of {key:?} has {total} readings of {count} sent"));
            }
        } else if let Some((count, expected_sum)) = expected.untimed.get_mut(&(key.0.clone(), key.1.clone())) {
            *count = count.wrapping_sub(total);
            *expected_sum -= sum as i64;
        } else {
            return Err(format!("nobody sent what is in the window of {key:?}: {windows:?}"));
        }
    }
    if let Some((key, aggregate)) = expected.windows.first_key_value() {
        return Err(format!("the window of {key:?} is missing: {aggregate:?}"));
    }
    if let Some((series, (count, sum))) = expected.untimed.iter().find(|(_, left)| **left != (0, 0)) {
        return Err(format!("{series:?} lacks {} readings without event time, sum {sum}", *count as i64));
    }
    Ok(())
}

fn agrees(window: &WindowResult<'_>, expected: &ExpectedAggregate) -> bool {
    let near = |a: f64, b: f64| (a - b).abs() <= 1e-6 * (1.0 + b.abs());
    window.count == expected.count
        && window.sum == expected.sum
        && window.min == expected.min
        && window.max == expected.max
        && window.first == expected.first.1
        && window.last == expected.last.1
        && near(window.mean, expected.mean())
        && near(window.stddev, expected.stddev())
}
