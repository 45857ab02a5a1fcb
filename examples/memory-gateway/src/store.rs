//! Where marks are kept: in this process, in one Redis, or in several of which a majority is enough.

use std::{error::Error, sync::Arc};

use ryw_core::MarkStore;
use ryw_redis::{QuorumStore, RedisStore};
use ryw_telemetry::{Metrics, opentelemetry::metrics::Meter};
use tower_ryw::{RywLayer, RywLayerBuilder, StoreHealth};

/// The stores that instances share.
#[derive(Clone, Debug)]
pub(crate) enum Shared {
    None,
    One(RedisStore),
    Several(QuorumStore),
}

impl Shared {
    /// None of them need be there yet: until they are, marks are unknown.
    pub(crate) fn open(urls: &[String]) -> Result<Self, Box<dyn Error>> {
        if !urls.is_empty() && std::env::var_os("RYW_TOKEN_KEY").is_none() {
            return Err(
                "--redis needs RYW_TOKEN_KEY, the same on all instances: marks are filed under keyed hashes".into()
            );
        }
        let open = |url: &String| RedisStore::builder().connect_lazy(url.as_str());
        Ok(match urls {
            [] => Self::None,
            [url] => Self::One(open(url)?),
            several => {
                let stores: Vec<_> = several.iter().map(open).collect::<Result<_, _>>()?;
                let stores = stores.into_iter().map(|store| Arc::new(store) as Arc<dyn MarkStore>);
                Self::Several(QuorumStore::majority(stores)?)
            }
        })
    }

    pub(crate) fn layer(&self, metrics: &Metrics) -> RywLayerBuilder {
        match self {
            Self::None => RywLayer::builder(),
            Self::One(store) => RywLayer::builder().store(metrics.store(store.clone())),
            Self::Several(store) => RywLayer::builder().store(metrics.store(store.clone())),
        }
    }

    /// For `/v1/health`.
    pub(crate) fn describe(&self, marks: usize, health: Option<StoreHealth>) -> serde_json::Value {
        let ms = |age: std::time::Duration| u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        let mut said = serde_json::json!({ "kind": self.kind(), "marks": marks });
        if let Some(health) = health {
            said["heard_ms"] = health.heard.map(ms).into();
            said["away_ms"] = health.away.map(ms).into();
            said["outbox"] = serde_json::json!({
                "backlog": health.backlog,
                "oldest_ms": health.oldest.map(ms),
                "attempts": health.tries,
                "dropped": health.dropped,
            });
        }
        if let Self::Several(store) = self {
            said["quorum"] = serde_json::json!({ "available": store.available(), "has_quorum": store.has_quorum() });
        }
        said
    }

    /// How many of several stores answer, as a metric.
    pub(crate) fn watch(&self, meter: &Meter) {
        if let Self::Several(store) = self {
            let store = store.clone();
            let available = meter.u64_observable_gauge("ryw_quorum_available").with_description("Stores that answer");
            available.with_callback(move |to| to.observe(store.available() as u64, &[])).build();
        }
    }

    const fn kind(&self) -> &'static str {
        match self {
            Self::None => "local",
            Self::One(_) => "redis",
            Self::Several(_) => "quorum",
        }
    }
}
