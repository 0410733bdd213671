//! AccessRoles and AccessGrants as texts that people edit, and back.
//!
//! Deliberately absent: what the API server keeps for itself; it stays as it is.

use std::collections::BTreeMap;

use kube::api::{DynamicObject, TypeMeta};
use policy::snapshot::Source;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::super::Kind;

/// What `kubectl apply` remembers of its own: no reading for people, and not lost by an edit.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// An object that is to be written.
#[derive(Debug)]
pub(super) enum Edited {
    New(DynamicObject),
    Replaced(DynamicObject),
    Deleted(DynamicObject),
}

/// Where errors say that they are.
pub(super) fn path(kind: Kind, namespace: &str, name: &str) -> String {
    format!("{}/{namespace}/{name}", kind.name())
}

/// An object as the text that somebody would apply.
pub(super) fn source(kind: Kind, object: &DynamicObject) -> Source {
    let metadata = &object.metadata;
    let (namespace, name) = (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default());
    let path = path(kind, &namespace, &name);
    let mut head = Map::from_iter([("namespace".to_owned(), namespace.into()), ("name".to_owned(), name.into())]);
    let annotations = metadata.annotations.clone().map(|mut annotations| {
        annotations.remove(LAST_APPLIED);
        annotations
    });
    for (field, values) in [("labels", metadata.labels.clone()), ("annotations", annotations)] {
        if let Some(values) = values.filter(|values| !values.is_empty()) {
            head.insert(field.to_owned(), json!(values));
        }
    }
    let spec = object.data.get("spec").cloned().unwrap_or_default();
    let value = json!({"apiVersion": kind.resource().api_version, "kind": kind.name(), "metadata": head, "spec": spec});
    // What is no YAML is at least JSON, which is.
    let mut text = serde_saphyr::to_string(&value).unwrap_or_else(|_| value.to_string());
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Source { path, text }
}

#[derive(Deserialize)]
struct Text {
    metadata: Metadata,
    #[serde(default)]
    spec: Value,
}

#[derive(Deserialize)]
struct Metadata {
    namespace: String,
    name: String,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
}

/// What a text makes of an object, or of none.
///
/// # Errors
/// What is wrong with the text.
pub(super) fn edited(kind: Kind, now: Option<&DynamicObject>, text: &str) -> Result<Edited, String> {
    let text: Text = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    let Metadata { namespace, name, labels, mut annotations } = text.metadata;
    let mut object = now.cloned().unwrap_or_else(|| {
        let mut new = DynamicObject::new(&name, &kind.resource());
        new.metadata.namespace = Some(namespace);
        new
    });
    if let Some(applied) = object.metadata.annotations.as_mut().and_then(|all| all.remove(LAST_APPLIED)) {
        annotations.get_or_insert_default().insert(LAST_APPLIED.to_owned(), applied);
    }
    (object.metadata.labels, object.metadata.annotations) = (labels, annotations);
    let resource = kind.resource();
    object.types = Some(TypeMeta { api_version: resource.api_version, kind: resource.kind });
    match &mut object.data {
        Value::Object(fields) => _ = fields.insert("spec".to_owned(), text.spec),
        other => *other = json!({"spec": text.spec}),
    }
    Ok(if now.is_some() { Edited::Replaced(object) } else { Edited::New(object) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object() -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "sidegate.dev/v1alpha1", "kind": "AccessRole",
            "metadata": {
                "namespace": "b", "name": "one", "resourceVersion": "7", "uid": "u", "labels": {"team": "orders"},
                "annotations": {LAST_APPLIED: "{}", "note": "yes: \"quoted\"\nand more"},
                "managedFields": [],
            },
            "spec": {"service": "b", "postgres": {"user": "one", "rules": [{"actions": ["select"], "tables": ["public.o"]}]}},
            "status": {"conditions": []},
        }))
        .unwrap()
    }

    #[test]
    fn an_object_reads_as_what_would_be_applied_and_back() {
        let source = source(Kind::Role, &object());
        assert_eq!(source.path, "AccessRole/b/one");
        for hidden in ["managedFields", "resourceVersion", "last-applied", "status"] {
            assert!(!source.text.contains(hidden), "{}", source.text);
        }
        policy::snapshot::Snapshot::compile(std::slice::from_ref(&source)).unwrap();
        let Ok(Edited::Replaced(again)) = edited(Kind::Role, Some(&object()), &source.text) else { panic!("replaced") };
        assert_eq!(again.metadata, object().metadata);
        assert_eq!(again.data, object().data);
    }

    #[test]
    fn an_edit_changes_what_it_says_and_nothing_else() {
        let text = source(Kind::Role, &object()).text.replace("public.o", "public.p").replace("orders", "sales");
        let Ok(Edited::Replaced(edited)) = edited(Kind::Role, Some(&object()), &text) else { panic!("replaced") };
        assert_eq!(edited.data["spec"]["postgres"]["rules"][0]["tables"][0], "public.p");
        assert_eq!(edited.metadata.labels.as_ref().unwrap()["team"], "sales");
        assert_eq!(edited.metadata.annotations, object().metadata.annotations);
        assert_eq!(
            (edited.metadata.resource_version.as_deref(), edited.metadata.uid.as_deref()),
            (Some("7"), Some("u"))
        );
        let Ok(Edited::New(new)) = super::edited(Kind::Role, None, &text) else { panic!("new") };
        assert_eq!((new.metadata.namespace.as_deref(), new.metadata.name.as_deref()), (Some("b"), Some("one")));
        assert!(super::edited(Kind::Role, None, "metadata: 7").is_err());
    }
}
