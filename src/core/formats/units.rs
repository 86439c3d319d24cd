//! Units that weir converts.

/// A unit: temperature, energy or pressure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum MeasureUnit {
    /// °C.
    Celsius,
    /// °F.
    Fahrenheit,
    /// K.
    Kelvin,
    /// So many watt hours.
    Energy(f64, &'static str),
    /// So many pascals.
    Pressure(f64, &'static str),
}

/// Units by their names in lower case, without the sign of a degree.
const UNITS: [(&str, MeasureUnit); 20] = [
    ("celsius", MeasureUnit::Celsius),
    ("c", MeasureUnit::Celsius),
    ("fahrenheit", MeasureUnit::Fahrenheit),
    ("f", MeasureUnit::Fahrenheit),
    ("kelvin", MeasureUnit::Kelvin),
    ("k", MeasureUnit::Kelvin),
    ("wh", MeasureUnit::Energy(1.0, "Wh")),
    ("kwh", MeasureUnit::Energy(1e3, "kWh")),
    ("mwh", MeasureUnit::Energy(1e6, "MWh")),
    ("pa", MeasureUnit::Pressure(1.0, "Pa")),
    ("hpa", MeasureUnit::Pressure(100.0, "hPa")),
    ("mbar", MeasureUnit::Pressure(100.0, "mbar")),
    ("kpa", MeasureUnit::Pressure(1e3, "kPa")),
    ("bar", MeasureUnit::Pressure(1e5, "bar")),
    ("mmhg", MeasureUnit::Pressure(133.322_387_415, "mmHg")),
    ("inhg", MeasureUnit::Pressure(3_386.389, "inHg")),
    ("psi", MeasureUnit::Pressure(6_894.757_293_168, "psi")),
    ("degc", MeasureUnit::Celsius),
    ("degf", MeasureUnit::Fahrenheit),
    ("cel", MeasureUnit::Celsius),
];

impl MeasureUnit {
    /// The unit with this name, without regard to case.
    pub fn of(name: &str) -> Option<Self> {
        let name = name.trim();
        let name = name.strip_prefix('°').unwrap_or(name);
        UNITS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, unit)| *unit)
    }

    /// How the unit is written.
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Celsius => "°C",
            Self::Fahrenheit => "°F",
            Self::Kelvin => "K",
            Self::Energy(_, symbol) | Self::Pressure(_, symbol) => symbol,
        }
    }

    /// `value`, which is in this unit, in the unit `to`; `None` where they measure different things.
    pub fn convert(self, value: f64, to: Self) -> Option<f64> {
        match (self, to) {
            _ if self == to => Some(value),
            (Self::Energy(from, _), Self::Energy(to, _)) | (Self::Pressure(from, _), Self::Pressure(to, _)) => {
                // A division by a whole number is exact where a product with its inverse is not.
                Some(if from < to { value / (to / from) } else { value * (from / to) })
            }
            (from, to) => to.of_celsius(from.celsius(value)?),
        }
    }

    fn celsius(self, value: f64) -> Option<f64> {
        match self {
            Self::Celsius => Some(value),
            Self::Fahrenheit => Some((value - 32.0) * 5.0 / 9.0),
            Self::Kelvin => Some(value - 273.15),
            _ => None,
        }
    }

    fn of_celsius(self, celsius: f64) -> Option<f64> {
        match self {
            Self::Celsius => Some(celsius),
            Self::Fahrenheit => Some(celsius * 9.0 / 5.0 + 32.0),
            Self::Kelvin => Some(celsius + 273.15),
            _ => None,
        }
    }
}
