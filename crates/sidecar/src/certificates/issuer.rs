//! Certificates that the issuer signs, for whoever shows it a service-account token, and the authorities that it
//! publishes.
//!
//! The key is made here, new for each certificate, and never leaves this process. Two tasks live as long as the process:
//! one renews at half of a certificate's life, the other fetches the authorities as often as the issuer says. As long as
//! the issuer is away both go on with what they have. Deliberately absent: names in the request; the issuer takes them
//! from the token, not from us.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use runtime::http_client::{Answer, HttpClient, Post};
use runtime::secret::Secret;
use runtime::tls::Authorities;
use rustls::pki_types::PrivateKeyDer;
use serde::Deserialize;
use tokio::sync::watch;

use super::{Identities, Identity, Metrics};
use crate::config;
use crate::retry::random;

/// When a certificate is renewed, as a part of the life it has left when it comes, and by how much that is moved at
/// random, so that pods that started together do not renew together.
const RENEW_AT: f64 = 0.5;
const JITTER: f64 = 0.1;

/// Shortest time between two renewals that succeed.
const RENEW_MIN: Duration = Duration::from_secs(1);

/// Waiting times between tries that fail, the last one for ever: recovery is to be quick.
const BACKOFF: [Duration; 5] = [
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];

/// How long authorities are used before they are asked for again: what is within these bounds is the issuer's to say.
const BUNDLE_AGE_MIN: Duration = Duration::from_secs(1);
const BUNDLE_AGE_MAX: Duration = Duration::from_secs(3600);
/// Where it does not say.
const BUNDLE_AGE: Duration = Duration::from_secs(60);

/// Starts both tasks.
pub(super) fn start(
    issuer: &config::Issuer,
    client: HttpClient,
    trust_domain: Arc<str>,
    metrics: Metrics,
) -> (Identities, Authorities) {
    let authorities = Authorities::none();
    let (sender, newest) = watch::channel(None);
    let (first, bundled) = watch::channel(false);
    tokio::spawn(follow_bundle(client.clone(), issuer.url.clone(), authorities.clone(), first));
    let asking = Asking {
        client,
        issuer: issuer.url.clone(),
        // That there is one was checked with the configuration; an empty path says so in the first error otherwise.
        subject_token_file: issuer.subject_token_file.clone().unwrap_or_default(),
        trust_domain,
    };
    tokio::spawn(renew_for_ever(asking, sender, bundled, metrics));
    (newest, authorities)
}

/// What a request for a certificate needs.
struct Asking {
    client: HttpClient,
    issuer: String,
    subject_token_file: PathBuf,
    trust_domain: Arc<str>,
}

async fn renew_for_ever(
    asking: Asking,
    sender: watch::Sender<Option<Arc<Identity>>>,
    mut bundled: watch::Receiver<bool>,
    metrics: Metrics,
) {
    // A listener that shows a certificate but knows no authorities asks for none, and could not take bound tokens. An
    // error would mean that the other task is gone, and with it the runtime.
    let _ = bundled.wait_for(|bundled| *bundled).await;
    let mut failures = 0;
    while !sender.is_closed() {
        let result = asking.obtain().await;
        metrics.renewed(result.is_ok());
        let pause = match result {
            Ok(identity) => {
                let (left, spiffe) = (life_left(&identity), &identity.spiffe);
                tracing::info!(%spiffe, seconds = left.as_secs(), "a new certificate");
                failures = 0;
                sender.send_replace(Some(Arc::new(identity)));
                renew_after(left, random())
            }
            Err(why) => {
                if failures == 0 {
                    tracing::warn!(why, "no new certificate; the one at hand stays in use until its end");
                }
                failures += 1;
                back_off(failures)
            }
        };
        tokio::time::sleep(pause).await;
    }
}

fn life_left(identity: &Identity) -> Duration {
    let left = identity.not_after.saturating_sub(runtime::clock::now());
    Duration::from_secs(u64::try_from(left).unwrap_or(0))
}

/// `random` is from 0 to 1.
fn renew_after(left: Duration, random: f64) -> Duration {
    left.mul_f64(RENEW_AT + JITTER * (random - 0.5)).max(RENEW_MIN)
}

/// After a number of failures in a row.
fn back_off(failures: usize) -> Duration {
    BACKOFF.get(failures.saturating_sub(1)).or(BACKOFF.last()).copied().unwrap_or(RENEW_MIN)
}

impl Asking {
    async fn obtain(&self) -> Result<Identity, String> {
        let file = &self.subject_token_file;
        let token = tokio::fs::read_to_string(file).await;
        let token = token.map_err(|error| format!("cannot read the subject token {}: {error}", file.display()))?;
        let key = KeyPair::generate().map_err(|error| format!("cannot make a key: {error}"))?;
        let url = format!("{}/certificates", self.issuer);
        let post = Post {
            content_type: "application/pkcs10",
            accept: "application/pem-certificate-chain",
            bearer: Secret::new(token.trim()),
            body: request(&key).map_err(|error| format!("cannot make a certificate request: {error}"))?.into(),
        };
        let answer = self.client.post(&url, post).await.map_err(|error| error.to_string())?;
        let chain = chain(&url, &answer)?;
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let certified = runtime::tls::certified_key(chain, key).map_err(|error| format!("{url}: {error}"))?;
        Identity::new(certified, &self.trust_domain, runtime::clock::now()).map_err(|why| format!("{url}: {why}"))
    }
}

/// A request (PKCS#10) for a key, without any name.
fn request(key: &KeyPair) -> Result<Vec<u8>, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    Ok(params.serialize_request(key)?.der().to_vec())
}

/// Of an RFC 9457 problem, what is logged.
#[derive(Deserialize)]
struct Problem {
    #[serde(default)]
    title: String,
    #[serde(default)]
    detail: String,
}

fn chain<'a>(url: &str, answer: &'a Answer) -> Result<&'a [u8], String> {
    if answer.status == 200 {
        return Ok(&answer.body);
    }
    let said = serde_json::from_slice::<Problem>(&answer.body).ok();
    let said = said.map_or_else(String::new, |problem| format!(": {} {}", problem.title, problem.detail));
    Err(format!("{url} answered with status {}{said}", answer.status))
}

async fn follow_bundle(client: HttpClient, issuer: String, authorities: Authorities, first: watch::Sender<bool>) {
    let url = format!("{issuer}/trust-bundle");
    let mut failures = 0;
    // Those who wait for the first are gone when nobody wants certificates any more.
    while !first.is_closed() {
        let pause = match fetch(&client, &url, &authorities).await {
            Ok(max_age) => {
                failures = 0;
                first.send_replace(true);
                max_age.unwrap_or(BUNDLE_AGE).clamp(BUNDLE_AGE_MIN, BUNDLE_AGE_MAX)
            }
            Err(why) => {
                if failures == 0 {
                    tracing::warn!(why, "cannot fetch the authorities of certificates; those known stay in use");
                }
                failures += 1;
                back_off(failures)
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Fetches the authorities; for how long they are good, if that was said.
async fn fetch(client: &HttpClient, url: &str, authorities: &Authorities) -> Result<Option<Duration>, String> {
    let document = client.document(url).await.map_err(|error| error.to_string())?;
    authorities.replace(&document.body).map_err(|error| format!("{url}: {error}"))?;
    Ok(document.max_age)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewals_are_at_half_time_and_not_all_at_once() {
        let hour = Duration::from_secs(3600);
        let [earliest, latest] = [0.0, 1.0].map(|random| renew_after(hour, random).as_secs());
        assert_eq!((earliest, latest), (1620, 1980));
        assert_eq!(renew_after(Duration::ZERO, 0.0), RENEW_MIN);
        assert!((0.0..=1.0).contains(&random()));
    }

    #[test]
    fn failures_back_off_up_to_a_limit() {
        assert_eq!([1, 2, 5, 99].map(|failures| back_off(failures).as_millis()), [250, 500, 4000, 4000]);
    }
}
