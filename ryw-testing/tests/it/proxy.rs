//! The proxy's faults, over real connections. That something does not arrive is shown by what does arrive meanwhile,
//! over a second proxy without faults; nothing is said about how fast anything is.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::{
    future::Future,
    io::{self, ErrorKind},
    net::SocketAddr,
    time::Duration,
};

use ryw_testing::proxy::{Balance, Direction, Proxy, Target};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, sleep, timeout},
};

const HOUR: Duration = Duration::from_secs(3600);

/// Gives up after 10 s, which is no promise but the end of a test that hangs.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(10), future).await.expect("not within 10 s")
}

async fn until(mut done: impl FnMut() -> bool) {
    soon(async {
        while !done() {
            sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

async fn exchange(from: &mut TcpStream, to: &mut TcpStream, text: &str) {
    soon(from.write_all(text.as_bytes())).await.unwrap();
    expect(to, text).await;
}

async fn expect(socket: &mut TcpStream, text: &str) {
    let mut bytes = vec![0; text.len()];
    soon(socket.read_exact(&mut bytes)).await.unwrap();
    assert_eq!(bytes, text.as_bytes());
}

async fn broken(socket: &mut TcpStream) {
    let error = soon(socket.read(&mut [0])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

/// A server with two ways to it: `proxy`, which the test breaks, and a second one that stays whole.
struct World {
    server: TcpListener,
    proxy: Proxy,
    whole: (Proxy, TcpStream, TcpStream),
}

impl World {
    async fn new() -> Self {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        let (proxy, other) = (Proxy::start([address]).await.unwrap(), Proxy::start([address]).await.unwrap());
        let (client, served) = connect(&other, &server).await;
        Self { server, proxy, whole: (other, client, served) }
    }

    async fn connect(&self) -> (TcpStream, TcpStream) {
        connect(&self.proxy, &self.server).await
    }

    /// Time enough for anything that gets through to arrive: the whole way was there and back many times.
    async fn pass_time(&mut self) {
        let (_, client, served) = &mut self.whole;
        for _ in 0..50 {
            exchange(client, served, "ping").await;
            exchange(served, client, "pong").await;
        }
    }

    async fn assert_silent(&mut self, socket: &TcpStream) {
        self.pass_time().await;
        assert_eq!(socket.try_read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    }
}

async fn connect(proxy: &Proxy, server: &TcpListener) -> (TcpStream, TcpStream) {
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    let (mut served, _) = soon(server.accept()).await.unwrap();
    exchange(&mut client, &mut served, "hello").await;
    (client, served)
}

#[tokio::test]
async fn bytes_pass_both_ways_and_each_way_ends_for_itself() {
    let world = World::new().await;
    let (mut client, mut served) = world.connect().await;
    assert_eq!(world.proxy.connections(), 1);
    let large = vec![7; 1 << 20];
    let mut received = Vec::new();
    soon(async {
        let send = async {
            client.write_all(&large).await?;
            client.shutdown().await
        };
        tokio::try_join!(send, served.read_to_end(&mut received))
    })
    .await
    .unwrap();
    assert!(received == large);
    exchange(&mut served, &mut client, "the other way is still open").await;
    drop(served);
    assert_eq!(soon(client.read(&mut [0])).await.unwrap(), 0);
    until(|| world.proxy.connections() == 0).await;
}

#[tokio::test]
async fn a_delay_acts_on_one_direction_and_ends_with_it() {
    let mut world = World::new().await;
    let (mut client, mut served) = world.connect().await;
    world.proxy.delay(Direction::ToClient, HOUR);
    exchange(&mut client, &mut served, "question").await;
    served.write_all(b"answer").await.unwrap();
    world.assert_silent(&client).await;
    world.proxy.delay(Direction::ToClient, Duration::ZERO);
    expect(&mut client, "answer").await;

    let delay = Duration::from_millis(30);
    world.proxy.delay(Direction::Both, delay);
    let start = Instant::now();
    exchange(&mut client, &mut served, "question").await;
    assert!(start.elapsed() >= delay);
    exchange(&mut served, &mut client, "answer").await;
    assert!(start.elapsed() >= 2 * delay);
}

#[tokio::test]
async fn a_black_hole_holds_one_way_or_both_and_loses_nothing() {
    let mut world = World::new().await;
    let (mut client, mut served) = world.connect().await;

    world.proxy.black_hole(Direction::ToServer);
    client.write_all(b"question").await.unwrap();
    world.assert_silent(&served).await;
    exchange(&mut served, &mut client, "the other way is open").await;
    world.proxy.heal();
    expect(&mut served, "question").await;

    world.proxy.black_hole(Direction::Both);
    client.write_all(b"second ").await.unwrap();
    client.write_all(b"question").await.unwrap();
    served.write_all(b"answer").await.unwrap();
    client.shutdown().await.unwrap();
    world.assert_silent(&served).await;
    world.assert_silent(&client).await;
    assert_eq!(world.proxy.connections(), 1);
    world.proxy.heal();
    expect(&mut client, "answer").await;
    let mut rest = String::new();
    drop(client);
    soon(served.read_to_string(&mut rest)).await.unwrap();
    assert_eq!(rest, "second question");
}

#[tokio::test]
async fn a_new_connection_in_a_black_hole_waits_for_the_end_of_it() {
    let mut world = World::new().await;
    for direction in [Direction::ToServer, Direction::ToClient, Direction::Both] {
        world.proxy.black_hole(direction);
        let mut client = TcpStream::connect(world.proxy.address()).await.unwrap();
        client.write_all(b"hello").await.unwrap();
        until(|| world.proxy.connections() == 1).await;
        world.pass_time().await;
        let accepted = timeout(Duration::ZERO, world.server.accept()).await;
        assert!(accepted.is_err(), "{direction:?}: the server knows of the client");

        world.proxy.heal();
        let (mut served, _) = soon(world.server.accept()).await.unwrap();
        expect(&mut served, "hello").await;
        drop((client, served));
        until(|| world.proxy.connections() == 0).await;
    }
}

#[tokio::test]
async fn bytes_drip() {
    let mut world = World::new().await;
    let (mut client, mut served) = world.connect().await;
    world.proxy.drip(Direction::ToServer, 3, HOUR);
    // The last delivery was just now, so that nothing may pass for an hour.
    client.write_all(b"abcdefgh").await.unwrap();
    world.assert_silent(&served).await;
    world.proxy.drip(Direction::ToServer, 3, Duration::ZERO);
    expect(&mut served, "abcdefgh").await;

    world.proxy.drip(Direction::ToClient, 3, HOUR);
    served.write_all(b"abcdefgh").await.unwrap();
    expect(&mut client, "abc").await;
    world.assert_silent(&client).await;
    world.proxy.heal();
    expect(&mut client, "defgh").await;
}

#[tokio::test]
async fn a_reset_breaks_both_ends_of_what_is_connected() {
    let world = World::new().await;
    let (mut client, mut served) = world.connect().await;
    let (mut held, mut held_served) = world.connect().await;
    world.proxy.black_hole(Direction::Both);
    held.write_all(b"lost").await.unwrap();
    let mut waiting = TcpStream::connect(world.proxy.address()).await.unwrap();
    until(|| world.proxy.connections() == 3).await;

    world.proxy.reset_all();

    for socket in [&mut client, &mut served, &mut held, &mut held_served, &mut waiting] {
        broken(socket).await;
    }
    until(|| world.proxy.connections() == 0).await;
    world.proxy.heal();
    let (mut client, mut served) = world.connect().await;
    exchange(&mut client, &mut served, "the next one is whole").await;
}

#[tokio::test]
async fn a_reset_by_one_end_reaches_the_other() {
    let world = World::new().await;
    let (client, mut served) = world.connect().await;
    rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
    drop(client);
    broken(&mut served).await;
}

#[tokio::test]
async fn new_connections_are_refused_and_old_ones_are_not() {
    let world = World::new().await;
    let (mut client, mut served) = world.connect().await;
    world.proxy.refuse();
    assert_unreachable(&world.proxy).await;
    exchange(&mut client, &mut served, "still here").await;
    assert_eq!(world.proxy.connections(), 1);
    world.proxy.heal();
    world.connect().await;
}

/// The reset can come before the client knows that it is connected.
async fn assert_unreachable(proxy: &Proxy) {
    let talk = async {
        let mut client = TcpStream::connect(proxy.address()).await?;
        client.read(&mut [0]).await
    };
    let result: io::Result<usize> = soon(talk).await;
    assert_eq!(result.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn connections_go_to_the_targets_in_turn_or_elsewhere() {
    let mut servers = Vec::new();
    for _ in 0..3 {
        servers.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
    }
    let address = |index: usize| -> SocketAddr { servers[index].local_addr().unwrap() };
    let proxy = Proxy::start([address(0), address(1)]).await.unwrap();
    let (mut first, mut first_served) = connect(&proxy, &servers[0]).await;
    connect(&proxy, &servers[0]).await;

    proxy.balance(Balance::RoundRobin);
    for index in [0, 1, 0, 1] {
        connect(&proxy, &servers[index]).await;
    }
    proxy.retarget([("localhost", address(2).port())]);
    connect(&proxy, &servers[2]).await;
    exchange(&mut first, &mut first_served, "still connected").await;

    proxy.retarget::<Target>([]);
    assert_unreachable(&proxy).await;
    let nobody = servers.remove(1).local_addr().unwrap();
    proxy.retarget([nobody]);
    assert_unreachable(&proxy).await;
}

#[tokio::test]
async fn dropping_ends_everything() {
    let World { server, proxy, whole } = World::new().await;
    let (mut client, mut served) = connect(&proxy, &server).await;
    let address = proxy.address();
    drop((proxy, whole));
    for socket in [&mut client, &mut served] {
        assert_eq!(soon(socket.read(&mut [0])).await.unwrap(), 0);
    }
    soon(async { while TcpStream::connect(address).await.is_ok() {} }).await;
}
