//! What the issuer stands on, opened: files of this machine's, or objects of the cluster's.
//!
//! Deliberately absent: what is in them, and rights that nobody gave us: all of these objects exist before the issuer does.

use std::convert::Infallible;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::PostParams;
use runtime::kubernetes::{ApiError, Client, ClientError, Leadership, Lease, SecretError, SharedSecret, in_time};
use std::sync::Arc;
use std::time::Duration;

use super::authority::Authorities;
use super::config;
use super::store::Store;
use super::store::file::FileStore;
use super::store::secret::SecretStore;

/// The key of the ConfigMap that the trust bundle is under.
const BUNDLE_KEY: &str = "ca.pem";
/// How often it is compared with what it should be.
const BUNDLE_TICK: Duration = Duration::from_secs(10);

/// Why the cluster cannot be stood on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlatformError {
    /// No client.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// No Secret.
    #[error("{0}; `sidegate install` makes it, and the right to read it")]
    Secret(#[from] SecretError),
    /// What only one of the two has.
    #[error("the configuration has no {0}")]
    Absent(&'static str),
}

/// A ring of keys.
#[derive(Clone, Copy)]
pub(crate) enum Which {
    SigningKeys,
    Authorities,
    Root,
}

/// What the issuer stands on.
pub(crate) enum Platform {
    Local(config::Local),
    Cluster(Arc<Cluster>),
}

/// The cluster's objects.
pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) leadership: Leadership,
    names: config::Cluster,
    secret: Arc<SharedSecret>,
}

impl Platform {
    /// Opens it. In a cluster, this replica stands for leadership from now on.
    pub(crate) async fn open(config: &config::Platform) -> Result<Self, PlatformError> {
        let names = match config {
            config::Platform::Local(local) => return Ok(Self::Local(local.clone())),
            config::Platform::Kubernetes(names) => names.clone(),
        };
        let client = runtime::kubernetes::client().await?;
        let secret = SharedSecret::open(client.clone(), &names.namespace, &names.secret).await?;
        let (lease, leadership) = Lease::new(client.clone(), &names.namespace, &names.lease, identity());
        tokio::spawn(lease.stand());
        Ok(Self::Cluster(Arc::new(Cluster { client, leadership, names, secret })))
    }

    /// Where a ring of keys is kept. Called within tokio.
    pub(crate) fn store(&self, which: Which) -> Result<Box<dyn Store>, PlatformError> {
        let local = match self {
            Self::Cluster(cluster) => return Ok(Box::new(cluster.store(which))),
            Self::Local(local) => local,
        };
        let path = match which {
            Which::SigningKeys => &local.keys_file,
            Which::Authorities => {
                local.authority_file.as_ref().ok_or(PlatformError::Absent("certificates.authority_file"))?
            }
            Which::Root => return Err(PlatformError::Absent("kubernetes, whose Secret holds the root")),
        };
        Ok(Box::new(FileStore::new(path)))
    }

    pub(crate) fn cluster(&self) -> Option<&Arc<Cluster>> {
        match self {
            Self::Cluster(cluster) => Some(cluster),
            Self::Local(_) => None,
        }
    }
}

impl Cluster {
    fn store(&self, which: Which) -> SecretStore {
        let key = match which {
            Which::SigningKeys => "signing-keys.json",
            Which::Authorities => "authorities.json",
            Which::Root => "root.json",
        };
        let (secret, leadership) = (self.secret.clone(), Some(self.leadership.clone()));
        SecretStore { secret, key, leadership, runtime: tokio::runtime::Handle::current() }
    }

    /// Keeps the certificates by which others know the issuer in their ConfigMap, while this replica leads, for ever.
    pub(crate) async fn publish(&self, root: &Authorities) -> Infallible {
        let (mut leadership, mut failing) = (self.leadership.clone(), false);
        loop {
            leadership.won().await;
            let published = self.publish_once(root).await;
            if let (Err(error), false) = (&published, failing) {
                tracing::error!(%error, config_map = self.names.trust_bundle, "the trust bundle cannot be published; new pods will not know the issuer");
            }
            failing = published.is_err();
            tokio::time::sleep(BUNDLE_TICK).await;
        }
    }

    async fn publish_once(&self, root: &Authorities) -> Result<(), ApiError> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.names.namespace);
        let mut object = in_time(api.get(&self.names.trust_bundle)).await?;
        let (bundle, _) = root.bundle(runtime::clock::now());
        let data = object.data.get_or_insert_default();
        if data.get(BUNDLE_KEY) == Some(&bundle) {
            return Ok(());
        }
        data.insert(BUNDLE_KEY.to_owned(), bundle);
        in_time(api.replace(&self.names.trust_bundle, &PostParams::default(), &object)).await.map(drop)
    }
}

/// The pod's name, which is its host's; the process beside it tells two on one host apart.
fn identity() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{host}_{}", std::process::id())
}
