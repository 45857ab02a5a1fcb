use std::{fs, sync::Arc, time::Duration};

use super::{
    RedisServer, ServerError,
    config::{self, Setting},
    home::Home,
    port::reserve,
};

const CERTIFICATE: &str = "certificate.pem";
const KEY: &str = "key.pem";
const AUTHORITY: &str = "authority.pem";

/// What a [`RedisServer`] is like. Made by [`RedisServer::builder`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `start`"]
pub struct RedisServerBuilder {
    settings: Vec<Setting>,
    persistent: bool,
    announced: Option<u16>,
    tls: Option<Tls>,
    pub(super) password: Option<String>,
    pub(super) timeout: Duration,
}

/// All PEM.
#[derive(Clone, Debug)]
struct Tls {
    certificate: String,
    key: String,
    authority: String,
}

impl Default for RedisServerBuilder {
    fn default() -> Self {
        Self {
            settings: Vec::new(),
            persistent: false,
            announced: None,
            tls: None,
            password: None,
            timeout: Duration::from_secs(30),
        }
    }
}

impl RedisServerBuilder {
    /// Sets a setting, written as in `redis.conf`, where a value may be several words:
    /// `client-output-buffer-limit` has `replica 1mb 1mb 60`. Default: `save` is empty,
    /// `appendonly` is `no`, `repl-diskless-sync-delay` is `0`, and the rest is Redis' own.
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Writes each command to the append-only file and forces it to disk before it is answered
    /// (`appendonly yes`, `appendfsync always`). Default: nothing is written, and a server that
    /// is started again is empty.
    pub fn persistent(mut self) -> Self {
        self.persistent = true;
        self
    }

    /// Demands that password of clients and replicas. Default: none.
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = Some(password.into());
        self
    }

    /// Tells others to reach the server at that port of 127.0.0.1, where a
    /// [`Proxy`](crate::proxy::Proxy) to its [`port`](RedisServer::port) has to be: its master and
    /// its replicas, sentinels, and the nodes and clients of a cluster. Default: the port itself.
    pub fn announced_port(mut self, port: u16) -> Self {
        self.announced = Some(port);
        self
    }

    /// Also takes encrypted connections, at [`tls_url`](RedisServer::tls_url), and shows this certificate. Clients need
    /// none of their own. All of it is PEM; `authority` has issued the certificate. Default: it takes none.
    pub fn tls(mut self, certificate: impl Into<String>, key: impl Into<String>, authority: impl Into<String>) -> Self {
        self.tls = Some(Tls { certificate: certificate.into(), key: key.into(), authority: authority.into() });
        self
    }

    /// How long each single wait may take, for example for the server to be ready. Default: 30 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Starts the server, and returns when it answers. This blocks, usually for some tens of
    /// milliseconds: in async code, call it in `spawn_blocking`.
    ///
    /// # Errors
    ///
    /// [`MissingBinaries`] if Redis is not installed, [`InvalidConfig`] if the name of a setting
    /// is not valid, [`Exited`] if the server does not take one, and any other kind if it cannot
    /// be started. Nothing is left behind then.
    ///
    /// [`Exited`]: super::ServerErrorKind::Exited
    /// [`InvalidConfig`]: super::ServerErrorKind::InvalidConfig
    /// [`MissingBinaries`]: super::ServerErrorKind::MissingBinaries
    pub fn start(self) -> Result<RedisServer, ServerError> {
        self.check()?;
        let home = Arc::new(Home::create(self.timeout)?);
        let mut server = self.create("server", &home)?;
        server.configure(&self.settings(&server))?;
        server.start()?;
        Ok(server)
    }

    pub(super) fn check(&self) -> Result<(), ServerError> {
        config::check_settings(&self.settings)?;
        config::check_password(self.password.as_deref())
    }

    /// A server that has a port and a folder, and no configuration yet.
    pub(super) fn create(&self, name: &str, home: &Arc<Home>) -> Result<RedisServer, ServerError> {
        let port = reserve()?;
        let announced = self.announced.unwrap_or(port.get());
        let mut server = RedisServer::new(name, port, announced, self.password.clone(), home);
        fs::create_dir(&server.folder).map_err(|error| server.program.io("cannot make its folder", error))?;
        if let Some(Tls { certificate, key, authority }) = &self.tls {
            server.tls_port = Some(reserve()?);
            for (name, pem) in [(CERTIFICATE, certificate), (KEY, key), (AUTHORITY, authority)] {
                let written = fs::write(server.folder.join(name), pem);
                written.map_err(|error| server.program.io("cannot write its certificate", error))?;
            }
        }
        Ok(server)
    }

    /// The whole configuration of `server`; what is appended to it counts.
    pub(super) fn settings(&self, server: &RedisServer) -> Vec<Setting> {
        let mut settings = config::process(server.port(), &server.folder);
        settings.extend(config::server(self.persistent));
        settings.push(("replica-announce-port".into(), server.announced_port().to_string()));
        settings.extend(self.password.iter().flat_map(|password| config::password(password)));
        if let Some(port) = &server.tls_port {
            settings.push(("tls-port".into(), port.get().to_string()));
            settings.push(("tls-auth-clients".into(), "no".into()));
            for (setting, name) in
                [("tls-cert-file", CERTIFICATE), ("tls-key-file", KEY), ("tls-ca-cert-file", AUTHORITY)]
            {
                settings.push((setting.into(), config::quote(&server.folder.join(name).to_string_lossy())));
            }
        }
        settings.extend_from_slice(&self.settings);
        settings
    }
}
