//! Results as JSON: `{"fields", "rowAsArray", "rows", "command", "rowCount"}`, written while they arrive.
//!
//! The names are those of node-postgres and of the Neon driver. Deliberately absent: all of a result at once.

use std::io::Write;

use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use wire::WireError;
use wire::frame::split_cstr;

/// How rows are written.
#[derive(Clone, Copy)]
pub(super) struct Style {
    /// As arrays of values, not as objects.
    pub(super) arrays: bool,
    /// Values as PostgreSQL writes them, not as JSON's own kinds.
    pub(super) raw: bool,
}

/// A result's columns.
pub(super) struct Columns {
    fields: Vec<Field>,
    style: Style,
    rows: u64,
}

/// A column, as node-postgres describes one.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Field {
    name: String,
    #[serde(rename = "tableID")]
    table_id: u32,
    #[serde(rename = "columnID")]
    column_id: i16,
    #[serde(rename = "dataTypeID")]
    data_type_id: u32,
    data_type_size: i16,
    data_type_modifier: i32,
    format: &'static str,
    /// A later column has its name: as an object's member, that one is meant.
    #[serde(skip)]
    hidden: bool,
}

impl Columns {
    /// From a `RowDescription`'s body; an empty one stands for a statement without rows.
    pub(super) fn read(body: &[u8], style: Style) -> Result<Columns, WireError> {
        let mut rest = Reader(body);
        let count = if body.is_empty() { 0 } else { rest.u16()? };
        let mut fields = (0..count).map(|_| rest.field()).collect::<Result<Vec<_>, _>>()?;
        let mut seen = std::collections::HashSet::new();
        for field in fields.iter_mut().rev() {
            field.hidden = !seen.insert(field.name.clone());
        }
        Ok(Columns { fields, style, rows: 0 })
    }

    /// Writes what stands before the rows.
    pub(super) fn begin(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"fields\":");
        json(out, &self.fields);
        // Writing to memory cannot fail, here and below.
        let _ = write!(out, ",\"rowAsArray\":{},\"rows\":[", self.style.arrays);
    }

    /// Writes a `DataRow`.
    pub(super) fn row(&mut self, out: &mut Vec<u8>, body: &[u8]) -> Result<(), WireError> {
        let mut rest = Reader(body);
        if usize::from(rest.u16()?) != self.fields.len() {
            return Err(WireError::Malformed("DataRow message"));
        }
        if self.rows > 0 {
            out.push(b',');
        }
        self.rows += 1;
        out.push(if self.style.arrays { b'[' } else { b'{' });
        let mut first = true;
        for field in &self.fields {
            let value = rest.value()?;
            if field.hidden && !self.style.arrays {
                continue;
            }
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
            if !self.style.arrays {
                json(out, &field.name);
                out.push(b':');
            }
            write_value(out, value, field.data_type_id, self.style.raw);
        }
        out.push(if self.style.arrays { b']' } else { b'}' });
        Ok(())
    }
}

/// Writes what stands behind the rows. `tag` is `CommandComplete`'s: `SELECT 5`, `INSERT 0 1`, `CREATE TABLE`.
pub(super) fn end(out: &mut Vec<u8>, tag: &str) {
    out.extend_from_slice(b"],\"command\":");
    json(out, tag.split(' ').next().unwrap_or_default());
    let count = tag.rsplit(' ').next().and_then(|count| count.parse::<u64>().ok());
    out.extend_from_slice(b",\"rowCount\":");
    json(out, &count);
    out.push(b'}');
}

/// PostgreSQL's types that JSON has a kind for, by their OIDs (`pg_type.dat`); those of arrays beside.
mod oid {
    pub(super) const BOOL: u32 = 16;
    pub(super) const INT2: u32 = 21;
    pub(super) const INT4: u32 = 23;
    pub(super) const FLOAT4: u32 = 700;
    pub(super) const FLOAT8: u32 = 701;
    pub(super) const JSON: u32 = 114;
    pub(super) const JSONB: u32 = 3802;
    const TEXT: u32 = 25;

    /// The type of an array's elements. Numbers beyond what JSON's readers keep exactly, dates and the like are text.
    pub(super) fn element(array: u32) -> Option<u32> {
        Some(match array {
            1000 => BOOL,
            1005 => INT2,
            1007 => INT4,
            1021 => FLOAT4,
            1022 => FLOAT8,
            199 => JSON,
            3807 => JSONB,
            // name, text, char, varchar, int8, numeric, uuid, date, time, timestamp, timestamptz, timetz, interval,
            // inet, cidr, macaddr, oid, bytea, money, xml, bit, varbit.
            1002 | 1003 | 1009 | 1014 | 1015 | 1016 | 1231 | 2951 | 1182 | 1183 | 1115 | 1185 | 1270 | 1187 | 1041
            | 651 | 1040 | 1028 | 1001 | 791 | 143 | 1561 | 1563 => TEXT,
            _ => return None,
        })
    }
}

fn write_value(out: &mut Vec<u8>, value: Option<&[u8]>, data_type: u32, raw: bool) {
    let Some(value) = value else {
        return out.extend_from_slice(b"null");
    };
    // A server whose encoding is SQL_ASCII may send what is not UTF-8.
    let text = String::from_utf8_lossy(value);
    if raw {
        return json(out, &*text);
    }
    match oid::element(data_type).and_then(|element| array(&text, element)) {
        Some(written) => out.extend_from_slice(&written),
        None => scalar(out, &text, data_type),
    }
}

fn scalar(out: &mut Vec<u8>, text: &str, data_type: u32) {
    let as_it_is = match data_type {
        oid::BOOL => match text {
            "t" => return out.extend_from_slice(b"true"),
            "f" => return out.extend_from_slice(b"false"),
            _ => false,
        },
        oid::INT2 | oid::INT4 => text.parse::<i32>().is_ok(),
        // NaN and the infinities are no JSON.
        oid::FLOAT4 | oid::FLOAT8 | oid::JSON | oid::JSONB => serde_json::from_str::<&RawValue>(text).is_ok(),
        _ => false,
    };
    if as_it_is { out.extend_from_slice(text.as_bytes()) } else { json(out, text) }
}

/// An array literal as JSON; `None` if it is not understood, and then it stays text.
fn array(text: &str, element: u32) -> Option<Vec<u8>> {
    // Bounds other than 1 stand before the braces: `[0:1]={a,b}`.
    let body = if text.starts_with('[') { text.split_once('=')?.1 } else { text };
    let mut out = Vec::with_capacity(text.len());
    let mut parser = ArrayText { rest: body, element };
    parser.array(&mut out, 0)?;
    parser.rest.is_empty().then_some(out)
}

struct ArrayText<'a> {
    rest: &'a str,
    element: u32,
}

impl ArrayText<'_> {
    fn array(&mut self, out: &mut Vec<u8>, depth: usize) -> Option<()> {
        /// PostgreSQL's own bound (`MAXDIM`).
        const DEPTH_LIMIT: usize = 6;
        if depth >= DEPTH_LIMIT {
            return None;
        }
        self.rest = self.rest.strip_prefix('{')?;
        out.push(b'[');
        if let Some(rest) = self.rest.strip_prefix('}') {
            self.rest = rest;
            out.push(b']');
            return Some(());
        }
        loop {
            match self.rest.chars().next()? {
                '{' => self.array(out, depth + 1)?,
                '"' => self.quoted(out)?,
                _ => self.plain(out)?,
            }
            let (mark, rest) = self.rest.split_at_checked(1)?;
            self.rest = rest;
            match mark {
                "," => out.push(b','),
                "}" => {
                    out.push(b']');
                    return Some(());
                }
                _ => return None,
            }
        }
    }

    fn plain(&mut self, out: &mut Vec<u8>) -> Option<()> {
        let end = self.rest.find([',', '}'])?;
        let (text, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest;
        match text {
            "" => return None,
            "NULL" => out.extend_from_slice(b"null"),
            text => scalar(out, text, self.element),
        }
        Some(())
    }

    fn quoted(&mut self, out: &mut Vec<u8>) -> Option<()> {
        let mut text = String::new();
        let mut chars = self.rest.char_indices().skip(1);
        loop {
            match chars.next()? {
                (at, '"') => {
                    self.rest = self.rest.get(at + 1..)?;
                    scalar(out, &text, self.element);
                    return Some(());
                }
                (_, '\\') => text.push(chars.next()?.1),
                (_, c) => text.push(c),
            }
        }
    }
}

fn json(out: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    // Neither strings nor numbers nor our own structs can fail to be written to memory.
    let _ = serde_json::to_writer(out, value);
}

/// Reads a message's body from front to back.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(WireError::Malformed("message of a result"))?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u16(&mut self) -> Result<u16, WireError> {
        Ok(u16::from_be_bytes(self.take()?))
    }

    fn i16(&mut self) -> Result<i16, WireError> {
        Ok(i16::from_be_bytes(self.take()?))
    }

    fn u32(&mut self) -> Result<u32, WireError> {
        Ok(u32::from_be_bytes(self.take()?))
    }

    fn i32(&mut self) -> Result<i32, WireError> {
        Ok(i32::from_be_bytes(self.take()?))
    }

    fn field(&mut self) -> Result<Field, WireError> {
        let (name, rest) = split_cstr(self.0).ok_or(WireError::Malformed("RowDescription message"))?;
        self.0 = rest;
        let field = Field {
            name: String::from_utf8_lossy(name).into_owned(),
            table_id: self.u32()?,
            column_id: self.i16()?,
            data_type_id: self.u32()?,
            data_type_size: self.i16()?,
            data_type_modifier: self.i32()?,
            format: "text",
            hidden: false,
        };
        self.i16()?;
        Ok(field)
    }

    fn value(&mut self) -> Result<Option<&'a [u8]>, WireError> {
        let malformed = WireError::Malformed("DataRow message");
        match usize::try_from(self.i32()?) {
            Err(_) => Ok(None),
            Ok(length) => {
                let (value, rest) = self.0.split_at_checked(length).ok_or(malformed)?;
                self.0 = rest;
                Ok(Some(value))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str, data_type: u32) -> String {
        let mut out = Vec::new();
        write_value(&mut out, Some(text.as_bytes()), data_type, false);
        let written = String::from_utf8(out).unwrap();
        assert!(serde_json::from_str::<serde_json::Value>(&written).is_ok(), "{written}");
        written
    }

    #[test]
    fn values_have_jsons_kinds_where_nothing_is_lost() {
        for (text, data_type, json) in [
            ("t", oid::BOOL, "true"),
            ("-7", oid::INT4, "-7"),
            ("9223372036854775807", 20, "\"9223372036854775807\""),
            ("1e-05", oid::FLOAT8, "1e-05"),
            ("NaN", oid::FLOAT8, "\"NaN\""),
            ("-Infinity", oid::FLOAT4, "\"-Infinity\""),
            ("{\"a\": [1, 2]}", oid::JSONB, "{\"a\": [1, 2]}"),
            ("a\"b\u{1}", 25, "\"a\\\"b\\u0001\""),
        ] {
            assert_eq!(written(text, data_type), json);
        }
    }

    #[test]
    fn arrays_are_arrays() {
        assert_eq!(written("{1,NULL,3}", 1007), "[1,null,3]");
        assert_eq!(written("{{1,2},{3,4}}", 1007), "[[1,2],[3,4]]");
        assert_eq!(written("[0:1]={5,6}", 1007), "[5,6]");
        assert_eq!(written("{}", 1009), "[]");
        assert_eq!(written(r#"{a,"b c","NULL","q\"\\",NULL}"#, 1009), r#"["a","b c","NULL","q\"\\",null]"#);
        assert_eq!(written(r#"{"{\"a\": 1}"}"#, 3807), r#"[{"a": 1}]"#);
        for odd in ["{1,}", "{", "{1", "x", "{1}}", "{\"a"] {
            assert_eq!(written(odd, 1007), serde_json::to_string(odd).unwrap(), "what is not understood stays text");
        }
    }

    #[test]
    fn tags_say_command_and_count() {
        let said = |tag| {
            let mut out = Vec::new();
            end(&mut out, tag);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(said("INSERT 0 3"), r#"],"command":"INSERT","rowCount":3}"#);
        assert_eq!(said("CREATE TABLE"), r#"],"command":"CREATE","rowCount":null}"#);
        assert_eq!(said(""), r#"],"command":"","rowCount":null}"#);
    }
}
