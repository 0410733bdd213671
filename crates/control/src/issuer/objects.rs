//! `AccessRole` and `AccessGrant` objects of all namespaces, followed as they change and put together; and what is to be said
//! of each.
//!
//! Each object is somebody else's, so each stands for itself: one that is broken stays as it last was right while this
//! process knows that, and opens nothing otherwise. Deliberately absent: writing what is to be said (`statuses`).

use std::collections::HashMap;
use std::sync::Arc;

use kube::Api;
use kube::api::{ApiResource, DynamicObject};
use policy::documents::{self, Document, Source};
use policy::snapshot::{Snapshot, Unresolved};
use runtime::kubernetes::{Client, Objects, Seen, follow};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::crds;

/// The kinds that are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Role,
    Grant,
}

impl Kind {
    /// Its resource, as the API server calls it.
    pub(crate) fn resource(self) -> ApiResource {
        match self {
            Self::Role => crds::resource("AccessRole", "accessroles"),
            Self::Grant => crds::resource("AccessGrant", "accessgrants"),
        }
    }
}

/// What is to be said of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Judged {
    pub(crate) kind: Kind,
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// Of its `spec`, as it was judged.
    pub(crate) generation: i64,
    pub(crate) verdict: Verdict,
    /// What its status says now.
    pub(crate) status: Value,
}

impl Judged {
    /// Whether the same is said of the same state of the same object.
    pub(crate) fn says_as(&self, other: &Self) -> bool {
        let of = |judged: &Self| (judged.kind, judged.generation);
        of(self) == of(other)
            && self.verdict == other.verdict
            && (&self.namespace, &self.name) == (&other.namespace, &other.name)
    }
}

/// Whether an object counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    InForce,
    /// All that is wrong, and the generation that stays in force in its place.
    Invalid {
        reasons: Vec<String>,
        instead: Option<i64>,
    },
    /// In force, but for roles that are not there.
    RoleNotFound(Vec<String>),
}

/// The objects, followed.
pub(crate) struct AccessObjects {
    roles: watch::Receiver<Seen<DynamicObject>>,
    grants: watch::Receiver<Seen<DynamicObject>>,
    known: HashMap<(Kind, String, String), Known>,
}

/// What is remembered of an object: reading thousands anew because one has changed would be noticed.
struct Known {
    uid: String,
    generation: i64,
    read: Result<Document, Vec<String>>,
    /// The last that was right, if it is not the newest.
    last_good: Option<(Document, i64)>,
}

impl AccessObjects {
    pub(crate) fn follow(client: &Client) -> Self {
        let api = |kind: Kind| Api::all_with(client.clone(), &kind.resource());
        Self {
            roles: follow(api(Kind::Role), "AccessRole objects"),
            grants: follow(api(Kind::Grant), "AccessGrant objects"),
            known: HashMap::new(),
        }
    }

    /// Returns when something may have changed. Cancel safe.
    pub(crate) async fn changed(&mut self) {
        let (roles, grants) = (self.roles.changed(), self.grants.changed());
        tokio::select! { _ = roles => {}, _ = grants => {} }
    }

    /// Puts together what is known now; `None` before all objects were listed.
    pub(crate) fn assemble(&mut self) -> Option<(Snapshot, Vec<Judged>)> {
        let roles = self.roles.borrow_and_update().objects.clone()?;
        let grants = self.grants.borrow_and_update().objects.clone()?;
        let mut all = HashMap::new();
        let mut judged = Vec::new();
        for (kind, objects) in [(Kind::Role, &roles), (Kind::Grant, &grants)] {
            self.read(kind, objects, &mut all, &mut judged);
        }
        self.known = all;
        let (snapshot, unresolved) = Snapshot::assemble(self.known.values().filter_map(Known::in_force).cloned());
        tell(&mut judged, &unresolved);
        Some((snapshot, judged))
    }

    fn read(
        &mut self,
        kind: Kind,
        objects: &Arc<Objects<DynamicObject>>,
        all: &mut HashMap<(Kind, String, String), Known>,
        judged: &mut Vec<Judged>,
    ) {
        for ((namespace, name), object) in objects.iter() {
            let key = (kind, namespace.clone(), name.clone());
            let known = Known::of(self.known.remove(&key), kind, object);
            judged.push(Judged {
                kind,
                namespace: namespace.clone(),
                name: name.clone(),
                generation: known.generation,
                verdict: known.verdict(),
                status: object.data.get("status").cloned().unwrap_or_default(),
            });
            all.insert(key, known);
        }
    }
}

impl Known {
    fn of(before: Option<Self>, kind: Kind, object: &DynamicObject) -> Self {
        let uid = object.metadata.uid.clone().unwrap_or_default();
        let generation = object.metadata.generation.unwrap_or(0);
        // An object of the same name that was made anew is another one.
        let before = before.filter(|before| before.uid == uid);
        if let Some(same) = before.as_ref().filter(|before| before.generation == generation) {
            return Self { uid, generation, read: same.read.clone(), last_good: same.last_good.clone() };
        }
        let last_good = before.and_then(|before| match before.read {
            Ok(document) => Some((document, before.generation)),
            Err(_) => before.last_good,
        });
        Self { uid, generation, read: read(kind, object), last_good }
    }

    fn in_force(&self) -> Option<&Document> {
        match &self.read {
            Ok(document) => Some(document),
            Err(_) => self.last_good.as_ref().map(|(document, _)| document),
        }
    }

    fn verdict(&self) -> Verdict {
        match &self.read {
            Ok(_) => Verdict::InForce,
            Err(reasons) => Verdict::Invalid {
                reasons: reasons.clone(),
                instead: self.last_good.as_ref().map(|(_, generation)| *generation),
            },
        }
    }
}

/// Reads an object as the same text would be read from a file: one meaning, wherever it stands.
fn read(kind: Kind, object: &DynamicObject) -> Result<Document, Vec<String>> {
    let resource = kind.resource();
    let (namespace, name) = (&object.metadata.namespace, &object.metadata.name);
    let text = json!({
        "apiVersion": resource.api_version, "kind": resource.kind,
        "metadata": {"namespace": namespace, "name": name}, "spec": object.data.get("spec"),
    });
    let source = Source { path: resource.kind, text: text.to_string() };
    let (mut documents, errors) = documents::parse(&source);
    match (documents.pop(), errors.is_empty()) {
        (Some(document), true) => Ok(document),
        _ => Err(errors.into_iter().map(|error| error.what).collect()),
    }
}

/// Says to each grant which of its roles are not there. One that is broken hears of that first.
fn tell(judged: &mut [Judged], unresolved: &[Unresolved]) {
    for object in judged.iter_mut().filter(|object| object.kind == Kind::Grant && object.verdict == Verdict::InForce) {
        let own = unresolved.iter().filter(|of| of.namespace == object.namespace && of.grant == object.name);
        let what: Vec<String> = own.map(|of| of.what.clone()).collect();
        if !what.is_empty() {
            object.verdict = Verdict::RoleNotFound(what);
        }
    }
}

#[cfg(test)]
mod tests;
