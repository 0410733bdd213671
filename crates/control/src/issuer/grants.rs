//! Who may have which roles: the compiled documents, followed as they change.
//!
//! Broken documents never take effect: the last good ones stay, loudly, and a start on broken ones is refused.
//! Deliberately absent: what the documents mean (`policy`) and how a directory is watched (`runtime`).

use std::path::Path;
use std::sync::Arc;

use identity::access::AuthorizationDetail;
use identity::{ServiceName, Subject};
use parking_lot::RwLock;
use policy::snapshot::{Snapshot, Source};
use runtime::documents::{DocumentsError, File};
use tokio::sync::watch;

use super::metrics::Metrics;

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

/// The grants in force.
pub(crate) struct Grants {
    snapshot: RwLock<Arc<Snapshot>>,
    files: watch::Receiver<Arc<Vec<File>>>,
    metrics: Metrics,
}

impl Grants {
    /// Reads the documents and begins to follow them.
    pub(crate) fn follow(directory: &Path, metrics: Metrics) -> Result<Self, GrantsError> {
        let files = runtime::documents::watch(directory.to_owned())?;
        let snapshot = compile(&files.borrow())
            .map_err(|reasons| GrantsError::Broken { directory: directory.display().to_string(), reasons })?;
        metrics.documents_valid.set(1);
        Ok(Self { snapshot: RwLock::new(Arc::new(snapshot)), files, metrics })
    }

    /// The roles that the subject has on the service.
    pub(crate) fn granted(&self, subject: &Subject, service: &ServiceName) -> Vec<AuthorizationDetail> {
        let snapshot = self.snapshot.read().clone();
        snapshot.granted(subject, service)
    }

    /// Takes over changes as they come, for ever.
    pub(crate) async fn keep_up(&self) -> std::convert::Infallible {
        let mut files = self.files.clone();
        // A change between the first reading and now must not be missed.
        files.mark_changed();
        let mut in_force = self.files.borrow().clone();
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
                *self.snapshot.write() = Arc::new(snapshot);
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

fn compile(files: &[File]) -> Result<Snapshot, Vec<String>> {
    let source = |file: &File| Source { path: file.path.clone(), text: file.text.clone() };
    let sources: Vec<Source> = files.iter().map(source).collect();
    Snapshot::compile(&sources).map_err(|errors| errors.iter().map(ToString::to_string).collect())
}
