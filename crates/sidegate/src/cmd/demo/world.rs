//! Who is in the demo, by which ports they are reached, and what a person may edit of them: settings, documents.

use super::files;
use super::layout::Layout;
use super::ports::Ports;
use super::web::Web;

/// Services with a PostgreSQL behind an inbound sidecar.
pub const DATABASES: [&str; 2] = ["postgres-a", "postgres-b"];
/// Services whose outbound sidecar has ways to each of the others.
pub const APPS: [&str; 2] = ["service-a", "service-b"];

/// Grants. `service-b` has none on postgres-a, and a listener to it all the same: one can see it refused.
const DOCUMENTS: [(&str, &str); 2] = [
    ("postgres-a.yaml", include_str!("documents/postgres-a.yaml")),
    ("postgres-b.yaml", include_str!("documents/postgres-b.yaml")),
];
/// The keys of a ConfigMap `auth-settings`, with what a missing one would mean.
const SETTINGS: [(&str, &str); 2] = [("SIGN_AUTH_ENABLED", "true\n"), ("VERIFY_AUTH_ENABLED", "true\n")];

/// Services with an HTTP listener on their inbound sidecar: all that have an inbound sidecar.
pub fn targets(web: &Web) -> [&'static str; 3] {
    let [first, second] = DATABASES;
    [first, second, web.name()]
}

/// Every service with a sidecar.
pub fn sidecars(web: &Web) -> impl Iterator<Item = &'static str> {
    targets(web).into_iter().chain(APPS)
}

/// Every port the demo needs, by name.
pub fn port_names(web: &Web) -> Vec<String> {
    let databases = DATABASES.into_iter().map(inbound);
    let apps = APPS.into_iter().flat_map(|app| {
        let native = DATABASES.into_iter().map(move |database| outbound(app, database));
        native.chain([outbound_http(app)])
    });
    let all = [issuer(), console(), console_admin(), upstream(web.name())].into_iter().chain(databases).chain(apps);
    all.chain(targets(web).into_iter().map(inbound_http)).chain(sidecars(web).map(admin)).collect()
}

pub fn issuer() -> String {
    "issuer".into()
}

pub fn console() -> String {
    "console".into()
}

pub fn console_admin() -> String {
    admin("console")
}

/// Of the HTTP service itself, behind its sidecar.
pub fn upstream(service: &str) -> String {
    format!("{service}.server")
}

pub fn inbound(database: &str) -> String {
    format!("{database}.inbound")
}

pub fn inbound_http(service: &str) -> String {
    format!("{service}.inbound-http")
}

pub fn admin(service: &str) -> String {
    format!("{service}.admin")
}

pub fn outbound(app: &str, database: &str) -> String {
    format!("{app}.{database}")
}

/// One for all targets; the first segment of the path names the target.
pub fn outbound_http(app: &str) -> String {
    format!("{app}.http")
}

pub fn issuer_url(ports: &Ports) -> anyhow::Result<String> {
    Ok(format!("http://127.0.0.1:{}", ports.get(&issuer())?))
}

/// Where `app` reaches `target` over HTTP.
pub fn http_url(ports: &Ports, app: &str, target: &str) -> anyhow::Result<String> {
    Ok(format!("http://127.0.0.1:{}/{target}", ports.get(&outbound_http(app))?))
}

/// What a person may edit: written once, then left alone.
pub fn write_documents_and_settings(layout: &Layout, web: &Web) -> anyhow::Result<()> {
    for (name, content) in documents(web) {
        files::write_if_missing(&layout.documents().join(name), content)?;
    }
    for service in sidecars(web) {
        files::directory(&layout.settings(service), 0o755)?;
        for (key, value) in SETTINGS {
            files::write_if_missing(&layout.settings(service).join(key), value)?;
        }
    }
    Ok(())
}

/// Whether documents and settings still say what the demo wrote.
pub fn is_as_made(layout: &Layout, web: &Web) -> bool {
    let is =
        |path: std::path::PathBuf, content: &str| std::fs::read_to_string(path).is_ok_and(|found| found == content);
    let settings = |service| SETTINGS.iter().all(|(key, value)| is(layout.settings(service).join(key), value));
    documents(web).all(|(name, content)| is(layout.documents().join(name), content)) && sidecars(web).all(settings)
}

fn documents(web: &Web) -> impl Iterator<Item = (&'static str, &'static str)> {
    DOCUMENTS.into_iter().chain([web.documents()])
}
