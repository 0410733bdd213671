//! The suggestion as YAML, with what was seen as comments.
//!
//! Absent on purpose: anything that makes two readings of one log differ.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use identity::{ServiceName, Subject};

use super::{Pair, Seen, Suggestion, Uncovered};
use crate::documents::{
    MAX_NAMES, MAX_RULES, MAX_SHORT_LIST, RoleText, RuleText, comment, grant, http_rule, is_identifier, labelled,
};
use crate::least::{self, NOTHING};

/// Objects of a rule that get a comment of their own; of more, the first.
const SHOWN: usize = 20;

/// Characters of a rule that is shown and not written.
const SHOWN_RULE: usize = 200;

/// More paths than this with a common beginning are worth a word.
const MANY_PATHS: usize = 20;

impl Suggestion {
    /// The documents. They are right in themselves and fit together.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        let mut out = String::new();
        let many = if self.records == 1 { "decision" } else { "decisions" };
        comment(
            &mut out,
            "",
            &format!("What {} {many} of the log need, and no more. Read it before you apply it.", self.records),
        );
        self.uncovered.write(&mut out);
        let names = self.names();
        for ((service, subject), pair) in &self.pairs {
            let name = names.get(&(service, subject)).cloned().unwrap_or_default();
            Documents { service, subject, pair, name, user: self.options.user.as_deref() }.write(&mut out);
        }
        out
    }

    /// What the documents of each pair are called: after the subject, with what tells it apart where that is not enough.
    fn names(&self) -> BTreeMap<(&ServiceName, &Subject), String> {
        let short = |subject: &Subject| labelled(&subject.service_account);
        let mut uses: BTreeMap<(&str, String), usize> = BTreeMap::new();
        for (service, subject) in self.pairs.keys() {
            *uses.entry((&service.namespace, short(subject))).or_default() += 1;
        }
        let mut taken = BTreeSet::new();
        let mut names = BTreeMap::new();
        for (service, subject) in self.pairs.keys() {
            let is_shared = uses.get(&(&*service.namespace, short(subject))).is_some_and(|uses| *uses > 1);
            let long = labelled(&format!("{}-{}", subject.namespace, subject.service_account));
            let longest = labelled(&format!("{}-{}-{}", service.name, subject.namespace, subject.service_account));
            let several = |number: usize| {
                let start: String = longest.chars().take(50).collect();
                format!("{start}-{number}")
            };
            let first = (!is_shared).then(|| short(subject));
            let mut choices = first.into_iter().chain([long, longest.clone()]).chain((2..).map(several));
            let name = choices.find(|name| taken.insert((&service.namespace, name.clone()))).unwrap_or_default();
            names.insert((service, subject), name);
        }
        names
    }
}

impl Uncovered {
    fn write(&self, out: &mut String) {
        for (service, count) in &self.without_subject {
            let what = format!(
                "NOT COVERED: {count} on {service} by callers who are not known. Nobody can be granted what nobody asked \
                 for: let them call through a sidecar, or with a token, and record again."
            );
            comment(out, "", &what);
        }
        let counted = [
            (self.foreign_subject, "by subjects that are no service accounts, which AccessGrants cannot name"),
            (self.unknown_service, "on services whose names are not NAMESPACE/NAME"),
            (
                self.other_schema,
                "of a schema that this version does not know: read them with the version that wrote them",
            ),
            (self.lost, "that the log says were lost: what they needed is not known"),
            (self.no_room, "with more different names than are kept: suggest for one service, or from a shorter time"),
        ];
        for (count, what) in counted.into_iter().filter(|(count, _)| *count > 0) {
            comment(out, "", &format!("NOT COVERED: {count} {what}."));
        }
    }
}

/// What a subject gets of a service.
struct Documents<'a> {
    service: &'a ServiceName,
    subject: &'a Subject,
    pair: &'a Pair,
    name: String,
    user: Option<&'a str>,
}

impl Documents<'_> {
    fn write(&self, out: &mut String) {
        let Self { service, subject, pair, .. } = self;
        out.push('\n');
        comment(out, "", &format!("{subject} on {service}: {}", pair.seen));
        if !pair.roles.is_empty() {
            let roles: Vec<_> = pair.roles.keys().map(String::as_str).collect();
            comment(out, "", &format!("Its sessions had: {}.", roles.join(", ")));
        }
        self.uncovered(out);
        let built_in = pair.needs.forced().filter(|_| pair.sql);
        let mut role = self.role(built_in.is_some());
        if let Some(role) = &mut role {
            self.cut_to_limits(role, out);
        }
        let mut roles: Vec<&str> = built_in.iter().map(|level| level.name()).collect();
        if let Some(role) = &role {
            role.write(out);
            roles.push(&self.name);
        }
        if let Some(level) = built_in {
            self.forced(out, level.name());
        }
        match roles.as_slice() {
            [] => comment(out, "", "Nothing that a document could open."),
            roles => grant(out, (&service.namespace, &service.name), &self.name, subject, roles),
        }
    }

    /// What none of the documents opens.
    fn uncovered(&self, out: &mut String) {
        let pair = self.pair;
        let counted = [
            (pair.unknown, "of which is not recorded all that they needed (a text that is not understood or too long)"),
            (pair.refused, "requests that can be read in two ways, which are refused whatever the rules"),
        ];
        for (count, what) in counted.into_iter().filter(|(count, _)| *count > 0) {
            comment(out, "", &format!("NOT COVERED: {count} {what}."));
        }
        if !pair.closed.is_empty() {
            comment(out, "", "NOT COVERED, as nobody may or no rule can say it:");
            listed(out, "  ", pair.closed.iter().map(|(words, seen)| format!("{words}: {seen}")));
        }
        if pair.configuration > 0 {
            let what = "logins were refused as the sidecar has no login for the role, which is in its configuration (postgres.users)";
            comment(out, "", &format!("{} {what}.", pair.configuration));
        }
    }

    fn forced(&self, out: &mut String, level: &str) {
        out.push('\n');
        comment(out, "", &format!("The built-in role {level}, as no rule opens:"));
        let forced = self.pair.forced.iter().map(|(words, (level, seen))| format!("{words} ({level}): {seen}"));
        listed(out, "  ", forced);
    }

    /// The role of rules, if there is one.
    fn role(&self, is_built_in: bool) -> Option<RoleText> {
        let sql = self.pair.sql && !is_built_in;
        let http = requests(self.pair);
        (sql || !http.is_empty()).then(|| RoleText {
            namespace: self.service.namespace.clone(),
            name: self.name.clone(),
            service: self.service.name.clone(),
            user: sql.then(|| self.login()),
            databases: if sql { self.pair.databases.keys().cloned().collect() } else { Vec::new() },
            rules: if sql { statements(self.pair) } else { Vec::new() },
            http,
        })
    }

    /// Takes out what a role of the custom resource has no room for, and names it.
    fn cut_to_limits(&self, role: &mut RoleText, out: &mut String) {
        if role.databases.len() > MAX_SHORT_LIST {
            let count = |name: &str| self.pair.databases.get(name).map(|seen| seen.count);
            // Those that are used the most stay.
            role.databases.sort_by(|a, b| count(b).cmp(&count(a)).then_with(|| a.cmp(b)));
            let over = role.databases.split_off(MAX_SHORT_LIST);
            role.databases.sort();
            let what = format!("NOT COVERED: {} databases more than the {MAX_SHORT_LIST} that a role has:", over.len());
            comment(out, "", &what);
            listed(out, "  ", over.into_iter());
        }
        for (rules, kind) in [(&mut role.rules, "PostgreSQL"), (&mut role.http, "HTTP")] {
            if rules.len() > MAX_RULES {
                let over = rules.split_off(MAX_RULES);
                let what =
                    format!("NOT COVERED: {} rules more than the {MAX_RULES} for {kind} that a role has:", over.len());
                comment(out, "", &what);
                listed(out, "  ", over.iter().map(|rule| rule.text.chars().take(SHOWN_RULE).collect()));
            }
        }
    }

    /// PostgreSQL's login, and a word on it.
    fn login(&self) -> (String, Vec<String>) {
        if let Some(user) = self.user {
            return (user.to_owned(), Vec::new());
        }
        let mut users: Vec<_> = self.pair.users.iter().filter(|(name, _)| is_identifier(name)).collect();
        users.sort_by(|(a, left), (b, right)| right.cmp(left).then(a.cmp(b)));
        match users.as_slice() {
            [] => {
                let what = "No login was seen: make this one in PostgreSQL, or name another by --user.";
                (self.name.clone(), vec![what.to_owned()])
            }
            [(only, _)] => {
                let what = "It needs PostgreSQL's own rights for all of this: see `sidegate policy grants`.";
                let is_new = self.pair.seen.denied > 0;
                ((*only).clone(), is_new.then(|| what.to_owned()).into_iter().collect())
            }
            [(most, _), others @ ..] => {
                let others: Vec<_> = others.iter().map(|(name, _)| name.as_str()).collect();
                let what = format!(
                    "Some ran as {}. This one must have the rights of all: see `sidegate policy grants`.",
                    others.join(", ")
                );
                ((*most).clone(), vec![what])
            }
        }
    }
}

fn statements(pair: &Pair) -> Vec<RuleText> {
    let rules = least::grouped(&pair.needs.rules);
    if rules.is_empty() {
        return vec![RuleText { comments: vec![NOTHING.0.to_owned()], text: NOTHING.1.to_owned() }];
    }
    let seen = |name: &str, seen: Option<&Seen>| seen.map(|seen| format!("{name}: {seen}"));
    let commented = |(targets, text): (Vec<least::Target>, String)| {
        let comments = targets.iter().filter_map(|target| seen(&target.name, pair.targets.get(target)));
        RuleText { comments: cut(comments), text }
    };
    rules.into_iter().map(commented).collect()
}

fn requests(pair: &Pair) -> Vec<RuleText> {
    let mut by_path: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (method, path) in pair.requests.keys() {
        by_path.entry(path).or_default().insert(method);
    }
    let mut groups: BTreeMap<&BTreeSet<&str>, Vec<&str>> = BTreeMap::new();
    for (path, methods) in &by_path {
        groups.entry(methods).or_default().push(path);
    }
    let parts = groups.into_iter().flat_map(|(methods, paths)| {
        let methods: Vec<&str> = methods.iter().copied().collect();
        let part = |methods: &[&str]| {
            paths.chunks(MAX_NAMES).map(|paths| request_rule(pair, methods, paths)).collect::<Vec<_>>()
        };
        methods.chunks(MAX_SHORT_LIST).flat_map(part).collect::<Vec<_>>()
    });
    parts.collect()
}

fn request_rule(pair: &Pair, methods: &[&str], paths: &[&str]) -> RuleText {
    let all =
        methods.iter().flat_map(|method| paths.iter().map(move |path| ((*method).to_owned(), (*path).to_owned())));
    let comments = all.filter_map(|key| pair.requests.get(&key).map(|seen| format!("{} {}: {seen}", key.0, key.1)));
    let mut comments = cut(comments);
    comments.extend(beginnings(paths).into_iter().map(|(beginning, count)| {
        format!(
            "{count} of the paths begin with {beginning}: if all such paths are meant, write \"{beginning}*\" instead."
        )
    }));
    RuleText { comments, text: http_rule(methods, paths) }
}

/// Directories that many paths lie in, without those that only hold such a directory.
fn beginnings<'a>(paths: &[&'a str]) -> Vec<(&'a str, usize)> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for path in paths {
        let ends = path.match_indices('/').map(|(index, _)| index + 1).filter(|end| *end > 1);
        ends.filter_map(|end| path.get(..end)).for_each(|beginning| *counts.entry(beginning).or_default() += 1);
    }
    let many: Vec<_> = counts.into_iter().filter(|(_, count)| *count > MANY_PATHS).collect();
    let holds_another = |&(outer, count): &(&str, usize)| {
        many.iter().any(|(inner, same)| inner.len() > outer.len() && inner.starts_with(outer) && *same == count)
    };
    many.iter().filter(|one| !holds_another(one)).copied().collect()
}

fn listed(out: &mut String, indent: &str, lines: impl Iterator<Item = String>) {
    for line in cut(lines) {
        comment(out, "", &format!("{indent}{line}"));
    }
}

/// The first of many lines, and how many more there are.
fn cut(lines: impl Iterator<Item = String>) -> Vec<String> {
    let mut lines: Vec<_> = lines.collect();
    if lines.len() > SHOWN {
        let more = format!("… and {} more", lines.len() - SHOWN);
        lines.truncate(SHOWN);
        lines.push(more);
    }
    lines
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.count)?;
        match self.denied {
            0 => {}
            denied if denied == self.count => f.write_str("(all denied now) ")?,
            denied => write!(f, "({denied} denied now) ")?,
        }
        if self.first == self.last {
            f.write_str(&self.first)
        } else {
            write!(f, "from {} to {}", self.first, self.last)
        }
    }
}
