//! What is shown is what happened, and nothing that belongs to a session.

use std::time::Duration;

use crate::stage::{Stage, get, json};

/// One write, then a read of each kind.
async fn traffic(stage: &Stage) {
    stage.request("PUT", "alice-secret-name", "RYW").await;
    stage.request("GET", "alice-secret-name", "STRONG").await;
    stage.request("GET", "bob", "EVENTUAL").await;
}

#[tokio::test(start_paused = true)]
async fn decisions_are_told_newest_first_and_found_by_name_or_hash() {
    let stage = Stage::new();
    traffic(&stage).await;
    let router = stage.console().into_router();
    let all = json(&router, "/ryw/decisions").await;
    let brief = |list: &serde_json::Value| -> Vec<String> {
        let text =
            |one: &serde_json::Value| format!("{} {} {}", one["kind"], one["route"], one["reason"]).replace('"', "");
        list.as_array().unwrap().iter().map(text).collect()
    };
    let expected = ["read replica stale-allowed", "read primary strong", "write primary write"];
    assert_eq!(brief(&all), expected, "{all}");
    assert_eq!(all[0]["node"], "r1");
    let hash = all[1]["session"].as_str().unwrap();
    assert!(hash.len() == 8 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) && all[0]["session"] != hash, "{all}");
    for asked in ["alice-secret-name", hash] {
        let found = json(&router, &format!("/ryw/decisions?session={asked}")).await;
        assert_eq!(brief(&found), expected[1..], "{asked}: {found}");
    }
    assert_eq!(brief(&json(&router, "/ryw/decisions?session=%20bob%20").await), expected[..1]);
    assert_eq!(json(&router, "/ryw/decisions?session=nobody").await, serde_json::json!([]));
    assert_eq!(brief(&json(&router, "/ryw/decisions?primary_reads=true").await), expected[1..2]);
    assert_eq!(json(&router, "/ryw/decisions?limit=1").await.as_array().unwrap().len(), 1);
    for (query, says) in [
        (format!("session={}", "x".repeat(129)), "128 characters"),
        ("primary_reads=zzz".into(), "primary_reads=true or false"),
        ("limit=-1".into(), "limit=<number>"),
        ("sesion=me".into(), "`sesion`"),
    ] {
        let refused = get(&router, &format!("/ryw/decisions?{query}")).await;
        assert_eq!(refused.status.as_u16(), 400);
        assert_eq!(refused.headers["content-type"], "application/problem+json");
        let problem: serde_json::Value = serde_json::from_str(&refused.text).unwrap();
        assert!(problem["status"] == 400 && problem["detail"].as_str().unwrap().contains(says), "{problem}");
    }
}

/// What has begun with a request is as much its session as one that was there.
#[tokio::test(start_paused = true)]
async fn the_first_decision_of_a_session_is_found_by_what_it_was_told() {
    let stage = Stage::new();
    let name = stage.begin().await;
    stage.request("GET", &name, "STRONG").await;
    let router = stage.console().into_router();
    let all = json(&router, "/ryw/decisions").await;
    assert!(all[1]["session"].is_string() && all[0]["session"] == all[1]["session"], "{all}");
    let found = json(&router, &format!("/ryw/decisions?session={name}")).await;
    assert_eq!(found.as_array().unwrap().len(), 2, "{found}");
}

#[tokio::test(start_paused = true)]
async fn names_of_sessions_and_tokens_are_not_told() {
    let stage = Stage::new();
    traffic(&stage).await;
    let router = stage.console().into_router();
    for path in ["/ryw/live", "/ryw/decisions", "/ryw/routing", "/ryw/nodes", "/ryw/health"] {
        let text = get(&router, path).await.text;
        assert!(!text.contains("alice") && !text.contains("bob"), "{path}: {text}");
    }
}

#[tokio::test(start_paused = true)]
async fn many_requests_take_no_more_room_than_few() {
    let stage = Stage::new();
    for number in 0..2100 {
        stage.request("GET", &format!("s{number}"), "EVENTUAL").await;
    }
    let router = stage.console().into_router();
    let decisions = json(&router, "/ryw/decisions?limit=100000").await;
    assert_eq!(decisions.as_array().unwrap().len(), 500);
    assert_eq!(decisions[0]["number"], 2100);
    let kept = &json(&router, "/ryw/live").await["decisions"];
    assert_eq!(
        (&kept["kept"], &kept["total"]),
        (&2000.into(), &2100.into()),
        "so that whoever finds nothing knows why"
    );
    assert_eq!(json(&router, "/ryw/decisions?session=s99").await, serde_json::json!([]), "the oldest are gone");
    assert_eq!(json(&router, "/ryw/decisions?session=s100").await.as_array().unwrap().len(), 1);
    assert_eq!(json(&router, "/ryw/live").await["sessions"]["busiest"].as_array().unwrap().len(), 10);
}

#[tokio::test(start_paused = true)]
async fn routing_is_told_over_time_and_in_sum() {
    let stage = Stage::new();
    traffic(&stage).await;
    tokio::time::advance(Duration::from_secs(30)).await;
    traffic(&stage).await;
    let router = stage.console().into_router();
    let routing = json(&router, "/ryw/routing").await;
    let number = |name: &str| routing[name].as_u64().unwrap();
    assert_eq!([number("reads_by_replicas"), number("reads_by_primary"), number("writes")], [2, 2, 2], "{routing}");
    let strong = routing["reasons"].as_array().unwrap().iter().find(|one| one["reason"] == "strong").unwrap();
    assert_eq!((&strong["primary"], &strong["primary_total"], &strong["replica"]), (&2.into(), &2.into(), &0.into()));
    let minute = &routing["spans"][0];
    let bars = minute["bars"].as_array().unwrap();
    let busy: Vec<_> =
        bars.iter().filter(|bar| bar["counts"] != serde_json::json!([])).map(|bar| &bar["ago"]).collect();
    assert_eq!((bars.len(), busy), (60, vec![&30.into(), &0.into()]), "{minute}");
    tokio::time::advance(Duration::from_secs(16 * 60)).await;
    let later = json(&router, "/ryw/routing").await;
    assert_eq!((&later["writes"], &later["reasons"][7]["primary_total"]), (&0.into(), &2.into()), "{later}");
}

/// Anybody can send a token that nobody believes: that makes no promise, and its number is one of its own.
#[tokio::test(start_paused = true)]
async fn what_nobody_believes_is_told_apart_from_what_was_owed() {
    let stage = Stage::with(|layer| layer.unproven_reads(1));
    for (read, enforced) in ["true", "false", "false"].into_iter().enumerate() {
        assert_eq!(stage.read_with("forged").await["x-consistency-enforced"], enforced, "{read}");
    }
    let router = stage.console().into_router();
    let live = json(&router, "/ryw/live").await;
    let routing = &live["routing"];
    assert_eq!((&routing["unachieved"], &routing["unproven"]), (&0.into(), &2.into()), "{routing}");
    assert_eq!(live["losses"]["unproven_total"], 2, "{live}");
    let decisions = json(&router, "/ryw/decisions").await;
    let newest = &decisions[0];
    assert_eq!((&newest["achieved"], &newest["proven"]), (&false.into(), &false.into()), "{newest}");
}
