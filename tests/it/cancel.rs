//! Wherever a request is cut short: if its write got to the database, its session will see it.

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
};

use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    http::{Request, StatusCode},
    routing::put,
};
use ryw_postgres::RywPool;
use ryw_testing::servers::postgres::{Cluster, Standby};
use tokio::{sync::Notify, task::yield_now};

use crate::world::{World, select, until, upsert};

/// More often than a request has to be polled.
const MAX_POLLS: u32 = 100;

#[derive(Default)]
struct Woken(Notify);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
}

/// When a future is dropped after its last poll.
#[derive(Clone, Copy, Debug)]
enum Dropped {
    AtOnce,
    /// What it waited for has happened, and it does not know yet.
    WhenWoken,
}

/// Polls a future when it asks for it, at most so often, and drops it.
async fn polled<F: Future>(future: F, polls: u32, dropped: Dropped) -> Option<F::Output> {
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut future = pin!(future);
    for poll in 1..=polls {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(output);
        }
        if poll < polls || matches!(dropped, Dropped::WhenWoken) {
            woken.0.notified().await;
        }
    }
    None
}

async fn write_and_linger(State(pool): State<RywPool>, Path(key): Path<String>) -> StatusCode {
    let client = pool.get().await.unwrap();
    upsert(&client, &key, 1).await;
    for _ in 0..3 {
        yield_now().await;
        client.query_one("select 1", &[]).await.unwrap();
    }
    StatusCode::NO_CONTENT
}

#[tokio::test]
async fn a_request_that_is_dropped_leaves_a_mark_if_it_wrote() {
    for dropped in [Dropped::AtOnce, Dropped::WhenWoken] {
        // One connection: what is asked over it is answered after all that has been sent over it before.
        let routes = Router::new().route("/linger/{key}", put(write_and_linger));
        let cluster = Cluster::builder().standby(Standby::named("r1"));
        let world = World::start(cluster, routes, 1).await;
        // Each session has been seen, so that none is held to what the primary has because it is unknown.
        for polls in 1..MAX_POLLS {
            world.service.read(&format!("s{polls}"), "none").await;
        }
        world.pause_replay().await;

        let (mut written, mut unwritten) = (Vec::new(), 0);
        for polls in 1.. {
            assert!(polls < MAX_POLLS, "the request never ends");
            let name = format!("s{polls}");
            let request = Request::put(format!("/linger/{name}")).header("x-session-id", &name);
            let serving = world.service.send(request.body(Body::empty()).unwrap());
            if polled(serving, polls, dropped).await.is_some() {
                break;
            }
            let settled = {
                let client = world.pool.primary().await.unwrap();
                select(&client, &name).await.unwrap()
            };
            let read = world.service.read(&name, &name).await;
            assert_eq!(read.value(), settled, "dropped {dropped:?} after {polls} polls: {read:?}");
            if settled.is_some() {
                assert_eq!(read.served(), ("primary", "pending-write"), "{dropped:?} after {polls} polls");
                written.push(name);
            } else {
                unwritten += 1;
            }
        }
        assert!(written.len() > 3 && unwritten > 0, "not cut at all places: {written:?}, {unwritten}");

        // The hold ends, the mark stays: nobody knows where the write is, so the primary is asked where it is now.
        for name in written {
            until("the hold is over", async || {
                let read = world.service.read(&name, &name).await;
                assert_eq!((read.value(), read.served().0), (Some(1), "primary"), "{name}: {read:?}");
                read.served().1 == "behind"
            })
            .await;
        }
    }
}
