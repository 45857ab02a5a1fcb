//! The routes: handlers that know nothing about replicas, and the same without the layer.

use std::collections::BTreeMap;

use axum::{
    Json, Router,
    extract::{Path, RawQuery, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode},
    routing::get,
};
use ryw_postgres::{
    RywPool,
    tokio_postgres::{Row, types::ToSql},
};
use tower_ryw::RywLayer;

use super::{
    DEADLINE, EPOCH, NODE, UNGATED,
    sql::{self, Who},
};

type Answer<T> = Result<(HeaderMap, Json<T>), (StatusCode, String)>;

/// Who chooses the server.
#[derive(Clone, Copy, Debug)]
enum Via {
    Request,
    RoundRobin,
}

#[derive(Clone, Debug)]
struct App {
    pool: RywPool,
    via: Via,
}

pub(super) fn routes(pool: RywPool, layer: RywLayer) -> Router {
    let app = |via| values().with_state(App { pool: pool.clone(), via });
    app(Via::Request).layer(layer).nest(UNGATED, app(Via::RoundRobin)).route("/livez", get(async || ()))
}

fn values() -> Router<App> {
    Router::new()
        .route("/list/{key}", get(list).post(append))
        .route("/reg/{key}", get(register).post(put))
        .route("/snap", get(snapshot))
}

async fn append(State(app): State<App>, Path(key): Path<String>, value: String) -> Answer<()> {
    let value = number(&value)?;
    let row = one(app.write(sql::APPEND, &[&key, &value]).await?)?;
    Ok((headers(&who(&row)?)?, Json(())))
}

/// Answers with the row's new version.
async fn put(State(app): State<App>, Path(key): Path<String>, value: String) -> Answer<i64> {
    let value = number(&value)?;
    let row = one(app.write(sql::PUT, &[&key, &value]).await?)?;
    Ok((headers(&who(&row)?)?, Json(row.try_get(2).map_err(wrong)?)))
}

async fn list(State(app): State<App>, Path(key): Path<String>) -> Answer<Vec<i64>> {
    let row = one(app.read(sql::LIST, &[&key]).await?)?;
    let items: Option<Vec<i64>> = row.try_get(2).map_err(wrong)?;
    Ok((headers(&who(&row)?)?, Json(items.unwrap_or_default())))
}

/// Answers with the value and the row's version, or with `null`.
async fn register(State(app): State<App>, Path(key): Path<String>) -> Answer<Option<(i64, i64)>> {
    let row = one(app.read(sql::REGISTER, &[&key]).await?)?;
    let (value, version): (Option<i64>, Option<i64>) = (row.try_get(2).map_err(wrong)?, row.try_get(3).map_err(wrong)?);
    Ok((headers(&who(&row)?)?, Json(value.zip(version))))
}

/// `?k=a&k=b`: lists, as one snapshot shows them.
async fn snapshot(State(app): State<App>, RawQuery(query): RawQuery) -> Answer<BTreeMap<String, Vec<i64>>> {
    let query = query.unwrap_or_default();
    let keys: Vec<&str> = query.split('&').filter_map(|pair| pair.strip_prefix("k=")).collect();
    let rows = app.read(sql::SNAPSHOT, &[&keys]).await?;
    let first = rows.first().ok_or((StatusCode::BAD_REQUEST, "no keys: ask for ?k=a&k=b".to_owned()))?;
    let told = headers(&who(first)?)?;
    let pair = |row: &Row| Ok((row.try_get(2)?, row.try_get::<_, Option<Vec<i64>>>(3)?.unwrap_or_default()));
    let lists: Result<_, ryw_postgres::tokio_postgres::Error> = rows.iter().map(pair).collect();
    Ok((told, Json(lists.map_err(wrong)?)))
}

impl App {
    async fn read(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, (StatusCode, String)> {
        in_time(async {
            match self.via {
                Via::Request => self.pool.query(sql, params).await.map_err(away),
                Via::RoundRobin => self.pool.replica().await.map_err(away)?.query(sql, params).await.map_err(away),
            }
        })
        .await
    }

    async fn write(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, (StatusCode, String)> {
        in_time(async { self.pool.query(sql, params).await.map_err(away) }).await
    }
}

/// A server that freezes must not hold its requests for as long as it is frozen.
async fn in_time<T>(work: impl Future<Output = Result<T, (StatusCode, String)>>) -> Result<T, (StatusCode, String)> {
    let late = || (StatusCode::GATEWAY_TIMEOUT, "no answer from the database in time".to_owned());
    tokio::time::timeout(DEADLINE, work).await.unwrap_or_else(|_| Err(late()))
}

fn number(text: &str) -> Result<i64, (StatusCode, String)> {
    text.parse().map_err(|error| (StatusCode::BAD_REQUEST, format!("the body has to be a number: {error}")))
}

fn one(rows: Vec<Row>) -> Result<Row, (StatusCode, String)> {
    rows.into_iter().next().ok_or((StatusCode::INTERNAL_SERVER_ERROR, "the statement returned no row".to_owned()))
}

fn who(row: &Row) -> Result<Who, (StatusCode, String)> {
    sql::who(row).map_err(wrong)
}

fn headers(who: &Who) -> Result<HeaderMap, (StatusCode, String)> {
    let mut headers = HeaderMap::new();
    let node = HeaderValue::try_from(&who.node).map_err(wrong)?;
    headers.insert(HeaderName::from_static(NODE), node);
    if let Some(epoch) = who.epoch {
        headers.insert(HeaderName::from_static(EPOCH), HeaderValue::from(epoch));
    }
    Ok(headers)
}

fn away(error: impl std::error::Error) -> (StatusCode, String) {
    (StatusCode::BAD_GATEWAY, error.to_string())
}

fn wrong(error: impl std::error::Error) -> (StatusCode, String) {
    (StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}
