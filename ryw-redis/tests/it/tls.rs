//! Encrypted connections, and whom they trust.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use ryw_core::Marks;
use ryw_redis::{ConnectErrorKind, RedisStore};
use ryw_testing::servers::redis::RedisServer;

use crate::support::{at, join, launch, random_key, required, settle};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Certificate and key of a server with that name.
fn issue(by: &Authority, name: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, by).unwrap();
    (certificate.pem(), key.serialize_pem())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_trusted_server_is_talked_to() {
    let (ours, theirs) = (authority(), authority());
    let (certificate, key) = issue(&ours, "127.0.0.1");
    let server = launch(RedisServer::builder().password("right").tls(&certificate, key, ours.pem())).await;
    let url = server.tls_url().unwrap();
    let store = RedisStore::builder().root_certificates(ours.pem()).connect(url.as_str()).await.unwrap();
    let key = random_key();
    settle(&store, key, 0).await;
    join(&store, key, 100).await.unwrap();
    assert_eq!(required(&store, key).await, Some(Marks::at(at(100))));

    for builder in [RedisStore::builder().root_certificates(theirs.pem()), RedisStore::builder()] {
        let error = builder.connect(url.as_str()).await.unwrap_err();
        assert_eq!(error.kind(), ConnectErrorKind::Unreachable);
        assert!(!format!("{error:?}").contains("right"), "{error:?}");
    }
    let unreadable = RedisStore::builder().client_certificate("no PEM", "no PEM").connect(url.as_str()).await;
    assert_eq!(unreadable.unwrap_err().kind(), ConnectErrorKind::Certificates);
    // It is another server's.
    let (certificate, key) = issue(&ours, "redis.example");
    let other = launch(RedisServer::builder().tls(certificate, key, ours.pem())).await;
    let refused = RedisStore::builder().root_certificates(ours.pem()).connect(other.tls_url().unwrap()).await;
    assert_eq!(refused.unwrap_err().kind(), ConnectErrorKind::Unreachable);
}
