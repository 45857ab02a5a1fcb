//! The networks that can be cut: between servers, and of the first instance.

use std::collections::HashMap;

use ryw_testing::proxy::{Direction, Proxy};

use crate::error::Error;

/// A proxy for each way that a standby can replicate.
#[derive(Debug)]
pub(crate) struct Links(HashMap<(String, String), Proxy>);

impl Links {
    /// Between any two of these servers, given by name and port.
    pub(crate) async fn between(servers: &[(String, u16)]) -> Result<Self, Error> {
        let mut links = HashMap::new();
        for (upstream, port) in servers {
            for (standby, _) in servers.iter().filter(|(name, _)| name != upstream) {
                let proxy = Proxy::start([("127.0.0.1", *port)]).await.map_err(Error::with("a proxy"))?;
                links.insert((upstream.clone(), standby.clone()), proxy);
            }
        }
        Ok(Self(links))
    }

    pub(crate) fn port(&self, upstream: &str, standby: &str) -> Option<u16> {
        self.get(upstream, standby).map(Proxy::port)
    }

    pub(crate) fn get(&self, upstream: &str, standby: &str) -> Option<&Proxy> {
        self.0.get(&(upstream.to_owned(), standby.to_owned()))
    }

    /// All that lead to this server.
    pub(crate) fn from(&self, upstream: &str) -> impl Iterator<Item = &Proxy> {
        self.0.iter().filter(move |((from, _), _)| from == upstream).map(|(_, proxy)| proxy)
    }

    /// Nothing that this server writes gets to others any more.
    pub(crate) fn cut(&self, upstream: &str) {
        self.from(upstream).for_each(|proxy| proxy.black_hole(Direction::Both));
    }

    /// The same for good: what is on its way is lost.
    pub(crate) fn destroy(&self, upstream: &str) {
        for proxy in self.from(upstream) {
            proxy.refuse();
            proxy.reset_all();
        }
    }

    pub(crate) fn heal(&self) {
        self.0.values().for_each(Proxy::heal);
    }
}
