//! A cluster's API, with the rights of whoever signed in: ConfigMaps `auth-settings`, AccessRoles, AccessGrants, and pods with a sidecar.
//!
//! What is read is followed as it changes; what is written is compared with what the API server has at that moment, and takes its
//! place only if that is still there (`resourceVersion`). Deliberately absent: any right of the console's own, and what pods say.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{DeleteParams, DynamicObject, PostParams, Preconditions};
use kube::{Api, Client};
use policy::documents::{DocumentError, Place};
use policy::snapshot::Source;
use runtime::kubernetes::{ApiError, follow, follow_labelled, follow_one, in_time};
use tokio::runtime::Handle;

use super::{At, Documents, Draft, KEYS, Kind, Part, Settings, WriteError};
use crate::inject::INJECTED;

mod followed;
mod object;

use followed::Followed;
use object::Edited;

/// The ConfigMap's name, in every namespace.
const SETTINGS: &str = "auth-settings";
/// What the API server notes as the writer.
const MANAGER: &str = "sidegate-console";
/// Somebody who writes all the time, the issuer a status for instance, is not waited out for ever.
const ATTEMPTS: usize = 5;
/// So long after a change what is followed may take to show it.
const TAKEN_UP: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(20);

/// What a person sees of a cluster, and may do there.
#[derive(Clone)]
pub(in crate::console) struct Cluster {
    client: Client,
    /// Whose rights count for settings: theirs, or the console's own.
    of_settings: Client,
    settings: Followed<ConfigMap>,
    roles: Followed<DynamicObject>,
    grants: Followed<DynamicObject>,
    pods: Followed<Pod>,
}

/// Which document, as the API names it.
type Name = (String, Kind, String);

impl Cluster {
    /// Follows all of it in these namespaces, or in all if none is named, until it is dropped. Settings are read and written with the rights
    /// of `own`, if that is there.
    pub(in crate::console) fn follow(client: Client, own: Option<Client>, namespaces: &[String]) -> Self {
        let of_settings = own.unwrap_or_else(|| client.clone());
        let dynamic = |kind: Kind, what| {
            let resource = kind.resource();
            Followed::each(namespaces, |namespace| {
                let api = match namespace {
                    Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
                    None => Api::all_with(client.clone(), &resource),
                };
                follow(api, what)
            })
        };
        let (roles, grants) = (dynamic(Kind::Role, "AccessRoles"), dynamic(Kind::Grant, "AccessGrants"));
        let settings = Followed::each(namespaces, |namespace| {
            let own = &of_settings;
            let api = namespace.map_or_else(|| Api::all(own.clone()), |name| Api::namespaced(own.clone(), name));
            follow_one(api, SETTINGS, "auth-settings")
        });
        let pods = Followed::each(namespaces, |namespace| {
            let api = namespace.map_or_else(|| Api::all(client.clone()), |name| Api::namespaced(client.clone(), name));
            follow_labelled(api, INJECTED, "pods with a sidecar")
        });
        Self { settings, roles, grants, pods, of_settings, client }
    }

    /// Returns when all of it is known, or why not.
    pub(in crate::console) async fn known(&self) {
        tokio::join!(self.settings.known(), self.roles.known(), self.grants.known(), self.pods.known());
    }

    /// What cannot be followed, and why.
    pub(in crate::console) fn troubles(&self) -> Vec<String> {
        let all = [
            (SETTINGS, self.settings.trouble()),
            ("AccessRoles", self.roles.trouble()),
            ("AccessGrants", self.grants.trouble()),
            ("pods", self.pods.trouble()),
        ];
        all.into_iter().filter_map(|(what, trouble)| Some(format!("{what}: {}", trouble?))).collect()
    }

    /// Pods with a sidecar.
    pub(in crate::console) fn pods(&self) -> Vec<Arc<Pod>> {
        self.pods.objects().unwrap_or_default()
    }

    pub(super) fn namespaces(&self) -> io::Result<BTreeSet<String>> {
        let all = self.settings.objects()?;
        Ok(all.iter().filter_map(|map| map.metadata.namespace.clone()).collect())
    }

    pub(super) fn settings(&self, namespace: &str) -> io::Result<Settings> {
        let all = self.settings.objects()?;
        let own = all.iter().find(|map| map.metadata.namespace.as_deref() == Some(namespace));
        Ok(settings_of(own.map(AsRef::as_ref)))
    }

    pub(super) fn documents(&self) -> io::Result<Documents> {
        let mut sources = Vec::new();
        for (kind, followed) in [(Kind::Role, &self.roles), (Kind::Grant, &self.grants)] {
            let objects = followed.objects()?;
            sources.extend(objects.iter().map(|object| object::source(kind, object)));
        }
        Ok(Documents::of_objects(sources))
    }

    pub(super) fn set(
        &self,
        namespace: &str,
        expected: &str,
        changes: &[(&str, &str)],
    ) -> Result<Settings, WriteError> {
        let set = Handle::current().block_on(self.write_settings(namespace, expected, changes))?;
        taken_up(|| self.settings(namespace).is_ok_and(|now| now.version == set.version));
        Ok(set)
    }

    pub(super) fn save(&self, at: &At, expected: &str, text: &str) -> Result<Draft, WriteError> {
        let draft = Handle::current().block_on(self.write_documents(at, expected, text))?;
        // A version of nothing is what a deletion leaves.
        let written = draft.documents.version_at(at, text);
        taken_up(|| self.documents().is_ok_and(|now| now.version_at(at, text) == written));
        Ok(draft)
    }

    async fn write_settings(
        &self,
        namespace: &str,
        expected: &str,
        changes: &[(&str, &str)],
    ) -> Result<Settings, WriteError> {
        let api: Api<ConfigMap> = Api::namespaced(self.of_settings.clone(), namespace);
        for _ in 0..ATTEMPTS {
            let found = in_time(api.get_opt(SETTINGS)).await.map_err(refused)?;
            if settings_of(found.as_ref()).version != expected {
                return Err(WriteError::Conflict);
            }
            let is_new = found.is_none();
            let mut map = found.unwrap_or_default();
            map.metadata.name = Some(SETTINGS.to_owned());
            let values = changes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            map.data.get_or_insert_default().extend(values);
            let written = match is_new {
                true => in_time(api.create(&parameters(false), &map)).await,
                false => in_time(api.replace(SETTINGS, &parameters(false), &map)).await,
            };
            match written {
                Ok(written) => return Ok(settings_of(Some(&written))),
                Err(ApiError::Conflict) => {}
                Err(error) => return Err(refused(error)),
            }
        }
        Err(WriteError::Conflict)
    }

    async fn write_documents(&self, at: &At, expected: &str, text: &str) -> Result<Draft, WriteError> {
        'again: for _ in 0..ATTEMPTS {
            let names = names(at, text)?;
            let mut documents = self.documents()?;
            let mut found = BTreeMap::new();
            for name in names {
                let object = in_time(self.api(&name).get_opt(&name.2)).await.map_err(refused)?;
                documents.refresh(
                    &name.0,
                    name.1,
                    &name.2,
                    object.as_ref().map(|object| object::source(name.1, object)),
                );
                found.insert(name, object);
            }
            if documents.version_at(at, text) != expected {
                return Err(WriteError::Conflict);
            }
            let draft = documents.draft(at, text)?;
            let edits = self.edits(at, text, &found)?;
            // First as a question: rights and rules of the API server are known before anything is written.
            for is_question in [true, false] {
                let mut done = Vec::new();
                for (name, edit) in &edits {
                    match (self.write(name, edit, is_question).await, done.is_empty()) {
                        (Ok(()), _) => done.push(format!("{}/{}/{}", name.1.name(), name.0, name.2)),
                        (Err(ApiError::Conflict), true) => continue 'again,
                        (Err(error), true) => return Err(refused(error)),
                        (Err(error), false) if is_question => return Err(refused(error)),
                        (Err(error), false) => return Err(WriteError::Partly { done, why: error.to_string() }),
                    }
                }
            }
            return Ok(draft);
        }
        Err(WriteError::Conflict)
    }

    /// What is to be written, roles first: a grant of one that is not there yet would be told off.
    fn edits(
        &self,
        at: &At,
        text: &str,
        found: &BTreeMap<Name, Option<DynamicObject>>,
    ) -> Result<Vec<(Name, Edited)>, WriteError> {
        let mut edits = Vec::new();
        for (name, object) in found {
            let edit = match (object, text.trim().is_empty() && matches!(at, At::Existing { .. })) {
                (None, true) => return Err(WriteError::Missing),
                (Some(object), true) => Edited::Deleted(object.clone()),
                (object, false) => {
                    object::edited(name.1, object.as_ref(), &part_of(text, name)?.text).map_err(mistake)?
                }
            };
            edits.push((name.clone(), edit));
        }
        edits.sort_by_key(|((namespace, kind, name), _)| (*kind, namespace.clone(), name.clone()));
        Ok(edits)
    }

    async fn write(&self, name: &Name, edit: &Edited, is_question: bool) -> Result<(), ApiError> {
        let api = self.api(name);
        match edit {
            Edited::New(object) => in_time(api.create(&parameters(is_question), object)).await.map(|_| ()),
            Edited::Replaced(object) => {
                in_time(api.replace(&name.2, &parameters(is_question), object)).await.map(|_| ())
            }
            Edited::Deleted(object) => {
                let (resource_version, uid) = (object.metadata.resource_version.clone(), object.metadata.uid.clone());
                let preconditions = Some(Preconditions { resource_version, uid });
                let parameters = DeleteParams { dry_run: is_question, preconditions, ..DeleteParams::default() };
                in_time(api.delete(&name.2, &parameters)).await.map(|_| ())
            }
        }
    }

    fn api(&self, (namespace, kind, _): &Name) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, &kind.resource())
    }
}

/// The documents that a text is about. An edit is of the one that was looked at: an object's name never changes.
fn names(at: &At, text: &str) -> Result<Vec<Name>, WriteError> {
    let parts = super::parts::only_parts(text);
    let At::Existing { namespace, kind, name } = at else {
        if parts.is_empty() {
            return Err(mistake(
                "kind, metadata.namespace and metadata.name say which document this is: they are missing",
            ));
        }
        return Ok(parts.into_iter().map(|part| (part.namespace, part.kind, part.name)).collect());
    };
    let is_it = |part: &Part| part.is(namespace, *kind, name);
    if text.trim().is_empty() || (parts.len() == 1 && parts.iter().all(is_it)) {
        return Ok(vec![(namespace.clone(), *kind, name.clone())]);
    }
    Err(mistake("kind, namespace and name of an object cannot be changed, and others go into texts of their own"))
}

fn part_of(text: &str, (namespace, kind, name): &Name) -> Result<Part, WriteError> {
    let part = super::parts::only_parts(text).into_iter().find(|part| part.is(namespace, *kind, name));
    part.ok_or(WriteError::Missing)
}

fn mistake(what: impl Into<String>) -> WriteError {
    let place = Place { path: "".into(), line: 0, column: 0 };
    WriteError::Documents(vec![DocumentError { place, what: what.into() }])
}

fn refused(error: ApiError) -> WriteError {
    WriteError::Refused(error.to_string())
}

fn parameters(is_question: bool) -> PostParams {
    PostParams { dry_run: is_question, field_manager: Some(MANAGER.to_owned()) }
}

fn settings_of(map: Option<&ConfigMap>) -> Settings {
    let data = map.and_then(|map| map.data.as_ref());
    let value = |key: &str| Some((key.to_owned(), data?.get(key)?.trim().to_owned()));
    Settings::of(KEYS.into_iter().filter_map(value).collect())
}

/// Waits a moment for what is followed, so that the next page shows what was done. Blocks the thread.
fn taken_up(is_there: impl Fn() -> bool) {
    let until = Instant::now() + TAKEN_UP;
    while !is_there() && Instant::now() < until {
        std::thread::sleep(LOOK);
    }
}

impl Documents {
    /// One document as it is at this moment.
    fn refresh(&mut self, namespace: &str, kind: Kind, name: &str, now: Option<Source>) {
        let path = object::path(kind, namespace, name);
        self.sources.retain(|source| source.path != path);
        self.sources.extend(now);
    }
}
