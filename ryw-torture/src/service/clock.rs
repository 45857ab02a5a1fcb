//! A wall clock that is wrong.

use std::{
    sync::atomic::{AtomicI64, Ordering::Relaxed},
    time::{SystemTime, UNIX_EPOCH},
};

use ryw_core::seeded;

/// In seconds.
static AHEAD: AtomicI64 = AtomicI64::new(0);

/// Lets the layers that are built from now on believe in a wall clock that is so many seconds ahead.
pub(super) fn set_ahead(seconds: i64) {
    AHEAD.store(seconds, Relaxed);
    seeded::set_wall_clock(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        Some(seeded::ahead(now, AHEAD.load(Relaxed)))
    });
}

#[cfg(test)]
mod tests {
    use http::{Request, Response};
    use ryw_core::{Keyring, Token};
    use tower::{Layer, ServiceExt, service_fn};
    use tower_ryw::RywLayer;

    use super::*;

    #[tokio::test]
    async fn tokens_are_of_the_time_that_was_set() {
        set_ahead(3600);
        let layer = RywLayer::builder().signing_keys(Keyring::random().unwrap()).build().unwrap();
        let service = layer.layer(service_fn(|_: Request<axum::body::Body>| async {
            Ok::<_, std::convert::Infallible>(Response::new(axum::body::Body::empty()))
        }));
        let write = Request::post("/list/a").header("x-session-id", "me").body(axum::body::Body::empty()).unwrap();
        let answer = service.oneshot(write).await.unwrap();
        let token = Token::peek(answer.headers()["ryw-token"].to_str().unwrap()).unwrap().token;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        assert!(u64::from(token.issued_at).abs_diff(now + 3600) <= 60, "{} at {now}", token.issued_at);
    }
}
