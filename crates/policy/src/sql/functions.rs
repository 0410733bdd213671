//! Functions and operators by name, wherever a text names one, and `set_config`, which is a SET.
//!
//! Absent: where in a tree names of functions stand; the other files of the walk know that.

use pg_query::NodeEnum;
use pg_query::protobuf as pb;

use super::NotUnderstood;
use super::names::{self, Class};
use super::select::is_name;
use super::settings::{is_fixed, setting_name, setting_opens};
use super::walker::{Walk, Walker, constant, inner, string, strings};
use crate::facts::{Action, Object, Opens};
use crate::role::Level;

/// Prefixes of PostgreSQL's own names: an unqualified name that begins so and is not known could be a
/// later release's built-in, which a wildcard rule does not mean.
const OWN_PREFIXES: [&str; 3] = ["pg_", "lo_", "binary_upgrade_"];

/// Who may call a function that a text names in this way; the schema is empty where it says none.
pub(crate) fn function_opens(schema: &str, name: &str) -> Opens {
    match (schema, names::function(name)) {
        ("" | "pg_catalog", Some(function)) => match function.class {
            Class::Safe => Opens::Everyone,
            Class::From(level) => Opens::Rule(level),
            // Named without a call to look into, it could be any setting.
            Class::Admin | Class::Setting => Opens::Level(Level::Admin),
        },
        ("pg_catalog", None) => Opens::Level(Level::Admin),
        ("information_schema", _) if name.starts_with("_pg_") => Opens::Everyone,
        ("", None) if OWN_PREFIXES.iter().any(|p| name.starts_with(p)) => Opens::ExactRule(Level::Owner),
        _ => Opens::Rule(Level::Owner),
    }
}

impl<'a> Walker<'a> {
    /// A call: its name, its arguments, and all that hangs on it.
    pub(super) fn call(&mut self, call: &'a pb::FuncCall) -> Walk {
        let name = strings(&call.funcname)?;
        if is_set_config(&name) {
            self.set_config(call);
        } else {
            self.function(&name)?;
        }
        self.call_arguments(call)
    }

    /// What a call evaluates besides the function itself.
    pub(super) fn call_arguments(&mut self, call: &'a pb::FuncCall) -> Walk {
        self.expressions(&call.args)?;
        self.expressions(&call.agg_order)?;
        self.optional(&call.agg_filter)?;
        match &call.over {
            Some(window) => self.window(window),
            None => Ok(()),
        }
    }

    /// A function named anywhere; safe built-ins need nothing.
    pub(super) fn function(&mut self, name: &[&str]) -> Walk {
        let (schema, name) = match name {
            [name] => ("", *name),
            [schema, name] | [_, schema, name] => (*schema, *name),
            _ => return Err(NotUnderstood::Unknown("the name of a function")),
        };
        let opens = function_opens(schema, name);
        if opens == Opens::Everyone {
            return Ok(());
        }
        let built_in = schema == "pg_catalog" || schema.is_empty() && names::function(name).is_some();
        let schema = if built_in { "pg_catalog" } else { schema };
        let schema = (!schema.is_empty()).then(|| schema.into());
        self.need(Action::Execute, Object::Named { schema, name: name.into() }, opens);
        Ok(())
    }

    /// A procedure: an unqualified name is the user's, even if a built-in function shares it.
    pub(super) fn procedure(&mut self, name: &[&str]) -> Walk {
        if let [unqualified] = name {
            self.function(name)?;
            let object = Object::Named { schema: None, name: (*unqualified).into() };
            self.need(Action::Execute, object, Opens::Rule(Level::Owner));
            return Ok(());
        }
        self.function(name)
    }

    /// A field `(x).name`, which may be the call `name(x)`: surely so if `x` has no fields.
    pub(super) fn field(&mut self, name: &str, scalar: bool) -> Walk {
        let dangerous = names::function(name).is_some_and(|f| matches!(f.class, Class::From(_) | Class::Admin));
        if scalar || dangerous { self.function(&[name]) } else { Ok(()) }
    }

    /// An operator: a call of its function unless it is `pg_catalog`'s.
    pub(super) fn operator(&mut self, name: &[pb::Node]) -> Walk {
        let name = strings(name)?;
        let (schema, name) = match name.as_slice() {
            [name] | ["pg_catalog", name] if names::is_operator(name) => return Ok(()),
            [name] => ("", *name),
            [schema, name] | [_, schema, name] => (*schema, *name),
            _ => return Err(NotUnderstood::Unknown("the name of an operator")),
        };
        let opens = if schema == "pg_catalog" { Opens::Level(Level::Admin) } else { Opens::Rule(Level::Owner) };
        let schema = (!schema.is_empty()).then(|| schema.into());
        self.need(Action::Execute, Object::Named { schema, name: name.into() }, opens);
        Ok(())
    }

    /// `set_config(name, value, local)`: the SET that it is, if the name is a literal.
    fn set_config(&mut self, call: &'a pb::FuncCall) {
        let [name, value] = ["setting_name", "new_value"].map(|wanted| argument(&call.args, wanted));
        let named = self.setting_named.filter(|_| name.is_some_and(is_name)).map(str::to_owned);
        match name.filter(|_| !call.func_variadic).and_then(literal).or(named) {
            Some(name) => self.setting(&name, value.and_then(literal).as_deref()),
            None => {
                // Admin may, but not by writing the name in pieces.
                if let Some(name) = name.and_then(folded).filter(|name| is_fixed(name)) {
                    self.setting(&name, None);
                }
                let object = Object::Fixed("a setting whose name is not a literal");
                self.need(Action::Set, object, Opens::Level(Level::Admin));
            }
        }
    }

    /// A setting changed to a value, `None` where the text does not tell which.
    pub(super) fn setting(&mut self, name: &str, value: Option<&str>) {
        let opens = setting_opens(name, value);
        // Settings that everyone may set are no facts: drivers send them all the time.
        if opens != Opens::Everyone {
            self.need(Action::Set, Object::Thing(setting_name(name)), opens);
        }
    }
}

fn is_set_config(name: &[&str]) -> bool {
    matches!(name, ["set_config"] | ["pg_catalog", "set_config"] | [_, "pg_catalog", "set_config"])
}

/// The argument of `set_config` by its name, or by its place.
fn argument<'a>(arguments: &'a [pb::Node], wanted: &str) -> Option<&'a pb::Node> {
    let named = arguments.iter().find_map(|node| match &node.node {
        Some(NodeEnum::NamedArgExpr(named)) if named.name == wanted => named.arg.as_deref(),
        _ => None,
    });
    let place = usize::from(wanted == "new_value");
    let placed = arguments.get(place).filter(|node| !matches!(node.node, Some(NodeEnum::NamedArgExpr(_))));
    named.or(placed)
}

/// The text of a literal, also with a cast to text around it.
fn literal(node: &pb::Node) -> Option<String> {
    match inner(node).ok()? {
        NodeEnum::AConst(_) => constant(node),
        NodeEnum::TypeCast(cast) if is_text(cast.type_name.as_ref()?) => literal(cast.arg.as_deref()?),
        _ => None,
    }
}

/// The text of literals put together with `||`.
fn folded(node: &pb::Node) -> Option<String> {
    match inner(node).ok()? {
        NodeEnum::AExpr(e) if e.name.last().and_then(string) == Some("||") => {
            Some(folded(e.lexpr.as_deref()?)? + &folded(e.rexpr.as_deref()?)?)
        }
        NodeEnum::TypeCast(cast) => folded(cast.arg.as_deref()?),
        NodeEnum::CollateClause(collated) => folded(collated.arg.as_deref()?),
        _ => literal(node),
    }
}

fn is_text(name: &pb::TypeName) -> bool {
    let last = name.names.last().and_then(string);
    matches!(last, Some("text" | "varchar")) && name.typmods.is_empty() && name.array_bounds.is_empty()
}
