//! Marks that a store did not take are on a disk before they are promised, and in the store before it is believed.

use std::{fs, path::Path, time::Duration};

use ryw_core::Keyring;
use tokio::time::sleep;
use tower_ryw::{ConfigErrorKind, LocalStore, OutboxErrorKind, RywLayer, RywLayerBuilder, StoreHealth};

use crate::{
    away::Way,
    cluster::{Client, Cluster, primary, replica},
    harness::{Answer, session},
};

const ME: (&str, &str) = session("me");
/// Nothing but what says whose file it is.
const EMPTY: u64 = 8;

/// A store that has instances, which come and go. The replicas are at 100.
struct Shared {
    cluster: Cluster,
    keys: Keyring,
    store: LocalStore,
}

/// One of them.
struct Instance {
    way: Way,
    layer: RywLayer,
    client: Client,
}

impl Shared {
    async fn start() -> Self {
        let shared = Self {
            cluster: Cluster::start().await,
            keys: Keyring::random().unwrap(),
            store: LocalStore::builder().capacity(1).build(),
        };
        // One part only, so that one read settles what a new store does not know.
        shared.instance().client.get(&[ME]).await;
        for name in ["r1", "r2"] {
            shared.cluster.set(name, replica(1, 100)).await;
        }
        Self { store: LocalStore::new(), ..shared }.settled().await
    }

    async fn settled(self) -> Self {
        let instance = self.instance();
        for number in 0..1000 {
            instance.client.get(&[session(&format!("s{number}"))]).await;
        }
        self
    }

    fn instance(&self) -> Instance {
        let way = Way::to(&self.store);
        let layer = self.builder(&way).build().unwrap();
        Instance { way, client: Client::of(&layer), layer }
    }

    fn builder(&self, way: &Way) -> RywLayerBuilder {
        self.cluster.layer().store(way.clone()).signing_keys(self.keys.clone())
    }

    /// One with an outbox, whose way to the store is cut or not.
    async fn with_outbox(&self, directory: &Path, capacity: u64, is_cut: bool) -> Instance {
        let way = Way::to(&self.store);
        if is_cut {
            way.cut();
        }
        let layer = opened(|| self.builder(&way).outbox(directory).outbox_capacity(capacity)).await;
        Instance { way, client: Client::of(&layer), layer }
    }

    /// The primary goes on, the replicas stay where they are.
    async fn write_at(&self, offset: u64) {
        self.cluster.set("p", primary(1, offset)).await;
    }
}

impl Instance {
    fn health(&self) -> StoreHealth {
        self.layer.store_health().unwrap()
    }
}

/// The one before may be about to close its file.
async fn opened(builder: impl Fn() -> RywLayerBuilder) -> RywLayer {
    loop {
        match builder().build() {
            Ok(layer) => return layer,
            Err(error) => assert!(error.to_string().contains("it is in use"), "{error}"),
        }
        sleep(Duration::from_millis(1)).await;
    }
}

fn is_promised(answer: &Answer) -> bool {
    assert_eq!(answer.status, 200, "bookkeeping never fails a request");
    answer.header("x-consistency-enforced") == Some("true")
}

#[tokio::test(start_paused = true)]
async fn what_was_promised_is_delivered_by_the_next_process_before_the_store_is_believed() {
    let directory = tempfile::tempdir().unwrap();
    let shared = Shared::start().await;
    let other = shared.instance();
    assert!(other.client.get(&[ME]).await.route().starts_with("replica"), "there is nothing to see yet");

    let one = shared.with_outbox(directory.path(), 1 << 20, true).await;
    shared.write_at(150).await;
    assert!(is_promised(&one.client.post(&[ME]).await));
    let health = one.health();
    assert_eq!((health.backlog, health.dropped, health.full), (1, 0, false));
    assert!(health.outbox_bytes > EMPTY && health.away.is_some(), "{health:?}");
    drop(one);

    // The next one can't reach it either.
    let two = shared.with_outbox(directory.path(), 1 << 20, true).await;
    assert_eq!(two.health().backlog, 1);
    sleep(Duration::from_secs(10)).await;
    assert!(two.client.get(&[ME]).await.route().starts_with("primary;reason=behind"), "it has read what it promised");
    let health = two.health();
    assert!(health.tries > 3 && health.oldest >= Some(Duration::from_secs(10)), "{health:?}");
    drop(two);

    let three = shared.with_outbox(directory.path(), 1 << 20, false).await;
    assert!(three.health().away.is_some(), "not believed before it has been told");
    assert!(three.client.get(&[ME]).await.route().starts_with("primary"));
    sleep(Duration::from_secs(1)).await;
    let health = three.health();
    assert_eq!((health.away, health.backlog, health.outbox_bytes), (None, 0, EMPTY));
    let read = other.client.get(&[ME]).await;
    assert!(read.route().starts_with("primary;reason=behind"), "the others know now: {}", read.route());
    drop(three);
    assert_eq!(
        shared.with_outbox(directory.path(), 1 << 20, false).await.health().backlog,
        0,
        "and it is not told again"
    );
}

#[tokio::test(start_paused = true)]
async fn a_delivery_that_is_cut_short_goes_on_with_the_next_process() {
    let directory = tempfile::tempdir().unwrap();
    let shared = Shared::start().await;
    let names: Vec<_> = (0..200).map(|number| format!("s{number}")).collect();
    let one = shared.with_outbox(directory.path(), 1 << 20, true).await;
    shared.write_at(150).await;
    for name in &names {
        assert!(is_promised(&one.client.post(&[session(name)]).await));
    }
    drop(one);
    for left in [100, 30, usize::MAX] {
        // Less than there is already: what was promised has room all the same.
        let next = shared.with_outbox(directory.path(), 4096, false).await;
        next.way.cut_after(left);
        assert!(!next.health().full);
        next.client.get(&[ME]).await;
        sleep(Duration::from_secs(1)).await;
        assert_eq!(next.health().backlog == 0, left == usize::MAX, "{left}");
    }
    let other = shared.instance();
    for name in &names {
        assert!(other.client.get(&[session(name)]).await.route().starts_with("primary;reason=behind"), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hold_outlives_the_process() {
    let directory = tempfile::tempdir().unwrap();
    let (keys, store) = (Keyring::random().unwrap(), LocalStore::builder().held_at_start(Duration::ZERO).build());
    let way = Way::to(&store);
    let builder = || RywLayer::builder().store(way.clone()).signing_keys(keys.clone()).window(Duration::from_secs(60));
    let other = Client::of(&builder().build().unwrap());
    sleep(Duration::from_secs(1)).await;
    assert!(other.get(&[ME]).await.route().starts_with("replica"));
    way.cut();
    let one = Client::of(&builder().outbox(directory.path()).build().unwrap());
    assert!(is_promised(&one.post(&[ME]).await));
    drop(one);
    let next = Client::of(&opened(|| builder().outbox(directory.path())).await);
    assert!(next.get(&[ME]).await.route().starts_with("primary;reason=window"), "known without the store");
    drop(next);
    way.mend();
    let next = opened(|| builder().outbox(directory.path())).await;
    sleep(Duration::from_secs(30)).await;
    assert_eq!(next.store_health().unwrap().backlog, 0);
    assert!(other.get(&[ME]).await.route().starts_with("primary;reason=window"), "it may still be on its way");
    sleep(Duration::from_secs(31)).await;
    assert!(other.get(&[ME]).await.route().starts_with("replica"), "and is not for longer than that");
}

#[tokio::test(start_paused = true)]
async fn a_file_that_grows_is_replaced_by_what_is_left() {
    let directory = tempfile::tempdir().unwrap();
    let shared = Shared::start().await;
    let one = shared.with_outbox(directory.path(), 4096, true).await;
    for offset in 101..400 {
        shared.cluster.put("p", Some(primary(1, offset)));
        assert!(is_promised(&one.client.post(&[session(&format!("s{}", offset % 10))]).await), "{offset}");
        let on_disk = fs::metadata(directory.path().join("log")).unwrap().len();
        assert!(on_disk <= 4096 && on_disk == one.health().outbox_bytes, "{on_disk}");
    }
    drop(one);
    let next = shared.with_outbox(directory.path(), 4096, false).await;
    assert_eq!(next.health().backlog, 10);
    next.client.get(&[ME]).await;
    sleep(Duration::from_secs(1)).await;
    for replica_at in [398, 399] {
        for name in ["r1", "r2"] {
            shared.cluster.set(name, replica(1, replica_at)).await;
        }
        let other = shared.instance();
        let read = other.client.get(&[session("s9")]).await;
        assert_eq!(read.route().starts_with("replica"), replica_at == 399, "its last write counts: {}", read.route());
    }
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_is_not_promised_and_makes_everybody_unknown() {
    for is_killed in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let shared = Shared::start().await;
        let other = shared.instance();
        let one = shared.with_outbox(directory.path(), 4096, true).await;
        shared.write_at(150).await;
        let mut promised = Vec::new();
        for number in 0..60 {
            promised.push(is_promised(&one.client.post(&[session(&format!("s{number}"))]).await));
        }
        let kept = promised.iter().filter(|is_promised| **is_promised).count();
        let health = one.health();
        assert!(kept > 10 && kept < 50, "{kept}");
        assert_eq!((health.backlog, health.dropped, health.full), (kept, 60 - kept as u64, true));
        assert!(fs::metadata(directory.path().join("log")).unwrap().len() <= 4096);
        // What was dropped is written down without anybody waiting for it: before this one, which is waited for.
        let again = one.client.post(&[session("s0")]).await;
        assert!(is_promised(&again), "it needs no more room");

        let one = if is_killed {
            drop(one);
            shared.with_outbox(directory.path(), 4096, false).await
        } else {
            one
        };
        assert_eq!((one.health().backlog, one.health().full), (kept, true), "killed: {is_killed}");
        one.way.mend();
        one.client.get(&[ME]).await;
        sleep(Duration::from_secs(3)).await;
        let health = one.health();
        assert_eq!((health.away, health.backlog, health.full, health.outbox_bytes), (None, 0, false, EMPTY));
        for number in 0..60 {
            let read = other.client.get(&[session(&format!("s{number}"))]).await;
            assert!(
                read.route().starts_with("primary;reason=behind"),
                "{number}, killed {is_killed}: {}",
                read.route()
            );
        }
        // It is over once replicas have what the primary had then.
        for name in ["r1", "r2"] {
            shared.cluster.set(name, replica(1, 150)).await;
        }
        shared.write_at(200).await;
        for number in 0..60 {
            let read = other.client.get(&[session(&format!("s{number}"))]).await;
            assert!(read.route().starts_with("replica"), "{number}: {}", read.route());
        }
        // A failover that takes the sample takes nobody's write.
        shared.cluster.fail_over().await;
        let read = other.client.get(&[session("never-wrote")]).await;
        assert_eq!((read.header("ryw-lost"), read.body.as_str()), (None, "None"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_fails_promises_nothing_and_is_tried_again() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("outbox");
    let shared = Shared::start().await;
    let one = shared.with_outbox(&directory, 4096, true).await;
    assert!(is_promised(&one.client.post(&[ME]).await));
    // The file can be written to, and not be replaced any more.
    fs::rename(&directory, parent.path().join("elsewhere")).unwrap();
    let mut offset = 101;
    let mut promised = true;
    while promised {
        shared.cluster.put("p", Some(primary(1, offset)));
        promised = is_promised(&one.client.post(&[ME]).await);
        assert_eq!(promised, !one.health().outbox_failed);
        offset += 1;
        assert!(offset < 1000, "it must not go beyond its capacity");
    }
    assert!(one.health().outbox_failed);
    assert!(!is_promised(&one.client.post(&[ME]).await));
    fs::rename(parent.path().join("elsewhere"), &directory).unwrap();
    sleep(Duration::from_secs(2)).await;
    shared.write_at(offset).await;
    assert!(is_promised(&one.client.post(&[ME]).await), "with all that was kept in memory meanwhile");
    assert!(!one.health().outbox_failed);
    drop(one);
    let next = shared.with_outbox(&directory, 4096, false).await;
    assert_eq!(next.health().backlog, 1);
}

#[tokio::test(start_paused = true)]
async fn a_damaged_file_makes_everybody_unknown() {
    let directory = tempfile::tempdir().unwrap();
    let shared = Shared::start().await;
    let one = shared.with_outbox(directory.path(), 4096, true).await;
    shared.write_at(150).await;
    assert!(is_promised(&one.client.post(&[ME]).await));
    drop(one);
    let path = directory.path().join("log");
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    let next = shared.with_outbox(directory.path(), 4096, false).await;
    assert_eq!((next.health().backlog, next.health().full), (0, true));
    next.client.get(&[ME]).await;
    sleep(Duration::from_secs(1)).await;
    let read = shared.instance().client.get(&[ME]).await;
    assert!(read.route().starts_with("primary;reason=unknown-marks"), "{}", read.route());
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_can_not_be_used_is_told_when_the_layer_is_built() {
    let directory = tempfile::tempdir().unwrap();
    let layer = || RywLayer::builder().store(LocalStore::new());
    let refused = |builder: RywLayerBuilder| {
        let error = builder.build().map(drop).unwrap_err();
        let kind = match error.kind() {
            ConfigErrorKind::Outbox(error) => Some(error.kind()),
            _ => None,
        };
        (kind, error.to_string())
    };
    let first = layer().outbox(directory.path()).build().unwrap();
    let (kind, text) = refused(layer().outbox(directory.path()));
    assert_eq!(kind, Some(OutboxErrorKind::InUse));
    assert!(text.contains(&directory.path().display().to_string()) && text.contains("directory of its own"), "{text}");
    drop(first);
    layer().outbox(directory.path()).build().unwrap();

    let file = directory.path().join("log");
    assert_eq!(refused(layer().outbox(&file)).0, Some(OutboxErrorKind::Io));
    fs::write(&file, b"something else").unwrap();
    assert_eq!(refused(layer().outbox(directory.path())).0, Some(OutboxErrorKind::Foreign));
    for (builder, setting) in [
        (RywLayer::builder().outbox(directory.path()), "outbox needs store"),
        (RywLayer::builder().strict_writes(true), "strict_writes needs store"),
        (RywLayer::builder().route(tower_ryw::RouteRule::new("/x").strict_writes(true)), "strict_writes needs store"),
        (layer().outbox_capacity(4095), "outbox_capacity is 4095 bytes: at least 4096"),
    ] {
        let text = refused(builder).1;
        assert!(text.starts_with(setting), "{text}");
    }
}
