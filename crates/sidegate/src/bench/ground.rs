//! What is measured: a demo, with its settings switched from mode to mode, or addresses that were given, as they are.

use anyhow::{Context, bail};

use super::client::Target;
use super::plan::{Mode, OFF_OFF, OFF_ON, ON_OFF, ON_ON, Protocol};
use demo::DemoGround;
use metrics::Usage;

pub mod demo;
pub mod metrics;
pub mod own;
mod settings;

/// What is measured.
pub enum Ground {
    /// A demo: every mode.
    Demo(Box<DemoGround>),
    /// Addresses, and how many rows their large table has.
    Targets(Vec<Target>, u32),
}

impl Ground {
    /// What there is to be measured by these protocols. PostgreSQL itself speaks no HTTP.
    pub fn contenders(&self, protocols: &[Protocol]) -> Vec<(Mode, Vec<Protocol>)> {
        match self {
            Self::Demo(_) => {
                let pair = [OFF_OFF, ON_OFF, ON_ON, OFF_ON].map(|mode| (mode, protocols.to_vec()));
                std::iter::once((Mode::Direct, vec![Protocol::Native])).chain(pair).collect()
            }
            Self::Targets(targets, _) => targets
                .iter()
                .enumerate()
                .map(|(index, target)| (Mode::Target(index), vec![target.protocol()]))
                .collect(),
        }
    }

    /// Makes settings what this mode has, and waits until they are in force.
    ///
    /// # Errors
    /// When they do not come into force.
    pub async fn switch(&mut self, mode: Mode) -> anyhow::Result<()> {
        match (self, mode) {
            (Self::Demo(demo), Mode::Pair { sign, verify }) => demo.switch(sign, verify).await,
            _ => Ok(()),
        }
    }

    /// Where a client connects.
    ///
    /// # Errors
    /// When there is no such way.
    pub fn target(&self, mode: Mode, protocol: Protocol) -> anyhow::Result<Target> {
        match (self, mode) {
            (Self::Demo(demo), Mode::Direct) => Ok(demo.direct()),
            (Self::Demo(demo), Mode::Pair { .. }) => Ok(demo.pair(protocol)),
            (Self::Targets(targets, _), Mode::Target(index)) => targets.get(index).cloned().context("no such target"),
            _ => bail!("{mode} cannot be had here"),
        }
    }

    /// Rows of the large table.
    pub fn rows(&self) -> u32 {
        match self {
            Self::Demo(demo) => demo.rows(),
            Self::Targets(_, rows) => *rows,
        }
    }

    /// Whether a session that PostgreSQL takes for this login's may come of a mode.
    pub fn login_fits(&self, mode: Mode, login: &str) -> bool {
        match (self, mode) {
            (Self::Demo(_), Mode::Pair { sign, .. }) => sign != demo::is_unverified(login),
            _ => true,
        }
    }

    /// Throws away the rows that were written, if that is ours to do.
    ///
    /// # Errors
    /// When PostgreSQL cannot be asked.
    pub async fn empty_log(&self) -> anyhow::Result<()> {
        match self {
            Self::Demo(demo) => demo.empty_log().await,
            Self::Targets(..) => Ok(()),
        }
    }

    /// How many rows were written since; `None` where others may write, too.
    ///
    /// # Errors
    /// When PostgreSQL cannot be asked.
    pub async fn logged(&self) -> anyhow::Result<Option<u64>> {
        match self {
            Self::Demo(demo) => demo.logged().await.map(Some),
            Self::Targets(..) => Ok(None),
        }
    }

    /// What the sidecars of this mode, outbound and inbound, have taken so far.
    pub async fn usage(&self, mode: Mode) -> Option<[Usage; 2]> {
        match (self, mode) {
            (Self::Demo(demo), Mode::Pair { .. }) => demo.usage().await,
            _ => None,
        }
    }

    /// What a reader of the results must know of it.
    pub fn describe(&self) -> Vec<String> {
        match self {
            Self::Demo(demo) => demo.describe(),
            Self::Targets(targets, _) => targets
                .iter()
                .enumerate()
                .map(|(index, target)| format!("{} is {target}", Mode::Target(index)))
                .collect(),
        }
    }

    /// Leaves everything as it was found.
    ///
    /// # Errors
    /// What could not be put back.
    pub async fn end(self) -> anyhow::Result<()> {
        match self {
            Self::Demo(demo) => demo.end().await,
            Self::Targets(..) => Ok(()),
        }
    }
}
