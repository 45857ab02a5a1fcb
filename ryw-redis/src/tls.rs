//! Encrypted connections, with the feature `tls`.

use redis::{Client, ConnectionInfo};

use crate::error::{ConnectError, ConnectErrorKind};

/// Whom to trust, and who we are. Says nothing of it.
#[derive(Clone, Default)]
pub(crate) struct Tls {
    #[cfg(feature = "tls")]
    root: Option<Vec<u8>>,
    #[cfg(feature = "tls")]
    own: Option<(Vec<u8>, Vec<u8>)>,
}

#[cfg(feature = "tls")]
#[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
impl crate::RedisStoreBuilder {
    /// Trusts servers whose certificates were issued by one of these authorities (PEM), and no others. It counts for
    /// connection strings that begin with `rediss://`. Default: the system's authorities.
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.tls.root = Some(pem.into());
        self
    }

    /// Shows this certificate, with its key, to servers that ask for one (both PEM). Default: none.
    pub fn client_certificate(mut self, certificate: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.tls.own = Some((certificate.into(), key.into()));
        self
    }
}

impl Tls {
    #[cfg(not(feature = "tls"))]
    #[expect(clippy::unused_self, reason = "with the feature there is something in it")]
    pub(crate) fn client(&self, info: ConnectionInfo) -> Result<Client, ConnectError> {
        Client::open(info).map_err(|_| ConnectError::new(ConnectErrorKind::Url))
    }

    #[cfg(feature = "tls")]
    pub(crate) fn client(&self, info: ConnectionInfo) -> Result<Client, ConnectError> {
        use redis::{ClientTlsConfig, ConnectionAddr, TlsCertificates};

        let client = if matches!(info.addr(), ConnectionAddr::TcpTls { .. }) {
            // Where a program has two providers and has chosen none, there would be none.
            drop(rustls::crypto::ring::default_provider().install_default());
            let own = self.own.clone();
            let client_tls = own.map(|(client_cert, client_key)| ClientTlsConfig { client_cert, client_key });
            Client::build_with_tls(info, TlsCertificates { client_tls, root_cert: self.root.clone() })
        } else {
            Client::open(info)
        };
        client.map_err(|error| ConnectError::new(ConnectErrorKind::Certificates).with_source(error))
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}
