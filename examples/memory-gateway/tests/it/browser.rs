//! Headless Chromium, driven by chromedriver.

use std::{panic::AssertUnwindSafe, process::Stdio, time::Duration};

use fantoccini::{Client, ClientBuilder, wd::WebDriverCompatibleCommand};
use futures_util::FutureExt;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

use crate::program::DEADLINE;

/// Tab, as keyboards send it.
pub(crate) const TAB: &str = "\u{e004}";
pub(crate) const LEFT: &str = "\u{e012}";

pub(crate) struct Browser {
    client: Client,
}

/// Runs the test with a browser, and closes that however the test ends.
pub(crate) async fn with_browser(test: impl AsyncFnOnce(&Browser)) {
    let (_driver, url) = start().await;
    let options = json!({ "args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1280,1000"] });
    let logs = json!({ "browser": "ALL", "performance": "ALL" });
    let Value::Object(wanted) = json!({ "goog:chromeOptions": options, "goog:loggingPrefs": logs }) else {
        unreachable!()
    };
    let mut builder = ClientBuilder::new(hyper_util::client::legacy::connect::HttpConnector::new());
    let client = timeout(DEADLINE, builder.capabilities(wanted).connect(&url)).await.expect("Chromium starts in time");
    let client = client.expect("Chromium starts: install Debian's package chromium");
    let browser = Browser { client: client.clone() };
    let ended = AssertUnwindSafe(test(&browser)).catch_unwind().await;
    let closed = timeout(DEADLINE, client.close()).await;
    if let Err(panic) = ended {
        std::panic::resume_unwind(panic);
    }
    closed.expect("Chromium ends in time").unwrap();
}

/// The driver ends with its handle.
async fn start() -> (Child, String) {
    let mut command = Command::new("chromedriver");
    command.arg("--port=0").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut driver = command.spawn().expect("chromedriver is there: install Debian's package chromium-driver");
    let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
    loop {
        let line = timeout(DEADLINE, lines.next_line()).await.expect("chromedriver says where it listens").unwrap();
        let line = line.expect("chromedriver goes on");
        if let Some((_, port)) = line.split_once("started successfully on port ") {
            // Read on, so that it never waits for somebody to read what it says.
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return (driver, format!("http://127.0.0.1:{}", port.trim_end_matches('.')));
        }
    }
}

impl Browser {
    pub(crate) async fn open(&self, url: &str) {
        timeout(DEADLINE, self.client.goto(url)).await.expect("the page opens").unwrap();
        self.until("the page shows something", "lastGood !== null").await;
    }

    /// The value of an expression in the page.
    pub(crate) async fn eval(&self, expression: &str) -> Value {
        let script = format!("return ({expression});");
        let value = timeout(DEADLINE, self.client.execute(&script, vec![])).await.expect("the page answers");
        value.unwrap_or_else(|error| panic!("{expression}: {error}"))
    }

    pub(crate) async fn text(&self, selector: &str) -> String {
        let text = self.eval(&format!("document.querySelector('{selector}').innerText")).await;
        text.as_str().unwrap().to_owned()
    }

    pub(crate) async fn click(&self, selector: &str) {
        let element = self.client.find(fantoccini::Locator::Css(selector)).await.unwrap();
        element.click().await.unwrap_or_else(|error| panic!("{selector}: {error}"));
    }

    /// Presses keys wherever the focus is.
    pub(crate) async fn press(&self, keys: &str) {
        self.client.active_element().await.unwrap().send_keys(keys).await.unwrap();
    }

    /// Waits until an expression in the page is true.
    pub(crate) async fn until(&self, what: &str, expression: &str) {
        let deadline = Instant::now() + DEADLINE;
        while self.eval(expression).await != true {
            if Instant::now() >= deadline {
                panic!("{what}: {expression} is not so. The page says:\n{}", self.text("body").await);
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the element shows the text.
    pub(crate) async fn shows(&self, selector: &str, text: &str) {
        let text = serde_json::to_string(text).unwrap();
        let expression = format!("document.querySelector('{selector}').innerText.includes({text})");
        self.until(&format!("{selector} shows {text}"), &expression).await;
    }

    /// How it looks: the width of the window, and whether it is dark.
    pub(crate) async fn look(&self, width: u32, dark: bool) {
        let scheme = if dark { "dark" } else { "light" };
        // Without motion, so that colours are not measured on their way.
        let features = json!([
            { "name": "prefers-color-scheme", "value": scheme },
            { "name": "prefers-reduced-motion", "value": "reduce" },
        ]);
        let size = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 700 });
        self.devtools("Emulation.setEmulatedMedia", json!({ "features": features })).await;
        self.devtools("Emulation.setDeviceMetricsOverride", size).await;
    }

    /// A command of the DevTools protocol.
    pub(crate) async fn devtools(&self, command: &str, parameters: Value) -> Value {
        let body = json!({ "cmd": command, "params": parameters });
        self.vendor("goog/cdp/execute", body).await
    }

    /// What has come since it was last asked for: `browser` is the console, `performance` what was loaded.
    pub(crate) async fn log(&self, kind: &str) -> Vec<Value> {
        let lines = self.vendor("se/log", json!({ "type": kind })).await;
        lines.as_array().unwrap().clone()
    }

    async fn vendor(&self, path: &'static str, body: Value) -> Value {
        timeout(DEADLINE, self.client.issue_cmd(Vendor { path, body })).await.expect("it answers").unwrap()
    }
}

/// A command that is not in the standard.
#[derive(Debug)]
struct Vendor {
    path: &'static str,
    body: Value,
}

impl WebDriverCompatibleCommand for Vendor {
    fn endpoint(&self, base: &url::Url, session: Option<&str>) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/{}", session.unwrap_or_default(), self.path))
    }

    fn method_and_body(&self, _: &url::Url) -> (http::Method, Option<String>) {
        (http::Method::POST, Some(self.body.to_string()))
    }
}
