//! A mark store of one's own, given to the layer, and then put through the suite that every store has to pass.
//!
//! ```text
//! cargo run -p custom-store
//! ```

mod store;

use std::{error::Error, time::Duration};

use ryw_core::Keyring;
use ryw_testing::suite::{self, Times};
use tower_ryw::RywLayer;

use store::MapStore;

/// Subjects that the store remembers.
const CAPACITY: usize = 100_000;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    // Wherever `RywLayer` is used, it takes the store. Instances that share one need the same keys.
    let layer = RywLayer::builder().store(MapStore::new(CAPACITY)).signing_keys(Keyring::random()?).build()?;
    println!("a layer over a store of one's own: {:?}", layer.store_health());

    // This one keeps what it has for as long as there is room, whatever time it is given.
    suite::check(times(), async |_| MapStore::new(CAPACITY)).await;
    println!("the store does what a mark store must");
    Ok(())
}

/// Far above what a map takes to answer.
const fn times() -> Times {
    Times { hold: Duration::from_millis(80), ttl: Duration::from_millis(500) }
}

#[cfg(test)]
mod tests {
    use ryw_core::{ClusterId, Epoch, Loaded, MarkStore, Marks, Position, SubjectKey, Update};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_store_does_what_a_mark_store_must() {
        suite::check(times(), async |_| MapStore::new(CAPACITY)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_forgotten_is_covered() {
        let at = |offset| Position::new(ClusterId::new(1), Epoch::new(1), offset);
        let key = |number: u8| SubjectKey::from_bytes([number; 16]);
        let store = MapStore::new(3);
        let doubt = store.load(&[key(0)]).await.unwrap();
        store.settle(&doubt.unsettled, Some(at(5))).await.unwrap();
        for number in 0..10_u8 {
            let update = Update { marks: Marks::at(at(100 - u64::from(number))), hold: None };
            store.join(&[key(number)], &update).await.unwrap();
        }
        for number in 0..10_u8 {
            let Loaded { mut marks, floor, .. } = store.load(&[key(number)]).await.unwrap();
            marks.join(&floor);
            assert!(marks.covers(&Marks::at(at(100 - u64::from(number)))), "{number}: {marks:?}");
        }
        assert!(store.load(&[key(77)]).await.unwrap().floor.covers(&Marks::at(at(100))), "nobody knows who it was");
    }
}
