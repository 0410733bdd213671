//! What every sidecar and the issuer say of themselves: settings in force, decisions made. Asked again and again, so that pages
//! show figures at once and rates can be told.
//!
//! Deliberately absent: telling them anything.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use parking_lot::RwLock;
use policy::record::{Line, Record};
use runtime::admin::settings::InForce;
use runtime::http_client::HttpClient;
use tokio::sync::watch;

use super::config::Sidecar;

/// Between two looks at a sidecar: what somebody changed shows in a second.
const PAUSE: Duration = Duration::from_millis(500);
/// A sidecar that has not answered by then is said not to answer: until then, what it said last stands as if it were still so.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two times that pages are told to look again.
const TOLD: Duration = Duration::from_millis(350);
/// Rates are told over about so long.
const SPAN: Duration = Duration::from_secs(5);

/// How a sidecar is.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) sidecar: Sidecar,
    /// What it goes by; none while it does not answer.
    pub(super) settings: Option<InForce>,
    /// Why it does not answer.
    pub(super) trouble: Option<String>,
    /// Decisions a second of late.
    pub(super) decisions: f64,
    /// Denials a second of late.
    pub(super) denials: f64,
    /// Sessions open now.
    pub(super) sessions: f64,
    history: VecDeque<(Instant, f64, f64)>,
}

/// All sidecars.
pub(super) struct Fleet {
    client: HttpClient,
    seen: RwLock<Vec<Seen>>,
    /// Rises whenever pages are to look again.
    looks: watch::Sender<u64>,
}

impl Fleet {
    pub(super) fn new(client: HttpClient, sidecars: Vec<Sidecar>) -> Arc<Self> {
        let new = |sidecar| Seen {
            sidecar,
            settings: None,
            trouble: None,
            decisions: 0.0,
            denials: 0.0,
            sessions: 0.0,
            history: VecDeque::new(),
        };
        let seen = sidecars.into_iter().map(new).collect();
        Arc::new(Self { client, seen: RwLock::new(seen), looks: watch::Sender::new(0) })
    }

    /// Looks for ever.
    pub(super) async fn keep_looking(&self) -> Infallible {
        let sidecars = self.all().into_iter().map(|seen| seen.sidecar).enumerate();
        // Each by itself: one that hangs is not to hold up what is told of all others.
        let looking = join_all(sidecars.map(|(index, sidecar)| self.keep_looking_at(index, sidecar)));
        let telling = async {
            loop {
                tokio::time::sleep(TOLD).await;
                self.looks.send_modify(|looks| *looks += 1);
            }
        };
        tokio::join!(looking, telling).1
    }

    async fn keep_looking_at(&self, index: usize, sidecar: Sidecar) -> Infallible {
        loop {
            let looked = tokio::time::timeout(PATIENCE, self.look(&sidecar.admin)).await;
            let looked = looked.unwrap_or_else(|_| Err(format!("{} did not answer in {PATIENCE:?}", sidecar.admin)));
            if let Some(seen) = self.seen.write().get_mut(index) {
                seen.take(looked, Instant::now());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Tells when to look again.
    pub(super) fn looks(&self) -> watch::Receiver<u64> {
        self.looks.subscribe()
    }

    /// How all are.
    pub(super) fn all(&self) -> Vec<Seen> {
        self.seen.read().clone()
    }

    /// How those of a namespace are.
    pub(super) fn of(&self, namespace: &str) -> Vec<Seen> {
        self.seen.read().iter().filter(|seen| seen.sidecar.service.namespace == namespace).cloned().collect()
    }

    /// Decisions that a sidecar remembers, oldest first, by a query that it understands; none if it does not answer.
    pub(super) async fn decisions(&self, sidecar: &Sidecar, query: &str) -> Vec<Record> {
        let url = format!("{}/decisions?{query}", sidecar.admin);
        let Ok(answer) = self.client.get(&url).await else { return Vec::new() };
        let lines = answer.body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let record = |line: &[u8]| match Line::read(line) {
            Ok(Line::Record(record)) => Some(*record),
            _ => None,
        };
        lines.filter_map(record).collect()
    }

    /// A process's metrics, or why there are none.
    pub(super) async fn metrics(&self, url: &str) -> Result<String, String> {
        let answer = self.client.get(&format!("{url}/metrics")).await.map_err(|error| error.to_string())?;
        Ok(String::from_utf8_lossy(&answer.body).into_owned())
    }

    /// A document of the issuer's.
    pub(super) async fn document(&self, url: &str) -> Result<Vec<u8>, String> {
        let answer = self.client.get(url).await.map_err(|error| error.to_string())?;
        if answer.status == 200 { Ok(answer.body.to_vec()) } else { Err(format!("{url} answered {}", answer.status)) }
    }

    async fn look(&self, admin: &str) -> Result<(InForce, String), String> {
        let settings = self.document(&format!("{admin}/settings")).await?;
        let settings = serde_json::from_slice(&settings).map_err(|error| format!("{admin}/settings: {error}"))?;
        Ok((settings, self.metrics(admin).await?))
    }
}

impl Seen {
    fn take(&mut self, looked: Result<(InForce, String), String>, now: Instant) {
        let (settings, metrics) = match looked {
            Ok(looked) => looked,
            Err(why) => {
                (self.settings, self.trouble) = (None, Some(why));
                (self.decisions, self.denials, self.sessions) = (0.0, 0.0, 0.0);
                return self.history.clear();
            }
        };
        (self.settings, self.trouble) = (Some(settings), None);
        self.sessions = sum(&metrics, "sidegate_sessions", "");
        let all = sum(&metrics, "sidegate_decisions_total", "");
        let denied = sum(&metrics, "sidegate_decisions_total", "decision=\"deny\"");
        // A process that began anew counts from 0 again.
        if self.history.back().is_some_and(|(_, before, _)| *before > all) {
            self.history.clear();
        }
        self.history.push_back((now, all, denied));
        while self.history.len() > 2 && self.history.get(1).is_some_and(|(at, ..)| now.duration_since(*at) > SPAN) {
            self.history.pop_front();
        }
        if let Some((at, all_then, denied_then)) = self.history.front() {
            let seconds = now.duration_since(*at).as_secs_f64().max(0.1);
            (self.decisions, self.denials) = ((all - all_then) / seconds, (denied - denied_then) / seconds);
        }
    }
}

/// The sum over all series of a metric whose labels have a part.
pub(super) fn sum(metrics: &str, name: &str, part: &str) -> f64 {
    let series = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let (labels, value) = rest.rsplit_once(' ')?;
        let is_whole_name = labels.is_empty() || labels.starts_with('{');
        (is_whole_name && labels.contains(part)).then(|| value.parse::<f64>().ok()).flatten()
    });
    series.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = "# TYPE sidegate_sessions gauge\nsidegate_sessions 3\n\
        sidegate_decisions_total{decision=\"allow\",reason=\"role\"} 90\nsidegate_decisions_total{decision=\"deny\",reason=\"role\"} 10\n\
        sidegate_sessions_other 7\n";

    #[test]
    fn series_are_summed_by_name_and_label() {
        assert_eq!(sum(METRICS, "sidegate_sessions", ""), 3.0);
        assert_eq!(sum(METRICS, "sidegate_decisions_total", ""), 100.0);
        assert_eq!(sum(METRICS, "sidegate_decisions_total", "decision=\"deny\""), 10.0);
    }

    #[test]
    fn rates_are_over_seconds_and_begin_anew_with_the_process() {
        let sidecar = Sidecar {
            service: "a/a".parse().unwrap(),
            pod: "a".to_owned(),
            admin: "http://127.0.0.1:1".to_owned(),
            decision_log: None,
        };
        let client = HttpClient::new(None).unwrap();
        let fleet = Fleet::new(client, vec![sidecar]);
        let mut seen = fleet.all().remove(0);
        let settings: InForce = serde_json::from_str(
            r#"{"service":"a/a","version":"1","sign":true,"verify":"true","tokens_not_before":null,"generation":1}"#,
        )
        .unwrap();
        let began = Instant::now();
        let look = |all: u32| Ok((settings.clone(), METRICS.replace(" 90", &format!(" {all}"))));
        seen.take(look(90), began);
        assert_eq!((seen.decisions, seen.sessions), (0.0, 3.0));
        seen.take(look(290), began + Duration::from_secs(2));
        assert_eq!((seen.decisions, seen.denials), (100.0, 0.0));
        seen.take(look(0), began + Duration::from_secs(3));
        assert_eq!(seen.decisions, 0.0, "not less than nothing");
        seen.take(Err("gone".to_owned()), began + Duration::from_secs(4));
        assert_eq!((seen.settings, seen.trouble), (None, Some("gone".to_owned())));
    }
}
