//! Which of Prometheus' text formats a reader gets: OpenMetrics if it asks for that, else the older format 0.0.4.
//!
//! The older one is made from OpenMetrics, family by family. Deliberately absent: formats in protocol buffers, and
//! exemplars, which we have none of.

/// A text format of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus' own text format, version 0.0.4: what everybody reads who does not ask for another.
    Text,
}

impl Format {
    /// The format for a reader with this `Accept` (RFC 9110 §12.5.1): OpenMetrics must be asked for by name, and no
    /// less than plain text is.
    #[must_use]
    pub fn accepted(accept: &str) -> Self {
        let quality = |wanted: &str| {
            let ranges = accept.split(',').filter_map(|range| {
                let mut parts = range.split(';').map(str::trim);
                let is_wanted = parts.next()?.eq_ignore_ascii_case(wanted);
                is_wanted.then(|| parts.find_map(|part| part.strip_prefix("q=")?.parse().ok()).unwrap_or(1.0))
            });
            ranges.fold(0.0_f64, f64::max)
        };
        let open_metrics = quality("application/openmetrics-text");
        if open_metrics > 0.0 && open_metrics >= quality("text/plain") { Self::OpenMetrics } else { Self::Text }
    }

    /// The content type of a page in this format.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// Rewrites a page of OpenMetrics: counters and infos are described by the names that their samples have, and there
/// are neither units nor an end.
pub(super) fn to_text(page: &str) -> String {
    let mut text = String::with_capacity(page.len());
    // A family's help comes before its type, by which it is known how its samples are named.
    let mut help = None;
    for line in page.lines() {
        if let Some(said) = line.strip_prefix("# HELP ") {
            help = said.split_once(' ');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|said| said.split_once(' ')) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                kind => ("", kind),
            };
            if let Some((_, said)) = help.take() {
                text.extend(["# HELP ", name, suffix, " ", said, "\n"]);
            }
            text.extend(["# TYPE ", name, suffix, " ", kind, "\n"]);
        } else if !line.starts_with('#') {
            text.extend([line, "\n"]);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_asks_for_it_gets_open_metrics() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                          application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, expected) in [
            (prometheus, Format::OpenMetrics),
            ("application/openmetrics-text", Format::OpenMetrics),
            ("text/plain;q=0.5, Application/OpenMetrics-Text; q=0.5", Format::OpenMetrics),
            ("application/openmetrics-text;q=0", Format::Text),
            ("text/plain;version=0.0.4;q=0.6,application/openmetrics-text;version=1.0.0;q=0.5", Format::Text),
            ("*/*", Format::Text),
            ("text/html,application/xhtml+xml,*/*;q=0.8", Format::Text),
            ("", Format::Text),
        ] {
            assert_eq!(Format::accepted(accept), expected, "{accept}");
        }
    }

    #[test]
    fn families_are_described_as_their_samples_are_named() {
        let page = "# HELP sidegate_build What runs here.\n# TYPE sidegate_build info\nsidegate_build_info{version=\"1\"} 1\n\
                    # HELP a Counted.\n# UNIT a seconds\n# TYPE a counter\na_total{b=\"# c\"} 2\n\
                    # HELP d Seen.\n# TYPE d gauge\nd NaN\n# TYPE e unknown\ne 1\n# EOF\n";
        let expected = "# HELP sidegate_build_info What runs here.\n# TYPE sidegate_build_info gauge\n\
                        sidegate_build_info{version=\"1\"} 1\n\
                        # HELP a_total Counted.\n# TYPE a_total counter\na_total{b=\"# c\"} 2\n\
                        # HELP d Seen.\n# TYPE d gauge\nd NaN\n# TYPE e untyped\ne 1\n";
        assert_eq!(to_text(page), expected);
    }
}
