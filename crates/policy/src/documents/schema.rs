//! The documents' shape for a cluster's API server, so that it refuses most of what `check` would refuse, at once and to
//! whoever writes it. The types are made for their schemas alone; documents are read by `raw`.
//!
//! Unknown fields are kept, not pruned: Kubernetes drops what a schema does not know without a word, and a field that
//! was meant to narrow a right (`databases: [orders]`, `columns: [id]`) would be gone before `check` could refuse it.
//! Deliberately absent: what an expression would cost too much for (escapes of a path that only look right, control
//! characters beyond ASCII, bytes of a table's name) and all that needs a second object; `check` and `snapshot` do those.
//!
//! Sizes of lists have limits that `check` does not have: the API server wants to know what its rules can cost.

use schemars::generate::SchemaSettings;
use schemars::transform::{Transform, transform_subschemas};
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

/// A DNS label. Its length is a field of its own: regular expressions that count are slow to compile in the API server.
const LABEL: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
/// A DNS name: labels with dots between them.
const DNS_NAME: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// `schema.name`, `schema.*`, `schema."na.me"` or `schema.+`, as `names` reads them.
const STORED_NAME: &str = concat!(
    r#"^[^." *\x00-\x1f\x7f]([^."*\x00-\x1f\x7f]*[^." *\x00-\x1f\x7f])?[.]"#,
    r#"([*]|[-+*/<>=~!@#%^&|`?]+|"[^"*\x00-\x1f\x7f]+"|[^." *\x00-\x1f\x7f]([^."*\x00-\x1f\x7f]*[^." *\x00-\x1f\x7f])?)$"#
);
/// Segments that are not dots alone, of characters that need no escape and escapes of those that do; a star only at the end.
const PATH: &str = concat!(
    r"^(/[.]*([-A-Za-z0-9_~!$&'()+,=:@]|%(2[0-9A-C]|3[A-F]|40|5[BDE]|60|7[BCD]|[89A-F][0-9A-F]))",
    r"([-.A-Za-z0-9_~!$&'()+,=:@]|%(2[0-9A-C]|3[A-F]|40|5[BDE]|60|7[BCD]|[89A-F][0-9A-F]))*)+/?[*]?$|^/[*]?$"
);
/// A name as PostgreSQL stores it.
const IDENTIFIER: &str = r"^[^\x00-\x1f\x7f]+$";

/// The longest label, and the longest name of PostgreSQL.
const MAX_NAME: u32 = 63;
const MAX_DNS_NAME: u32 = 253;
/// Two names of PostgreSQL, a dot, and quotes around one of them.
const MAX_STORED_NAME: u32 = 2 * MAX_NAME + 3;
const MAX_PATH: usize = crate::http::MAX_PATH_LENGTH + 1;
/// More than anyone lists by hand, and little enough that checking them stays within the API server's budget.
const MAX_RULES: u32 = 256;
const MAX_LIST: u32 = 256;
const MAX_ROLES: u32 = 64;
/// There are seven; who writes one twice has not done wrong.
const MAX_ACTIONS: u32 = 16;

/// What may be done: a role that opens a service of its own namespace. A field that is not known here is kept, and
/// makes the role be refused (condition Accepted).
#[derive(JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "has(self.postgres) || has(self.http)", "message": "the role opens nothing: add `postgres:` or `http:` with `rules:`"}
]))]
pub struct AccessRoleSpec {
    /// The service that it opens: the bare name of a service of this namespace.
    pub service: Bare,
    /// What it opens of PostgreSQL.
    pub postgres: Option<Postgres>,
    /// What it opens of HTTP.
    pub http: Option<Http>,
}

/// Who may: roles of a service of its own namespace, for subjects. A field that is not known here is kept, and makes
/// the grant be refused (condition Accepted).
#[derive(JsonSchema)]
pub struct AccessGrantSpec {
    /// The service that is opened: the bare name of a service of this namespace.
    pub service: Bare,
    /// Who gets the roles.
    #[schemars(length(min = 1, max = MAX_LIST))]
    pub subjects: Vec<Subject>,
    /// Names of AccessRoles of this service, or reader, writer, owner, admin.
    #[schemars(length(min = 1, max = MAX_ROLES))]
    pub roles: Vec<Label>,
}

/// What a role opens of PostgreSQL.
#[derive(JsonSchema)]
pub struct Postgres {
    /// The database login that sessions of this role run as.
    pub user: Identifier,
    /// The databases that it opens; left out or empty: any.
    #[schemars(length(max = MAX_ROLES))]
    pub database: Option<Vec<Identifier>>,
    /// What is allowed. What is not listed is denied.
    #[schemars(length(min = 1, max = MAX_RULES))]
    pub rules: Vec<Rule>,
}

/// Actions, and what they may be done to.
#[derive(JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "!self.actions.exists(a, a != 'execute') || (has(self.tables) && size(self.tables) > 0)",
     "message": "the rule's actions need `tables`, like `tables: [\"public.orders\"]`"},
    {"rule": "self.actions.exists(a, a != 'execute') || !has(self.tables) || size(self.tables) == 0",
     "message": "`tables` need an action other than execute: add one, like select, or remove them"},
    {"rule": "!('execute' in self.actions) || (has(self.functions) && size(self.functions) > 0)",
     "message": "execute needs `functions`, like `functions: [\"public.place_order\"]`"},
    {"rule": "'execute' in self.actions || !has(self.functions) || size(self.functions) == 0",
     "message": "`functions` need the action execute: add it, or remove them"}
]))]
pub struct Rule {
    /// What may be done: select, insert, update, delete, merge or truncate (of tables), execute (of functions).
    #[schemars(length(min = 1, max = MAX_ACTIONS))]
    pub actions: Vec<Action>,
    /// Tables and views as they are stored, exact and with case: `public.orders`, or `public.*` for all of a schema.
    #[schemars(length(max = MAX_LIST))]
    pub tables: Option<Vec<StoredName>>,
    /// Functions as they are stored, exact and with case: `public.place_order`, or `public.*` for all of a schema.
    #[schemars(length(max = MAX_LIST))]
    pub functions: Option<Vec<StoredName>>,
}

/// What a role opens of HTTP.
#[derive(JsonSchema)]
pub struct Http {
    /// What is allowed. What is not listed is denied.
    #[schemars(length(min = 1, max = MAX_RULES))]
    pub rules: Vec<HttpRule>,
}

/// Methods, and the paths that they may be used on.
#[derive(JsonSchema)]
pub struct HttpRule {
    /// Exact and in upper case, like GET.
    #[schemars(length(min = 1, max = MAX_ROLES))]
    pub methods: Vec<Method>,
    /// In normal form. With a `*` at the end: all that begin so.
    #[schemars(length(min = 1, max = MAX_LIST))]
    pub paths: Vec<Path>,
}

/// A service account that calls.
#[derive(JsonSchema)]
pub struct Subject {
    /// The service account's name.
    #[schemars(rename = "serviceAccount")]
    pub service_account: AccountName,
    /// Its namespace.
    pub namespace: Label,
}

macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident { $($key:literal = $value:tt),+ $(,)? })+) => {$(
        $(#[$doc])*
        #[derive(JsonSchema)]
        #[schemars($(extend($key = $value)),+)]
        pub struct $name(pub String);
    )+};
}

texts! {
    /// A DNS label.
    Label { "pattern" = LABEL, "maxLength" = MAX_NAME }
    /// The name of a service, without a namespace.
    Bare { "pattern" = LABEL, "maxLength" = MAX_NAME, "x-kubernetes-validations" = [
        {"rule": "!self.contains('/')", "message": "a role or grant lives in the namespace of the service it opens: write the service's bare name"}
    ] }
    /// The name of a service account.
    AccountName { "pattern" = DNS_NAME, "maxLength" = MAX_DNS_NAME }
    /// The name of a login or database.
    Identifier { "pattern" = IDENTIFIER, "maxLength" = MAX_NAME, "x-kubernetes-validations" = [
        {"rule": "size(bytes(self)) <= 63", "message": "a name in PostgreSQL has 1 to 63 bytes"}
    ] }
    /// An action.
    Action { "enum" = ["select", "insert", "update", "delete", "merge", "truncate", "execute"] }
    /// A name with its schema.
    StoredName { "pattern" = STORED_NAME, "maxLength" = MAX_STORED_NAME, "x-kubernetes-validations" = [
        {"rule": "self.contains('.')", "message": "there is no schema: write `schema.name`, like `public.orders`, or `public.*`"}
    ] }
    /// A method.
    Method { "pattern" = "^[A-Z]+$", "maxLength" = MAX_NAME }
    /// A path.
    Path { "pattern" = PATH, "maxLength" = MAX_PATH }
}

/// The structural schema of `AccessRole`s' `spec`.
#[must_use]
pub fn access_role_spec() -> Value {
    structural::<AccessRoleSpec>()
}

/// The structural schema of `AccessGrant`s' `spec`.
#[must_use]
pub fn access_grant_spec() -> Value {
    structural::<AccessGrantSpec>()
}

/// What must be true of the name of an `AccessRole`: rules for the root of its schema, where names are in reach.
#[must_use]
pub fn access_role_rules() -> Value {
    let names: Vec<&str> = crate::role::Level::ALL.iter().map(|level| level.name()).collect();
    let rule = format!("!(self.metadata.name in ['{}'])", names.join("', '"));
    let message = format!("{} are built-in roles and cannot be defined anew: choose another name", names.join(", "));
    json!([name_rule(), {"rule": rule, "message": message}])
}

/// What must be true of the name of an `AccessGrant`.
#[must_use]
pub fn access_grant_rules() -> Value {
    json!([name_rule()])
}

/// The API server sees to it that names are DNS names; labels are those without a dot that are not too long.
fn name_rule() -> Value {
    json!({
        "rule": "!self.metadata.name.contains('.') && size(self.metadata.name) <= 63",
        "message": "metadata.name is made of lower-case letters, digits and '-', and has at most 63 of them",
    })
}

fn structural<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::openapi3().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
        settings.transforms.clear();
    });
    let schema = settings.with_transform(Structural).into_generator().into_root_schema_for::<T>();
    schema.to_value()
}

/// What a CustomResourceDefinition wants otherwise than JSON Schema: an optional field may be left out but not null,
/// what is not known is kept, and nothing has a title.
#[derive(Clone)]
struct Structural;

impl Transform for Structural {
    fn transform(&mut self, schema: &mut Schema) {
        transform_subschemas(self, schema);
        let Some(object) = schema.as_object_mut() else { return };
        object.remove("title");
        without_null(object);
        if object.contains_key("properties") {
            object.insert("x-kubernetes-preserve-unknown-fields".into(), true.into());
        }
    }
}

/// Takes `null` out of the choices; of what is left there is one.
fn without_null(schema: &mut Map<String, Value>) {
    let is_null = |choice: &Value| choice == "null" || choice.get("type").is_some_and(|kind| kind == "null");
    for key in ["type", "anyOf"] {
        let Some(Value::Array(choices)) = schema.get_mut(key) else { continue };
        choices.retain(|choice| !is_null(choice));
        let Some(only) = choices.pop() else { continue };
        schema.remove(key);
        match only {
            Value::Object(fields) => {
                fields.into_iter().for_each(|(name, value)| _ = schema.entry(name).or_insert(value))
            }
            kind => _ = schema.insert(key.into(), kind),
        }
    }
}

#[cfg(test)]
mod tests;
