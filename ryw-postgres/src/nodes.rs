//! The nodes of one cluster, and what watches them.

use std::sync::Arc;

use tower_ryw::Topology;

#[cfg(any(feature = "bb8", feature = "sqlx"))]
use crate::unfinished::Follower;
use crate::{
    connect::{Builder, Target},
    watcher::Watchers,
};

/// The nodes of one cluster, watched, without a pool. What watches them stops when it is dropped.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use ryw_postgres::Nodes;
/// use tower_ryw::RywLayer;
///
/// let nodes = Nodes::builder().primary("postgres://app@db-1/app").replica("postgres://app@db-2/app").watch().await?;
/// let layer = RywLayer::builder().positions(nodes.topology().clone()).build()?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Nodes {
    #[cfg_attr(not(any(feature = "bb8", feature = "sqlx")), expect(dead_code, reason = "for the pools"))]
    pub(crate) targets: Vec<Arc<Target>>,
    #[cfg(any(feature = "bb8", feature = "sqlx"))]
    followers: Vec<Follower>,
    topology: Topology,
    _watchers: Watchers,
}

impl Nodes {
    /// Settings for the nodes.
    pub fn builder() -> Builder {
        Builder::new()
    }

    pub(crate) fn new(targets: Vec<Arc<Target>>, topology: Topology, watchers: Watchers) -> Self {
        #[cfg(any(feature = "bb8", feature = "sqlx"))]
        let followers = targets.iter().map(|target| Follower::of(target)).collect();
        Self {
            targets,
            #[cfg(any(feature = "bb8", feature = "sqlx"))]
            followers,
            topology,
            _watchers: watchers,
        }
    }

    #[cfg(any(feature = "bb8", feature = "sqlx"))]
    pub(crate) fn follower(&self, node: usize) -> &Follower {
        &self.followers[node]
    }

    /// The positions of the nodes, for [`RywLayerBuilder::positions`](tower_ryw::RywLayerBuilder::positions).
    #[must_use]
    pub fn topology(&self) -> &Topology {
        &self.topology
    }
}
