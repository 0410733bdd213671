//! The cluster's keys, published by a server that misbehaves and recovers, and rotated while tokens are exchanged.

use std::sync::Arc;
use std::time::Instant;

use runtime::admin::Readiness;
use runtime::discovery::KEYS_TIMEOUT;
use testkit::hostile::{self, DISCOVERY, KEYS, Misbehaviour};

use super::super::cluster_keys::ClusterKeys;
use super::super::config::{KeySource, SubjectTokens};
use super::super::metrics::{Metrics, ResultLabel};
use super::*;

/// What is promised for the time from the publisher's recovery to its new keys.
const RECOVERY: Duration = Duration::from_secs(5);
/// More than what a body of 1 MiB, and the buffers of two sockets, come to.
const SENT_LIMIT: u64 = 16 << 20;

#[derive(Clone)]
struct Following {
    keys: Arc<ClusterKeys>,
    metrics: Metrics,
}

impl Following {
    fn start(publisher: &hostile::Issuer, keys: KeySource) -> Self {
        let config = SubjectTokens {
            issuer: Some(publisher.url().to_owned()),
            audience: URL.to_owned(),
            keys,
            ca_file: None,
            token_review: false,
        };
        let metrics = Metrics::register(&runtime::metrics::Metrics::new());
        let keys = Arc::new(ClusterKeys::new(&config, None, metrics.clone(), Readiness::new()).unwrap());
        let following = keys.clone();
        tokio::spawn(async move { following.keep_up().await });
        Self { keys, metrics }
    }

    fn has(&self, kid: &str) -> bool {
        self.keys.current().is_some_and(|trusted| trusted.keys.contains(kid))
    }

    async fn until(&self, kid: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.has(kid) {
            assert!(Instant::now() < deadline, "{kid} is not known in time");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn failed(&self) -> u64 {
        let labels = ["connect", "timeout", "answer", "status", "discovery", "key_set"];
        let count = |result| self.metrics.jwks_fetches.get_or_create(&ResultLabel { result }).get();
        labels.into_iter().map(count).sum()
    }
}

#[tokio::test]
async fn no_misbehaviour_costs_the_clusters_keys() {
    let mut trials = Vec::new();
    for how in hostile::ALL {
        if !matches!(how, Misbehaviour::WrongIssuer | Misbehaviour::TlsOnPlain) {
            trials.push(tokio::spawn(survives(how, KEYS)));
        }
        if how != Misbehaviour::Unusable {
            trials.push(tokio::spawn(survives(how, DISCOVERY)));
        }
    }
    for trial in trials {
        trial.await.unwrap();
    }
}

async fn survives(how: Misbehaviour, path: &'static str) {
    let publisher = hostile::Issuer::start("one").await;
    let source = match path {
        KEYS => KeySource::Url(format!("{}{KEYS}", publisher.url())),
        _ => KeySource::Discovery(format!("{}{DISCOVERY}", publisher.url())),
    };
    let following = Following::start(&publisher, source);
    following.until("one").await;

    publisher.misbehave(path, Some(how));
    // Many show tokens with a key that is not known, again and again. None waits for the others.
    let asking = (0..20).map(|_| tokio::spawn(ask_until_it_failed_twice(following.clone())));
    for asking in asking.collect::<Vec<_>>() {
        let longest = asking.await.unwrap();
        assert!(longest < 2 * KEYS_TIMEOUT + Duration::from_secs(1), "{how:?}: {longest:?}");
    }
    assert!(following.has("one"), "{how:?}");
    assert!(publisher.sent() / following.failed() < SENT_LIMIT, "{how:?}: {}", publisher.sent());

    publisher.publish("two");
    publisher.misbehave(path, None);
    let started = Instant::now();
    following.until("two").await;
    assert!(started.elapsed() < RECOVERY, "{how:?} at {path}: {:?}", started.elapsed());
    assert!(!following.has("one"), "{how:?}: a withdrawn key stays");
}

/// The longest time that one of them waited.
async fn ask_until_it_failed_twice(following: Following) -> Duration {
    let mut longest = Duration::ZERO;
    while following.failed() < 2 {
        let asked = Instant::now();
        assert!(following.keys.for_unknown_key("two").await.unwrap().keys.contains("one"));
        longest = longest.max(asked.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    longest
}

#[tokio::test]
async fn a_rotation_of_the_clusters_key_refuses_nobody_for_long() {
    let (old, new) = (Cluster::new("old"), Cluster::new("new"));
    let publisher = hostile::Issuer::start("unused").await;
    let publish = |keys: &[&Cluster]| {
        let keys: Vec<_> = keys.iter().map(|cluster| &cluster.jwk).collect();
        publisher.publish_set(&json!({"keys": keys}).to_string());
    };
    publish(&[&old]);
    let issuer = Running::start_with(&format!("jwks_url: {}{KEYS}", publisher.url())).await;
    issuer.ready().await;
    let good = async |cluster: &Cluster| issuer.exchange(&cluster.token("service-b"), "").await.status == 200;
    assert!(good(&old).await && !good(&new).await);

    publish(&[&new, &old]);
    let started = Instant::now();
    // The old one is good all the while.
    wait_for(async || {
        assert!(good(&old).await);
        good(&new).await
    })
    .await;
    assert!(started.elapsed() < RECOVERY, "{:?}", started.elapsed());

    // Withdrawn: gone with the next look, which a token of a key that nobody knows brings on.
    publish(&[&new]);
    let unknown = Cluster::new("unknown");
    let started = Instant::now();
    wait_for(async || {
        assert!(good(&new).await && !good(&unknown).await);
        !good(&old).await
    })
    .await;
    assert!(started.elapsed() < RECOVERY, "{:?}", started.elapsed());
}
