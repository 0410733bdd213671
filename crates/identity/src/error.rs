//! Why a token was refused, in words that a client may see. Deliberately absent: any text of the token itself.

/// Why a token was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Not a compact JWS of three strict base64url segments with strict JSON in the first two.
    #[error("the token is malformed: {0}")]
    Malformed(&'static str),
    /// No key of that name is known. The caller may refresh its key set and try once more.
    #[error("the token is signed with a key that is not known here")]
    UnknownKey {
        /// The key's name as the token's header gives it; at most `MAX_KID_LENGTH` bytes, for look-up only.
        kid: String,
    },
    /// The header's algorithm is not the one its key is for.
    #[error("the token's algorithm is not the one its key is for")]
    Algorithm,
    /// The signature does not match.
    #[error("the token's signature is not valid")]
    Signature,
    /// Past `exp`.
    #[error("the token has expired")]
    Expired,
    /// Before `nbf`, or issued in the future.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// `iss` is another issuer.
    #[error("the token is from another issuer")]
    WrongIssuer,
    /// `aud` is another service.
    #[error("the token is meant for another audience")]
    WrongAudience,
    /// `typ` says that this is another kind of token.
    #[error("the token is of another type")]
    WrongType,
    /// Issued before the time from which on tokens are accepted (`TOKENS_NOT_BEFORE`).
    #[error("the token was issued before the time from which on tokens are accepted; get a new one")]
    TooOld,
    /// Bound to a client certificate (RFC 8705) other than the one it is shown over.
    #[error("the token is bound to a certificate that it was not shown with")]
    Binding,
    /// A claim is missing, of the wrong type, or contradicts another.
    #[error("the token's claim {0:?} is missing or not understood")]
    Claim(&'static str),
}

impl TokenError {
    /// A label for metrics: one of a dozen words, whatever the token held.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::UnknownKey { .. } => "unknown_key",
            Self::Algorithm => "algorithm",
            Self::Signature => "signature",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::WrongIssuer => "wrong_issuer",
            Self::WrongAudience => "wrong_audience",
            Self::WrongType => "wrong_type",
            Self::TooOld => "too_old",
            Self::Binding => "binding",
            Self::Claim(_) => "claim",
        }
    }
}
