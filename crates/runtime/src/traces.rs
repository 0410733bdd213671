//! Traces: spans of requests, sent to a collector of OpenTelemetry's (OTLP over HTTP, in JSON).
//!
//! `context` reads and writes W3C's `traceparent`, `options` says where spans go and which are kept, `otlp` writes them,
//! `export` sends them. Nobody waits for it: beyond a bounded queue spans are lost, and counted. Own code, as the SDK's
//! processor keeps to itself what it loses, works on a thread of its own, and with OTLP's crate is fifteen more.
//! Deliberately absent: spans within spans, events, links, baggage and `tracestate` of our own.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use prometheus_client::metrics::counter::Counter;
use tokio::sync::{mpsc, oneshot};

use crate::http_client::HttpClient;
use crate::tls::TlsError;

mod context;
mod export;
mod options;
mod otlp;
#[cfg(test)]
mod tests;

pub use context::{TRACEPARENT, TRACESTATE, TraceContext};
pub use options::{Options, OptionsError, Sampler};

use export::Message;

/// Spans that wait to be sent: some seconds of a busy sidecar, in two megabytes or so.
const QUEUE: usize = 2048;

/// Attributes that one span may have.
const ATTRIBUTES_MAX: usize = 32;

/// Bytes of an attribute's text that are kept.
const TEXT_MAX: usize = 1024;

/// Starts spans and sends those that are kept. Clones share it.
#[derive(Debug, Clone)]
pub struct Tracer {
    queue: mpsc::Sender<Message>,
    lost: Counter,
    sampler: Sampler,
}

/// A value of an attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Words.
    Text(Cow<'static, str>),
    /// A number.
    Number(i64),
}

/// One request under way, of the kind SERVER.
#[derive(Debug)]
pub struct Span {
    name: Cow<'static, str>,
    context: TraceContext,
    parent: Option<TraceContext>,
    at: SystemTime,
    started: Instant,
    took: Duration,
    attributes: Vec<(&'static str, Value)>,
    failed: bool,
}

/// What a request's trace is.
#[derive(Debug)]
pub struct Begun {
    /// The request's own place in it, for whoever is called next.
    pub context: TraceContext,
    /// None, where the trace is not kept.
    pub span: Option<Span>,
}

impl Tracer {
    /// Starts to send spans; `lost` counts those that are not. Must be called on a runtime, as whose task it sends.
    ///
    /// # Errors
    /// When the collector's authorities cannot be used.
    pub fn start(options: Options, lost: Counter) -> Result<Self, TlsError> {
        let client = HttpClient::new(options.ca_file.as_deref())?;
        let (queue, received) = mpsc::channel(QUEUE);
        let sampler = options.sampler;
        tokio::spawn(export::run(options, client, received, lost.clone()));
        Ok(Self { queue, lost, sampler })
    }

    /// A request begins. None, if there is no randomness for its id.
    #[must_use]
    pub fn begin(&self, parent: Option<TraceContext>, started: Instant) -> Option<Begun> {
        let sample = |id: &[u8; 16]| self.sampler.keeps(parent.as_ref(), id);
        let context = match &parent {
            Some(parent) => parent.child(sample)?,
            None => TraceContext::root(sample)?,
        };
        let span = context.is_sampled().then(|| Span {
            name: Cow::Borrowed("request"),
            context,
            parent,
            // As long ago as the request is.
            at: SystemTime::now().checked_sub(started.elapsed()).unwrap_or(SystemTime::UNIX_EPOCH),
            started,
            took: Duration::ZERO,
            attributes: Vec::with_capacity(16),
            failed: false,
        });
        Some(Begun { context, span })
    }

    /// A request is over. Never waits.
    pub fn end(&self, mut span: Span) {
        span.took = span.started.elapsed();
        if self.queue.try_send(Message::Span(Box::new(span))).is_err() {
            self.lost.inc();
        }
    }

    /// Has all that is over sent, and waits for it, at most for `deadline`. Cancel safe.
    pub async fn flush(&self, deadline: Duration) {
        let (sender, done) = oneshot::channel();
        let flushed = async {
            if self.queue.send(Message::Flush(sender)).await.is_ok() {
                let _ = done.await;
            }
        };
        let _ = tokio::time::timeout(deadline, flushed).await;
    }
}

impl Span {
    /// Gives it a name: of few, not one a request.
    pub fn rename(&mut self, name: impl Into<Cow<'static, str>>) {
        self.name = cut(name.into());
    }

    /// Adds an attribute, or says it anew.
    pub fn set(&mut self, name: &'static str, value: impl Into<Value>) {
        let value = match value.into() {
            Value::Text(text) => Value::Text(cut(text)),
            number @ Value::Number(_) => number,
        };
        if let Some((_, known)) = self.attributes.iter_mut().find(|(known, _)| *known == name) {
            *known = value;
        } else if self.attributes.len() < ATTRIBUTES_MAX {
            self.attributes.push((name, value));
        }
    }

    /// The request failed, by the server's own standards.
    pub fn fail(&mut self) {
        self.failed = true;
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Text(text.into())
    }
}

impl From<&Arc<str>> for Value {
    fn from(text: &Arc<str>) -> Self {
        Self::Text(text.to_string().into())
    }
}

fn cut(text: Cow<'static, str>) -> Cow<'static, str> {
    if text.len() <= TEXT_MAX {
        return text;
    }
    let end = (0..=TEXT_MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    Cow::Owned(text.get(..end).unwrap_or_default().to_owned())
}
