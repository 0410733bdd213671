//! `sidegate token` against a demo: a token alone on standard output, or what is wrong on standard error and never a token.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use testkit::Demo;
use testkit::hostile::{self, DISCOVERY};

const PROGRAM: &str = env!("CARGO_BIN_EXE_sidegate");
const NOTHING: [&str; 0] = [];

struct Ran {
    ok: bool,
    out: String,
    err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        assert!(matches!(output.status.code(), Some(0 | 1)), "{output:?}");
        Self { ok: output.status.success(), out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Ran {
    fn token(self) -> String {
        assert!(self.ok && self.err.is_empty(), "{}", self.err);
        let token = self.out.strip_suffix('\n').expect("a line end").to_owned();
        assert!(token.split('.').count() == 3 && !token.contains(char::is_whitespace));
        token
    }

    /// What was said of a failure; nothing that could be taken for a token was printed.
    fn failure(self, parts: &[&str]) -> String {
        assert!(!self.ok && self.out.is_empty(), "{}", self.out);
        assert!(self.err.starts_with("sidegate: ") && !self.err.contains("eyJ"), "{}", self.err);
        parts.iter().for_each(|part| assert!(self.err.contains(part), "{part} is not in {}", self.err));
        self.err
    }

    fn says(&self, ok: bool, parts: &[&str]) {
        assert_eq!(self.ok, ok, "{}{}", self.out, self.err);
        assert!(!self.out.contains("eyJ") && !self.err.contains("eyJ"), "it shows the token");
        parts.iter().for_each(|part| assert!(self.out.contains(part), "{part} is not in\n{}{}", self.out, self.err));
    }
}

fn run<S: AsRef<str>>(arguments: &[&str], more: &[S], input: &str) -> Ran {
    let mut command = Command::new(PROGRAM);
    command.arg("token").args(arguments).args(more.iter().map(AsRef::as_ref));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // Whoever does not read it closes it.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap().into()
}

/// What the demo's services give.
struct Place {
    demo: Demo,
    issuer: String,
}

impl Place {
    fn new() -> Self {
        let demo = Demo::start(PROGRAM);
        let issuer = demo.ready()["issuer"].as_str().unwrap().to_owned();
        Self { demo, issuer }
    }

    fn proof(&self, app: &str) -> String {
        self.demo.ready()["subject_tokens"][app].as_str().unwrap().to_owned()
    }

    fn get(&self, app: &str, service: &str, more: &[&str]) -> Ran {
        let (proof, audience) = (self.proof(app), format!("{service}/{service}"));
        run(&["--issuer", &self.issuer, "--subject-token-file", &proof, "--audience", &audience], more, "")
    }
}

#[test]
fn tokens_are_had_and_explained_and_never_both() {
    let place = Place::new();
    a_token_logs_in(&place);
    a_sidecars_configuration_says_the_rest(&place);
    a_token_is_explained(&place);
    refusals_say_what_to_do(&place);
    a_token_is_bound(&place);
}

fn a_token_logs_in(place: &Place) {
    let token = place.get("service-a", "postgres-b", &[]).token();
    let url = place.demo.inbound("postgres-b").replacen("postgresql://", "postgresql://reader@", 1);
    let ca = place.demo.ca_file().display().to_string();
    let output = Command::new("psql")
        .args(["-X", "-w", "-Atc", "select current_setting('sidegate.sub')", &url])
        .envs([("PGPASSWORD", token.as_str()), ("PGSSLMODE", "verify-full"), ("PGSSLROOTCERT", &ca)])
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(out.trim(), "system:serviceaccount:service-a:service-a", "{err}");
}

fn a_sidecars_configuration_says_the_rest(place: &Place) {
    let config = place.demo.dir().join("config/service-a.yaml").display().to_string();
    run(&["--config", &config, "--audience", "postgres-a/postgres-a"], &NOTHING, "").token();
    // Another issuer is not shown this one's proof.
    let elsewhere = run(&["--config", &config, "--audience", "a/b", "--issuer", "http://127.0.0.1:1"], &NOTHING, "");
    elsewhere.failure(&["no proof of who this is", "/var/run/secrets/sidegate/token", "to do: in a pod"]);
    run(&["--config", "/nonexistent"], &NOTHING, "").failure(&["cannot read /nonexistent"]);
}

fn a_token_is_explained(place: &Place) {
    let fresh = place.get("service-b", "postgres-b", &["--inspect"]);
    fresh.says(
        true,
        &[
            "subject   system:serviceaccount:service-b:service-b\n",
            "service   postgres-b/postgres-b\n",
            &format!("issuer    {}\n", place.issuer),
            "expires   2",
            " min)\n",
            "bound     no",
            "verified  yes, with the issuer's keys\n",
            "  orders-writer: PostgreSQL, ",
            "- {actions: [select, insert], tables: [\"public.orders\"",
        ],
    );
    let token = place.get("service-a", "postgres-b", &["--scope", "reader"]).token();
    let checked = ["--inspect", "--issuer", &place.issuer];
    run(&checked, &NOTHING, &format!("\n{token}\n"))
        .says(true, &["yes, with", "reader: PostgreSQL, any database: select"]);
    run(&["--inspect"], &NOTHING, &token).says(true, &["not checked: give --issuer", "service-a"]);
    run(&checked, &["--token-file", "-", "--audience", "other/service"], &token).says(false, &["another audience"]);

    let (signed, signature) = token.rsplit_once('.').unwrap();
    let turned: String = signature.chars().rev().collect();
    run(&checked, &NOTHING, &format!("{signed}.{turned}")).says(false, &["NO: ", "believe nothing"]);
    let payload = URL_SAFE_NO_PAD.decode(signed.split('.').nth(1).unwrap()).unwrap();
    let wider = String::from_utf8(payload).unwrap().replace("reader", "admin");
    let forged = format!("{}.{}.{signature}", signed.split('.').next().unwrap(), URL_SAFE_NO_PAD.encode(wider));
    run(&checked, &NOTHING, &forged).says(false, &["NO: the token's signature is not valid", "admin"]);

    let dark = run(&["--inspect", "--issuer", "http://127.0.0.1:1"], &NOTHING, &token);
    dark.says(false, &["not checked: cannot reach http://127.0.0.1:1"]);
    let proof = place.demo.subject_token("service-a");
    run(&checked, &NOTHING, &proof).failure(&["no access token of Sidegate's", "to do"]);
    for rubbish in ["", "a b", "x", "..", &"x".repeat(1 << 20)] {
        run(&checked, &NOTHING, rubbish).failure(&[]);
    }
}

fn refusals_say_what_to_do(place: &Place) {
    place.get("service-b", "postgres-a", &[]).failure(&["invalid_target", "to do: ", "AccessGrant"]);
    place.get("service-a", "postgres-b", &["--scope", "admin"]).failure(&["invalid_scope", "--scope"]);
    let access = place.get("service-a", "postgres-b", &[]).token();
    let file = place.demo.dir().join("no-proof");
    std::fs::write(&file, &access).unwrap();
    let file = file.display().to_string();
    let common = ["--issuer", &place.issuer, "--audience", "postgres-b/postgres-b"];
    run(&common, &["--subject-token-file", &file], "").failure(&["invalid_request", "--subject-token-file"]);
    run(&common, &["--subject-token-file", "/dev/null"], "").failure(&["holds no token"]);
    run(&NOTHING, &["--audience", "a/b"], "").failure(&["--issuer URL", "--config"]);
    run(&["--issuer", &place.issuer], &NOTHING, "").failure(&["--audience NAMESPACE/SERVICE"]);
    run(&common, &["--certificate", &file], "").failure(&["--certificate", "PEM"]);
}

fn a_token_is_bound(place: &Place) {
    let certificate = place.demo.dir().join("service-a.crt");
    std::fs::write(&certificate, place.demo.certificate("service-a").certificate).unwrap();
    let certificate = certificate.display().to_string();
    let token = place.get("service-a", "postgres-b", &["--certificate", &certificate]).token();
    run(&["--inspect", "--issuer", &place.issuer], &NOTHING, &token)
        .says(true, &["bound     to the client certificate"]);
    let other = place.demo.ca_file().display().to_string();
    let other = run(&["--inspect", "--issuer", &place.issuer, "--certificate", &other], &NOTHING, &token);
    other.says(false, &["bound to a certificate that it was not shown with"]);
}

#[test]
fn an_issuer_that_hangs_or_talks_nonsense_takes_seconds() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let issuer = runtime.block_on(hostile::Issuer::start("one"));
    // It serves for as long as the test process lives.
    std::thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
    let claims = r#"{"iss":"i","sub":"system:serviceaccount:a:\u001b[31mb","aud":"a/b","exp":1,"iat":1,"nbf":1,"jti":"\u001b]0;x","client_id":"c","scope":"","authorization_details":[]}"#;
    let token = |claims: &str| format!("eyJhbGciOiJFUzI1NiJ9.{}.AA", URL_SAFE_NO_PAD.encode(claims));
    run(&["--inspect"], &NOTHING, &token(claims)).failure(&["no access token"]);
    let claims = claims.replace("\\u001b[31m", "");
    for how in hostile::ALL {
        issuer.misbehave(DISCOVERY, Some(how));
        let started = Instant::now();
        let said = run(&["--inspect", "--issuer", issuer.url()], &NOTHING, &token(&claims));
        assert!(started.elapsed() < Duration::from_secs(10), "{how:?}: {:?}", started.elapsed());
        // What is an unusable key set is no discovery document, either.
        said.says(false, &["not checked: "]);
        assert!(!said.out.contains('\u{1b}'), "{how:?}: it writes to the terminal as it likes");
    }
}
