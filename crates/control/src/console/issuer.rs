//! The issuer: its keys, its certificates' authorities, and the exchanges it has made.
//!
//! All of it is public already, in its key set and its metrics. Deliberately absent: rotating, which is `sidegate issuer rotate`'s.

use askama::Template;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;

use super::Signed;
use super::config::Steered;
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

pub(super) async fn show(Signed(console): Signed, frame: Frame) -> Response {
    let frame = frame.at("issuer");
    let (url, namespace) = match &console.common.config.steered {
        Steered::Local(local) => (&local.issuer, ""),
        Steered::Cluster(cluster) => (&cluster.issuer, cluster.namespace.as_str()),
    };
    let (keys, metrics) = console.fleet.issuer(url, namespace).await;
    let keys = keys.and_then(|body| serde_json::from_slice::<KeySet>(&body).map_err(|error| error.to_string()));
    let mut trouble: Vec<String> =
        [keys.as_ref().err(), metrics.as_ref().err()].into_iter().flatten().cloned().collect();
    trouble.dedup();
    let keys = keys.map(|set| set.keys).unwrap_or_default();
    let metrics = String::from_utf8(metrics.unwrap_or_default()).unwrap_or_default();
    let series = metrics.lines().filter_map(series).collect();
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
