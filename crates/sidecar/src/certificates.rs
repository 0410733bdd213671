//! The pod's certificate, to which its tokens are bound.
//!
//! Deliberately absent: where it comes from.

use identity::certificate::Thumbprint;

/// One certificate of this pod's.
pub(crate) struct Identity {
    pub(crate) thumbprint: Thumbprint,
    /// Its end, in seconds since the epoch.
    pub(crate) not_after: i64,
}
