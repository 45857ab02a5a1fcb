//! What `RywClientLayer` adds to a request, beside a layer that does nothing.
//!
//! The service answers at once, so that nothing but the layers counts; all are measured in turns within one run.

use std::{convert::Infallible, error::Error, future::Future};

use http::{HeaderValue, Request, Response};
use ryw_client::{RywClientLayer, Session};
use ryw_costs::clock::processor_time;
use tower::{Layer, Service, ServiceExt, service_fn, util::MapRequestLayer};

use crate::report::{Section, Spread, Table};

const ROUNDS: usize = 21;
const REQUESTS: u32 = 20_000;

/// ns of processor time per request.
async fn measure<S>(service: &mut S) -> Result<f64, Box<dyn Error>>
where
    S: Service<Request<()>, Error: Error + 'static>,
{
    let started = processor_time();
    for _ in 0..REQUESTS {
        let request = Request::get("http://notes.example/v1/notes/7").body(())?;
        std::hint::black_box(service.ready().await?.call(request).await?);
    }
    Ok((processor_time() - started).as_secs_f64() * 1e9 / f64::from(REQUESTS))
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

/// Runs it.
pub fn run(quick: bool) -> Result<Section, Box<dyn Error>> {
    tokio::runtime::Builder::new_current_thread().build()?.block_on(compare(if quick { 7 } else { ROUNDS }))
}

async fn compare(rounds: usize) -> Result<Section, Box<dyn Error>> {
    let token = token()?;
    let mut noop = MapRequestLayer::new(|request: Request<()>| request).layer(answers(None));
    let mut nothing = RywClientLayer::new(Session::new()).layer(answers(None));
    let mut carries = RywClientLayer::new(Session::new()).layer(answers(Some(token.clone())));
    let mut noop_token = MapRequestLayer::new(|request: Request<()>| request).layer(answers(Some(token)));
    let mut adds: [Vec<f64>; 2] = Default::default();
    for _ in 0..rounds {
        let bare = measure(&mut noop).await?;
        adds[0].push(measure(&mut nothing).await? - bare);
        let bare = measure(&mut noop_token).await?;
        adds[1].push(measure(&mut carries).await? - bare);
    }
    let mut table = Table::new(["RywClientLayer, beside a layer that does nothing", "adds, ns of processor time"]);
    for (what, adds) in ["a session that has nothing to carry", "a token is sent and learned"].into_iter().zip(adds) {
        table.row([what.into(), Spread::of(adds).into()]);
    }
    Ok(Section {
        id: "client",
        title: "Callers",
        text: "A service that answers at once.".into(),
        tables: vec![table],
        ..Section::default()
    })
}
