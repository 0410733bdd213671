//! Asks the API server about a subject token that is right in itself: it knows the pods and service accounts that are gone,
//! whose tokens would be good to their end otherwise.
//!
//! Deliberately absent: a cache. Who switches this on wants to know now.

use identity::UnverifiedToken;
use identity::subject::SubjectToken;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::Api;
use kube::api::PostParams;
use runtime::kubernetes::{ApiError, Client, in_time};

/// What the API server says of a token.
pub(crate) enum Reviewed {
    Good,
    /// Not any more; why not is for the log alone.
    Bad(String),
}

/// Asks. Bounded in time.
pub(crate) async fn review(
    client: &Client,
    token: &UnverifiedToken,
    audience: &str,
    expected: &SubjectToken,
) -> Result<Reviewed, ApiError> {
    let spec = TokenReviewSpec { audiences: Some(vec![audience.to_owned()]), token: Some(token.expose().to_owned()) };
    let request = TokenReview { spec, ..TokenReview::default() };
    let api: Api<TokenReview> = Api::all(client.clone());
    let answer = in_time(api.create(&PostParams::default(), &request)).await?;
    Ok(judged(&answer.status.unwrap_or_default(), audience, &expected.subject().to_string()))
}

/// The audience must be among those that the API server confirms: one that knows no audiences confirms none.
fn judged(status: &TokenReviewStatus, audience: &str, subject: &str) -> Reviewed {
    let named = |why: &str| Reviewed::Bad(status.error.clone().unwrap_or_else(|| why.to_owned()));
    let confirmed = status.audiences.iter().flatten().any(|known| known == audience);
    let user = status.user.as_ref().and_then(|user| user.username.as_deref());
    match status.authenticated {
        Some(true) if confirmed && user == Some(subject) => Reviewed::Good,
        Some(true) if !confirmed => named("not meant for this audience"),
        Some(true) => named("of another subject"),
        _ => named("not authenticated"),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::authentication::v1::UserInfo;

    use super::*;

    const SUBJECT: &str = "system:serviceaccount:a:a";

    fn is_good(status: &TokenReviewStatus) -> bool {
        matches!(judged(status, "https://issuer", SUBJECT), Reviewed::Good)
    }

    #[test]
    fn only_a_confirmation_of_all_of_it_counts() {
        let user = |name: &str| Some(UserInfo { username: Some(name.to_owned()), ..UserInfo::default() });
        let audiences = |name: &str| Some(vec![name.to_owned()]);
        let good = TokenReviewStatus {
            authenticated: Some(true),
            audiences: audiences("https://issuer"),
            user: user(SUBJECT),
            error: None,
        };
        assert!(is_good(&good));
        for bad in [
            TokenReviewStatus::default(),
            TokenReviewStatus { authenticated: Some(false), ..good.clone() },
            TokenReviewStatus { authenticated: None, ..good.clone() },
            TokenReviewStatus { audiences: None, ..good.clone() },
            TokenReviewStatus { audiences: audiences("https://other"), ..good.clone() },
            TokenReviewStatus { user: user("system:serviceaccount:a:b"), ..good.clone() },
            TokenReviewStatus { user: None, ..good.clone() },
        ] {
            assert!(!is_good(&bad), "{bad:?}");
        }
    }
}
