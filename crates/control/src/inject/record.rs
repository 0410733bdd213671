//! What was there before an injection, as far as it cannot be seen afterwards. It is kept in an annotation.
//!
//! Deliberately absent: a copy of the whole template. What its author changes after an injection stays when it is undone.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::postgres::{SOCKET_VOLUME, is_ours};
use super::{CONTAINER, INJECTED, name_of};

/// What a list or mapping was before something of ours was put in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Before {
    /// It was there, and stays when it is empty.
    #[default]
    There,
    /// There was none.
    Absent,
    /// It was `null`, which an empty line in YAML makes.
    Null,
}

impl Before {
    pub(super) fn of(value: Option<&Value>) -> Self {
        match value {
            None => Self::Absent,
            Some(Value::Null) => Self::Null,
            Some(_) => Self::There,
        }
    }

    fn is_there(&self) -> bool {
        *self == Self::There
    }

    /// Makes it again what it was, now that nothing of ours is in it.
    fn restore(self, object: &mut Map<String, Value>, name: &str) {
        let is_empty = match object.get(name) {
            Some(Value::Array(list)) => list.is_empty(),
            Some(Value::Object(mapping)) => mapping.is_empty(),
            _ => false,
        };
        match self {
            Self::Absent if is_empty => drop(object.remove(name)),
            Self::Null if is_empty => drop(object.insert(name.to_owned(), Value::Null)),
            _ => {}
        }
    }
}

/// What was there before.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    /// Of the program that injected; for people.
    version: String,
    #[serde(default, skip_serializing_if = "Before::is_there")]
    pub(super) labels: Before,
    #[serde(default, skip_serializing_if = "Before::is_there")]
    pub(super) init_containers: Before,
    #[serde(default, skip_serializing_if = "Before::is_there")]
    pub(super) volumes: Before,
    /// Names of annotations that were added.
    pub(super) annotations: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) postgres: Option<PostgresRecord>,
}

/// What was changed in PostgreSQL's container.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PostgresRecord {
    pub(super) container: String,
    #[serde(default, skip_serializing_if = "Before::is_there")]
    pub(super) mounts: Before,
    /// How many arguments were added at the end; none if they were left alone.
    #[serde(default)]
    pub(super) args_added: usize,
    #[serde(default, skip_serializing_if = "Before::is_there")]
    pub(super) args: Before,
}

impl Record {
    pub(super) fn parse(annotation: &Value) -> Result<Self, String> {
        let text = annotation.as_str().ok_or("is no text".to_owned());
        let record = text.and_then(|text| serde_json::from_str(text).map_err(|error| error.to_string()));
        record.map_err(|why| {
            format!("{INJECTED}: does not say what was there before ({why}); go back to the manifest without a sidecar")
        })
    }

    pub(super) fn new() -> Self {
        Self { version: env!("CARGO_PKG_VERSION").to_owned(), ..Self::default() }
    }

    pub(super) fn to_text(&self) -> String {
        // Texts, numbers and lists of them can always be written.
        serde_json::to_string(self).unwrap_or_default()
    }

    pub(super) fn undo(&self, template: &mut Value) {
        if let Some(spec) = template.get_mut("spec").and_then(Value::as_object_mut) {
            self.undo_postgres(spec);
            remove(spec, "initContainers", |container| name_of(container) == CONTAINER);
            self.init_containers.restore(spec, "initContainers");
            remove(spec, "volumes", |volume| {
                [CONTAINER, "sidegate-auth-settings", SOCKET_VOLUME].contains(&name_of(volume))
            });
            self.volumes.restore(spec, "volumes");
        }
        let Some(metadata) = template.get_mut("metadata").and_then(Value::as_object_mut) else { return };
        if let Some(labels) = metadata.get_mut("labels").and_then(Value::as_object_mut) {
            labels.remove(INJECTED);
        }
        self.labels.restore(metadata, "labels");
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.retain(|name, _| name != INJECTED && !self.annotations.contains(name));
        }
    }

    fn undo_postgres(&self, spec: &mut Map<String, Value>) {
        let Some(record) = &self.postgres else { return };
        let containers = spec.get_mut("containers").and_then(Value::as_array_mut).into_iter().flatten();
        for container in containers.filter(|container| name_of(container) == record.container) {
            let Some(container) = container.as_object_mut() else { continue };
            remove(container, "volumeMounts", |mount| name_of(mount) == SOCKET_VOLUME);
            record.mounts.restore(container, "volumeMounts");
            if let Some(args) = container.get_mut("args").and_then(Value::as_array_mut) {
                record.remove_args(args);
            }
            record.args.restore(container, "args");
        }
    }
}

impl PostgresRecord {
    /// Ours are the last, unless their author added some since.
    fn remove_args(&self, args: &mut Vec<Value>) {
        let starts = (0..args.len()).rev().find(|&start| args.get(start..start + self.args_added).is_some_and(is_ours));
        if let (Some(start), 1..) = (starts, self.args_added) {
            args.drain(start..start + self.args_added);
        }
    }
}

fn remove(object: &mut Map<String, Value>, list: &str, is_ours: impl Fn(&Value) -> bool) {
    if let Some(list) = object.get_mut(list).and_then(Value::as_array_mut) {
        list.retain(|item| !is_ours(item));
    }
}
