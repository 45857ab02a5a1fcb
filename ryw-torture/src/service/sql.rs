//! What the service says to PostgreSQL.

use ryw_postgres::tokio_postgres::{Error, Row};

/// Appends to one list wait for each other at its row, so elements are in the order of their commits.
pub(crate) const SCHEMA: &str = "
create table lists (key text primary key, items bigint[] not null);
create table regs (key text primary key, value bigint not null, ver bigint not null);";

/// Every key's surviving state, for the end of a history.
pub(crate) const FINAL: &str = "
select key, items, null::bigint, null::bigint from lists
union all select key, null, value, ver from regs";

/// Who answers: the server's name, and its timeline if it is the primary.
macro_rules! who {
    () => {
        "current_setting('cluster_name'), case when not pg_is_in_recovery() then \
         ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::bigint end"
    };
}

pub(super) const APPEND: &str = concat!(
    "insert into lists values ($1, array[$2::bigint]) \
     on conflict (key) do update set items = lists.items || excluded.items returning ",
    who!()
);

/// A version is larger than any of an earlier timeline, so that none is given twice.
pub(super) const PUT: &str = concat!(
    "with at as (select ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::bigint << 32 as base) \
     insert into regs select $1, $2, base + 1 from at \
     on conflict (key) do update set value = excluded.value, ver = greatest(regs.ver + 1, excluded.ver) returning ",
    who!(),
    ", ver"
);

pub(super) const LIST: &str = concat!("select ", who!(), ", items from (select) one left join lists on key = $1");

pub(super) const REGISTER: &str =
    concat!("select ", who!(), ", value, ver from (select) one left join regs on key = $1");

/// One statement, so one snapshot.
pub(super) const SNAPSHOT: &str = concat!(
    "select ",
    who!(),
    ", asked.key, items from unnest($1::text[]) asked (key) left join lists on lists.key = asked.key"
);

/// Who has answered.
#[derive(Clone, Debug)]
pub(super) struct Who {
    pub(super) node: String,
    pub(super) epoch: Option<i64>,
}

pub(super) fn who(row: &Row) -> Result<Who, Error> {
    Ok(Who { node: row.try_get(0)?, epoch: row.try_get(1)? })
}
