//! The operators' page in a real browser, also while nodes lag, die and fail over.

use ryw_testing::servers::postgres::{Cluster, Standby};
use serde_json::{Value, json};
use tokio::task::block_in_place;

use crate::{
    browser::{Browser, LEFT, TAB, with_browser},
    gateway::Gateway,
};

const KEY: &str = "/v1/memory/acme/k";

/// A few requests of each kind, of two sessions.
async fn traffic(gateway: &Gateway) {
    for session in ["alice", "bob"] {
        gateway.put(KEY, &[("x-session-id", session)], "v").await;
        for level in ["RYW", "STRONG", "EVENTUAL", "SESSION"] {
            gateway.get(KEY, &[("x-session-id", session), ("x-consistency-level", level)]).await;
        }
    }
}

async fn with_page(test: impl AsyncFnOnce(&Gateway, &Browser, &str)) {
    let mut gateway = Gateway::start(&["--console", "127.0.0.1:0"]).await;
    let url = gateway.console().await;
    traffic(&gateway).await;
    with_browser(async |browser| {
        browser.open(&url).await;
        test(&gateway, browser, &url).await;
        is_clean(browser, &url).await;
    })
    .await;
}

/// Nothing went wrong in the page, and nothing came from elsewhere.
async fn is_clean(browser: &Browser, url: &str) {
    let said: Vec<_> = browser.log("browser").await.into_iter().filter(|line| line["level"] != "DEBUG").collect();
    assert!(said.is_empty(), "{said:?}");
    let origin = url.strip_suffix("/ryw").unwrap();
    let mut own = 0;
    for line in browser.log("performance").await {
        let event: Value = serde_json::from_str(line["message"].as_str().unwrap()).unwrap();
        if event["message"]["method"] == "Network.requestWillBeSent" {
            let asked = event["message"]["params"]["request"]["url"].as_str().unwrap();
            assert!(asked.starts_with(origin) || asked.starts_with("data:"), "{asked}");
            own += usize::from(asked.starts_with(origin));
        }
    }
    assert!(own >= 5, "page, style, script, state and decisions are loaded: {own}");
}

/// Server operations block.
fn now<T, E: std::fmt::Debug>(operation: impl FnOnce() -> Result<T, E>) -> T {
    block_in_place(operation).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_tells_when_nodes_lag_die_and_fail_over() {
    let start = || Cluster::builder().standby(Standby::named("a")).standby(Standby::named("b")).start();
    let mut cluster = now(start);
    let urls = [cluster.primary().url(), cluster.standbys()[0].url(), cluster.standbys()[1].url()];
    let arguments = ["--console", "127.0.0.1:0", "--primary", &urls[0], "--replica", &urls[1], "--replica", &urls[2]];
    let mut gateway = Gateway::start(&arguments).await;
    let url = gateway.console().await;
    with_browser(async |browser| {
        browser.open(&url).await;
        browser.shows("#chip", "ok").await;
        assert_eq!(browser.eval("document.querySelector('#banner').hidden").await, true);
        assert_eq!(browser.eval("document.querySelectorAll('#nodes tbody tr').length").await, 3);

        now(|| cluster.server("a").unwrap().psql("select pg_wal_replay_pause()"));
        gateway.put(KEY, &[("x-session-id", "alice")], "late").await;
        browser.shows("#banner", "Degraded").await;
        browser.shows("#findings", "What r1 shows is").await;
        browser.shows("#announce", "Health: degraded.").await;
        browser.until("its lag is shown", "live.health.nodes[1].lag > 0").await;
        browser.shows("#a-lag-more", "r1 is furthest behind").await;

        // What is dismissed stays away until something else happens.
        browser.click("#dismiss").await;
        let before = browser.eval("lastGood").await;
        browser.click("#refresh").await;
        browser.until("it was asked again", &format!("lastGood > {before}")).await;
        assert_eq!(browser.eval("document.querySelector('#banner').hidden").await, true);
        assert_eq!(browser.text("#chip").await, "degraded");
        now(|| cluster.server_mut("b").unwrap().kill());
        browser.shows("#findings", "r2 is down").await;

        now(|| cluster.server_mut("b").unwrap().start());
        now(|| cluster.server("a").unwrap().psql("select pg_wal_replay_resume()"));
        browser.until("all is well", "document.querySelector('#banner').hidden && live.health.status === 'ok'").await;

        now(|| cluster.primary_mut().kill());
        browser.shows("#banner", "Critical").await;
        browser.shows("#findings", "No primary is known").await;
        browser.shows("#nodes", "down").await;
        assert_eq!(gateway.get("/v1/health", &[]).await.status.as_u16(), 503);
        assert_eq!(gateway.get("/readyz", &[]).await.status.as_u16(), 200, "replicas serve");

        now(|| cluster.server("a").unwrap().promote());
        now(|| cluster.follow("b", "a"));
        // Degraded, or critical when this has taken long: it falls behind while it is down.
        browser.shows("#findings", "primary is").await;
        browser.until("the new epoch is shown", "live.epoch === 2 && live.health.nodes[1].state === 'primary'").await;

        now(|| cluster.rewind("primary", "a"));
        browser
            .until("all is well again", "document.querySelector('#banner').hidden && live.health.status === 'ok'")
            .await;

        now(|| cluster.server_mut("a").unwrap().kill());
        now(|| cluster.server_mut("b").unwrap().kill());
        now(|| cluster.primary_mut().kill());
        browser.shows("#banner", "Critical").await;
        browser.until("nobody serves", "live.health.nodes.every((node) => node.state === 'down')").await;
        assert_eq!(gateway.get("/readyz", &[]).await.status.as_u16(), 503);
        assert_eq!(gateway.get("/livez", &[]).await.status.as_u16(), 200);
        is_clean(browser, &url).await;
    })
    .await;
}

#[tokio::test]
async fn it_says_when_the_process_is_gone() {
    let mut gateway = Gateway::start(&["--console", "127.0.0.1:0"]).await;
    let url = gateway.console().await;
    with_browser(async |browser| {
        browser.open(&url).await;
        browser.shows("#chip", "ok").await;
        gateway.child.kill().await.unwrap();
        browser.shows("#banner", "The process does not answer.").await;
        browser.shows("#chip", "critical").await;
        assert_eq!(browser.eval("document.body.classList.contains('stale')").await, true);
    })
    .await;
}

#[tokio::test]
async fn reasons_and_routing_are_explained() {
    with_page(async |_, browser, _| {
        browser.shows("#a-reads-more", "of 8 reads").await;
        browser.shows("#reasons", "The level of the request asks for the primary.").await;
        browser.shows("#reasons", "The request writes").await;
        browser.shows("#legend", "strong").await;
        let drawn = "document.querySelectorAll('#chart rect.r-strong').length";
        assert!(browser.eval(drawn).await.as_u64().unwrap() >= 1);
        let explained = browser.eval("document.querySelectorAll('#reasons tbody tr, #others dt').length").await;
        assert_eq!(explained, 15, "every reason is explained");
        browser.click(".spans label:first-of-type").await;
        browser.until("the span is chosen", "span().seconds === 60").await;
    })
    .await;
}

#[tokio::test]
async fn decisions_are_found_by_session() {
    with_page(async |_, browser, _| {
        browser.shows("#found", "The last 10 decisions").await;
        let search = async |text: &str| {
            browser.click("#clear").await;
            browser.click("#session").await;
            browser.press(text).await;
            browser.press("\u{e007}").await;
        };
        search("alice").await;
        browser.shows("#found", "The last 5 decisions of session alice").await;
        let hash = browser.text("#decisions tbody .link").await;
        let tags = "[...new Set([...document.querySelectorAll('#decisions tbody .link')].map((tag) => tag.innerText))].length";
        assert_eq!(browser.eval(tags).await, 1);
        search(&hash).await;
        browser.shows("#found", &format!("of session {hash}")).await;
        assert_eq!(browser.eval("document.querySelectorAll('#decisions tbody tr').length").await, 5);
        browser.click("#primary-reads").await;
        browser.shows("#found", "reads by the primary of session").await;
        let served = browser.eval("[...document.querySelectorAll('#decisions tbody tr')].every((row) => row.cells[1].innerText === 'read' && row.cells[2].innerText === 'primary')").await;
        assert_eq!(served, true);
        search("nobody").await;
        browser.shows("#found", "No decisions of session nobody yet.").await;
        browser.click("#clear").await;
        browser.shows("#found", "The last 10 decisions,").await;
        browser.click("#busiest .link").await;
        browser.shows("#found", "The last 5 decisions of session").await;
    })
    .await;
}

/// What is older than the list is long has not gone anywhere else: nobody is told that it was never there.
#[tokio::test]
async fn decisions_that_are_not_kept_are_said_to_be_so() {
    with_page(async |gateway, browser, _| {
        for _ in 0..2000 {
            gateway.get(KEY, &[("x-session-id", "busy")]).await;
        }
        browser.click("#session").await;
        browser.press("alice\u{e007}").await;
        let said = "No decisions of session alice among the last 2,000 decisions. Older ones are not kept.";
        browser.shows("#found", said).await;
    })
    .await;
}

/// As in a tab that is opened in the background. What went wrong would be in the browser's log, which is looked at in the end.
#[tokio::test]
async fn the_chart_is_drawn_once_there_is_room_for_it() {
    with_page(async |_, browser, _| {
        browser.until("it is drawn", "document.querySelectorAll('#chart svg').length === 1").await;
        for width in ["0", "20px"] {
            browser.eval(&format!("document.querySelector('#chart').style.width = '{width}'")).await;
            browser.eval("document.querySelector('#chart').replaceChildren()").await;
            browser.eval("drawChart()").await;
            let drawn = browser.eval("document.querySelectorAll('#chart svg').length").await;
            assert_eq!(drawn, 0, "{width}");
        }
        browser.eval("document.querySelector('#chart').style.width = ''").await;
        browser.until("it is drawn again", "document.querySelectorAll('#chart rect').length > 0").await;
    })
    .await;
}

#[tokio::test]
async fn fingers_and_mice_are_told_what_they_can_do() {
    with_page(async |_, browser, url| {
        assert!(browser.text("#readout").await.starts_with("Point at a bar"));
        browser.devtools("Emulation.setTouchEmulationEnabled", json!({ "enabled": true, "maxTouchPoints": 1 })).await;
        browser.look(360, false).await;
        browser.open(url).await;
        browser.shows("#readout", "Tap a bar").await;
        browser.eval("document.querySelector('#chart').scrollIntoView({ block: 'center' })").await;
        let at = |axis: &str, size: &str| {
            format!("(() => {{ const box = document.querySelector('#chart').getBoundingClientRect(); return box.{axis} + box.{size} / 2; }})()")
        };
        let (x, y) = (browser.eval(&at("left", "width")).await, browser.eval(&at("top", "height")).await);
        browser.devtools("Input.dispatchTouchEvent", json!({ "type": "touchStart", "touchPoints": [{ "x": x, "y": y }] })).await;
        browser.devtools("Input.dispatchTouchEvent", json!({ "type": "touchEnd", "touchPoints": [] })).await;
        browser.shows("#readout", "s from").await;
    })
    .await;
}

#[tokio::test]
async fn what_is_typed_is_never_markup() {
    with_page(async |gateway, browser, _| {
        let hostile = "<img src=x onerror=document.title='owned'>";
        let refused = gateway.get(KEY, &[("x-session-id", hostile)]).await;
        assert_eq!(refused.status.as_u16(), 400, "{refused:?}");
        browser.click("#session").await;
        browser.press(hostile).await;
        browser.click("#filter button[type=submit]").await;
        browser.shows("#found", hostile).await;
        assert_eq!(browser.eval("document.querySelectorAll('img, script:not([src])').length").await, 0);
    })
    .await;
}

#[tokio::test]
async fn it_fits_telephones_and_desktops_in_light_and_dark() {
    with_page(async |_, browser, _| {
        for dark in [false, true] {
            for width in [360, 600, 768, 1024, 1280, 1600] {
                browser.look(width, dark).await;
                browser.until("it is laid out", &format!("innerWidth === {width}")).await;
                let wide = browser.eval("document.documentElement.scrollWidth").await;
                assert!(wide.as_u64().unwrap() <= width.into(), "{width}: {wide}");
                let poor = browser.eval(POOR_CONTRAST).await;
                assert_eq!(poor, json!([]), "{width}, dark {dark}");
            }
        }
    })
    .await;
}

/// Text whose contrast is less than WCAG 2.2 AA asks for.
const POOR_CONTRAST: &str = r"(() => {
  const parse = (text) => (text.match(/[\d.]+/g) ?? []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, at) => sum + c * [0.2126, 0.7152, 0.0722][at], 0);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const element of document.querySelectorAll('body *')) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim() !== '');
    if (!own || !element.checkVisibility() || element.tagName === 'NOSCRIPT') continue;
    const style = getComputedStyle(element);
    const colour = parse(element instanceof SVGElement ? style.fill : style.color);
    const [a, b] = [light(colour), light(behind(element))].sort((a, b) => b - a);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < (large ? 3 : 4.5)) poor.push([element.innerText ?? element.textContent, ratio]);
  }
  return poor;
})()";

#[tokio::test]
async fn everything_has_a_name_and_can_be_reached_by_keyboard() {
    with_page(async |_, browser, _| {
        let tree = browser.devtools("Accessibility.getFullAXTree", json!({})).await;
        let mut named = 0;
        for node in tree["nodes"].as_array().unwrap() {
            let role = node["role"]["value"].as_str().unwrap_or_default();
            if ["button", "searchbox", "textbox", "checkbox", "radio", "slider", "link", "table", "region"].contains(&role) {
                assert!(node["name"]["value"].as_str().is_some_and(|name| !name.is_empty()), "{node}");
                named += 1;
            }
        }
        assert!(named > 20, "{named}");
        let roles = |role: &str| tree["nodes"].as_array().unwrap().iter().filter(|node| node["role"]["value"] == role).count();
        assert!(roles("table") == 4 && roles("columnheader") > 20 && roles("rowheader") > 10 && roles("heading") > 12);

        let mut reached = Vec::new();
        for _ in 0..60 {
            browser.press(TAB).await;
            let at = "document.activeElement.id || document.activeElement.name || document.activeElement.className || document.activeElement.tagName";
            let at = browser.eval(at).await.as_str().unwrap().to_owned();
            if at == "chart" {
                let before = browser.eval("document.activeElement.getAttribute('aria-valuenow')").await;
                browser.press(LEFT).await;
                browser.press(LEFT).await;
                let after = browser.eval("document.activeElement.getAttribute('aria-valuenow')").await;
                assert_ne!(before, after);
                let outline = browser.eval("getComputedStyle(document.activeElement).outlineStyle").await;
                assert_eq!(outline, "solid", "the focus is visible");
            }
            reached.push(at);
        }
        let places: Vec<_> = ["skip", "pause", "refresh", "span", "chart", "SUMMARY", "session", "primary-reads", "clear"]
            .iter()
            .map(|wanted| reached.iter().position(|at| at == wanted).unwrap_or_else(|| panic!("{wanted}: {reached:?}")))
            .collect();
        assert!(places.is_sorted(), "{reached:?}");
    })
    .await;
}
