//! Which hosts a session may be told to.

use std::{fmt, str::FromStr};

use http::{
    Uri,
    uri::{Authority, Scheme},
};

use crate::error::{ConfigError, ConfigErrorKind};

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    /// To a host that its URI names.
    Host(Origin),
    /// The URI names no host: to wherever the inner service is connected.
    Channel,
}

/// A scheme, a host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    secure: bool,
    /// In lower case.
    host: Box<str>,
    port: u16,
    /// A redirect has led here in clear text, from where nobody else could read along.
    downgraded: bool,
}

/// One host, or all below a domain, that a session may be told to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostRule {
    secure: Option<bool>,
    host: Pattern,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Exactly(String),
    /// With its leading dot.
    Below(String),
}

impl Destination {
    pub(crate) fn of(uri: &Uri) -> Self {
        match (uri.host(), Origin::of(uri)) {
            (None, _) => Self::Channel,
            (_, Some(origin)) => Self::Host(origin),
            // A host without a scheme, as `CONNECT` has it, is nobody that a rule can speak about.
            (Some(host), None) => {
                Self::Host(Origin { secure: false, host: host.to_ascii_lowercase().into(), port: 0, downgraded: false })
            }
        }
    }

    /// The same for a request that redirects have led here, after one of its hops went over https.
    pub(crate) fn after_https(mut self) -> Self {
        if let Self::Host(origin) = &mut self {
            origin.downgraded = !origin.secure;
        }
        self
    }
}

impl Origin {
    /// `None` when the URI has no scheme of HTTP or no host.
    pub(crate) fn of(uri: &Uri) -> Option<Self> {
        let secure = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            _ => return None,
        };
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        Some(Self { secure, host: uri.host()?.to_ascii_lowercase().into(), port, downgraded: false })
    }
}

impl Origin {
    /// Whether this is an origin as it is written down here.
    pub(crate) fn is(text: &str) -> bool {
        let origin = text.parse().ok().and_then(|uri| Self::of(&uri));
        origin.is_some_and(|origin| origin.to_string() == text)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", if self.secure { "https" } else { "http" }, self.host, self.port)
    }
}

impl HostRule {
    pub(crate) fn admits(&self, origin: &Origin) -> bool {
        let host = match &self.host {
            Pattern::Exactly(host) => **host == *origin.host,
            Pattern::Below(domain) => origin.host.len() > domain.len() && origin.host.ends_with(domain.as_str()),
        };
        // What a server has made of https is clear text only for whoever has said so.
        let scheme = self.secure.map_or(!origin.downgraded, |secure| secure == origin.secure);
        host && scheme && self.port.is_none_or(|port| port == origin.port)
    }
}

impl FromStr for HostRule {
    type Err = ConfigError;

    fn from_str(rule: &str) -> Result<Self, Self::Err> {
        let (secure, rest) = match rule.split_once("://") {
            Some(("https", rest)) => (Some(true), rest),
            Some(("http", rest)) => (Some(false), rest),
            Some(_) => return Err(malformed(rule)),
            None => (None, rule),
        };
        let (below, rest) = match rest.strip_prefix("*.") {
            Some(domain) => (true, domain),
            None => (false, rest),
        };
        if rest.contains(['@', '*', '/', '?', '#']) || rest.starts_with('.') {
            return Err(malformed(rule));
        }
        let authority: Authority = rest.parse().map_err(|_| malformed(rule))?;
        let host = authority.host().to_ascii_lowercase();
        // `host:` and ports that are no numbers are accepted by `Authority`.
        if host.is_empty() || authority.as_str().len() > authority.host().len() && authority.port_u16().is_none() {
            return Err(malformed(rule));
        }
        let pattern = if below { Pattern::Below(format!(".{host}")) } else { Pattern::Exactly(host) };
        Ok(Self { secure, host: pattern, port: authority.port_u16() })
    }
}

fn malformed(rule: &str) -> ConfigError {
    // Rules come from the programmer; what is repeated is bounded all the same.
    ConfigError::new(ConfigErrorKind::Host, rule.chars().take(80).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(uri: &'static str) -> Origin {
        Origin::of(&Uri::from_static(uri)).unwrap()
    }

    #[test]
    fn rules_admit_what_they_name() {
        for (rule, uri, admitted) in [
            ("api.example.com", "https://api.example.com/", true),
            ("api.example.com", "http://api.example.com:8080/", true),
            ("API.example.com", "https://api.EXAMPLE.com/", true),
            ("api.example.com", "https://api.example.com.evil.net/", false),
            ("api.example.com", "https://example.com/", false),
            ("api.example.com", "https://x.api.example.com/", false),
            ("api.example.com:8443", "https://api.example.com:8443/", true),
            ("api.example.com:8443", "https://api.example.com/", false),
            ("api.example.com:443", "https://api.example.com/", true),
            ("https://api.example.com", "https://api.example.com/", true),
            ("https://api.example.com", "http://api.example.com/", false),
            ("http://api.example.com", "https://api.example.com/", false),
            ("*.example.com", "https://a.b.example.com/", true),
            ("*.example.com", "https://example.com/", false),
            ("*.example.com", "https://evilexample.com/", false),
            ("api.example.com", "https://api.example.com@evil.net/", false),
            ("[::1]:8080", "http://[::1]:8080/", true),
            ("127.0.0.1", "http://127.0.0.1:4000/", true),
        ] {
            assert_eq!(rule.parse::<HostRule>().unwrap().admits(&origin(uri)), admitted, "{rule} {uri}");
        }
    }

    #[test]
    fn malformed_rules_are_refused_in_words() {
        for rule in ["", "*", "*.", "a b", "ftp://a", "https://", "a/b", "u@a", "a:x", "a:", "a:99999", "a.*.b", "*..b"]
        {
            let error = rule.parse::<HostRule>().unwrap_err();
            assert_eq!(error.kind(), ConfigErrorKind::Host, "{rule}");
            assert!(error.to_string().contains("api.example.com"), "{error}");
        }
    }

    #[test]
    fn an_origin_is_read_as_it_was_written() {
        for uri in ["http://a/", "https://A.example:8443/x", "http://[::1]:80/"] {
            assert!(Origin::is(&origin(uri).to_string()), "{uri}");
        }
        for other in
            ["", "a", "nowhere", "a:80", "http://a", "http://A:80", "ftp://a:21", "http://u@a:80", "http://a:80/x"]
        {
            assert!(!Origin::is(other), "{other}");
        }
    }

    #[test]
    fn a_destination_is_a_host_or_the_channel() {
        let of = |uri: &'static str| Destination::of(&Uri::from_static(uri));
        assert_eq!(of("/path"), Destination::Channel);
        assert_eq!(of("http://A/x"), of("http://a:80"));
        assert_ne!(of("http://a/"), of("https://a/"));
        assert_ne!(of("a:80"), of("http://a/"), "without a scheme");
    }
}
