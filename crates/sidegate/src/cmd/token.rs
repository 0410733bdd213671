//! `sidegate token`: gets an access token for scripts and clients without a sidecar, or explains one.
//!
//! Deliberately absent: caching and renewal, which are a sidecar's work. Whoever calls this often should run one.

use std::future::Future;
use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use identity::certificate::Thumbprint;
use identity::{MAX_TOKEN_LENGTH, ServiceName, UnverifiedToken};
use runtime::http_client::HttpClient;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::io::AsyncReadExt;

use exchange::Exchange;

mod exchange;
mod inspect;

/// Where a pod's token is projected to by convention.
const SUBJECT_TOKEN_FILE: &str = "/var/run/secrets/sidegate/token";

/// For all of it. Each request to the issuer is bounded by itself; files may be pipes.
const LIMIT: Duration = Duration::from_secs(20);

/// Arguments of `sidegate token`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  In a pod with a sidecar's configuration:
      PGPASSWORD=$(sidegate token --config /etc/sidegate/sidecar.yaml --audience postgres-b/postgres-b) \\
        psql 'host=postgres-b.postgres-b.svc user=reader dbname=shop sslmode=verify-full sslrootcert=ca.pem'
  Without one:
      sidegate token --issuer https://issuer.sidegate.svc --ca-file ca.pem --audience postgres-b/postgres-b
  What is in a token, and is it good?
      sidegate token --inspect --issuer https://issuer.sidegate.svc --ca-file ca.pem < token

Exit status: 0 when a token was printed, or explained and not found bad; 1 otherwise, with the reason on standard error. \
A token that is not bound is as good as a password until it expires: keep it out of files, arguments and logs.")]
pub struct TokenArgs {
    /// The issuer's URL, exactly as tokens name it (no slash at the end).
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,
    /// The service that the token is for.
    #[arg(long, value_name = "NAMESPACE/SERVICE")]
    audience: Option<ServiceName>,
    /// This workload's own proof: its projected service-account token, whose audience is the issuer
    /// [default: /var/run/secrets/sidegate/token].
    #[arg(long, value_name = "FILE")]
    subject_token_file: Option<PathBuf>,
    /// Authorities (PEM) that may vouch for an https issuer.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Only these of the granted roles, separated by spaces [default: all].
    #[arg(long, value_name = "ROLES")]
    scope: Option<String>,
    /// Take issuer, its authorities and the proof from a sidecar's configuration, unless given here.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Bind the token to this client certificate (PEM, the first in the file): it is then good over TLS with that
    /// certificate alone.
    #[arg(long, value_name = "FILE")]
    certificate: Option<PathBuf>,
    /// Explain instead of printing: who, for which service, which roles, until when, and whether the issuer signed it. Of
    /// a token from --token-file or standard input; with --audience and without --token-file, of a new one.
    #[arg(long)]
    inspect: bool,
    /// The token to explain; `-` is standard input.
    #[arg(long, value_name = "FILE", requires = "inspect", conflicts_with_all = ["scope", "subject_token_file"])]
    token_file: Option<PathBuf>,
}

/// Get a token and print or explain it; or explain one that is there.
///
/// # Errors
/// Why there is no token, or none to explain, with what to do.
pub fn run(args: TokenArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(in_time(answer(args)));
    // A file that is a pipe may still keep a thread waiting.
    runtime.shutdown_background();
    result
}

async fn in_time(answer: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let late =
        || format!("no answer in {} s: see whether a file given is a pipe that nobody writes to", LIMIT.as_secs());
    tokio::time::timeout(LIMIT, answer).await.with_context(late)?
}

async fn answer(mut args: TokenArgs) -> anyhow::Result<ExitCode> {
    args.complete()?;
    let client = HttpClient::new(args.ca_file.as_deref()).context("--ca-file")?;
    let certificate = args.certificate.as_deref().map(thumbprint).transpose()?;
    if args.inspect && (args.token_file.is_some() || args.audience.is_none()) {
        let token = given_token(args.token_file.as_deref()).await?;
        return inspect::show(&client, args.issuer.as_deref(), args.audience.as_ref(), certificate, &token).await;
    }
    let issuer = args.issuer.context("which issuer? Give --issuer URL, or --config with a sidecar's configuration")?;
    let audience =
        args.audience.context("for which service? Give --audience NAMESPACE/SERVICE, like postgres-b/postgres-b")?;
    let exchange = Exchange {
        client: &client,
        issuer: &issuer,
        audience: &audience,
        subject_token_file: args.subject_token_file.unwrap_or_else(|| SUBJECT_TOKEN_FILE.into()),
        scope: args.scope,
        certificate,
    };
    let token = exchange.run().await?;
    if args.inspect {
        return inspect::show(&client, Some(&issuer), Some(&audience), certificate, &token).await;
    }
    writeln!(std::io::stdout().lock(), "{}", token.expose()).context("cannot print the token")?;
    Ok(ExitCode::SUCCESS)
}

impl TokenArgs {
    /// What was not given is taken from the sidecar's configuration.
    fn complete(&mut self) -> anyhow::Result<()> {
        let issuer = self.issuer.take().map(|url| url.trim_end_matches('/').to_owned());
        self.issuer = issuer;
        let Some(file) = &self.config else { return Ok(()) };
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let config = sidecar::Config::parse(&text)
            .with_context(|| format!("{} is not a valid sidecar configuration", file.display()))?;
        // Its authorities are for its issuer, and its proof is shown to nobody else unasked.
        if self.issuer.as_ref().is_none_or(|issuer| *issuer == config.issuer.url) {
            self.ca_file = self.ca_file.take().or(config.issuer.ca_file);
            self.subject_token_file = self.subject_token_file.take().or(config.issuer.subject_token_file);
        }
        self.issuer = self.issuer.take().or(Some(config.issuer.url));
        Ok(())
    }
}

fn thumbprint(file: &Path) -> anyhow::Result<Thumbprint> {
    let certificate = CertificateDer::from_pem_file(file)
        .map_err(|error| anyhow::anyhow!("--certificate {}: no certificate in PEM: {error}", file.display()))?;
    Ok(Thumbprint::of(&certificate))
}

/// The token in a file or on standard input.
async fn given_token(file: Option<&Path>) -> anyhow::Result<UnverifiedToken> {
    match file.filter(|file| *file != Path::new("-")) {
        Some(file) => {
            let open = tokio::fs::File::open(file).await;
            read(open.with_context(|| format!("cannot read {}", file.display()))?, &file.display().to_string()).await
        }
        None if std::io::stdin().is_terminal() => {
            bail!("explain which token? Give it on standard input or by --token-file, or --audience to get a new one")
        }
        None => {
            let descriptor = std::io::stdin().as_fd().try_clone_to_owned()?;
            read(tokio::fs::File::from_std(descriptor.into()), "standard input").await
        }
    }
}

/// One token and nothing else.
async fn read(source: impl tokio::io::AsyncRead + Unpin, name: &str) -> anyhow::Result<UnverifiedToken> {
    let mut text = String::new();
    // More than any token that is read, white space around it included.
    let limit = 2 * MAX_TOKEN_LENGTH as u64;
    source.take(limit).read_to_string(&mut text).await.with_context(|| format!("cannot read a token from {name}"))?;
    let token = text.trim();
    if token.is_empty() || token.len() > MAX_TOKEN_LENGTH || token.contains(char::is_whitespace) {
        bail!("{name} holds no token: want three segments of base64url with dots between them, and nothing else");
    }
    Ok(UnverifiedToken::new(token))
}

/// A text of somebody else's, fit for a terminal.
fn clean(text: &str) -> String {
    /// Longer than any sensible name or message.
    const LONGEST: usize = 500;
    let invisible = |c: char| {
        c.is_control()
            || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    text.chars().take(LONGEST).map(|c| if invisible(c) { '\u{fffd}' } else { c }).collect()
}
