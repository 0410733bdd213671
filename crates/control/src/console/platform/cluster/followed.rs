//! Objects of a kind, followed in one or several namespaces, as one.
//!
//! Deliberately absent: which objects, and what they mean.

use std::io;
use std::sync::Arc;

use runtime::kubernetes::{Seen, Trouble};
use tokio::sync::watch;

/// What is known of them.
#[derive(Debug)]
pub(super) struct Followed<K>(Vec<watch::Receiver<Seen<K>>>);

impl<K> Clone for Followed<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K> Followed<K> {
    /// In these namespaces, or with one request in all.
    pub(super) fn each(namespaces: &[String], follow: impl Fn(Option<&str>) -> watch::Receiver<Seen<K>>) -> Self {
        match namespaces {
            [] => Self(vec![follow(None)]),
            some => Self(some.iter().map(|namespace| follow(Some(namespace))).collect()),
        }
    }

    /// Returns when there is something to be said of each.
    pub(super) async fn known(&self) {
        for seen in &self.0 {
            let is_known = |seen: &Seen<K>| seen.objects.is_some() || seen.trouble.is_some();
            let _ = seen.clone().wait_for(is_known).await;
        }
    }

    /// All that is known, or why nothing is: `PermissionDenied` if the API server says so.
    pub(super) fn objects(&self) -> io::Result<Vec<Arc<K>>> {
        let mut all = Vec::new();
        let mut trouble = None;
        for seen in &self.0 {
            let seen = seen.borrow();
            match &seen.objects {
                Some(objects) => all.extend(objects.values().cloned()),
                None => trouble = Some(error(seen.trouble.as_ref())),
            }
        }
        match trouble {
            Some(why) if all.is_empty() => Err(why),
            _ => Ok(all),
        }
    }

    pub(super) fn trouble(&self) -> Option<String> {
        self.0.iter().find_map(|seen| seen.borrow().trouble.as_ref().map(ToString::to_string))
    }
}

fn error(trouble: Option<&Trouble>) -> io::Error {
    let kind = match trouble {
        Some(Trouble::Forbidden(_)) => io::ErrorKind::PermissionDenied,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, trouble.map_or_else(|| "not listed yet".to_owned(), ToString::to_string))
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime::kubernetes::Objects;

    fn seen(names: Option<&[&str]>, trouble: Option<&str>) -> watch::Receiver<Seen<String>> {
        let object = |name: &&str| (("n".to_owned(), (*name).to_owned()), Arc::new((*name).to_owned()));
        let objects = names.map(|names| Arc::new(names.iter().map(object).collect::<Objects<String>>()));
        watch::channel(Seen { objects, trouble: trouble.map(|why| Trouble::Forbidden(why.to_owned())) }).1
    }

    #[test]
    fn what_may_be_read_is_shown_and_the_rest_told() {
        let all = |followed: &Followed<String>| {
            followed.objects().map(|all| all.iter().map(|one| one.as_str().to_owned()).collect::<Vec<_>>())
        };
        let both = Followed(vec![seen(Some(&["a"]), None), seen(None, Some("no"))]);
        assert_eq!(all(&both).unwrap(), ["a"]);
        assert_eq!(both.trouble().as_deref(), Some("not allowed: no"));
        let none = Followed(vec![seen(None, Some("no"))]);
        let error = all(&none).unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (io::ErrorKind::PermissionDenied, "not allowed: no"));
        let old = Followed(vec![seen(Some(&["a"]), Some("away"))]);
        assert_eq!((all(&old).unwrap().len(), old.trouble().is_some()), (1, true));
    }
}
