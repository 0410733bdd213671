//! Statements: which kind each is, and all of those that are neither queries, DML nor plain DDL.
//!
//! Every statement of the grammar is named here; what is not named is not understood.

use pg_query::NodeEnum as N;
use pg_query::protobuf as pb;

use super::NotUnderstood;
use super::ddl::{Family, Place, dotted, name_of, object_kind};
use super::names;
use super::relations::is_system;
use super::walker::{Walk, Walker, constant, inner, string, strings};
use crate::facts::{Action, Object, Opens};
use crate::role::Level;

impl<'a> Walker<'a> {
    /// One statement, at the top or inside another.
    pub(super) fn statement(&mut self, node: &'a pb::Node) -> Walk {
        match inner(node)? {
            N::SelectStmt(_) | N::InsertStmt(_) | N::UpdateStmt(_) | N::DeleteStmt(_) | N::MergeStmt(_) => {
                self.preparable(node)
            }
            other => self.session_statement(other),
        }
    }

    /// What a session does by itself: transactions, settings, prepared statements, cursors, COPY.
    fn session_statement(&mut self, node: &'a N) -> Walk {
        match node {
            N::TransactionStmt(s) => self.transaction(s),
            N::VariableSetStmt(s) => self.variable_set(s),
            N::VariableShowStmt(_) | N::DiscardStmt(_) | N::ClosePortalStmt(_) | N::DeallocateStmt(_) => Ok(()),
            N::UnlistenStmt(_) | N::ConstraintsSetStmt(_) => Ok(()),
            N::PrepareStmt(s) => self.prepare(s),
            N::ExecuteStmt(s) => {
                self.executes.push(s.name.as_str().into());
                self.expressions(&s.params)
            }
            N::DeclareCursorStmt(s) => {
                self.declares.push(s.portalname.as_str().into());
                self.body(&s.query)
            }
            N::FetchStmt(s) => {
                self.fetches.push(s.portalname.as_str().into());
                Ok(())
            }
            N::ExplainStmt(s) => {
                self.options(&s.options)?;
                self.body(&s.query)
            }
            N::CopyStmt(s) => self.copy(s),
            N::CallStmt(s) => match &s.funccall {
                Some(call) => {
                    self.procedure(&strings(&call.funcname)?)?;
                    self.call_arguments(call)
                }
                None => Err(NotUnderstood::Unknown("CALL")),
            },
            N::DoStmt(s) => self.anonymous_block(s),
            N::ListenStmt(s) => {
                self.need_named(Action::Listen, "channel", &s.conditionname, Level::Owner);
                Ok(())
            }
            N::NotifyStmt(s) => {
                self.need_named(Action::Notify, "channel", &s.conditionname, Level::Owner);
                Ok(())
            }
            N::LockStmt(s) => self.each_relation(Action::Lock, &s.relations),
            other => self.maintenance_statement(other),
        }
    }

    fn maintenance_statement(&mut self, node: &'a N) -> Walk {
        match node {
            N::TruncateStmt(s) => self.truncate(s),
            N::VacuumStmt(s) => {
                self.options(&s.options)?;
                self.maintain("the database", s.rels.iter().filter_map(vacuumed));
                Ok(())
            }
            N::ClusterStmt(s) => {
                self.options(&s.params)?;
                self.maintain("the database", s.relation.iter());
                Ok(())
            }
            N::ReindexStmt(s) => {
                self.options(&s.params)?;
                self.maintain("indexes", s.relation.iter());
                Ok(())
            }
            N::RefreshMatViewStmt(s) => {
                self.maintain("a materialized view", s.relation.iter());
                Ok(())
            }
            other => self.creating_statement(other),
        }
    }

    fn creating_statement(&mut self, node: &'a N) -> Walk {
        match node {
            N::CreateTableAsStmt(s) => self.create_table_as(s),
            N::CreateStmt(s) => self.create_table(s),
            N::IndexStmt(s) => self.create_index(s),
            N::ViewStmt(s) => self.create_view(s),
            N::CreateSeqStmt(s) => self.create_sequence(s),
            N::CreateFunctionStmt(s) => self.create_function(s),
            N::DefineStmt(s) => self.define(s),
            N::CreateTrigStmt(s) => self.create_trigger(s),
            N::RuleStmt(s) => self.create_rule(s),
            N::CreatePolicyStmt(s) => self.policy(Action::Create, &s.table, [&s.qual, &s.with_check]),
            N::CreateDomainStmt(s) => self.domain(s),
            N::CreateStatsStmt(s) => self.statistics(s),
            N::CreateSchemaStmt(s) => self.schema(s),
            N::CreateCastStmt(s) => self.create_cast(s),
            N::CreateTransformStmt(s) => self.create_transform(s),
            N::CreateEnumStmt(s) => self.create_type(&s.type_name, &s.vals),
            N::CreateRangeStmt(s) => {
                self.create_type(&s.type_name, &[])?;
                self.definition(&s.params)
            }
            N::CompositeTypeStmt(s) => {
                let name = s.typevar.as_ref().ok_or(NotUnderstood::Unknown("CREATE TYPE"))?;
                self.ddl(Action::Create, "type", &dotted(name), Place::of_other(&dotted(name)));
                s.coldeflist.iter().try_for_each(|column| match inner(column)? {
                    N::ColumnDef(column) => self.column_definition(column),
                    _ => Err(NotUnderstood::Unknown("CREATE TYPE")),
                })
            }
            N::CreateConversionStmt(s) => {
                let name = strings(&s.conversion_name)?;
                self.ddl(Action::Create, "conversion", &name, Place::of_other(&name));
                self.function(&strings(&s.func_name)?)
            }
            N::CreateOpClassStmt(s) => {
                let name = strings(&s.opclassname)?;
                self.ddl(Action::Create, "operator class", &name, Place::of_other(&name));
                self.operator_class_items(&s.items)
            }
            N::CreateOpFamilyStmt(s) => self.plain_ddl(Action::Create, "operator family", &s.opfamilyname),
            N::CreateExtensionStmt(s) => {
                self.extension(Action::Create, &s.extname);
                self.extension_options(&s.options)
            }
            other => self.altering_statement(other),
        }
    }

    fn altering_statement(&mut self, node: &'a N) -> Walk {
        match node {
            N::AlterTableStmt(s) => self.alter_table(s),
            N::AlterSeqStmt(s) => self.alter_sequence(s),
            N::AlterPolicyStmt(s) => self.policy(Action::Alter, &s.table, [&s.qual, &s.with_check]),
            N::AlterDomainStmt(s) => self.alter_domain(s),
            N::AlterFunctionStmt(s) => {
                let function = s.func.as_ref().ok_or(NotUnderstood::Unknown("ALTER FUNCTION"))?;
                self.object(Action::Alter, pb::ObjectType::ObjectFunction as i32, &strings(&function.objname)?);
                self.function_options(&s.actions)
            }
            N::AlterOperatorStmt(s) => {
                let operator = s.opername.as_ref().ok_or(NotUnderstood::Unknown("ALTER OPERATOR"))?;
                self.plain_ddl(Action::Alter, "operator", &operator.objname)?;
                self.definition(&s.options)
            }
            N::AlterOpFamilyStmt(s) => {
                self.plain_ddl(Action::Alter, "operator family", &s.opfamilyname)?;
                self.operator_class_items(&s.items)
            }
            N::AlterTypeStmt(s) => {
                self.object(Action::Alter, pb::ObjectType::ObjectType as i32, &strings(&s.type_name)?);
                self.definition(&s.options)
            }
            N::AlterEnumStmt(s) => {
                self.object(Action::Alter, pb::ObjectType::ObjectType as i32, &strings(&s.type_name)?);
                Ok(())
            }
            N::AlterCollationStmt(s) => self.plain_ddl(Action::Alter, "collation", &s.collname),
            N::AlterStatsStmt(s) => self.plain_ddl(Action::Alter, "statistics", &s.defnames),
            N::AlterTsdictionaryStmt(s) => {
                self.plain_ddl(Action::Alter, "text search", &s.dictname)?;
                self.options(&s.options)
            }
            N::AlterTsconfigurationStmt(s) => self.plain_ddl(Action::Alter, "text search", &s.cfgname),
            N::AlterExtensionStmt(s) => {
                self.extension(Action::Alter, &s.extname);
                self.extension_options(&s.options)
            }
            N::AlterExtensionContentsStmt(s) => {
                self.extension(Action::Alter, &s.extname);
                self.object_node(Action::Alter, s.objtype, &s.object)
            }
            N::DropStmt(s) => self.drop(s),
            N::RenameStmt(s) => {
                // Schemas, roles and databases are named by a string outside of any node.
                if s.relation.is_none() && s.object.is_none() {
                    self.object(Action::Alter, s.rename_type, &[&s.newname]);
                    self.object(Action::Alter, s.rename_type, &[&s.subname]);
                    return Ok(());
                }
                // A column's or constraint's own kind does not say whose it is.
                if s.relation_type == pb::ObjectType::ObjectForeignTable as i32 {
                    self.need_level(Action::Administer, "foreign data", Level::Admin);
                }
                self.one_object(Action::Alter, s.rename_type, &s.relation, &s.object)
            }
            N::AlterObjectSchemaStmt(s) => {
                let place = if is_system(&s.newschema) { Place::SYSTEM } else { Place::PERMANENT };
                self.ddl(Action::Alter, "schema", &[&s.newschema], place);
                self.one_object(Action::Alter, s.object_type, &s.relation, &s.object)
            }
            N::AlterObjectDependsStmt(s) => {
                self.ddl(Action::Alter, "dependencies", &[], Place::PERMANENT);
                self.one_object(Action::Alter, s.object_type, &s.relation, &s.object)
            }
            N::CommentStmt(s) => self.object_node(Action::Comment, s.objtype, &s.object),
            other => self.server_statement(other),
        }
    }

    /// What acts on more than a schema: admin's.
    fn server_statement(&mut self, node: &'a N) -> Walk {
        let what = match node {
            N::GrantStmt(_) | N::GrantRoleStmt(_) | N::AlterDefaultPrivilegesStmt(_) => "privileges",
            N::CreateRoleStmt(_) | N::AlterRoleStmt(_) | N::DropRoleStmt(_) => "roles",
            N::AlterRoleSetStmt(s) => {
                self.optional_set(&s.setstmt)?;
                "roles"
            }
            N::AlterOwnerStmt(_) | N::ReassignOwnedStmt(_) | N::DropOwnedStmt(_) => "ownership",
            N::CreatedbStmt(_) | N::AlterDatabaseStmt(_) | N::DropdbStmt(_) => "databases",
            N::AlterDatabaseRefreshCollStmt(_) => "databases",
            N::AlterDatabaseSetStmt(s) => {
                self.optional_set(&s.setstmt)?;
                "databases"
            }
            N::AlterSystemStmt(s) => {
                self.optional_set(&s.setstmt)?;
                "the server"
            }
            N::CheckPointStmt(_) | N::LoadStmt(_) => "the server",
            N::CreateTableSpaceStmt(_) | N::DropTableSpaceStmt(_) => "tablespaces",
            N::AlterTableSpaceOptionsStmt(_) | N::AlterTableMoveAllStmt(_) => "tablespaces",
            N::SecLabelStmt(_) => "security labels",
            N::CreateEventTrigStmt(_) | N::AlterEventTrigStmt(_) => "event triggers",
            N::CreatePlangStmt(_) => "languages",
            N::CreateAmStmt(_) => "access methods",
            N::CreatePublicationStmt(_) | N::AlterPublicationStmt(_) => "replication",
            N::CreateSubscriptionStmt(_) | N::AlterSubscriptionStmt(_) | N::DropSubscriptionStmt(_) => "replication",
            N::CreateFdwStmt(_) | N::AlterFdwStmt(_) | N::ImportForeignSchemaStmt(_) => "foreign data",
            N::CreateForeignServerStmt(_) | N::AlterForeignServerStmt(_) => "foreign data",
            N::CreateForeignTableStmt(_) => "foreign data",
            N::CreateUserMappingStmt(_) | N::AlterUserMappingStmt(_) | N::DropUserMappingStmt(_) => "foreign data",
            _ => return Err(NotUnderstood::Unknown("a statement")),
        };
        self.need_level(Action::Administer, what, Level::Admin);
        Ok(())
    }

    fn transaction(&mut self, s: &'a pb::TransactionStmt) -> Walk {
        use pb::TransactionStmtKind as K;
        let kind = K::try_from(s.kind);
        let savepoint = matches!(kind, Ok(K::TransStmtSavepoint | K::TransStmtRelease | K::TransStmtRollbackTo));
        self.controls_transaction |= !savepoint;
        match kind {
            Ok(K::TransStmtPrepare | K::TransStmtCommitPrepared | K::TransStmtRollbackPrepared) => {
                self.need_level(Action::PrepareTransaction, "transactions", Level::Writer);
                Ok(())
            }
            Ok(K::Undefined) | Err(_) => Err(NotUnderstood::Unknown("transaction control")),
            Ok(_) => self.transaction_modes(&s.options),
        }
    }

    /// READ WRITE, ISOLATION LEVEL and the like, here and in SET TRANSACTION.
    fn transaction_modes(&mut self, modes: &'a [pb::Node]) -> Walk {
        for mode in modes {
            let N::DefElem(mode) = inner(mode)? else {
                return Err(NotUnderstood::Unknown("a transaction mode"));
            };
            self.setting(&mode.defname, mode.arg.as_deref().and_then(constant).as_deref());
        }
        Ok(())
    }

    /// SET and RESET, and the SET clauses of functions, roles and databases.
    pub(super) fn variable_set(&mut self, s: &'a pb::VariableSetStmt) -> Walk {
        use pb::VariableSetKind as K;
        match (K::try_from(s.kind), s.name.as_str()) {
            (Ok(K::VarSetMulti), "TRANSACTION" | "SESSION CHARACTERISTICS") => self.transaction_modes(&s.args),
            (Ok(K::VarSetMulti), "TRANSACTION SNAPSHOT") | (Ok(K::VarResetAll), _) => Ok(()),
            (Ok(K::VarSetValue), name) => {
                self.expressions(&s.args)?;
                let value = match s.args.as_slice() {
                    [value] => constant(value),
                    _ => None,
                };
                self.setting(name, value.as_deref());
                Ok(())
            }
            (Ok(K::VarSetDefault | K::VarSetCurrent | K::VarReset), name) => {
                self.setting(name, None);
                Ok(())
            }
            _ => Err(NotUnderstood::Unknown("SET")),
        }
    }

    fn optional_set(&mut self, set: &'a Option<pb::VariableSetStmt>) -> Walk {
        set.as_ref().map_or(Ok(()), |set| self.variable_set(set))
    }

    fn prepare(&mut self, s: &'a pb::PrepareStmt) -> Walk {
        self.prepares.push(s.name.as_str().into());
        s.argtypes.iter().try_for_each(|argument| self.expression(argument))?;
        self.body(&s.query)
    }

    fn body(&mut self, query: &'a Option<Box<pb::Node>>) -> Walk {
        match query {
            Some(query) => self.statement(query),
            None => Err(NotUnderstood::Unknown("a statement without a body")),
        }
    }

    fn copy(&mut self, s: &'a pb::CopyStmt) -> Walk {
        self.copies |= s.filename.is_empty() && !s.is_program;
        if s.is_program {
            self.need_level(Action::UseServerFile, "programs of the server", Level::Admin);
        } else if !s.filename.is_empty() {
            self.need_level(Action::UseServerFile, "files of the server", Level::Admin);
        }
        if let Some(relation) = &s.relation {
            self.relation(if s.is_from { Action::Insert } else { Action::Select }, relation);
        }
        if let Some(query) = &s.query {
            self.preparable(query)?;
        }
        self.options(&s.options)?;
        self.optional(&s.where_clause)
    }

    fn anonymous_block(&mut self, s: &'a pb::DoStmt) -> Walk {
        self.need_level(Action::Do, "an anonymous block", Level::Owner);
        self.function_options(&s.args)
    }

    fn create_table_as(&mut self, s: &'a pb::CreateTableAsStmt) -> Walk {
        match &s.into {
            Some(into) => self.table_of_into(into)?,
            None => return Err(NotUnderstood::Unknown("CREATE TABLE AS")),
        }
        self.body(&s.query)
    }

    fn create_type(&mut self, name: &'a [pb::Node], values: &'a [pb::Node]) -> Walk {
        let name = strings(name)?;
        self.ddl(Action::Create, "type", &name, Place::of_other(&name));
        self.expressions(values)
    }

    fn plain_ddl(&mut self, action: Action, what: &str, name: &'a [pb::Node]) -> Walk {
        let name = strings(name)?;
        self.ddl(action, what, &name, Place::of_other(&name));
        Ok(())
    }

    fn truncate(&mut self, s: &'a pb::TruncateStmt) -> Walk {
        let mut relations = Vec::with_capacity(s.relations.len());
        for relation in &s.relations {
            match inner(relation)? {
                N::RangeVar(relation) => relations.push(relation),
                _ => return Err(NotUnderstood::Unknown("TRUNCATE")),
            }
        }
        relations.into_iter().for_each(|relation| self.relation(Action::Truncate, relation));
        Ok(())
    }

    fn each_relation(&mut self, action: Action, relations: &'a [pb::Node]) -> Walk {
        for relation in relations {
            match inner(relation)? {
                N::RangeVar(relation) => {
                    let object = super::relations::object(relation);
                    self.need(action, object, Opens::Level(Level::Owner));
                }
                _ => return Err(NotUnderstood::Unknown("a list of relations")),
            }
        }
        Ok(())
    }

    fn maintain(&mut self, all: &'static str, relations: impl Iterator<Item = &'a pb::RangeVar>) {
        let mut some = false;
        for relation in relations {
            some = true;
            self.need(Action::Maintain, super::relations::object(relation), Opens::Level(Level::Owner));
        }
        if !some {
            self.need_level(Action::Maintain, all, Level::Owner);
        }
    }

    fn need_named(&mut self, action: Action, what: &str, name: &str, least: Level) {
        self.need(action, Object::Thing(format!("{what} {name}").into()), Opens::Level(least));
    }

    /// An extension runs its script: owner's if PostgreSQL trusts it, else admin's.
    fn extension(&mut self, action: Action, name: &str) {
        let least = if names::is_trusted_extension(name) { Level::Owner } else { Level::Admin };
        self.need_named(action, "extension", name, least);
    }

    fn extension_options(&mut self, options: &'a [pb::Node]) -> Walk {
        for option in options {
            let N::DefElem(option) = inner(option)? else {
                return Err(NotUnderstood::Unknown("an option of an extension"));
            };
            let schema = option.arg.as_deref().and_then(string).unwrap_or_default();
            if option.defname == "schema" && is_system(schema) {
                self.ddl(Action::Create, "schema", &[schema], Place::SYSTEM);
            }
        }
        Ok(())
    }

    fn drop(&mut self, s: &'a pb::DropStmt) -> Walk {
        for object in &s.objects {
            self.object_of(Action::Drop, s.remove_type, object)?;
        }
        Ok(())
    }

    /// The object of ALTER or COMMENT: a relation, or something by its name.
    fn one_object(
        &mut self,
        action: Action,
        kind: i32,
        relation: &'a Option<pb::RangeVar>,
        object: &'a Option<Box<pb::Node>>,
    ) -> Walk {
        match (relation, object_kind(kind)) {
            (Some(_), (what, Family::Server)) => {
                self.need_level(Action::Administer, what, Level::Admin);
                Ok(())
            }
            (Some(relation), (what, _)) => {
                self.ddl(action, what, &dotted(relation), Place::of(relation));
                Ok(())
            }
            (None, _) => self.object_node(action, kind, object),
        }
    }

    fn object_node(&mut self, action: Action, kind: i32, object: &'a Option<Box<pb::Node>>) -> Walk {
        match object {
            Some(object) => self.object_of(action, kind, object),
            None => Err(NotUnderstood::Unknown("a statement without an object")),
        }
    }

    fn object_of(&mut self, action: Action, kind: i32, object: &'a pb::Node) -> Walk {
        // Casts, transforms and constraints of domains name types; large objects have numbers.
        let name = match inner(object)? {
            N::List(list) => list.items.iter().map(name_of).collect::<Result<Vec<_>, _>>()?.concat(),
            N::Integer(_) | N::Float(_) => Vec::new(),
            _ => name_of(object)?,
        };
        self.object(action, kind, &name);
        Ok(())
    }

    /// DDL on something by its kind and dotted name.
    fn object(&mut self, action: Action, kind: i32, name: &[&str]) {
        let (what, family) = object_kind(kind);
        let built_in = |known: fn(&str) -> bool| match name {
            [name] if known(name) => Place::SYSTEM,
            _ => Place::of_other(name),
        };
        let place = match family {
            Family::Relation => Place::of_dotted(name),
            Family::Member => match name {
                [relation @ .., _] => Place::of_dotted(relation),
                [] => Place::PERMANENT,
            },
            Family::Function => built_in(|name| names::function(name).is_some()),
            Family::Type => built_in(names::is_scalar_type),
            Family::Schema => match name {
                [schema] if is_system(schema) => Place::SYSTEM,
                _ => Place::PERMANENT,
            },
            Family::Extension => {
                let name = name.first().copied().unwrap_or_default();
                if action != Action::Comment {
                    return self.extension(action, name);
                }
                Place::PERMANENT
            }
            Family::Other => Place::of_other(name),
            Family::Server => return self.need_level(Action::Administer, what, Level::Admin),
        };
        self.ddl(action, what, name, place);
    }
}

fn vacuumed(node: &pb::Node) -> Option<&pb::RangeVar> {
    match &node.node {
        Some(N::VacuumRelation(vacuumed)) => vacuumed.relation.as_ref(),
        _ => None,
    }
}
