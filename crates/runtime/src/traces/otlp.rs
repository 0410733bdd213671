//! Spans as OTLP's JSON has them: ids in hexadecimal, 64-bit numbers as strings, enumerations as numbers.
//!
//! Deliberately absent: protocol buffers, which every receiver of OTLP over HTTP understands beside JSON.

use std::time::{Duration, SystemTime};

use serde_json::{Value as Json, json};

use super::context::to_hex;
use super::{Span, Value};

/// `SPAN_KIND_SERVER` and `STATUS_CODE_ERROR` of opentelemetry/proto/trace/v1/trace.proto.
const SERVER: u8 = 2;
const ERROR: u8 = 2;
/// `SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK` and `SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK`.
const REMOTE_PARENT: u32 = 0x300;

/// The body of a request that exports spans.
pub(super) fn encode(resource: &[(String, String)], spans: &[Span]) -> Vec<u8> {
    let resource: Vec<_> =
        resource.iter().map(|(name, value)| json!({"key": name, "value": {"stringValue": value}})).collect();
    let body = json!({"resourceSpans": [{
        "resource": {"attributes": resource},
        "scopeSpans": [{
            "scope": {"name": "sidegate", "version": env!("CARGO_PKG_VERSION")},
            "spans": spans.iter().map(span).collect::<Vec<_>>(),
        }],
    }]});
    body.to_string().into_bytes()
}

fn span(span: &Span) -> Json {
    let attributes: Vec<_> = span
        .attributes
        .iter()
        .map(|(name, value)| match value {
            Value::Text(text) => json!({"key": name, "value": {"stringValue": text}}),
            Value::Number(number) => json!({"key": name, "value": {"intValue": number.to_string()}}),
        })
        .collect();
    let mut written = json!({
        "traceId": to_hex(&span.context.trace),
        "spanId": to_hex(&span.context.span),
        "name": span.name,
        "kind": SERVER,
        "startTimeUnixNano": nanoseconds(span.at, Duration::ZERO),
        "endTimeUnixNano": nanoseconds(span.at, span.took),
        "attributes": attributes,
        "status": if span.failed { json!({"code": ERROR}) } else { json!({}) },
    });
    if let (Some(parent), Some(written)) = (&span.parent, written.as_object_mut()) {
        written.insert("parentSpanId".to_owned(), to_hex(&parent.span).into());
        written.insert("flags".to_owned(), (REMOTE_PARENT | 1).into());
    }
    written
}

fn nanoseconds(at: SystemTime, later: Duration) -> String {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default() + later;
    since.as_nanos().to_string()
}
