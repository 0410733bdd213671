//! What pages follow while they are open, as server-sent events: parts of pages, made as the pages are.
//!
//! So many a second at most, and of decisions so many at once, however many are made: a page must not freeze, and the sidecars are
//! asked no more often than their pages are looked at. Deliberately absent: anything that a page without scripts would lack.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;

use super::decisions::{Filter, RowsPart};
use super::page::Frame;
use super::services::{ListPart, PodsPart, rows, sidecars};
use super::{Console, benchmark};

/// Pages that follow at once; each costs a little, and nobody has more open.
const STREAMS_MAX: usize = 64;
static STREAMS: Mutex<usize> = Mutex::new(0);

/// Between two looks at decisions.
const PAUSE: Duration = Duration::from_millis(500);
/// Asked of each sidecar in a look.
const ASKED: usize = 200;
/// Shown of a look; how many more there were is said.
const SHOWN: usize = 25;

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

/// Texts, one an event, until the console drains.
fn events(console: &Console, texts: impl stream::Stream<Item = String> + Send + 'static) -> Response {
    let Some(place) = Place::take() else { return StatusCode::TOO_MANY_REQUESTS.into_response() };
    let drain = console.drain.clone();
    let end = async move { drain.draining().await };
    let events = texts.map(move |text| {
        let _held = &place;
        Ok::<_, Infallible>(Event::default().data(text))
    });
    Sse::new(events.take_until(Box::pin(end))).keep_alive(KeepAlive::default()).into_response()
}

/// A part of a page, made again with each look at the sidecars, and sent if it has changed.
fn parts(
    console: Arc<Console>,
    make: impl Fn(&Console) -> String + Send + Sync + 'static,
) -> impl stream::Stream<Item = String> + Send {
    let looks = console.fleet.looks();
    stream::unfold((console, looks, String::new(), Arc::new(make)), |(console, mut looks, mut last, make)| async move {
        loop {
            let part = make(&console);
            if part != last {
                last.clone_from(&part);
                return Some((part, (console, looks, last, make)));
            }
            looks.changed().await.ok()?;
        }
    })
}

pub(super) async fn services(State(console): State<Arc<Console>>, frame: Frame) -> Response {
    let make = move |console: &Console| ListPart { frame: &frame, rows: rows(console) }.render().unwrap_or_default();
    events(&console, parts(console.clone(), make))
}

pub(super) async fn service(
    State(console): State<Arc<Console>>,
    frame: Frame,
    Path(namespace): Path<String>,
) -> Response {
    let make = move |console: &Console| {
        let settings = console.platform.settings(&namespace).ok();
        PodsPart { frame: &frame, rows: sidecars(console, &namespace, settings.as_ref()) }.render().unwrap_or_default()
    };
    events(&console, parts(console.clone(), make))
}

pub(super) async fn benchmark(State(console): State<Arc<Console>>, frame: Frame) -> Response {
    let make = move |console: &Console| benchmark::progress(console, &frame);
    events(&console, parts(console.clone(), make))
}

pub(super) async fn decisions(
    State(console): State<Arc<Console>>,
    frame: Frame,
    Query(filter): Query<Filter>,
) -> Response {
    let follower = Follower { console: console.clone(), frame, filter, known: None };
    let texts = stream::unfold(follower, |mut follower| async move {
        let text = follower.next().await;
        Some((text, follower))
    });
    events(&console, texts)
}

struct Follower {
    console: Arc<Console>,
    frame: Frame,
    filter: Filter,
    /// Ids of the look before; none before the first, as what was there then is on the page already.
    known: Option<HashSet<String>>,
}

impl Follower {
    /// The next rows that are new.
    async fn next(&mut self) -> String {
        loop {
            if self.known.is_some() {
                tokio::time::sleep(PAUSE).await;
            }
            let last = super::decisions::last(&self.console, &self.filter, ASKED).await;
            let ids = last.iter().map(|record| record.decision.clone()).collect();
            let Some(before) = self.known.replace(ids) else { continue };
            let new: Vec<_> = last.into_iter().filter(|record| !before.contains(&record.decision)).collect();
            if !new.is_empty() {
                let passed_over = new.len().saturating_sub(SHOWN);
                let rows = new.get(passed_over..).unwrap_or_default();
                return RowsPart::new(&self.frame, rows, passed_over).render().unwrap_or_default();
            }
        }
    }
}
