//! The listening side: bind with errors that say what to do, accept with patience.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use super::{Address, Peer, Stream, prepare};

/// Connections that wait for accept. Generous, because a burst of reconnecting clients must not be refused while one
/// of our threads does a TLS handshake.
const BACKLOG: i32 = 1024;
/// Pause after an accept that failed for lack of something (descriptors, memory): long enough not to spin, short
/// enough that nobody notices once it is there again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Mode of a Unix socket unless said otherwise: our user and group.
const SOCKET_MODE: u32 = 0o660;

/// Why an address cannot be listened on, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}; {advice}")]
pub struct BindError {
    address: Address,
    #[source]
    source: io::Error,
    advice: &'static str,
}

/// A bound socket. A Unix socket's file is removed when this is dropped.
#[derive(Debug)]
pub struct Listener {
    socket: Inner,
    address: Address,
}

#[derive(Debug)]
enum Inner {
    Tcp(TcpListener),
    Unix(UnixListener, #[allow(dead_code, reason = "held for its drop")] SocketFile),
}

impl Listener {
    /// Binds; a Unix socket is open to our user and group.
    pub async fn bind(address: &Address) -> Result<Self, BindError> {
        Self::bind_with_mode(address, SOCKET_MODE).await
    }

    /// Binds; `mode` is that of a Unix socket's file and means nothing for TCP.
    pub async fn bind_with_mode(address: &Address, mode: u32) -> Result<Self, BindError> {
        let bound = match address {
            Address::Tcp(text) => tcp(text).await.map(|l| {
                let actual = l.local_addr().map_or_else(|_| text.clone(), |a| a.to_string());
                Self { socket: Inner::Tcp(l), address: Address::Tcp(actual) }
            }),
            Address::Unix(path) => {
                unix(path, mode).map(|(l, file)| Self { socket: Inner::Unix(l, file), address: address.clone() })
            }
        };
        bound.map_err(|source| BindError { address: address.clone(), advice: advice(address, &source), source })
    }

    /// The next connection. Errors of single connections and lacks that pass (file descriptors, memory) are waited
    /// out and logged; an error means that this listener will never accept again. Cancel safe.
    pub async fn accept(&self) -> io::Result<(Stream, Peer)> {
        let mut lacking = false;
        loop {
            let error = match self.accept_once().await {
                Ok(accepted) => {
                    if lacking {
                        tracing::info!(address = %self.address, "accepting again");
                    }
                    return Ok(accepted);
                }
                Err(error) => error,
            };
            match weigh(&error) {
                Weight::ThisConnection => {}
                Weight::Passing => {
                    if !lacking {
                        tracing::error!(address = %self.address, %error, "cannot accept for now; is the limit of open files too low?");
                    }
                    lacking = true;
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
                Weight::Final => return Err(error),
            }
        }
    }

    /// What it is bound to; for port 0 the port that the system chose.
    #[must_use]
    pub fn local_address(&self) -> &Address {
        &self.address
    }

    async fn accept_once(&self) -> io::Result<(Stream, Peer)> {
        match &self.socket {
            Inner::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                prepare(&stream);
                Ok((Stream::Tcp(stream), Peer::Tcp(peer)))
            }
            Inner::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                let uid = stream.peer_cred().ok().map(|c| c.uid());
                Ok((Stream::Unix(stream), Peer::Unix { uid }))
            }
        }
    }
}

/// So that `axum::serve` takes it, over either kind of socket.
impl axum::serve::Listener for Listener {
    type Io = Stream;
    type Addr = Peer;

    async fn accept(&mut self) -> (Stream, Peer) {
        match Listener::accept(self).await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::error!(address = %self.address, %error, "this listener has ended");
                std::future::pending().await
            }
        }
    }

    fn local_addr(&self) -> io::Result<Peer> {
        match &self.socket {
            Inner::Tcp(listener) => listener.local_addr().map(Peer::Tcp),
            Inner::Unix(..) => Ok(Peer::Unix { uid: None }),
        }
    }
}

enum Weight {
    ThisConnection,
    Passing,
    Final,
}

fn weigh(error: &io::Error) -> Weight {
    use io::ErrorKind as K;
    match error.kind() {
        K::ConnectionAborted | K::ConnectionReset | K::ConnectionRefused | K::Interrupted | K::WouldBlock => {
            Weight::ThisConnection
        }
        // EBADF, EINVAL and ENOTSOCK mean that the descriptor is no listening socket any more.
        K::InvalidInput => Weight::Final,
        _ if matches!(error.raw_os_error(), Some(9 | 88)) => Weight::Final,
        _ => Weight::Passing,
    }
}

async fn tcp(text: &str) -> io::Result<TcpListener> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in tokio::net::lookup_host(text).await? {
        let bound = match bound(address) {
            // `[::]` is every address of this machine, which may have none of IPv6.
            Err(error) if is_everywhere(address) && lacks_ipv6(&error) => {
                bound((Ipv4Addr::UNSPECIFIED, address.port()).into())
            }
            bound => bound,
        };
        match bound {
            Ok(socket) => return TcpListener::from_std(socket.into()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn bound(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    if is_everywhere(address) {
        socket.set_only_v6(false)?;
    }
    // A restart must not wait for the sessions of its predecessor that linger in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Whether it is `[::]`: all of IPv6 and, whatever the system's default, all of IPv4, too.
fn is_everywhere(address: SocketAddr) -> bool {
    address.is_ipv6() && address.ip().is_unspecified()
}

/// Whether the kernel has no IPv6, or has it switched off.
fn lacks_ipv6(error: &io::Error) -> bool {
    const EAFNOSUPPORT: i32 = 97;
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(EAFNOSUPPORT)
}

/// Bound under a name of its own, given its mode, then renamed into place: at no time can somebody connect whom the
/// mode would keep out, and a stale socket is replaced in one step.
fn unix(path: &Path, mode: u32) -> io::Result<(UnixListener, SocketFile)> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    refuse_if_in_use(path)?;
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let temporary = path.with_file_name(format!(".{}-{count}", std::process::id()));
    let listener = UnixListener::bind(&temporary)?;
    let placed = std::fs::set_permissions(&temporary, std::fs::Permissions::from_mode(mode))
        .and_then(|()| std::fs::rename(&temporary, path))
        .and_then(|()| SocketFile::of(path));
    if placed.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    placed.map(|file| (listener, file))
}

fn refuse_if_in_use(path: &Path) -> io::Result<()> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket"));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::AddrInUse, "a process answers there")),
    }
}

/// The file of a bound Unix socket, removed on drop if it is still ours and not a successor's.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), identity: identity(path)? })
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::symlink_metadata(path).map(|m| (m.dev(), m.ino()))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|now| now == self.identity) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn advice(address: &Address, error: &io::Error) -> &'static str {
    use io::ErrorKind as K;
    match (error.kind(), address) {
        (K::AddrInUse, _) => "another process listens there: end it, or choose another address",
        (K::AddrNotAvailable, _) => "no interface of this machine has this address: use 127.0.0.1, or [::] for all",
        (K::PermissionDenied, Address::Tcp(_)) => "ports below 1024 need a privilege: choose a higher one",
        (K::PermissionDenied, Address::Unix(_)) => "the directory must be writable for this user",
        (K::NotFound, Address::Unix(_)) => "create the directory first",
        (K::InvalidInput, Address::Unix(_)) => "the path of a Unix socket may have 107 bytes at most",
        (K::AlreadyExists, _) => "remove it, or choose another path",
        (_, Address::Tcp(_)) => "write an address of this machine and a port, like 127.0.0.1:5432",
        (_, Address::Unix(_)) => "choose a path in a directory that this user may write to",
    }
}
