//! Queries: SELECT with its clauses, FROM, common table expressions as PostgreSQL scopes them, row locks.
//!
//! Absent: DML, which WITH may hold too (`dml`).

use pg_query::NodeEnum as N;
use pg_query::protobuf as pb;

use super::NotUnderstood;
use super::walker::{Walk, Walker, inner, strings};
use crate::facts::Action;

impl<'a> Walker<'a> {
    /// A query where only SELECT (or VALUES) may stand.
    pub(super) fn query(&mut self, node: &'a pb::Node) -> Walk {
        match inner(node)? {
            N::SelectStmt(select) => self.select(select),
            _ => Err(NotUnderstood::Unknown("a subquery")),
        }
    }

    /// SELECT, VALUES, TABLE, and their unions.
    pub(super) fn select(&mut self, s: &'a pb::SelectStmt) -> Walk {
        // What `name` means holds in a query's own target list, and in no query inside it.
        let outer = self.setting_named.take();
        self.with(&s.with_clause, |walker| walker.select_body(s))?;
        self.setting_named = outer;
        Ok(())
    }

    fn select_body(&mut self, s: &'a pb::SelectStmt) -> Walk {
        if let Some(into) = &s.into_clause {
            self.table_of_into(into)?;
        }
        for arm in [&s.larg, &s.rarg].into_iter().flatten() {
            self.select(arm)?;
        }
        self.distinct(&s.distinct_clause)?;
        self.setting_named = named_setting(s).filter(|_| !self.takes_from_cte(s));
        self.expressions(&s.target_list)?;
        self.setting_named = None;
        self.from(&s.from_clause)?;
        self.optional(&s.where_clause)?;
        self.expressions(&s.group_clause)?;
        self.optional(&s.having_clause)?;
        self.expressions(&s.window_clause)?;
        self.expressions(&s.values_lists)?;
        self.expressions(&s.sort_clause)?;
        self.optional(&s.limit_offset)?;
        self.optional(&s.limit_count)?;
        s.locking_clause.iter().try_for_each(|clause| self.locking(s, clause))
    }

    fn takes_from_cte(&self, s: &pb::SelectStmt) -> bool {
        s.from_clause.iter().any(|item| matches!(&item.node, Some(N::RangeVar(relation)) if self.is_cte(relation)))
    }

    /// Plain DISTINCT is a list with nothing in it.
    fn distinct(&mut self, nodes: &'a [pb::Node]) -> Walk {
        match nodes {
            [only] if only.node.is_none() => Ok(()),
            nodes => self.expressions(nodes),
        }
    }

    /// WITH, then what it serves. A name is visible in later bodies and below, with RECURSIVE in all bodies.
    pub(super) fn with(&mut self, with: &'a Option<pb::WithClause>, body: impl FnOnce(&mut Self) -> Walk) -> Walk {
        let Some(with) = with else { return body(self) };
        let ctes = common_table_expressions(with)?;
        if with.recursive {
            ctes.iter().for_each(|cte| self.show_cte(&cte.ctename));
        }
        for cte in &ctes {
            self.common_table_expression(cte)?;
            if !with.recursive {
                self.show_cte(&cte.ctename);
            }
        }
        body(self)?;
        ctes.iter().for_each(|cte| self.hide_cte(&cte.ctename));
        Ok(())
    }

    fn common_table_expression(&mut self, cte: &'a pb::CommonTableExpr) -> Walk {
        if let Some(cycle) = &cte.cycle_clause {
            self.optional(&cycle.cycle_mark_value)?;
            self.optional(&cycle.cycle_mark_default)?;
        }
        match &cte.ctequery {
            Some(query) => self.preparable(query),
            None => Err(NotUnderstood::Unknown("a common table expression")),
        }
    }

    /// What WITH, PREPARE, COPY and a rule may hold: a query or DML.
    pub(super) fn preparable(&mut self, node: &'a pb::Node) -> Walk {
        match inner(node)? {
            N::SelectStmt(s) => self.select(s),
            N::InsertStmt(s) => self.insert(s),
            N::UpdateStmt(s) => self.update(s),
            N::DeleteStmt(s) => self.delete(s),
            N::MergeStmt(s) => self.merge(s),
            _ => Err(NotUnderstood::Unknown("a statement in a statement")),
        }
    }

    /// The items of FROM or USING.
    pub(super) fn from(&mut self, items: &'a [pb::Node]) -> Walk {
        items.iter().try_for_each(|item| self.item_of_from(item))
    }

    /// One item of FROM.
    pub(super) fn item_of_from(&mut self, item: &'a pb::Node) -> Walk {
        match inner(item)? {
            N::RangeVar(relation) => {
                if !self.is_cte(relation) {
                    self.relation(Action::Select, relation);
                }
                Ok(())
            }
            N::RangeSubselect(sub) => match &sub.subquery {
                Some(query) => self.query(query),
                None => Err(NotUnderstood::Unknown("a subquery in FROM")),
            },
            N::JoinExpr(join) => {
                for side in [&join.larg, &join.rarg] {
                    let side = side.as_deref().ok_or(NotUnderstood::Unknown("a join"))?;
                    self.item_of_from(side)?;
                }
                self.optional(&join.quals)
            }
            N::RangeFunction(function) => self.range_function(function),
            N::RangeTableFunc(table) => self.xml_table(table),
            N::JsonTable(table) => self.json_table(table),
            N::RangeTableSample(sample) => self.sample(sample),
            _ => Err(NotUnderstood::Unknown("an item of FROM")),
        }
    }

    /// `f(…)` and `ROWS FROM (…)`: each function comes with its column definitions, or with nothing.
    fn range_function(&mut self, function: &'a pb::RangeFunction) -> Walk {
        for pair in &function.functions {
            let N::List(pair) = inner(pair)? else {
                return Err(NotUnderstood::Unknown("a function in FROM"));
            };
            match pair.items.as_slice() {
                [call] => self.expression(call)?,
                [call, columns] => {
                    self.expression(call)?;
                    if columns.node.is_some() {
                        self.column_definitions(columns)?;
                    }
                }
                _ => return Err(NotUnderstood::Unknown("a function in FROM")),
            }
        }
        function.coldeflist.iter().try_for_each(|column| self.column_definitions(column))
    }

    fn column_definitions(&mut self, node: &'a pb::Node) -> Walk {
        match inner(node)? {
            N::List(list) => list.items.iter().try_for_each(|item| self.column_definitions(item)),
            N::ColumnDef(column) => self.column_definition(column),
            _ => Err(NotUnderstood::Unknown("a column definition")),
        }
    }

    fn xml_table(&mut self, table: &'a pb::RangeTableFunc) -> Walk {
        self.optional(&table.docexpr)?;
        self.optional(&table.rowexpr)?;
        self.expressions(&table.namespaces)?;
        for column in &table.columns {
            let N::RangeTableFuncCol(column) = inner(column)? else {
                return Err(NotUnderstood::Unknown("a column of XMLTABLE"));
            };
            self.optional_type(&column.type_name)?;
            self.optional(&column.colexpr)?;
            self.optional(&column.coldefexpr)?;
        }
        Ok(())
    }

    /// A sampling method is a function of its name; those of PostgreSQL are safe.
    fn sample(&mut self, sample: &'a pb::RangeTableSample) -> Walk {
        match &sample.relation {
            Some(relation) => self.item_of_from(relation)?,
            None => return Err(NotUnderstood::Unknown("TABLESAMPLE")),
        }
        self.function(&strings(&sample.method)?)?;
        self.expressions(&sample.args)?;
        self.optional(&sample.repeatable)
    }

    fn locking(&mut self, s: &'a pb::SelectStmt, clause: &'a pb::Node) -> Walk {
        let N::LockingClause(clause) = inner(clause)? else {
            return Err(NotUnderstood::Unknown("a locking clause"));
        };
        let mut only = Vec::with_capacity(clause.locked_rels.len());
        for relation in &clause.locked_rels {
            match inner(relation)? {
                N::RangeVar(relation) => only.push(relation.relname.as_str()),
                _ => return Err(NotUnderstood::Unknown("a locking clause")),
            }
        }
        self.lock(s, &only);
        Ok(())
    }

    /// Row locks: `update` on each table locked, through subqueries; `only` names what OF names.
    fn lock(&mut self, s: &'a pb::SelectStmt, only: &[&str]) {
        for arm in [&s.larg, &s.rarg].into_iter().flatten() {
            self.lock_inside(arm);
        }
        s.from_clause.iter().for_each(|item| self.lock_item(item, only));
    }

    /// Locks all of a subquery, whose own WITH hides names.
    fn lock_inside(&mut self, s: &'a pb::SelectStmt) {
        let ctes = s.with_clause.as_ref().map(common_table_expressions).and_then(Result::ok).unwrap_or_default();
        ctes.iter().for_each(|cte| self.show_cte(&cte.ctename));
        self.lock(s, &[]);
        ctes.iter().for_each(|cte| self.hide_cte(&cte.ctename));
    }

    fn lock_item(&mut self, item: &'a pb::Node, only: &[&str]) {
        let meant = |alias: &Option<pb::Alias>, name: &str| {
            let name = alias.as_ref().map_or(name, |alias| alias.aliasname.as_str());
            only.is_empty() || only.contains(&name)
        };
        match &item.node {
            Some(N::RangeVar(r)) if meant(&r.alias, &r.relname) && !self.is_cte(r) => {
                self.relation(Action::Update, r);
            }
            Some(N::RangeSubselect(sub)) if meant(&sub.alias, "") => {
                if let Some(N::SelectStmt(s)) = sub.subquery.as_deref().and_then(|q| q.node.as_ref()) {
                    self.lock_inside(s);
                }
            }
            Some(N::RangeTableSample(sample)) => {
                sample.relation.iter().for_each(|relation| self.lock_item(relation, only));
            }
            Some(N::JoinExpr(join)) => {
                [&join.larg, &join.rarg].into_iter().flatten().for_each(|side| self.lock_item(side, only));
            }
            _ => {}
        }
    }
}

/// The common table expressions of a WITH.
fn common_table_expressions(with: &pb::WithClause) -> Result<Vec<&pb::CommonTableExpr>, NotUnderstood> {
    with.ctes
        .iter()
        .map(|cte| match inner(cte)? {
            N::CommonTableExpr(cte) => Ok(&**cte),
            _ => Err(NotUnderstood::Unknown("a WITH clause")),
        })
        .collect()
}

/// `SELECT … FROM pg_settings WHERE name = 'x'`, as pg_dump sends: there `name` is as good as the literal.
fn named_setting(s: &pb::SelectStmt) -> Option<&str> {
    let [from] = s.from_clause.as_slice() else { return None };
    let Some(N::RangeVar(from)) = &from.node else { return None };
    let Some(N::AExpr(e)) = &s.where_clause.as_ref()?.node else { return None };
    let is_equality = e.kind == pb::AExprKind::AexprOp as i32 && matches!(strings(&e.name).as_deref(), Ok(["="]));
    let is_view = from.relname == "pg_settings" && matches!(from.schemaname.as_str(), "" | "pg_catalog");
    if !is_view || from.alias.is_some() || s.with_clause.is_some() || !is_equality || !is_name(e.lexpr.as_deref()?) {
        return None;
    }
    match &e.rexpr.as_ref()?.node {
        Some(N::AConst(pb::AConst { val: Some(pb::a_const::Val::Sval(value)), .. })) => Some(&value.sval),
        _ => None,
    }
}

/// Whether an expression is just the column `name`.
pub(super) fn is_name(node: &pb::Node) -> bool {
    match &node.node {
        Some(N::ColumnRef(column)) => matches!(strings(&column.fields).as_deref(), Ok(["name"])),
        _ => false,
    }
}

/// The name that a relation goes by in its statement.
pub(super) fn known_as(relation: &pb::RangeVar) -> &str {
    relation.alias.as_ref().map_or(relation.relname.as_str(), |alias| alias.aliasname.as_str())
}
