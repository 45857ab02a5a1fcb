//! A session's marks, signed, for the client to carry.
//!
//! ```text
//! version 1 │ key id 1 │ tenant 8 │ session 16 │ issued at, s 4 │ n 1 │ n × (cluster 8, epoch 4, offset 8) │ flags 1 │ MAC 16
//! ```
//!
//! Numbers are big-endian. The MAC is HMAC-SHA-256 over everything before it, cut to 16 bytes. The whole is written
//! in base64url without padding. A token is a hint about freshness and widens no access.
//!
//! A token whose session is all zeros names none: it is [shared](Token::shared) in links, among people who are not one session.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use smallvec::SmallVec;

use crate::{
    Keyring, Mark, Marks, Position, SubjectKey, Tenant,
    wire::{MAC_LEN, MAX_POSITIONS, MAX_TOKEN_LEN, TENANT_LEN},
};

const VERSION: u8 = 1;
const UNKNOWN: u8 = 1;
const PENDING: u8 = 2;

/// What a client carries from response to request.
///
/// A loss that the session has yet to be told about is not carried: it is found again from the positions.
///
/// ```
/// use ryw_core::{Key, Keyring, Marks, Tenant, Token};
/// let keys = Keyring::random()?;
/// let tenant: Tenant = "acme".parse()?;
/// let token = Token {
///     session: keys.newest().session(&tenant, &"user-17".parse()?),
///     issued_at: 1_700_000_000,
///     marks: Marks::unknown(),
/// };
/// let text = token.seal(&keys, &tenant);
/// assert_eq!(Token::open(&keys, &tenant, &text)?, token);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Whose marks they are; [`SubjectKey::NOBODY`] for a token that names no session.
    pub session: SubjectKey,
    /// When it was issued, in seconds since 1970 by the issuer's clock.
    pub issued_at: u32,
    /// What the session must be able to see.
    pub marks: Marks,
}

/// A token that is not to be believed. The text never repeats the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Longer than any token.
    #[error("the token is longer than {MAX_TOKEN_LEN} characters")]
    TooLong,
    /// No token at all.
    #[error("the token is damaged: it is not what this service issues")]
    Malformed,
    /// A version that this release does not know.
    #[error("the token's version is not supported")]
    UnsupportedVersion,
    /// Signed by a key that is not active (any more), or forged.
    #[error("the token's signature does not verify with any active key")]
    BadSignature,
    /// Rightly signed, but for another tenant.
    #[error("the token belongs to another tenant")]
    OtherTenant,
}

impl Token {
    /// A token for others than the session that has it: they see what it says, and become no part of that session.
    #[must_use]
    pub const fn shared(issued_at: u32, marks: Marks) -> Self {
        Self { session: SubjectKey::NOBODY, issued_at, marks }
    }

    /// Whether it names no session.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.session == SubjectKey::NOBODY
    }

    /// The text form, signed with the newest key.
    #[must_use]
    pub fn seal(&self, keys: &Keyring, tenant: &Tenant) -> String {
        let key = keys.newest();
        let positions = self.marks.positions();
        let mut bytes = SmallVec::<[u8; 96]>::new();
        bytes.extend_from_slice(&[VERSION, key.id()]);
        bytes.extend_from_slice(&key.tenant(tenant));
        bytes.extend_from_slice(self.session.as_bytes());
        bytes.extend_from_slice(&self.issued_at.to_be_bytes());
        // Marks never hold more than MAX_POSITIONS, which fits in a byte.
        bytes.push(u8::try_from(positions.len()).unwrap_or(u8::MAX));
        for position in positions {
            bytes.extend_from_slice(&position.to_bytes());
        }
        let unknown = if self.marks.is_unknown() { UNKNOWN } else { 0 };
        let pending = if self.marks.is_pending() { PENDING } else { 0 };
        bytes.push(unknown | pending);
        let mac = key.sign(&bytes);
        bytes.extend_from_slice(&mac);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a token that one of `keys` has signed for `tenant`.
    ///
    /// # Errors
    /// [`TokenError`]; the signature is checked, in constant time, before any content is looked at.
    pub fn open(keys: &Keyring, tenant: &Tenant, text: &str) -> Result<Self, TokenError> {
        let mut buffer = [0; MAX_TOKEN_LEN];
        let (message, mac) = decode(text, &mut buffer)?;
        let key = message.get(1).and_then(|id| keys.find(*id)).ok_or(TokenError::BadSignature)?;
        if !key.verify(message, mac) {
            return Err(TokenError::BadSignature);
        }
        let mut reader = Reader(&message[2..]);
        if reader.take::<TENANT_LEN>()? != key.tenant(tenant) {
            return Err(TokenError::OtherTenant);
        }
        reader.content()
    }

    /// Reads what a token says, **without a key: anybody may have written it**.
    ///
    /// For clients, which have no key, to tell which of their tokens the others contain. Whoever serves data must
    /// [`open`](Self::open) a token instead.
    ///
    /// ```
    /// use ryw_core::{Keyring, Marks, Tenant, Token};
    /// let (keys, tenant) = (Keyring::random()?, Tenant::default());
    /// let session = keys.newest().session(&tenant, &"user-17".parse()?);
    /// let token = Token { session, issued_at: 1_700_000_000, marks: Marks::unknown() };
    /// assert_eq!(Token::peek(&token.seal(&keys, &tenant))?.token, token);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`TokenError::TooLong`], [`TokenError::Malformed`] and [`TokenError::UnsupportedVersion`]; whether a key has
    /// signed it is not found out.
    pub fn peek(text: &str) -> Result<Peeked, TokenError> {
        let mut buffer = [0; MAX_TOKEN_LEN];
        let (message, _) = decode(text, &mut buffer)?;
        let mut reader = Reader(message);
        let [_, key] = reader.take()?;
        Ok(Peeked { key, tenant: reader.take()?, token: reader.content()? })
    }
}

/// What a token says, as [`Token::peek`] has read it: nobody has checked its signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peeked {
    /// Which key it says that it is signed with.
    pub key: u8,
    /// The keyed hash of its tenant. Two keys give one tenant two hashes.
    pub tenant: [u8; TENANT_LEN],
    /// What it says.
    pub token: Token,
}

/// What is signed, and the signature; nothing of it is checked but the version.
fn decode<'a>(text: &str, buffer: &'a mut [u8; MAX_TOKEN_LEN]) -> Result<(&'a [u8], &'a [u8]), TokenError> {
    if text.len() > MAX_TOKEN_LEN {
        return Err(TokenError::TooLong);
    }
    let length = URL_SAFE_NO_PAD.decode_slice(text, buffer).map_err(|_| TokenError::Malformed)?;
    let bytes = &buffer[..length];
    let (&version, _) = bytes.split_first().ok_or(TokenError::Malformed)?;
    if version != VERSION {
        return Err(TokenError::UnsupportedVersion);
    }
    let split = bytes.len().checked_sub(MAC_LEN).ok_or(TokenError::Malformed)?;
    Ok(bytes.split_at(split))
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], TokenError> {
        let (head, rest) = self.0.split_first_chunk().ok_or(TokenError::Malformed)?;
        self.0 = rest;
        Ok(*head)
    }

    /// Everything after the tenant.
    fn content(mut self) -> Result<Token, TokenError> {
        let session = SubjectKey::from_bytes(self.take()?);
        let issued_at = u32::from_be_bytes(self.take()?);
        let [count] = self.take()?;
        if usize::from(count) > MAX_POSITIONS {
            return Err(TokenError::Malformed);
        }
        let mut marks = Marks::none();
        for _ in 0..count {
            marks.add(Mark::At(Position::from_bytes(self.take()?)));
        }
        let [flags] = self.take()?;
        if !self.0.is_empty() || flags & !(UNKNOWN | PENDING) != 0 {
            return Err(TokenError::Malformed);
        }
        if flags & UNKNOWN != 0 {
            marks.add(Mark::Unknown);
        }
        if flags & PENDING != 0 {
            marks.add(Mark::Pending);
        }
        Ok(Token { session, issued_at, marks })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{ClusterId, Epoch, Key};

    fn keys() -> Keyring {
        Keyring::new(Key::new(1, b"an example secret of 32 bytes...").unwrap())
    }

    fn acme() -> Tenant {
        "acme".parse().unwrap()
    }

    fn example(positions: &[(u64, u32, u64)], flags: &[Mark]) -> Token {
        let positions = positions.iter().map(|&(c, e, o)| Mark::At(Position::new(ClusterId::new(c), Epoch::new(e), o)));
        Token {
            session: keys().newest().session(&acme(), &"user-17".parse().unwrap()),
            issued_at: 0x6553_F100,
            marks: positions.chain(flags.iter().copied()).collect(),
        }
    }

    /// Other languages check themselves against these: key 1 with the secret above, tenant `acme`, session `user-17`.
    #[test]
    fn golden_vectors() {
        for (token, golden) in [
            (example(&[], &[]), GOLDEN_EMPTY),
            (example(&[(7_710_538_791_672_686_422, 1, 0x0402_5C18)], &[]), GOLDEN_ONE),
            (example(&[(1, 1, 100), (1, 2, u64::MAX), (9, 1, 5)], &[Mark::Unknown, Mark::Pending]), GOLDEN_MANY),
            (Token::shared(0x6553_F100, Marks::unknown()), GOLDEN_SHARED),
        ] {
            assert_eq!(token.seal(&keys(), &acme()), golden);
            assert_eq!(token.is_shared(), golden == GOLDEN_SHARED);
            assert_eq!(Token::open(&keys(), &acme(), golden), Ok(token.clone()));
            assert_eq!(Token::peek(golden).map(|peeked| (peeked.key, peeked.token)), Ok((1, token)));
        }
    }
    const GOLDEN_SHARED: &str = "AQFKdkRZ_fP-QwAAAAAAAAAAAAAAAAAAAABlU_EAAAElBjL911ucGS9jFvEdY9Es";
    const GOLDEN_EMPTY: &str = "AQFKdkRZ_fP-Q8fkIzsJNgo050Sb2UPoDFplU_EAAACI36bdBDvzYVprpyQe-SQs";
    const GOLDEN_ONE: &str =
        "AQFKdkRZ_fP-Q8fkIzsJNgo050Sb2UPoDFplU_EAAWsBVi3IhSdWAAAAAQAAAAAEAlwYAJGBkhn_aOa5535U6eiUnaY";
    const GOLDEN_MANY: &str = "AQFKdkRZ_fP-Q8fkIzsJNgo050Sb2UPoDFplU_EAAwAAAAAAAAABAAAAAQAAAAAAAABkAAAAAAAAAAEAAAAC__________8AAAAAAAAACQAAAAEAAAAAAAAABQPzCVrY--RHpWLjkXu5JmCW";

    #[test]
    fn a_full_token_fits_its_limit() {
        let positions: Vec<_> = (0..20).map(|c| (c, u32::MAX, u64::MAX)).collect();
        let token = example(&positions, &[]);
        assert_eq!(token.marks.positions().len(), MAX_POSITIONS);
        let text = token.seal(&keys(), &acme());
        assert!(text.len() <= MAX_TOKEN_LEN, "{}", text.len());
        assert_eq!(Token::open(&keys(), &acme(), &text), Ok(token));
    }

    #[test]
    fn old_keys_verify_until_they_are_retired() {
        let [old, new] = [1, 2].map(|id| Key::new(id, &[id; 32]).unwrap());
        let both = Keyring::new(new.clone()).and_accept(old.clone()).unwrap();
        let token = example(&[(1, 1, 1)], &[]);
        let text = token.seal(&Keyring::new(old), &acme());
        assert_eq!(Token::open(&both, &acme(), &text), Ok(token));
        assert_eq!(Token::open(&Keyring::new(new), &acme(), &text), Err(TokenError::BadSignature));
    }

    #[test]
    fn refuses_and_says_why() {
        let good = example(&[(1, 1, 1)], &[]).seal(&keys(), &acme());
        let resigned = |edit: fn(&mut Vec<u8>)| {
            let mut bytes = URL_SAFE_NO_PAD.decode(&good).unwrap();
            bytes.truncate(bytes.len() - MAC_LEN);
            edit(&mut bytes);
            let mac = keys().newest().sign(&bytes);
            bytes.extend(mac);
            URL_SAFE_NO_PAD.encode(bytes)
        };
        let cases = [
            (String::new(), TokenError::Malformed),
            ("not a token!".into(), TokenError::Malformed),
            (format!("{good}="), TokenError::Malformed),
            ("A".repeat(MAX_TOKEN_LEN + 1), TokenError::TooLong),
            ("A".repeat(MAX_TOKEN_LEN), TokenError::UnsupportedVersion),
            (URL_SAFE_NO_PAD.encode([2; 60]), TokenError::UnsupportedVersion),
            (URL_SAFE_NO_PAD.encode([1]), TokenError::Malformed),
            (URL_SAFE_NO_PAD.encode([1; 17]), TokenError::BadSignature),
            (good[..good.len() - 3].into(), TokenError::BadSignature),
            (resigned(|bytes| bytes[1] = 9), TokenError::BadSignature),
            // Rightly signed nonsense, as only somebody with the key could send.
            (resigned(|bytes| bytes.truncate(12)), TokenError::Malformed),
            (resigned(|bytes| bytes[30] = 2), TokenError::Malformed),
            (resigned(|bytes| bytes[30] = 17), TokenError::Malformed),
            (resigned(|bytes| *bytes.last_mut().unwrap() = 4), TokenError::Malformed),
            (resigned(|bytes| bytes.push(0)), TokenError::Malformed),
        ];
        for (text, expected) in cases {
            assert_eq!(Token::open(&keys(), &acme(), &text), Err(expected), "{text}");
            // Without a key everything is found but a bad signature.
            if expected != TokenError::BadSignature {
                assert_eq!(Token::peek(&text), Err(expected), "{text}");
            }
        }
        assert_eq!(Token::open(&keys(), &Tenant::default(), &good), Err(TokenError::OtherTenant));
    }

    proptest! {
        #[test]
        fn opens_what_was_sealed(
            positions in prop::collection::vec((any::<u64>(), any::<u32>(), any::<u64>()), 0..MAX_POSITIONS),
            unknown: bool, pending: bool, issued_at: u32, session: [u8; 16],
        ) {
            let mut token = example(&positions, &[]);
            if unknown { token.marks.add(Mark::Unknown); }
            if pending { token.marks.add(Mark::Pending); }
            token.issued_at = issued_at;
            token.session = SubjectKey::from_bytes(session);
            prop_assert_eq!(Token::open(&keys(), &acme(), &token.seal(&keys(), &acme())), Ok(token));
        }

        #[test]
        fn no_mutation_is_accepted(byte in 0usize..68, bit in 0u8..8) {
            let text = example(&[(1, 1, 1)], &[]).seal(&keys(), &acme());
            let mut bytes = URL_SAFE_NO_PAD.decode(text).unwrap();
            prop_assert_eq!(bytes.len(), 68);
            bytes[byte] ^= 1 << bit;
            prop_assert!(Token::open(&keys(), &acme(), &URL_SAFE_NO_PAD.encode(bytes)).is_err());
        }

        #[test]
        fn any_text_is_refused_calmly(text in ".{0,600}") {
            prop_assert!(Token::open(&keys(), &acme(), &text).is_err());
            prop_assert!(Token::peek(&text).is_err());
        }

        #[test]
        fn any_bytes_are_peeked_at_calmly(bytes in prop::collection::vec(any::<u8>(), 0..400), good: bool, at: u8, flip: u8) {
            let mut bytes = bytes;
            if good {
                // Close to a token: this gets past the version.
                bytes = URL_SAFE_NO_PAD.decode(example(&[(1, 1, 1), (2, 2, 2)], &[]).seal(&keys(), &acme())).unwrap();
                let at = usize::from(at) % bytes.len();
                bytes[at] ^= flip;
            }
            if let Ok(peeked) = Token::peek(&URL_SAFE_NO_PAD.encode(bytes)) {
                prop_assert!(peeked.token.marks.positions().len() <= MAX_POSITIONS);
            }
        }
    }
}
