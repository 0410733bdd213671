//! The console beside a demo, over plain HTTP: who gets in, what a change has to bring along, and that it is one.
//! Deliberately absent: how pages look and behave in a browser, which `e2e/run-console` sees to.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use testkit::http::{Answer, Http, request};
use testkit::{Demo, psql, within};

const PROGRAM: &str = env!("CARGO_BIN_EXE_sidegate");
/// What requests of [`Demo::ask`] are for.
const ORIGIN: (&str, &str) = ("Origin", "http://127.0.0.1");
const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");
/// A reader may not; PostgreSQL lets anybody.
const DENIED: &str = "select pg_advisory_lock(1)";
const SETTINGS: &str = "/services/postgres-b/settings";
const LIMIT: Duration = Duration::from_secs(20);

struct Console<'a> {
    demo: &'a Demo,
    url: String,
}

/// Somebody who is signed in.
struct Person<'a> {
    console: &'a Console<'a>,
    cookie: String,
    csrf: String,
}

impl<'a> Console<'a> {
    fn of(demo: &'a Demo) -> Self {
        let link = demo.ready()["console"].as_str().unwrap();
        Self { demo, url: link.split_once("/sign-in").unwrap().0.to_owned() }
    }

    fn link_file(&self) -> PathBuf {
        self.demo.dir().join("console/link")
    }

    fn key(&self) -> String {
        let link = std::fs::read_to_string(self.link_file()).unwrap();
        link.trim().split_once("key=").unwrap().1.to_owned()
    }

    fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.demo.ask(method, &self.url, path, headers, body.as_bytes())
    }

    fn try_key(&self, key: &str) -> Answer {
        self.ask("POST", "/sign-in", &[ORIGIN, FORM], &format!("key={key}"))
    }

    fn sign_in(&'a self) -> Person<'a> {
        let answer = self.try_key(&self.key());
        assert_eq!(answer.status, 303, "{answer:?}");
        let cookie = answer.header("set-cookie").unwrap();
        assert!(cookie.contains("; HttpOnly") && cookie.contains("; SameSite=Strict"), "{cookie}");
        let mut person =
            Person { console: self, cookie: cookie.split(';').next().unwrap().to_owned(), csrf: String::new() };
        person.csrf = person.field("/", "csrf");
        person
    }
}

impl Person<'_> {
    fn get(&self, path: &str) -> Answer {
        self.console.ask("GET", path, &[("Cookie", &self.cookie)], "")
    }

    /// A hidden field's value.
    fn field(&self, path: &str, name: &str) -> String {
        let page = self.get(path).text();
        let value = page.split_once(&format!("name=\"{name}\" value=\"")).unwrap_or_else(|| panic!("{name}: {page}")).1;
        value.split_once('"').unwrap().0.to_owned()
    }

    fn version(&self) -> String {
        self.field("/services/postgres-b", "version")
    }

    fn post(&self, path: &str, form: &str) -> Answer {
        let form = format!("csrf={}&{form}", self.csrf);
        self.console.ask("POST", path, &[ORIGIN, FORM, ("Cookie", &self.cookie)], &form)
    }

    fn verify(&self, value: &str) -> Answer {
        let version = self.version();
        self.post(SETTINGS, &format!("version={version}&key=VERIFY_AUTH_ENABLED&value={value}&confirmed=yes"))
    }
}

fn saved(demo: &Demo) -> String {
    let directory = PathBuf::from(demo.ready()["settings"]["postgres-b"].as_str().unwrap());
    std::fs::read_to_string(directory.join("VERIFY_AUTH_ENABLED")).unwrap().trim().to_owned()
}

#[test]
fn nobody_gets_in_or_changes_anything_by_accident() {
    let demo = Demo::start(PROGRAM);
    let console = Console::of(&demo);
    for path in ["/", "/services/postgres-b", "/access", "/decisions", "/issuer", "/benchmark"] {
        let answer = console.ask("GET", path, &[], "");
        assert_eq!((answer.status, answer.header("location")), (303, Some("/sign-in")), "{path}");
        assert!(answer.header("content-security-policy").unwrap().starts_with("default-src 'none'"));
    }
    assert_eq!(console.ask("GET", "/events/services", &[], "").status, 401);

    let mode = std::fs::metadata(console.link_file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let first = console.key();
    let person = console.sign_in();
    assert_eq!(console.try_key(&first).status, 403, "a link is good once");
    assert_ne!(console.key(), first);
    assert_eq!(console.ask("POST", "/sign-in", &[FORM], &format!("key={}", console.key())).status, 403, "from nowhere");

    let whole =
        |csrf: &str| format!("{csrf}&version={}&key=VERIFY_AUTH_ENABLED&value=false&confirmed=yes", person.version());
    let right = whole(&format!("csrf={}", person.csrf));
    let cookie = ("Cookie", person.cookie.as_str());
    let no_csrf = [whole(""), whole("csrf="), whole("csrf=x"), whole(&format!("csrf={}", console.sign_in().csrf))];
    for form in &no_csrf {
        assert_eq!(console.ask("POST", SETTINGS, &[ORIGIN, FORM, cookie], form).status, 403, "{form}");
    }
    for origin in ["http://evil.example", "http://127.0.0.1:1", "https://127.0.0.1", "null"] {
        assert_eq!(console.ask("POST", SETTINGS, &[("Origin", origin), FORM, cookie], &right).status, 403, "{origin}");
    }
    assert_eq!(console.ask("POST", SETTINGS, &[FORM, cookie], &right).status, 403, "without an origin");
    assert_eq!(console.ask("POST", SETTINGS, &[ORIGIN, FORM], &right).status, 401, "without a session");
    // A name that an attacker lets point here.
    let mut http = Http::connect(&console.url, demo.ca_file());
    let bytes = String::from_utf8(request("GET", "/", &[cookie], b"")).unwrap();
    http.send(bytes.replace("Host: 127.0.0.1", "Host: evil.example").as_bytes());
    assert_eq!(http.answer().unwrap().status, 421);
    assert_eq!(saved(&demo), "true");

    // What a page follows ends when whoever looks signs out.
    let mut stream = Http::connect(&console.url, demo.ca_file());
    stream.send(&request("GET", "/events/services", &[cookie, ("Connection", "close")], b""));
    assert_eq!(person.post("/sign-out", "").status, 303);
    assert!(String::from_utf8_lossy(&stream.rest()).starts_with("HTTP/1.1 200"), "and it has ended");
    assert_eq!(person.get("/").status, 303);

    for _ in 0..9 {
        assert_eq!(console.try_key("guess").status, 403);
    }
    assert_eq!(console.try_key(&console.key()).status, 429, "even the right one, for a minute");
}

#[test]
fn a_switch_is_a_switch_and_of_two_people_one_is_told() {
    let demo = Demo::start(PROGRAM);
    let console = Console::of(&demo);
    let (one, other) = (console.sign_in(), console.sign_in());
    let database = demo.outbound("service-a", "postgres-b");
    let passes = || psql(database, DENIED).status.success();
    assert!(!passes());

    let unconfirmed = one.post(SETTINGS, &format!("version={}&key=VERIFY_AUTH_ENABLED&value=false", one.version()));
    assert_eq!(unconfirmed.status, 200);
    assert!(unconfirmed.text().contains("Nothing is denied, and nobody needs a token"), "{unconfirmed:?}");
    assert_eq!(saved(&demo), "true", "nothing is done before it is confirmed");

    assert_eq!(one.verify("false").status, 303);
    within(LIMIT, || passes().then_some(())).expect("what was denied passes");
    let seen = || one.get("/services/postgres-b").text().contains("<td id=\"pod-verify-postgres-b\">off</td>");
    within(LIMIT, || seen().then_some(())).expect("the page shows that the sidecar has taken it up");

    let looked_at = other.version();
    assert_eq!(one.verify("observe").status, 303);
    let late = format!("version={looked_at}&key=VERIFY_AUTH_ENABLED&value=false&confirmed=yes");
    let told = other.post(SETTINGS, &late);
    assert_eq!(told.status, 409);
    assert!(told.text().contains("VERIFY_AUTH_ENABLED: observe"), "{told:?}");
    assert_eq!(saved(&demo), "observe");

    // All at once, as it was looked at; and no namespace comes into being by it.
    let versions = format!("versions=postgres-b%3D{}+nowhere%3D{}&confirmed=yes", one.version(), one.version());
    assert_eq!(one.post("/all/verification", &versions).status, 303);
    assert!(!demo.dir().join("settings/nowhere").exists());
    within(LIMIT, || (!passes()).then_some(())).expect("it is denied again");
    for value in ["maybe", "true%0Afalse", ""] {
        assert_eq!(one.verify(value).status, 404, "{value}");
    }
    let history = one.get("/services/postgres-b").text();
    assert!(history.contains("VERIFY_AUTH_ENABLED: observe") && history.contains("link:1"), "{history}");
}

#[test]
fn a_denial_is_found_among_thousands_and_names_are_texts() {
    let demo = Demo::start(PROGRAM);
    let console = Console::of(&demo);
    let person = console.sign_in();
    let database = demo.outbound("service-a", "postgres-b");
    assert!(!psql(database, "insert into \"<script>alert(1)</script>\" values (1)").status.success());
    let many = "select 1;\n".repeat(2500);
    let mut child = Command::new("psql")
        .args(["-X", "-w", "-q", "-d", database])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(many.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());

    let denials = || Some(person.get("/decisions?verdict=deny").text()).filter(|page| page.contains("alert(1)"));
    let page = within(LIMIT, denials).expect("the denial, however much was allowed since");
    assert!(!page.contains("<script>alert") && page.contains("&#60;script&#62;alert(1)"), "{page}");
    let path = page.split_once("href=\"/decisions/").unwrap().1.split_once('"').unwrap().0;
    let decision = person.get(&format!("/decisions/{path}"));
    assert_eq!(decision.status, 200, "{decision:?}");
    let draft = person.get(&format!("/access/new?decision={path}"));
    assert!(
        draft.status == 200 && draft.text().contains("AccessRole") && !draft.text().contains("<script>alert"),
        "{draft:?}"
    );

    std::fs::write(demo.dir().join("settings/service-b/SIGN_AUTH_ENABLED"), "<script>alert(2)</script>'; DROP")
        .unwrap();
    let page = person.get("/services/service-b").text();
    assert!(page.contains("&#60;script&#62;alert(2)") && !page.contains("<script>alert"), "{page}");
}
