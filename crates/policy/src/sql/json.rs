//! SQL/JSON: constructors, queries, `JSON_TABLE`. And the end of the list: what is no expression at all.

use pg_query::NodeEnum as N;
use pg_query::protobuf as pb;

use super::NotUnderstood;
use super::walker::{Walk, Walker, inner};

impl<'a> Walker<'a> {
    /// The JSON expressions; any other node is not understood.
    pub(super) fn json(&mut self, node: &'a N) -> Walk {
        match node {
            N::JsonValueExpr(e) => self.json_value(e),
            N::JsonIsPredicate(e) => self.optional(&e.expr),
            N::JsonArgument(e) => self.optional_json_value(&e.val),
            N::JsonFuncExpr(e) => {
                self.optional_json_value(&e.context_item)?;
                self.optional(&e.pathspec)?;
                self.expressions(&e.passing)?;
                self.json_output(&e.output)?;
                self.json_behavior(&e.on_empty)?;
                self.json_behavior(&e.on_error)
            }
            N::JsonKeyValue(e) => self.json_key_value(e),
            N::JsonParseExpr(e) => {
                self.optional_json_value(&e.expr)?;
                self.json_output(&e.output)
            }
            N::JsonScalarExpr(e) => {
                self.optional(&e.expr)?;
                self.json_output(&e.output)
            }
            N::JsonSerializeExpr(e) => {
                self.optional_json_value(&e.expr)?;
                self.json_output(&e.output)
            }
            N::JsonObjectConstructor(e) => {
                self.expressions(&e.exprs)?;
                self.json_output(&e.output)
            }
            N::JsonArrayConstructor(e) => {
                self.expressions(&e.exprs)?;
                self.json_output(&e.output)
            }
            N::JsonArrayQueryConstructor(e) => {
                if let Some(query) = &e.query {
                    self.query(query)?;
                }
                self.json_output(&e.output)
            }
            N::JsonObjectAgg(e) => {
                if let Some(arg) = &e.arg {
                    self.json_key_value(arg)?;
                }
                self.json_aggregate(&e.constructor)
            }
            N::JsonArrayAgg(e) => {
                self.optional_json_value(&e.arg)?;
                self.json_aggregate(&e.constructor)
            }
            _ => Err(NotUnderstood::Unknown("an expression")),
        }
    }

    /// `JSON_TABLE` in FROM.
    pub(super) fn json_table(&mut self, table: &'a pb::JsonTable) -> Walk {
        self.optional_json_value(&table.context_item)?;
        self.json_path(&table.pathspec)?;
        self.expressions(&table.passing)?;
        self.json_behavior(&table.on_error)?;
        self.json_columns(&table.columns)
    }

    fn json_columns(&mut self, columns: &'a [pb::Node]) -> Walk {
        for column in columns {
            let N::JsonTableColumn(column) = inner(column)? else {
                return Err(NotUnderstood::Unknown("a column of JSON_TABLE"));
            };
            self.optional_type(&column.type_name)?;
            self.json_path(&column.pathspec)?;
            self.json_behavior(&column.on_empty)?;
            self.json_behavior(&column.on_error)?;
            self.json_columns(&column.columns)?;
        }
        Ok(())
    }

    fn json_path(&mut self, path: &'a Option<Box<pb::JsonTablePathSpec>>) -> Walk {
        path.as_ref().map_or(Ok(()), |path| self.optional(&path.string))
    }

    fn json_value(&mut self, e: &'a pb::JsonValueExpr) -> Walk {
        self.optional(&e.raw_expr)?;
        self.optional(&e.formatted_expr)
    }

    fn optional_json_value(&mut self, e: &'a Option<Box<pb::JsonValueExpr>>) -> Walk {
        e.as_ref().map_or(Ok(()), |e| self.json_value(e))
    }

    fn json_key_value(&mut self, e: &'a pb::JsonKeyValue) -> Walk {
        self.optional(&e.key)?;
        self.optional_json_value(&e.value)
    }

    fn json_behavior(&mut self, e: &'a Option<Box<pb::JsonBehavior>>) -> Walk {
        e.as_ref().map_or(Ok(()), |e| self.optional(&e.expr))
    }

    fn json_output(&mut self, e: &'a Option<pb::JsonOutput>) -> Walk {
        e.as_ref().map_or(Ok(()), |e| self.optional_type(&e.type_name))
    }

    fn json_aggregate(&mut self, e: &'a Option<Box<pb::JsonAggConstructor>>) -> Walk {
        let Some(e) = e else { return Ok(()) };
        self.json_output(&e.output)?;
        self.optional(&e.agg_filter)?;
        self.expressions(&e.agg_order)?;
        e.over.as_ref().map_or(Ok(()), |window| self.window(window))
    }
}
