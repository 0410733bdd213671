//! DDL: what is created, altered or dropped, where it lies, and every expression and function inside.
//!
//! DDL is the owner's. It is the writer's where all tables of the statement are temporary, and admin's where any
//! name lies in PostgreSQL's own schemas. Absent: objects that belong to the whole server (`utility`).

use pg_query::NodeEnum as N;
use pg_query::protobuf as pb;

use super::NotUnderstood;
use super::relations::{Kind, is_system, kind};
use super::walker::{Walk, Walker, inner, string, strings};
use crate::facts::{Action, Object, Opens};
use crate::role::Level;

/// Where the tables of a DDL statement lie, gathered one by one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    least: Level,
}

impl Place {
    /// Not a table, or no table named yet that is not temporary.
    pub(super) const TEMPORARY: Self = Self { least: Level::Writer };
    /// Permanent.
    pub(super) const PERMANENT: Self = Self { least: Level::Owner };
    /// PostgreSQL's own.
    pub(super) const SYSTEM: Self = Self { least: Level::Admin };

    /// Of two places, the one that needs more.
    pub(super) fn and(self, other: Self) -> Self {
        Self { least: self.least.max(other.least) }
    }

    /// The place of a relation that exists.
    pub(super) fn of(relation: &pb::RangeVar) -> Self {
        Self::named(&relation.schemaname, &relation.relname)
    }

    /// The place of a relation that is being made: TEMP says it, too.
    pub(super) fn of_new(relation: &pb::RangeVar) -> Self {
        if relation.relpersistence == "t" && relation.schemaname.is_empty() {
            Self::TEMPORARY
        } else {
            Self::of(relation)
        }
    }

    fn named(schema: &str, name: &str) -> Self {
        match kind(schema, name) {
            Kind::Temporary => Self::TEMPORARY,
            Kind::Catalog(_) | Kind::Toast(_) => Self::SYSTEM,
            Kind::User(_) => Self::PERMANENT,
        }
    }

    /// The place of something that is no table, by its dotted name.
    pub(super) fn of_other(name: &[&str]) -> Self {
        match name {
            [schemas @ .., _] if schemas.iter().any(|s| is_system(s)) => Self::SYSTEM,
            _ => Self::PERMANENT,
        }
    }

    /// The place of a relation by its dotted name.
    pub(super) fn of_dotted(name: &[&str]) -> Self {
        match name {
            [name] => Self::named("", name),
            [.., schema, name] => Self::named(schema, name),
            [] => Self::PERMANENT,
        }
    }
}

impl<'a> Walker<'a> {
    /// Adds the fact of a DDL statement.
    pub(super) fn ddl(&mut self, action: Action, what: &str, name: &[&str], place: Place) {
        let object = format!("{what} {}", name.join("."));
        self.need(action, Object::Thing(object.trim_end().into()), Opens::Level(place.least));
    }

    fn ddl_relation(&mut self, action: Action, what: &str, relation: &pb::RangeVar, place: Place) {
        self.ddl(action, what, &dotted(relation), place);
    }

    /// SELECT INTO and CREATE TABLE AS make a table.
    pub(super) fn table_of_into(&mut self, into: &'a pb::IntoClause) -> Walk {
        let relation = into.rel.as_ref().ok_or(NotUnderstood::Unknown("INTO"))?;
        self.ddl_relation(Action::Create, "table", relation, Place::of_new(relation));
        self.options(&into.options)
    }

    pub(super) fn create_table(&mut self, s: &'a pb::CreateStmt) -> Walk {
        let relation = s.relation.as_ref().ok_or(NotUnderstood::Unknown("CREATE TABLE"))?;
        let mut place = Place::of_new(relation);
        for parent in &s.inh_relations {
            match inner(parent)? {
                N::RangeVar(parent) => place = place.and(Place::of(parent)),
                _ => return Err(NotUnderstood::Unknown("INHERITS")),
            }
        }
        self.ddl_relation(Action::Create, "table", relation, place);
        self.optional_type(&s.of_typename)?;
        for list in [&s.table_elts, &s.constraints, &s.nnconstraints] {
            list.iter().try_for_each(|element| self.table_element(element))?;
        }
        self.partition_bound(&s.partbound)?;
        if let Some(spec) = &s.partspec {
            for element in &spec.part_params {
                let N::PartitionElem(element) = inner(element)? else {
                    return Err(NotUnderstood::Unknown("PARTITION BY"));
                };
                self.optional(&element.expr)?;
            }
        }
        self.options(&s.options)
    }

    fn partition_bound(&mut self, bound: &'a Option<pb::PartitionBoundSpec>) -> Walk {
        let Some(bound) = bound else { return Ok(()) };
        for list in [&bound.listdatums, &bound.lowerdatums, &bound.upperdatums] {
            for datum in list {
                match inner(datum)? {
                    N::PartitionRangeDatum(datum) => self.optional(&datum.value)?,
                    _ => self.expression(datum)?,
                }
            }
        }
        Ok(())
    }

    /// Anything that may stand in a table: a column, a constraint, LIKE.
    fn table_element(&mut self, node: &'a pb::Node) -> Walk {
        match inner(node)? {
            N::ColumnDef(column) => self.column_definition(column),
            N::Constraint(constraint) => self.constraint(constraint),
            N::TableLikeClause(like) => {
                let source = like.relation.as_ref().ok_or(NotUnderstood::Unknown("LIKE"))?;
                self.relation(Action::Select, source);
                Ok(())
            }
            _ => Err(NotUnderstood::Unknown("an element of a table")),
        }
    }

    /// A column: its type, default and constraints.
    pub(super) fn column_definition(&mut self, column: &'a pb::ColumnDef) -> Walk {
        self.optional_type(&column.type_name)?;
        self.optional(&column.raw_default)?;
        self.options(&column.fdwoptions)?;
        column.constraints.iter().try_for_each(|constraint| self.table_element(constraint))
    }

    /// A constraint: its expressions, its operators, its options.
    pub(super) fn constraint(&mut self, c: &'a pb::Constraint) -> Walk {
        self.optional(&c.raw_expr)?;
        self.optional(&c.where_clause)?;
        for pair in &c.exclusions {
            let N::List(pair) = inner(pair)? else {
                return Err(NotUnderstood::Unknown("EXCLUDE"));
            };
            let [element, operator] = pair.items.as_slice() else {
                return Err(NotUnderstood::Unknown("EXCLUDE"));
            };
            self.index_element(element)?;
            match inner(operator)? {
                N::List(name) => self.operator(&name.items)?,
                _ => return Err(NotUnderstood::Unknown("EXCLUDE")),
            }
        }
        self.options(&c.options)
    }

    /// An element of an index or of a conflict target.
    pub(super) fn index_element(&mut self, node: &'a pb::Node) -> Walk {
        let N::IndexElem(element) = inner(node)? else {
            return Err(NotUnderstood::Unknown("an element of an index"));
        };
        self.optional(&element.expr)?;
        self.options(&element.opclassopts)
    }

    pub(super) fn create_index(&mut self, s: &'a pb::IndexStmt) -> Walk {
        let relation = s.relation.as_ref().ok_or(NotUnderstood::Unknown("CREATE INDEX"))?;
        self.ddl_relation(Action::Create, "index on", relation, Place::of(relation));
        for list in [&s.index_params, &s.index_including_params] {
            list.iter().try_for_each(|element| self.index_element(element))?;
        }
        self.optional(&s.where_clause)?;
        self.options(&s.options)
    }

    pub(super) fn create_view(&mut self, s: &'a pb::ViewStmt) -> Walk {
        let view = s.view.as_ref().ok_or(NotUnderstood::Unknown("CREATE VIEW"))?;
        self.ddl_relation(Action::Create, "view", view, Place::of_new(view));
        self.options(&s.options)?;
        match &s.query {
            Some(query) => self.query(query),
            None => Err(NotUnderstood::Unknown("CREATE VIEW")),
        }
    }

    pub(super) fn create_sequence(&mut self, s: &'a pb::CreateSeqStmt) -> Walk {
        let sequence = s.sequence.as_ref().ok_or(NotUnderstood::Unknown("CREATE SEQUENCE"))?;
        self.ddl_relation(Action::Create, "sequence", sequence, Place::of_new(sequence));
        self.options(&s.options)
    }

    pub(super) fn alter_sequence(&mut self, s: &'a pb::AlterSeqStmt) -> Walk {
        let sequence = s.sequence.as_ref().ok_or(NotUnderstood::Unknown("ALTER SEQUENCE"))?;
        self.ddl_relation(Action::Alter, "sequence", sequence, Place::of(sequence));
        self.options(&s.options)
    }

    pub(super) fn alter_table(&mut self, s: &'a pb::AlterTableStmt) -> Walk {
        let relation = s.relation.as_ref().ok_or(NotUnderstood::Unknown("ALTER TABLE"))?;
        let mut place = Place::of(relation);
        for cmd in &s.cmds {
            let N::AlterTableCmd(cmd) = inner(cmd)? else {
                return Err(NotUnderstood::Unknown("ALTER TABLE"));
            };
            place = place.and(self.alter_table_command(cmd)?);
        }
        if s.objtype == pb::ObjectType::ObjectForeignTable as i32 {
            self.need_level(Action::Administer, "foreign data", Level::Admin);
        }
        self.ddl_relation(Action::Alter, "table", relation, place);
        Ok(())
    }

    /// One command of ALTER TABLE, with the place of the other table that it names.
    fn alter_table_command(&mut self, cmd: &'a pb::AlterTableCmd) -> Result<Place, NotUnderstood> {
        use pb::AlterTableType as T;
        match T::try_from(cmd.subtype) {
            Ok(T::AtChangeOwner) => self.need_level(Action::Administer, "ownership", Level::Admin),
            Ok(T::AtGenericOptions | T::AtAlterColumnGenericOptions) => {
                self.need_level(Action::Administer, "foreign data", Level::Admin);
            }
            Ok(T::Undefined) | Err(_) => return Err(NotUnderstood::Unknown("a command of ALTER TABLE")),
            Ok(_) => {}
        }
        let Some(def) = &cmd.def else { return Ok(Place::TEMPORARY) };
        match inner(def)? {
            N::ColumnDef(column) => self.column_definition(column)?,
            N::Constraint(constraint) => self.constraint(constraint)?,
            N::List(list) => self.options(&list.items)?,
            N::TypeName(name) => self.type_name(name)?,
            N::ReplicaIdentityStmt(_) | N::AtalterConstraint(_) | N::RoleSpec(_) => {}
            N::RangeVar(other) => return Ok(Place::of(other)),
            N::PartitionCmd(partition) => {
                self.partition_bound(&partition.bound)?;
                return Ok(partition.name.as_ref().map_or(Place::TEMPORARY, Place::of));
            }
            _ => self.expression(def)?,
        }
        Ok(Place::TEMPORARY)
    }

    pub(super) fn create_function(&mut self, s: &'a pb::CreateFunctionStmt) -> Walk {
        let name = strings(&s.funcname)?;
        let what = if s.is_procedure { "procedure" } else { "function" };
        self.ddl(Action::Create, what, &name, Place::of_other(&name));
        for parameter in &s.parameters {
            let N::FunctionParameter(parameter) = inner(parameter)? else {
                return Err(NotUnderstood::Unknown("a parameter of a function"));
            };
            self.optional_type(&parameter.arg_type)?;
            self.optional(&parameter.defexpr)?;
        }
        self.optional_type(&s.return_type)?;
        self.function_options(&s.options)?;
        s.sql_body.as_ref().map_or(Ok(()), |body| self.function_body(body))
    }

    /// `RETURN expression`, or the statements of `BEGIN ATOMIC`.
    fn function_body(&mut self, node: &'a pb::Node) -> Walk {
        match inner(node)? {
            N::List(list) => list.items.iter().try_for_each(|item| self.function_body(item)),
            N::ReturnStmt(s) => self.optional(&s.returnval),
            _ => self.statement(node),
        }
    }

    /// The options of CREATE and ALTER FUNCTION: the language, SET clauses, functions that support it.
    pub(super) fn function_options(&mut self, options: &'a [pb::Node]) -> Walk {
        for option in options {
            let N::DefElem(option) = inner(option)? else {
                return Err(NotUnderstood::Unknown("an option of a function"));
            };
            match (option.defname.as_str(), &option.arg) {
                ("language", Some(arg)) => self.language(string(arg).unwrap_or_default()),
                ("set", Some(arg)) => match inner(arg)? {
                    N::VariableSetStmt(set) => self.variable_set(set)?,
                    _ => return Err(NotUnderstood::Unknown("SET of a function")),
                },
                ("support", Some(arg)) => self.function(&name_of(arg)?)?,
                ("as" | "transform", Some(arg)) => self.option_value(arg)?,
                (_, Some(arg)) => self.option_value(arg)?,
                (_, None) => {}
            }
        }
        Ok(())
    }

    /// Languages whose code PostgreSQL confines are the owner's to use; all others run as the server: admin.
    pub(super) fn language(&mut self, name: &str) {
        const TRUSTED: [&str; 9] = ["sql", "plpgsql", "plperl", "pltcl", "plv8", "plls", "plcoffee", "plrust", "pllua"];
        if !TRUSTED.contains(&name) {
            let object = Object::Thing(format!("language {name}").into());
            self.need(Action::UseServerFile, object, Opens::Level(Level::Admin));
        }
    }

    /// CREATE AGGREGATE, OPERATOR, TYPE, COLLATION, TEXT SEARCH …: functions behind their words count.
    pub(super) fn define(&mut self, s: &'a pb::DefineStmt) -> Walk {
        let name = strings(&s.defnames)?;
        self.ddl(Action::Create, object_kind(s.kind).0, &name, Place::of_other(&name));
        for arg in &s.args {
            self.define_argument(arg)?;
        }
        self.definition(&s.definition)
    }

    fn define_argument(&mut self, node: &'a pb::Node) -> Walk {
        match &node.node {
            None => Ok(()),
            Some(N::List(list)) => list.items.iter().try_for_each(|item| self.define_argument(item)),
            Some(N::FunctionParameter(parameter)) => {
                self.optional_type(&parameter.arg_type)?;
                self.optional(&parameter.defexpr)
            }
            Some(_) => self.option_value(node),
        }
    }

    /// `(SFUNC = f, STYPE = int, …)`: a name behind a word that takes a function is a function.
    pub(super) fn definition(&mut self, options: &'a [pb::Node]) -> Walk {
        for option in options {
            let N::DefElem(option) = inner(option)? else {
                return Err(NotUnderstood::Unknown("a definition"));
            };
            let Some(arg) = &option.arg else { continue };
            let word = option.defname.to_ascii_lowercase();
            if FUNCTION_WORDS.contains(&word.as_str()) && !matches!(inner(arg)?, N::String(_)) {
                self.function(&name_of(arg)?)?;
            } else if FUNCTION_WORDS.contains(&word.as_str()) {
                self.function(&[string(arg).unwrap_or_default()])?;
            }
            self.option_value(arg)?;
        }
        Ok(())
    }

    /// Options of any kind: constants and names, or expressions.
    pub(super) fn options(&mut self, options: &'a [pb::Node]) -> Walk {
        options.iter().try_for_each(|option| self.option_value(option))
    }

    fn option_value(&mut self, node: &'a pb::Node) -> Walk {
        match &node.node {
            None => Ok(()),
            Some(N::DefElem(option)) => option.arg.as_deref().map_or(Ok(()), |arg| self.option_value(arg)),
            Some(N::List(list)) => self.options(&list.items),
            Some(N::RangeVar(_) | N::RoleSpec(_) | N::ObjectWithArgs(_)) => Ok(()),
            Some(N::VariableSetStmt(set)) => self.variable_set(set),
            Some(_) => self.expression(node),
        }
    }

    pub(super) fn create_trigger(&mut self, s: &'a pb::CreateTrigStmt) -> Walk {
        let relation = s.relation.as_ref().ok_or(NotUnderstood::Unknown("CREATE TRIGGER"))?;
        let place = Place::of(relation).and(s.constrrel.as_ref().map_or(Place::TEMPORARY, Place::of));
        self.ddl_relation(Action::Create, "trigger on", relation, place);
        self.function(&strings(&s.funcname)?)?;
        self.options(&s.args)?;
        self.optional(&s.when_clause)
    }

    pub(super) fn create_rule(&mut self, s: &'a pb::RuleStmt) -> Walk {
        let relation = s.relation.as_ref().ok_or(NotUnderstood::Unknown("CREATE RULE"))?;
        self.ddl_relation(Action::Create, "rule on", relation, Place::of(relation));
        self.optional(&s.where_clause)?;
        s.actions.iter().try_for_each(|action| self.statement(action))
    }

    pub(super) fn policy(
        &mut self,
        action: Action,
        table: &'a Option<pb::RangeVar>,
        exprs: [&'a Option<Box<pb::Node>>; 2],
    ) -> Walk {
        let table = table.as_ref().ok_or(NotUnderstood::Unknown("a policy"))?;
        self.ddl_relation(action, "policy on", table, Place::of(table));
        exprs.into_iter().try_for_each(|expr| self.optional(expr))
    }

    pub(super) fn domain(&mut self, s: &'a pb::CreateDomainStmt) -> Walk {
        let name = strings(&s.domainname)?;
        self.ddl(Action::Create, "domain", &name, Place::of_other(&name));
        self.optional_type(&s.type_name)?;
        s.constraints.iter().try_for_each(|constraint| self.table_element(constraint))
    }

    pub(super) fn alter_domain(&mut self, s: &'a pb::AlterDomainStmt) -> Walk {
        let name = strings(&s.type_name)?;
        self.ddl(Action::Alter, "domain", &name, Place::of_other(&name));
        match &s.def {
            Some(def) => match inner(def)? {
                N::Constraint(constraint) => self.constraint(constraint),
                _ => self.expression(def),
            },
            None => Ok(()),
        }
    }

    pub(super) fn statistics(&mut self, s: &'a pb::CreateStatsStmt) -> Walk {
        let name = strings(&s.defnames)?;
        let mut place = Place::of_other(&name);
        for relation in &s.relations {
            match inner(relation)? {
                N::RangeVar(relation) => place = place.and(Place::of(relation)),
                _ => return Err(NotUnderstood::Unknown("CREATE STATISTICS")),
            }
        }
        self.ddl(Action::Create, "statistics", &name, place);
        for element in &s.exprs {
            let N::StatsElem(element) = inner(element)? else {
                return Err(NotUnderstood::Unknown("CREATE STATISTICS"));
            };
            self.optional(&element.expr)?;
        }
        Ok(())
    }

    pub(super) fn schema(&mut self, s: &'a pb::CreateSchemaStmt) -> Walk {
        let place = if is_system(&s.schemaname) { Place::SYSTEM } else { Place::PERMANENT };
        self.ddl(Action::Create, "schema", &[&s.schemaname], place);
        if s.authrole.is_some() {
            self.need_level(Action::Administer, "ownership", Level::Admin);
        }
        s.schema_elts.iter().try_for_each(|element| self.statement(element))
    }

    pub(super) fn create_cast(&mut self, s: &'a pb::CreateCastStmt) -> Walk {
        self.ddl(Action::Create, "cast", &[], Place::PERMANENT);
        self.optional_type(&s.sourcetype)?;
        self.optional_type(&s.targettype)?;
        self.optional_function(&s.func)
    }

    pub(super) fn create_transform(&mut self, s: &'a pb::CreateTransformStmt) -> Walk {
        self.ddl(Action::Create, "transform", &[], Place::PERMANENT);
        self.language(&s.lang);
        self.optional_type(&s.type_name)?;
        self.optional_function(&s.fromsql)?;
        self.optional_function(&s.tosql)
    }

    fn optional_function(&mut self, function: &'a Option<pb::ObjectWithArgs>) -> Walk {
        function.as_ref().map_or(Ok(()), |function| self.function(&strings(&function.objname)?))
    }

    /// Operator classes and families name operators and functions. Operators only as what is sorted by.
    pub(super) fn operator_class_items(&mut self, items: &'a [pb::Node]) -> Walk {
        /// `OPCLASS_ITEM_FUNCTION` of PostgreSQL's parse nodes.
        const FUNCTION: i32 = 2;
        for item in items {
            let N::CreateOpClassItem(item) = inner(item)? else {
                return Err(NotUnderstood::Unknown("an operator class"));
            };
            if let Some(name) = item.name.as_ref().filter(|_| item.itemtype == FUNCTION) {
                self.function(&strings(&name.objname)?)?;
            }
        }
        Ok(())
    }
}

/// Words of definitions that take a function.
const FUNCTION_WORDS: [&str; 37] = [
    "function",
    "procedure",
    "restrict",
    "join",
    "sfunc",
    "sfunc1",
    "finalfunc",
    "ffunc",
    "combinefunc",
    "serialfunc",
    "deserialfunc",
    "msfunc",
    "minvfunc",
    "mfinalfunc",
    "input",
    "output",
    "receive",
    "send",
    "typmod_in",
    "typmod_out",
    "analyze",
    "subscript",
    "canonical",
    "subtype_diff",
    "start",
    "gettoken",
    "end",
    "headline",
    "lextypes",
    "init",
    "lexize",
    "handler",
    "inline",
    "validator",
    "support",
    "multirange",
    "prsstart",
];

/// The dotted name that a definition gives as a type, a list, or an object with arguments.
pub(super) fn name_of(node: &pb::Node) -> Result<Vec<&str>, NotUnderstood> {
    match inner(node)? {
        N::String(s) => Ok(vec![&s.sval]),
        N::List(list) => strings(&list.items),
        N::TypeName(name) => strings(&name.names),
        N::ObjectWithArgs(object) => strings(&object.objname),
        _ => Err(NotUnderstood::Unknown("a name")),
    }
}

/// A relation's dotted name.
pub(super) fn dotted(relation: &pb::RangeVar) -> Vec<&str> {
    [relation.schemaname.as_str(), relation.relname.as_str()].into_iter().filter(|part| !part.is_empty()).collect()
}

/// What the kind of an object is called, and the family that decides its place.
pub(super) fn object_kind(kind: i32) -> (&'static str, Family) {
    use Family::{Function, Member, Other, Relation, Server, Type};
    use pb::ObjectType as T;
    match T::try_from(kind) {
        Ok(T::ObjectTable) => ("table", Relation),
        Ok(T::ObjectView) => ("view", Relation),
        Ok(T::ObjectMatview) => ("materialized view", Relation),
        Ok(T::ObjectIndex) => ("index", Relation),
        Ok(T::ObjectSequence) => ("sequence", Relation),
        Ok(T::ObjectColumn) => ("column", Member),
        Ok(T::ObjectAttribute) => ("attribute", Member),
        Ok(T::ObjectDefault) => ("default", Member),
        Ok(T::ObjectRule) => ("rule", Member),
        Ok(T::ObjectTrigger) => ("trigger", Member),
        Ok(T::ObjectPolicy) => ("policy", Member),
        Ok(T::ObjectTabconstraint) => ("constraint", Member),
        Ok(T::ObjectAggregate) => ("aggregate", Function),
        Ok(T::ObjectFunction) => ("function", Function),
        Ok(T::ObjectProcedure) => ("procedure", Function),
        Ok(T::ObjectRoutine) => ("routine", Function),
        Ok(T::ObjectType) => ("type", Type),
        Ok(T::ObjectDomain) => ("domain", Type),
        Ok(T::ObjectDomconstraint) => ("constraint", Type),
        Ok(T::ObjectSchema) => ("schema", Family::Schema),
        Ok(T::ObjectExtension) => ("extension", Family::Extension),
        Ok(T::ObjectAmop | T::ObjectAmproc | T::ObjectOpclass) => ("operator class", Other),
        Ok(T::ObjectOpfamily) => ("operator family", Other),
        Ok(T::ObjectOperator) => ("operator", Other),
        Ok(T::ObjectCast) => ("cast", Other),
        Ok(T::ObjectCollation) => ("collation", Other),
        Ok(T::ObjectConversion) => ("conversion", Other),
        Ok(T::ObjectLargeobject) => ("large object", Other),
        Ok(T::ObjectStatisticExt) => ("statistics", Other),
        Ok(T::ObjectTransform) => ("transform", Other),
        Ok(T::ObjectTsconfiguration | T::ObjectTsdictionary) => ("text search", Other),
        Ok(T::ObjectTsparser | T::ObjectTstemplate) => ("text search", Other),
        Ok(T::ObjectAccessMethod) => ("access methods", Server),
        Ok(T::ObjectDatabase) => ("databases", Server),
        Ok(T::ObjectDefacl | T::ObjectParameterAcl) => ("privileges", Server),
        Ok(T::ObjectEventTrigger) => ("event triggers", Server),
        Ok(T::ObjectFdw | T::ObjectForeignServer | T::ObjectForeignTable) => ("foreign data", Server),
        Ok(T::ObjectUserMapping) => ("foreign data", Server),
        Ok(T::ObjectLanguage) => ("languages", Server),
        Ok(T::ObjectPublication | T::ObjectPublicationNamespace) => ("replication", Server),
        Ok(T::ObjectPublicationRel | T::ObjectSubscription) => ("replication", Server),
        Ok(T::ObjectRole) => ("roles", Server),
        Ok(T::ObjectTablespace) => ("tablespaces", Server),
        Ok(T::Undefined) | Err(_) => ("an unknown object", Server),
    }
}

/// How the name of an object tells its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// A relation: temporary ones are the writer's.
    Relation,
    /// Something of a relation, whose name ends with its own.
    Member,
    /// A function: an unqualified name of a built-in is PostgreSQL's.
    Function,
    /// A type: likewise.
    Type,
    /// A schema.
    Schema,
    /// An extension, trusted or not.
    Extension,
    /// Other things in a schema.
    Other,
    /// Admin's.
    Server,
}
