//! Replicas serve exactly those reads that an oracle would send to them: one that knows what each has replayed.

use ryw_testing::servers::postgres::Server;

use crate::world::{World, until};

fn set_replay(standby: &Server, paused: bool) {
    let call = if paused { "pg_wal_replay_pause()" } else { "pg_wal_replay_resume()" };
    standby.psql(&format!("select {call}")).unwrap();
}

/// Asked of the standby itself, not of what tower-ryw knows of it.
fn is_paused(standby: &Server) -> bool {
    standby.psql("select pg_get_wal_replay_pause_state()").unwrap() == "paused"
}

fn shows(standby: &Server, value: i64) -> bool {
    standby.psql("select value from notes where key = 'note'").unwrap() == value.to_string()
}

#[tokio::test]
async fn as_an_oracle_would() {
    let world = World::with_standbys(2).await;
    let standbys = world.cluster.standbys();
    let (mut by_replica, mut by_primary) = (0, 0);
    // Who is paused changes from write to write, in every combination.
    for (value, paused) in (1..=24).map(|value: i64| (value, [value % 2 == 1, value / 2 % 2 == 1])) {
        for (standby, paused) in standbys.iter().zip(paused) {
            set_replay(standby, paused);
            until("replay is paused or goes on", async || is_paused(standby) == paused).await;
        }
        world.service.put("me", "note", value).await;
        for (standby, _) in standbys.iter().zip(paused).filter(|(_, paused)| !paused) {
            until("the standby has replayed the write", async || shows(standby, value)).await;
        }
        // The watchers get as far as the oracle is; then every read has to agree with it.
        let possible = paused.contains(&false);
        if possible {
            until("a replica serves", async || world.service.read("me", "note").await.served().0 == "replica").await;
        }
        for _ in 0..5 {
            let read = world.service.read("me", "note").await;
            assert_eq!(read.value(), Some(value), "{paused:?} {read:?}");
            assert_eq!(read.served().0 == "replica", possible, "{paused:?} {read:?}");
            by_replica += usize::from(possible);
            by_primary += usize::from(!possible);
        }
    }
    assert_eq!((by_replica, by_primary), (90, 30));
}
