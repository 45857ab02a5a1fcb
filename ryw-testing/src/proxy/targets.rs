use std::{io, net::SocketAddr};

use tokio::net::TcpStream;

/// A server that a [`Proxy`](super::Proxy) forwards to: made from an address, or from a host and port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target(Place);

/// How new connections are spread over the targets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Balance {
    /// All go to the first target. The default.
    #[default]
    First,
    /// Each goes to the target after the last one's, like those of a load balancer.
    RoundRobin,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Place {
    Address(SocketAddr),
    Name(String, u16),
}

impl Target {
    pub(super) async fn connect(&self) -> io::Result<TcpStream> {
        match &self.0 {
            Place::Address(address) => TcpStream::connect(address).await,
            Place::Name(host, port) => TcpStream::connect((host.as_str(), *port)).await,
        }
    }
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        Self(Place::Address(address))
    }
}

impl From<(&str, u16)> for Target {
    fn from((host, port): (&str, u16)) -> Self {
        Self(Place::Name(host.into(), port))
    }
}

impl From<(String, u16)> for Target {
    fn from((host, port): (String, u16)) -> Self {
        Self(Place::Name(host, port))
    }
}

/// The targets, and whose turn it is.
#[derive(Debug)]
pub(super) struct Targets {
    all: Vec<Target>,
    balance: Balance,
    turn: usize,
}

impl Targets {
    pub(super) fn new<T: Into<Target>>(targets: impl IntoIterator<Item = T>) -> Self {
        Self { all: targets.into_iter().map(Into::into).collect(), balance: Balance::default(), turn: 0 }
    }

    pub(super) fn replace<T: Into<Target>>(&mut self, targets: impl IntoIterator<Item = T>) {
        let balance = self.balance;
        *self = Self { balance, ..Self::new(targets) };
    }

    pub(super) fn balance(&mut self, balance: Balance) {
        self.balance = balance;
        self.turn = 0;
    }

    /// The target of the next connection.
    pub(super) fn next(&mut self) -> Option<Target> {
        let target = self.all.get(self.turn)?.clone();
        if self.balance == Balance::RoundRobin {
            self.turn = (self.turn + 1) % self.all.len();
        }
        Some(target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(targets: &mut Targets, count: usize) -> Vec<Option<Target>> {
        (0..count).map(|_| targets.next()).collect()
    }

    fn target(port: u16) -> Option<Target> {
        Some(Target::from(("localhost", port)))
    }

    #[test]
    fn the_turn_goes_round() {
        let mut targets = Targets::new([("localhost", 1), ("localhost", 2)]);
        assert_eq!(ports(&mut targets, 2), [target(1), target(1)]);
        targets.balance(Balance::RoundRobin);
        assert_eq!(ports(&mut targets, 3), [target(1), target(2), target(1)]);
        targets.replace([("localhost", 3)]);
        assert_eq!(ports(&mut targets, 2), [target(3), target(3)], "from the first again");
        targets.replace([("localhost", 4), ("localhost", 5)]);
        assert_eq!(ports(&mut targets, 3), [target(4), target(5), target(4)], "still in turns");
        targets.balance(Balance::First);
        assert_eq!(ports(&mut targets, 2), [target(4), target(4)]);
        targets.replace::<Target>([]);
        assert_eq!(targets.next(), None);
    }
}
