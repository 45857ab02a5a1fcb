use std::{convert::Infallible, future::ready, io};

use http::{Request, Response};
use ryw_core::{ClusterId, Key, Keyring, Marks, SessionId, Tenant, Token};
use tower::{Layer, ServiceExt, service_fn};
use tower_ryw::{
    Ladder, Level, RywLayer,
    topology::{Incarnation, Reading, Watch},
};

use super::*;

const RUN: Incarnation = Incarnation(7);
const OTHER_RUN: Incarnation = Incarnation(8);
const CLUSTER: ClusterId = ClusterId::new(1);

fn at(epoch: u32, offset: u64) -> Position {
    Position::new(CLUSTER, Epoch::new(epoch), offset)
}

fn server(incarnation: Incarnation) -> Option<Server> {
    Some(Server { incarnation, cluster: CLUSTER })
}

/// A primary at 100, and one more node as it was last read.
fn nodes(node: Reading) -> (Topology, [Watch; 2]) {
    let topology = Topology::new();
    let mut watches = [topology.add("p"), topology.add("r1")];
    watches[0].begin().report(Reading::new(Role::Primary, at(1, 100)).incarnation(OTHER_RUN));
    watches[1].begin().report(node.incarnation(RUN));
    (topology, watches)
}

/// Of a read of somebody who must see `offset`.
async fn reader(topology: &Topology, offset: u64) -> RywContext {
    let keys = Keyring::new(Key::new(1, &[7; 32]).unwrap());
    let session = keys.newest().session(&Tenant::default(), &SessionId::random().unwrap());
    let issued_at = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let token = Token { session, issued_at: u32::try_from(issued_at).unwrap(), marks: Marks::at(at(1, offset)) };
    let request = Request::get("/").header("ryw-token", token.seal(&keys, &Tenant::default())).body(()).unwrap();
    let layer = RywLayer::builder().positions(topology.clone()).signing_keys(keys).level(Level::ReadYourWrites);
    let layer = layer.ladder(Ladder::new().wait(std::time::Duration::ZERO)).build().unwrap();
    let (told, context) = std::sync::mpsc::channel();
    let service = service_fn(move |_: Request<()>| {
        told.send(RywContext::current().unwrap()).unwrap();
        ready(Ok::<_, Infallible>(Response::new(String::new())))
    });
    layer.layer(service).oneshot(request).await.unwrap();
    context.recv().unwrap()
}

fn answer(role: Role, position: Position) -> NodeReading {
    NodeReading { role, position, incarnation: RUN, epoch_is_certain: true }
}

async fn says(answer: NodeReading) -> Result<Option<NodeReading>, io::Error> {
    Ok(Some(answer))
}

async fn is_not_asked() -> Result<Option<NodeReading>, io::Error> {
    panic!("what is known is enough")
}

#[tokio::test]
async fn what_the_watcher_has_read_admits_readers_of_that_very_server() {
    let name = NodeName::from("r1");
    let (topology, _watches) = nodes(Reading::new(Role::Replica, at(1, 50)));
    let link = |server| Link { node: &name, server, applied: None };
    let [early, late] = [reader(&topology, 50).await, reader(&topology, 51).await];
    let known = link(server(RUN)).admit_read(&topology, &early, is_not_asked()).await.unwrap();
    assert_eq!((known.server, known.position, known.epoch()), (server(RUN).unwrap(), at(1, 50), Epoch::new(1)));
    assert_eq!(known.run(&name), Run::new(name.clone(), RUN, at(1, 50)));
    // Of somebody who must see more, of another server behind the address, and of one that nobody knows, it says nothing.
    let elsewhere = Some(Server { incarnation: RUN, cluster: ClusterId::new(2) });
    for (link, context) in
        [(link(server(RUN)), &late), (link(server(OTHER_RUN)), &early), (link(elsewhere), &early), (link(None), &early)]
    {
        let asked = async |offset| {
            let answer = answer(Role::Replica, at(1, offset));
            link.admit_read(&topology, context, says(answer)).await.map(|known| known.position).map_err(|e| e.kind())
        };
        assert_eq!(asked(51).await, Ok(at(1, 51)), "{link:?}");
        assert_eq!(asked(49).await, Err(PoolErrorKind::Behind), "{link:?}");
    }
}

#[tokio::test]
async fn what_a_connection_has_answered_earlier_admits_its_readers() {
    let name = NodeName::from("r1");
    let (topology, _watches) = nodes(Reading::new(Role::Replica, at(1, 40)));
    let [early, late] = [reader(&topology, 50).await, reader(&topology, 51).await];
    let link = Link { node: &name, server: server(OTHER_RUN), applied: Some(at(1, 50)) };
    let known = link.admit_read(&topology, &early, is_not_asked()).await.unwrap();
    assert_eq!((known.server, known.position), (server(OTHER_RUN).unwrap(), at(1, 50)));
    let nothing = || async { Ok::<_, io::Error>(None) };
    assert_eq!(link.admit_read(&topology, &late, nothing()).await.unwrap_err().kind(), PoolErrorKind::Behind);
    let nobody = Link { server: None, ..link };
    assert_eq!(nobody.admit_read(&topology, &early, nothing()).await.unwrap_err().kind(), PoolErrorKind::Behind);
}

/// What a primary has written it need not show yet.
#[tokio::test]
async fn a_primary_is_not_read_as_a_replica() {
    let name = NodeName::from("p");
    let (topology, _watches) = nodes(Reading::new(Role::Replica, at(1, 40)));
    let context = reader(&topology, 50).await;
    let link = Link { node: &name, server: server(OTHER_RUN), applied: None };
    for (role, admitted) in [(Role::Primary, false), (Role::Replica, true)] {
        let answer = link.admit_read(&topology, &context, says(answer(role, at(1, 100)))).await;
        assert_eq!(answer.is_ok(), admitted, "{answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_gives_no_answer_admits_nobody() {
    let name = NodeName::from("r1");
    let (topology, _watches) = nodes(Reading::new(Role::Replica, at(1, 40)));
    let context = reader(&topology, 50).await;
    let link = Link { node: &name, server: None, applied: None };
    let failed = link.admit_read(&topology, &context, async { Err(io::Error::other("gone")) }).await.unwrap_err();
    assert_eq!((failed.kind(), failed.source().is_some()), (PoolErrorKind::Connect, true));
    let late = link.admit_read::<io::Error>(&topology, &context, std::future::pending()).await.unwrap_err();
    assert_eq!(late.kind(), PoolErrorKind::Down);
    assert!(late.to_string().contains("r1"), "{late}");
}

#[tokio::test]
async fn the_primary_of_the_newest_epoch_is_written_to() {
    let name = NodeName::from("p");
    let (topology, mut watches) = nodes(Reading::new(Role::Replica, at(1, 40)));
    let link = |server| Link { node: &name, server, applied: None };
    let known = link(server(OTHER_RUN)).admit_write(&topology, is_not_asked()).await.unwrap();
    assert_eq!((known.server, known.position), (server(OTHER_RUN).unwrap(), at(1, 100)));
    watches[0]
        .begin()
        .report(Reading::new(Role::Primary, at(2, 100)).fork(Epoch::new(2), Epoch::new(1), 90).incarnation(OTHER_RUN));
    // Another server behind the address is asked itself.
    let foreign = |epoch| Position::new(ClusterId::new(2), Epoch::new(epoch), 200);
    for (role, position, admitted) in [
        (Role::Primary, at(2, 101), true),
        (Role::Primary, at(3, 1), true),
        (Role::Primary, at(1, 900), false),
        (Role::Primary, foreign(2), false),
        (Role::Primary, foreign(1), false),
        (Role::Replica, at(2, 101), false),
        (Role::Replica, at(1, 900), false),
    ] {
        for link in [link(server(RUN)), link(None)] {
            let answer = link.admit_write(&topology, says(answer(role, position))).await;
            let found = answer.map(|known| known.position).map_err(|error| error.kind());
            let expected = if admitted { Ok(position) } else { Err(PoolErrorKind::NoPrimary) };
            assert_eq!(found, expected, "{role:?} {position:?}");
        }
    }
    // Where nobody knows of one, it is believed that it is.
    let nobody = Topology::new();
    let alone = link(None).admit_write(&nobody, says(answer(Role::Primary, at(1, 5)))).await.unwrap();
    assert_eq!(alone.position, at(1, 5));
}

/// A server that the watcher has not read answers, and has no more than a lower bound of its timeline.
#[tokio::test]
async fn a_lower_bound_of_the_timeline_admits_nobody_where_a_newer_one_is_known() {
    let at = |epoch, offset| Position::new(ClusterId::new(1), Epoch::new(epoch), offset);
    let (name, run) = (NodeName::from("r1"), Incarnation(7));
    let topology = Topology::new();
    let (mut primary, mut watched) = (topology.add("p"), topology.add("r1"));
    let asked = async |run, epoch_is_certain| {
        let (role, incarnation) = (Role::Replica, run);
        let answer = NodeReading { role, position: at(1, 50), incarnation, epoch_is_certain };
        let link = Link { node: &name, server: None, applied: None };
        let asked = link.asked(&topology, async { Ok::<_, std::io::Error>(Some(answer)) }).await;
        asked.ok().map(|(_, admitted)| admitted.position)
    };
    primary.begin().report(Reading::new(Role::Primary, at(1, 60)));
    assert_eq!(asked(run, false).await, Some(at(1, 50)));
    primary.begin().report(Reading::new(Role::Primary, at(2, 60)).fork(Epoch::new(2), Epoch::new(1), 10));
    assert_eq!(asked(run, false).await, None);
    assert_eq!(asked(run, true).await, Some(at(1, 50)), "it has not followed");
    watched.begin().report(Reading::new(Role::Replica, at(2, 40)).incarnation(run));
    assert_eq!(asked(run, false).await, Some(at(2, 50)), "the same run has shown more");
    assert_eq!(asked(Incarnation(8), false).await, None);
}

#[tokio::test]
async fn a_standby_is_not_admitted_as_primary() {
    let topology = Topology::new();
    let (mut a, mut b) = (topology.add("a"), topology.add("b"));
    let at = |e, o| Position::new(ClusterId::new(1), Epoch::new(e), o);
    a.begin().report(Reading::new(Role::Primary, at(1, 10)).incarnation(Incarnation(1)));
    b.begin().report(Reading::new(Role::Primary, at(2, 20)).incarnation(Incarnation(2)).fork(
        Epoch::new(2),
        Epoch::new(1),
        10,
    ));
    // a was restarted as a standby of b.
    a.begin().report(Reading::new(Role::Replica, at(2, 15)).incarnation(Incarnation(3)));
    let name = NodeName::from("a");
    let server = Some(Server { incarnation: Incarnation(3), cluster: ClusterId::new(1) });
    let link = Link { node: &name, server, applied: None };
    let answer = link.admit_write(&topology, async { Ok::<_, std::io::Error>(None) }).await;
    assert!(answer.is_err(), "{answer:?}");
}
