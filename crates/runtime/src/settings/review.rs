//! What a ConfigMap's data would set, without following it: for whoever asks before or beside a sidecar.

use std::collections::BTreeMap;

use super::{KEYS, Reader, Settings, Value};

/// The settings that this data means, and all that is not understood of it. None, or nothing in it, is what a namespace
/// without settings has: the defaults, and nothing to complain of. Keys that are no setting are named, too: sidecars pass
/// over them, but whoever wrote one meant something.
#[must_use]
pub fn review(data: Option<&BTreeMap<String, String>>) -> (Settings, Vec<String>) {
    let Some(data) = data.filter(|data| !data.is_empty()) else { return (Settings::default(), Vec::new()) };
    let value = |key: &str| data.get(key).map_or(Value::Missing, |text| Value::Text(text.trim().to_owned()));
    let (settings, mut mistakes) = Reader::new().understand(KEYS.map(value));
    let strangers = data.keys().filter(|key| !KEYS.contains(&key.as_str()));
    mistakes.extend(strangers.map(|key| format!("{key} is no setting; there are {}", KEYS.join(", "))));
    (settings, mistakes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Verify;

    fn data(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_namespace_without_settings_enforces_and_has_no_mistakes() {
        assert_eq!(review(None), (Settings::default(), Vec::new()));
    }

    #[test]
    fn reads_as_the_sidecars_do() {
        let good = data(&[("SIGN_AUTH_ENABLED", "true"), ("VERIFY_AUTH_ENABLED", " Observe\n")]);
        let (settings, mistakes) = review(Some(&good));
        assert_eq!((settings.verify, mistakes), (Verify::Observe, Vec::new()));
        let bad = data(&[("SIGN_AUTH_ENABLED", "yes"), ("VERIFY_AUTH", "false"), ("TOKENS_NOT_BEFORE", "soon")]);
        let (settings, mistakes) = review(Some(&bad));
        assert_eq!((settings.sign, settings.verify), (true, Verify::Enforce));
        assert_eq!(mistakes.len(), 4, "{mistakes:?}");
    }
}
