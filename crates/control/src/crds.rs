//! The CustomResourceDefinitions: `policy`'s schemas of `spec`, and around them what a cluster needs.
//!
//! Deliberately absent: `scale`, for there is nothing to scale, and conversion, for there is one version.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, GroupVersionKind};
use policy::documents::schema;
use serde_json::{Value, json};

/// The API group of our objects.
pub const GROUP: &str = "sidegate.dev";
/// The one version of it.
pub const VERSION: &str = "v1alpha1";
/// More conditions than there will ever be, said so that the API server knows that there are few.
const MAX_CONDITIONS: u32 = 8;

/// One of the two as the API server names it, by its kind and plural.
pub(crate) fn resource(kind: &str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(GROUP, VERSION, kind), plural)
}

/// What differs between the two.
struct Kind {
    kind: &'static str,
    plural: &'static str,
    singular: &'static str,
    short: &'static str,
    description: &'static str,
    spec: Value,
    rules: Value,
    columns: Vec<Value>,
}

/// `AccessRole` and `AccessGrant`.
///
/// # Errors
/// A schema that is none for Kubernetes; a test holds that there is no such.
pub fn definitions() -> Result<Vec<CustomResourceDefinition>, serde_json::Error> {
    raw().into_iter().map(serde_json::from_value).collect()
}

pub(crate) fn raw() -> Vec<Value> {
    vec![definition(role()), definition(grant())]
}

fn role() -> Kind {
    Kind {
        kind: "AccessRole",
        plural: "accessroles",
        singular: "accessrole",
        short: "sgrole",
        description: "What may be done at a service: statements of PostgreSQL, requests of HTTP.",
        spec: schema::access_role_spec(),
        rules: schema::access_role_rules(),
        columns: vec![
            column("User", "string", ".spec.postgres.user", "The database login of its sessions"),
            column("Database", "string", ".spec.postgres.database", "The databases that it opens; none named: any"),
        ],
    }
}

fn grant() -> Kind {
    Kind {
        kind: "AccessGrant",
        plural: "accessgrants",
        singular: "accessgrant",
        short: "sggrant",
        description: "Who may: roles of a service, for service accounts.",
        spec: schema::access_grant_spec(),
        rules: schema::access_grant_rules(),
        columns: vec![column("Roles", "string", ".spec.roles", "The roles that it grants")],
    }
}

fn definition(kind: Kind) -> Value {
    let Kind { plural, singular, short, .. } = kind;
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{GROUP}"), "labels": super::install::labels("crds")},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind.kind, "listKind": format!("{}List", kind.kind), "plural": plural, "singular": singular,
                "shortNames": [short], "categories": ["sidegate"],
            },
            "versions": [version(kind)],
        },
    })
}

fn version(kind: Kind) -> Value {
    let mut columns = vec![column("Service", "string", ".spec.service", "The service that it opens")];
    columns.extend(kind.columns);
    columns.extend(["Accepted", "Programmed"].map(condition_column));
    columns.push(column("Age", "date", ".metadata.creationTimestamp", "Since when it exists"));
    json!({
        "name": VERSION,
        "served": true,
        "storage": true,
        "subresources": {"status": {}},
        "additionalPrinterColumns": columns,
        "schema": {"openAPIV3Schema": {
            "description": kind.description,
            "type": "object",
            "required": ["spec"],
            "properties": {
                "apiVersion": {"type": "string"},
                "kind": {"type": "string"},
                "metadata": {"type": "object"},
                "spec": kind.spec,
                "status": status(),
            },
            "x-kubernetes-validations": kind.rules,
        }},
    })
}

fn column(name: &str, kind: &str, path: &str, description: &str) -> Value {
    json!({"name": name, "type": kind, "jsonPath": path, "description": description})
}

fn condition_column(condition: &str) -> Value {
    let path = format!(".status.conditions[?(@.type==\"{condition}\")].status");
    let description = match condition {
        "Accepted" => "Whether it is understood; kubectl describe says why not",
        _ => "Whether what it says is in force",
    };
    column(condition, "string", &path, description)
}

/// What the issuer says of an object. Conditions are those of the API conventions (metav1.Condition).
fn status() -> Value {
    let text = |description: &str, max: u32| json!({"type": "string", "description": description, "maxLength": max});
    json!({
        "description": "What the issuer says of it.",
        "type": "object",
        "properties": {
            "observedGeneration": {
                "description": "The generation that the conditions speak of.", "type": "integer", "format": "int64",
            },
            "conditions": {
                "description": "Accepted: it is understood. Programmed: what it says is in force.",
                "type": "array",
                "maxItems": MAX_CONDITIONS,
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["type"],
                "items": {
                    "description": "One thing that is true, or is not.",
                    "type": "object",
                    "required": ["type", "status", "lastTransitionTime", "reason", "message"],
                    "properties": {
                        "type": text("Accepted or Programmed.", 316),
                        "status": {
                            "description": "Whether it is so.", "type": "string", "enum": ["True", "False", "Unknown"],
                        },
                        "observedGeneration": {
                            "description": "The generation that it speaks of.",
                            "type": "integer", "format": "int64",
                        },
                        "lastTransitionTime": {
                            "description": "When the status changed last.", "type": "string", "format": "date-time",
                        },
                        "reason": text("Why, in one word.", 1024),
                        "message": text("Why, for people.", 32768),
                    },
                },
            },
        },
    })
}
