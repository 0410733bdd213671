//! A line of a decision log: a record, or what is said between records.
//!
//! Absent on purpose: reading files, and the chain of lines, which needs no understanding of them.

use serde::Deserialize;

use super::{Record, SCHEMA};

/// A line, understood.
#[derive(Debug, PartialEq)]
pub enum Line {
    /// A decision.
    Record(Box<Record>),
    /// Something else.
    Event(Event),
    /// Of another version, which may mean other things by the same words.
    OtherSchema(u64),
    /// The beginning of a line that its writer did not live to finish.
    Torn,
}

/// What is said between records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The sidecar of a service began to serve.
    Started {
        /// `NAMESPACE/NAME`.
        service: String,
    },
    /// Records are missing here.
    Lost {
        /// How many.
        count: u64,
    },
    /// One that this version does not know.
    Other(String),
}

/// Why a line is neither.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// No JSON.
    #[error("this is no line of a decision log: {0}")]
    Json(serde_json::Error),
    /// JSON of another shape.
    #[error("this is no record of a decision: {0}")]
    Shape(serde_json::Error),
}

/// Why a recorded decision was made, as far as readers must tell apart what a policy cannot change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The request itself can be read in two ways, and is refused whatever the rules.
    Request,
    /// The sidecar has no login of PostgreSQL for the role: its configuration decides.
    Configuration,
    /// Nobody was verified, and it was recorded all the same.
    Unverified,
    /// What a policy says.
    Policy,
}

impl Record {
    /// What kind of reason it was decided for.
    #[must_use]
    pub fn kind_of_reason(&self) -> Reason {
        match &*self.reason {
            "path" | "method" | "target" | "override" => Reason::Request,
            "no_database_login" | "no_unverified_user" | "role_not_understood" => Reason::Configuration,
            "unverified" => Reason::Unverified,
            _ => Reason::Policy,
        }
    }

    /// Whether it is about a login, which needs a role and no more.
    #[must_use]
    pub fn is_login(&self) -> bool {
        // `CONNECT` is a method of HTTP, too, and of a request that needs nothing there is no record.
        self.action == "connect" && (self.database.is_some() || self.objects.as_ref().is_some_and(Vec::is_empty))
    }

    /// Whether it is about an HTTP request to a service that is no database.
    #[must_use]
    pub fn is_http(&self) -> bool {
        self.database.is_none() && !self.is_login()
    }

    /// Whether a policy allowed it; a session that was let in because nothing was enforced was not.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        self.verdict == super::RecordedVerdict::Allow && self.kind_of_reason() != Reason::Unverified
    }
}

/// What tells the kinds of lines apart.
#[derive(Deserialize)]
struct Head {
    schema: u64,
    event: Option<String>,
    service: Option<String>,
    count: Option<u64>,
}

impl Line {
    /// Reads a line, with or without its end.
    ///
    /// # Errors
    /// When it is no line of a decision log.
    pub fn read(line: &[u8]) -> Result<Self, LineError> {
        let head: Head = match serde_json::from_slice(line) {
            Ok(head) => head,
            Err(error) if error.is_eof() && line.starts_with(b"{") => return Ok(Self::Torn),
            Err(error) if error.is_data() => return Err(LineError::Shape(error)),
            Err(error) => return Err(LineError::Json(error)),
        };
        if head.schema != u64::from(SCHEMA) {
            return Ok(Self::OtherSchema(head.schema));
        }
        match head.event.as_deref() {
            None => serde_json::from_slice(line).map(|record| Self::Record(Box::new(record))).map_err(LineError::Shape),
            Some("started") => Ok(Self::Event(Event::Started { service: head.service.unwrap_or_default() })),
            Some("lost") => Ok(Self::Event(Event::Lost { count: head.count.unwrap_or_default() })),
            Some(other) => Ok(Self::Event(Event::Other(other.to_owned()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: &str = r#"{"schema":1,"time":"2026-11-23T10:00:00.000000Z","decision":"d","subject":null,"act":null,
        "service":"b/b","role":null,"database":"shop","action":"connect","objects":[],"verdict":"allow","rule":null,
        "reason":"unverified","mode":"observe","duration_us":1.5,"chain":"00"}"#;

    fn read(text: &str) -> Line {
        Line::read(text.as_bytes()).unwrap()
    }

    #[test]
    fn lines_are_told_apart() {
        let Line::Record(record) = read(RECORD) else { panic!() };
        assert!(record.is_login() && !record.is_allowed());
        let started = r#"{"schema":1,"time":"t","event":"started","service":"b/b"}"#;
        assert_eq!(read(started), Line::Event(Event::Started { service: "b/b".into() }));
        let lost = r#"{"schema":1,"time":"t","event":"lost","count":7}"#;
        assert_eq!(read(lost), Line::Event(Event::Lost { count: 7 }));
        assert_eq!(read(r#"{"schema":1,"event":"new"}"#), Line::Event(Event::Other("new".into())));
        assert_eq!(read(r#"{"schema":2,"verdict":{}}"#), Line::OtherSchema(2));
        assert_eq!(read(&RECORD[..80]), Line::Torn);
    }

    #[test]
    fn what_is_neither_is_an_error() {
        for text in ["", "hello", "[1]", "{\"schema\":1}", "{}", "{\"schema\":1} x", "{\"schema\":1,\"verdict\":1}"] {
            assert!(Line::read(text.as_bytes()).is_err(), "{text}");
        }
    }
}
