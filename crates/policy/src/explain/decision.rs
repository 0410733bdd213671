//! Explaining a decision that was made: its record, put in words, and the documents that would allow exactly it.
//!
//! Absent on purpose: finding the record, and how an answer is printed.

use identity::{ServiceName, Subject};
use serde::Serialize;

use crate::documents::{AccessRole, MAX_SHORT_LIST, RoleText, grant, http_rule, is_identifier, labelled, rule};
use crate::facts::{Fact, Opens};
use crate::least::{self, NOTHING, Needs};
use crate::record::{Reason, Record, RecordedVerdict, Touched};
use crate::role::Level;
use crate::snapshot::Snapshot;

/// A decision in words.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DecisionExplanation<'a> {
    /// All that was recorded.
    #[serde(flatten)]
    pub record: &'a Record,
    /// Whether it was denied, and that was enforced.
    pub enforced: bool,
    /// Each thing that was needed.
    pub facts: Vec<Needed>,
    /// What would allow it; absent if it was allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<Remedy>,
}

/// A thing that was needed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Needed {
    /// What was to be done.
    pub action: String,
    /// To what.
    pub object: String,
    /// Whether it may be done.
    pub allowed: bool,
}

/// What would allow exactly this.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Remedy {
    /// In words.
    pub what: String,
    /// Rules to add to the role that was decided by.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<String>,
    /// Documents that allow it, as YAML: whole ones, to be applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub yaml: Option<String>,
}

/// Puts a decision in words. `documents` are those in force, if they are at hand.
#[must_use]
pub fn explain_decision<'a>(record: &'a Record, documents: Option<&Snapshot>) -> DecisionExplanation<'a> {
    let denied = !record.is_allowed();
    DecisionExplanation {
        record,
        enforced: record.verdict == RecordedVerdict::Deny && record.mode == "enforce",
        facts: record.objects.iter().flatten().map(|touched| needed(touched, record)).collect(),
        remedy: denied.then(|| Case { record, documents }.remedy()),
    }
}

fn needed(touched: &Touched, record: &Record) -> Needed {
    let scoped = record.role.as_deref().is_some_and(|role| Level::of(role).is_none());
    let object = match touched.fact() {
        Some(fact) if scoped => fact.object.rule_name(),
        _ => touched.shown(),
    };
    Needed { action: touched.action.clone().into_owned(), object, allowed: !is_denied(touched, record) }
}

/// Without a role nothing is allowed but what is everyone's, and that to nobody who does not get in.
fn is_denied(touched: &Touched, record: &Record) -> bool {
    touched.denied || (record.role.is_none() && !record.is_allowed())
}

struct Case<'a> {
    record: &'a Record,
    documents: Option<&'a Snapshot>,
}

impl Case<'_> {
    fn remedy(&self) -> Remedy {
        let record = self.record;
        match record.kind_of_reason() {
            Reason::Request => {
                return words("Nothing: the request can be read in two ways, and is refused whatever the rules.");
            }
            Reason::Configuration => return self.configuration(),
            Reason::Unverified | Reason::Policy => {}
        }
        let Some(objects) = &record.objects else { return words(self.not_recorded()) };
        if let Some(name) = record.database.as_deref().filter(|name| !is_identifier(name)) {
            return words(&format!("Nothing: no document can name the database {name:?}, nor can PostgreSQL have it."));
        }
        let (Some(Ok(subject)), Ok(service)) =
            (record.subject.as_ref().map(|text| text.parse::<Subject>()), record.service.parse::<ServiceName>())
        else {
            return words(
                "Who called is not known, or is no service account, so that no AccessGrant can name it: the caller must come \
                 through a sidecar, or show a token.",
            );
        };
        if record.is_http() {
            return self.request(objects, &subject, &service);
        }
        if record.is_login() {
            return self.login(&subject, &service);
        }
        let facts: Option<Vec<Fact>> = objects.iter().map(Touched::fact).collect();
        match facts {
            Some(facts) if record.objects_omitted == 0 => self.statement(objects, &facts, &subject, &service),
            _ => words("Not all that it needed was recorded, so that what would allow it cannot be told."),
        }
    }

    fn not_recorded(&self) -> &'static str {
        match &*self.record.reason {
            "syntax" | "nul" | "encoding" => "Nothing: the text is no SQL that PostgreSQL's own grammar knows.",
            "too_deep" => "Nothing: the text is nested deeper than what is read.",
            "too_long" => "Nothing: the text is longer than what is read. Send bulk data by COPY, or as parameters.",
            "unknown_statement" => {
                "Reconnect: what the statement does was never decided, as it is from when other rights held."
            }
            "unverified" | "no_token" => {
                "A token: the session showed none and verification is enforced. See that its sidecar signs."
            }
            _ => "Nothing that can be told: what it needed is not known.",
        }
    }

    fn configuration(&self) -> Remedy {
        words(match &*self.record.reason {
            "no_database_login" => {
                "No document: set postgres.users.ROLE in the configuration of the service's sidecar, or use an AccessRole, which says its login itself."
            }
            "no_unverified_user" => {
                "No document: show a token, or set postgres.unverified_user in the configuration of the service's sidecar."
            }
            _ => "No document: the token's roles are of a newer kind than the service's sidecar: update the sidecar.",
        })
    }

    fn request(&self, objects: &[Touched], subject: &Subject, service: &ServiceName) -> Remedy {
        let Some(Touched { action: method, path: Some(path), .. }) = objects.first() else {
            return words(self.not_recorded());
        };
        if !least::is_request_of_rules(method, path) {
            let widest = self
                .record
                .rule
                .as_ref()
                .map_or_else(String::new, |rule| format!(" The narrowest that does is {rule}."));
            return words(&format!("No rule can open just this.{widest}"));
        }
        let role =
            RoleText { http: vec![rule(http_rule(&[&**method], &[&**path]))], ..self.new_role(subject, service) };
        granted(
            &role,
            subject,
            service,
            "A role with this rule. Or add the rule to `http` of a role that the caller has.",
        )
    }

    /// A login needs a role and no more, and the database to be open to it.
    fn login(&self, subject: &Subject, service: &ServiceName) -> Remedy {
        let Some(database) = &self.record.database else { return words(self.not_recorded()) };
        if self.record.reason == "database" {
            return self.one_more_database(database, service);
        }
        let role = RoleText { rules: vec![nothing()], ..self.new_sql_role(subject, service) };
        granted(
            &role,
            subject,
            service,
            "Any role that the caller asks for, or has as the only one. This one opens the login and nothing else.",
        )
    }

    fn one_more_database(&self, database: &str, service: &ServiceName) -> Remedy {
        let Some(role) = self.standing(service) else {
            return words(&format!("Add {database:?} to `database` of the role, which has others listed."));
        };
        let mut text = RoleText::of(role);
        // A list where there was none would close all other databases.
        if text.databases.is_empty() || text.databases.iter().any(|name| name == database) {
            return words("The role opens this database now: the caller has to log in anew.");
        }
        if text.databases.len() >= MAX_SHORT_LIST {
            return words(&format!(
                "Another role for {database:?}: this one lists {MAX_SHORT_LIST} databases, and there is no room for more."
            ));
        }
        text.databases.push(database.to_owned());
        rewritten(&text, Vec::new(), "The role, with the database added. Comments of its own are not kept.")
    }

    fn statement(&self, objects: &[Touched], facts: &[Fact], subject: &Subject, service: &ServiceName) -> Remedy {
        let mut needs = Needs::default();
        if needs.add(facts).is_none() {
            let closed: Vec<_> =
                facts.iter().filter(|fact| fact.opens == Opens::Nobody).map(ToString::to_string).collect();
            return words(&format!("Nothing: nobody may {}.", closed.join(", ")));
        }
        if let Some(level) = needs.forced() {
            return self.built_in(level, &needs, subject, service);
        }
        let role = self.record.role.as_deref().filter(|role| Level::of(role).is_none());
        if role.is_some() {
            return self.more_rules(objects, facts, service);
        }
        let mut rules: Vec<_> = least::grouped(&needs.rules).into_iter().map(|(_, text)| rule(text)).collect();
        if rules.is_empty() {
            rules.push(nothing());
        }
        let role = RoleText { rules, ..self.new_sql_role(subject, service) };
        let what = "A role with exactly these rules. If the caller has another role, too, it asks for this one by name, as the user that it logs in as.";
        granted(&role, subject, service, what)
    }

    fn built_in(&self, level: Level, needs: &Needs, subject: &Subject, service: &ServiceName) -> Remedy {
        let forced: Vec<_> = needs.forced.iter().map(String::as_str).collect();
        let what = format!(
            "The built-in role {level}: no rule opens {}. If the caller has another role, too, it asks for this one by name.",
            forced.join(", ")
        );
        let mut yaml = String::new();
        let name = self.free_name(subject, &format!("-{level}"), service);
        grant(&mut yaml, (&service.namespace, &service.name), &name, subject, &[level.name()]);
        Remedy { what, rules: Vec::new(), yaml: Some(yaml) }
    }

    /// What the role that was decided by lacks.
    fn more_rules(&self, objects: &[Touched], facts: &[Fact], service: &ServiceName) -> Remedy {
        let lacking = objects.iter().zip(facts).filter(|(touched, _)| touched.denied).map(|(_, fact)| fact);
        let mut needs = Needs::default();
        needs.add(lacking);
        let rules: Vec<_> = least::grouped(&needs.rules).into_iter().map(|(_, text)| text).collect();
        if rules.is_empty() {
            return words("The role may do this now, as far as the record tells.");
        }
        let Some(role) = self.standing(service) else {
            let name = self.record.role.as_deref().unwrap_or_default();
            let what = format!(
                "Add these rules to `postgres` of the AccessRole {name} in the namespace {}.",
                service.namespace
            );
            return Remedy { what, rules, yaml: None };
        };
        let mut text = RoleText::of(role);
        text.rules.extend(rules.iter().cloned().map(rule));
        rewritten(&text, rules, "The role, with these rules added. Comments of its own are not kept.")
    }

    /// The role that was decided by, as the documents have it.
    fn standing(&self, service: &ServiceName) -> Option<&AccessRole> {
        let role = self.documents?.role(&service.namespace, self.record.role.as_deref()?)?;
        (role.service == *service).then_some(role)
    }

    fn new_role(&self, subject: &Subject, service: &ServiceName) -> RoleText {
        RoleText {
            namespace: service.namespace.clone(),
            name: self.free_name(subject, "", service),
            service: service.name.clone(),
            ..RoleText::default()
        }
    }

    /// A name that no role and no grant has: applying a document of one that is taken would take away what that one gives.
    fn free_name(&self, subject: &Subject, end: &str, service: &ServiceName) -> String {
        let namespace = &service.namespace;
        let taken = |name: &str| {
            self.documents.is_some_and(|documents| {
                let mut grants = documents.grants();
                documents.role(namespace, name).is_some()
                    || grants.any(|grant| grant.service.namespace == *namespace && grant.name == name)
            })
        };
        let first = labelled(&format!("{}{end}", subject.service_account));
        let long = labelled(&format!("{}-{}{end}", subject.namespace, subject.service_account));
        let start: String = long.chars().take(50).collect();
        let mut names = [first, long].into_iter().chain((2..).map(|number| format!("{start}-{number}")));
        names.find(|name| !taken(name)).unwrap_or_default()
    }

    fn new_sql_role(&self, subject: &Subject, service: &ServiceName) -> RoleText {
        let role = self.new_role(subject, service);
        let seen = self.record.user.clone().filter(|user| is_identifier(user));
        let (user, what) = match seen {
            Some(user) => (user, "It needs PostgreSQL's own right to do this: see `sidegate policy grants`."),
            None => (role.name.clone(), "No login was recorded: make this one in PostgreSQL, or write another."),
        };
        let databases = self.record.database.iter().filter(|name| is_identifier(name)).cloned().collect();
        RoleText { user: Some((user, vec![what.to_owned()])), databases, ..role }
    }
}

fn nothing() -> crate::documents::RuleText {
    crate::documents::RuleText { comments: vec![NOTHING.0.to_owned()], text: NOTHING.1.to_owned() }
}

fn words(what: &str) -> Remedy {
    Remedy { what: what.to_owned(), ..Remedy::default() }
}

fn rewritten(role: &RoleText, rules: Vec<String>, what: &str) -> Remedy {
    let mut yaml = String::new();
    role.write(&mut yaml);
    Remedy { what: what.to_owned(), rules, yaml: Some(yaml) }
}

/// A new role, and the grant of it.
fn granted(role: &RoleText, subject: &Subject, service: &ServiceName, what: &str) -> Remedy {
    let mut yaml = String::new();
    role.write(&mut yaml);
    grant(&mut yaml, (&service.namespace, &service.name), &role.name, subject, &[&role.name]);
    Remedy { what: what.to_owned(), rules: Vec::new(), yaml: Some(yaml) }
}

#[cfg(test)]
mod tests;
