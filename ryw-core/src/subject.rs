//! Whom a mark is about.

use std::{fmt, str::FromStr, sync::Arc};

use crate::{SessionId, wire::MAX_NAME_LEN};

/// What a mark is about. A request may name several: it must see what any of them must see, and a write marks all.
///
/// ```
/// use ryw_core::Subject;
/// // Two devices of one user, and everybody who looks at one document.
/// let subjects = [Subject::user("u17")?, Subject::resource("doc/9")?];
/// # Ok::<(), ryw_core::NameError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subject {
    kind: Kind,
    name: Arc<str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Session = 1,
    User = 2,
    Resource = 3,
}

/// The namespace a subject lives in. The same name in two tenants is two subjects.
///
/// It should come from the authenticated side of a request. The default tenant is the empty name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tenant(Option<Arc<str>>);

/// A subject inside its tenant, as stores and tokens know it: a keyed hash (see [`Keyring`](crate::Keyring)), so
/// that neither carries names, and nobody without the key can aim at somebody else's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubjectKey([u8; 16]);

/// The start of a [`SubjectKey`], as eight hexadecimal digits: enough for people to tell subjects apart, the same wherever
/// the key is, and of no use to anybody who would like to have the key or the name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubjectTag([u8; 4]);

/// A name that is not acceptable. The text says which kind of name and what is accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed {what}: accepted are 1 to {MAX_NAME_LEN} of the characters A-Z a-z 0-9 . _ ~ -{}", if *.what == "resource" { " and /" } else { "" })]
pub struct NameError {
    what: &'static str,
}

impl NameError {
    pub(crate) const fn new(what: &'static str) -> Self {
        Self { what }
    }
}

impl Subject {
    /// A session.
    #[must_use]
    pub fn session(id: &SessionId) -> Self {
        Self { kind: Kind::Session, name: id.as_str().into() }
    }

    /// A user, on whichever device and in whichever session.
    ///
    /// # Errors
    /// When the name is not `[A-Za-z0-9._~-]{1,128}`.
    pub fn user(name: &str) -> Result<Self, NameError> {
        check_name("user", name.as_bytes())?;
        Ok(Self { kind: Kind::User, name: name.into() })
    }

    /// A thing that is written and read: a mark on it holds for everybody who names it.
    ///
    /// # Errors
    /// When the name is not `[A-Za-z0-9._~/-]{1,128}`.
    pub fn resource(name: &str) -> Result<Self, NameError> {
        check(name.as_bytes(), |b| is_name_byte(b) || b == b'/').then_some(()).ok_or(NameError::new("resource"))?;
        Ok(Self { kind: Kind::Resource, name: name.into() })
    }

    pub(crate) fn tag(&self) -> u8 {
        self.kind as u8
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

pub(crate) const SESSION_TAG: u8 = Kind::Session as u8;

impl Tenant {
    /// The tenant's name; empty for the default tenant.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }
}

impl FromStr for Tenant {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        check_name("tenant", name.as_bytes())?;
        Ok(Self(Some(name.into())))
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl SubjectKey {
    /// No subject's key: what a token says that names no session, as in a link that is shared.
    pub const NOBODY: Self = Self([0; 16]);

    /// The key with these bytes, as read from a token or a store.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The first eight bytes: evenly spread, because a key is a keyed hash.
    #[must_use]
    pub const fn hash(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }
}

impl SubjectKey {
    /// What logs and pages show of it.
    #[must_use]
    pub const fn tag(&self) -> SubjectTag {
        let [a, b, c, d, ..] = self.0;
        SubjectTag([a, b, c, d])
    }
}

impl fmt::Display for SubjectTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", u32::from_be_bytes(self.0))
    }
}

impl fmt::Debug for SubjectTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SubjectTag({self})")
    }
}

impl fmt::Debug for SubjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SubjectKey({:016x}…)", self.hash())
    }
}

pub(crate) fn check_name(what: &'static str, name: &[u8]) -> Result<(), NameError> {
    if check(name, is_name_byte) { Ok(()) } else { Err(NameError::new(what)) }
}

fn check(name: &[u8], accepted: fn(u8) -> bool) -> bool {
    (1..=MAX_NAME_LEN).contains(&name.len()) && name.iter().all(|byte| accepted(*byte))
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'~' | b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_resource_has_slashes_in_its_name() {
        let longest = "x".repeat(MAX_NAME_LEN);
        for name in ["a", "A.b_c~d-9", &longest] {
            let session: SessionId = name.parse().unwrap();
            let subjects = [Subject::session(&session), Subject::user(name).unwrap(), Subject::resource(name).unwrap()];
            assert!(subjects.iter().all(|subject| subject.name() == name));
            // They go into hashes that stores keep.
            assert_eq!(subjects.map(|subject| subject.tag()), [1, 2, 3]);
            assert_eq!(name.parse::<Tenant>().unwrap().as_str(), name);
        }
        assert_eq!(Subject::resource("doc/9").unwrap().name(), "doc/9");
        assert!(Subject::user("doc/9").is_err() && "doc/9".parse::<Tenant>().is_err());
        let too_long = "x".repeat(MAX_NAME_LEN + 1);
        for name in ["", " ", "a b", "a:b", "a\\b", "\u{fc}", "a\0", &too_long] {
            assert!(Subject::user(name).is_err() && Subject::resource(name).is_err(), "{name:?}");
            assert!(name.parse::<Tenant>().is_err(), "{name:?}");
        }
    }

    #[test]
    fn an_error_says_what_is_accepted() {
        let user = Subject::user("a/b").unwrap_err().to_string();
        assert!(user.contains("malformed user") && user.ends_with(" -"), "{user}");
        let resource = Subject::resource("a b").unwrap_err().to_string();
        assert!(resource.contains("malformed resource") && resource.ends_with(" - and /"), "{resource}");
    }

    #[test]
    fn the_default_tenant_has_no_name() {
        assert_eq!(Tenant::default().as_str(), "");
        assert_eq!("acme".parse::<Tenant>().unwrap().to_string(), "acme");
    }

    #[test]
    fn a_key_is_its_bytes() {
        let bytes = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];
        let key = SubjectKey::from_bytes(bytes);
        assert_eq!(*key.as_bytes(), bytes);
        assert_eq!(key.hash(), 0x0807_0605_0403_0201);
        assert_eq!(key.tag().to_string(), "01020304");
        assert_eq!(*SubjectKey::NOBODY.as_bytes(), [0; 16]);
    }
}
