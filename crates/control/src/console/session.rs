//! Who is at the console: the one-time link, sessions, and what every change has to bring along.
//!
//! A link signs one browser in, once; then there is another. In a cluster a token of Kubernetes does instead. A session is a random
//! number in a cookie that scripts cannot read and other sites cannot send. A change brings the session's own token in its form, too, and must come from one of our pages.
//! Deliberately absent: passwords, and anything that outlives the process.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use runtime::listen::Address;
use runtime::secret;

/// The cookie's name.
const COOKIE: &str = "sidegate_session";
/// A session ends so long after it began, whatever happens in it …
const LONGEST: Duration = Duration::from_secs(8 * 3600);
/// … and when nothing was asked for so long.
const IDLE: Duration = Duration::from_secs(30 * 60);
/// More sessions than people; the oldest goes.
const SESSIONS_MAX: usize = 64;
/// Attempts to sign in that failed within [`WINDOW`], by anybody: the link has 256 random bits, this only keeps the log short.
const ATTEMPTS_MAX: usize = 10;
const WINDOW: Duration = Duration::from_secs(60);
/// Random bytes of a link, a session and a form's token.
const BYTES: usize = 32;

/// Why somebody is not signed in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum SignInError {
    /// It was used, or never given out.
    #[error("this link is not valid, or was used already")]
    Link,
    /// The cluster does not take it.
    #[error("the cluster does not take this token: {0}")]
    Token(String),
    /// The cluster cannot be asked.
    #[error("the cluster cannot be asked: {0}")]
    Cluster(String),
    /// The provider does not sign people in.
    #[error("the provider of sign-ins: {0}")]
    Provider(String),
    /// The system gives no random numbers.
    #[error("no session can be made now; see the console's log")]
    Random,
    /// Wait.
    #[error("too many attempts; try again in a minute")]
    TooMany,
}

/// A session as requests see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Viewer {
    /// Who it is, for the record of changes.
    pub(super) who: String,
    /// What forms bring along.
    pub(super) csrf: String,
}

struct Session<T> {
    viewer: Viewer,
    own: T,
    began: Instant,
    used: Instant,
    /// Never later than this.
    ends: Instant,
}

/// All sessions, each with something of its own, and the link that begins the next.
pub(super) struct Sessions<T> {
    /// Where the link is written; without it, there is none.
    link_file: Option<PathBuf>,
    /// `http://host:port` of this console.
    origin: String,
    state: Mutex<State<T>>,
}

struct State<T> {
    link: String,
    sessions: HashMap<String, Session<T>>,
    attempts: Vec<Instant>,
    signed_in: u64,
}

impl<T: Clone> Sessions<T> {
    /// Writes the first link, if one is wanted.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub(super) fn open(link_file: Option<PathBuf>, origin: String) -> io::Result<Self> {
        let link = random().map_err(io::Error::other)?;
        let state = State { link, sessions: HashMap::new(), attempts: Vec::new(), signed_in: 0 };
        let sessions = Self { link_file, origin, state: Mutex::new(state) };
        sessions.write_link()?;
        Ok(sessions)
    }

    fn write_link(&self) -> io::Result<()> {
        let Some(file) = &self.link_file else { return Ok(()) };
        let link = format!("{}/sign-in?key={}\n", self.origin, self.state.lock().link);
        secret::write(file, link.as_bytes())
    }

    /// Trades the link's key for a session: its cookie. The link is used up by it, and another one written.
    pub(super) fn sign_in(&self, key: &str, own: T, now: Instant) -> Result<String, SignInError> {
        self.may_try(now)?;
        let cookie = {
            let mut state = self.state.lock();
            let is_it = verify_slices_are_equal(key.as_bytes(), state.link.as_bytes()).is_ok();
            if !is_it || self.link_file.is_none() {
                state.attempts.push(now);
                return Err(SignInError::Link);
            }
            state.link = random()?;
            state.signed_in += 1;
            let who = format!("link:{}", state.signed_in);
            state.begin(who, own, now, now + LONGEST)?
        };
        if let Err(error) = self.write_link() {
            tracing::error!(%error, "the next link to sign in cannot be written; this session goes on");
        }
        Ok(cookie)
    }

    /// Whether somebody may try to sign in; not after many who failed.
    pub(super) fn may_try(&self, now: Instant) -> Result<(), SignInError> {
        let mut state = self.state.lock();
        state.attempts.retain(|attempt| now.duration_since(*attempt) < WINDOW);
        if state.attempts.len() >= ATTEMPTS_MAX { Err(SignInError::TooMany) } else { Ok(()) }
    }

    /// Somebody did not get in.
    pub(super) fn failed(&self, now: Instant) {
        self.state.lock().attempts.push(now);
    }

    /// A session of somebody who is known by other means, for `life` at most: its cookie.
    pub(super) fn begin(&self, who: String, own: T, now: Instant, life: Duration) -> Result<String, SignInError> {
        self.state.lock().begin(who, own, now, now + life.min(LONGEST))
    }

    /// The session that a request belongs to, if it lasts.
    pub(super) fn viewer(&self, headers: &HeaderMap, now: Instant) -> Option<(Viewer, T)> {
        let id = cookie(headers)?;
        self.forget_ended(now);
        let mut state = self.state.lock();
        let session = state.sessions.get_mut(id)?;
        session.used = now;
        Some((session.viewer.clone(), session.own.clone()))
    }

    /// Lets go of what belongs to sessions that are over.
    pub(super) fn forget_ended(&self, now: Instant) {
        self.state.lock().sessions.retain(|_, session| session.lasts(now));
    }

    /// Whether the session of somebody who follows a page still lasts. Following is no use of it: a page left open is idle.
    pub(super) fn lasts(&self, viewer: &Viewer, now: Instant) -> bool {
        self.state.lock().sessions.values().any(|session| session.viewer == *viewer && session.lasts(now))
    }

    /// Ends the session of a request, and gives the cookie that says so.
    pub(super) fn sign_out(&self, headers: &HeaderMap) -> String {
        if let Some(id) = cookie(headers) {
            self.state.lock().sessions.remove(id);
        }
        format!("{COOKIE}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0")
    }
}

impl<T> State<T> {
    fn begin(&mut self, who: String, own: T, now: Instant, ends: Instant) -> Result<String, SignInError> {
        if self.sessions.len() >= SESSIONS_MAX {
            let oldest = self.sessions.iter().min_by_key(|(_, session)| session.used).map(|(id, _)| id.clone());
            oldest.and_then(|id| self.sessions.remove(&id));
        }
        let viewer = Viewer { who, csrf: random()? };
        let id = random()?;
        let cookie = format!("{COOKIE}={id}; Path=/; HttpOnly; SameSite=Strict; Max-Age={}", LONGEST.as_secs());
        self.sessions.insert(id, Session { viewer, own, began: now, used: now, ends });
        Ok(cookie)
    }
}

impl<T> Session<T> {
    fn lasts(&self, now: Instant) -> bool {
        now < self.ends && now.duration_since(self.began) < LONGEST && now.duration_since(self.used) < IDLE
    }
}

impl Viewer {
    /// Whether a form is one of this session's.
    pub(super) fn made(&self, csrf: &str) -> bool {
        verify_slices_are_equal(csrf.as_bytes(), self.csrf.as_bytes()).is_ok()
    }
}

/// Whether the request was meant for this machine: a name that an attacker lets point here is none of ours.
pub(super) fn is_for_us(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter().map(|host| host.to_str().unwrap_or_default());
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let host = if host.contains(':') && !host.ends_with(']') { host.to_owned() } else { format!("{host}:80") };
    host.parse::<Address>().is_ok_and(|address| address.is_local())
}

/// Whether a change comes from a page of ours, as browsers say with everything that they post.
pub(super) fn is_from_us(headers: &HeaderMap) -> bool {
    let text = |name: &header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    match (text(&header::ORIGIN), text(&header::HOST)) {
        (Some(origin), Some(host)) => origin.strip_prefix("http://").is_some_and(|rest| rest == host),
        _ => false,
    }
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    cookie_of(headers, COOKIE)
}

/// A cookie by its name.
pub(super) fn cookie_of<'a>(headers: &'a HeaderMap, wanted: &str) -> Option<&'a str> {
    let texts = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = texts.flat_map(|text| text.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == wanted).map(|(_, value)| value)
}

/// What nobody guesses.
pub(super) fn random() -> Result<String, SignInError> {
    let mut bytes = [0; BYTES];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| SignInError::Random)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn sessions() -> (tempfile::TempDir, Sessions<()>) {
        let dir = tempfile::tempdir().unwrap();
        let sessions = Sessions::open(Some(dir.path().join("link")), "http://127.0.0.1:1".to_owned()).unwrap();
        (dir, sessions)
    }

    fn key(dir: &tempfile::TempDir) -> String {
        std::fs::read_to_string(dir.path().join("link")).unwrap().trim().split_once("key=").unwrap().1.to_owned()
    }

    fn with(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn a_link_signs_in_once() {
        use std::os::unix::fs::PermissionsExt;
        let (dir, sessions) = sessions();
        let (first, now) = (key(&dir), Instant::now());
        assert_eq!(std::fs::metadata(dir.path().join("link")).unwrap().permissions().mode() & 0o777, 0o600);
        let cookie = sessions.sign_in(&first, (), now).unwrap();
        assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
        assert_eq!(sessions.sign_in(&first, (), now), Err(SignInError::Link));
        assert_ne!(key(&dir), first);
        let headers = with(header::COOKIE, &format!("a=b; {}", cookie.split(';').next().unwrap()));
        let (viewer, ()) = sessions.viewer(&headers, now).unwrap();
        assert!(viewer.made(&viewer.csrf) && !viewer.made("") && !viewer.made("x"));
        assert!(sessions.lasts(&viewer, now) && !sessions.lasts(&viewer, now + IDLE));
        sessions.sign_out(&headers);
        assert_eq!(sessions.viewer(&headers, now), None);
        assert!(!sessions.lasts(&viewer, now));
    }

    #[test]
    fn guessing_is_slow() {
        let (dir, sessions) = sessions();
        let now = Instant::now();
        for _ in 0..ATTEMPTS_MAX {
            assert_eq!(sessions.sign_in("guess", (), now), Err(SignInError::Link));
        }
        assert_eq!(sessions.sign_in(&key(&dir), (), now), Err(SignInError::TooMany));
        assert!(sessions.sign_in(&key(&dir), (), now + WINDOW).is_ok());
    }

    #[test]
    fn a_session_ends_by_itself() {
        let (dir, sessions) = sessions();
        let began = Instant::now();
        let cookie = sessions.sign_in(&key(&dir), (), began).unwrap();
        let headers = with(header::COOKIE, cookie.split(';').next().unwrap());
        let (mut now, mut last) = (began, began);
        while sessions.viewer(&headers, now).is_some() {
            last = now;
            now += IDLE - Duration::from_secs(1);
        }
        assert!(last - began > LONGEST - IDLE && last - began < LONGEST);
        let cookie = sessions.sign_in(&key(&dir), (), now).unwrap();
        let headers = with(header::COOKIE, cookie.split(';').next().unwrap());
        assert_eq!(sessions.viewer(&headers, now + IDLE), None);
    }

    #[test]
    fn a_session_lasts_no_longer_than_what_it_began_with() {
        let (_dir, sessions) = sessions();
        let now = Instant::now();
        let cookie = sessions.begin("somebody".to_owned(), (), now, Duration::from_secs(60)).unwrap();
        let headers = with(header::COOKIE, cookie.split(';').next().unwrap());
        assert_eq!(sessions.viewer(&headers, now).unwrap().0.who, "somebody");
        sessions.forget_ended(now + Duration::from_secs(60));
        assert_eq!(sessions.viewer(&headers, now), None, "it is gone, and what belongs to it");
        let none: Sessions<()> = Sessions::open(None, String::new()).unwrap();
        let link = none.state.lock().link.clone();
        assert_eq!(none.sign_in(&link, (), now), Err(SignInError::Link), "no link was given out");
    }

    #[test]
    fn requests_are_for_us_and_changes_from_us() {
        for (host, ours) in
            [("127.0.0.1:8", true), ("localhost", true), ("[::1]:8", true), ("evil.example:8", false), ("", false)]
        {
            assert_eq!(is_for_us(&with(header::HOST, host)), ours, "{host}");
        }
        let mut headers = with(header::HOST, "localhost:8");
        assert!(!is_from_us(&headers));
        for (origin, ours) in [
            ("http://localhost:8", true),
            ("http://localhost:9", false),
            ("null", false),
            ("https://localhost:8", false),
        ] {
            headers.insert(header::ORIGIN, HeaderValue::from_str(origin).unwrap());
            assert_eq!(is_from_us(&headers), ours, "{origin}");
        }
    }
}
