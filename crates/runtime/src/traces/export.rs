//! The task that sends spans, in batches, one request at a time.
//!
//! A collector that is away for a moment is asked again; while it is, the queue fills, and what does not fit is lost.
//! Deliberately absent: `Retry-After`, and keeping spans over a restart.

use std::sync::Arc;
use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::{Options, Span, otlp};
use crate::http_client::{HttpClient, HttpError, Upload};

/// Spans in one request.
const BATCH: usize = 512;
/// How long a span waits for others.
const DELAY: Duration = Duration::from_secs(1);
/// Times between tries of one batch.
const BACKOFF: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(2)];
/// Failures in a row are said in the log at most this often.
const SAY_EVERY: Duration = Duration::from_secs(60);
/// Statuses after which a client shall try again (OTLP, §OTLP/HTTP Response).
const PASSING: [u16; 4] = [429, 502, 503, 504];

/// What the task is told.
#[derive(Debug)]
pub(super) enum Message {
    /// Send this, soon.
    Span(Box<Span>),
    /// Send all that came before, now, and say so.
    Flush(oneshot::Sender<()>),
}

/// Sends until nobody can end a span any more.
pub(super) async fn run(options: Options, client: HttpClient, mut queue: mpsc::Receiver<Message>, lost: Counter) {
    let mut exporter = Exporter { headers: headers(&options), options: Arc::new(options), client, lost, said: None };
    let mut is_open = true;
    while is_open {
        let mut batch = Vec::new();
        let mut flushed = None;
        let mut due = None;
        while batch.len() < BATCH {
            let message = match due {
                None => queue.recv().await,
                Some(due) => match tokio::time::timeout_at(due, queue.recv()).await {
                    Ok(message) => message,
                    Err(_) => break,
                },
            };
            match message {
                Some(Message::Span(span)) => batch.push(*span),
                Some(Message::Flush(done)) => {
                    flushed = Some(done);
                    break;
                }
                None => {
                    is_open = false;
                    break;
                }
            }
            due.get_or_insert_with(|| Instant::now() + DELAY);
        }
        exporter.send(batch).await;
        if let Some(done) = flushed {
            let _ = done.send(());
        }
    }
}

struct Exporter {
    options: Arc<Options>,
    headers: Vec<(HeaderName, HeaderValue)>,
    client: HttpClient,
    lost: Counter,
    said: Option<Instant>,
}

impl Exporter {
    async fn send(&mut self, batch: Vec<Span>) {
        if batch.is_empty() {
            return;
        }
        let count = batch.len();
        // Putting hundreds of spans into words takes milliseconds, which connections must not wait for.
        let options = self.options.clone();
        let encoded = tokio::task::spawn_blocking(move || otlp::encode(&options.resource, &batch)).await;
        let result = match encoded {
            Ok(body) => self.try_to_post(body.into()).await,
            Err(_) => {
                Err(HttpError::Answer(self.options.endpoint.clone(), "the spans could not be written".to_owned()))
            }
        };
        if let Err(error) = result {
            self.lost.inc_by(count as u64);
            if self.said.is_none_or(|said| said.elapsed() >= SAY_EVERY) {
                tracing::warn!(%error, spans = count, "spans are lost: {}", error.advice());
                self.said = Some(Instant::now());
            }
        }
    }

    async fn try_to_post(&self, body: bytes::Bytes) -> Result<(), HttpError> {
        let mut pauses = BACKOFF.into_iter();
        loop {
            let result = self.post(body.clone()).await;
            let is_passing = match &result {
                Err(HttpError::Status(_, status)) => PASSING.contains(status),
                Err(HttpError::Connect(..)) => true,
                _ => false,
            };
            match pauses.next() {
                Some(pause) if is_passing => tokio::time::sleep(pause).await,
                _ => return result,
            }
        }
    }

    async fn post(&self, body: bytes::Bytes) -> Result<(), HttpError> {
        let upload = Upload { content_type: "application/json", headers: self.headers.clone(), body };
        let answer = self.client.upload(&self.options.endpoint, upload).await?;
        match answer.status {
            200..=299 => Ok(()),
            status => Err(HttpError::Status(self.options.endpoint.clone(), status)),
        }
    }
}

/// Those that cannot be sent are said once, and left out.
fn headers(options: &Options) -> Vec<(HeaderName, HeaderValue)> {
    let header = |(name, value): &(String, String)| {
        let parsed = HeaderName::try_from(name.as_str()).ok().zip(HeaderValue::try_from(value.as_str()).ok());
        if parsed.is_none() {
            tracing::warn!(name, "a header field for the traces' endpoint cannot be sent, and is left out");
        }
        parsed.map(|(name, mut value)| {
            value.set_sensitive(true);
            (name, value)
        })
    };
    options.headers.iter().filter_map(header).collect()
}
