//! What a client sends is hostile: forged tokens buy nothing, and nothing that can be sent breaks a parser.
//!
//! `RYW_HOSTILE_TOKENS` is how many tokens are forged (default 20 000; the promise is about a million), `RYW_FUZZ_SECONDS`
//! how long each parser is fed (default 2), `RYW_FUZZ_SEED` repeats a run.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use fastrand::Rng;
use futures_util::future::join_all;
use http::{HeaderName, HeaderValue, Request, Response};
use ryw_core::{ClusterId, Epoch, Key, Keyring, Marks, Position, Tenant, Token};
use tokio::time::{Instant, sleep};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_ryw::{
    CookiePolicy, Ladder, RywContext, RywLayer,
    topology::{Incarnation, Reading, Role, Topology},
};

const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// At once.
const WAVE: usize = 100;

pub(crate) fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

/// A source of hostility that can be had again.
pub(crate) fn rng() -> Rng {
    let seed = setting("RYW_FUZZ_SEED", fastrand::u64(..));
    println!("RYW_FUZZ_SEED={seed}");
    Rng::with_seed(seed)
}

fn keys() -> Keyring {
    Keyring::new(Key::new(1, &[7; 32]).unwrap()).and_accept(Key::new(2, &[8; 32]).unwrap()).unwrap()
}

fn at(offset: u64) -> Position {
    Position::new(ClusterId::new(1), Epoch::new(1), offset)
}

fn seal(keys: &Keyring, tenant: &Tenant, marks: Marks) -> String {
    let session = keys.newest().session(tenant, &"me".parse().unwrap());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    Token { session, issued_at: u32::try_from(now).unwrap(), marks }.seal(keys, tenant)
}

fn text(rng: &mut Rng, length: usize) -> String {
    (0..length).map(|_| char::from(ALPHABET[rng.usize(..ALPHABET.len())])).collect()
}

/// What somebody makes who has an honest token and no key.
fn forged(rng: &mut Rng, honest: &str, other: &str) -> String {
    let far = Marks::at(at(u64::MAX - 1));
    let mut bytes = honest.as_bytes().to_vec();
    let place = rng.usize(..bytes.len());
    match rng.u8(..9) {
        0 => bytes[place] = ALPHABET[rng.usize(..ALPHABET.len())],
        1 => (0..rng.usize(2..8)).for_each(|_| {
            let place = rng.usize(..bytes.len());
            bytes[place] = ALPHABET[rng.usize(..ALPHABET.len())];
        }),
        2 => bytes.truncate(place),
        3 => bytes.extend(text(rng, 4).bytes()),
        // The signature of another token.
        4 => {
            let (start, tail) = (bytes.len() - 21, &other.as_bytes()[other.len() - 21..]);
            bytes[start..].copy_from_slice(tail);
        }
        5 => bytes.swap(place, rng.usize(..honest.len())),
        // A key of one's own, under an id that is in use, and positions that no primary has.
        6 => {
            let own = Key::new(rng.u8(1..3), text(rng, 32).as_bytes()).unwrap();
            return seal(&Keyring::new(own), &Tenant::default(), far);
        }
        7 => return seal(&keys(), &text(rng, 8).parse().unwrap(), far),
        _ => {
            let length = rng.usize(1..600);
            return text(rng, length);
        }
    }
    String::from_utf8(bytes).unwrap()
}

/// A primary and a replica at the same place, and how often the primary was read.
fn cluster() -> (Topology, Arc<AtomicUsize>) {
    let (topology, readings) = (Topology::new(), Arc::new(AtomicUsize::new(0)));
    for (name, role) in [("p", Role::Primary), ("r", Role::Replica)] {
        let (mut watch, readings) = (topology.add(name), Arc::clone(&readings));
        tokio::spawn(async move {
            loop {
                let turn = watch.next().await;
                // A reading takes its time, so that those who ask meanwhile can share the next.
                tokio::task::yield_now().await;
                readings.fetch_add(usize::from(role == Role::Primary), Relaxed);
                turn.report(Reading::new(role, at(100)).incarnation(Incarnation(1)));
            }
        });
    }
    (topology, readings)
}

fn layer(topology: &Topology) -> RywLayer {
    RywLayer::builder()
        .positions(topology.clone())
        .signing_keys(keys())
        .cookie(CookiePolicy::InsecureForDevelopment)
        .event_ids(true)
        .ladder(Ladder::new().wait(Duration::from_secs(2)))
        .build()
        .unwrap()
}

async fn handler(_: Request<()>) -> Result<Response<String>, Infallible> {
    let _context = RywContext::current();
    Ok(Response::new(String::new()))
}

/// How many readings of the primary these tokens cost; each is sent as a request, many at once.
async fn readings(layer: &RywLayer, count: &AtomicUsize, tokens: &[String]) -> usize {
    let before = count.load(Relaxed);
    let mut by_allowance = 0;
    for wave in tokens.chunks(WAVE) {
        let answers = wave.iter().map(|token| {
            let request = Request::get("/").header("ryw-token", token).body(()).unwrap();
            layer.layer(service_fn(handler)).oneshot(request)
        });
        for answer in join_all(answers).await {
            let answer = answer.unwrap();
            let route = answer.headers()["ryw-route"].to_str().unwrap().to_owned();
            // A bit that was turned may say that a write is on its way.
            let by_primary = route.starts_with("primary;reason=pending-write");
            by_allowance += usize::from(by_primary);
            assert!(answer.status() == 200 && (route.starts_with("replica") || by_primary), "{route}");
            assert!(!route.contains("waited"), "{route}");
        }
    }
    assert!(by_allowance <= 5, "the clock stands, so there is no more than one second's: {by_allowance}");
    count.load(Relaxed) - before
}

#[tokio::test(start_paused = true)]
async fn forged_tokens_are_refused_and_cost_what_an_honest_unknown_costs() {
    let mut rng = rng();
    let (topology, count) = cluster();
    sleep(Duration::from_millis(50)).await;
    let layer = layer(&topology);
    let honest = seal(&keys(), &Tenant::default(), Marks::at(at(90)));
    let other = seal(&keys(), &Tenant::default(), Marks::at(at(50)));
    // Counts what it should: an honest token is not refused.
    readings(&layer, &count, std::slice::from_ref(&honest)).await;
    assert_eq!(layer.stats().snapshot().tokens_refused, 0);
    let unknown = seal(&keys(), &Tenant::default(), Marks::unknown());
    let (mut by_honest, mut by_forged, mut sent) = (0, 0, 0);
    let total = setting("RYW_HOSTILE_TOKENS", 20_000);
    let started = Instant::now();
    while sent < total {
        let some = (total - sent).min(10_000);
        let mut forged: Vec<_> = (0..some).map(|_| self::forged(&mut rng, &honest, &other)).collect();
        forged.retain(|token| *token != honest && !token.is_empty());
        let refused = layer.stats().snapshot().tokens_refused;
        by_forged += readings(&layer, &count, &forged).await;
        let accepted = forged.len() as u64 - (layer.stats().snapshot().tokens_refused - refused);
        assert_eq!(accepted, 0, "forged tokens were accepted");
        by_honest += readings(&layer, &count, &vec![unknown.clone(); forged.len()]).await;
        sent += some;
    }
    assert!(by_forged <= by_honest + by_honest / 10, "{by_forged} readings, and {by_honest} for honest ones");
    assert_eq!(topology.waiting(), 0);
    // Nobody has slept: the clock stands unless everybody does.
    assert!(started.elapsed() < Duration::from_millis(100), "{:?}", started.elapsed());
}

/// Bytes that a header may hold, often such as mean something.
fn bytes(rng: &mut Rng, honest: &str) -> Vec<u8> {
    const WORDS: [&str; 26] = [
        "ryw",
        "__Host-ryw",
        "=",
        ";",
        ",",
        ".",
        " ",
        "\t",
        "\"",
        "\\",
        "%",
        "unknown",
        "RYW",
        "EVENTUAL",
        "BOUNDED",
        "max=",
        "250",
        "-1",
        "99999999999999999999",
        "STRONG",
        "ack",
        "ack;epoch=2",
        "ack;epoch=99999999999999999999",
        "?1",
        "a",
        "~",
    ];
    let mut bytes = Vec::new();
    for _ in 0..rng.usize(..12) {
        match rng.u8(..6) {
            0 => bytes.extend(honest.bytes()),
            1 => bytes.extend(forged(rng, honest, honest).bytes()),
            2 => bytes.push(rng.u8(..)),
            _ => bytes.extend(WORDS[rng.usize(..WORDS.len())].bytes()),
        }
    }
    bytes
}

/// Feeds requests with such headers to the layer for the time there is.
async fn feed(names: &[&'static str]) {
    let mut rng = rng();
    let (topology, _) = cluster();
    sleep(Duration::from_millis(50)).await;
    let layer = layer(&topology);
    let honest = seal(&keys(), &Tenant::default(), Marks::at(at(90)));
    let mut service = layer.layer(service_fn(handler));
    let until = Instant::now() + Duration::from_secs(setting("RYW_FUZZ_SECONDS", 2));
    let (mut sent, mut served, mut refused) = (0_u64, 0_u64, 0_u64);
    while Instant::now() < until {
        let mut request = Request::new(());
        for _ in 0..rng.usize(1..5) {
            let name = HeaderName::from_static(names[rng.usize(..names.len())]);
            if let Ok(value) = HeaderValue::from_bytes(&bytes(&mut rng, &honest)) {
                request.headers_mut().append(name, value);
            }
        }
        let sent_headers = request.headers().clone();
        let answer = service.ready().await.unwrap().call(request).await.unwrap();
        match answer.status().as_u16() {
            200 => served += 1,
            // Only what is asked for and what is named can be wrong.
            400 if names.contains(&"x-session-id") => refused += 1,
            other => panic!("{other} for {sent_headers:?}"),
        }
        sent += 1;
    }
    assert!(served > 0 && sent == served + refused, "{sent} {served} {refused}");
}

#[tokio::test]
async fn any_token_header_is_served() {
    feed(&["ryw-token", "baggage", "last-event-id"]).await;
}

#[tokio::test]
async fn any_cookie_is_served() {
    feed(&["cookie"]).await;
}

#[tokio::test]
async fn any_header_is_answered() {
    feed(&["x-session-id", "x-consistency-level", "ryw-lost", "ryw-route", "x-consistency-enforced", "ryw-token"])
        .await;
}
