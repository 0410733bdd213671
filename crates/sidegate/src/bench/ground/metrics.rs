//! What a sidecar says of itself at `/metrics`.

use anyhow::{Context, ensure};
use runtime::http_client::HttpClient;

const GENERATION: &str = "sidegate_settings_generation";
const CPU: &str = "process_cpu_seconds_total";
const RESIDENT: &str = "process_resident_memory_bytes";

/// What a process takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    /// Processor time in seconds, of user and system; counted in hundredths.
    pub cpu_seconds: f64,
    /// Resident memory.
    pub resident_bytes: f64,
}

impl Usage {
    /// Processor time from one look to another, and memory at the second.
    pub fn between(before: [Self; 2], after: [Self; 2]) -> [Self; 2] {
        let [outbound, inbound] = before;
        let [outbound_after, inbound_after] = after;
        let since = |before: Self, after: Self| Self { cpu_seconds: after.cpu_seconds - before.cpu_seconds, ..after };
        [since(outbound, outbound_after), since(inbound, inbound_after)]
    }
}

/// Where one process shows its metrics.
#[derive(Clone)]
pub struct Metrics {
    client: HttpClient,
    url: String,
}

impl Metrics {
    /// At this address.
    ///
    /// # Errors
    /// None without https.
    pub fn at(url: &str) -> anyhow::Result<Self> {
        Ok(Self { client: HttpClient::new(None)?, url: url.to_owned() })
    }

    /// How many changes of settings it has seen.
    ///
    /// # Errors
    /// When it does not say.
    pub async fn generation(&self) -> anyhow::Result<f64> {
        value(&self.text().await?, GENERATION).with_context(|| format!("{} has no {GENERATION}", self.url))
    }

    /// What the process has taken so far; `None` where it cannot know.
    pub async fn usage(&self) -> Option<Usage> {
        let text = self.text().await.ok()?;
        Some(Usage { cpu_seconds: value(&text, CPU)?, resident_bytes: value(&text, RESIDENT)? })
    }

    async fn text(&self) -> anyhow::Result<String> {
        let answer = self.client.get(&self.url).await?;
        ensure!(answer.status == 200, "{} answers with status {}", self.url, answer.status);
        Ok(String::from_utf8_lossy(&answer.body).into_owned())
    }
}

/// Of a metric without labels.
fn value(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.split(' ').next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_by_their_whole_name() {
        let text = "# HELP process_cpu_seconds User\nprocess_cpu_seconds_total 1.25 1700000000\nsidegate_settings_generation_x 9\nsidegate_settings_generation 3\n";
        assert_eq!((value(text, CPU), value(text, GENERATION), value(text, RESIDENT)), (Some(1.25), Some(3.0), None));
    }
}
