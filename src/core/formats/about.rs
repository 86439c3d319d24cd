//! What a device says of itself.

use crate::core::codec::{DecodeError, FieldReader, put_bytes};

/// Longest text in bytes; what follows is cut off.
const MAX_TEXT_BYTES: usize = 128;

/// What a device says of itself, as far as it does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceAbout {
    /// Name for people, at most 128 bytes.
    pub name: Option<Box<str>>,
    /// Model, at most 128 bytes.
    pub model: Option<Box<str>>,
    /// Who makes it, at most 128 bytes.
    pub manufacturer: Option<Box<str>>,
}

impl DeviceAbout {
    /// A description of these texts. Empty ones, and those with control characters, are none.
    pub(super) fn new(name: Option<&str>, model: Option<&str>, manufacturer: Option<&str>) -> Self {
        Self { name: kept(name), model: kept(model), manufacturer: kept(manufacturer) }
    }

    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Takes what `newer` says. Returns whether that changes anything.
    pub(in crate::core) fn take(&mut self, newer: &Self) -> bool {
        let mut changed = false;
        for (mine, theirs) in [
            (&mut self.name, &newer.name),
            (&mut self.model, &newer.model),
            (&mut self.manufacturer, &newer.manufacturer),
        ] {
            if theirs.is_some() && mine != theirs {
                mine.clone_from(theirs);
                changed = true;
            }
        }
        changed
    }

    /// Appends the stored form.
    pub(in crate::core) fn encode(&self, out: &mut Vec<u8>) {
        for text in [&self.name, &self.model, &self.manufacturer] {
            put_bytes(text.as_deref().unwrap_or("").as_bytes(), out);
        }
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// What is not of the form.
    pub(in crate::core) fn decode(reader: &mut FieldReader<'_>) -> Result<Self, DecodeError> {
        let mut text = || match reader.str()? {
            "" => Ok(None),
            text if text.len() <= MAX_TEXT_BYTES => Ok(Some(text.into())),
            _ => Err(DecodeError::Content("a text about a device that is too long")),
        };
        Ok(Self { name: text()?, model: text()?, manufacturer: text()? })
    }
}

fn kept(text: Option<&str>) -> Option<Box<str>> {
    let text = text?.trim();
    let end = (0..=MAX_TEXT_BYTES.min(text.len())).rev().find(|&end| text.is_char_boundary(end))?;
    let text = text.get(..end)?.trim_end();
    (!text.is_empty() && !text.contains(char::is_control)).then(|| text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_later_counts() {
        let mut about = DeviceAbout::new(Some(" Kitchen "), Some(""), None);
        assert_eq!((about.name.as_deref(), &about.model), (Some("Kitchen"), &None));
        assert!(!about.take(&DeviceAbout::new(Some("Kitchen"), None, None)));
        assert!(about.take(&DeviceAbout::new(None, Some("TH-1"), Some("a\nb"))));
        assert_eq!(about, DeviceAbout::new(Some("Kitchen"), Some("TH-1"), None));
        assert_eq!(DeviceAbout::new(Some(&"é".repeat(100)), None, None).name.map(|name| name.len()), Some(128));
    }

    #[test]
    fn the_stored_form_reads_back() {
        let about = DeviceAbout::new(Some("Küche"), None, Some("m"));
        let mut bytes = Vec::new();
        about.encode(&mut bytes);
        assert_eq!(DeviceAbout::decode(&mut FieldReader::new(&bytes)), Ok(about));
        for len in 0..bytes.len() {
            assert!(DeviceAbout::decode(&mut FieldReader::new(&bytes[..len])).is_err(), "prefix of {len} bytes");
        }
        assert!(DeviceAbout::decode(&mut FieldReader::new(&[&[129][..], &[b'n'; 129], &[0, 0]].concat())).is_err());
    }
}
