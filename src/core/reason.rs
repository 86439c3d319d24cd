//! The reasons for which a reading is in no window.

/// Why a reading is in no window, in the order in which the reasons are checked. Of several that apply the first counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Reason {
    /// The payload is not JSON or not UTF-8, has none of the forms, is nested too deep or has too many readings.
    Malformed = 0,
    /// A field that the form needs is not there.
    MissingField = 1,
    /// A field has a type that does not fit.
    WrongType = 2,
    /// The device id is empty, too long or has a character that is not allowed.
    InvalidDeviceId = 3,
    /// The payload names another device than the topic.
    DeviceMismatch = 4,
    /// The metric name is empty, too long or has a character that is not allowed.
    InvalidMetric = 5,
    /// The value is outside the configured range of its metric.
    ValueOutOfRange = 6,
    /// The timestamp cannot be read.
    TimestampInvalid = 7,
    /// The event time is further ahead of the arrival than `validate.max_future`.
    TimestampInFuture = 8,
    /// The event time is further behind the arrival than `validate.max_age`.
    TimestampTooOld = 9,
    /// An allow-list is configured, and the device is not in it.
    UnknownDevice = 10,
    /// The same reading came before, under its `seq` or as its MQTT message.
    Duplicate = 11,
    /// The device would be one more than `limits.devices`, or than one user may introduce.
    TooManyDevices = 12,
    /// The metric would be one more than `limits.metrics_per_device`.
    TooManyMetrics = 13,
    /// The window of the reading is closed for good.
    Late = 14,
    /// The device itself reported a fault.
    DeviceError = 15,
    /// The `seq` of the reading came before, and nothing tells whether the reading did.
    SeqRepeated = 16,
    /// No birth of the edge node defines the alias of the metric (Sparkplug B).
    UnknownAlias = 17,
}

impl Reason {
    /// Number of reasons.
    pub const COUNT: usize = 18;

    /// All reasons, by discriminant.
    pub const ALL: [Reason; Self::COUNT] = [
        Reason::Malformed,
        Reason::MissingField,
        Reason::WrongType,
        Reason::InvalidDeviceId,
        Reason::DeviceMismatch,
        Reason::InvalidMetric,
        Reason::ValueOutOfRange,
        Reason::TimestampInvalid,
        Reason::TimestampInFuture,
        Reason::TimestampTooOld,
        Reason::UnknownDevice,
        Reason::Duplicate,
        Reason::TooManyDevices,
        Reason::TooManyMetrics,
        Reason::Late,
        Reason::DeviceError,
        Reason::SeqRepeated,
        Reason::UnknownAlias,
    ];

    /// Name of the reason in the API, in topics and in metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Reason::Malformed => "malformed",
            Reason::MissingField => "missing_field",
            Reason::WrongType => "wrong_type",
            Reason::InvalidDeviceId => "invalid_device_id",
            Reason::DeviceMismatch => "device_mismatch",
            Reason::InvalidMetric => "invalid_metric",
            Reason::ValueOutOfRange => "value_out_of_range",
            Reason::TimestampInvalid => "timestamp_invalid",
            Reason::TimestampInFuture => "timestamp_in_future",
            Reason::TimestampTooOld => "timestamp_too_old",
            Reason::UnknownDevice => "unknown_device",
            Reason::Duplicate => "duplicate",
            Reason::TooManyDevices => "too_many_devices",
            Reason::TooManyMetrics => "too_many_metrics",
            Reason::Late => "late",
            Reason::DeviceError => "device_error",
            Reason::SeqRepeated => "seq_repeated",
            Reason::UnknownAlias => "unknown_alias",
        }
    }

    /// Whether an error of this reason can be replayed. A duplicate is counted already, and a fault is no reading.
    pub fn is_replayable(self) -> bool {
        !matches!(self, Reason::Duplicate | Reason::DeviceError)
    }

    /// The reason with this discriminant.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }

    /// The reason with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == name)
    }
}
