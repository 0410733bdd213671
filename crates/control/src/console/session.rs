//! Who is at the console: the one-time link, sessions, and what every change has to bring along.
//!
//! A link signs one browser in, once; then there is another. A session is a random number in a cookie that scripts cannot read and
//! other sites cannot send. A change brings the session's own token in its form, too, and must come from one of our pages.
//! Deliberately absent: passwords, and anything that outlives the process.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum SignInError {
    /// It was used, or never given out.
    #[error("this link is not valid, or was used already")]
    Link,
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

struct Session {
    viewer: Viewer,
    began: Instant,
    used: Instant,
}

/// All sessions, and the link that begins the next.
pub(super) struct Sessions {
    link_file: PathBuf,
    /// `http://host:port` of this console.
    origin: String,
    state: Mutex<State>,
}

struct State {
    link: String,
    sessions: HashMap<String, Session>,
    attempts: Vec<Instant>,
    signed_in: u64,
}

impl Sessions {
    /// Writes the first link.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub(super) fn open(link_file: &Path, origin: String) -> io::Result<Self> {
        let link = random().map_err(io::Error::other)?;
        let state = State { link, sessions: HashMap::new(), attempts: Vec::new(), signed_in: 0 };
        let sessions = Self { link_file: link_file.to_owned(), origin, state: Mutex::new(state) };
        sessions.write_link()?;
        Ok(sessions)
    }

    fn write_link(&self) -> io::Result<()> {
        let link = format!("{}/sign-in?key={}\n", self.origin, self.state.lock().link);
        secret::write(&self.link_file, link.as_bytes())
    }

    /// Trades the link's key for a session: its cookie. The link is used up by it, and another one written.
    pub(super) fn sign_in(&self, key: &str, now: Instant) -> Result<String, SignInError> {
        let cookie = {
            let mut state = self.state.lock();
            state.attempts.retain(|attempt| now.duration_since(*attempt) < WINDOW);
            if state.attempts.len() >= ATTEMPTS_MAX {
                return Err(SignInError::TooMany);
            }
            if verify_slices_are_equal(key.as_bytes(), state.link.as_bytes()).is_err() {
                state.attempts.push(now);
                return Err(SignInError::Link);
            }
            state.link = random()?;
            state.begin(now)?
        };
        if let Err(error) = self.write_link() {
            tracing::error!(%error, "the next link to sign in cannot be written; this session goes on");
        }
        Ok(format!("{COOKIE}={cookie}; Path=/; HttpOnly; SameSite=Strict; Max-Age={}", LONGEST.as_secs()))
    }

    /// The session that a request belongs to, if it lasts.
    pub(super) fn viewer(&self, headers: &HeaderMap, now: Instant) -> Option<Viewer> {
        let id = cookie(headers)?;
        let mut state = self.state.lock();
        state.sessions.retain(|_, session| session.lasts(now));
        let session = state.sessions.get_mut(id)?;
        session.used = now;
        Some(session.viewer.clone())
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

impl State {
    fn begin(&mut self, now: Instant) -> Result<String, SignInError> {
        if self.sessions.len() >= SESSIONS_MAX {
            let oldest = self.sessions.iter().min_by_key(|(_, session)| session.used).map(|(id, _)| id.clone());
            oldest.and_then(|id| self.sessions.remove(&id));
        }
        self.signed_in += 1;
        let viewer = Viewer { who: format!("link:{}", self.signed_in), csrf: random()? };
        let id = random()?;
        self.sessions.insert(id.clone(), Session { viewer, began: now, used: now });
        Ok(id)
    }
}

impl Session {
    fn lasts(&self, now: Instant) -> bool {
        now.duration_since(self.began) < LONGEST && now.duration_since(self.used) < IDLE
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
    let texts = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = texts.flat_map(|text| text.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, value)| value)
}

fn random() -> Result<String, SignInError> {
    let mut bytes = [0; BYTES];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| SignInError::Random)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn sessions() -> (tempfile::TempDir, Sessions) {
        let dir = tempfile::tempdir().unwrap();
        let sessions = Sessions::open(&dir.path().join("link"), "http://127.0.0.1:1".to_owned()).unwrap();
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
        let cookie = sessions.sign_in(&first, now).unwrap();
        assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
        assert_eq!(sessions.sign_in(&first, now), Err(SignInError::Link));
        assert_ne!(key(&dir), first);
        let headers = with(header::COOKIE, &format!("a=b; {}", cookie.split(';').next().unwrap()));
        let viewer = sessions.viewer(&headers, now).unwrap();
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
            assert_eq!(sessions.sign_in("guess", now), Err(SignInError::Link));
        }
        assert_eq!(sessions.sign_in(&key(&dir), now), Err(SignInError::TooMany));
        assert!(sessions.sign_in(&key(&dir), now + WINDOW).is_ok());
    }

    #[test]
    fn a_session_ends_by_itself() {
        let (dir, sessions) = sessions();
        let began = Instant::now();
        let cookie = sessions.sign_in(&key(&dir), began).unwrap();
        let headers = with(header::COOKIE, cookie.split(';').next().unwrap());
        let (mut now, mut last) = (began, began);
        while sessions.viewer(&headers, now).is_some() {
            last = now;
            now += IDLE - Duration::from_secs(1);
        }
        assert!(last - began > LONGEST - IDLE && last - began < LONGEST);
        let cookie = sessions.sign_in(&key(&dir), now).unwrap();
        let headers = with(header::COOKIE, cookie.split(';').next().unwrap());
        assert_eq!(sessions.viewer(&headers, now + IDLE), None);
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
