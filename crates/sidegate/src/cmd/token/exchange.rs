//! One token exchange (RFC 8693), and what to do when it is refused.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use identity::certificate::Thumbprint;
use identity::{ServiceName, UnverifiedToken};
use runtime::http_client::HttpClient;
use serde::Deserialize;

use super::{clean, inspect, read};

/// What an exchange needs.
pub(super) struct Exchange<'a> {
    pub(super) client: &'a HttpClient,
    pub(super) issuer: &'a str,
    pub(super) audience: &'a ServiceName,
    pub(super) subject_token_file: PathBuf,
    pub(super) scope: Option<String>,
    pub(super) certificate: Option<Thumbprint>,
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
}

#[derive(Deserialize)]
struct Refusal {
    error: String,
    #[serde(default)]
    error_description: String,
}

impl Exchange<'_> {
    pub(super) async fn run(&self) -> anyhow::Result<UnverifiedToken> {
        let proof = proof(&self.subject_token_file).await?;
        let url = format!("{}/token", self.issuer);
        let answer = self.client.post_form(&url, self.form(proof.expose())).await;
        let answer = answer.map_err(|error| anyhow::anyhow!("{error}\n  to do: {}", error.advice()))?;
        if answer.status != 200 {
            bail!("{}", self.refused(answer.status, &answer.body));
        }
        let granted: Granted = serde_json::from_slice(&answer.body).map_err(|_| {
            anyhow::anyhow!("{url} answered, but with no token\n  to do: see what answers at that address")
        })?;
        let token = read(granted.access_token.as_bytes(), "the issuer's answer").await?;
        self.check_binding(&token)?;
        Ok(token)
    }

    fn form(&self, proof: &str) -> String {
        let audience = self.audience.to_string();
        let binding = self.certificate.map(|thumbprint| serde_json::json!({"x5t#S256": thumbprint}).to_string());
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange");
        form.append_pair("subject_token_type", "urn:ietf:params:oauth:token-type:jwt");
        form.append_pair("subject_token", proof).append_pair("audience", &audience);
        let optional = [("scope", &self.scope), ("req_cnf", &binding)];
        form.extend_pairs(optional.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?))));
        form.finish()
    }

    fn refused(&self, status: u16, body: &[u8]) -> String {
        let Ok(Refusal { error, error_description }) = serde_json::from_slice(body) else {
            return format!(
                "{} answered with status {status}\n  to do: see what answers at that address, and its log",
                self.issuer
            );
        };
        let advice = match error.as_str() {
            "invalid_target" => {
                "if the name is right, have an AccessGrant written for this service account in the service's namespace"
            }
            "invalid_scope" => "ask for granted roles only, or leave --scope out for all of them",
            "invalid_request" | "invalid_grant" => {
                "see that the proof (--subject-token-file) is fresh and was projected with the issuer as its audience"
            }
            _ => "see the issuer's log",
        };
        let (audience, error, said) = (self.audience, clean(&error), clean(&error_description));
        format!("the issuer refused a token for {audience}: {error}: {said}\n  to do: {advice}")
    }

    /// An issuer that does not know of binding would give a token that anybody can use: that was not asked for.
    fn check_binding(&self, token: &UnverifiedToken) -> anyhow::Result<()> {
        if self.certificate.is_none() || inspect::claims(token)?.cnf.map(|cnf| cnf.x5t_s256) == self.certificate {
            return Ok(());
        }
        bail!("the issuer did not bind the token to the certificate, so it is not printed\n  to do: upgrade the issuer")
    }
}

async fn proof(file: &Path) -> anyhow::Result<UnverifiedToken> {
    let advice = "to do: in a pod, project a service-account token there whose audience is the issuer, or give \
                  --subject-token-file FILE";
    let open = tokio::fs::File::open(file).await;
    let open = open
        .with_context(|| format!("no proof of who this is: cannot read {}\n  {advice}\n  because", file.display()))?;
    read(open, &file.display().to_string()).await
}
