//! Why a reading is in no window.

/// The reasons of the error side output, in the order in which they are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Reason {
    /// Not JSON, not UTF-8, not one of the forms, too deep, too many.
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
    /// Outside the metric's configured range.
    ValueOutOfRange = 6,
    /// The timestamp cannot be read.
    TimestampInvalid = 7,
    /// The event time is further ahead of the arrival than `validate.max_future`.
    TimestampInFuture = 8,
    /// The event time is further behind the arrival than `validate.max_age`.
    TimestampTooOld = 9,
    /// An allow-list is configured and lacks the device.
    UnknownDevice = 10,
    /// Its `seq`, or its MQTT identity, was counted already.
    Duplicate = 11,
    /// A new device beyond `limits.devices`.
    TooManyDevices = 12,
    /// A new metric beyond `limits.metrics_per_device`.
    TooManyMetrics = 13,
    /// Its window is closed for good.
    Late = 14,
    /// A fault that the device itself reported.
    DeviceError = 15,
}

impl Reason {
    /// Number of reasons.
    pub const COUNT: usize = 16;

    /// All of them, by discriminant.
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
    ];

    /// Its name in the API, topics and metric labels.
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
        }
    }

    /// Whether an error of this reason can be processed again: a duplicate is counted already, and a fault is no
    /// reading.
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
