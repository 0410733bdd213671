//! One fetch of the issuer's keys: two documents, bounded in time and size, and what they say besides.

use std::time::Duration;

use identity::jwks::{JwksError, KeySet};
use runtime::discovery::{self, DiscoveryError};
use runtime::http_client::{Document, HttpClient};

use super::Fetched;

/// What a fetch brought.
pub(super) struct Answer {
    pub(super) fetched: Fetched,
    /// How long the issuer says that they are good.
    pub(super) max_age: Option<Duration>,
    /// This machine's clock less the issuer's, in seconds, if the issuer told its own.
    pub(super) skew: Option<i64>,
}

/// Why a fetch brought nothing.
#[derive(Debug)]
pub(super) struct Failure {
    /// A bounded label for metrics.
    pub(super) label: &'static str,
    pub(super) what: String,
    pub(super) advice: &'static str,
}

impl From<DiscoveryError> for Failure {
    fn from(error: DiscoveryError) -> Self {
        Failure { label: error.label(), advice: error.advice(), what: error.to_string() }
    }
}

impl Failure {
    fn key_set(url: &str, error: JwksError) -> Self {
        Failure {
            label: "key_set",
            what: format!("{url}: {error}"),
            advice: "see what answers at that address, and if it is the issuer, its keys",
        }
    }
}

/// The discovery document is read each time, for the keys may move. Without it nothing is fetched. Cancel safe.
pub(super) async fn fetch(client: &HttpClient, document: &str, issuer: &str) -> Result<Answer, Failure> {
    let asked = runtime::clock::now();
    let published = discovery::published_keys(client, document, issuer).await?;
    let answered = runtime::clock::now();
    let Document { body, max_age, date } = published.document;
    // A set without a key that can be used is none: it must not take the place of a good one.
    let keys = KeySet::parse(&body).map_err(|error| Failure::key_set(&published.url, error))?;
    let skew = date.map(|date| skew(asked, answered, date));
    Ok(Answer { fetched: Fetched { keys, document: body }, max_age, skew })
}

/// How far this clock is ahead of one that said `date` at some time between `asked` and `answered`.
fn skew(asked: i64, answered: i64, date: i64) -> i64 {
    // A date is cut to the second, and so is each of ours. (And this clock may have been set in between.)
    let (first, last) = (asked.min(answered).saturating_sub(1), asked.max(answered));
    date.clamp(first, last).saturating_sub(date)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_agree_within_the_time_of_the_answer_agree() {
        for (asked, answered, date, expected) in [
            (100, 100, 100, 0),
            (100, 103, 102, 0),
            (100, 100, 99, 0),
            (100, 101, 131, -30),
            (100, 101, 40, 59),
            (0, 0, i64::MIN, i64::MAX),
            (0, 0, i64::MAX, -i64::MAX),
        ] {
            assert_eq!(skew(asked, answered, date), expected, "{asked} {answered} {date}");
        }
    }
}
