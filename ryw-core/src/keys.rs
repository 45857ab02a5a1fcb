//! Secrets: what signs tokens and hides names.

use std::{fmt, hash::Hasher};

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use siphasher::sip128::{Hasher128, SipHasher24};

use crate::{
    SessionId, Subject, SubjectKey, Tenant,
    subject::SESSION_TAG,
    wire::{MAC_LEN, MIN_SECRET_LEN, TENANT_LEN},
};

/// One secret with a number. From it are derived: an HMAC-SHA-256 key that signs tokens, and a SipHash-2-4 key that
/// turns names into [`SubjectKey`]s.
#[derive(Clone)]
pub struct Key {
    id: u8,
    mac: Hmac<Sha256>,
    names: SipHasher24,
}

/// The active keys, newest first: the newest signs, all of them verify.
///
/// To rotate: first add the new key at the end on every instance, then put it first on every instance, and drop the
/// old one when the oldest tolerated token has expired.
///
/// ```
/// use ryw_core::{Key, Keyring};
/// let keys = Keyring::new(Key::new(2, &[7; 32])?).and_accept(Key::new(1, &[3; 32])?)?;
/// assert_eq!(keys.newest().id(), 2);
/// # Ok::<(), ryw_core::KeyError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Keyring {
    keys: Vec<Key>,
}

/// A key that can't be used. The text never contains the secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The secret is too short to be one.
    #[error("a signing secret of {given} bytes is too short: give at least {MIN_SECRET_LEN} random bytes")]
    TooShort {
        /// Length of the secret that was given, in bytes.
        given: usize,
    },
    /// The text form could not be read.
    #[error(
        "keys are written as <id 0-255>:<secret, {MIN_SECRET_LEN} or more bytes in base64>, several separated by commas, newest first; entry {entry} is not"
    )]
    Malformed {
        /// Which entry, counted from 1.
        entry: usize,
    },
    /// Two keys have the same number.
    #[error("key id {id} is used twice: each active key needs a number of its own")]
    DuplicateId {
        /// The number.
        id: u8,
    },
    /// The environment variable is not there, or is not UTF-8.
    #[error("environment variable {name} is not set: put the signing keys there, as <id>:<base64>[,<id>:<base64>…]")]
    NotSet {
        /// Name of the variable.
        name: String,
        /// Why it could not be read.
        #[source]
        source: std::env::VarError,
    },
    /// The operating system has no randomness to give.
    #[error("no randomness from the operating system: {0}")]
    NoRandomness(String),
}

impl Key {
    /// A key from at least 32 secret bytes. `id` is the number that tokens name it by.
    ///
    /// # Errors
    /// [`KeyError::TooShort`].
    pub fn new(id: u8, secret: &[u8]) -> Result<Self, KeyError> {
        let too_short = KeyError::TooShort { given: secret.len() };
        if secret.len() < MIN_SECRET_LEN {
            return Err(too_short);
        }
        let mut derive = Hmac::<Sha256>::new_from_slice(secret).map_err(|_| too_short.clone())?;
        derive.update(b"tower-ryw names v1");
        let mut names = [0; 16];
        names.copy_from_slice(&derive.finalize().into_bytes()[..16]);

        let mut derive = Hmac::<Sha256>::new_from_slice(secret).map_err(|_| too_short.clone())?;
        derive.update(b"tower-ryw token v1");
        let mac = Hmac::<Sha256>::new_from_slice(&derive.finalize().into_bytes()).map_err(|_| too_short)?;
        Ok(Self { id, mac, names: SipHasher24::new_with_key(&names) })
    }

    /// A key that nobody else has: it lives as long as the process.
    ///
    /// # Errors
    /// [`KeyError::NoRandomness`].
    pub fn random() -> Result<Self, KeyError> {
        let mut secret = [0; MIN_SECRET_LEN];
        getrandom::fill(&mut secret).map_err(|error| KeyError::NoRandomness(error.to_string()))?;
        Self::new(0, &secret)
    }

    /// The number that tokens name this key by.
    #[must_use]
    pub const fn id(&self) -> u8 {
        self.id
    }

    /// The key of `subject` in `tenant`.
    #[must_use]
    pub fn subject(&self, tenant: &Tenant, subject: &Subject) -> SubjectKey {
        self.hash(subject.tag(), tenant, subject.name())
    }

    /// The key of a session in `tenant`.
    #[must_use]
    pub fn session(&self, tenant: &Tenant, session: &SessionId) -> SubjectKey {
        self.hash(SESSION_TAG, tenant, session.as_str())
    }

    pub(crate) fn tenant(&self, tenant: &Tenant) -> [u8; TENANT_LEN] {
        let mut short = [0; TENANT_LEN];
        short.copy_from_slice(&self.hash(0, tenant, "").as_bytes()[..TENANT_LEN]);
        short
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; MAC_LEN] {
        let mut mac = self.mac.clone();
        mac.update(message);
        let mut short = [0; MAC_LEN];
        short.copy_from_slice(&mac.finalize().into_bytes()[..MAC_LEN]);
        short
    }

    /// Constant-time.
    pub(crate) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        let mut mac = self.mac.clone();
        mac.update(message);
        signature.len() == MAC_LEN && mac.verify_truncated_left(signature).is_ok()
    }

    /// The tenant's length goes first: no two pairs of names run into the same bytes.
    fn hash(&self, tag: u8, tenant: &Tenant, name: &str) -> SubjectKey {
        let tenant = tenant.as_str().as_bytes();
        let head = [tag, u8::try_from(tenant.len()).unwrap_or(u8::MAX)];
        let mut hasher = self.names;
        let parts = [&head, tenant, name.as_bytes()];
        let mut message = [0; 64];
        let mut rest = &mut message[..];
        // In one piece where it is short, as it nearly always is: each piece costs the hasher about as much as all of them.
        if parts.iter().map(|part| part.len()).sum::<usize>() <= rest.len() {
            for part in parts {
                let (taken, free) = rest.split_at_mut(part.len());
                taken.copy_from_slice(part);
                rest = free;
            }
            let free = rest.len();
            hasher.write(&message[..message.len() - free]);
        } else {
            parts.iter().for_each(|part| hasher.write(part));
        }
        let hash = hasher.finish128();
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&hash.h1.to_le_bytes());
        bytes[8..].copy_from_slice(&hash.h2.to_le_bytes());
        SubjectKey::from_bytes(bytes)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Keyring {
    /// A ring with one key.
    #[must_use]
    pub fn new(key: Key) -> Self {
        Self { keys: vec![key] }
    }

    /// A ring with one [random key](Key::random): tokens are good for this process only.
    ///
    /// # Errors
    /// [`KeyError::NoRandomness`].
    pub fn random() -> Result<Self, KeyError> {
        Key::random().map(Self::new)
    }

    /// Also accepts what `key` has signed. Order of preference: the order of calls.
    ///
    /// # Errors
    /// [`KeyError::DuplicateId`].
    pub fn and_accept(mut self, key: Key) -> Result<Self, KeyError> {
        if self.find(key.id).is_some() {
            return Err(KeyError::DuplicateId { id: key.id });
        }
        self.keys.push(key);
        Ok(self)
    }

    /// Reads `<id>:<base64>[,<id>:<base64>…]`, newest first.
    ///
    /// # Errors
    /// [`KeyError::Malformed`], [`KeyError::TooShort`] or [`KeyError::DuplicateId`]; none of them repeats the text.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let mut ring: Option<Self> = None;
        for (entry, part) in (1..).zip(text.split(',')) {
            let malformed = KeyError::Malformed { entry };
            let (id, secret) = part.trim().split_once(':').ok_or_else(|| malformed.clone())?;
            let id = id.trim().parse().map_err(|_| malformed.clone())?;
            let secret = STANDARD.decode(secret.trim()).map_err(|_| malformed)?;
            let key = Key::new(id, &secret)?;
            ring = Some(match ring {
                None => Self::new(key),
                Some(ring) => ring.and_accept(key)?,
            });
        }
        ring.ok_or(KeyError::Malformed { entry: 1 })
    }

    /// Reads the environment variable `name`, in the form that [`parse`](Self::parse) takes.
    ///
    /// # Errors
    /// [`KeyError::NotSet`], or as [`parse`](Self::parse).
    pub fn from_env(name: &str) -> Result<Self, KeyError> {
        let text = std::env::var(name).map_err(|source| KeyError::NotSet { name: name.to_owned(), source })?;
        Self::parse(&text)
    }

    /// The key that signs.
    #[must_use]
    pub fn newest(&self) -> &Key {
        &self.keys[0]
    }

    /// All active keys, newest first.
    pub fn iter(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter()
    }

    pub(crate) fn find(&self, id: u8) -> Option<&Key> {
        self.keys.iter().find(|key| key.id == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_separated_by_tenant_kind_and_key() {
        let key = Key::new(1, &[1; 32]).unwrap();
        let other = Key::new(1, &[2; 32]).unwrap();
        let (ab, a) = ("ab".parse::<Tenant>().unwrap(), "a".parse::<Tenant>().unwrap());
        let keys = [
            key.subject(&ab, &Subject::user("c").unwrap()),
            key.subject(&a, &Subject::user("bc").unwrap()),
            key.subject(&a, &Subject::resource("bc").unwrap()),
            key.session(&a, &"bc".parse().unwrap()),
            key.session(&Tenant::default(), &"abc".parse().unwrap()),
            other.session(&a, &"bc".parse().unwrap()),
        ];
        for (i, one) in keys.iter().enumerate() {
            assert!(keys[i + 1..].iter().all(|two| one != two), "{i}");
        }
        let session: SessionId = "bc".parse().unwrap();
        assert_eq!(key.session(&a, &session), key.subject(&a, &Subject::session(&session)));
    }

    #[test]
    fn a_name_has_one_key_however_long_it_is() {
        let key = Key::new(1, &[1; 32]).unwrap();
        let tenant: Tenant = "acme".parse().unwrap();
        for length in [1, 57, 58, 59, 128] {
            let name = "x".repeat(length);
            let mut in_pieces = key.names;
            [&[SESSION_TAG, 4], &b"acme"[..], name.as_bytes()].iter().for_each(|piece| in_pieces.write(piece));
            let expected = in_pieces.finish128();
            let [h1, h2] = [expected.h1, expected.h2].map(u64::to_le_bytes);
            assert_eq!(*key.session(&tenant, &name.parse().unwrap()).as_bytes(), *[h1, h2].concat(), "{length}");
        }
    }

    #[test]
    fn text_form() {
        let secret = STANDARD.encode([9; 32]);
        let ring = Keyring::parse(&format!("2:{secret}, 1:{secret}")).unwrap();
        assert_eq!(ring.iter().map(Key::id).collect::<Vec<_>>(), [2, 1]);
        for (text, expected) in [
            (String::new(), KeyError::Malformed { entry: 1 }),
            ("secret".into(), KeyError::Malformed { entry: 1 }),
            (format!("1:{secret},2"), KeyError::Malformed { entry: 2 }),
            (format!("256:{secret}"), KeyError::Malformed { entry: 1 }),
            (format!("1:{}", STANDARD.encode([9; 31])), KeyError::TooShort { given: 31 }),
            (format!("1:{secret},1:{secret}"), KeyError::DuplicateId { id: 1 }),
        ] {
            let error = Keyring::parse(&text).unwrap_err();
            assert_eq!(error, expected);
            assert!(!error.to_string().contains(&secret));
        }
        assert!(Keyring::from_env("RYW_TEST_NOT_SET").unwrap_err().to_string().contains("RYW_TEST_NOT_SET"));
        assert!(!format!("{ring:?}").contains('9'), "secrets are not printed: {ring:?}");
    }
}
