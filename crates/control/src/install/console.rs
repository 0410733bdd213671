//! The console: what runs it, and the one right that it may have. No Service and no Ingress: people forward a port to it, for
//! which the cluster asks them who they are, and it listens on loopback.

use serde_json::{Value, json};

use super::pods::{self, Component, Run, STATE};
use super::rights::{in_cluster, named};
use super::{Console, Options, SETTINGS, issuer};

const COMPONENT: &str = "console";
pub(super) const NAME: &str = "sidegate-console";
/// Each session follows what its person may see; a few dozen of them in a cluster of thousands of pods.
const MEMORY_MEBIBYTES: u32 = 256;

pub(super) fn manifests(options: &Options) -> Vec<Value> {
    let own_account = match options.console {
        Console::Absent => return Vec::new(),
        Console::SignedIn => false,
        Console::OwnAccount => true,
    };
    let mut all = Vec::new();
    if own_account {
        all.extend(in_cluster(options, COMPONENT, NAME, rules()));
    }
    all.extend(pods::manifests(
        options,
        &Component {
            component: COMPONENT,
            name: NAME,
            configuration: configuration(options, own_account),
            memory_mebibytes: MEMORY_MEBIBYTES,
            run: Run::Once { token: own_account },
        },
    ));
    all
}

/// The settings of services, by their name. RBAC cannot limit making one by name, so it makes none.
fn rules() -> Value {
    json!([named("", "configmaps", SETTINGS, &["get", "list", "watch", "update"])])
}

fn configuration(options: &Options, own_account: bool) -> String {
    let (issuer, namespace) = (issuer::url(options), &options.namespace);
    format!(
        "listen: \"127.0.0.1:8080\"\n\
         admin: {{listen: \"[::]:9901\"}}\n\
         state: {STATE}\n\
         platform:\n  \
           kubernetes:\n    \
             issuer: {issuer}\n    \
             namespace: {namespace}\n    \
             own_account: {own_account}\n"
    )
}
