//! What `RywClientLayer` adds to a request, beside a layer that does nothing.
//!
//! `cargo run --release -p ryw-bench --bin client`, and with `-- --short` a tenth of it. The service answers at once, so that
//! nothing but the layers counts; all are measured in turns within one run, and compared round by round.

use std::{convert::Infallible, error::Error, future::Future};

use http::{HeaderValue, Request, Response};
use ryw_client::{RywClientLayer, Session};
use tokio::time::Instant;
use tower::{Layer, Service, ServiceExt, service_fn, util::MapRequestLayer};

const ROUNDS: usize = 21;
const REQUESTS: u32 = 20_000;
const REQUESTS_SHORT: u32 = 2_000;

/// ns per request.
async fn measure<S>(service: &mut S, requests: u32) -> Result<f64, Box<dyn Error>>
where
    S: Service<Request<()>, Error: Error + 'static>,
{
    let started = Instant::now();
    for _ in 0..requests {
        let request = Request::get("http://notes.example/v1/notes/7").body(())?;
        std::hint::black_box(service.ready().await?.call(request).await?);
    }
    Ok(started.elapsed().as_secs_f64() * 1e9 / f64::from(requests))
}

fn answers(
    token: Option<HeaderValue>,
) -> impl Service<Request<()>, Response = Response<String>, Error = Infallible, Future: Future + Send + 'static> + Clone
{
    service_fn(move |request: Request<()>| {
        std::hint::black_box(&request);
        let mut response = Response::new(String::new());
        if let Some(token) = &token {
            response.headers_mut().insert("ryw-token", token.clone());
        }
        std::future::ready(Ok(response))
    })
}

fn token() -> Result<HeaderValue, Box<dyn Error>> {
    let (keys, tenant) = (tower_ryw::Keyring::random()?, tower_ryw::Tenant::default());
    let session = keys.newest().session(&tenant, &"me".parse()?);
    let position = tower_ryw::Position::new(tower_ryw::ClusterId::new(1), tower_ryw::Epoch::new(1), 7);
    let marks = tower_ryw::Marks::at(position);
    Ok(tower_ryw::Token { session, issued_at: 1_700_000_000, marks }.seal(&keys, &tenant).try_into()?)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let token = token()?;
    let mut noop = MapRequestLayer::new(|request: Request<()>| request).layer(answers(None));
    let mut nothing = RywClientLayer::new(Session::new()).layer(answers(None));
    let mut carries = RywClientLayer::new(Session::new()).layer(answers(Some(token.clone())));
    let mut noop_token = MapRequestLayer::new(|request: Request<()>| request).layer(answers(Some(token)));
    let requests = if std::env::args().any(|argument| argument == "--short") { REQUESTS_SHORT } else { REQUESTS };
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        rounds.push([
            measure(&mut noop, requests).await?,
            measure(&mut nothing, requests).await?,
            measure(&mut noop_token, requests).await?,
            measure(&mut carries, requests).await?,
        ]);
    }
    let median = |of: &dyn Fn(&[f64; 4]) -> f64| {
        let mut all: Vec<_> = rounds.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        all[ROUNDS / 2]
    };
    println!("ns per request, medians of {ROUNDS} rounds of {requests}");
    println!("{:<45} {:>11}   {:>14}   {:>8}   {:>8}", "", "no-op layer", "RywClientLayer", "adds", "ratio");
    for (what, (without, with)) in
        [("a session that has nothing to carry", (0, 1)), ("a token is sent and learned", (2, 3))]
    {
        let (before, after) = (median(&|round| round[without]), median(&|round| round[with]));
        let (adds, ratio) =
            (median(&|round| round[with] - round[without]), median(&|round| round[with] / round[without]));
        println!("{what:<45} {before:>11.0}   {after:>14.0}   {adds:>8.0}   {ratio:>8.2}");
    }
    Ok(())
}
