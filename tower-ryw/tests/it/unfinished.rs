//! What may still commit when its request is cut short holds its session until it can't any more.

use std::{
    future::{Future, pending},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::routing::{MethodRouter, any};
use http::StatusCode;
use ryw_core::{
    Loaded, MarkStore, Marks, Position, StoreError, StoreErrorKind, StoreFuture, SubjectKey, Unsettled, Update,
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tower_ryw::{LocalStore, RywContext};

use crate::{
    cluster::{Client, Cluster, primary, replica},
    harness::session,
};

const ME: (&str, &str) = session("me");
const WINDOW: Duration = Duration::from_secs(2);
const STEP: Duration = Duration::from_millis(500);

/// Transactions that end when the test says so.
#[derive(Clone)]
struct Transactions {
    ended: watch::Sender<usize>,
    /// How often somebody wanted to know.
    asked: Arc<AtomicUsize>,
}

impl Transactions {
    fn new() -> Self {
        Self { ended: watch::Sender::new(0), asked: Arc::default() }
    }

    /// Number `n` ends once `n` have ended.
    fn ended(&self, n: usize) -> impl FnOnce() -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> + Send + 'static {
        let Self { ended, asked } = self.clone();
        move || {
            asked.fetch_add(1, SeqCst);
            let mut ended = ended.subscribe();
            Box::pin(async move { drop(ended.wait_for(|ended| *ended >= n).await) })
        }
    }

    fn end(&self, n: usize) {
        self.ended.send_replace(n);
    }
}

/// Starts `count` transactions and ends as it is told to; `None` hangs.
fn handler(transactions: &Transactions, count: usize, status: Option<StatusCode>) -> MethodRouter {
    let transactions = transactions.clone();
    any(move |context: RywContext| async move {
        for n in 1..=count {
            context.unfinished_until(transactions.ended(n));
        }
        match status {
            Some(status) => status,
            None => pending().await,
        }
    })
}

async fn route(client: &Client) -> String {
    client.get(&[ME]).await.route().to_owned()
}

/// The session asks again and again, and is held each time.
async fn stays_held(client: &Client, time: Duration, why: &str) {
    let mut left = time;
    while left > Duration::ZERO {
        sleep(STEP).await;
        left = left.saturating_sub(STEP);
        let route = route(client).await;
        assert!(route.starts_with("primary;reason=pending-write"), "{why}, {left:?} left: {route}");
    }
}

async fn settled(cluster: &Cluster, layer: &tower_ryw::RywLayer) {
    Client::of(layer).get(&[ME]).await;
    caught_up(cluster, 100).await;
}

async fn caught_up(cluster: &Cluster, offset: u64) {
    cluster.put("r1", Some(replica(1, offset)));
    cluster.set("r2", replica(1, offset)).await;
}

/// Renewals have their distance, also where a window is shorter than that.
#[tokio::test(start_paused = true)]
async fn a_short_window_does_not_end_between_two_renewals() {
    let cluster = Cluster::start().await;
    let layer = cluster.layer().window(Duration::from_millis(4)).build().unwrap();
    settled(&cluster, &layer).await;
    let transactions = Transactions::new();
    let client = Client::with(&layer, handler(&transactions, 1, Some(StatusCode::BAD_GATEWAY)));
    client.send("POST", "/it", &[ME]).await;
    for _ in 0..1000 {
        sleep(Duration::from_millis(1)).await;
        let route = route(&client).await;
        assert!(route.starts_with("primary;reason=pending-write"), "{route}");
    }
    transactions.end(1);
    sleep(Duration::from_millis(250)).await;
    assert!(!route(&client).await.contains("pending-write"));
}

#[tokio::test(start_paused = true)]
async fn its_session_is_held_until_it_has_ended_and_a_sample_stands_for_it() {
    for status in [None, Some(StatusCode::BAD_GATEWAY)] {
        let cluster = Cluster::start().await;
        let layer = cluster.layer().window(WINDOW).build().unwrap();
        settled(&cluster, &layer).await;
        let transactions = Transactions::new();
        let client = Client::with(&layer, handler(&transactions, 1, status));
        let cut = timeout(STEP, client.send("POST", "/it", &[ME])).await;
        assert_eq!(cut.is_err(), status.is_none());
        stays_held(&client, 10 * WINDOW, "still running").await;
        // It commits at last, at 150, and with that it has ended.
        cluster.set("p", primary(1, 150)).await;
        transactions.end(1);
        sleep(WINDOW + Duration::from_millis(200)).await;
        let read = route(&client).await;
        assert!(read.starts_with("primary;reason=unknown-marks"), "150 is required, and nobody has it: {read}");
        caught_up(&cluster, 150).await;
        let read = route(&client).await;
        assert!(read.starts_with("replica;"), "{read}");
        assert_eq!(transactions.asked.load(SeqCst), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn without_it_the_hold_is_over_after_the_window() {
    let cluster = Cluster::start().await;
    let layer = cluster.layer().window(WINDOW).build().unwrap();
    settled(&cluster, &layer).await;
    let client = Client::with(&layer, handler(&Transactions::new(), 0, Some(StatusCode::BAD_GATEWAY)));
    client.send("POST", "/it", &[ME]).await;
    assert!(route(&client).await.starts_with("primary;reason=pending-write"));
    sleep(WINDOW + Duration::from_millis(200)).await;
    assert!(route(&client).await.starts_with("replica"));
}

#[tokio::test(start_paused = true)]
async fn nobody_asks_when_the_outcome_is_known() {
    let cluster = Cluster::start().await;
    let layer = cluster.layer().build().unwrap();
    let transactions = Transactions::new();
    for status in [StatusCode::OK, StatusCode::SEE_OTHER, StatusCode::CONFLICT] {
        let client = Client::with(&layer, handler(&transactions, 3, Some(status)));
        for method in ["POST", "GET"] {
            assert_eq!(client.send(method, "/it", &[ME]).await.status, status);
        }
    }
    // A read that is cut short has no outcome that anybody would miss.
    let client = Client::with(&layer, handler(&transactions, 3, None));
    assert!(timeout(STEP, client.send("GET", "/it", &[ME])).await.is_err());
    assert_eq!(transactions.asked.load(SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn it_does_not_outlive_the_layer() {
    struct Tells(Arc<AtomicBool>);
    impl Drop for Tells {
        fn drop(&mut self) {
            self.0.store(true, SeqCst);
        }
    }
    let cluster = Cluster::start().await;
    let layer = cluster.layer().window(WINDOW).build().unwrap();
    let dropped = Arc::new(AtomicBool::new(false));
    let tells = Arc::clone(&dropped);
    let handler = any(move |context: RywContext| async move {
        let tells = Tells(tells);
        context.unfinished_until(move || async move {
            let _tells = tells;
            pending::<()>().await;
        });
        StatusCode::BAD_GATEWAY
    });
    let client = Client::with(&layer, handler);
    client.send("POST", "/it", &[ME]).await;
    sleep(3 * WINDOW).await;
    assert!(!dropped.load(SeqCst), "the layer is there");
    drop((client, layer));
    sleep(WINDOW).await;
    assert!(dropped.load(SeqCst), "the task has ended with the layer");
}

#[tokio::test(start_paused = true)]
async fn of_many_the_last_one_counts() {
    const MANY: usize = 2000;
    let cluster = Cluster::start().await;
    let layer = cluster.layer().window(WINDOW).build().unwrap();
    settled(&cluster, &layer).await;
    let transactions = Transactions::new();
    let client = Client::with(&layer, handler(&transactions, MANY, Some(StatusCode::BAD_GATEWAY)));
    client.send("POST", "/it", &[ME]).await;
    assert_eq!(transactions.asked.load(SeqCst), MANY);
    stays_held(&client, 2 * WINDOW, "none has ended").await;
    transactions.end(MANY - 1);
    stays_held(&client, 2 * WINDOW, "one is left").await;
    transactions.end(MANY);
    sleep(WINDOW + Duration::from_millis(200)).await;
    assert!(route(&client).await.starts_with("replica"));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_meanwhile_is_asked_again() {
    #[derive(Clone, Debug)]
    struct Failing(LocalStore, Arc<AtomicBool>);
    impl MarkStore for Failing {
        fn load(&self, keys: &[SubjectKey]) -> StoreFuture<Loaded> {
            self.0.load(keys)
        }
        fn join(&self, keys: &[SubjectKey], update: &Update) -> StoreFuture<()> {
            match self.1.load(SeqCst) {
                true => StoreFuture::failed(StoreError::new(StoreErrorKind::Unavailable)),
                false => self.0.join(keys, update),
            }
        }
        fn settle(&self, unsettled: &[Unsettled], at: Option<Position>) -> StoreFuture<()> {
            self.0.settle(unsettled, at)
        }
        fn acknowledge(&self, keys: &[SubjectKey], told: &Marks) -> StoreFuture<()> {
            self.0.acknowledge(keys, told)
        }
    }
    let cluster = Cluster::start().await;
    let fails = Arc::new(AtomicBool::new(false));
    let store = Failing(LocalStore::new(), Arc::clone(&fails));
    let layer = cluster.layer().window(WINDOW).store(store).build().unwrap();
    settled(&cluster, &layer).await;
    let transactions = Transactions::new();
    let client = Client::with(&layer, handler(&transactions, 1, Some(StatusCode::BAD_GATEWAY)));
    client.send("POST", "/it", &[ME]).await;
    stays_held(&client, 2 * WINDOW, "as long as it works").await;
    fails.store(true, SeqCst);
    // One renewal in vain: the one before it lasts until the next.
    stays_held(&client, WINDOW / 2, "while it fails").await;
    fails.store(false, SeqCst);
    stays_held(&client, 3 * WINDOW, "after that").await;
}
