use std::{convert::Infallible, future::ready, time::Duration};

use http::{Request, Response};
use ryw_core::{ClusterId, Epoch, Key, Keyring, Level, Marks, Tenant, Token};
use tokio::time::advance;
use tower::{Layer as _, ServiceExt, service_fn};

use super::*;
use crate::{
    Ladder, RywLayer, RywLayerBuilder,
    topology::{Reading, Role, Topology, Watch},
};

fn at(epoch: u32, offset: u64) -> Position {
    Position::new(ClusterId::new(1), Epoch::new(epoch), offset)
}

fn foreign() -> Position {
    Position::new(ClusterId::new(2), Epoch::new(1), 1)
}

fn keys(id: u8) -> Keyring {
    Keyring::new(Key::new(id, &[id; 32]).unwrap())
}

/// What a client carries, of this service or of another one. It names no session: there is nothing to look up.
fn token(keys: &Keyring, offset: u64) -> String {
    let issued_at = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let token = Token::shared(u32::try_from(issued_at).unwrap(), Marks::at(at(1, offset)));
    token.seal(keys, &Tenant::default())
}

/// A primary that was at 40 a second ago and is at 100, and a replica at 40.
struct Nodes {
    topology: Topology,
    /// Whoever is not watched is down.
    _primary: Watch,
    replica: Watch,
}

impl Nodes {
    async fn new() -> Self {
        let topology = Topology::new();
        let (mut primary, mut replica) = (topology.add("p"), topology.add("r1"));
        primary.begin().report(Reading::new(Role::Primary, at(1, 40)));
        advance(Duration::from_secs(1)).await;
        primary.begin().report(Reading::new(Role::Primary, at(1, 100)));
        replica.begin().report(Reading::new(Role::Replica, at(1, 40)));
        Self { topology, _primary: primary, replica }
    }

    fn layer(&self) -> RywLayerBuilder {
        let ladder = Ladder::new().wait(Duration::ZERO);
        let layer = RywLayer::builder().positions(self.topology.clone()).signing_keys(keys(1));
        layer.ladder(ladder).level(Level::Eventual)
    }

    fn fail_over(&mut self) {
        let fork = |reading: Reading| reading.fork(Epoch::new(2), Epoch::new(1), 45);
        self.replica.begin().report(fork(Reading::new(Role::Primary, at(2, 60))));
    }
}

/// The context of a request at this level that carries these tokens.
async fn context(layer: RywLayerBuilder, level: &str, tokens: &[String]) -> RywContext {
    of_request(layer, "GET", level, tokens).await
}

async fn of_request(layer: RywLayerBuilder, method: &str, level: &str, tokens: &[String]) -> RywContext {
    let (told, context) = std::sync::mpsc::channel();
    let service = service_fn(move |_: Request<()>| {
        told.send(RywContext::current().unwrap()).unwrap();
        ready(Ok::<_, Infallible>(Response::new(String::new())))
    });
    let request = Request::builder().method(method).header("x-consistency-level", level);
    let request = tokens.iter().fold(request, |request, token| request.header("ryw-token", token));
    layer.build().unwrap().layer(service).oneshot(request.body(()).unwrap()).await.unwrap();
    context.recv().unwrap()
}

fn admitted(context: &RywContext, offsets: [u64; 3]) -> [bool; 3] {
    offsets.map(|offset| context.admits(at(1, offset)))
}

#[tokio::test(start_paused = true)]
async fn whoever_has_what_the_session_must_see_is_admitted() {
    let nodes = Nodes::new().await;
    let mine = [token(&keys(1), 50)];
    for level in ["MONOTONIC", "RYW", "SESSION", "CAUSAL"] {
        let read = context(nodes.layer(), level, &mine).await;
        assert_eq!(admitted(&read, [49, 50, 51]), [false, true, true], "{level}");
        // Another service was called meanwhile, and has written.
        read.0.progress.lock().hop.marks.join(&Marks::at(at(1, 51)));
        assert_eq!(admitted(&read, [49, 50, 51]), [false, false, true], "{level}");
    }
    let read = context(nodes.layer(), "EVENTUAL", &mine).await;
    assert_eq!(admitted(&read, [1, 49, 50]), [true; 3]);
    // Of nobody's history, of another database's, and where nothing is known.
    for level in ["EVENTUAL", "RYW"] {
        let read = context(nodes.layer(), level, &[]).await;
        assert!(read.admits(at(1, 1)) && !read.admits(at(2, 1)) && !read.admits(foreign()), "{level}");
    }
    let unread = of_request(RywLayer::builder().positions(Topology::new()), "PUT", "RYW", &[]).await;
    assert!(!unread.admits(at(1, 1)));
    let without_positions = context(RywLayer::builder().signing_keys(keys(1)), "RYW", &mine).await;
    assert!(without_positions.admits(at(1, 1)) && without_positions.admits(foreign()));
}

#[tokio::test(start_paused = true)]
async fn a_bound_is_kept_on_the_connection_too() {
    let nodes = Nodes::new().await;
    let read = context(nodes.layer(), "BOUNDED;max=500", &[]).await;
    assert_eq!(admitted(&read, [39, 40, 100]), [false, false, true]);
    advance(Duration::from_millis(500)).await;
    assert_eq!(admitted(&read, [39, 40, 100]), [false, false, true], "to the millisecond");
    advance(Duration::from_millis(1)).await;
    assert_eq!(admitted(&read, [39, 40, 100]), [false; 3]);
    // A bound besides what the session must see.
    for (bound, expected) in [(5000, [false, true, true]), (1000, [false, false, true])] {
        let both = nodes.layer().level(Level::BoundedStaleness(Duration::from_millis(bound)));
        let read = context(both, "RYW", &[token(&keys(1), 50)]).await;
        assert_eq!(admitted(&read, [40, 50, 100]), expected, "{bound}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_was_allowed_less_is_admitted_within_its_bound() {
    let nodes = Nodes::new().await;
    let (mine, theirs) = (token(&keys(1), 50), token(&keys(9), 60));
    let stale = |ms| Ladder::new().wait(Duration::ZERO).primary(false).stale(Duration::from_millis(ms));
    let unproven = |layer: RywLayerBuilder| layer.unproven_reads(0);
    for tokens in [&[mine.clone()][..], &[mine.clone(), theirs.clone()]] {
        let read = context(unproven(nodes.layer()).ladder(stale(2000)), "RYW", tokens).await;
        assert_eq!((read.reason(), read.0.decision.achieved), (Reason::StaleAllowed, false));
        assert_eq!(admitted(&read, [39, 40, 100]), [false, true, true], "older than the bound, within it, and new");
        advance(Duration::from_millis(1)).await;
    }
    // A token that nobody believes: what is believed is kept, and no more.
    let read = context(unproven(nodes.layer()), "RYW", &[token(&keys(1), 40), theirs]).await;
    assert_eq!((read.reason(), read.0.decision.achieved), (Reason::UnknownMarks, false));
    assert_eq!(admitted(&read, [39, 40, 100]), [false, true, true]);
    // A loss is told by the primary: no replica is admitted, however fresh, where the ladder allows no stale read.
    let mut nodes = nodes;
    nodes.fail_over();
    let read = context(nodes.layer(), "RYW", &[mine]).await;
    assert_eq!((read.reason(), read.0.decision.achieved), (Reason::Lost, false));
    assert!(!read.admits(at(2, 60)));
}

#[tokio::test(start_paused = true)]
async fn a_write_is_made_in_the_epoch_that_continues_the_session() {
    let mut nodes = Nodes::new().await;
    let mine = [token(&keys(1), 50)];
    let [ordered, unordered] = [
        of_request(nodes.layer(), "PUT", "SESSION", &mine).await,
        of_request(nodes.layer(), "PUT", "RYW", &mine).await,
    ];
    assert_eq!(ordered.refuses_write(at(1, 100)), None);
    assert_eq!(ordered.refuses_write(at(2, 1)), Some(Reason::Behind), "nobody has heard of that epoch");
    assert_eq!((unordered.refuses_write(at(1, 100)), unordered.refuses_write(at(2, 1))), (None, None));
    nodes.fail_over();
    assert_eq!(ordered.refuses_write(at(2, 60)), Some(Reason::Lost));
    assert_eq!(unordered.refuses_write(at(2, 60)), None);
    let survived = of_request(nodes.layer(), "PUT", "SESSION", &[token(&keys(1), 45)]).await;
    assert_eq!(survived.refuses_write(at(2, 60)), None);
    assert_eq!(survived.refuses_write(at(1, 100)), Some(Reason::Behind), "the old primary lives on");
    let without_positions = of_request(RywLayer::builder(), "PUT", "SESSION", &[]).await;
    assert_eq!(without_positions.refuses_write(at(1, 1)), None);
}

#[tokio::test(start_paused = true)]
async fn a_read_may_write_once_it_says_so() {
    let nodes = Nodes::new().await;
    assert!(of_request(nodes.layer(), "PUT", "RYW", &[]).await.may_write());
    let read = context(nodes.layer(), "RYW", &[]).await;
    assert!(!read.may_write());
    read.mark_written();
    assert!(read.may_write());
}

#[tokio::test(start_paused = true)]
async fn another_node_is_found_by_the_same_decision() {
    let nodes = Nodes::new().await;
    let replica = |name: &str| Route::Replica { node: Some(name.into()) };
    let primary = Some((Route::Primary, Reason::NoReplica));
    let read = context(nodes.layer(), "RYW", &[]).await;
    assert_eq!(read.without(&[]), Some((replica("r1"), Reason::NoMarks)));
    assert_eq!((read.without(&["r1".into()]), read.without_replicas()), (primary, Some(Reason::NoReplica)));
    // Another service was called meanwhile, and has written.
    read.0.progress.lock().hop.marks.join(&Marks::at(at(1, 41)));
    assert_eq!(read.without(&[]), Some((Route::Primary, Reason::Behind)));
    let never = nodes.layer().ladder(Ladder::new().wait(Duration::ZERO).primary(false));
    let read = context(never, "RYW", &[]).await;
    assert_eq!((read.without(&["r1".into()]), read.without_replicas()), (None, None));
    assert_eq!(read.without(&[]), Some((replica("r1"), Reason::NoMarks)));
}

#[tokio::test(start_paused = true)]
async fn who_has_waited_is_told_so_also_when_asked_again() {
    let mut nodes = Nodes::new().await;
    let layer = nodes.layer().ladder(Ladder::new().wait(Duration::from_secs(1)));
    let mine = [token(&keys(1), 50)];
    let arrives = async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        nodes.replica.begin().report(Reading::new(Role::Replica, at(1, 50)));
    };
    let (read, ()) = tokio::join!(context(layer, "RYW", &mine), arrives);
    assert_eq!((read.reason(), read.waited()), (Reason::Waited, Duration::from_millis(5)));
    assert_eq!(read.without(&[]).map(|(_, reason)| reason), Some(Reason::Waited));
}
