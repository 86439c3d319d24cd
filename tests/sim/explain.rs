//! Prints what is known of one device, to understand a seed that fails.

use weir::core::output::WindowResult;

use super::campaign::tell;
use super::ledger::{SimLedger, SimMessage};
use super::outputs::{Outputs, batch_times};
use super::process::SimProcess;

/// Prints the arrival times of the journal, the windows of a device, and its messages with the rejections of their readings.
pub fn tell_device(device: &str, process: &SimProcess, ledger: &SimLedger) -> Result<(), String> {
    let [journal, windows, errors] = &process.logs;
    for (name, log) in [("the journal", journal), ("windows", windows), ("errors", errors)] {
        for (first, arrival_ms, set_back) in batch_times(log)? {
            let set_back = if set_back { ", which sets the clock back" } else { "" };
            tell(&format!("batch {first} of {name} arrived at {arrival_ms}{set_back}"));
        }
    }
    let outputs = Outputs::read(windows, errors)?;
    for (seq, bytes) in outputs.windows.iter().enumerate() {
        let window = WindowResult::decode(bytes).map_err(|error| error.to_string())?;
        if window.device_id == device {
            tell(&format!("window {seq}: {window:?}"));
        }
    }
    let rejections = outputs.rejections(ledger)?;
    for (id, message) in ledger.messages.iter().enumerate() {
        let of_device = (0u32..).zip(&message.readings).filter(|(_, reading)| reading.device == device);
        for (index, reading) in of_device {
            let SimMessage { client, sent, acknowledged, lossy, payload, .. } = message;
            let (reasons, text) = (rejections.get(&(id, index)), String::from_utf8_lossy(payload));
            tell(&format!(
                "message {id} of {client}, sent {sent} times, acknowledged: {acknowledged}, lossy: {lossy}: \
                 {reading:?}, rejected: {reasons:?}: {text}"
            ));
        }
    }
    Ok(())
}
