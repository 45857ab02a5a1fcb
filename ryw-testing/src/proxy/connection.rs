//! Connections from their acceptance to their end.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use rustix::net::sockopt::set_socket_linger;
use tokio::{
    net::{TcpListener, TcpStream},
    select,
    sync::watch,
    task::JoinSet,
    time::sleep,
    try_join,
};

use super::{
    faults::Faults,
    pump::{Reset, pump},
    targets::{Target, Targets},
};

/// After the system had no descriptor left, say.
const PAUSE: Duration = Duration::from_millis(10);

/// What the proxy and its tasks have in common.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) targets: Mutex<Targets>,
    pub(super) faults: watch::Sender<Faults>,
    pub(super) resets: watch::Sender<()>,
    pub(super) open: AtomicUsize,
}

impl Shared {
    pub(super) fn new(targets: Targets) -> Self {
        Self {
            targets: Mutex::new(targets),
            faults: watch::Sender::new(Faults::default()),
            resets: watch::Sender::new(()),
            open: AtomicUsize::new(0),
        }
    }
}

/// Accepts for ever. The connections' tasks end with this future.
pub(super) async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) if shared.faults.borrow().refuse => reset(&client),
                // All that has to be settled at the time of the acceptance is settled here.
                Ok((client, _)) => {
                    let connection = Connection {
                        client,
                        target: shared.targets.lock().next(),
                        faults: shared.faults.subscribe(),
                        resets: shared.resets.subscribe(),
                        open: Open::count(&shared),
                    };
                    connections.spawn(connection.run());
                }
                Err(_) => sleep(PAUSE).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

struct Connection {
    client: TcpStream,
    target: Option<Target>,
    faults: watch::Receiver<Faults>,
    resets: watch::Receiver<()>,
    open: Open,
}

impl Connection {
    async fn run(self) {
        let Self { mut client, target, mut faults, mut resets, open } = self;
        let server = async {
            faults.wait_for(Faults::pass).await.ok()?;
            target?.connect().await.ok()
        };
        let server = select! {
            server = server => server,
            _ = resets.changed() => None,
        };
        match server {
            None => reset(&client),
            Some(mut server) => {
                let whole = select! {
                    end = forward(&mut client, &mut server, &faults) => end.is_ok(),
                    _ = resets.changed() => false,
                };
                if !whole {
                    reset(&client);
                    reset(&server);
                }
            }
        }
        // Not before the sockets are closed: who sees the count go down may rely on it.
        drop(client);
        drop(open);
    }
}

async fn forward(
    client: &mut TcpStream,
    server: &mut TcpStream,
    faults: &watch::Receiver<Faults>,
) -> Result<(), Reset> {
    // Fails only if the connection is gone, which the reads will tell.
    let _ = client.set_nodelay(true).and_then(|()| server.set_nodelay(true));
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    try_join!(
        pump(from_client, to_server, faults.clone(), |faults| faults.to_server),
        pump(from_server, to_client, faults.clone(), |faults| faults.to_client),
    )
    .map(|((), ())| ())
}

/// Makes the connection end with a reset as soon as the socket is dropped.
fn reset(socket: &TcpStream) {
    // Fails only if the connection is gone already.
    let _ = set_socket_linger(socket, Some(Duration::ZERO));
}

/// Counts as an open connection until it is dropped.
struct Open(Arc<Shared>);

impl Open {
    fn count(shared: &Arc<Shared>) -> Self {
        shared.open.fetch_add(1, Relaxed);
        Self(Arc::clone(shared))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}
