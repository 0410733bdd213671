//! Ports of the demo: picked by the system, remembered in the state directory, so that the printed lines work again after a
//! second start. A remembered port that somebody else has by now is replaced.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};

use anyhow::Context;

use super::files;
use super::layout::Layout;

/// Port by name, `service-a.postgres-b` for instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ports(BTreeMap<String, u16>);

impl Ports {
    /// A free port for every name. All are held while choosing, so that no two names get the same one; between here and the
    /// child's own bind another process may still take one, and the caller then chooses again.
    pub fn choose(layout: &Layout, names: &[String]) -> anyhow::Result<Self> {
        let remembered = remembered(layout);
        let mut held = Vec::new();
        let mut chosen = BTreeMap::new();
        for name in names {
            let listener = hold(remembered.get(name).copied())?;
            chosen.insert(name.clone(), listener.local_addr()?.port());
            held.push(listener);
        }
        files::replace(&layout.ports_file(), &serde_json::to_vec_pretty(&chosen)?, files::PUBLIC)?;
        Ok(Self(chosen))
    }

    pub fn get(&self, name: &str) -> anyhow::Result<u16> {
        self.0.get(name).copied().with_context(|| format!("no port was chosen for {name}"))
    }
}

/// Only a convenience: a file that cannot be read means new ports.
fn remembered(layout: &Layout) -> BTreeMap<String, u16> {
    std::fs::read(layout.ports_file()).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

fn hold(wanted: Option<u16>) -> anyhow::Result<TcpListener> {
    let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    wanted.and_then(|port| bind(port).ok()).map_or_else(|| bind(0), Ok).context("no free port on 127.0.0.1")
}
