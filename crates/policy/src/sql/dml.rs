//! INSERT, UPDATE, DELETE, MERGE: the rights on the target, and `select` on it where its columns are read.
//!
//! A target is a relation, never a common table expression.

use pg_query::NodeEnum as N;
use pg_query::protobuf as pb;

use super::NotUnderstood;
use super::select::known_as;
use super::settings::is_fixed;
use super::walker::{Walk, Walker, constant, inner};
use crate::facts::{Action, Object, Opens};

/// A missing target is a tree that no grammar makes.
const NO_TARGET: NotUnderstood = NotUnderstood::Unknown("a statement without a target");

impl<'a> Walker<'a> {
    pub(super) fn insert(&mut self, s: &'a pb::InsertStmt) -> Walk {
        let target = s.relation.as_ref().ok_or(NO_TARGET)?;
        self.with(&s.with_clause, |walker| {
            walker.relation(Action::Insert, target);
            walker.expressions(&s.cols)?;
            if let Some(source) = &s.select_stmt {
                walker.query(source)?;
            }
            let qualifiers = qualifiers(target, &s.returning_clause);
            let read = walker.watching(qualifiers, |walker| {
                if let Some(conflict) = &s.on_conflict_clause {
                    walker.on_conflict(target, conflict)?;
                }
                walker.returning(&s.returning_clause)
            })?;
            walker.read_if(read, target);
            Ok(())
        })
    }

    /// ON CONFLICT reads the columns of its target, named or through a constraint.
    fn on_conflict(&mut self, target: &'a pb::RangeVar, conflict: &'a pb::OnConflictClause) -> Walk {
        use pb::OnConflictAction as A;
        match pb::OnConflictAction::try_from(conflict.action) {
            Ok(A::OnconflictNothing) => {}
            Ok(A::OnconflictUpdate) => self.relation(Action::Update, target),
            _ => return Err(NotUnderstood::Unknown("ON CONFLICT")),
        }
        if let Some(infer) = &conflict.infer {
            self.relation(Action::Select, target);
            for element in &infer.index_elems {
                self.index_element(element)?;
            }
            self.optional(&infer.where_clause)?;
        }
        self.expressions(&conflict.target_list)?;
        self.optional(&conflict.where_clause)
    }

    pub(super) fn update(&mut self, s: &'a pb::UpdateStmt) -> Walk {
        let target = s.relation.as_ref().ok_or(NO_TARGET)?;
        self.with(&s.with_clause, |walker| {
            walker.relation(Action::Update, target);
            walker.settings_view(target, &s.where_clause);
            walker.from(&s.from_clause)?;
            let read = walker.watching(qualifiers(target, &s.returning_clause), |walker| {
                walker.expressions(&s.target_list)?;
                walker.optional(&s.where_clause)?;
                walker.returning(&s.returning_clause)
            })?;
            walker.read_if(read, target);
            Ok(())
        })
    }

    pub(super) fn delete(&mut self, s: &'a pb::DeleteStmt) -> Walk {
        let target = s.relation.as_ref().ok_or(NO_TARGET)?;
        self.with(&s.with_clause, |walker| {
            walker.relation(Action::Delete, target);
            walker.from(&s.using_clause)?;
            let read = walker.watching(qualifiers(target, &s.returning_clause), |walker| {
                walker.optional(&s.where_clause)?;
                walker.returning(&s.returning_clause)
            })?;
            walker.read_if(read, target);
            Ok(())
        })
    }

    pub(super) fn merge(&mut self, s: &'a pb::MergeStmt) -> Walk {
        let target = s.relation.as_ref().ok_or(NO_TARGET)?;
        self.with(&s.with_clause, |walker| {
            walker.relation(Action::Merge, target);
            walker.relation(Action::Select, target);
            match &s.source_relation {
                Some(source) => walker.item_of_from(source)?,
                None => return Err(NotUnderstood::Unknown("MERGE without a source")),
            }
            walker.optional(&s.join_condition)?;
            for clause in &s.merge_when_clauses {
                walker.merge_branch(target, clause)?;
            }
            walker.returning(&s.returning_clause)
        })
    }

    fn merge_branch(&mut self, target: &'a pb::RangeVar, clause: &'a pb::Node) -> Walk {
        use pb::CmdType as C;
        let N::MergeWhenClause(clause) = inner(clause)? else {
            return Err(NotUnderstood::Unknown("a branch of MERGE"));
        };
        match pb::CmdType::try_from(clause.command_type) {
            Ok(C::CmdInsert) => self.relation(Action::Insert, target),
            Ok(C::CmdUpdate) => self.relation(Action::Update, target),
            Ok(C::CmdDelete) => self.relation(Action::Delete, target),
            Ok(C::CmdNothing) => {}
            _ => return Err(NotUnderstood::Unknown("a branch of MERGE")),
        }
        self.optional(&clause.condition)?;
        self.expressions(&clause.target_list)?;
        self.expressions(&clause.values)
    }

    fn returning(&mut self, returning: &'a Option<pb::ReturningClause>) -> Walk {
        returning.as_ref().map_or(Ok(()), |returning| self.expressions(&returning.exprs))
    }

    fn read_if(&mut self, read: bool, target: &pb::RangeVar) {
        if read {
            self.relation(Action::Select, target);
        }
    }

    /// `UPDATE pg_settings` is `set_config`; what is fixed for all is so here too.
    fn settings_view(&mut self, target: &pb::RangeVar, condition: &Option<Box<pb::Node>>) {
        if target.relname != "pg_settings" {
            return;
        }
        let mut names = Vec::new();
        if let Some(condition) = condition {
            constants(condition, &mut names);
        }
        for name in names.into_iter().filter(|name| is_fixed(name)) {
            self.need(Action::Set, Object::Thing(super::setting_name(&name)), Opens::Nobody);
        }
    }
}

/// What the target's columns may be qualified with.
fn qualifiers<'a>(target: &'a pb::RangeVar, returning: &'a Option<pb::ReturningClause>) -> Vec<&'a str> {
    let mut names = vec![known_as(target), "old", "new"];
    for option in returning.iter().flat_map(|returning| &returning.options) {
        if let Some(N::ReturningOption(option)) = &option.node {
            names.push(&option.value);
        }
    }
    names
}

/// The constants of a condition of the usual kinds.
fn constants(node: &pb::Node, found: &mut Vec<String>) {
    found.extend(constant(node));
    match &node.node {
        Some(N::AExpr(e)) => [&e.lexpr, &e.rexpr].into_iter().flatten().for_each(|n| constants(n, found)),
        Some(N::BoolExpr(e)) => e.args.iter().for_each(|n| constants(n, found)),
        Some(N::List(e)) => e.items.iter().for_each(|n| constants(n, found)),
        Some(N::AArrayExpr(e)) => e.elements.iter().for_each(|n| constants(n, found)),
        Some(N::TypeCast(e)) => e.arg.iter().for_each(|n| constants(n, found)),
        _ => {}
    }
}
