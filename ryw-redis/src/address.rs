//! Servers that others name.

use std::fmt;

use redis::{Client, ConnectionAddr, ConnectionInfo, RedisError};

/// A server by its place in the network.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// How to connect to servers that are known by their addresses: encryption, login and database.
#[derive(Clone)]
pub(crate) struct Template(pub(crate) ConnectionInfo);

impl Address {
    /// `host:port`, as servers name each other; without a host it is that of whoever has said so.
    pub(crate) fn parse(text: &str, of: &Self) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let host = if host.is_empty() || host == "?" { of.host.clone() } else { host.to_owned() };
        Some(Self { host, port: port.parse().ok()? })
    }

    /// Of a server that is reached by TCP.
    pub(crate) fn of(info: &ConnectionInfo) -> Option<Self> {
        match info.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                Some(Self { host: host.clone(), port: *port })
            }
            _ => None,
        }
    }
}

impl Template {
    pub(crate) fn client(&self, address: &Address) -> Result<Client, RedisError> {
        let mut addr = self.0.addr().clone();
        match &mut addr {
            ConnectionAddr::TcpTls { host, port, .. } => (*host, *port) = (address.host.clone(), address.port),
            _ => addr = ConnectionAddr::Tcp(address.host.clone(), address.port),
        }
        Client::open(self.0.clone().set_addr(addr))
    }
}

/// Without login.
impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Template")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_servers_write_them() {
        let address = |host: &str, port| Some(Address { host: host.into(), port });
        let of = Address { host: "here".into(), port: 1 };
        for (text, expected) in [
            ("127.0.0.1:7000", address("127.0.0.1", 7000)),
            ("::1:7000", address("::1", 7000)),
            ("redis.example:65535", address("redis.example", 65535)),
            (":7000", address("here", 7000)),
            ("?:7000", address("here", 7000)),
            ("redis.example", None),
            ("redis.example:70000", None),
        ] {
            assert_eq!(Address::parse(text, &of), expected, "{text}");
        }
    }
}
