//! A TCP proxy with faults that are switched on and off while it runs.
//!
//! It stands between a client and a server, on a port of its own, and does to their connections what networks do:
//! they become slow, go silent, break, or end at another server than before.
//!
//! ```
//! # use tokio::{io::{AsyncReadExt, AsyncWriteExt}, net::{TcpListener, TcpStream}};
//! use ryw_testing::proxy::{Direction, Proxy};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = TcpListener::bind("127.0.0.1:0").await?;
//! let proxy = Proxy::start([server.local_addr()?]).await?;
//!
//! let mut client = TcpStream::connect(proxy.address()).await?;
//! let (mut served, _) = server.accept().await?;
//! assert_eq!(proxy.connections(), 1);
//!
//! // A partition: what is sent is not lost, it arrives once the network is whole again.
//! proxy.black_hole(Direction::Both);
//! client.write_all(b"ping").await?;
//! proxy.heal();
//! let mut bytes = [0; 4];
//! served.read_exact(&mut bytes).await?;
//! assert_eq!(&bytes, b"ping");
//!
//! // A crash of what is between them.
//! proxy.reset_all();
//! assert!(client.read(&mut bytes).await.is_err());
//! # Ok(())
//! # }
//! ```
//!
//! # What a fault acts on
//!
//! [`delay`](Proxy::delay), [`black_hole`](Proxy::black_hole) and [`drip`](Proxy::drip) act on the connections there are
//! and on new ones, and last until [`heal`](Proxy::heal). [`reset_all`](Proxy::reset_all) is a single blow at the
//! connections there are. [`refuse`](Proxy::refuse), [`retarget`](Proxy::retarget) and [`balance`](Proxy::balance) are
//! about new ones alone.
//!
//! Bytes keep their order and are never lost, except by a reset. The end of a stream passes like its bytes: late when
//! they are late, and not at all through a black hole. One direction can end long before the other.
//!
//! # What it holds
//!
//! At most 64 KiB for each direction of a connection, beside what the kernel holds; then the sender is no longer read
//! from, and has to wait. So a [`delay`](Proxy::delay) also bounds the throughput, to 64 KiB for each delay.
//!
//! Time is tokio's, but connections are real: a test that pauses the clock sees delays pass at once.

mod connection;
mod faults;
mod pump;
mod targets;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::{net::TcpListener, task::JoinHandle};

use self::{
    connection::Shared,
    faults::{Drip, Faults, Flow},
    targets::Targets,
};

pub use self::targets::{Balance, Target};

/// A proxy on a free port of 127.0.0.1; see the [module](self).
///
/// It needs a tokio runtime that keeps running, with I/O and time enabled. Dropping it stops listening and closes all
/// connections, as soon as the runtime gets to it.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    // Owns the tasks of all connections.
    acceptor: JoinHandle<()>,
}

/// Which bytes of a connection a fault acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Those from the client to the server.
    ToServer,
    /// Those from the server to the client.
    ToClient,
    /// All of them.
    Both,
}

/// A [`Proxy`] could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The system gives no port to listen on.
    #[error("the proxy cannot listen on 127.0.0.1")]
    Listen(#[source] io::Error),
}

impl Proxy {
    /// Listens on a free port, and forwards each new connection to the first of `targets`.
    ///
    /// A target is an address, or a host and port, which is looked up for each connection. One that cannot be reached
    /// does not hold up the next: the client is reset, as it is if there are no targets.
    ///
    /// # Errors
    ///
    /// [`StartError::Listen`] if there is no free port.
    ///
    /// # Panics
    ///
    /// If it is not called in a tokio runtime with I/O enabled.
    pub async fn start<T: Into<Target>>(targets: impl IntoIterator<Item = T>) -> Result<Self, StartError> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(StartError::Listen)?;
        let address = listener.local_addr().map_err(StartError::Listen)?;
        let shared = Arc::new(Shared::new(Targets::new(targets)));
        let acceptor = tokio::spawn(connection::accept(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, acceptor })
    }

    /// The address that clients connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port of [`address`](Self::address).
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// How many connections are open now. One counts from when it is accepted, and until both of its directions have
    /// ended.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.open.load(Relaxed)
    }

    /// Points new connections at other targets, like a change in the DNS or of a virtual address. The connections there
    /// are keep theirs; [`reset_all`](Self::reset_all) ends them.
    pub fn retarget<T: Into<Target>>(&self, targets: impl IntoIterator<Item = T>) {
        self.shared.targets.lock().replace(targets);
    }

    /// How new connections are spread over the targets. Default: [`Balance::First`].
    pub fn balance(&self, balance: Balance) {
        self.shared.targets.lock().balance(balance);
    }

    /// Delivers each byte so long after it was sent. Default: zero, which is no delay.
    ///
    /// A new delay also holds for bytes that are on their way. The server hears of a new connection without delay.
    pub fn delay(&self, direction: Direction, delay: Duration) {
        self.change(direction, |flow| flow.delay = delay);
    }

    /// Delivers nothing, until [`heal`](Self::heal), like a network that is partitioned.
    ///
    /// Connections stay open, and take what is sent until their buffers are full; it is delivered after `heal`. New
    /// connections are accepted, but not even their existence is told to the server before, whichever direction is
    /// black: a handshake takes both.
    pub fn black_hole(&self, direction: Direction) {
        self.change(direction, |flow| flow.black_hole = true);
    }

    /// Delivers at most so many bytes (at least 1) at once, and the next so many not before `every` has passed.
    pub fn drip(&self, direction: Direction, bytes: usize, every: Duration) {
        self.change(direction, |flow| flow.drip = Some(Drip { bytes: bytes.max(1), every }));
    }

    /// Resets each new connection as soon as it is accepted, until [`heal`](Self::heal).
    pub fn refuse(&self) {
        self.shared.faults.send_modify(|faults| faults.refuse = true);
    }

    /// Ends all faults in both directions. What was held is delivered.
    pub fn heal(&self) {
        self.shared.faults.send_replace(Faults::default());
    }

    /// Resets all connections that were accepted, towards the client and the server. What was not delivered is lost.
    ///
    /// It does not wait: the connections end when the runtime gets to them. The next ones are not affected.
    pub fn reset_all(&self) {
        self.shared.resets.send_replace(());
    }

    fn change(&self, direction: Direction, change: impl Fn(&mut Flow)) {
        self.shared.faults.send_modify(|Faults { to_server, to_client, refuse: _ }| {
            if direction != Direction::ToClient {
                change(to_server);
            }
            if direction != Direction::ToServer {
                change(to_client);
            }
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}
