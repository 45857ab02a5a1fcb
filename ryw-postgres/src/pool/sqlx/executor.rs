//! Statements that are given to the pool itself: they can be run again elsewhere, because a replica that fails one has
//! changed nothing.

use std::future::ready;

use futures_util::{
    StreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use sqlx::{
    Describe, Either, Error, Execute, Executor, Postgres,
    postgres::{PgArguments, PgQueryResult, PgRow, PgStatement, PgTypeInfo},
};
use tokio::sync::mpsc::{Sender, channel};
use tower_ryw::{NodeName, Reason, RywContext};

use super::{
    super::{Failure, follow, to_write, while_up},
    Lease, RywSqlxPool, To,
};
use crate::trouble::{Trouble, trouble_of_sqlx};

/// Rows that a stream reads ahead.
const AHEAD: usize = 16;

/// A part of what one or several statements return.
type Step = Either<PgQueryResult, PgRow>;

/// Runs a statement, and runs it again elsewhere if that can help.
macro_rules! run {
    ($pool:ident, $query:ident, $method:ident) => {{
        let (pool, context) = ($pool.clone(), RywContext::current());
        Box::pin(async move {
            let statement = Statement::of($query)?;
            let mut attempt = Attempt::first(pool, context).await?;
            loop {
                let Attempt { pool, lease, .. } = &mut attempt;
                let running = lease.connection.$method(statement.clone());
                match while_up(&pool.inner.nodes, lease.replica.as_ref(), running).await {
                    Ok(done) => return Ok(done),
                    Err(failure) => attempt = attempt.elsewhere(failure).await?,
                }
            }
        })
    }};
}

impl<'p> Executor<'p> for &'_ RywSqlxPool {
    type Database = Postgres;

    fn execute<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<PgQueryResult, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        run!(self, query, execute)
    }

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Step, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let (pool, context) = (self.clone(), RywContext::current());
        let (to, mut steps) = channel(AHEAD);
        let running = async move {
            if let Err(error) = deliver(pool, context, query, &to).await {
                // Nobody wants it any more when that fails.
                let _ = to.send(Err(error)).await;
            }
        };
        let running = stream::once(running).filter_map(|()| ready(None));
        stream::select(stream::poll_fn(move |cx| steps.poll_recv(cx)), running).boxed()
    }

    fn fetch_all<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Vec<PgRow>, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        run!(self, query, fetch_all)
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        run!(self, query, fetch_optional)
    }

    fn prepare_with<'e, 'q: 'e>(
        self,
        sql: &'q str,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement<'q>, Error>>
    where
        'p: 'e,
    {
        let (pool, context) = (self.clone(), RywContext::current());
        Box::pin(async move { pool.lease(context.as_ref()).await?.connection.prepare_with(sql, parameters).await })
    }

    #[doc(hidden)]
    fn describe<'e, 'q: 'e>(self, sql: &'q str) -> BoxFuture<'e, Result<Describe<Postgres>, Error>>
    where
        'p: 'e,
    {
        let (pool, context) = (self.clone(), RywContext::current());
        Box::pin(async move { pool.lease(context.as_ref()).await?.connection.describe(sql).await })
    }
}

/// What can be executed more than once.
#[derive(Clone)]
struct Statement<'q> {
    sql: &'q str,
    prepared: Option<PgStatement<'q>>,
    arguments: Option<PgArguments>,
    persistent: bool,
}

impl<'q> Statement<'q> {
    fn of(mut query: impl Execute<'q, Postgres>) -> Result<Self, Error> {
        let arguments = query.take_arguments().map_err(Error::Encode)?;
        let prepared = query.statement().cloned();
        Ok(Self { sql: query.sql(), prepared, arguments, persistent: query.persistent() })
    }
}

impl<'q> Execute<'q, Postgres> for Statement<'q> {
    fn sql(&self) -> &'q str {
        self.sql
    }

    fn statement(&self) -> Option<&PgStatement<'q>> {
        self.prepared.as_ref()
    }

    fn take_arguments(&mut self) -> Result<Option<PgArguments>, sqlx::error::BoxDynError> {
        Ok(self.arguments.take())
    }

    fn persistent(&self) -> bool {
        self.persistent
    }
}

/// A statement's way from node to node.
struct Attempt {
    pool: RywSqlxPool,
    context: Option<RywContext>,
    failed: Vec<NodeName>,
    lease: Lease,
}

impl Attempt {
    async fn first(pool: RywSqlxPool, context: Option<RywContext>) -> Result<Self, Error> {
        let lease = pool.lease(context.as_ref()).await?;
        Ok(Self { pool, context, failed: Vec::new(), lease })
    }

    /// Where a statement that has failed can be run again.
    async fn elsewhere(self, failure: Failure<Error>) -> Result<Self, Error> {
        let found =
            self.trouble(&failure).map(|(context, replica, trouble)| (context.clone(), replica.clone(), trouble));
        let Self { pool, mut failed, lease, .. } = self;
        match &failure {
            Failure::Error(_) => drop(lease),
            // Given back, it would be asked whether it is well, and not answer.
            Failure::Down(_) => drop(lease.connection.detach()),
        }
        let Some((context, replica, trouble)) = found else { return Err(failure.into()) };
        let lease = match trouble {
            Trouble::Writes => to_write(&*pool.inner, &context, Reason::Replayed).await?,
            Trouble::Broken => {
                pool.topology().failed(&replica);
                failed.push(replica);
                follow(&*pool.inner, &context, &mut failed).await?
            }
        };
        Ok(Self { pool, context: Some(context), failed, lease })
    }

    /// It is too late to run it again: the request may be made again as a whole.
    fn note(&self, failure: &Failure<Error>) {
        if let Some((context, replica, trouble)) = self.trouble(failure) {
            trouble.tell(context, replica);
        }
    }

    fn trouble(&self, failure: &Failure<Error>) -> Option<(&RywContext, &NodeName, Trouble)> {
        let context = self.context.as_ref().filter(|_| matches!(self.pool.to, To::Route))?;
        let replica = self.lease.replica.as_ref()?;
        Some((context, replica, failure.trouble(trouble_of_sqlx)?))
    }
}

impl From<Failure<Error>> for Error {
    fn from(failure: Failure<Error>) -> Self {
        match failure {
            Failure::Error(error) => error,
            Failure::Down(error) => error.into(),
        }
    }
}

/// Sends what the statement returns.
async fn deliver<'q>(
    pool: RywSqlxPool,
    context: Option<RywContext>,
    query: impl Execute<'q, Postgres>,
    to: &Sender<Result<Step, Error>>,
) -> Result<(), Error> {
    let statement = Statement::of(query)?;
    let mut attempt = Attempt::first(pool, context).await?;
    let mut begun = false;
    loop {
        let Attempt { pool, lease, .. } = &mut attempt;
        let mut steps = lease.connection.fetch_many(statement.clone());
        let delivering = async {
            while let Some(step) = steps.next().await {
                begun |= to.send(Ok(step?)).await.is_ok();
            }
            Ok(())
        };
        let delivered = while_up(&pool.inner.nodes, lease.replica.as_ref(), delivering).await;
        drop(steps);
        let Err(failure) = delivered else { return Ok(()) };
        if begun {
            attempt.note(&failure);
            return Err(failure.into());
        }
        attempt = attempt.elsewhere(failure).await?;
    }
}
