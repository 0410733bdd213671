//! Signing keys: made on first start, kept in one file of mode 0600, their public halves published.
//!
//! The first key of the file signs; all are published, so that a rotation has its place. Deliberately absent: the
//! rotation itself, and keys in a Kubernetes Secret.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use identity::access::Claims;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The coordinates of a P-256 point, after the byte that says that both are there.
const COORDINATE: usize = 32;
/// What others may not have: any right to the file.
const OTHERS: u32 = 0o077;

/// Why the signing keys cannot be used, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeysError {
    /// The file cannot be read or written.
    #[error("the signing keys {0}: {1}")]
    File(PathBuf, io::Error),
    /// Others may read the file.
    #[error(
        "the signing keys {path} have mode {mode:03o}: others could read them and sign tokens; chmod 600 {path}, or, if someone may have read them, delete the file and restart the issuer for new keys"
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The file holds no keys.
    #[error(
        "the signing keys {0} are damaged ({1}): restore the file, or delete it and restart the issuer for new keys; tokens signed with the old ones are then refused"
    )]
    Damaged(PathBuf, &'static str),
    /// No key could be made.
    #[error("a signing key could not be made: the system gives no randomness")]
    Randomness,
}

/// The keys as the file holds them.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeysFile {
    version: u32,
    keys: Vec<StoredKey>,
}

/// No `Debug`: there is nothing in it that a log may show.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredKey {
    kid: String,
    algorithm: String,
    created_at: i64,
    /// PKCS #8 DER in base64.
    private_key: String,
}

/// The keys in use.
pub(crate) struct SigningKeys {
    kid: String,
    key: EncodingKey,
    jwks: Value,
}

impl SigningKeys {
    /// Opens the file, or makes it. Of several issuers that start at once on the same file, one makes the key and the
    /// others use it.
    pub(crate) fn open(path: &Path) -> Result<Self, KeysError> {
        let failed = |error| KeysError::File(path.to_owned(), error);
        if !path.try_exists().map_err(failed)? {
            let content = KeysFile { version: 1, keys: vec![StoredKey::generate()?] };
            let text = serde_json::to_vec_pretty(&content).map_err(|error| failed(error.into()))?;
            if runtime::secret::create(path, &text).map_err(failed)? {
                tracing::info!(file = %path.display(), "signing keys were made");
            }
        }
        check_mode(path)?;
        let text = runtime::secret::read(path).map_err(failed)?;
        Self::read(text.expose()).map_err(|why| KeysError::Damaged(path.to_owned(), why))
    }

    /// The public keys as a JWKS document.
    pub(crate) fn jwks(&self) -> &Value {
        &self.jwks
    }

    /// A signed access token (RFC 9068).
    pub(crate) fn sign(&self, claims: &Claims) -> Result<String, jsonwebtoken::errors::Error> {
        let header =
            Header { typ: Some("at+jwt".to_owned()), kid: Some(self.kid.clone()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, claims, &self.key)
    }

    fn read(text: &str) -> Result<Self, &'static str> {
        let file: KeysFile = serde_json::from_str(text).map_err(|_| "not the JSON that the issuer writes")?;
        if file.version != 1 {
            return Err("written by a newer version");
        }
        let pairs = file.keys.iter().map(StoredKey::pair).collect::<Result<Vec<_>, _>>()?;
        let (first, (_, der)) = file.keys.first().zip(pairs.first()).ok_or("no key in it")?;
        let public: Vec<Value> = pairs.iter().map(|(pair, _)| public_jwk(pair)).collect();
        Ok(Self { kid: first.kid.clone(), key: EncodingKey::from_ec_der(der), jwks: json!({ "keys": public }) })
    }
}

impl StoredKey {
    fn generate() -> Result<Self, KeysError> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(|_| KeysError::Randomness)?;
        let der = pair.to_pkcs8v1().map_err(|_| KeysError::Randomness)?;
        Ok(Self {
            kid: thumbprint(&pair),
            algorithm: "ES256".to_owned(),
            created_at: runtime::clock::now(),
            private_key: STANDARD.encode(der.as_ref()),
        })
    }

    /// The key pair and its DER. The name must be that of the key: a mix-up would sign what nobody can verify.
    fn pair(&self) -> Result<(EcdsaKeyPair, Vec<u8>), &'static str> {
        if self.algorithm != "ES256" {
            return Err("a key is of an algorithm other than ES256");
        }
        let der = STANDARD.decode(&self.private_key).map_err(|_| "a key is no base64")?;
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der).map_err(|_| "a key is no P-256 key")?;
        if thumbprint(&pair) == self.kid { Ok((pair, der)) } else { Err("a key's name (kid) is not its thumbprint") }
    }
}

fn check_mode(path: &Path) -> Result<(), KeysError> {
    let metadata = std::fs::metadata(path).map_err(|error| KeysError::File(path.to_owned(), error))?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & OTHERS == 0 { Ok(()) } else { Err(KeysError::Exposed { path: path.to_owned(), mode }) }
}

fn coordinates(pair: &EcdsaKeyPair) -> (String, String) {
    let point = pair.public_key().as_ref().get(1..).unwrap_or_default();
    let (x, y) = point.split_at_checked(COORDINATE).unwrap_or_default();
    (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y))
}

fn public_jwk(pair: &EcdsaKeyPair) -> Value {
    let (x, y) = coordinates(pair);
    json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": thumbprint(pair), "x": x, "y": y})
}

/// RFC 7638: the digest of the required members in alphabetical order.
fn thumbprint(pair: &EcdsaKeyPair) -> String {
    let (x, y) = coordinates(pair);
    let text = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
    URL_SAFE_NO_PAD.encode(digest(&SHA256, text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};

    use super::*;

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn keys_are_made_once_and_kept_0600() {
        let directory = directory();
        let path = directory.path().join("keys.json");
        let first = SigningKeys::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let second = SigningKeys::open(&path).unwrap();
        assert_eq!((first.kid, first.jwks), (second.kid, second.jwks));
    }

    #[test]
    fn issuers_that_start_at_once_share_one_key() {
        let directory = directory();
        let path = directory.path().join("keys.json");
        let kids: Vec<String> = std::thread::scope(|scope| {
            let open = || SigningKeys::open(&path).unwrap().kid;
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(kids.windows(2).all(|pair| pair[0] == pair[1]), "{kids:?}");
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let directory = directory();
        let path = directory.path().join("keys.json");
        SigningKeys::open(&path).unwrap();
        for mode in [0o644, 0o640, 0o604, 0o620] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let error = SigningKeys::open(&path).err().unwrap();
            assert!(error.to_string().contains("chmod 600"), "{error}");
        }
    }

    #[test]
    fn a_damaged_file_is_refused_and_left_alone() {
        let directory = directory();
        let path = directory.path().join("keys.json");
        SigningKeys::open(&path).unwrap();
        let good = fs::read_to_string(&path).unwrap();
        let half = good[..good.len() / 2].to_owned();
        for bad in [
            "",
            "{}",
            r#"{"version":1,"keys":[]}"#,
            &half,
            &good.replace("\"version\": 1", "\"version\": 2"),
            &good.replace("ES256", "HS256"),
            &good.replacen("\"kid\": \"", "\"kid\": \"x", 1),
        ] {
            fs::write(&path, bad).unwrap();
            let error = SigningKeys::open(&path).err().unwrap();
            assert!(matches!(error, KeysError::Damaged(..)), "{bad}: {error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), bad);
        }
    }

    #[test]
    fn all_keys_are_published_without_their_private_halves_and_the_first_signs() {
        let keys = vec![StoredKey::generate().unwrap(), StoredKey::generate().unwrap()];
        let first = keys[0].kid.clone();
        let text = serde_json::to_string(&KeysFile { version: 1, keys }).unwrap();
        let keys = SigningKeys::read(&text).unwrap();
        let set = identity::jwks::KeySet::parse(keys.jwks().to_string().as_bytes()).unwrap();
        assert_eq!((set.len(), keys.kid.as_str()), (2, first.as_str()));
        assert!(set.contains(&first) && !keys.jwks().to_string().contains("\"d\""));
    }
}
