//! The configuration files that the demo's children are started with: what a person would write.

use std::path::Path;

use super::clocks::Clocks;
use super::cluster::{Cluster, ISSUER};
use super::files;
use super::layout::Layout;
use super::ports::Ports;
use super::postgres::{DATABASE, Server};
use super::web::Web;
use super::world::{self, APPS, DATABASES};

/// What all of it is made from.
pub struct Parts<'a> {
    pub layout: &'a Layout,
    pub ports: &'a Ports,
    pub servers: &'a [Server],
    pub web: &'a Web,
    pub clocks: &'a Clocks,
}

impl Parts<'_> {
    /// Write the files, anew at every start.
    pub fn write(&self) -> anyhow::Result<()> {
        self.write_one("issuer", &self.issuer()?)?;
        for (database, server) in DATABASES.iter().zip(self.servers) {
            self.write_one(database, &self.database(database, server)?)?;
        }
        self.write_one(self.web.name(), &self.web()?)?;
        for app in APPS {
            self.write_one(app, &self.app(app)?)?;
        }
        self.write_one("console", &self.console()?)
    }

    fn console(&self) -> anyhow::Result<String> {
        let sidecars = world::sidecars(self.web).map(|name| {
            let admin = self.address(&world::admin(name))?;
            let log = quoted(&self.layout.decisions(name));
            anyhow::Ok(format!("      - {{service: {name}/{name}, admin: 'http://{admin}', decision_log: {log}}}\n"))
        });
        Ok(format!(
            "listen: {listen}\n\
             admin: {{listen: {admin}}}\n\
             sign_in: {{link_file: {link}}}\n\
             state: {state}\n\
             platform:\n  \
               local:\n    \
                 settings: {settings}\n    \
                 documents: {documents}\n    \
                 issuer: {issuer}\n    \
                 benchmark: {ground}\n    \
                 sidecars:\n{sidecars}",
            listen = self.address(&world::console())?,
            admin = self.address(&world::console_admin())?,
            link = quoted(&self.layout.console_link()),
            state = quoted(&self.layout.console_state()),
            settings = quoted(&self.layout.dir().join("settings")),
            documents = quoted(&self.layout.documents()),
            issuer = world::issuer_url(self.ports)?,
            ground = quoted(&self.layout.ground()),
            sidecars = sidecars.collect::<anyhow::Result<String>>()?,
        ))
    }

    fn write_one(&self, name: &str, content: &str) -> anyhow::Result<()> {
        files::replace(&self.layout.config(name), content.as_bytes(), files::PUBLIC)
    }

    fn issuer(&self) -> anyhow::Result<String> {
        Ok(format!(
            "url: {url}\n\
             listen: {listen}\n\
             keys_file: {keys}\n\
             documents: {{directory: {documents}}}\n\
             subject_tokens: {{issuer: {ISSUER:?}, jwks_file: {jwks}}}\n\
             access_tokens: {{ttl: {ttl}}}\n\
             signing_keys: {{rotate: {key_rotation}, lead: {key_lead}}}\n\
             certificates:\n  \
               authority_file: {authority}\n  \
               trust_bundle_file: {bundle}\n  \
               ttl: {certificate_ttl}\n  \
               rotate: {authority_rotation}\n  \
               lead: {authority_lead}\n  \
               names:\n\
             {names}",
            url = world::issuer_url(self.ports)?,
            listen = self.address(&world::issuer())?,
            keys = quoted(&self.layout.signing_keys()),
            documents = quoted(&self.layout.documents()),
            jwks = quoted(&Cluster::jwks_file(self.layout)),
            ttl = self.clocks.token_ttl,
            key_rotation = self.clocks.key_rotation,
            key_lead = self.clocks.key_lead(),
            authority = quoted(&self.layout.authority()),
            bundle = quoted(&self.layout.trust_bundle()),
            certificate_ttl = self.clocks.certificate_ttl,
            authority_rotation = self.clocks.authority_rotation,
            authority_lead = self.clocks.authority_lead(),
            names = world::targets(self.web).map(names).concat(),
        ))
    }

    /// A database's sidecar: the same PostgreSQL by its own protocol and by HTTP.
    fn database(&self, name: &str, server: &Server) -> anyhow::Result<String> {
        let upstream = quoted(Path::new(&format!("unix:{}", server.socket_file().display())));
        Ok(format!(
            "{head}\
             postgres:\n  \
               users: {{reader: app_reader, writer: app_writer, owner: app_owner, admin: app_admin}}\n  \
               unverified_user: app_legacy\n\
             inbound:\n  \
               - protocol: postgres\n    \
                 listen: {native}\n    \
                 tls: {{}}\n    \
                 upstream: {upstream}\n  \
               - protocol: query\n    \
                 listen: {http}\n    \
                 tls: {{}}\n    \
                 upstream: {upstream}\n    \
                 database: {DATABASE}\n",
            head = self.head(name)?,
            native = self.address(&world::inbound(name))?,
            http = self.address(&world::inbound_http(name))?,
        ))
    }

    /// The HTTP service's sidecar.
    fn web(&self) -> anyhow::Result<String> {
        let name = self.web.name();
        Ok(format!(
            "{head}\
             inbound:\n  \
               - protocol: http\n    \
                 listen: {http}\n    \
                 tls: {{}}\n    \
                 upstream: {upstream}\n",
            head = self.head(name)?,
            http = self.address(&world::inbound_http(name))?,
            upstream = self.address(&world::upstream(name))?,
        ))
    }

    /// A business service's sidecar: a port for each database, and one for everything over HTTP.
    fn app(&self, name: &str) -> anyhow::Result<String> {
        let native = DATABASES.iter().map(|database| self.native_listener(name, database));
        let targets = world::targets(self.web).into_iter().map(|target| self.http_target(target));
        Ok(format!(
            "{head}\
             outbound:\n\
             {native}  \
               - protocol: http\n    \
                 listen: {http}\n    \
                 targets:\n\
             {targets}",
            head = self.head(name)?,
            native = native.collect::<anyhow::Result<String>>()?,
            http = self.address(&world::outbound_http(name))?,
            targets = targets.collect::<anyhow::Result<String>>()?,
        ))
    }

    fn native_listener(&self, app: &str, database: &str) -> anyhow::Result<String> {
        Ok(format!(
            "  - protocol: postgres\n    \
                 listen: {listen}\n    \
                 target: {database}/{database}\n    \
                 connect: {connect}\n    \
                 tls: {{}}\n",
            listen = self.address(&world::outbound(app, database))?,
            connect = self.address(&world::inbound(database))?,
        ))
    }

    fn http_target(&self, target: &str) -> anyhow::Result<String> {
        Ok(format!(
            "      - target: {target}/{target}\n        \
                     connect: {connect}\n        \
                     tls: {{}}\n",
            connect = self.address(&world::inbound_http(target))?,
        ))
    }

    /// What every sidecar has.
    fn head(&self, name: &str) -> anyhow::Result<String> {
        Ok(format!(
            "service: {name}/{name}\n\
             issuer: {{url: {url:?}, subject_token_file: {token}}}\n\
             certificates: {{from: issuer}}\n\
             settings: {{directory: {settings}}}\n\
             admin: {{listen: {admin}}}\n",
            url = world::issuer_url(self.ports)?,
            token = quoted(&self.layout.subject_token(name)),
            settings = quoted(&self.layout.settings(name)),
            admin = self.address(&world::admin(name))?,
        ))
    }

    fn address(&self, port: &str) -> anyhow::Result<String> {
        Ok(format!("127.0.0.1:{}", self.ports.get(port)?))
    }
}

/// What clients without a sidecar call a service here: they know an address and no name.
fn names(service: &str) -> String {
    format!("    - {{service_account: {service}/{service}, names: [127.0.0.1, localhost]}}\n")
}

/// A path as YAML text: JSON's quoting is YAML's, too.
fn quoted(path: &Path) -> String {
    serde_json::Value::from(path.to_string_lossy()).to_string()
}
