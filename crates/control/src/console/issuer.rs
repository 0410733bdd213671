//! The issuer: its keys, its certificates' authorities, and the exchanges it has made.
//!
//! All of it is public already, in its key set and its metrics. Deliberately absent: rotating, which is `sidegate issuer rotate`'s.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;

use super::Console;
use super::page::{Frame, html};

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Key>,
}

#[derive(Deserialize)]
struct Key {
    kid: String,
    #[serde(default)]
    alg: String,
    #[serde(default)]
    kty: String,
}

/// A series of a metric.
struct Series {
    name: String,
    labels: String,
    value: String,
}

#[derive(Template)]
#[template(path = "console/issuer.html")]
struct Show<'a> {
    frame: &'a Frame,
    url: &'a str,
    keys: Vec<Key>,
    series: Vec<Series>,
    trouble: Vec<String>,
}

pub(super) async fn show(State(console): State<Arc<Console>>, frame: Frame) -> Response {
    let frame = frame.at("issuer");
    let url = &console.config.local.issuer;
    let mut trouble = Vec::new();
    let keys = match console.fleet.document(&format!("{url}/jwks")).await {
        Ok(body) => serde_json::from_slice::<KeySet>(&body).map_err(|error| error.to_string()),
        Err(why) => Err(why),
    };
    let keys = keys.map_or_else(
        |why| {
            trouble.push(why);
            Vec::new()
        },
        |set| set.keys,
    );
    let series = match console.fleet.metrics(url).await {
        Ok(text) => text.lines().filter_map(series).collect(),
        Err(why) => {
            trouble.push(why);
            Vec::new()
        }
    };
    html(StatusCode::OK, &Show { frame: &frame, url, keys, series, trouble })
}

/// Counters and gauges of ours; histograms' buckets say little in a list.
fn series(line: &str) -> Option<Series> {
    let line = line.strip_prefix("sidegate_")?;
    let (name, value) = line.rsplit_once(' ')?;
    let (name, labels) = name.split_once('{').map_or((name, ""), |(name, labels)| (name, labels.trim_end_matches('}')));
    let is_of_histogram = ["_bucket", "_sum", "_count"].iter().any(|end| name.ends_with(end));
    let series = Series { name: name.to_owned(), labels: labels.replace('"', ""), value: value.to_owned() };
    (!is_of_histogram).then_some(series)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_and_gauges_are_shown_with_their_labels() {
        let one = series("sidegate_token_exchanges_total{result=\"ok\"} 7").unwrap();
        assert_eq!(
            (one.name.as_str(), one.labels.as_str(), one.value.as_str()),
            ("token_exchanges_total", "result=ok", "7")
        );
        assert!(series("sidegate_x_bucket{le=\"1\"} 7").is_none() && series("process_x 1").is_none());
    }
}
