//! What is read from a node, and what it means.

use ryw_core::{ClusterId, Epoch, Position};
use tokio::time::Instant;
use tokio_postgres::{Client, Error, Row, Statement, types::PgLsn};
use tower_ryw::topology::{Incarnation, Reading, Role};

use crate::{
    error::innermost,
    timeline,
    visibility::{Visibility, Writer},
};

/// Which position of the primary stands for "everything committed so far".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Capture {
    /// The flush position, unless `synchronous_commit` is `off` for the watchers' role: then the insert position.
    /// The default.
    #[default]
    Auto,
    /// The insert position: for applications that switch `synchronous_commit` off themselves, in some sessions or
    /// transactions. It can be ahead of what is sent to replicas by up to `wal_writer_delay` (200 ms by default).
    Insert,
}

/// One round trip, and no table. Functions that fail in recovery are guarded by CASE, which evaluates lazily.
///
/// A standby's timeline is the one it receives; while there is no WAL receiver, the control file has a lower bound: the
/// one of its last checkpoint.
///
/// Which transactions are in progress is looked at after the position. One between two statements has not written its
/// commit. A COMMIT PREPARED waits without a transaction of its own, so all that are prepared are taken to wait then. Who may not
/// see what others do has to expect that one waits for ever: by the number of no transaction. The parameter: whether to look
/// also when commits wait for nobody.
pub(crate) const READ: &str = "
select pg_is_in_recovery() as recovering,
       (select system_identifier from pg_control_system()) as cluster,
       case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_flush_lsn() end as applied,
       case when pg_is_in_recovery() then null else pg_current_wal_insert_lsn() end as inserted,
       case when pg_is_in_recovery()
            then (select received_tli from pg_stat_wal_receiver)::text
            else left(pg_walfile_name(pg_current_wal_lsn()), 8) end as timeline,
       case when pg_is_in_recovery() then (select timeline_id from pg_control_checkpoint()) end as checkpointed,
       current_setting('synchronous_commit') = 'off' as asynchronous,
       current_setting('wal_block_size')::bigint as page,
       pg_size_bytes(current_setting('wal_segment_size')) as segment,
       current_setting('synchronous_standby_names') <> '' as synchronous,
       case when pg_is_in_recovery() then null
            when current_setting('synchronous_standby_names') = ''
                 and not ($1 and pg_has_role('pg_read_all_stats', 'usage')) then null
            when not pg_has_role('pg_read_all_stats', 'usage') then '{-1}'
            else array(select case when wait_event = 'SyncRep' then -1 else 1 end * backend_xid::text::bigint
                       from pg_stat_activity where backend_xid is not null and coalesce(state, '') not like 'idle%'
                       union all
                       select case when exists (select from pg_stat_activity
                                                where wait_event = 'SyncRep' and backend_xid is null) then -1 else 1 end
                              * transaction::text::bigint
                       from pg_prepared_xacts) end as writers";

/// When the server was started, in µs by its own clock: tells its runs apart. After a crash of one of its processes the
/// others are started again, and so is recovery, without the postmaster: but not without the checkpointer, which those see
/// who may. A connection does not survive either, so it is asked for once.
pub(crate) const STARTED: &str = "(extract(epoch from greatest(pg_postmaster_start_time(), \
    (select backend_start from pg_stat_activity where backend_type = 'checkpointer'))) * 1000000)::bigint";

/// The system identifier.
#[cfg(any(feature = "bb8", feature = "sqlx"))]
pub(crate) const CLUSTER: &str = "(select system_identifier from pg_control_system())";

/// Where a timeline has forked: with the [helper](crate::HELPERS), or else with the right to read any file. The last two
/// arguments: the whole file, and no error when there is none.
const HISTORY: [&str; 2] =
    ["select ryw.timeline_history($1)", "select pg_read_file('pg_wal/' || $1 || '.history', 0, 1000000, true)"];

/// A history that could not be read is tried again after so many readings, which also limits the warnings.
const RETRY_AFTER: u32 = 500;

/// Reads one node, over one connection.
#[derive(Debug)]
pub(crate) struct Reader {
    client: Client,
    read: Statement,
    run: Incarnation,
    capture: Capture,
    /// The timeline whose history has been read.
    history_of: Option<Epoch>,
    /// Readings until the history is tried again, after it could not be read.
    retry_in: u32,
    forks: Vec<timeline::Fork>,
    visibility: Visibility,
}

/// What a node answered, not yet brought into tower-ryw's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NodeReading {
    pub(crate) role: Role,
    pub(crate) position: Position,
    pub(crate) incarnation: Incarnation,
    /// Whether the position's epoch is the node's. Otherwise it may be in a newer one.
    pub(crate) epoch_is_certain: bool,
}

/// What one run of a node's server has shown of its timeline, whichever connection it was read over: it never goes back.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    run: Incarnation,
    epoch: Option<Epoch>,
}

impl Shown {
    fn complete(&mut self, reading: NodeReading) -> NodeReading {
        if self.run != reading.incarnation {
            *self = Self { run: reading.incarnation, epoch: None };
        }
        let reading = reading.at_least(self.epoch);
        self.epoch = Some(reading.position.epoch()).filter(|_| reading.epoch_is_certain);
        reading
    }
}

impl NodeReading {
    /// The same node's reading, of which it is known that it is in this epoch, or in a newer one.
    pub(crate) fn at_least(self, shown: Option<Epoch>) -> Self {
        let Some(shown) = shown else { return self };
        let (cluster, epoch) = (self.position.cluster(), self.position.epoch().max(shown));
        let position = Position::new(cluster, epoch, self.position.offset());
        Self { position, epoch_is_certain: true, ..self }
    }

    /// Whether the position can be believed. Where a newer epoch is known, a lower bound says nothing: the node may be
    /// in the one or in the other.
    pub(crate) fn is_known(&self, newest: Option<Epoch>) -> bool {
        self.epoch_is_certain || newest.is_none_or(|newest| self.position.epoch() >= newest)
    }
}

impl Reader {
    pub(crate) async fn new(client: Client, capture: Capture) -> Result<Self, Error> {
        let started: i64 = client.query_one(&format!("select {STARTED}"), &[]).await?.try_get(0)?;
        let (run, read) = (Incarnation(started.cast_unsigned()), prepare(&client).await?);
        let (forks, visibility) = (Vec::new(), Visibility::default());
        Ok(Self { client, read, run, capture, history_of: None, retry_in: 0, forks, visibility })
    }

    /// The node's position now. `None` when the answer makes no sense (a standby that has not replayed anything).
    pub(crate) async fn read(&mut self, shown: &mut Shown) -> Result<Option<NodeReading>, Error> {
        let row = self.client.query_one(&self.read, &[&self.visibility.is_behind()]).await?;
        let Some(reading) = parse(&row, self.run, self.capture)? else { return Ok(None) };
        let reading = shown.complete(reading);
        let writers: Option<Vec<Writer>> = row.try_get("writers")?;
        // Between the insertion of a commit and its flush may lie any time, between its flush and its wait hardly any.
        let flushed = row.try_get::<_, Option<PgLsn>>("applied")?.map_or(0, u64::from);
        let flushed = Position::new(reading.position.cluster(), reading.position.epoch(), flushed);
        self.visibility.observe(flushed, row.try_get("synchronous")?, writers.as_deref(), Instant::now());
        let timeline = reading.position.epoch();
        if self.history_of != Some(timeline) {
            match self.retry_in.checked_sub(1) {
                Some(left) => self.retry_in = left,
                None => self.read_history(timeline).await,
            }
        }
        Ok(Some(reading))
    }

    /// A reading in tower-ryw's words, with what is known of the past.
    pub(crate) fn report(&self, reading: NodeReading) -> Reading {
        let report = Reading::new(reading.role, reading.position).incarnation(reading.incarnation);
        let report = match self.visibility.get() {
            Some(visible) => report.visible(visible),
            None => report,
        };
        self.forks.iter().fold(report, |report, fork| report.fork(fork.epoch, fork.parent, fork.at))
    }

    async fn history_file(&self, name: &str) -> Result<Option<String>, Error> {
        let [helper, any_file] = HISTORY;
        let row = match self.client.query_one(helper, &[&name]).await {
            Err(error) if error.code().is_some() => self.client.query_one(any_file, &[&name]).await?,
            answer => answer?,
        };
        row.try_get(0)
    }

    async fn read_history(&mut self, timeline: Epoch) {
        // The first timeline has none.
        if timeline <= Epoch::new(1) {
            self.history_of = Some(timeline);
            return;
        }
        match self.history_file(&format!("{:08X}", timeline.get())).await {
            Ok(Some(file)) => {
                self.forks = timeline::parse(timeline, &file);
                self.history_of = Some(timeline);
            }
            // It may be removed, or not be there yet.
            Ok(None) => self.history_is_missing(timeline, "there is no such file"),
            Err(error) => self.history_is_missing(timeline, &innermost(&error).to_string()),
        }
    }

    fn history_is_missing(&mut self, timeline: Epoch, error: &str) {
        self.retry_in = RETRY_AFTER;
        tracing::warn!(
            timeline = timeline.get(),
            %error,
            "the history of a timeline can't be read: marks from before it go to the primary, and losses are not told"
        );
    }
}

pub(crate) async fn prepare(client: &Client) -> Result<Statement, Error> {
    client.prepare(READ).await
}

pub(crate) fn parse(row: &Row, run: Incarnation, capture: Capture) -> Result<Option<NodeReading>, Error> {
    let lsn = |column| row.try_get::<_, Option<PgLsn>>(column).map(|lsn| lsn.map(u64::from));
    let answer = Answer {
        recovering: row.try_get("recovering")?,
        cluster: row.try_get("cluster")?,
        applied: lsn("applied")?,
        inserted: lsn("inserted")?,
        timeline: row.try_get("timeline")?,
        checkpointed: row.try_get("checkpointed")?,
        asynchronous: row.try_get("asynchronous")?,
        page: row.try_get("page")?,
        segment: row.try_get("segment")?,
    };
    Ok(answer.reading(run, capture))
}

/// What [`READ`] returns, whichever driver has asked.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) recovering: bool,
    pub(crate) cluster: i64,
    pub(crate) applied: Option<u64>,
    pub(crate) inserted: Option<u64>,
    pub(crate) timeline: Option<String>,
    pub(crate) checkpointed: Option<i32>,
    pub(crate) asynchronous: bool,
    pub(crate) page: i64,
    pub(crate) segment: i64,
}

impl Answer {
    pub(crate) fn reading(self, run: Incarnation, capture: Capture) -> Option<NodeReading> {
        let timeline = match (&self.timeline, self.recovering) {
            (Some(received), true) => received.parse().ok()?,
            (None, true) => self.checkpointed?.cast_unsigned(),
            // A WAL file's name is hexadecimal, a timeline column is not.
            (file, false) => u32::from_str_radix(file.as_ref()?, 16).ok()?,
        };
        let offset = match self.inserted {
            Some(inserted) if self.asynchronous || capture == Capture::Insert => {
                before_page_header(inserted, self.page.unsigned_abs(), self.segment.unsigned_abs())
            }
            _ => self.applied?,
        };
        Some(NodeReading {
            role: if self.recovering { Role::Replica } else { Role::Primary },
            position: Position::new(ClusterId::new(self.cluster.cast_unsigned()), Epoch::new(timeline), offset),
            incarnation: run,
            epoch_is_certain: self.timeline.is_some(),
        })
    }
}

/// The insert position counts the header of a page that nothing is on yet. A standby that has replayed everything
/// stands before it, and would seem to lag until the next record comes.
fn before_page_header(lsn: u64, page: u64, segment: u64) -> u64 {
    const SHORT: u64 = 24;
    const LONG: u64 = 40;
    if segment > 0 && lsn % segment == LONG {
        lsn - LONG
    } else if page > 0 && lsn % page == SHORT {
        lsn - SHORT
    } else {
        lsn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standby(run: u64, epoch: u32, epoch_is_certain: bool) -> NodeReading {
        NodeReading {
            role: Role::Replica,
            position: Position::new(ClusterId::new(1), Epoch::new(epoch), 100),
            incarnation: Incarnation(run),
            epoch_is_certain,
        }
    }

    #[test]
    fn a_run_stays_in_the_epoch_that_it_has_shown() {
        let mut shown = Shown::default();
        let mut read = |run, epoch, certain| {
            let reading = shown.complete(standby(run, epoch, certain));
            (reading.position.epoch().get(), reading.epoch_is_certain)
        };
        assert_eq!(read(1, 1, false), (1, false), "so far nothing but its last checkpoint");
        assert_eq!(read(1, 2, true), (2, true));
        assert_eq!(read(1, 1, false), (2, true), "its receiver is away");
        assert_eq!(read(1, 3, false), (3, true), "a checkpoint in a newer one");
        assert_eq!(read(1, 2, true), (3, true));
        assert_eq!(read(2, 1, false), (1, false), "another run may have gone back");
    }

    #[test]
    fn a_lower_bound_counts_while_nothing_newer_is_known() {
        let newest = Some(Epoch::new(2));
        for (reading, expected) in [
            (standby(1, 1, true), true),
            (standby(1, 1, false), false),
            (standby(1, 2, false), true),
            (standby(1, 3, false), true),
        ] {
            assert_eq!(reading.is_known(newest), expected, "{reading:?}");
            assert!(reading.is_known(None));
        }
    }

    /// 16 MiB segments of 8 KiB pages.
    fn answered() -> Answer {
        Answer {
            recovering: false,
            cluster: 7,
            applied: Some(0x0301_0000),
            inserted: Some(0x0302_0018),
            timeline: Some("0000001A".into()),
            checkpointed: None,
            asynchronous: false,
            page: 8192,
            segment: 16 << 20,
        }
    }

    #[test]
    fn a_primary_is_where_its_commits_are_durable_or_inserted() {
        let (flushed, inserted) = (0x0301_0000, 0x0302_0000);
        for (asynchronous, capture, expected) in [
            (false, Capture::Auto, flushed),
            (true, Capture::Auto, inserted),
            (false, Capture::Insert, inserted),
            (true, Capture::Insert, inserted),
        ] {
            let answer = Answer { asynchronous, cluster: -1, ..answered() };
            let expected = NodeReading {
                role: Role::Primary,
                position: Position::new(ClusterId::new(u64::MAX), Epoch::new(0x1A), expected),
                incarnation: Incarnation(3),
                epoch_is_certain: true,
            };
            assert_eq!(answer.reading(Incarnation(3), capture), Some(expected), "{asynchronous} {capture:?}");
        }
        // What it has not said is not made up.
        for nonsense in [
            Answer { timeline: None, checkpointed: Some(1), ..answered() },
            Answer { timeline: Some("no file".into()), ..answered() },
            Answer { applied: None, ..answered() },
        ] {
            assert_eq!(nonsense.reading(Incarnation(3), Capture::Auto), None);
        }
    }

    #[test]
    fn a_standby_is_in_the_timeline_that_it_receives_or_in_a_later_one_than_its_checkpoint() {
        let standby = |timeline: Option<&str>, checkpointed| {
            let timeline = timeline.map(Into::into);
            let answer = Answer { recovering: true, inserted: None, timeline, checkpointed, ..answered() };
            let reading = answer.reading(Incarnation(3), Capture::Insert)?;
            assert_eq!((reading.role, reading.position.offset()), (Role::Replica, 0x0301_0000));
            Some((reading.position.epoch().get(), reading.epoch_is_certain))
        };
        // Not hexadecimal, as the name of a file is.
        assert_eq!(standby(Some("12"), Some(1)), Some((12, true)));
        assert_eq!(standby(None, Some(1)), Some((1, false)));
        assert_eq!(standby(None, Some(-1)), Some((u32::MAX, false)), "it has no sign");
        assert_eq!(standby(Some("A"), Some(1)), None);
        assert_eq!(standby(None, None), None);
        let nothing_replayed = Answer { recovering: true, applied: None, inserted: None, ..answered() };
        assert_eq!(nothing_replayed.reading(Incarnation(3), Capture::Auto), None);
    }

    #[test]
    fn page_headers_are_not_part_of_a_position() {
        const SEGMENT: u64 = 16 << 20;
        for (lsn, expected) in [
            (0x0302_0018, 0x0302_0000),
            (0x0302_0019, 0x0302_0019),
            (0x0302_0028, 0x0302_0028),
            (0x0300_0028, 0x0300_0000),
            (0x0300_0018, 0x0300_0000),
            (0x0301_F0B0, 0x0301_F0B0),
        ] {
            assert_eq!(before_page_header(lsn, 8192, SEGMENT), expected, "{lsn:X}");
            // Whoever says that there are none has no headers either.
            assert_eq!(before_page_header(lsn, 0, 0), lsn);
        }
    }
}
