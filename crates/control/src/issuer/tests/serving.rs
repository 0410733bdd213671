//! How the issuer serves: over TLS of its own, and in spite of peers that are slow.

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;

use super::super::config::Tls;
use super::*;

fn port(address: &Address) -> String {
    address.to_string()
}

/// An issuer with TLS by its own authority, certificates of which live for some seconds.
async fn start(ttl: i64) -> Running {
    let (directory, cluster, mut config) = prepare("jwks_file: DIR/jwks.json");
    config.platform = local(&directory);
    config.certificates = Some(config::Certificates {
        trust_domain: "cluster.local".to_owned(),
        cluster_domain: "cluster.local".to_owned(),
        ttl,
        rotation: Rotate { period: 86400, lead: 2 },
        names: std::collections::BTreeMap::new(),
    });
    config.tls = Some(Tls::Authority { names: vec!["issuer.test".to_owned()] });
    Running::start_as((directory, cluster, config)).await
}

/// `GET path` over TLS, checked against the bundle's file; the answer, and the certificate that was shown.
async fn get(issuer: &Running, path: &str) -> std::io::Result<(String, Vec<u8>)> {
    let config = runtime::tls::client_config(&issuer.file("bundle.pem"), &[b"http/1.1"]).unwrap();
    let tcp = TcpStream::connect(port(&issuer.address)).await?;
    let name = ServerName::try_from("issuer.test").unwrap();
    let mut tls = tokio_rustls::TlsConnector::from(config).connect(name, tcp).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: issuer.test\r\nConnection: close\r\n\r\n");
    tls.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    // Without a proper end of TLS after it, perhaps.
    let _ = tls.read_to_string(&mut answer).await;
    Ok((answer, tls.get_ref().1.peer_certificates().unwrap()[0].to_vec()))
}

#[tokio::test]
async fn its_own_authority_vouches_for_it_and_again_in_time() {
    let issuer = start(4).await;
    let (answer, first) = get(&issuer, "/jwks").await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    wait_for(async || get(&issuer, "/healthz").await.unwrap().1 != first).await;
    let plain = TcpStream::connect(port(&issuer.address)).await.unwrap();
    let mut plain = plain;
    plain.write_all(b"GET /jwks HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut bytes = Vec::new();
    let _ = plain.read_to_end(&mut bytes).await;
    assert!(!bytes.starts_with(b"HTTP/"), "nothing is answered in clear");
}

#[tokio::test]
async fn slow_peers_hold_up_nobody_and_are_cut() {
    let issuer = start(600).await;
    let plain = Running::start().await;
    let begun = tokio::time::Instant::now();
    let mut slow = Vec::new();
    for _ in 0..100 {
        slow.push(TcpStream::connect(port(&issuer.address)).await.unwrap());
        let mut talker = TcpStream::connect(port(&plain.address)).await.unwrap();
        talker.write_all(b"GET /jwks HTTP/1.1\r\nHost: ").await.unwrap();
        slow.push(talker);
    }
    assert!(get(&issuer, "/jwks").await.unwrap().0.starts_with("HTTP/1.1 200"));
    assert_eq!(plain.get("/jwks").await.status, 200);
    assert!(begun.elapsed() < Duration::from_secs(9), "they had to wait");
    for mut stream in slow {
        let mut bytes = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
        assert!(ended.is_ok(), "a slow peer is not cut");
    }
    let took = begun.elapsed();
    assert!(took > Duration::from_secs(8) && took < Duration::from_secs(20), "{took:?}");
}

#[tokio::test]
async fn the_drain_ends_idle_connections_and_answers_what_was_asked() {
    let issuer = Running::start().await;
    let mut idle = TcpStream::connect(port(&issuer.address)).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut head = [0; 12];
    idle.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    issuer.drain.start();
    tokio::time::timeout(Duration::from_secs(5), issuer.task).await.unwrap().unwrap().unwrap();
}
