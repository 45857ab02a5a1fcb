//! A session's marks, signed, for the client to carry.
//!
//! ```text
//! version 1 │ key id 1 │ tenant 8 │ session 16 │ issued at, s 4 │ n 1 │ n × (cluster 8, epoch 4, offset 8) │ flags 1 │ MAC 16
//! ```
//!
//! Numbers are big-endian. The MAC is HMAC-SHA-256 over everything before it, cut to 16 bytes. The whole is written
//! in base64url without padding. A token is a hint about freshness and widens no access.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::{
    Keyring, Mark, Marks, Position, SubjectKey, Tenant,
    wire::{MAC_LEN, MAX_POSITIONS, MAX_TOKEN_LEN, TENANT_LEN},
};

const VERSION: u8 = 1;
const HEAD_LEN: usize = 2 + TENANT_LEN + 16 + 4 + 1;
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
    /// Whose marks they are.
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
    /// The text form, signed with the newest key.
    #[must_use]
    pub fn seal(&self, keys: &Keyring, tenant: &Tenant) -> String {
        let key = keys.newest();
        let positions = self.marks.positions();
        let mut bytes = Vec::with_capacity(HEAD_LEN + positions.len() * Position::LEN + 1 + MAC_LEN);
        bytes.extend([VERSION, key.id()]);
        bytes.extend(key.tenant(tenant));
        bytes.extend(self.session.as_bytes());
        bytes.extend(self.issued_at.to_be_bytes());
        // Marks never hold more than MAX_POSITIONS, which fits in a byte.
        bytes.push(u8::try_from(positions.len()).unwrap_or(u8::MAX));
        for position in positions {
            bytes.extend(position.to_bytes());
        }
        let unknown = if self.marks.is_unknown() { UNKNOWN } else { 0 };
        let pending = if self.marks.is_pending() { PENDING } else { 0 };
        bytes.push(unknown | pending);
        let mac = key.sign(&bytes);
        bytes.extend(mac);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a token that one of `keys` has signed for `tenant`.
    ///
    /// # Errors
    /// [`TokenError`]; the signature is checked, in constant time, before any content is looked at.
    pub fn open(keys: &Keyring, tenant: &Tenant, text: &str) -> Result<Self, TokenError> {
        if text.len() > MAX_TOKEN_LEN {
            return Err(TokenError::TooLong);
        }
        let mut buffer = [0; MAX_TOKEN_LEN];
        let length = URL_SAFE_NO_PAD.decode_slice(text, &mut buffer).map_err(|_| TokenError::Malformed)?;
        let bytes = &buffer[..length];
        let (&version, _) = bytes.split_first().ok_or(TokenError::Malformed)?;
        if version != VERSION {
            return Err(TokenError::UnsupportedVersion);
        }
        let split = bytes.len().checked_sub(MAC_LEN).ok_or(TokenError::Malformed)?;
        let (message, mac) = bytes.split_at(split);
        let key = message.get(1).and_then(|id| keys.find(*id)).ok_or(TokenError::BadSignature)?;
        if !key.verify(message, mac) {
            return Err(TokenError::BadSignature);
        }
        let mut reader = Reader(&message[2..]);
        if reader.take::<TENANT_LEN>()? != key.tenant(tenant) {
            return Err(TokenError::OtherTenant);
        }
        let session = SubjectKey::from_bytes(reader.take()?);
        let issued_at = u32::from_be_bytes(reader.take()?);
        let [count] = reader.take()?;
        if usize::from(count) > MAX_POSITIONS {
            return Err(TokenError::Malformed);
        }
        let mut marks = Marks::none();
        for _ in 0..count {
            marks.add(Mark::At(Position::from_bytes(reader.take()?)));
        }
        let [flags] = reader.take()?;
        if !reader.0.is_empty() || flags & !(UNKNOWN | PENDING) != 0 {
            return Err(TokenError::Malformed);
        }
        if flags & UNKNOWN != 0 {
            marks.add(Mark::Unknown);
        }
        if flags & PENDING != 0 {
            marks.add(Mark::Pending);
        }
        Ok(Self { session, issued_at, marks })
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], TokenError> {
        let (head, rest) = self.0.split_first_chunk().ok_or(TokenError::Malformed)?;
        self.0 = rest;
        Ok(*head)
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
        ] {
            assert_eq!(token.seal(&keys(), &acme()), golden);
            assert_eq!(Token::open(&keys(), &acme(), golden), Ok(token));
        }
    }
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
        }
    }
}
