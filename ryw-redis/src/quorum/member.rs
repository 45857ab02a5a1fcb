//! One of several stores: asked within a deadline, and left alone for a while when it does not answer.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use ryw_core::{MarkStore, StoreError, StoreErrorKind, StoreFuture};
use tokio::{
    sync::RwLock,
    time::{Instant, timeout},
};

/// One that has not answered by then has failed.
const DEADLINE: Duration = Duration::from_secs(1);
/// For how long one that has failed is left alone, doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Member {
    pub(super) store: Arc<dyn MarkStore>,
    /// Joins hold it together, whatever has to come after them alone.
    order: RwLock<()>,
    failed: Mutex<Option<Failed>>,
}

#[derive(Clone, Copy, Debug)]
struct Failed {
    pause: Duration,
    again_at: Instant,
}

/// Whether what is asked has to wait until all joins before it have arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Any,
    AmongJoins,
    AfterJoins,
}

impl Member {
    pub(super) fn new(store: Arc<dyn MarkStore>) -> Self {
        Self { store, order: RwLock::default(), failed: Mutex::default() }
    }

    /// Whether it answered when it was last asked.
    pub(super) fn answers(&self) -> bool {
        self.failed.lock().is_none()
    }

    /// Whether it answers, or may do so again by now.
    pub(super) fn is_worth_asking(&self) -> bool {
        self.failed.lock().is_none_or(|failed| Instant::now() >= failed.again_at)
    }

    pub(super) async fn ask<T: Unpin>(&self, order: Order, answer: StoreFuture<T>) -> Result<T, StoreError> {
        let in_order = async {
            match order {
                Order::Any => answer.await,
                Order::AmongJoins => {
                    let _joins = self.order.read().await;
                    answer.await
                }
                Order::AfterJoins => {
                    let _alone = self.order.write().await;
                    answer.await
                }
            }
        };
        let answer = timeout(DEADLINE, in_order).await;
        let answer = answer.unwrap_or_else(|_| Err(StoreError::new(StoreErrorKind::Timeout)));
        self.note(answer.as_ref().err());
        answer
    }

    fn note(&self, error: Option<&StoreError>) {
        let mut failed = self.failed.lock();
        // Where one entry makes no sense, the others do.
        if error.is_none_or(|error| !error.kind().is_outage()) {
            *failed = None;
            return;
        }
        let now = Instant::now();
        // Those that were asked at the same time fail together, and count once.
        if failed.is_none_or(|failed| now >= failed.again_at) {
            let pause = failed.map_or(FIRST_PAUSE, |failed| LONGEST_PAUSE.min(2 * failed.pause));
            *failed = Some(Failed { pause, again_at: now + pause });
        }
    }
}
