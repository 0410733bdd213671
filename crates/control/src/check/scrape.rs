//! Metrics of a pod, as far as a check needs them: values by name and labels, of OpenMetrics text.
//!
//! Deliberately absent: types, exemplars and times, which no check looks at.

use std::collections::BTreeMap;

/// One line of metrics.
#[derive(Debug, Clone, PartialEq)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// All samples of a pod.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Samples(Vec<Sample>);

impl Samples {
    /// Reads a page. Lines that are no samples are passed over: nothing is concluded from their absence but "unknown".
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self(text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect())
    }

    /// The value of a metric without labels.
    pub(super) fn value(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|sample| sample.name == name).map(|sample| sample.value)
    }

    /// The same, if it is a number of whole seconds or things.
    pub(super) fn whole(&self, name: &str) -> Option<i64> {
        // Beyond what is exact in a float nothing is counted here, and a cast saturates.
        self.value(name).filter(|value| value.is_finite()).map(|value| value as i64)
    }

    /// The values of one label, of the samples of a metric that are not zero, each with its sample's other labels.
    pub(super) fn labelled<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a BTreeMap<String, String>> {
        self.0.iter().filter(move |sample| sample.name == name && sample.value != 0.0).map(|sample| &sample.labels)
    }
}

fn sample(line: &str) -> Option<Sample> {
    let (series, value) = match line.rsplit_once('}') {
        Some((series, value)) => (series, value),
        None => line.split_once(' ')?,
    };
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    let value = value.split_ascii_whitespace().next()?.parse().ok()?;
    // No label of ours has a comma or a quote in its value; one that had would be cut, and match nothing.
    let pairs = labels.split(',').filter_map(|pair| pair.split_once('='));
    let labels = pairs.map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned())).collect();
    Some(Sample { name: name.to_owned(), labels, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_pods_write() {
        let text = "# HELP sidegate_enforcing x.\n# TYPE sidegate_enforcing gauge\nsidegate_enforcing 1\n\
                    sidegate_jwks_age_seconds NaN\n\
                    sidegate_foreign_listeners{port=\"5432\",reach=\"network\"} 1\n\
                    sidegate_foreign_listeners{port=\"1\",reach=\"network\"} 0\n# EOF\n";
        let samples = Samples::parse(text);
        assert_eq!(samples.whole("sidegate_enforcing"), Some(1));
        assert_eq!(samples.whole("sidegate_jwks_age_seconds"), None);
        let ports: Vec<_> =
            samples.labelled("sidegate_foreign_listeners").map(|labels| labels["port"].as_str()).collect();
        assert_eq!(ports, ["5432"]);
    }
}
