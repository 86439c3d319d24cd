//! The user who published: part of the identity of a client, and the owner of the devices that the user introduced.

use crate::core::codec::{DecodeError, FieldReader, put_bytes};

/// Who published, as far as the journal tells it. `Name` is how the name is held: borrowed from a record, or kept in the
/// state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum RecordedUser<Name> {
    /// The record is of a version that did not record users.
    #[default]
    Unknown,
    /// A client without a user name.
    Anonymous,
    /// The user with this name.
    Named(Name),
}

impl<'a> RecordedUser<&'a str> {
    /// The user of a publish. `recorded` tells whether the records say who published, see
    /// [`Settings::records_name_users`](crate::core::settings::Settings).
    #[inline]
    pub(super) fn of(name: Option<&'a str>, recorded: bool) -> Self {
        match name {
            Some(name) => Self::Named(name),
            None if recorded => Self::Anonymous,
            None => Self::Unknown,
        }
    }

    /// The form that is kept in the state.
    pub(super) fn to_kept<Name: From<&'a str>>(self) -> RecordedUser<Name> {
        match self {
            Self::Unknown => RecordedUser::Unknown,
            Self::Anonymous => RecordedUser::Anonymous,
            Self::Named(name) => RecordedUser::Named(name.into()),
        }
    }

    /// Reads the stored form.
    pub(super) fn decode(reader: &mut FieldReader<'a>) -> Result<Self, DecodeError> {
        match reader.u8()? {
            0 => Ok(Self::Unknown),
            1 => Ok(Self::Anonymous),
            2 => reader.str().map(Self::Named),
            _ => Err(DecodeError::Content("a user")),
        }
    }
}

impl<Name> RecordedUser<Name> {
    /// The name of the user, if the user is known and not anonymous.
    pub fn name(self) -> Option<Name> {
        match self {
            Self::Named(name) => Some(name),
            Self::Unknown | Self::Anonymous => None,
        }
    }
}

impl<Name: AsRef<str>> RecordedUser<Name> {
    /// The same user, borrowed.
    #[inline]
    pub fn as_deref(&self) -> RecordedUser<&str> {
        match self {
            Self::Unknown => RecordedUser::Unknown,
            Self::Anonymous => RecordedUser::Anonymous,
            Self::Named(name) => RecordedUser::Named(name.as_ref()),
        }
    }

    /// Appends the stored form.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Unknown => out.push(0),
            Self::Anonymous => out.push(1),
            Self::Named(name) => {
                out.push(2);
                put_bytes(name.as_ref().as_bytes(), out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stored_form_reads_back() {
        for user in [RecordedUser::Unknown, RecordedUser::Anonymous, RecordedUser::Named(""), RecordedUser::Named("é")]
        {
            let mut bytes = Vec::new();
            user.encode(&mut bytes);
            assert_eq!(RecordedUser::decode(&mut FieldReader::new(&bytes)), Ok(user));
        }
        assert!(RecordedUser::decode(&mut FieldReader::new(&[3])).is_err());
    }
}
