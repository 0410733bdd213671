//! Who may have which roles: the compiled documents, followed as they change, in a directory or in the cluster.
//!
//! Broken documents never take effect. Of a directory the last good ones stay, loudly, and a start on broken ones is refused;
//! of a cluster's objects each stands for itself (`objects`). Deliberately absent: what the documents mean (`policy`) and
//! how they are watched (`runtime`).

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use identity::access::AuthorizationDetail;
use identity::{ServiceName, Subject};
use parking_lot::RwLock;
use policy::snapshot::Snapshot;
use runtime::admin::Readiness;
use runtime::documents::{DocumentsError, File};
use tokio::sync::watch;

use super::metrics::Metrics;
use super::objects::{AccessObjects, Judged, Verdict};
use super::platform::{Cluster, Platform};
use super::statuses;

/// Why the issuer does not start on these documents.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GrantsError {
    /// The directory cannot be read.
    #[error(transparent)]
    Unreadable(#[from] DocumentsError),
    /// The documents are broken.
    #[error("the documents in {directory} are broken:\n  {}", reasons.join("\n  "))]
    Broken {
        /// Where they lie.
        directory: String,
        /// Everything that is wrong with them.
        reasons: Vec<String>,
    },
}

/// How often what could not be written is tried again, and what was lost is noticed.
const RETELL: Duration = Duration::from_secs(30);
/// The readiness condition.
const READY: &str = "the cluster's grants";

/// The grants in force.
pub(crate) struct Grants {
    /// `None` before the cluster's objects were listed.
    snapshot: RwLock<Option<Arc<Snapshot>>>,
    source: Source,
    metrics: Metrics,
    readiness: Readiness,
}

/// A directory's documents, as they change.
type Files = watch::Receiver<Arc<Vec<File>>>;

enum Source {
    Directory(Files),
    Cluster(Arc<Cluster>),
}

impl Grants {
    /// Reads the documents of a directory and begins to follow them; those of a cluster are there when they come.
    pub(crate) fn follow(platform: &Platform, metrics: Metrics, readiness: Readiness) -> Result<Self, GrantsError> {
        let (source, snapshot) = match platform {
            Platform::Local(local) => {
                let (files, snapshot) = directory(&local.documents)?;
                metrics.documents_valid.set(1);
                (Source::Directory(files), Some(Arc::new(snapshot)))
            }
            Platform::Cluster(cluster) => {
                readiness.set(READY, false);
                (Source::Cluster(cluster.clone()), None)
            }
        };
        Ok(Self { snapshot: RwLock::new(snapshot), source, metrics, readiness })
    }

    /// The roles that the subject has on the service; `None` while it is not known yet.
    pub(crate) fn granted(&self, subject: &Subject, service: &ServiceName) -> Option<Vec<AuthorizationDetail>> {
        let snapshot = self.snapshot.read().clone()?;
        Some(snapshot.granted(subject, service))
    }

    /// Takes over changes as they come, for ever.
    pub(crate) async fn keep_up(&self) -> Infallible {
        match &self.source {
            Source::Directory(files) => self.keep_up_with_files(files.clone()).await,
            Source::Cluster(cluster) => self.keep_up_with_objects(cluster).await,
        }
    }

    /// Statuses are written beside the following, which they must not hold up.
    async fn keep_up_with_objects(&self, cluster: &Cluster) -> Infallible {
        let mut objects = AccessObjects::follow(&cluster.client);
        let (judged, mut to_be_told) = watch::channel(Vec::new());
        let following = async {
            loop {
                objects.changed().await;
                if let Some((snapshot, all)) = objects.assemble() {
                    self.in_force(snapshot, &all, &judged.borrow());
                    judged.send_replace(all);
                }
            }
        };
        let telling = async {
            let mut leadership = cluster.leadership.clone();
            loop {
                // By the time that it leads, what it heard before may still be untold.
                leadership.won().await;
                let all = to_be_told.borrow_and_update().clone();
                statuses::write(&cluster.client, &all).await;
                tokio::select! { _ = to_be_told.changed() => {}, () = tokio::time::sleep(RETELL) => {} }
            }
        };
        tokio::select! { never = following => never, never = telling => never }
    }

    fn in_force(&self, snapshot: Snapshot, all: &[Judged], before: &[Judged]) {
        let first = self.snapshot.write().replace(Arc::new(snapshot)).is_none();
        let wrong = all.iter().filter(|object| object.verdict != Verdict::InForce).count();
        self.metrics.documents_valid.set((wrong == 0).into());
        self.readiness.set(READY, true);
        // What we write into a status comes back as a change, too, and is none.
        if first || all.len() != before.len() || !all.iter().zip(before).all(|(now, before)| now.says_as(before)) {
            tracing::info!(
                objects = all.len(),
                wrong,
                "changed objects are in force; those that are wrong say so in their status"
            );
        }
    }

    async fn keep_up_with_files(&self, mut files: Files) -> Infallible {
        // A change between the first reading and now must not be missed.
        files.mark_changed();
        let mut in_force = files.borrow().clone();
        loop {
            if files.changed().await.is_err() {
                tracing::error!("the documents are not followed any more; restart the issuer");
                return std::future::pending().await;
            }
            let current = files.borrow_and_update().clone();
            if current != in_force {
                self.take_over(&current);
                in_force = current;
            }
        }
    }

    fn take_over(&self, files: &[File]) {
        match compile(files) {
            Ok(snapshot) => {
                *self.snapshot.write() = Some(Arc::new(snapshot));
                self.metrics.documents_valid.set(1);
                tracing::info!(files = files.len(), "changed documents are in force");
            }
            Err(reasons) => {
                self.metrics.documents_valid.set(0);
                self.metrics.documents_rejected.inc();
                for reason in reasons {
                    tracing::error!(%reason, "the documents are broken; the last good ones stay in force");
                }
            }
        }
    }
}

fn directory(path: &Path) -> Result<(Files, Snapshot), GrantsError> {
    let files = runtime::documents::watch(path.to_owned())?;
    let snapshot = compile(&files.borrow())
        .map_err(|reasons| GrantsError::Broken { directory: path.display().to_string(), reasons })?;
    Ok((files, snapshot))
}

fn compile(files: &[File]) -> Result<Snapshot, Vec<String>> {
    let source = |file: &File| policy::snapshot::Source { path: file.path.clone(), text: file.text.clone() };
    let sources: Vec<_> = files.iter().map(source).collect();
    Snapshot::compile(&sources).map_err(|errors| errors.iter().map(ToString::to_string).collect())
}
