//! Where spans go and which are kept: OpenTelemetry's standard variables, or the configuration's own words.
//!
//! Deliberately absent: reading the environment, which is the program's; limits and batches, which are fixed.

use std::fmt;
use std::path::PathBuf;

use super::TraceContext;

/// Variables of header fields, the more special one first.
const HEADERS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"];

/// Where spans go, and which are kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// The URL that spans are posted to, whole; without a user and password, as it is told in logs.
    pub endpoint: String,
    /// Authorities that may vouch for an https endpoint.
    pub ca_file: Option<PathBuf>,
    /// Header fields that go with each request.
    pub headers: Vec<(String, String)>,
    /// Attributes of the process.
    pub resource: Vec<(String, String)>,
    /// Which traces are kept.
    pub sampler: Sampler,
}

/// Which traces are kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampler {
    /// Whether a parent's own decision is followed.
    pub follows_parent: bool,
    /// Of the others, which part, from 0 to 1.
    pub ratio: f64,
}

impl Default for Sampler {
    fn default() -> Self {
        Self { follows_parent: true, ratio: 1.0 }
    }
}

impl Sampler {
    pub(super) fn keeps(&self, parent: Option<&TraceContext>, id: &[u8; 16]) -> bool {
        match parent {
            Some(parent) if self.follows_parent => parent.is_sampled(),
            _ => self.keeps_part(id),
        }
    }

    /// By the id's random end, so that all who look at it keep the same traces.
    fn keeps_part(&self, id: &[u8; 16]) -> bool {
        let end = id.last_chunk().map_or(0, |end| u64::from_be_bytes(*end));
        // A float saturates where the ratio is 1.
        (end >> 1) < (self.ratio * (1_u64 << 63) as f64) as u64
    }
}

/// A variable that makes no sense.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
pub struct OptionsError {
    variable: &'static str,
    value: String,
    why: &'static str,
}

impl fmt::Display for OptionsError {
    /// Header fields hold keys, and this goes into a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { variable, value, why } = self;
        if HEADERS.contains(variable) {
            return write!(f, "{variable} (its value is not shown, as it may hold a key): {why}");
        }
        write!(f, "{variable}={value:?}: {why}")
    }
}

impl fmt::Debug for OptionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OptionsError({self})")
    }
}

impl Options {
    /// Spans go to this URL, all of them. What it says of a user and password is left out: nothing sends it (a key to the
    /// collector is a header field), and the URL is told in logs.
    #[must_use]
    pub fn to(endpoint: String) -> Self {
        Self {
            endpoint: without_user(&endpoint),
            ca_file: None,
            headers: Vec::new(),
            resource: Vec::new(),
            sampler: Sampler::default(),
        }
    }

    /// What the variables of OpenTelemetry's specification say, on top of `configured`; none, where neither names an
    /// endpoint or traces are switched off.
    ///
    /// # Errors
    /// A value that makes no sense.
    pub fn from_variables(
        configured: Option<Self>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, OptionsError> {
        // An empty variable counts as none (OpenTelemetry, environment variables).
        let get = |name: &'static str| variable(name).filter(|value| !value.is_empty()).map(|value| (name, value));
        let is = |name, wanted: &str| get(name).is_some_and(|(_, value)| value.eq_ignore_ascii_case(wanted));
        if is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none") {
            return Ok(None);
        }
        let endpoint = get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").map(|(_, url)| url).or_else(|| {
            let (_, base) = get("OTEL_EXPORTER_OTLP_ENDPOINT")?;
            Some(format!("{}/v1/traces", base.trim_end_matches('/')))
        });
        let Some(mut options) = endpoint.map(Self::to).map_or(configured.clone(), |mut named| {
            if let Some(configured) = configured {
                named = Self { endpoint: named.endpoint, ..configured };
            }
            Some(named)
        }) else {
            return Ok(None);
        };
        if let Some((variable, value)) =
            get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL").or_else(|| get("OTEL_EXPORTER_OTLP_PROTOCOL"))
            && value == "grpc"
        {
            let why = "OTLP goes over HTTP here: name the collector's HTTP port (mostly 4318) and leave this out";
            return Err(OptionsError { variable, value, why });
        }
        if let Some((_, file)) =
            get("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE").or_else(|| get("OTEL_EXPORTER_OTLP_CERTIFICATE"))
        {
            options.ca_file = Some(file.into());
        }
        if let Some((variable, value)) = HEADERS.into_iter().find_map(get) {
            options.headers.extend(pairs(variable, value)?);
        }
        if let Some((variable, value)) = get("OTEL_RESOURCE_ATTRIBUTES") {
            pairs(variable, value)?.into_iter().for_each(|(name, value)| options.describe(&name, value));
        }
        if let Some((_, name)) = get("OTEL_SERVICE_NAME") {
            options.describe("service.name", name);
        }
        if let Some((variable, value)) = get("OTEL_TRACES_SAMPLER") {
            options.sampler = sampler(variable, value, get("OTEL_TRACES_SAMPLER_ARG"))?;
        }
        Ok(Some(options))
    }

    /// Says something of the process, in place of what was said before.
    pub fn describe(&mut self, name: &str, value: String) {
        self.resource.retain(|(known, _)| known != name);
        self.resource.push((name.to_owned(), value));
    }
}

/// A URL without what stands before the `@` of its authority (RFC 3986 §3.2.1).
fn without_user(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(scheme, rest)| (scheme, rest));
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(end).unwrap_or((rest, ""));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let separator = if scheme.is_empty() { "" } else { "://" };
    format!("{scheme}{separator}{host}{path}")
}

fn sampler(
    variable: &'static str,
    value: String,
    argument: Option<(&'static str, String)>,
) -> Result<Sampler, OptionsError> {
    let (follows_parent, name) = match value.strip_prefix("parentbased_") {
        Some(name) => (true, name),
        None => (false, value.as_str()),
    };
    let ratio = match name {
        "always_on" => 1.0,
        "always_off" => 0.0,
        "traceidratio" => argument.map_or(Ok(1.0), |(variable, value)| ratio(variable, value))?,
        _ => {
            let why = "one of always_on, always_off, traceidratio, or one of these behind parentbased_";
            return Err(OptionsError { variable, value, why });
        }
    };
    Ok(Sampler { follows_parent, ratio })
}

fn ratio(variable: &'static str, value: String) -> Result<f64, OptionsError> {
    let parsed = value.trim().parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    parsed.ok_or(OptionsError { variable, value, why: "a number from 0 to 1" })
}

/// `name=value,name=value`, in the values percent-encoded what needs to be (W3C Baggage §3.3).
fn pairs(variable: &'static str, value: String) -> Result<Vec<(String, String)>, OptionsError> {
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        Some((name.trim().to_owned(), decoded(value.trim())?)).filter(|(name, _)| !name.is_empty())
    };
    let written = value.split(',').filter(|pair| !pair.trim().is_empty());
    let read: Option<Vec<_>> = written.map(pair).collect();
    read.ok_or(OptionsError {
        variable,
        value,
        why: "pairs like name=value,name=value; percent-encode what is special",
    })
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        if *first == b'%' {
            let (digits, behind) = behind.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = behind;
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(configured: Option<Options>, variables: &[(&str, &str)]) -> Result<Option<Options>, OptionsError> {
        let find =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Options::from_variables(configured, find)
    }

    #[test]
    fn without_an_endpoint_there_are_no_traces() {
        assert_eq!(read(None, &[("OTEL_SERVICE_NAME", "x"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "")]), Ok(None));
        let configured = Some(Options::to("http://c/v1/traces".to_owned()));
        assert_eq!(read(configured.clone(), &[]), Ok(configured.clone()));
        assert_eq!(read(configured.clone(), &[("OTEL_SDK_DISABLED", "true")]), Ok(None));
        assert_eq!(read(configured, &[("OTEL_TRACES_EXPORTER", "none")]), Ok(None));
    }

    #[test]
    fn the_specifications_variables_are_read() {
        let mut configured = Options::to("http://configured/v1/traces".to_owned());
        configured.describe("service.name", "b".to_owned());
        let options = read(
            Some(configured),
            &[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/"),
                ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20b, other=1=2,"),
                ("OTEL_RESOURCE_ATTRIBUTES", "service.name=c,deployment.environment.name=test"),
                ("OTEL_SERVICE_NAME", "d"),
                ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
                ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
            ],
        );
        let options = options.unwrap().unwrap();
        assert_eq!(options.endpoint, "http://collector:4318/v1/traces");
        let own = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(options.headers, [own("api-key", "a b"), own("other", "1=2")]);
        assert_eq!(options.resource, [own("deployment.environment.name", "test"), own("service.name", "d")]);
        assert_eq!(options.sampler, Sampler { follows_parent: true, ratio: 0.25 });
        let whole = read(
            None,
            &[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://a/b"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c")],
        );
        assert_eq!(whole.unwrap().unwrap().endpoint, "http://a/b");
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        for (variable, value) in [("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), ("OTEL_TRACES_SAMPLER", "sometimes")] {
            let error = read(Some(Options::to("http://a".to_owned())), &[(variable, value)]).unwrap_err();
            assert!(error.to_string().contains(variable) && error.to_string().contains(value), "{error}");
        }
        let odd = [("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "2")];
        assert!(read(Some(Options::to("http://a".to_owned())), &odd).is_err());
    }

    #[test]
    fn no_key_gets_into_a_log() {
        for variable in HEADERS {
            for value in ["s3cret", "api-key=s3cret%zz", "=s3cret"] {
                let error = read(Some(Options::to("http://a".to_owned())), &[(variable, value)]).unwrap_err();
                let said = format!("{error} {error:?}");
                assert!(said.contains(variable) && said.contains("name=value") && !said.contains("s3cret"), "{said}");
            }
        }
        for (url, told) in [
            ("http://u:s3cret@c:4318/v1/traces", "http://c:4318/v1/traces"),
            ("https://u:s3@cret@c", "https://c"),
            ("u:s3cret@c:4318/x", "c:4318/x"),
            ("http://c/a@b?c@d", "http://c/a@b?c@d"),
            ("http://[::1]:4318", "http://[::1]:4318"),
        ] {
            assert_eq!(Options::to(url.to_owned()).endpoint, told);
        }
        let named = read(None, &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://u:s3cret@c:4318")]);
        assert_eq!(named.unwrap().unwrap().endpoint, "http://c:4318/v1/traces");
    }

    #[test]
    fn a_ratio_keeps_that_part() {
        let id = |end: u64| {
            let mut id = [0; 16];
            id[8..].copy_from_slice(&end.to_be_bytes());
            id
        };
        let quarter = Sampler { follows_parent: false, ratio: 0.25 };
        assert!(quarter.keeps(None, &id(u64::MAX / 4 - 9)) && !quarter.keeps(None, &id(u64::MAX / 4 + 9)));
        assert!(Sampler::default().keeps(None, &id(u64::MAX)));
        assert!(!Sampler { follows_parent: true, ratio: 0.0 }.keeps(None, &id(0)));
    }
}
