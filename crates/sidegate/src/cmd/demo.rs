//! `sidegate demo`: everything on this machine, ready to try.
//!
//! A stand-in for the cluster, the issuer, two PostgreSQL servers and an HTTP service, a sidecar beside each, and two
//! business services' sidecars.
//! All but the stand-in are child processes: the sidecars and the issuer are this same binary with the configuration files
//! that a person would write. Deliberately absent: any way into the product's parts that a real installation has not got.

use std::io::Write;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use children::{Children, Spec, Stage};
use clocks::Clocks;
use cluster::Cluster;
use configuration::Parts;
use layout::Layout;
use lock::Lock;
use ports::Ports;
use postgres::{Binaries, DATABASE, Server};
use probe::{Login, Target};
use ready::ReadyFile;
use web::Web;
use world::{APPS, DATABASES};

use super::life::EndSignals;

mod browser;
mod children;
mod clocks;
mod cluster;
mod configuration;
mod files;
mod layout;
mod lock;
mod ports;
mod postgres;
mod probe;
mod ready;
mod user;
mod web;
mod world;

/// From the first sidecar's start to the last login that proves it; takes a second.
const UP_LIMIT: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_millis(50);
/// A port that was free may be taken before the child binds it; twice in a row is somebody's intent.
const PORT_ATTEMPTS: usize = 3;
/// What a child says that finds its port taken (EADDRINUSE).
const IN_USE: &str = "Address already in use";
/// The stand-in apps' login name: no role is called so, which leaves the choice to the one role granted.
const LOGIN: &str = "app";
/// invalid_authorization_specification: no grant.
const NO_GRANT: &str = "28000";
/// A statement that every role may run.
const ONE: &str = r#"{"query": "select 1"}"#;

/// Arguments of `sidegate demo`.
#[derive(Args)]
pub struct DemoArgs {
    /// Where the state lies: keys, settings, documents, logs, data. Made if missing, used again if not
    /// [default: $XDG_STATE_HOME/sidegate/demo or ~/.local/state/sidegate/demo].
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Write addresses and directories to this file, as JSON, when all is up; it is removed at the end.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    #[command(flatten)]
    clocks: Clocks,
    /// Do not open the console in a browser (which is done only in a terminal of a desktop).
    #[arg(long)]
    no_open: bool,
}

/// Start all of it and wait until told to end.
pub fn run(args: DemoArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(demo(args))
}

async fn demo(args: DemoArgs) -> anyhow::Result<ExitCode> {
    let mut end = EndSignals::new()?;
    let layout = Layout::open(args.dir.clone())?;
    let (_lock, ready_file) = Lock::take(&layout, || ReadyFile::claim(args.ready_file.clone())).await?;
    let mut children = Children::new()?;
    let ended = tokio::select! {
        biased;
        () = end.received() => Ok(ExitCode::SUCCESS),
        error = live(&layout, &ready_file, &args, &mut children) => Err(error),
    };
    if ended.is_ok() {
        say("Ending.");
    }
    children.stop().await;
    ended
}

/// Bring everything up, say so, and keep it; comes back only with what went wrong.
async fn live(layout: &Layout, ready_file: &ReadyFile, args: &DemoArgs, children: &mut Children) -> anyhow::Error {
    let (cluster, web) = match bring_up(layout, ready_file, &args.clocks, children).await {
        Ok(up) => up,
        Err(error) => return error,
    };
    if !args.no_open
        && let Err(error) = browser::open(layout)
    {
        return error;
    }
    tokio::select! {
        error = children.keep_up(say) => error,
        error = cluster.keep_fresh(|| world::sidecars(&web)) => error,
    }
}

async fn bring_up(
    layout: &Layout,
    ready_file: &ReadyFile,
    clocks: &Clocks,
    children: &mut Children,
) -> anyhow::Result<(Cluster, Web)> {
    let binaries = Binaries::find()?;
    let servers =
        DATABASES.iter().map(|name| Server::new(name, &binaries, layout)).collect::<anyhow::Result<Vec<_>>>()?;
    let web = Web::find()?;
    say(&format!("Starting in {}", layout.dir().display()));
    for place in servers.iter().filter_map(|server| server.elsewhere(layout.dir())) {
        say(&format!(
            "PostgreSQL's socket cannot lie there (path too long, or closed to its user); it is below {}",
            place.display()
        ));
    }
    world::write_documents_and_settings(layout, &web)?;
    let mut ports = Ports::choose(layout, &world::port_names(&web))?;
    let mut attempt = 1;
    loop {
        start_databases(&servers, children).await?;
        let cluster = Cluster::new(layout, &world::issuer_url(&ports)?)?;
        cluster.project(world::sidecars(&web))?;
        let parts = Parts { layout, ports: &ports, servers: &servers, web: &web, clocks };
        parts.write()?;
        let Err(error) = start_services(&parts, children).await else {
            say(&ready::lines(&parts, &binaries.psql_command())?);
            let description = ready::description(&parts)?;
            ready::write(&layout.ground(), &description)?;
            if let Some(file) = ready_file.path() {
                ready::write(file, &description)?;
            }
            return Ok((cluster, web));
        };
        children.stop().await;
        // With everything of ours ended, a port that cannot be had again is somebody else's: then, and only then, try anew.
        // Or it was somebody's for a moment: the system lends it out for connections.
        let again = Ports::choose(layout, &world::port_names(&web))?;
        let was_taken = again != ports || format!("{error:#}").contains(IN_USE);
        if !was_taken || attempt == PORT_ATTEMPTS {
            return Err(error);
        }
        (ports, attempt) = (again, attempt + 1);
    }
}

async fn start_databases(servers: &[Server], children: &mut Children) -> anyhow::Result<()> {
    let [first, second] = servers else { bail!("the demo has two databases") };
    let (new_first, new_second) = tokio::try_join!(first.prepare(children), second.prepare(children))?;
    children.start(&first.spec())?;
    children.start(&second.spec())?;
    children.while_alive(async { tokio::try_join!(first.up(), second.up()).map(|_| ()) }).await?;
    tokio::try_join!(seed_if(new_first, first, children), seed_if(new_second, second, children))?;
    Ok(())
}

async fn seed_if(new: bool, server: &Server, children: &Children) -> anyhow::Result<()> {
    if new { server.seed(children).await } else { Ok(()) }
}

async fn start_services(parts: &Parts<'_>, children: &mut Children) -> anyhow::Result<()> {
    let Parts { layout, ports, web, .. } = parts;
    children.start(&own_spec(layout, Stage::Issuer, "issuer")?)?;
    web.prepare(layout, ports)?;
    children.start(&web.spec(layout, ports)?)?;
    // Sidecars put up with an issuer that comes later, but warn of it.
    children.while_alive(answers(ports.get(&world::issuer())?)).await?;
    for name in world::sidecars(web) {
        children.start(&own_spec(layout, Stage::Sidecar, name)?)?;
    }
    // What an earlier console has written would lead nowhere.
    files::remove(&layout.console_link())?;
    children.start(&own_spec(layout, Stage::Console, "console")?)?;
    let limited = async {
        let proofs = async { tokio::try_join!(prove_all(parts), link_is_there(layout)).map(|_| ()) };
        let result = tokio::time::timeout(UP_LIMIT, proofs).await;
        result.unwrap_or_else(|_| {
            bail!("not everything came up in {} s; see {}", UP_LIMIT.as_secs(), layout.dir().join("logs").display())
        })
    };
    children.while_alive(limited).await
}

/// Every way there is, from each app to each service, ends where the grants say. All at once: who is refused waits for
/// the issuer to be asked again.
async fn prove_all(parts: &Parts<'_>) -> anyhow::Result<()> {
    let as_made = world::is_as_made(parts.layout, parts.web);
    let mut proofs = JoinSet::new();
    for app in APPS {
        for database in DATABASES {
            let may_be_refused = !as_made || (app, database) == ("service-b", "postgres-a");
            proofs.spawn(prove_native(parts.ports.get(&world::outbound(app, database))?, may_be_refused));
        }
        for target in world::targets(parts.web) {
            let no_grant = app == "service-b" && target != "postgres-b";
            let (path, body) = match DATABASES.contains(&target) {
                true => ("/query", Some(ONE)),
                false => (parts.web.readable_path(), None),
            };
            let (port, path) = (parts.ports.get(&world::outbound_http(app))?, format!("/{target}{path}"));
            proofs.spawn(prove_http(port, path, body, !as_made || no_grant));
        }
    }
    while let Some(proof) = proofs.join_next().await {
        proof?;
    }
    Ok(())
}

/// The console writes it when it listens.
async fn link_is_there(layout: &Layout) -> anyhow::Result<()> {
    while !layout.console_link().exists() {
        tokio::time::sleep(RETRY).await;
    }
    Ok(())
}

async fn answers(port: u16) -> anyhow::Result<()> {
    let connected = async {
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err() {
            tokio::time::sleep(RETRY).await;
        }
    };
    tokio::time::timeout(UP_LIMIT, connected).await.with_context(|| format!("nothing answers on 127.0.0.1:{port}"))
}

/// This same binary with a configuration file.
fn own_spec(layout: &Layout, stage: Stage, name: &str) -> anyhow::Result<Spec> {
    let subcommand = match stage {
        Stage::Issuer => "issuer",
        Stage::Console => "console",
        _ => "sidecar",
    };
    Ok(Spec {
        name: name.into(),
        stage,
        program: std::env::current_exe().context("cannot find this program's own file")?,
        args: vec![subcommand.into(), "--config".into(), layout.config(name).into()],
        user: None,
        log: layout.log(name),
        stdout: (stage == Stage::Sidecar).then(|| layout.decisions(name)),
    })
}

/// A login through the whole way: application, both sidecars, issuer, PostgreSQL. Ends when it is as the grants say; where a
/// person changed what the grants say, any answer will do.
async fn prove_native(port: u16, may_be_refused: bool) {
    let target = Target::Tcp(port);
    loop {
        match probe::login(&target, LOGIN, DATABASE).await {
            Ok(Login::Accepted) => return,
            Ok(Login::Refused { code, .. }) if may_be_refused && code == NO_GRANT => return,
            _ => tokio::time::sleep(RETRY).await,
        }
    }
}

/// The same by HTTP, to the service behind the other sidecar and back.
async fn prove_http(port: u16, path: String, body: Option<&'static str>, may_be_refused: bool) {
    loop {
        match probe::http(port, &path, body).await {
            Ok(200) => return,
            Ok(401 | 403) if may_be_refused => return,
            _ => tokio::time::sleep(RETRY).await,
        }
    }
}

/// Standard output may be a pipe that nobody reads any more; the demo goes on.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}
