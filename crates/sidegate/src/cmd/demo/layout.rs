//! Where things lie in the state directory, and which part of it must lie elsewhere.
//!
//! Two things may force a part out: a Unix socket's path is limited to some hundred bytes, and PostgreSQL, which
//! refuses to run as root, must be able to walk down to its data as another user.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::files;
use super::user::User;

/// `sun_path` holds 108 bytes on Linux and 104 on macOS, the closing NUL included.
const SOCKET_PATH_MAX: usize = 103;
/// PostgreSQL's name for its socket and the lock beside it, which is the longer one.
const SOCKET_FILE: &str = "/.s.PGSQL.5432.lock";
/// Survives a reboot, unlike /tmp, and is open to every user.
const OUTSIDE_ROOT: &str = "/var/tmp";
const LOCK_FILE: &str = "sidegate-demo.lock";

/// The state directory.
#[derive(Clone)]
pub struct Layout {
    dir: PathBuf,
}

/// Where one PostgreSQL server's files lie.
pub struct Places {
    pub data: PathBuf,
    pub socket: PathBuf,
}

impl Layout {
    /// Make the directory if it is missing, and everything in it that only needs to exist.
    pub fn open(dir: Option<PathBuf>) -> anyhow::Result<Self> {
        let dir = dir.map_or_else(default_dir, Ok)?;
        files::directory(&dir, 0o711)?;
        let dir = fs::canonicalize(&dir).with_context(|| format!("cannot resolve {}", dir.display()))?;
        let dir = dir.to_str().context("the path of the state directory is not UTF-8; choose another with --dir")?;
        let layout = Self { dir: PathBuf::from(dir) };
        layout.let_others_pass()?;
        for (name, mode) in [
            ("config", 0o755),
            ("documents", 0o755),
            ("logs", 0o700),
            ("cluster", 0o700),
            ("issuer", 0o700),
            ("console", 0o700),
        ] {
            files::directory(&layout.dir.join(name), mode)?;
        }
        Ok(layout)
    }

    /// PostgreSQL's user must pass through (not read) this directory. It is ours to open if it is empty or was made by
    /// an earlier demo; everything private in it lies in directories of mode 0700.
    fn let_others_pass(&self) -> anyhow::Result<()> {
        let empty = fs::read_dir(&self.dir)?.next().is_none();
        if User::is_root() && (empty || self.lock_file().exists()) {
            let mode = fs::metadata(&self.dir)?.permissions().mode();
            fs::set_permissions(&self.dir, fs::Permissions::from_mode(mode | 0o011))?;
        }
        Ok(())
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn lock_file(&self) -> PathBuf {
        self.dir.join(LOCK_FILE)
    }

    pub fn ports_file(&self) -> PathBuf {
        self.dir.join("ports.json")
    }

    pub fn documents(&self) -> PathBuf {
        self.dir.join("documents")
    }

    pub fn config(&self, name: &str) -> PathBuf {
        self.dir.join("config").join(format!("{name}.yaml"))
    }

    pub fn settings(&self, name: &str) -> PathBuf {
        self.dir.join("settings").join(name)
    }

    pub fn log(&self, name: &str) -> PathBuf {
        self.dir.join("logs").join(format!("{name}.log"))
    }

    pub fn decisions(&self, name: &str) -> PathBuf {
        self.dir.join("logs").join(format!("{name}.decisions.jsonl"))
    }

    pub fn signing_keys(&self) -> PathBuf {
        self.dir.join("issuer").join("signing-keys.json")
    }

    pub fn cluster(&self, file: &str) -> PathBuf {
        self.dir.join("cluster").join(file)
    }

    pub fn authority(&self) -> PathBuf {
        self.dir.join("issuer").join("authority.json")
    }

    /// The console's one-time link to sign in.
    pub fn console_link(&self) -> PathBuf {
        self.console_state().join("link")
    }

    /// Changes made in the console, and its benchmarks' results.
    pub fn console_state(&self) -> PathBuf {
        self.dir.join("console")
    }

    /// The ready file that the console's benchmarks go by.
    pub fn ground(&self) -> PathBuf {
        self.console_state().join("demo.json")
    }

    /// The authorities that vouch for the sidecars' certificates, for clients without a sidecar.
    pub fn trust_bundle(&self) -> PathBuf {
        self.dir.join("trust-bundle.pem")
    }

    /// Where a service that is no PostgreSQL keeps its data.
    pub fn data(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// As a pod sees it: a directory of its own with one file, `token`.
    pub fn subject_token(&self, service: &str) -> PathBuf {
        self.dir.join("cluster").join("tokens").join(service).join("token")
    }

    /// The places of the PostgreSQL server `name`, run by `user` (`None`: by whoever runs the demo).
    pub fn postgres(&self, name: &str, user: Option<&User>) -> anyhow::Result<Places> {
        let inside = self.dir.join("postgres").join(name);
        let reachable = user.is_none_or(|user| user.can_reach(&self.dir));
        let data_base = if reachable { inside.clone() } else { self.outside()?.join(name) };
        let socket_base = if reachable && fits_a_socket(&inside) { inside } else { self.outside()?.join(name) };
        Ok(Places { data: data_base.join("data"), socket: socket_base.join("socket") })
    }

    /// A directory with a short path that belongs to this state directory alone.
    fn outside(&self) -> anyhow::Result<PathBuf> {
        let path = Path::new(OUTSIDE_ROOT)
            .join(format!("sidegate-demo-{:016x}", fingerprint(self.dir.as_os_str().as_encoded_bytes())));
        files::directory(&path, 0o711)?;
        // The name can be guessed and its parent is open to all: it must be ours and no link of somebody else's.
        let found = fs::symlink_metadata(&path)?;
        if !found.is_dir() || found.uid() != User::current_uid() {
            bail!("{} is not ours; remove it or choose another --dir", path.display());
        }
        Ok(path)
    }
}

/// PostgreSQL reads a list of directories where we give one: a path with a comma or quotes would be taken apart.
fn fits_a_socket(base: &Path) -> bool {
    let path = base.join("socket");
    let bytes = path.as_os_str().as_encoded_bytes();
    bytes.len() + SOCKET_FILE.len() <= SOCKET_PATH_MAX
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"/._-".contains(b))
}

fn default_dir() -> anyhow::Result<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path: &PathBuf| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
    Ok(state.context("neither HOME nor XDG_STATE_HOME is set; say where with --dir DIR")?.join("sidegate/demo"))
}

/// FNV-1a: a short stable name for a path, and for stable ids of the stand-in's objects. Not for secrets.
pub fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
