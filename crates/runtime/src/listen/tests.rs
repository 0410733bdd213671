//! Addresses as people write them, sockets of both kinds, stale and living socket files.

use super::*;
use std::os::unix::fs::PermissionsExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[test]
fn addresses() {
    for (text, local) in [
        ("127.0.0.1:5432", true),
        ("127.8.8.8:1", true),
        ("[::1]:5432", true),
        ("[::ffff:127.0.0.1]:5432", true),
        ("localhost:5432", true),
        ("unix:/run/x/.s.PGSQL.5432", true),
        ("0.0.0.0:5432", false),
        ("[::]:5432", false),
        ("localhost.example:5432", false),
        ("db:0", false),
    ] {
        let address: Address = text.parse().unwrap();
        assert_eq!(address.to_string(), text);
        assert_eq!(address.is_local(), local, "{text}");
    }
    for text in
        ["", "5432", ":5432", "host:", "host:65536", "::1:5432", "unix:relative", "unix:", "a b:1", "http://h:1"]
    {
        let error = text.parse::<Address>().unwrap_err().to_string();
        assert!(error.contains("127.0.0.1:5432"), "{error}");
    }
}

#[tokio::test]
async fn everywhere_is_both_families_or_the_one_there_is() {
    let listener = Listener::bind(&"[::]:0".parse().unwrap()).await.unwrap();
    let port = listener.local_address().to_string().rsplit_once(':').unwrap().1.to_owned();
    let loopbacks = ["127.0.0.1", "[::1]"].map(|host| Address::Tcp(format!("{host}:{port}")));
    let has_ipv6 = std::net::TcpListener::bind("[::1]:0").is_ok();
    for address in loopbacks.iter().take(if has_ipv6 { 2 } else { 1 }) {
        let (client, accepted) = tokio::join!(Stream::connect(address), listener.accept());
        let (_, peer) = accepted.unwrap();
        assert!(
            client.is_ok() && matches!(peer, Peer::Tcp(peer) if peer.ip().to_canonical().is_loopback()),
            "{address}"
        );
    }
}

#[tokio::test]
async fn talks_over_tcp_and_unix() {
    let dir = tempfile::tempdir().unwrap();
    let unix = Address::Unix(dir.path().join("s"));
    for address in [Address::Tcp("127.0.0.1:0".into()), unix] {
        let listener = Listener::bind(&address).await.unwrap();
        let (client, server) = tokio::join!(Stream::connect(listener.local_address()), listener.accept());
        let (mut server, peer) = server.unwrap();
        let mut client = client.unwrap();
        client.write_all(b"hello").await.unwrap();
        let mut buffer = [0; 5];
        server.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"hello");
        match (&server, peer) {
            (Stream::Tcp(stream), Peer::Tcp(_)) => assert!(stream.nodelay().unwrap()),
            (Stream::Unix(_), Peer::Unix { uid }) => assert!(uid.is_some()),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_used_port_says_so() {
    let first = Listener::bind(&"127.0.0.1:0".parse().unwrap()).await.unwrap();
    let error = Listener::bind(first.local_address()).await.unwrap_err().to_string();
    assert!(error.contains(&first.local_address().to_string()) && error.contains("another process"), "{error}");
}

#[tokio::test]
async fn unix_sockets_replace_stale_ones_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let address = Address::Unix(path.clone());

    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "std leaves the file behind: this is the stale one");
    let listener = Listener::bind_with_mode(&address, 0o600).await.unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);

    let error = Listener::bind(&address).await.unwrap_err().to_string();
    assert!(error.contains("another process"), "{error}");
    drop(listener);
    assert!(!path.exists());

    std::fs::write(&path, "precious").unwrap();
    assert!(Listener::bind(&address).await.unwrap_err().to_string().contains("no socket"));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test]
async fn a_missing_directory_says_what_to_do() {
    let error = Listener::bind(&"unix:/nonexistent/s".parse().unwrap()).await.unwrap_err().to_string();
    assert!(error.contains("create the directory"), "{error}");
}
