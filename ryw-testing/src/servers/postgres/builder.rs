use std::{fs::File, io::Write, thread, time::Duration};

use super::{
    Cluster, Server, ServerError, bin_dir,
    config::{self, PRIMARY, Setting},
    home::{Home, cannot_write},
    replication::{create_slots, wait_streaming},
};

/// What a [`Cluster`] is made of. Made by [`Cluster::builder`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `start`"]
pub struct ClusterBuilder {
    standbys: Vec<Standby>,
    settings: Vec<Setting>,
    primary_settings: Vec<Setting>,
    durable: bool,
    timeout: Duration,
}

/// A standby to be added with [`ClusterBuilder::standby`].
#[derive(Clone, Debug)]
#[must_use = "a standby is started only if it is given to `ClusterBuilder::standby`"]
pub struct Standby {
    pub(super) name: String,
    pub(super) upstream: String,
    pub(super) apply_delay: Duration,
    pub(super) settings: Vec<Setting>,
}

impl Standby {
    /// A hot standby with that name, which follows the primary without delay. The name is 1 to 63
    /// letters of a-z, 0-9 and `_`, and not `primary`.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), upstream: PRIMARY.into(), apply_delay: Duration::ZERO, settings: Vec::new() }
    }

    /// Shows each commit only so long after it was made (`recovery_min_apply_delay`); rounded up
    /// to milliseconds. The standby receives it at once all the same. Default: zero.
    pub fn apply_delay(mut self, delay: Duration) -> Self {
        self.apply_delay = delay;
        self
    }

    /// Follows the standby of that name, which must be added before this one. Default: the primary.
    pub fn upstream(mut self, name: impl Into<String>) -> Self {
        self.upstream = name.into();
        self
    }

    /// Sets a setting of `postgresql.conf` on this server alone. Default: none.
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }
}

impl Default for ClusterBuilder {
    fn default() -> Self {
        Self {
            standbys: Vec::new(),
            settings: Vec::new(),
            primary_settings: Vec::new(),
            durable: false,
            timeout: Duration::from_secs(30),
        }
    }
}

impl ClusterBuilder {
    /// Adds a standby. Default: none.
    pub fn standby(mut self, standby: Standby) -> Self {
        self.standbys.push(standby);
        self
    }

    /// Sets a setting of `postgresql.conf` on all servers. Default: `max_connections=100`,
    /// `shared_buffers=16MB`, `wal_level=replica`, and others for a fast start.
    ///
    /// This is the place for `max_connections` and `max_wal_senders`, of which a standby may not
    /// have fewer than its primary.
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Sets a setting of `postgresql.conf` on the primary alone, over [`setting`](Self::setting).
    /// Default: none.
    pub fn primary_setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.primary_settings.push((name.into(), value.into()));
        self
    }

    /// Whether commits are forced to disk (`fsync`), at the price of the disk's latency. Without,
    /// they survive [`Server::kill`] but not a crash of the machine. Default: `false`.
    pub fn durable(mut self, durable: bool) -> Self {
        self.durable = durable;
        self
    }

    /// How long each single wait may take, for example for a server to be ready. Default: 30 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Starts the cluster, and returns when all servers answer and all standbys stream.
    ///
    /// This blocks, usually for one to three seconds, most of which `initdb` takes: in async code,
    /// call it in `spawn_blocking`.
    ///
    /// # Errors
    ///
    /// [`MissingBinaries`] if PostgreSQL is not installed, [`InvalidConfig`] if a name or setting
    /// is not valid, and any other kind if a program fails. Nothing is left behind then.
    ///
    /// [`MissingBinaries`]: super::ServerErrorKind::MissingBinaries
    /// [`InvalidConfig`]: super::ServerErrorKind::InvalidConfig
    pub fn start(self) -> Result<Cluster, ServerError> {
        config::check_settings(&self.settings)?;
        config::check_settings(&self.primary_settings)?;
        config::check_standbys(&self.standbys)?;
        let (home, supervisor) = Home::create(bin_dir()?, self.timeout)?;
        let names = self.standbys.iter().map(|standby| standby.name.as_str());
        let mut cluster = Cluster::plan(names, home, supervisor)?;
        create_data(&cluster)?;
        self.configure(cluster.primary(), &self.primary_settings)?;
        cluster.primary_mut().launch()?;
        cluster.primary_mut().finish_first_start()?;
        self.start_followers(&mut cluster, PRIMARY)?;
        Ok(cluster)
    }

    /// Starts those that follow `upstream`, together, and then in turn their followers.
    fn start_followers(&self, cluster: &mut Cluster, upstream: &str) -> Result<(), ServerError> {
        let followers: Vec<&Standby> = self.standbys.iter().filter(|standby| standby.upstream == upstream).collect();
        if followers.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = followers.iter().map(|standby| &*standby.name).collect();
        let port = {
            let upstream = cluster.find(upstream)?;
            create_slots(upstream, &names)?;
            upstream.port()
        };
        for standby in &followers {
            let mut settings = config::upstream(&standby.name, port).to_vec();
            settings.push(config::apply_delay(standby.apply_delay));
            settings.extend_from_slice(&standby.settings);
            let server = cluster.find_mut(&standby.name)?;
            self.configure(server, &settings)?;
            server.launch()?;
        }
        for name in &names {
            cluster.find_mut(name)?.finish_first_start()?;
        }
        wait_streaming(cluster.find(upstream)?, &names)?;
        names.iter().try_for_each(|name| self.start_followers(cluster, name))
    }

    fn configure(&self, server: &Server, own: &[Setting]) -> Result<(), ServerError> {
        let mut settings = config::base(server.name(), self.durable);
        settings.extend_from_slice(&self.settings);
        settings.extend_from_slice(own);
        let file = server.data_dir().join("postgresql.conf");
        File::options()
            .append(true)
            .open(&file)
            .and_then(|mut file| file.write_all(config::render(&settings).as_bytes()))
            .map_err(|error| cannot_write(&file, error))
    }
}

/// Makes the primary's data directory, and the standbys' as copies of it. A copy of a stopped
/// server is as good a start as a base backup, and takes far less time.
fn create_data(cluster: &Cluster) -> Result<(), ServerError> {
    let home = cluster.home();
    let primary = cluster.primary().data_dir();
    let mut initdb = home.command("initdb");
    initdb
        .args(["-U", config::ROLE, "-A", "trust", "-E", "UTF8"])
        .args(["--no-locale", "--no-sync", "-D"])
        .arg(primary);
    home.run_ok(initdb)?;
    home.write(&primary.join("pg_hba.conf"), config::HBA)?;
    let copy = |standby: &Server| {
        let mut copy = home.command("cp");
        copy.arg("-R").arg(primary).arg(standby.data_dir());
        home.run_ok(copy)?;
        home.write(&standby.data_dir().join("standby.signal"), "")
    };
    thread::scope(|scope| {
        let start = |standby| scope.spawn(move || copy(standby));
        let copies: Vec<_> = cluster.standbys().iter().map(start).collect();
        copies.into_iter().try_for_each(|copy| copy.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}
