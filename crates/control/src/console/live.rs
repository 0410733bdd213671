//! What pages follow while they are open, as server-sent events: parts of pages, made as the pages are.
//!
//! So many a second at most, and of decisions so many at once, however many are made: a page must not freeze, and the sidecars are
//! asked no more often than their pages are looked at. Deliberately absent: anything that a page without scripts would lack.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use askama::Template;
use axum::extract::{Path, Query};
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt, stream};
use parking_lot::Mutex;
use policy::record::Record;

use super::decisions::{Filter, RowsPart};
use super::page::Frame;
use super::services::{ListPart, PodsPart, rows, sidecars};
use super::{Console, Signed, benchmark, blocking};

/// Pages that follow at once; each costs a little, and nobody has more open.
const STREAMS_MAX: usize = 64;
static STREAMS: Mutex<usize> = Mutex::new(0);

/// Between two looks at decisions.
const PAUSE: Duration = Duration::from_millis(500);
/// Asked of each sidecar in a look.
const ASKED: usize = 200;
/// Shown of a look; how many more there were is said.
const SHOWN: usize = 25;

/// Whoever signs out sees no more than this longer what pages follow that are still open.
const SESSION_LOOK: Duration = Duration::from_millis(500);

/// What an event brings: a part of the page anew, or rows that come to a table.
const PART: &str = "part";
const ROWS: &str = "rows";

/// A place among the streams, given back when it is dropped.
struct Place;

impl Place {
    fn take() -> Option<Self> {
        let mut streams = STREAMS.lock();
        (*streams < STREAMS_MAX).then(|| {
            *streams += 1;
            Self
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *STREAMS.lock() -= 1;
    }
}

/// Events until the console drains, or the session ends by which they were asked for.
fn answer(console: Arc<Console>, frame: Frame, events: impl Stream<Item = Event> + Send + 'static) -> Response {
    let Some(place) = Place::take() else { return StatusCode::TOO_MANY_REQUESTS.into_response() };
    let events = events.map(move |event| {
        let _held = &place;
        Ok::<_, Infallible>(event)
    });
    let end = async move {
        tokio::select! {
            () = console.common.drain.draining() => {}
            () = end_of_session(&console, &frame) => {}
        }
    };
    Sse::new(events.take_until(Box::pin(end))).keep_alive(KeepAlive::default()).into_response()
}

async fn end_of_session(console: &Console, frame: &Frame) {
    while frame.viewer.as_ref().is_some_and(|viewer| console.common.sessions.lasts(viewer, Instant::now())) {
        tokio::time::sleep(SESSION_LOOK).await;
    }
}

/// A part of a page, made again with each look at the sidecars, and sent if it has changed.
fn parts(
    console: Arc<Console>,
    make: impl Fn(&Console) -> String + Send + Sync + 'static,
) -> impl Stream<Item = Event> + Send {
    let looks = console.fleet.looks();
    stream::unfold((console, looks, String::new(), Arc::new(make)), |(console, mut looks, mut last, make)| async move {
        loop {
            let (shown, making) = (console.clone(), make.clone());
            // Settings and documents are read for it.
            let part = blocking(move || making(&shown)).await.ok()?;
            if part != last {
                last.clone_from(&part);
                return Some((Event::default().event(PART).data(part), (console, looks, last, make)));
            }
            looks.changed().await.ok()?;
        }
    })
}

pub(super) async fn services(Signed(console): Signed, frame: Frame) -> Response {
    let following = frame.clone();
    let make = move |console: &Console| ListPart { frame: &frame, rows: rows(console) }.render().unwrap_or_default();
    answer(console.clone(), following, parts(console, make))
}

/// How its pods are, and its decisions: one stream, as a browser has six connections for all its pages together.
pub(super) async fn service(Signed(console): Signed, frame: Frame, Path(namespace): Path<String>) -> Response {
    let (following, filter) = (frame.clone(), Filter { service: namespace.clone(), ..Filter::default() });
    let rows = rows_to_come(console.clone(), frame.clone(), filter);
    let make = move |console: &Console| {
        let settings = console.platform.settings(&namespace).ok();
        PodsPart { frame: &frame, rows: sidecars(console, &namespace, settings.as_ref()) }.render().unwrap_or_default()
    };
    answer(console.clone(), following, stream::select(parts(console, make), rows))
}

pub(super) async fn benchmark(Signed(console): Signed, frame: Frame) -> Response {
    let following = frame.clone();
    let make = move |console: &Console| benchmark::progress(console, &frame);
    answer(console.clone(), following, parts(console, make))
}

pub(super) async fn decisions(Signed(console): Signed, frame: Frame, Query(filter): Query<Filter>) -> Response {
    answer(console.clone(), frame.clone(), rows_to_come(console, frame, filter))
}

fn rows_to_come(console: Arc<Console>, frame: Frame, filter: Filter) -> impl Stream<Item = Event> + Send {
    let follower = Follower { console, frame, filter, known: None, gap_told: false };
    stream::unfold(follower, |mut follower| async move {
        let rows = follower.next().await;
        Some((Event::default().event(ROWS).data(rows), follower))
    })
}

struct Follower {
    console: Arc<Console>,
    frame: Frame,
    filter: Filter,
    /// Ids of the look before; none before the first, as what was there then is on the page already.
    known: Option<HashSet<String>>,
    /// The last row says that there is a gap; it need not be said again.
    gap_told: bool,
}

impl Follower {
    /// The next rows that are new.
    async fn next(&mut self) -> String {
        loop {
            if self.known.is_some() {
                tokio::time::sleep(PAUSE).await;
            }
            let looked_at = super::decisions::looked_at(&self.console, &self.filter, ASKED).await;
            let ids = looked_at.iter().flatten().map(|record| record.decision.clone()).collect();
            let Some(before) = self.known.replace(ids) else { continue };
            let gap = looked_at.iter().any(|records| is_gap(records, &before));
            let is_new = |record: &Record| !before.contains(&record.decision) && self.filter.takes(record);
            let mut new: Vec<Record> = looked_at.into_iter().flatten().filter(is_new).collect();
            if new.is_empty() && (!gap || self.gap_told) {
                continue;
            }
            new.sort_by(|a, b| a.time.cmp(&b.time));
            self.gap_told = gap && new.is_empty();
            let passed_over = new.len().saturating_sub(SHOWN);
            let rows = new.get(passed_over..).unwrap_or_default();
            return RowsPart::new(&self.frame, rows, passed_over, gap).render().unwrap_or_default();
        }
    }
}

/// Whether a sidecar has decided more since the last look than it was asked for, so that some were never looked at.
fn is_gap(records: &[Record], before: &HashSet<String>) -> bool {
    records.len() >= ASKED && !records.iter().any(|record| before.contains(&record.decision))
}
