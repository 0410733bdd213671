//! One run: so many requests by so many clients at once, each timed.
//!
//! Connecting is timed by itself and is over before the first request; requests to warm up come next and are not counted.
//! All clients are tasks of one thread: with many of them, what they wait for one another is in the times, for all modes
//! alike. Deliberately absent: a rate that requests keep to. Each client sends the next when it has the last answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::task::JoinSet;

use super::client::{Client, Target};
use super::ground::Ground;
use super::ground::metrics::Usage;
use super::plan::{Class, Operation, Run};
use super::statements::Script;
use super::stats::Times;
use super::{Cancel, How};

/// A request that takes longer hangs: the run is given up.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);
/// Of a connection's requests, so many are made beforehand: a tenth, but enough to fill caches and not more than does.
const WARM_UP_SHARE: u32 = 10;
const WARM_UP_MOST: u32 = 100;

/// What no run exceeds.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// No request is begun after this time.
    pub time: Duration,
}

/// What was seen in a run.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Times of one request, a kind each; none is absent that had a request.
    pub classes: Vec<(Class, Times)>,
    /// From the first request to the last answer.
    pub wall: Duration,
    /// To connect and log in, once, on average.
    pub connect: Duration,
    /// Requests that failed, and why the first one did.
    pub errors: Option<(u32, String)>,
    /// What the sidecars took meanwhile.
    pub usage: Option<[Usage; 2]>,
    /// The time was over before all requests had been made.
    pub cut: bool,
    /// Rows that are not in the table though they were acknowledged.
    pub lost: u64,
}

impl Measured {
    /// What is not as it should be.
    pub fn complaint(&self) -> Option<String> {
        match (&self.errors, self.lost) {
            (Some((count, first)), _) => Some(format!("{count} requests failed, the first with: {first}")),
            (None, 0) => None,
            (None, lost) => Some(format!("{lost} rows were acknowledged and are not in the table")),
        }
    }
}

/// Makes a run.
///
/// # Errors
/// When it cannot be begun, or hangs.
pub async fn measure(ground: &Ground, run: &Run, how: How, cancel: &Cancel) -> anyhow::Result<Measured> {
    let target = ground.target(run.mode, run.protocol)?;
    let script = Script { texts: how.texts, rows: ground.rows() };
    ground.empty_log().await?;
    check_login(ground, run, &target).await?;
    let (mut clients, connect) = connect(&target, run.cell.connections).await?;
    let warmed = limited(how.bounds.time, warm_up(&mut clients, run, script)).await??;
    let before = ground.usage(run.mode).await;
    let load = Load::new(run, script, how.bounds, cancel);
    let begun = Instant::now();
    let (clients, seen) = limited(how.bounds.time, load.clone().put_on(clients)).await??;
    let wall = begun.elapsed();
    let usage = before.zip(ground.usage(run.mode).await).map(|(before, after)| Usage::between(before, after));
    for client in clients {
        client.close().await;
    }
    let made = load.made();
    let written = warmed + u64::try_from(seen.of(Class::Write).len())?;
    let lost = ground.logged().await?.map_or(0, |found| written.saturating_sub(found));
    Ok(Measured {
        wall,
        connect,
        usage,
        lost,
        cut: made < run.cell.requests,
        errors: seen.errors(),
        classes: seen.times(),
    })
}

/// By a client of its own, which also has whatever comes with a change of settings behind it: a token's exchange, a link.
async fn check_login(ground: &Ground, run: &Run, target: &Target) -> anyhow::Result<()> {
    let mut client = Client::connect(target).await?;
    let login = client.login_name().await?;
    client.close().await;
    if !ground.login_fits(run.mode, &login) {
        let mode = run.mode;
        bail!("PostgreSQL takes the session for {login}'s, which {mode} does not lead to: who else switches settings?");
    }
    Ok(())
}

/// One after the other, so that each is timed alone.
async fn connect(target: &Target, count: u32) -> anyhow::Result<(Vec<Client>, Duration)> {
    let begun = Instant::now();
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(Client::connect(target).await?);
    }
    Ok((clients, begun.elapsed() / count.max(1)))
}

/// Requests on each connection before those that count, at least one of each kind. How many rows they wrote.
async fn warm_up(clients: &mut [Client], run: &Run, script: Script) -> anyhow::Result<u64> {
    let operation = run.cell.operation;
    let each = (run.cell.requests / run.cell.connections.max(1) / WARM_UP_SHARE).min(WARM_UP_MOST);
    let mut written = 0;
    for client in clients {
        let sequence = (0..each).map(|index| (operation.class(index), index));
        for (class, index) in operation.classes().iter().map(|class| (*class, 0)).chain(sequence) {
            client.request(script, class, index).await?;
            written += u64::from(class == Class::Write);
        }
    }
    Ok(written)
}

/// Nothing may wait for ever.
async fn limited<T>(bound: Duration, work: impl Future<Output = T>) -> anyhow::Result<T> {
    let limit = bound + REQUEST_LIMIT;
    let done = tokio::time::timeout(limit, work).await;
    done.with_context(|| format!("not answered within {} s: given up", limit.as_secs()))
}

/// What all clients of a run share; clones are one.
#[derive(Clone)]
struct Load {
    operation: Operation,
    requests: u32,
    script: Script,
    deadline: Instant,
    cancel: Cancel,
    next: Arc<AtomicU32>,
}

impl Load {
    fn new(run: &Run, script: Script, bounds: Bounds, cancel: &Cancel) -> Self {
        let (operation, requests) = (run.cell.operation, run.cell.requests);
        let deadline = Instant::now() + bounds.time;
        Self { operation, requests, script, deadline, cancel: cancel.clone(), next: Arc::default() }
    }

    /// The clients, and all that they saw.
    async fn put_on(self, clients: Vec<Client>) -> anyhow::Result<(Vec<Client>, Seen)> {
        let mut tasks = JoinSet::new();
        for client in clients {
            tasks.spawn(self.clone().serve(client));
        }
        let (mut clients, mut all) = (Vec::new(), Seen::default());
        while let Some(ended) = tasks.join_next().await {
            let (client, seen) = ended?;
            clients.push(client);
            all.add(seen);
        }
        Ok((clients, all))
    }

    /// Takes the next request as long as there is one.
    async fn serve(self, mut client: Client) -> (Client, Seen) {
        let mut seen = Seen::default();
        while !client.is_closed()
            && let Some(index) = self.take()
        {
            let class = self.operation.class(index);
            match client.request(self.script, class, index).await {
                Ok(taken) => seen.of_mut(class).push(taken),
                Err(error) => seen.add_failures(1, Some(format!("{error:#}"))),
            }
        }
        (client, seen)
    }

    fn take(&self) -> Option<u32> {
        if self.cancel.is_cancelled() || Instant::now() >= self.deadline {
            return None;
        }
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        (index < self.requests).then_some(index)
    }

    fn made(&self) -> u32 {
        self.next.load(Ordering::Relaxed).min(self.requests)
    }
}

/// What one client, or all of them, saw.
#[derive(Default)]
struct Seen {
    writes: Vec<Duration>,
    reads: Vec<Duration>,
    aggregates: Vec<Duration>,
    failures: u32,
    first_failure: Option<String>,
}

impl Seen {
    fn of(&self, class: Class) -> &[Duration] {
        match class {
            Class::Write => &self.writes,
            Class::Read => &self.reads,
            Class::Heavy => &self.aggregates,
        }
    }

    fn of_mut(&mut self, class: Class) -> &mut Vec<Duration> {
        match class {
            Class::Write => &mut self.writes,
            Class::Read => &mut self.reads,
            Class::Heavy => &mut self.aggregates,
        }
    }

    fn add(&mut self, other: Self) {
        self.writes.extend(other.writes);
        self.reads.extend(other.reads);
        self.aggregates.extend(other.aggregates);
        self.add_failures(other.failures, other.first_failure);
    }

    fn add_failures(&mut self, count: u32, first: Option<String>) {
        self.failures += count;
        self.first_failure = self.first_failure.take().or(first);
    }

    fn errors(&self) -> Option<(u32, String)> {
        Some((self.failures, self.first_failure.clone()?))
    }

    fn times(self) -> Vec<(Class, Times)> {
        let all = [(Class::Write, self.writes), (Class::Read, self.reads), (Class::Heavy, self.aggregates)];
        all.into_iter().filter_map(|(class, times)| Some((class, Times::of(times)?))).collect()
    }
}
