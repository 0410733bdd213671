//! Expressions: every kind that the grammar makes, down to the last argument.
//!
//! Only raw trees come from the parser; the node kinds of analysed and planned trees are not understood.
//! Absent: JSON (`json`) and the statements in subqueries (`select`).

use pg_query::NodeEnum as N;
use pg_query::protobuf as pb;

use super::NotUnderstood;
use super::names;
use super::walker::{Walk, Walker, inner, string, strings};

impl<'a> Walker<'a> {
    /// All expressions of a list.
    pub(super) fn expressions(&mut self, nodes: &'a [pb::Node]) -> Walk {
        nodes.iter().try_for_each(|node| self.expression(node))
    }

    /// An expression that may be missing.
    pub(super) fn optional(&mut self, node: &'a Option<Box<pb::Node>>) -> Walk {
        node.as_deref().map_or(Ok(()), |node| self.expression(node))
    }

    /// One expression.
    pub(super) fn expression(&mut self, node: &'a pb::Node) -> Walk {
        match inner(node)? {
            N::AConst(_)
            | N::ParamRef(_)
            | N::SetToDefault(_)
            | N::AStar(_)
            | N::CurrentOfExpr(_)
            | N::SqlvalueFunction(_)
            | N::MergeSupportFunc(_)
            | N::String(_)
            | N::Integer(_)
            | N::Float(_)
            | N::Boolean(_)
            | N::BitString(_) => Ok(()),
            N::ColumnRef(column) => self.column(column),
            N::AExpr(e) => self.operation(e),
            N::BoolExpr(e) => self.expressions(&e.args),
            N::SubLink(e) => self.sublink(e),
            N::NullTest(e) => self.optional(&e.arg),
            N::BooleanTest(e) => self.optional(&e.arg),
            N::CaseExpr(e) => {
                self.optional(&e.arg)?;
                self.expressions(&e.args)?;
                self.optional(&e.defresult)
            }
            N::CaseWhen(e) => {
                self.optional(&e.expr)?;
                self.optional(&e.result)
            }
            N::CoalesceExpr(e) => self.expressions(&e.args),
            N::MinMaxExpr(e) => self.expressions(&e.args),
            N::FuncCall(e) => self.call(e),
            N::NamedArgExpr(e) => self.optional(&e.arg),
            N::AArrayExpr(e) => self.expressions(&e.elements),
            N::RowExpr(e) => self.expressions(&e.args),
            N::AIndirection(e) => self.indirection(e),
            N::AIndices(e) => {
                self.optional(&e.lidx)?;
                self.optional(&e.uidx)
            }
            N::TypeCast(e) => {
                self.optional(&e.arg)?;
                self.optional_type(&e.type_name)
            }
            N::TypeName(e) => self.type_name(e),
            N::CollateClause(e) => self.optional(&e.arg),
            N::GroupingFunc(e) => self.expressions(&e.args),
            N::GroupingSet(e) => self.expressions(&e.content),
            N::List(e) => self.expressions(&e.items),
            N::MultiAssignRef(e) => self.optional(&e.source),
            N::SortBy(e) => {
                self.optional(&e.node)?;
                self.sort_operator(&e.use_op)
            }
            N::ResTarget(e) => {
                self.fields(&e.indirection, false, false)?;
                self.optional(&e.val)
            }
            N::WindowDef(e) => self.window(e),
            N::XmlExpr(e) => {
                self.expressions(&e.named_args)?;
                self.expressions(&e.args)
            }
            N::XmlSerialize(e) => {
                self.optional(&e.expr)?;
                self.optional_type(&e.type_name)
            }
            other => self.json(other),
        }
    }

    /// A window, named or spelt out.
    pub(super) fn window(&mut self, window: &'a pb::WindowDef) -> Walk {
        self.expressions(&window.partition_clause)?;
        self.expressions(&window.order_clause)?;
        self.optional(&window.start_offset)?;
        self.optional(&window.end_offset)
    }

    /// A type: its modifiers are expressions; its name reads nothing.
    pub(super) fn type_name(&mut self, name: &'a pb::TypeName) -> Walk {
        strings(&name.names)?;
        self.expressions(&name.typmods)?;
        self.expressions(&name.array_bounds)
    }

    /// A type that may be missing.
    pub(super) fn optional_type(&mut self, name: &'a Option<pb::TypeName>) -> Walk {
        name.as_ref().map_or(Ok(()), |name| self.type_name(name))
    }

    fn column(&mut self, column: &'a pb::ColumnRef) -> Walk {
        self.column_named(&column.fields);
        match column.fields.as_slice() {
            [_] => Ok(()),
            [.., last] => match string(last) {
                Some(name) => self.field(name, false),
                None => Ok(()),
            },
            [] => Err(NotUnderstood::Unknown("a column")),
        }
    }

    fn operation(&mut self, e: &'a pb::AExpr) -> Walk {
        use pb::AExprKind as K;
        match pb::AExprKind::try_from(e.kind) {
            Ok(K::AexprOp | K::AexprOpAny | K::AexprOpAll) => self.operator(&e.name)?,
            // The grammar itself puts these operators' names: `=`, `~~` and their kin of pg_catalog.
            Ok(
                K::AexprDistinct
                | K::AexprNotDistinct
                | K::AexprNullif
                | K::AexprIn
                | K::AexprLike
                | K::AexprIlike
                | K::AexprSimilar
                | K::AexprBetween
                | K::AexprNotBetween
                | K::AexprBetweenSym
                | K::AexprNotBetweenSym,
            ) => {}
            Ok(K::Undefined) | Err(_) => return Err(NotUnderstood::Unknown("an operator")),
        }
        self.optional(&e.lexpr)?;
        self.optional(&e.rexpr)
    }

    fn sublink(&mut self, e: &'a pb::SubLink) -> Walk {
        self.optional(&e.testexpr)?;
        if !e.oper_name.is_empty() {
            self.operator(&e.oper_name)?;
        }
        match &e.subselect {
            Some(query) => self.query(query),
            None => Err(NotUnderstood::Unknown("a subquery")),
        }
    }

    fn sort_operator(&mut self, name: &'a [pb::Node]) -> Walk {
        if name.is_empty() { Ok(()) } else { self.operator(name) }
    }

    fn indirection(&mut self, e: &'a pb::AIndirection) -> Walk {
        self.optional(&e.arg)?;
        let scalar = e.arg.as_deref().is_some_and(is_scalar);
        self.fields(&e.indirection, scalar, e.arg.as_deref().is_some_and(has_scalar_elements))
    }

    /// Fields and subscripts one after the other. What a call on a plain value gives, and an element of a plain array, is
    /// taken for plain, too: a field of it that is none is a call.
    fn fields(&mut self, nodes: &'a [pb::Node], mut scalar: bool, elements: bool) -> Walk {
        for node in nodes {
            match inner(node)? {
                N::String(name) => self.field(&name.sval, scalar)?,
                N::AStar(_) => {}
                N::AIndices(_) => self.expression(node)?,
                _ => return Err(NotUnderstood::Unknown("a field")),
            }
            scalar &= elements || matches!(inner(node)?, N::String(_));
        }
        Ok(())
    }
}

/// Whether a value plainly has no fields, so that `(value).f` can only call `f`.
fn is_scalar(node: &pb::Node) -> bool {
    match &node.node {
        Some(N::AConst(_) | N::SqlvalueFunction(_) | N::AArrayExpr(_)) => true,
        Some(N::BoolExpr(_) | N::NullTest(_) | N::BooleanTest(_)) => true,
        Some(N::TypeCast(cast)) => cast.type_name.as_ref().is_some_and(is_scalar_type),
        Some(N::CollateClause(_)) => true,
        Some(N::FuncCall(call)) => match strings(&call.funcname).as_deref() {
            Ok([name] | ["pg_catalog", name]) => names::function(name).is_some_and(|f| f.scalar),
            _ => false,
        },
        Some(N::AExpr(e)) => e.lexpr.as_deref().is_none_or(is_scalar) && e.rexpr.as_deref().is_some_and(is_scalar),
        _ => false,
    }
}

/// Whether a value is plainly no array of rows: a subscript of it is as plain as itself.
fn has_scalar_elements(node: &pb::Node) -> bool {
    match &node.node {
        Some(N::TypeCast(cast)) => cast.type_name.as_ref().is_some_and(has_scalar_name),
        _ => false,
    }
}

fn is_scalar_type(name: &pb::TypeName) -> bool {
    has_scalar_name(name) || !name.array_bounds.is_empty()
}

fn has_scalar_name(name: &pb::TypeName) -> bool {
    match strings(&name.names).as_deref() {
        Ok([name] | ["pg_catalog", name]) => names::is_scalar_type(name),
        _ => false,
    }
}
