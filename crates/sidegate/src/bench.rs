//! The benchmark's engine: what Sidegate costs, measured through the way that applications go.
//!
//! A plan (`plan`) says what is run and in which order; `run` makes one run of it on whatever is measured (`ground`); `summary`
//! compares the runs, with `stats`; `report` puts that into words, CSV and pictures. Whoever starts it hears of each run as
//! it ends and may cancel it between two requests. Deliberately absent: printing, arguments, signals (`cmd::bench`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use client::Client;
use ground::Ground;
use plan::{Mode, Plan, Run};
use run::{Bounds, Measured};
use statements::Texts;

pub mod client;
pub mod ground;
pub mod plan;
pub mod report;
pub mod run;
pub mod statements;
pub mod stats;
pub mod summary;

/// Ends a benchmark early; clones are one.
#[derive(Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// From now on no further request is begun.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What came of one run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was run.
    pub run: Run,
    /// How it ended.
    pub result: RunResult,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub enum RunResult {
    /// With figures.
    Measured(Box<Measured>),
    /// It was to be refused, and was: in these words.
    Refused(String),
    /// It was to be refused, and was let in: verification does not protect.
    NotRefused,
    /// There is nothing to be shown for it, for this reason.
    Failed(String),
}

impl Outcome {
    /// What to tell whoever asked for the benchmark, if this run is not as it should be.
    pub fn complaint(&self) -> Option<String> {
        let what = match &self.result {
            RunResult::Refused(_) => return None,
            RunResult::NotRefused => "a caller without a token was let in while verification was on".to_owned(),
            RunResult::Failed(why) => why.clone(),
            RunResult::Measured(measured) => measured.complaint()?,
        };
        Some(format!("{}: {what}", self.run))
    }
}

/// How to run a plan.
#[derive(Clone, Copy)]
pub struct How {
    /// What is sent.
    pub texts: Texts,
    /// What no run exceeds.
    pub bounds: Bounds,
}

/// Makes all runs of a plan, in its order, and hands over what came of each as it ends. A run that fails does not keep the
/// others from being made. After [`Cancel::cancel`] it comes back with the runs made so far handed over; of the one that
/// was under way, nothing is.
///
/// # Errors
/// What keeps all further runs from being made: settings that cannot be switched.
pub async fn execute(
    plan: &Plan,
    ground: &mut Ground,
    how: How,
    cancel: &Cancel,
    mut ended: impl FnMut(Outcome),
) -> anyhow::Result<()> {
    for run in plan.runs() {
        ground.switch(run.mode).await?;
        let result = match run.mode {
            mode if mode.must_be_refused() => refusal(ground, run).await,
            _ => run::measure(ground, run, how, cancel).await.map_or_else(
                |error| RunResult::Failed(format!("{error:#}")),
                |done| RunResult::Measured(Box::new(done)),
            ),
        };
        if cancel.is_cancelled() {
            return Ok(());
        }
        ended(Outcome { run: run.clone(), result });
    }
    Ok(())
}

/// Calls as somebody without a token, where one is asked for.
async fn refusal(ground: &Ground, run: &Run) -> RunResult {
    let attempt = async {
        let mut client = Client::connect(&ground.target(run.mode, run.protocol)?).await?;
        client.login_name().await
    };
    match attempt.await {
        Ok(_) => RunResult::NotRefused,
        Err(error) => client::refusal(&error)
            .map_or_else(|| RunResult::Failed(format!("{error:#}")), |words| RunResult::Refused(words.to_owned())),
    }
}

impl Mode {
    /// No token and verification on.
    pub fn must_be_refused(self) -> bool {
        self == Mode::Pair { sign: false, verify: true }
    }
}
