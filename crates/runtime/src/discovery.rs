//! Where an issuer publishes its keys, by its own discovery document (OpenID Connect Discovery §4, RFC 8414 §3).
//!
//! Deliberately absent: the keys, which are `identity`'s, and everything else that such a document says.

use std::time::Duration;

use serde::Deserialize;

use crate::http_client::{Document, HttpClient, HttpError};

/// Where the document lies below an issuer's URL.
pub const PATH: &str = "/.well-known/openid-configuration";

/// Time for both documents together. A fetch that hangs keeps the next one waiting, and keys are to be had again within
/// 5 s of their publisher's recovery.
pub const KEYS_TIMEOUT: Duration = Duration::from_secs(3);

/// Why the keys' URL is not known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiscoveryError {
    /// The document did not come.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The document is not to be believed.
    #[error("{0}: {1}")]
    Document(String, &'static str),
}

impl DiscoveryError {
    /// A bounded label for metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Http(error) => error.label(),
            Self::Document(..) => "discovery",
        }
    }

    /// What whoever runs this can do about it.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Http(error) => error.advice(),
            Self::Document(..) => {
                "see that the issuer is configured here exactly as it names itself in its discovery document (`issuer`)"
            }
        }
    }
}

/// A key set and where it was found.
#[derive(Debug)]
pub struct Published {
    /// Its URL.
    pub url: String,
    /// It, as it came.
    pub document: Document,
}

/// Of the discovery document, what concerns us.
#[derive(Deserialize)]
struct Discovered {
    issuer: String,
    jwks_uri: String,
}

/// The key set that the discovery document at `url`, which must be that of `issuer`, leads to. Bounded in time. Cancel
/// safe.
///
/// # Errors
/// When either document cannot be had in time, or [`jwks_uri`] does not believe the first.
pub async fn published_keys(client: &HttpClient, url: &str, issuer: &str) -> Result<Published, DiscoveryError> {
    let found = async {
        let url = jwks_uri(client, url, issuer).await?;
        let document = client.document(&url).await?;
        Ok(Published { url, document })
    };
    in_time(url, found).await
}

/// The key set at a URL that is known. Bounded in time. Cancel safe.
///
/// # Errors
/// When it cannot be had in time.
pub async fn keys_at(client: &HttpClient, url: &str) -> Result<Published, DiscoveryError> {
    let found = async { Ok(Published { url: url.to_owned(), document: client.document(url).await? }) };
    in_time(url, found).await
}

async fn in_time<T>(url: &str, found: impl Future<Output = Result<T, DiscoveryError>>) -> Result<T, DiscoveryError> {
    let late = |_| HttpError::Timeout(url.to_owned(), KEYS_TIMEOUT);
    tokio::time::timeout(KEYS_TIMEOUT, found).await.map_err(late)?
}

/// The `jwks_uri` in the discovery document at `url`, which must be that of `issuer`. Cancel safe.
///
/// # Errors
/// When the document cannot be had, is that of another issuer, or would have keys come less safely than it did.
pub async fn jwks_uri(client: &HttpClient, url: &str, issuer: &str) -> Result<String, DiscoveryError> {
    let document = client.document(url).await?;
    checked(&document.body, url, issuer).map_err(|why| DiscoveryError::Document(url.to_owned(), why))
}

fn checked(document: &[u8], url: &str, issuer: &str) -> Result<String, &'static str> {
    let found: Discovered = serde_json::from_slice(document).map_err(|_| "this is no discovery document")?;
    // OpenID Discovery §4.3: the document must be that of the issuer asked for, to the letter.
    if found.issuer != issuer {
        return Err("the discovery document is that of another issuer");
    }
    if is_https(url) && !is_https(&found.jwks_uri) {
        return Err("the discovery document names keys that would come unencrypted");
    }
    Ok(found.jwks_uri)
}

fn is_https(url: &str) -> bool {
    url.parse::<hyper::Uri>().is_ok_and(|uri| uri.scheme_str() == Some("https"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_issuers_own_document_is_believed() {
        let judge = |url: &str, issuer: &str, jwks_uri: &str| {
            let document = serde_json::json!({"issuer": issuer, "jwks_uri": jwks_uri}).to_string();
            checked(document.as_bytes(), url, "https://a.test")
        };
        assert_eq!(judge("https://a.test", "https://a.test", "https://k.test/k").as_deref(), Ok("https://k.test/k"));
        for other in ["https://a.test/", "https://A.test", "http://a.test", ""] {
            assert!(
                judge("https://a.test", other, "https://k.test/k").unwrap_err().contains("another issuer"),
                "{other}"
            );
        }
        for url in ["https://a.test", "HTTPS://a.test"] {
            assert!(judge(url, "https://a.test", "http://k.test/k").unwrap_err().contains("unencrypted"), "{url}");
        }
        assert!(judge("http://127.0.0.1", "https://a.test", "http://k.test/k").is_ok());
        for broken in ["", "[]", "{}", r#"{"issuer": "https://a.test"}"#] {
            assert!(checked(broken.as_bytes(), "https://a.test", "https://a.test").is_err(), "{broken}");
        }
    }
}
