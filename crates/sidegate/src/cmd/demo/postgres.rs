//! Two real PostgreSQL servers: found on the machine, initialized in the state directory, reachable by Unix socket only.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};

use super::children::{Children, Spec, Stage};
use super::files;
use super::layout::Layout;
use super::probe::{self, Login, Target};
use super::user::User;

/// The bootstrap superuser.
pub const SUPERUSER: &str = "postgres";
/// With no TCP listener the port only names the socket file.
pub const PORT: u16 = 5432;
pub const DATABASE: &str = "shop";

const SEED: &str = include_str!("seed.sql");
/// Takes half a second; a slow disk may take far longer.
const INITDB_LIMIT: Duration = Duration::from_secs(120);
const SEED_LIMIT: Duration = Duration::from_secs(120);
/// Includes the recovery after a hard kill.
const START_LIMIT: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_millis(50);

/// Whoever can reach the socket may log in as anybody, without a password: that is what the sidecar does. The lock is the
/// socket's directory, mode 0700 and owned by the server's user: an application or another user of this machine cannot
/// connect around the sidecar. (Started by an ordinary user, the demo cannot protect its servers from that same user.)
const HBA: &str =
    "# Only by Unix socket, in a directory of mode 0700 that only the sidecar's user can enter.\nlocal all all trust\n";

/// PostgreSQL's programs.
#[derive(Clone, Debug)]
pub struct Binaries {
    dir: PathBuf,
    psql: PathBuf,
    major: u32,
}

impl Binaries {
    /// In this order: SIDEGATE_POSTGRES_BIN, the system's packages (newest), PATH, the cache directory.
    pub fn find() -> anyhow::Result<Self> {
        if let Some(dir) = std::env::var_os("SIDEGATE_POSTGRES_BIN") {
            return Self::at(Path::new(&dir)).context("SIDEGATE_POSTGRES_BIN");
        }
        let packaged = newest_first(packaged());
        let on_path = std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default();
        let cached = newest_first(cached());
        [packaged, on_path, cached].concat().iter().find_map(|dir| Self::at(dir).ok()).context(
            "PostgreSQL not found: install it (Debian, Ubuntu: apt-get install postgresql; Fedora: dnf install postgresql-server; macOS: brew install postgresql), or set SIDEGATE_POSTGRES_BIN to the directory that holds initdb and postgres",
        )
    }

    /// What a person types: `psql`, or its place where that is not on PATH.
    pub fn psql_command(&self) -> String {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let short = std::env::split_paths(&path).any(|dir| dir.join("psql").is_file());
        if short { "psql".into() } else { self.psql.display().to_string() }
    }

    fn at(dir: &Path) -> anyhow::Result<Self> {
        let dir = fs::canonicalize(dir).with_context(|| format!("{} does not exist", dir.display()))?;
        for program in ["initdb", "postgres"] {
            if !dir.join(program).is_file() {
                bail!("{} has no {program}", dir.display());
            }
        }
        let psql = psql(&dir)
            .with_context(|| format!("no psql in {} nor on PATH: install postgresql-client", dir.display()))?;
        let major = major(&dir.join("postgres"))?;
        Ok(Self { dir, psql, major })
    }
}

fn psql(dir: &Path) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::iter::once(dir.to_path_buf())
        .chain(std::env::split_paths(&path))
        .map(|dir| dir.join("psql"))
        .find(|psql| psql.is_file())
}

/// From `postgres (PostgreSQL) 15.18 (Debian …)`.
fn major(postgres: &Path) -> anyhow::Result<u32> {
    let output = Command::new(postgres).arg("--version").current_dir("/").output();
    let output = output.with_context(|| format!("cannot run {}", postgres.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    parse_major(&text).with_context(|| format!("{} --version says {text:?}", postgres.display()))
}

fn parse_major(text: &str) -> Option<u32> {
    let version = text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn packaged() -> Vec<PathBuf> {
    // Debian and Ubuntu; PGDG on Fedora and RHEL; Homebrew on both of its prefixes.
    let versioned = subdirectories(Path::new("/usr/lib/postgresql")).into_iter();
    let pgdg = subdirectories(Path::new("/usr")).into_iter().filter(|dir| name_starts_with(dir, "pgsql-"));
    let brew = ["/opt/homebrew/opt", "/usr/local/opt"].into_iter().flat_map(|dir| subdirectories(Path::new(dir)));
    versioned
        .chain(pgdg)
        .chain(brew.filter(|dir| name_starts_with(dir, "postgresql")))
        .map(|dir| dir.join("bin"))
        .collect()
}

fn cached() -> Vec<PathBuf> {
    let cache = files::cache().unwrap_or_default();
    subdirectories(&cache.join("postgresql")).into_iter().map(|dir| dir.join("bin")).collect()
}

fn subdirectories(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

fn name_starts_with(path: &Path, start: &str) -> bool {
    path.file_name().and_then(OsStr::to_str).is_some_and(|name| name.starts_with(start))
}

fn newest_first(dirs: Vec<PathBuf>) -> Vec<PathBuf> {
    let mut known: Vec<(u32, PathBuf)> =
        dirs.into_iter().filter_map(|dir| Some((major(&dir.join("postgres")).ok()?, dir))).collect();
    known.sort_by(|a, b| b.cmp(a));
    known.into_iter().map(|(_, dir)| dir).collect()
}

/// One server of the demo.
pub struct Server {
    name: String,
    binaries: Binaries,
    user: Option<User>,
    data: PathBuf,
    pub socket: PathBuf,
    log: PathBuf,
}

impl Server {
    pub fn new(name: &str, binaries: &Binaries, layout: &Layout) -> anyhow::Result<Self> {
        let user = User::for_postgres()?;
        let places = layout.postgres(name, user.as_ref())?;
        let log = layout.log(&format!("{name}.postgresql"));
        Ok(Self { name: name.into(), binaries: binaries.clone(), user, data: places.data, socket: places.socket, log })
    }

    /// Where its files lie if not all of them are in the state directory.
    pub fn elsewhere(&self, state: &Path) -> Option<&Path> {
        [&self.data, &self.socket].into_iter().find(|path| !path.starts_with(state)).and_then(|path| path.parent())
    }

    /// The file that clients connect to.
    pub fn socket_file(&self) -> PathBuf {
        self.socket.join(format!(".s.PGSQL.{PORT}"))
    }

    /// Make the data directory unless a complete one is there. `true`: it is new and still to be seeded.
    pub async fn prepare(&self, children: &Children) -> anyhow::Result<bool> {
        self.own_directory(&self.socket)?;
        if self.seeded_mark().exists() {
            self.check_version()?;
            self.configure()?;
            return Ok(false);
        }
        // Not finished by an earlier start: of no use, and initdb wants an empty directory.
        if self.data.exists() {
            fs::remove_dir_all(&self.data).with_context(|| format!("cannot remove {}", self.data.display()))?;
        }
        self.own_directory(&self.data)?;
        children.run(&self.initdb(), INITDB_LIMIT).await?;
        self.configure()?;
        Ok(true)
    }

    /// The server itself. A postmaster.pid left by a server that was killed is PostgreSQL's to judge: it does so right.
    pub fn spec(&self) -> Spec {
        self.program(&format!("PostgreSQL {}", self.name), "postgres", &["-D".as_ref(), self.data.as_os_str()])
    }

    /// Wait until it lets the superuser in.
    pub async fn up(&self) -> anyhow::Result<()> {
        let target = Target::Unix(self.socket_file());
        let accepted = async {
            while !matches!(probe::login(&target, SUPERUSER, "postgres").await, Ok(Login::Accepted)) {
                tokio::time::sleep(RETRY).await;
            }
        };
        let waited = tokio::time::timeout(START_LIMIT, accepted).await;
        waited.with_context(|| format!("PostgreSQL {} does not answer; see {}", self.name, self.log.display()))
    }

    /// Roles, schema and data; the mark comes last, so that half a seed is never taken for a whole one.
    pub async fn seed(&self, children: &Children) -> anyhow::Result<()> {
        let file = self.mark_directory().join("seed.sql");
        files::replace(&file, SEED.as_bytes(), files::PUBLIC)?;
        let args = ["-X", "-q", "-v", "ON_ERROR_STOP=1", "-U", SUPERUSER, "-d", "postgres", "-h"].map(OsString::from);
        let rest = [
            self.socket.clone().into_os_string(),
            "-p".into(),
            PORT.to_string().into(),
            "-f".into(),
            file.into_os_string(),
        ];
        let spec = Spec {
            name: format!("loading the data of {}", self.name),
            stage: Stage::Sidecar,
            program: self.binaries.psql.clone(),
            args: args.into_iter().chain(rest).collect(),
            user: None,
            log: self.log.clone(),
            stdout: None,
        };
        children.run(&spec, SEED_LIMIT).await?;
        files::replace(&self.seeded_mark(), b"", files::PUBLIC)
    }

    fn initdb(&self) -> Spec {
        let args = [
            "--auth-local=trust",
            "--auth-host=reject",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
            "-U",
            SUPERUSER,
            "-D",
        ];
        let args: Vec<&OsStr> = args.iter().map(OsStr::new).chain([self.data.as_os_str()]).collect();
        self.program(&format!("initdb for {}", self.name), "initdb", &args)
    }

    fn program(&self, name: &str, program: &str, args: &[&OsStr]) -> Spec {
        Spec {
            name: name.into(),
            stage: Stage::Postgres,
            program: self.binaries.dir.join(program),
            args: args.iter().map(Into::into).collect(),
            user: self.user,
            log: self.log.clone(),
            stdout: None,
        }
    }

    /// Written at every start: the socket's place may have changed.
    fn configure(&self) -> anyhow::Result<()> {
        let conf = self.data.join("sidegate.conf");
        self.own_file(&conf, &configuration(&self.socket))?;
        self.own_file(&self.data.join("pg_hba.conf"), HBA)?;
        self.own_file(&self.data.join("postgresql.conf"), "include 'sidegate.conf'\n")
    }

    fn check_version(&self) -> anyhow::Result<()> {
        let found = fs::read_to_string(self.data.join("PG_VERSION")).unwrap_or_default();
        if found.trim() != self.binaries.major.to_string() {
            bail!(
                "the data of {} is PostgreSQL {}'s, but {} is version {}: remove {} to start anew, or set SIDEGATE_POSTGRES_BIN",
                self.name,
                found.trim(),
                self.binaries.dir.display(),
                self.binaries.major,
                self.mark_directory().display()
            );
        }
        Ok(())
    }

    /// Beside the data, wherever that had to go.
    fn mark_directory(&self) -> &Path {
        self.data.parent().unwrap_or(&self.data)
    }

    fn seeded_mark(&self) -> PathBuf {
        self.mark_directory().join("seeded")
    }

    fn own_directory(&self, path: &Path) -> anyhow::Result<()> {
        files::directory(path.parent().unwrap_or(path), 0o711)?;
        files::directory(path, 0o700)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
        self.give(path)
    }

    fn own_file(&self, path: &Path, content: &str) -> anyhow::Result<()> {
        files::replace(path, content.as_bytes(), files::PRIVATE)?;
        self.give(path)
    }

    fn give(&self, path: &Path) -> anyhow::Result<()> {
        let Some(user) = self.user else { return Ok(()) };
        chown(path, Some(user.uid), Some(user.gid))
            .with_context(|| format!("cannot give {} to PostgreSQL's user", path.display()))
    }
}

/// `fsync` is off because this is a demo: it starts in a second, and a power cut costs no more than a new directory.
fn configuration(socket: &Path) -> String {
    format!(
        "listen_addresses = ''\nunix_socket_directories = '{}'\nunix_socket_permissions = 0700\nport = {PORT}\n\
         max_connections = 200\nshared_buffers = '32MB'\nfsync = off\nsynchronous_commit = off\nfull_page_writes = off\n\
         log_destination = 'stderr'\nlogging_collector = off\nlog_line_prefix = '%m [%p] %u@%d %a '\n",
        socket.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_packagers_write_them() {
        assert_eq!(parse_major("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(parse_major("postgres (PostgreSQL) 19beta1\n"), Some(19));
        assert_eq!(parse_major("no such thing"), None);
    }

    #[test]
    fn a_directory_without_the_server_is_refused_by_name() {
        let error = Binaries::at(Path::new("/")).unwrap_err().to_string();
        assert!(error.contains("initdb"), "{error}");
    }
}
