//! Names of services and of those who call them, checked when read so that no later stage meets a half-valid one.
//! Deliberately absent: SPIFFE IDs, which certificates bear (`certificate`).

use std::fmt;
use std::str::FromStr;

/// The longest DNS label (RFC 1123), and so the longest namespace or service name of Kubernetes.
const MAX_LABEL: usize = 63;
/// The longest DNS name, and so the longest service-account name of Kubernetes.
const MAX_DNS_NAME: usize = 253;
/// What Kubernetes puts before the namespace and name of a service account.
const SUBJECT_PREFIX: &str = "system:serviceaccount:";

/// A service that is called: `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName {
    /// The Kubernetes namespace.
    pub namespace: String,
    /// The service's name within it.
    pub name: String,
}

/// A service account that calls: `system:serviceaccount:namespace:name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject {
    /// The Kubernetes namespace.
    pub namespace: String,
    /// The service account's name within it.
    pub service_account: String,
}

/// Why a text is no such name. It does not repeat the text: that may come from anyone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not of the form `namespace/name`.
    #[error("a service is written namespace/name, like postgres-b/postgres-b")]
    ServiceShape,
    /// Not of the form `system:serviceaccount:namespace:name`.
    #[error("a subject is written system:serviceaccount:namespace:name")]
    SubjectShape,
    /// A part that no DNS label could be.
    #[error(
        "a name is made of lower-case letters, digits and '-', begins and ends with a letter or digit, and has at most 63 of them"
    )]
    Label,
}

impl ServiceName {
    /// Makes a name of its two parts.
    ///
    /// # Errors
    /// When a part is no DNS label.
    pub fn new(namespace: &str, name: &str) -> Result<Self, NameError> {
        if !is_label(namespace) || !is_label(name) {
            return Err(NameError::Label);
        }
        Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
    }
}

impl FromStr for ServiceName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (namespace, name) = text.split_once('/').ok_or(NameError::ServiceShape)?;
        Self::new(namespace, name)
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

impl Subject {
    /// Makes a subject of its two parts.
    ///
    /// # Errors
    /// When a part is no name that Kubernetes allows.
    pub fn new(namespace: &str, service_account: &str) -> Result<Self, NameError> {
        if !is_label(namespace) || !is_dns_name(service_account) {
            return Err(NameError::Label);
        }
        Ok(Self { namespace: namespace.to_owned(), service_account: service_account.to_owned() })
    }
}

impl FromStr for Subject {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let rest = text.strip_prefix(SUBJECT_PREFIX).ok_or(NameError::SubjectShape)?;
        let (namespace, name) = rest.split_once(':').ok_or(NameError::SubjectShape)?;
        Self::new(namespace, name)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{SUBJECT_PREFIX}{}:{}", self.namespace, self.service_account)
    }
}

macro_rules! serde_as_text {
    ($name:ident) => {
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

pub(crate) use serde_as_text;

serde_as_text!(ServiceName);
serde_as_text!(Subject);

fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    text.len() <= MAX_LABEL
        && !text.is_empty()
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Service accounts may have dots in their names; every part between them is a label.
pub(crate) fn is_dns_name(text: &str) -> bool {
    text.len() <= MAX_DNS_NAME && text.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_reads_back_as_written() {
        let name: ServiceName = "postgres-b/db1".parse().unwrap();
        assert_eq!((name.namespace.as_str(), name.name.as_str()), ("postgres-b", "db1"));
        assert_eq!(name.to_string(), "postgres-b/db1");
        assert_eq!(serde_json::to_string(&name).unwrap(), "\"postgres-b/db1\"");
        assert_eq!(serde_json::from_str::<ServiceName>("\"postgres-b/db1\"").unwrap(), name);
    }

    #[test]
    fn what_is_no_service_name_is_refused() {
        let long = "a".repeat(64);
        for text in [
            "",
            "a",
            "a/",
            "/a",
            "a/b/c",
            "A/b",
            "a/b ",
            "a/-b",
            "a/b-",
            "a/b_c",
            "a/b.c",
            "é/b",
            "a/b\n",
            &format!("a/{long}"),
        ] {
            assert!(text.parse::<ServiceName>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_subject_reads_back_as_written() {
        let subject: Subject = "system:serviceaccount:service-a:my.account".parse().unwrap();
        assert_eq!((subject.namespace.as_str(), subject.service_account.as_str()), ("service-a", "my.account"));
        assert_eq!(subject.to_string(), "system:serviceaccount:service-a:my.account");
    }

    #[test]
    fn what_is_no_subject_is_refused() {
        for text in [
            "",
            "service-a",
            "system:serviceaccount:a",
            "system:serviceaccount:a:",
            "system:serviceaccount::b",
            "system:node:a:b",
            "system:serviceaccount:a:b:c",
            "system:serviceaccount:a:b..c",
        ] {
            assert!(text.parse::<Subject>().is_err(), "{text:?}");
        }
    }
}
