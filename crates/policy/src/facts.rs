//! Facts: what a text needs, as pairs of action and object, without regard to any role.
//!
//! Each fact says who may (`Opens`), so that a decision is a comparison and not a second analysis.
//! Absent: how facts are found (`sql`) and how they are judged (`decide`).

use std::fmt;

use crate::role::Level;

/// What is done to an object. The words are those of rules, messages and metrics: a bounded set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)] // The names say it all.
pub enum Action {
    Select,
    Insert,
    Update,
    Delete,
    Merge,
    Truncate,
    Execute,
    Set,
    Create,
    Alter,
    Drop,
    Comment,
    Maintain,
    Lock,
    Listen,
    Notify,
    Do,
    Grant,
    Administer,
    UseServerFile,
    PrepareTransaction,
    CallByOid,
    Run,
}

impl Action {
    pub(crate) const ALL: [Self; 23] = [
        Self::Select,
        Self::Insert,
        Self::Update,
        Self::Delete,
        Self::Merge,
        Self::Truncate,
        Self::Execute,
        Self::Set,
        Self::Create,
        Self::Alter,
        Self::Drop,
        Self::Comment,
        Self::Maintain,
        Self::Lock,
        Self::Listen,
        Self::Notify,
        Self::Do,
        Self::Grant,
        Self::Administer,
        Self::UseServerFile,
        Self::PrepareTransaction,
        Self::CallByOid,
        Self::Run,
    ];

    /// The word of this action in rules, messages and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Select => "select",
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Merge => "merge",
            Self::Truncate => "truncate",
            Self::Execute => "execute",
            Self::Set => "set",
            Self::Create => "create",
            Self::Alter => "alter",
            Self::Drop => "drop",
            Self::Comment => "comment on",
            Self::Maintain => "maintain",
            Self::Lock => "lock",
            Self::Listen => "listen to",
            Self::Notify => "notify",
            Self::Do => "run",
            Self::Grant => "grant or revoke",
            Self::Administer => "administer",
            Self::UseServerFile => "use",
            Self::PrepareTransaction => "prepare",
            Self::CallByOid => "call",
            Self::Run => "run",
        }
    }

    /// The action of a label; [`Action::Do`] and [`Action::Run`] share theirs, and are opened alike.
    pub(crate) fn of_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.label() == label)
    }

    /// The action of a rule's word; `None` for words that no rule may use.
    pub fn of_rule(word: &str) -> Option<Self> {
        [Self::Select, Self::Insert, Self::Update, Self::Delete, Self::Merge, Self::Truncate, Self::Execute]
            .into_iter()
            .find(|action| action.label() == word)
    }

    pub(crate) fn bit(self) -> u32 {
        1 << (self as u32)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// What an action is done to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Object {
    /// A relation or function (or operator) by its stored name; the schema only where the text says it
    /// or PostgreSQL knows no other.
    Named {
        /// The schema, if the text or PostgreSQL's own catalog tells it.
        schema: Option<Box<str>>,
        /// The name as stored.
        name: Box<str>,
    },
    /// Anything else: a setting, a kind of object, a server file. No rule can name it.
    Thing(Box<str>),
    /// The same, where the words are ours.
    Fixed(&'static str),
}

impl Object {
    /// The schema that a session with the fixed search path of a scoped role finds this name in.
    pub(crate) fn scoped_schema(&self) -> Option<&str> {
        match self {
            Self::Named { schema, .. } => Some(schema.as_deref().unwrap_or("public")),
            Self::Thing(_) | Self::Fixed(_) => None,
        }
    }

    /// The object as a rule names it: unqualified names lie in `public`.
    pub fn rule_name(&self) -> String {
        match self {
            Self::Named { schema, name } => {
                format!("{}.{name}", schema.as_deref().unwrap_or("public"))
            }
            Self::Thing(_) | Self::Fixed(_) => self.to_string(),
        }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named { schema: Some(schema), name } => write!(f, "{schema}.{name}"),
            Self::Named { schema: None, name } => f.write_str(name),
            Self::Thing(words) => f.write_str(words),
            Self::Fixed(words) => f.write_str(words),
        }
    }
}

/// Who may do what a fact says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Opens {
    /// Every role.
    Everyone,
    /// Every role but `reader`, whose session stays read only.
    NotReader,
    /// A built-in role from this level on, or a rule of an `AccessRole` that names the object.
    Rule(Level),
    /// The same, but a wildcard is not enough: the name could be PostgreSQL's own.
    ExactRule(Level),
    /// A built-in role from this level on; no rule opens it.
    Level(Level),
    /// Nobody.
    Nobody,
}

/// One thing that a text needs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Fact {
    /// What is done.
    pub action: Action,
    /// To what.
    pub object: Object,
    /// Who may.
    pub opens: Opens,
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.action, self.object)
    }
}

/// Everything that a text needs. All of it must be allowed, or none of the text runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    needs: Vec<Fact>,
    prepares: Vec<Box<str>>,
    executes: Vec<Box<str>>,
    declares: Vec<Box<str>>,
    fetches: Vec<Box<str>>,
    controls_transaction: bool,
    copies: bool,
}

impl Facts {
    /// The pairs of action and object, each once, in the order of the text.
    pub fn needs(&self) -> &[Fact] {
        &self.needs
    }

    /// Names of statements that the text prepares with SQL's `PREPARE`.
    pub fn prepares(&self) -> &[Box<str>] {
        &self.prepares
    }

    /// Names of prepared statements that the text runs with SQL's `EXECUTE`.
    pub fn executes(&self) -> &[Box<str>] {
        &self.executes
    }

    /// Names of cursors that the text declares.
    pub fn declares(&self) -> &[Box<str>] {
        &self.declares
    }

    /// Names of cursors that the text fetches from or moves.
    pub fn fetches(&self) -> &[Box<str>] {
        &self.fetches
    }

    /// Whether the text begins or ends a transaction; savepoints do not.
    pub fn controls_transaction(&self) -> bool {
        self.controls_transaction
    }

    /// Whether the text copies data to or from its client, which takes messages of its own.
    pub fn copies(&self) -> bool {
        self.copies
    }

    /// Bytes that this value holds, for a cache that bounds its memory.
    pub fn size_hint(&self) -> usize {
        let names = [&self.prepares, &self.executes, &self.declares, &self.fetches];
        let names: usize = names.into_iter().flatten().map(|name| name.len() + size_of::<Box<str>>()).sum();
        let needs: usize = self.needs.iter().map(|fact| size_of::<Fact>() + object_bytes(&fact.object)).sum();
        size_of::<Self>() + names + needs
    }

    pub(crate) fn from_parts(needs: Vec<Fact>, [prepares, executes, declares, fetches]: [Vec<Box<str>>; 4]) -> Self {
        Self { needs, prepares, executes, declares, fetches, controls_transaction: false, copies: false }
    }

    pub(crate) fn with_protocol(self, controls_transaction: bool, copies: bool) -> Self {
        Self { controls_transaction, copies, ..self }
    }
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.needs.is_empty() {
            return f.write_str("nothing");
        }
        for (index, fact) in self.needs.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{fact}")?;
        }
        Ok(())
    }
}

fn object_bytes(object: &Object) -> usize {
    match object {
        Object::Named { schema, name } => schema.as_deref().map_or(0, str::len) + name.len(),
        Object::Thing(words) => words.len(),
        Object::Fixed(_) => 0,
    }
}
