//! The demo's HTTP service, behind a sidecar of its own: a real Prometheus that watches the demo, if the machine has one,
//! else a small inventory of ours (`cmd::inventory`).
//!
//! Deliberately absent: any lock of the service's own. Whatever its port answers to, the sidecar alone refuses; and as
//! the service listens on loopback, so could be reached around the sidecar by whoever is on this machine.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use super::children::{Spec, Stage};
use super::files;
use super::layout::Layout;
use super::ports::Ports;
use super::ready::Try;
use super::world::{self, APPS, DATABASES};

/// How long samples are kept, in time and in space: it is a demo.
const RETENTION: [&str; 2] = ["--storage.tsdb.retention.time=6h", "--storage.tsdb.retention.size=64MB"];
const SCRAPE_INTERVAL: &str = "2s";

/// The same as are offered for everywhere else.
const ALERTS: &str = include_str!("../../../../../deploy/examples/monitoring/alerts.yaml");

/// What stands behind the sidecar.
pub enum Web {
    /// The program.
    Prometheus(PathBuf),
    Inventory,
}

impl Web {
    /// In this order: SIDEGATE_PROMETHEUS (set but empty: no Prometheus), PATH, the cache directory.
    pub fn find() -> anyhow::Result<Self> {
        match std::env::var_os("SIDEGATE_PROMETHEUS") {
            Some(program) if program.is_empty() => Ok(Self::Inventory),
            Some(program) if runs(Path::new(&program)) => Ok(Self::Prometheus(program.into())),
            Some(program) => bail!("SIDEGATE_PROMETHEUS: {} is no Prometheus", program.display()),
            None => {
                Ok(candidates().into_iter().find(|program| runs(program)).map_or(Self::Inventory, Self::Prometheus))
            }
        }
    }

    /// Name of the service and of its namespace.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Prometheus(_) => "prometheus",
            Self::Inventory => "inventory",
        }
    }

    /// Its roles and grants: file name and content.
    pub fn documents(&self) -> (&'static str, &'static str) {
        match self {
            Self::Prometheus(_) => ("prometheus.yaml", include_str!("documents/prometheus.yaml")),
            Self::Inventory => ("inventory.yaml", include_str!("documents/inventory.yaml")),
        }
    }

    /// What a reader may get, for the proof that all is up.
    pub fn readable_path(&self) -> &'static str {
        match self {
            Self::Prometheus(_) => "/api/v1/query?query=1",
            Self::Inventory => "/items",
        }
    }

    /// Lines to try.
    pub fn tries(&self) -> &'static [Try] {
        match self {
            Self::Prometheus(_) => &PROMETHEUS_TRIES,
            Self::Inventory => &INVENTORY_TRIES,
        }
    }

    /// What the service needs before it is started.
    pub fn prepare(&self, layout: &Layout, ports: &Ports) -> anyhow::Result<()> {
        let Self::Prometheus(_) = self else { return Ok(()) };
        files::directory(&layout.data(self.name()), 0o700)?;
        let alerts = layout.config(&format!("{}.alerts", self.name()));
        files::replace(&alerts, ALERTS.as_bytes(), files::PUBLIC)?;
        let configuration = self.prometheus_configuration(ports, &alerts)?;
        files::replace(&layout.config(&self.process()), configuration.as_bytes(), files::PUBLIC)
    }

    /// The service's process.
    pub fn spec(&self, layout: &Layout, ports: &Ports) -> anyhow::Result<Spec> {
        let listen = format!("127.0.0.1:{}", ports.get(&world::upstream(self.name()))?);
        let (program, args) = match self {
            Self::Prometheus(program) => (program.clone(), self.prometheus_arguments(layout, &listen)),
            Self::Inventory => {
                let own = std::env::current_exe().context("cannot find this program's own file")?;
                (own, vec!["inventory".into(), "--listen".into(), listen.into()])
            }
        };
        Ok(Spec {
            name: self.process(),
            stage: Stage::Web,
            program,
            args,
            user: None,
            log: layout.log(&self.process()),
            stdout: None,
        })
    }

    /// The service beside its sidecar, which bears the service's name.
    fn process(&self) -> String {
        format!("{}.server", self.name())
    }

    /// With everything on that can harm, so that there is something to be denied.
    fn prometheus_arguments(&self, layout: &Layout, listen: &str) -> Vec<OsString> {
        let with = |name: &str, value: &Path| {
            let mut argument = OsString::from(name);
            argument.push(value);
            argument
        };
        let fixed = ["--web.enable-admin-api", "--web.enable-lifecycle"].into_iter().chain(RETENTION);
        let mut arguments: Vec<OsString> = fixed.map(OsString::from).collect();
        arguments.push(with("--config.file=", &layout.config(&self.process())));
        arguments.push(with("--storage.tsdb.path=", &layout.data(self.name())));
        arguments.push(format!("--web.listen-address={listen}").into());
        arguments
    }

    /// It watches the demo's own parts, at the addresses where their metrics are.
    fn prometheus_configuration(&self, ports: &Ports, alerts: &Path) -> anyhow::Result<String> {
        let sidecars = DATABASES.into_iter().chain(APPS).chain([self.name()]);
        let sidecars = sidecars.map(|name| Ok((name, ports.get(&world::admin(name))?)));
        let all = sidecars.chain([Ok(("issuer", ports.get(&world::issuer())?))]);
        let targets: anyhow::Result<String> = all
            .map(|target| {
                target.map(|(name, port)| {
                    format!("      - {{targets: [\"127.0.0.1:{port}\"], labels: {{service: {name}}}}}\n")
                })
            })
            .collect();
        Ok(format!(
            "global: {{scrape_interval: {SCRAPE_INTERVAL}, scrape_timeout: {SCRAPE_INTERVAL}, evaluation_interval: {SCRAPE_INTERVAL}}}\n\
             rule_files: [{}]\n\
             scrape_configs:\n  \
               - job_name: sidegate\n    \
                 static_configs:\n{}",
            // JSON is YAML, whatever is in the path.
            serde_json::Value::from(alerts.to_string_lossy()),
            targets?
        ))
    }
}

const PROMETHEUS_TRIES: [Try; 3] = [
    Try::curl("service-a", "prometheus", "'{}/api/v1/query?query=up'", "\"status\":\"success\""),
    Try::curl("service-a", "prometheus", "-X POST {}/-/quit", "sidegate: metrics-reader may not POST /-/quit"),
    Try::curl("service-b", "prometheus", "'{}/api/v1/query?query=up'", "sidegate: no token"),
];

const INVENTORY_TRIES: [Try; 3] = [
    Try::curl("service-a", "inventory", "{}/items", "\"name\":\"lantern\""),
    Try::curl("service-a", "inventory", "-X DELETE {}/items/1", "sidegate: inventory-reader may not DELETE /items/1"),
    Try::curl("service-b", "inventory", "{}/items", "sidegate: no token"),
];

fn candidates() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let cache = files::cache().map(|cache| cache.join("prometheus"));
    std::env::split_paths(&path).chain(cache).map(|dir| dir.join("prometheus")).filter(|file| file.is_file()).collect()
}

/// Whether it is a Prometheus that can be started here: one that cannot must not keep the demo from starting.
fn runs(program: &Path) -> bool {
    let output = Command::new(program).arg("--version").current_dir("/").stdin(Stdio::null()).output();
    let says = |text: &[u8]| String::from_utf8_lossy(text).contains("prometheus, version");
    // Version 2 says it on standard output, older ones on standard error.
    output.is_ok_and(|output| output.status.success() && (says(&output.stdout) || says(&output.stderr)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_prometheus_is_not_taken_for_one() {
        assert!(!runs(Path::new("/bin/echo")), "another program");
        assert!(!runs(Path::new("/nowhere/prometheus")));
    }
}
