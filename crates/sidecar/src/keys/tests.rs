//! Keys found by discovery at an issuer on a real socket, which goes away, misbehaves, and comes back with another key.

use std::io::Write;

use parking_lot::Mutex;
use testkit::hostile::{self, DISCOVERY, Issuer, KEYS, Misbehaviour};
use tracing_subscriber::fmt::MakeWriter;

use super::*;

/// How long a test waits for what must happen, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(15);
/// What is promised for the time from the issuer's recovery to its new keys.
const RECOVERY: Duration = Duration::from_secs(5);
/// More than what a body of 1 MiB, and the buffers of two sockets, come to.
const SENT_LIMIT: u64 = 16 << 20;

fn start(issuer: &Issuer) -> (Keys, KeyMetrics) {
    let metrics = KeyMetrics::default();
    (Keys::start(HttpClient::new(None).unwrap(), issuer.url(), metrics.clone()), metrics)
}

impl Keys {
    fn has(&self, kid: &str) -> bool {
        self.known().is_some_and(|known| known.keys.contains(kid))
    }

    /// Waits until a key is known; gives the time that it took.
    async fn until(&self, kid: &str) -> Duration {
        let (started, mut state) = (Instant::now(), self.state.clone());
        let has = |state: &State| state.known.as_ref().is_some_and(|known| known.keys.contains(kid));
        tokio::time::timeout(PATIENCE, state.wait_for(has)).await.expect("the key in time").unwrap();
        started.elapsed()
    }
}

async fn until(what: &str, mut come: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !come() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The log's lines, of this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn lines(&self, issuer: &str, part: &str) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().clone()).unwrap();
        text.lines().filter(|line| line.contains(issuer) && line.contains(part)).map(ToOwned::to_owned).collect()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Log;
    fn make_writer(&'a self) -> Log {
        self.clone()
    }
}

fn logged() -> (Log, tracing::subscriber::DefaultGuard) {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(log.clone()).finish();
    (log, tracing::subscriber::set_default(subscriber))
}

/// The most memory that this process ever had, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[tokio::test]
async fn no_misbehaviour_costs_keys_time_or_memory() {
    use Misbehaviour::*;
    let (log, _guard) = logged();
    let before = peak();
    let mut trials = Vec::new();
    for how in hostile::ALL {
        let label = match how {
            Hang | HangMidBody | Dribble => "timeout",
            Broken | Redirect => "status",
            Garbage | Huge | HugeChunked | Reset => "answer",
            Html | Empty | Unusable => "key_set",
            WrongIssuer => "discovery",
            TlsOnPlain => "connect",
        };
        if !matches!(how, WrongIssuer | TlsOnPlain) {
            trials.push(tokio::spawn(survives(how, KEYS, label, log.clone())));
        }
        if how != Unusable {
            let label = if matches!(label, "key_set") { "discovery" } else { label };
            trials.push(tokio::spawn(survives(how, DISCOVERY, label, log.clone())));
        }
    }
    assert!(trials.len() > 20);
    for trial in trials {
        trial.await.unwrap();
    }
    // Two dozen clients at once, four of them flooded.
    let grown = peak() - before;
    assert!(grown < 48 << 20, "{} MiB", grown >> 20);
}

async fn survives(how: Misbehaviour, path: &'static str, label: &'static str, log: Log) {
    let issuer = Issuer::start("one").await;
    let (keys, metrics) = start(&issuer);
    keys.until("one").await;

    issuer.misbehave(path, Some(how));
    let asked = Instant::now();
    keys.refresh().await;
    assert!(asked.elapsed() < REFRESH_WAIT + Duration::from_secs(1), "{how:?}: {:?}", asked.elapsed());
    until(&format!("{how:?} at {path} counted twice as {label}"), || metrics.count(label) >= 2).await;
    assert!(keys.has("one"), "{how:?}");
    assert!(issuer.sent() / metrics.count(label) < SENT_LIMIT, "{how:?}: {}", issuer.sent());
    let warnings = log.lines(issuer.url(), "WARN");
    assert_eq!(warnings.len(), 1, "{how:?}: {warnings:?}");
    assert!(warnings[0].contains("those known stay in use") && warnings[0].contains("todo=\"see "), "{warnings:?}");

    issuer.publish("two");
    issuer.misbehave(path, None);
    let took = keys.until("two").await;
    assert!(took < RECOVERY, "{how:?} at {path}: {took:?}");
    assert!(!keys.has("one"), "{how:?}: a withdrawn key stays");
    assert_eq!(log.lines(issuer.url(), "can be fetched again").len(), 1, "{how:?}");
    assert_eq!(log.lines(issuer.url(), "WARN").len(), 1, "{how:?}");
}

#[tokio::test]
async fn who_asks_for_an_unknown_key_waits_for_a_fetch_that_began_later() {
    let issuer = Issuer::start("one").await;
    let (keys, metrics) = start(&issuer);
    keys.until("one").await;
    // However often, and at whatever moment, it is asked: nobody is put off, and the issuer hears of it seldom.
    let started = Instant::now();
    for kid in ["two", "three", "four"] {
        issuer.publish(kid);
        let waiting: Vec<_> = (0..50).map(|_| keys.clone()).map(async |keys| keys.refresh().await).collect();
        futures_util::future::join_all(waiting).await;
        assert!(keys.has(kid), "{kid}");
    }
    let intervals = started.elapsed().div_duration_f64(INTERVAL).ceil();
    assert!(metrics.count("ok") as f64 <= intervals + 1.0, "{} in {intervals}", metrics.count("ok"));
    assert!(issuer.asked() as f64 <= intervals + 1.0);
}

#[tokio::test]
async fn keys_are_fetched_as_often_as_the_issuer_wants() {
    let issuer = Issuer::start("one").await;
    issuer.headers("Cache-Control: public, max-age=1\r\n");
    let (keys, _) = start(&issuer);
    keys.until("one").await;
    let before = keys.known().unwrap();
    let asked = issuer.asked();
    until("a second look", || issuer.asked() > asked + 1).await;
    assert!(Arc::ptr_eq(&before, &keys.known().unwrap()), "the same keys are the same set");
    assert!(keys.age().unwrap() < 2.5);
    issuer.publish("two");
    // Nobody asked.
    assert!(keys.until("two").await < RECOVERY);
}

#[test]
fn what_the_issuer_wants_has_its_limits() {
    for (wanted, seconds) in [(None, 60), (Some(0), 1), (Some(30), 30), (Some(u64::MAX), 60)] {
        assert_eq!(period(wanted.map(Duration::from_secs)), Duration::from_secs(seconds), "{wanted:?}");
    }
}

#[tokio::test]
async fn an_issuer_with_another_clock_is_told_of_once() {
    let (log, _guard) = logged();
    let issuer = Issuer::start("one").await;
    issuer.headers("Cache-Control: max-age=1\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n");
    let (keys, metrics) = start(&issuer);
    keys.until("one").await;
    let expected = runtime::clock::now() - 784_111_777;
    until("two fetches", || metrics.count("ok") >= 2).await;
    assert!((metrics.skew() - expected).abs() < 5, "{} is not {expected}", metrics.skew());
    let warnings = log.lines(issuer.url(), "WARN");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("ahead of the issuer's") && warnings[0].contains("NTP"), "{warnings:?}");

    issuer.headers("Cache-Control: max-age=1\r\n");
    let seen = metrics.count("ok");
    until("two more", || metrics.count("ok") >= seen + 2).await;
    assert_eq!(log.lines(issuer.url(), "agree again").len(), 0, "an answer without a date says nothing of clocks");
    let now = time::OffsetDateTime::now_utc().format(&time::format_description::well_known::Rfc2822).unwrap();
    issuer.headers(&format!("Cache-Control: max-age=1\r\nDate: {now}\r\n"));
    until("clocks that agree", || log.lines(issuer.url(), "agree again").len() == 1).await;
    assert!(metrics.skew().abs() <= 30, "{}", metrics.skew());
}

#[tokio::test]
async fn until_the_issuer_was_reached_there_are_no_keys_and_the_log_says_so() {
    let (log, _guard) = logged();
    let issuer = Issuer::start("one").await;
    issuer.misbehave(KEYS, Some(Misbehaviour::Empty));
    let (keys, _) = start(&issuer);
    keys.refresh().await;
    assert!(keys.known().is_none() && keys.age().is_none());
    assert_eq!(log.lines(issuer.url(), "nobody gets in").len(), 1);
    issuer.misbehave(KEYS, None);
    tokio::time::timeout(RECOVERY, keys.first()).await.expect("the issuer is reached");
}
