//! What cookies are called.

use std::fmt;

use ryw_core::{SubjectKey, Tenant};

use crate::config::Config;

/// The name of a cookie: the session's own, or with a slot that of a session which was begun for this browser.
///
/// Each tenant has its own, so that a browser which goes from one to another and back finds its session again. The default tenant's
/// has no more than the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CookieName {
    base: &'static str,
    /// Two tenants of one hash take each other's cookie away, and a token says whose it is: nothing is read by the wrong one.
    tenant: Option<u32>,
    slot: Option<Slot>,
}

/// Tells the cookies apart in which sessions were begun: the start of the session's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot(u32);

impl CookieName {
    /// What the session's own is called in this tenant, where there are cookies.
    pub(crate) fn of(config: &Config, tenant: &Tenant) -> Option<Self> {
        let fnv_1a = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        let name = Some(tenant.as_str()).filter(|name| !name.is_empty());
        let tenant = name.map(|name| name.bytes().fold(0x811c_9dc5, fnv_1a));
        Some(Self { base: config.cookie.name()?, tenant, slot: None })
    }

    pub(crate) const fn with(self, slot: Slot) -> Self {
        Self { slot: Some(slot), ..self }
    }

    /// Whether both are of one tenant.
    pub(super) fn is_beside(self, other: Self) -> bool {
        self.tenant == other.tenant
    }

    pub(super) const fn slot(self) -> Option<Slot> {
        self.slot
    }

    /// Only what `Display` has written.
    pub(super) fn parse(base: &'static str, name: &[u8]) -> Option<Self> {
        let mut rest = name.strip_prefix(base.as_bytes())?;
        let mut part = |mark: u8| match rest.split_first() {
            Some((first, digits)) if *first == mark => {
                let (digits, behind) = digits.split_at_checked(8)?;
                rest = behind;
                hexadecimal(digits).map(Some)
            }
            _ => Some(None),
        };
        let (tenant, slot) = (part(b'.')?, part(b'-')?);
        rest.is_empty().then_some(Self { base, tenant, slot: slot.map(Slot) })
    }
}

impl Slot {
    pub(crate) fn of(session: &SubjectKey) -> Self {
        let [a, b, c, d, ..] = *session.as_bytes();
        Self(u32::from_be_bytes([a, b, c, d]))
    }
}

impl fmt::Display for CookieName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.base)?;
        if let Some(tenant) = self.tenant {
            write!(f, ".{tenant:08x}")?;
        }
        self.slot.map_or(Ok(()), |Slot(slot)| write!(f, "-{slot:08x}"))
    }
}

fn hexadecimal(digits: &[u8]) -> Option<u32> {
    let is_ours = digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    let digits = std::str::from_utf8(digits).ok().filter(|_| is_ours)?;
    u32::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cookies outlive releases: what a tenant's are called stays as it is. The hash is FNV-1a of the tenant's name.
    #[test]
    fn each_tenant_has_a_name_of_its_own() {
        let layer = crate::RywLayer::builder().cookie(crate::CookiePolicy::InsecureForDevelopment).build().unwrap();
        let of = |tenant: &Tenant| CookieName::of(&layer.config, tenant).unwrap();
        let slot = Slot::of(&SubjectKey::from_bytes([1, 0x23, 0x45, 0x67, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9]));
        let (nobody, foobar) = (of(&Tenant::default()), of(&"foobar".parse().unwrap()));
        for (name, text) in [
            (nobody, "ryw"),
            (nobody.with(slot), "ryw-01234567"),
            (foobar, "ryw.bf9cf968"),
            (foobar.with(slot), "ryw.bf9cf968-01234567"),
        ] {
            assert_eq!(name.to_string(), text);
            assert_eq!(CookieName::parse("ryw", text.as_bytes()), Some(name));
            assert_eq!(name.slot().is_some(), text.contains('-'));
            assert_eq!((name.is_beside(nobody), name.is_beside(foobar)), (!text.contains('.'), text.contains('.')));
        }
        let off = crate::RywLayer::builder().cookie(crate::CookiePolicy::Off).build().unwrap();
        assert_eq!(CookieName::of(&off.config, &Tenant::default()), None);
    }

    #[test]
    fn only_what_was_written_is_read() {
        for name in ["ryw", "ryw-0123abcd", "ryw.0123abcd", "ryw.89abcdef-01234567"] {
            assert_eq!(CookieName::parse("ryw", name.as_bytes()).unwrap().to_string(), name);
        }
        for name in [
            "",
            "ry",
            "rywx",
            "ryw-",
            "ryw.",
            "ryw-0123ABCD",
            "ryw-0123abc",
            "ryw-0123abcde",
            "ryw.+123abcd",
            "ryw-01234567.89abcdef",
            "ryw.01234567.89abcdef",
            "ryw.01234567-",
            "__Host-ryw",
        ] {
            assert_eq!(CookieName::parse("ryw", name.as_bytes()), None, "{name}");
        }
    }
}
