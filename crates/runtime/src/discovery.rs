//! Where an issuer publishes its keys, by its own discovery document (OpenID Connect Discovery §4, RFC 8414 §3).
//!
//! Deliberately absent: the keys, which are `identity`'s, and everything else that such a document says.

use serde::Deserialize;

use crate::http_client::{HttpClient, HttpError};

/// Where the document lies below an issuer's URL.
pub const PATH: &str = "/.well-known/openid-configuration";

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

/// Of the discovery document, what concerns us.
#[derive(Deserialize)]
struct Discovered {
    issuer: String,
    jwks_uri: String,
}

/// The `jwks_uri` in the discovery document at `url`, which must be that of `issuer`. Cancel safe.
///
/// # Errors
/// When the document cannot be had, is that of another issuer, or would have keys come less safely than it did.
pub async fn jwks_uri(client: &HttpClient, url: &str, issuer: &str) -> Result<String, DiscoveryError> {
    let document = client.document(url).await?;
    checked(&document, url, issuer).map_err(|why| DiscoveryError::Document(url.to_owned(), why))
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
