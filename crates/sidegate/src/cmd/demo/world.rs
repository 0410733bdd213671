//! Who is in the demo, and the files each of them is started with: sidecars' and issuer's configuration, settings, documents.

use std::path::Path;

use super::certificates::{AUTHORITY, server_name};
use super::cluster::{Cluster, ISSUER};
use super::files;
use super::layout::Layout;
use super::ports::Ports;
use super::postgres::Server;

/// Services with a PostgreSQL behind an inbound sidecar.
pub const DATABASES: [&str; 2] = ["postgres-a", "postgres-b"];
/// Services whose outbound sidecar has a listener for each of the databases.
pub const APPS: [&str; 2] = ["service-a", "service-b"];

/// Grants. `service-b` has none on postgres-a, and a listener to it all the same: one can see it refused.
const DOCUMENTS: [(&str, &str); 2] = [
    ("postgres-a.yaml", include_str!("documents/postgres-a.yaml")),
    ("postgres-b.yaml", include_str!("documents/postgres-b.yaml")),
];
/// The keys of a ConfigMap `auth-settings`, with what a missing one would mean.
const SETTINGS: [(&str, &str); 2] = [("SIGN_AUTH_ENABLED", "true\n"), ("VERIFY_AUTH_ENABLED", "true\n")];

/// Every port the demo needs, by name.
pub fn port_names() -> Vec<String> {
    let databases = DATABASES.iter().flat_map(|database| [inbound(database), admin(database)]);
    let apps = APPS.iter().flat_map(|app| DATABASES.iter().map(|database| outbound(app, database)).chain([admin(app)]));
    std::iter::once(issuer()).chain(databases).chain(apps).collect()
}

pub fn issuer() -> String {
    "issuer".into()
}

pub fn inbound(database: &str) -> String {
    format!("{database}.inbound")
}

pub fn admin(service: &str) -> String {
    format!("{service}.admin")
}

pub fn outbound(app: &str, database: &str) -> String {
    format!("{app}.{database}")
}

pub fn issuer_url(ports: &Ports) -> anyhow::Result<String> {
    Ok(format!("http://127.0.0.1:{}", ports.get(&issuer())?))
}

/// What a person may edit: written once, then left alone.
pub fn write_documents_and_settings(layout: &Layout) -> anyhow::Result<()> {
    for (name, content) in DOCUMENTS {
        files::write_if_missing(&layout.documents().join(name), content)?;
    }
    for service in DATABASES.iter().chain(&APPS) {
        files::directory(&layout.settings(service), 0o755)?;
        for (key, value) in SETTINGS {
            files::write_if_missing(&layout.settings(service).join(key), value)?;
        }
    }
    Ok(())
}

/// Whether documents and settings still say what the demo wrote.
pub fn is_as_made(layout: &Layout) -> bool {
    let is =
        |path: std::path::PathBuf, content: &str| std::fs::read_to_string(path).is_ok_and(|found| found == content);
    let documents = DOCUMENTS.iter().all(|(name, content)| is(layout.documents().join(name), content));
    let settings = |service: &&str| SETTINGS.iter().all(|(key, value)| is(layout.settings(service).join(key), value));
    documents && DATABASES.iter().chain(&APPS).all(settings)
}

/// The children's configuration files, anew at every start.
pub fn write_configuration(layout: &Layout, ports: &Ports, servers: &[Server], token_ttl: u32) -> anyhow::Result<()> {
    write(layout, "issuer", &issuer_configuration(layout, ports, token_ttl)?)?;
    for (database, server) in DATABASES.iter().zip(servers) {
        write(layout, database, &inbound_configuration(layout, ports, database, server)?)?;
    }
    for app in APPS {
        write(layout, app, &outbound_configuration(layout, ports, app)?)?;
    }
    Ok(())
}

fn write(layout: &Layout, name: &str, content: &str) -> anyhow::Result<()> {
    files::replace(&layout.config(name), content.as_bytes(), files::PUBLIC)
}

fn issuer_configuration(layout: &Layout, ports: &Ports, token_ttl: u32) -> anyhow::Result<String> {
    Ok(format!(
        "url: {url}\n\
         listen: 127.0.0.1:{port}\n\
         keys_file: {keys}\n\
         documents: {{directory: {documents}}}\n\
         subject_tokens: {{issuer: {ISSUER:?}, jwks_file: {jwks}}}\n\
         access_tokens: {{ttl: {token_ttl}}}\n",
        url = issuer_url(ports)?,
        port = ports.get(&issuer())?,
        keys = quoted(&layout.signing_keys()),
        documents = quoted(&layout.documents()),
        jwks = quoted(&Cluster::jwks_file(layout)),
    ))
}

fn inbound_configuration(layout: &Layout, ports: &Ports, database: &str, server: &Server) -> anyhow::Result<String> {
    Ok(format!(
        "service: {database}/{database}\n\
         issuer: {{url: {url:?}}}\n\
         settings: {{directory: {settings}}}\n\
         admin: {{listen: 127.0.0.1:{admin}}}\n\
         postgres:\n  \
           users: {{reader: app_reader, writer: app_writer, owner: app_owner, admin: app_admin}}\n  \
           unverified_user: app_legacy\n\
         inbound:\n  \
           - protocol: postgres\n    \
             listen: 127.0.0.1:{listen}\n    \
             tls: {{certificate_file: {certificate}, key_file: {key}}}\n    \
             upstream: {upstream}\n",
        url = issuer_url(ports)?,
        settings = quoted(&layout.settings(database)),
        admin = ports.get(&admin(database))?,
        listen = ports.get(&inbound(database))?,
        certificate = quoted(&layout.tls(&format!("{database}.crt"))),
        key = quoted(&layout.tls(&format!("{database}.key"))),
        upstream = quoted(Path::new(&format!("unix:{}", server.socket_file().display()))),
    ))
}

fn outbound_configuration(layout: &Layout, ports: &Ports, app: &str) -> anyhow::Result<String> {
    let head = format!(
        "service: {app}/{app}\n\
         issuer:\n  \
           url: {url:?}\n  \
           subject_token_file: {token}\n\
         settings: {{directory: {settings}}}\n\
         admin: {{listen: 127.0.0.1:{admin}}}\n\
         outbound:\n",
        url = issuer_url(ports)?,
        token = quoted(&layout.subject_token(app)),
        settings = quoted(&layout.settings(app)),
        admin = ports.get(&admin(app))?,
    );
    let listeners: anyhow::Result<String> =
        DATABASES.iter().map(|database| outbound_listener(layout, ports, app, database)).collect();
    Ok(head + &listeners?)
}

fn outbound_listener(layout: &Layout, ports: &Ports, app: &str, database: &str) -> anyhow::Result<String> {
    Ok(format!(
        "  - protocol: postgres\n    \
             listen: 127.0.0.1:{listen}\n    \
             target: {database}/{database}\n    \
             connect: 127.0.0.1:{connect}\n    \
             tls: {{ca_file: {ca}, server_name: {name}}}\n",
        listen = ports.get(&outbound(app, database))?,
        connect = ports.get(&inbound(database))?,
        ca = quoted(&layout.tls(AUTHORITY)),
        name = server_name(database),
    ))
}

/// A path as YAML text: JSON's quoting is YAML's, too.
fn quoted(path: &Path) -> String {
    serde_json::Value::from(path.to_string_lossy()).to_string()
}
