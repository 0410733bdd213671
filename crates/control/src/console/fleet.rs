//! What every sidecar and the issuer say of themselves: settings in force, decisions made. Asked again and again, so that pages
//! show figures at once and rates can be told.
//!
//! Deliberately absent: telling them anything.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use parking_lot::{Mutex, RwLock};
use policy::record::{Line, Record};
use runtime::admin::settings::InForce;
use runtime::http_client::HttpClient;
use runtime::kubernetes::Client;
use tokio::sync::watch;

use super::config::Sidecar;
use super::platform::Cluster;

mod pods;
mod way;

use way::Way;

/// Between two looks at a sidecar: what somebody changed shows in a second.
const PAUSE: Duration = Duration::from_millis(500);
/// A sidecar that has not answered by then is said not to answer: until then, what it said last stands as if it were still so.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two times that pages are told to look again.
const TOLD: Duration = Duration::from_millis(350);
/// In a cluster: between two looks at all pods, each of which is a request through the API server.
const PODS_PAUSE: Duration = Duration::from_secs(1);
/// As many of those at once.
const AT_ONCE: usize = 16;
/// Pods of which figures are asked; of more, the first by name.
const PODS_MAX: usize = 200;
/// Nobody is asked for a person who has looked at no page for so long.
const UNWATCHED: Duration = Duration::from_secs(30);
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
    way: Way,
    seen: RwLock<Vec<Seen>>,
    /// When a page was last made of it.
    watched: Mutex<Instant>,
    /// Rises whenever pages are to look again.
    looks: watch::Sender<u64>,
}

impl Fleet {
    /// These sidecars, and no others.
    pub(super) fn new(client: HttpClient, sidecars: Vec<Sidecar>) -> Arc<Self> {
        Self::over(Way::Http(client), sidecars.into_iter().map(Seen::new).collect())
    }

    /// Pods, as far as the client's owner may ask them.
    pub(super) fn of_pods(client: Client) -> Arc<Self> {
        Self::over(Way::Pods(client), Vec::new())
    }

    fn over(way: Way, seen: Vec<Seen>) -> Arc<Self> {
        let (seen, watched) = (RwLock::new(seen), Mutex::new(Instant::now()));
        Arc::new(Self { way, seen, watched, looks: watch::Sender::new(0) })
    }

    /// Looks for ever.
    pub(super) async fn keep_looking(&self) -> Infallible {
        let sidecars = self.all().into_iter().map(|seen| seen.sidecar);
        // Each by itself: one that hangs is not to hold up what is told of all others.
        let looking = join_all(sidecars.map(|sidecar| self.keep_looking_at(sidecar)));
        tokio::join!(looking, self.keep_telling()).1
    }

    /// The same at pods, which come and go; as long as somebody looks at a page.
    pub(super) async fn keep_looking_at_pods(&self, cluster: &Cluster) -> Infallible {
        let looking = async {
            loop {
                if self.is_watched() {
                    self.have(pods::sidecars(&cluster.pods()));
                    let sidecars: Vec<Sidecar> = self.seen.read().iter().map(|seen| seen.sidecar.clone()).collect();
                    let looks = sidecars.iter().take(PODS_MAX).map(|sidecar| self.look_at(sidecar));
                    stream::iter(looks).for_each_concurrent(AT_ONCE, |look| look).await;
                }
                tokio::time::sleep(PODS_PAUSE).await;
            }
        };
        tokio::join!(looking, self.keep_telling()).1
    }

    async fn keep_telling(&self) -> Infallible {
        loop {
            tokio::time::sleep(TOLD).await;
            self.looks.send_modify(|looks| *looks += 1);
        }
    }

    async fn keep_looking_at(&self, sidecar: Sidecar) -> Infallible {
        loop {
            self.look_at(&sidecar).await;
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn look_at(&self, sidecar: &Sidecar) {
        let looked = tokio::time::timeout(PATIENCE, self.look(&sidecar.admin)).await;
        let looked = looked.unwrap_or_else(|_| Err(format!("{} did not answer in {PATIENCE:?}", sidecar.admin)));
        let mut all = self.seen.write();
        if let Some(seen) = all.iter_mut().find(|seen| seen.sidecar.admin == sidecar.admin) {
            seen.take(looked, Instant::now());
        }
    }

    fn is_watched(&self) -> bool {
        self.watched.lock().elapsed() < UNWATCHED
    }

    /// There are these now, of which some were there before.
    fn have(&self, sidecars: Vec<Sidecar>) {
        let mut all = self.seen.write();
        let mut before: HashMap<String, Seen> = all.drain(..).map(|seen| (seen.sidecar.admin.clone(), seen)).collect();
        let again = |sidecar: Sidecar| before.remove(&sidecar.admin).unwrap_or_else(|| Seen::new(sidecar));
        all.extend(sidecars.into_iter().map(again));
        for seen in all.iter_mut().skip(PODS_MAX) {
            seen.trouble =
                Some(format!("not asked: there are more than {PODS_MAX} pods; sign in for some namespaces only"));
        }
    }

    /// Tells when to look again.
    pub(super) fn looks(&self) -> watch::Receiver<u64> {
        self.looks.subscribe()
    }

    /// How all are.
    pub(super) fn all(&self) -> Vec<Seen> {
        *self.watched.lock() = Instant::now();
        self.seen.read().clone()
    }

    /// How those of a namespace are.
    pub(super) fn of(&self, namespace: &str) -> Vec<Seen> {
        self.all().into_iter().filter(|seen| seen.sidecar.service.namespace == namespace).collect()
    }

    /// Decisions that a sidecar remembers, oldest first, by a query that it understands; none if it does not answer.
    pub(super) async fn decisions(&self, sidecar: &Sidecar, query: &str) -> Vec<Record> {
        let Ok(answer) = self.way.get_nearby(&sidecar.admin, &format!("/decisions?{query}")).await else {
            return Vec::new();
        };
        let lines = answer.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let record = |line: &[u8]| match Line::read(line) {
            Ok(Line::Record(record)) => Some(*record),
            _ => None,
        };
        lines.filter_map(record).collect()
    }

    /// The issuer's key set and metrics, or why there are none.
    pub(super) async fn issuer(
        &self,
        url: &str,
        namespace: &str,
    ) -> (Result<Vec<u8>, String>, Result<Vec<u8>, String>) {
        self.way.issuer(url, namespace).await
    }

    async fn look(&self, admin: &str) -> Result<(InForce, String), String> {
        let (settings, metrics) = tokio::try_join!(self.way.get(admin, "/settings"), self.way.get(admin, "/metrics"))?;
        let settings = serde_json::from_slice(&settings).map_err(|error| format!("{admin}/settings: {error}"))?;
        Ok((settings, String::from_utf8_lossy(&metrics).into_owned()))
    }
}

impl Seen {
    fn new(sidecar: Sidecar) -> Self {
        Self {
            sidecar,
            settings: None,
            trouble: None,
            decisions: 0.0,
            denials: 0.0,
            sessions: 0.0,
            history: VecDeque::new(),
        }
    }

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
