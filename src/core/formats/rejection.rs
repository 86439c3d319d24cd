//! Why a reading of a map is no reading, as far as the message alone tells: what commands show without a running weir.

use super::mapped::{MappedElement, MappedReading, MappedTime, MappedValue};
use crate::core::problem::ReadingProblem;
use crate::core::reason::Reason;
use crate::core::validate::{is_device_id, is_metric};

impl MappedElement<'_> {
    /// The reason for which a reading of this element is rejected, with its sentence; `None`: the message says nothing against it.
    /// Settings such as ranges and ages are not looked at.
    pub fn rejection(&self, reading: &MappedReading<'_>) -> Option<(Reason, String)> {
        let problem = self.problem(reading)?;
        Some((problem.reason(), problem.to_string()))
    }

    fn problem<'m>(&'m self, reading: &'m MappedReading<'_>) -> Option<ReadingProblem<'m>> {
        let value = match &reading.value {
            MappedValue::Number(_) => None,
            MappedValue::Text(text) => Some(ReadingProblem::TextValue(text)),
            MappedValue::NameTwice(first, second) => Some(ReadingProblem::NameTwice { first, second }),
            MappedValue::UnknownAlias(alias) => Some(ReadingProblem::UnknownAlias(*alias)),
            MappedValue::Malformed(what) => Some(ReadingProblem::MalformedPart(what)),
        };
        let time = match &self.time {
            MappedTime::Invalid(text) => Some(ReadingProblem::InvalidTimestamp(text)),
            _ => None,
        };
        let device = (!is_device_id(&self.device)).then_some(ReadingProblem::InvalidDeviceId(&self.device));
        let metric = (!is_metric(&reading.metric)).then_some(ReadingProblem::InvalidMetric(&reading.metric));
        let is_named = !matches!(reading.value, MappedValue::UnknownAlias(_) | MappedValue::Malformed(_));
        [value, device, metric.filter(|_| is_named), time].into_iter().flatten().min_by_key(ReadingProblem::reason)
    }
}
