//! `sidegate inventory`, hidden: the demo's HTTP service where there is no Prometheus to play it.
//!
//! Anybody who reaches it may list, read, add and delete: its sidecar is what decides. Whom to thank for an item it
//! takes from the header that the sidecar sets. Deliberately absent: storage.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use axum::{Json, Router};
use clap::Args;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

/// Set by the sidecar alone: it takes away what a caller sends under this name.
const SUBJECT_HEADER: &str = "x-sidegate-subject";

/// Arguments of `sidegate inventory`.
#[derive(Args)]
pub struct InventoryArgs {
    /// Where to listen.
    #[arg(long, value_name = "ADDRESS")]
    listen: SocketAddr,
}

#[derive(Clone, Serialize, Deserialize)]
struct Item {
    name: String,
    count: u32,
    #[serde(default, skip_deserializing)]
    added_by: Option<String>,
}

#[derive(Clone, Default)]
struct Shelf(Arc<Mutex<BTreeMap<u32, Item>>>);

impl Shelf {
    fn items(&self) -> MutexGuard<'_, BTreeMap<u32, Item>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serve until a signal ends the process.
pub fn run(args: InventoryArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(args.listen).await;
        let listener = listener.with_context(|| format!("cannot listen on {}", args.listen))?;
        axum::serve(listener, routes(stocked())).await?;
        Ok(ExitCode::SUCCESS)
    })
}

fn stocked() -> Shelf {
    let shelf = Shelf::default();
    let stock = [("lantern", 12), ("rope", 40), ("compass", 7)];
    let items = stock.map(|(name, count)| Item { name: name.into(), count, added_by: None });
    shelf.items().extend((1..).zip(items));
    shelf
}

fn routes(shelf: Shelf) -> Router {
    Router::new().route("/items", get(list).post(add)).route("/items/{id}", get(read).delete(remove)).with_state(shelf)
}

async fn list(State(shelf): State<Shelf>) -> Json<BTreeMap<u32, Item>> {
    Json(shelf.items().clone())
}

async fn read(State(shelf): State<Shelf>, Path(id): Path<u32>) -> Result<Json<Item>, StatusCode> {
    shelf.items().get(&id).cloned().map(Json).ok_or(StatusCode::NOT_FOUND)
}

async fn add(State(shelf): State<Shelf>, headers: HeaderMap, Json(item): Json<Item>) -> (StatusCode, Json<Item>) {
    let added_by = headers.get(SUBJECT_HEADER).and_then(|subject| subject.to_str().ok()).map(str::to_owned);
    let item = Item { added_by, ..item };
    let mut items = shelf.items();
    let id = items.last_key_value().map_or(1, |(last, _)| last.saturating_add(1));
    items.insert(id, item.clone());
    (StatusCode::CREATED, Json(item))
}

async fn remove(State(shelf): State<Shelf>, Path(id): Path<u32>) -> StatusCode {
    if shelf.items().remove(&id).is_some() { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND }
}
