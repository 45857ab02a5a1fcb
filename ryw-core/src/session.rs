//! Names of sessions.

use std::{fmt, str::FromStr};

use http::HeaderValue;
use uuid::Uuid;

use crate::{KeyError, NameError, subject::check_name};

/// The name of a session: `[A-Za-z0-9._~-]{1,128}`.
///
/// It names whose marks are meant and is no credential. Cheap to clone; it goes into a header without copying.
///
/// ```
/// use ryw_core::SessionId;
/// let chosen: SessionId = "user-17".parse()?;
/// assert_eq!(chosen.as_str(), "user-17");
/// assert!("two words".parse::<SessionId>().is_err());
/// # Ok::<(), ryw_core::NameError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SessionId(HeaderValue);

impl SessionId {
    /// A new name: 128 bits from the system's random number generator, as 32 hexadecimal digits.
    ///
    /// # Errors
    /// [`KeyError::NoRandomness`], which on current systems does not happen after boot.
    pub fn random() -> Result<Self, KeyError> {
        let mut bits = [0; 16];
        getrandom::fill(&mut bits).map_err(|error| KeyError::NoRandomness(error.to_string()))?;
        let mut digits = [0; 32];
        let text: &str = Uuid::from_bytes(bits).simple().encode_lower(&mut digits);
        Ok(Self(HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("invalid"))))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Checked when it was made: visible ASCII only.
        self.0.to_str().unwrap_or_default()
    }

    /// The name as the value of an `X-Session-ID` header.
    #[must_use]
    pub fn header_value(&self) -> &HeaderValue {
        &self.0
    }
}

impl TryFrom<&HeaderValue> for SessionId {
    type Error = NameError;

    fn try_from(value: &HeaderValue) -> Result<Self, Self::Error> {
        check_name("session id", value.as_bytes())?;
        Ok(Self(value.clone()))
    }
}

impl FromStr for SessionId {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        check_name("session id", name.as_bytes())?;
        HeaderValue::from_str(name).map(Self).map_err(|_| NameError::new("session id"))
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({})", self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn random_names_are_valid_and_differ() {
        let names: HashSet<String> = (0..1000).map(|_| SessionId::random().unwrap().to_string()).collect();
        assert_eq!(names.len(), 1000);
        assert!(names.iter().all(|name| name.len() == 32 && name.parse::<SessionId>().is_ok()));
    }

    #[test]
    fn accepts_the_alphabet_and_nothing_else() {
        for name in ["a", "A.b_c~d-9", &"x".repeat(128)] {
            let id: SessionId = name.parse().unwrap();
            assert_eq!((id.as_str(), id.header_value().as_bytes()), (name, name.as_bytes()));
            assert_eq!(SessionId::try_from(id.header_value()), Ok(id));
        }
        for name in ["", " ", "a b", "a\r\nSet-Cookie: x", "ü", "a/b", "a\0", &"x".repeat(129)] {
            let error = name.parse::<SessionId>().unwrap_err().to_string();
            assert!(error.contains("session id") && error.contains("128"), "{error}");
            let value = HeaderValue::from_bytes(name.as_bytes());
            assert!(value.is_err() || SessionId::try_from(&value.unwrap()).is_err(), "{name:?}");
        }
    }
}
