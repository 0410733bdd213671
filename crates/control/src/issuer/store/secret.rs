//! One key of a Secret that the cluster's issuers share. What keeps writers apart is the version of what they read; who rotates
//! what is due is whoever holds the Lease.
//!
//! Deliberately absent: calls from the threads that serve; these block, and belong on threads of their own.

use std::any::Any;
use std::sync::Arc;

use runtime::kubernetes::{Leadership, Put, SharedSecret};
use tokio::runtime::Handle;

use super::{Store, StoreError, Written};

/// A key of the Secret.
pub(crate) struct SecretStore {
    pub(crate) secret: Arc<SharedSecret>,
    pub(crate) key: &'static str,
    /// Who rotates what is due; without, everybody.
    pub(crate) leadership: Option<Leadership>,
    /// Whoever serves here.
    pub(crate) runtime: Handle,
}

impl SecretStore {
    fn put(&self, text: &[u8]) -> Result<Written, StoreError> {
        match self.runtime.block_on(self.secret.put(self.key, text))? {
            Put::Done => Ok(Written::Done),
            Put::Conflict => Ok(Written::Conflict),
        }
    }
}

impl Store for SecretStore {
    fn place(&self) -> String {
        format!("{}, key {}", self.secret.place(), self.key)
    }

    fn read(&self) -> Result<Option<String>, StoreError> {
        Ok(self.secret.read(self.key).map(|text| text.expose().trim().to_owned()))
    }

    fn create(&self, text: &[u8]) -> Result<Written, StoreError> {
        match self.secret.read(self.key) {
            Some(_) => Ok(Written::Conflict),
            None => self.put(text),
        }
    }

    fn write(&self, text: &[u8]) -> Result<Written, StoreError> {
        self.put(text)
    }

    fn lock(&self) -> Result<Box<dyn Any>, StoreError> {
        Ok(Box::new(()))
    }

    fn is_in_charge(&self) -> bool {
        self.leadership.as_ref().is_none_or(Leadership::leads)
    }
}
