//! The load: sessions of all kinds and levels, two tabs each, and those that measure.

mod client;
mod floors;
mod judge;
mod keys;
mod session;
mod stats;

use std::{path::Path, sync::Arc, time::Duration};

use parking_lot::Mutex;
use ryw_check::Level;
use ryw_client::Session;
use tokio::{sync::watch, task::JoinSet, time::Instant};

pub(crate) use stats::{Stats, Sums};

use self::{
    client::{Carrier, Http, Jar, Named, http},
    floors::{Floors, Promises},
    keys::Keys,
    session::{Group, Member},
};
use crate::{error::Error, history::Writer};

/// How stale reads at BOUNDED may be.
pub(crate) const BOUND: Duration = Duration::from_millis(1500);

/// Sessions of each level for each one of the smallest group.
const LEVELS: [(Level, usize); 7] = [
    (Level::Ryw, 4),
    (Level::Causal, 3),
    (Level::Session, 3),
    (Level::Monotonic, 2),
    (Level::Bounded, 1),
    (Level::Strong, 1),
    (Level::Eventual, 1),
];

/// How the load is to be.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) seed: u64,
    /// How many sessions there are, without those of the positive control.
    pub(crate) sessions: usize,
    /// Where the service's instances are.
    pub(crate) targets: Vec<String>,
    /// The beginning of the paths that are not behind the layer.
    pub(crate) ungated: Option<String>,
    /// How many requests of a thousand the client cuts short.
    pub(crate) cancelled: u32,
    /// Whether there are sessions at `STRONG`.
    pub(crate) strong: bool,
    /// Whether to write down what answers say besides.
    pub(crate) answers: bool,
}

/// Load that is under way.
#[derive(Debug)]
pub(crate) struct Load {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
    stop: watch::Sender<bool>,
    groups: Vec<Arc<Group>>,
}

/// What all sessions have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    settings: Settings,
    http: Http,
    pub(crate) history: Writer,
    pub(crate) control: Writer,
    pub(crate) stats: Stats,
    values: std::sync::atomic::AtomicI64,
    stopped: watch::Receiver<bool>,
    /// What was found while the load ran.
    found: Mutex<Option<String>>,
}

impl Load {
    /// Starts it; histories go into `folder`.
    pub(crate) fn start(settings: Settings, folder: &Path) -> Result<Self, Error> {
        let (stop, stopped) = watch::channel(false);
        let start = Instant::now();
        let shared = Arc::new(Shared {
            http: http(),
            history: Writer::create(&folder.join("history.jsonl"), start, settings.answers)?,
            control: Writer::create(&folder.join("control.jsonl"), start, false)?,
            stats: Stats::default(),
            values: 0.into(),
            stopped,
            found: Mutex::default(),
            settings,
        });
        let mut load = Self { shared, tasks: JoinSet::new(), stop, groups: Vec::new() };
        load.sessions()?;
        load.control();
        Ok(load)
    }

    fn sessions(&mut self) -> Result<(), Error> {
        let settings = &self.shared.settings;
        let levels = LEVELS.iter().filter(|(level, _)| settings.strong || *level != Level::Strong);
        let parts: usize = levels.clone().map(|(_, part)| part).sum();
        let mut rng = fastrand::Rng::with_seed(settings.seed);
        for (level, part) in levels.copied() {
            let count = (settings.sessions * part).div_ceil(parts);
            let group = Arc::new(Group::new(level, Keys::new(level.as_str(), 2 * count), count));
            self.groups.push(Arc::clone(&group));
            for number in 0..count {
                let name = format!("{}{number}", level.as_str().to_ascii_lowercase());
                let carrier = carrier(&settings.targets, &name, level, number)?;
                let member = Arc::new(Member {
                    name,
                    number,
                    group: Arc::clone(&group),
                    carrier,
                    floors: Mutex::new(Floors::default()),
                });
                self.tasks.spawn(session::browse(Arc::clone(&self.shared), member, rng.fork()));
            }
        }
        Ok(())
    }

    /// The positive control: sessions without the layer, whose reads are bound to be stale.
    fn control(&mut self) {
        if self.shared.settings.ungated.is_none() {
            return;
        }
        for number in 0..2 {
            let rng = fastrand::Rng::with_seed(self.shared.settings.seed.wrapping_add(number));
            self.tasks.spawn(session::control(Arc::clone(&self.shared), number, rng));
        }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// What was found while the load ran.
    pub(crate) fn found(&self) -> Option<String> {
        self.shared.found.lock().clone()
    }

    /// Asks the service itself for the surviving state of the keys in use last, where nobody can look past it.
    /// Returns how many keys it did not tell of.
    pub(crate) async fn read_finals(&self) -> u64 {
        session::read_finals(&self.shared, &self.groups).await
    }

    /// Ends it, and returns when all requests that were under way are over.
    pub(crate) async fn stop(&mut self) {
        self.stop.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Of each level, sessions of all kinds that it can have.
fn carrier(targets: &[String], name: &str, level: Level, number: usize) -> Result<Carrier, Error> {
    // Messages carry tokens, which only `ryw-client` has.
    let kinds = if level == Level::Causal { 1 } else { 4 };
    Ok(match number % kinds {
        1 => Carrier::Named(Arc::new(Named { name: name.to_owned(), acknowledges: false.into() })),
        2 => Carrier::Cookie(Arc::new(Jar::default())),
        kind => {
            let hosts =
                targets.iter().filter_map(|target| Some(target.parse::<http::Uri>().ok()?.authority()?.to_string()));
            let mut session = hosts.fold(Session::builder(), |session, host| session.send_to(host));
            if kind == 3 || number % 2 == 1 {
                session = session.id(name.parse().map_err(Error::with("the session's name"))?);
            }
            Carrier::Client(session.build().map_err(Error::with("the session"))?)
        }
    })
}

/// What the check that goes along looks for.
fn promises(level: Level) -> Promises {
    let session = matches!(level, Level::Session | Level::Causal | Level::Strong);
    Promises { own_writes: session || level == Level::Ryw, monotonic: session || level == Level::Monotonic }
}
