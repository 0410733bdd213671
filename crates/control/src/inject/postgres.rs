//! PostgreSQL behind the sidecar: a Unix socket in a directory that both share, and no other way in.
//!
//! Deliberately absent: its data, its configuration files, and ports and probes of its container: port 5432 is the
//! sidecar's now, its declared name goes on to mean it, and `pg_isready` without a host goes by the socket.

use serde_json::{Map, Value, json};

use super::annotations::Wish;
use super::record::{Before, PostgresRecord, Record};
use super::{containers, list_of, name_of};

pub(super) const SOCKET_DIRECTORY: &str = "/var/run/postgresql";
pub(super) const SOCKET: &str = "/var/run/postgresql/.s.PGSQL.5432";
pub(super) const SOCKET_VOLUME: &str = "sidegate-postgres";
/// The same directory by its other name: /var/run is a link to /run.
const SOCKET_DIRECTORIES: [&str; 2] = [SOCKET_DIRECTORY, "/run/postgresql"];
/// A socket and its lock file take a few bytes.
const SOCKET_VOLUME_SIZE: &str = "1Mi";
/// The last word counts, so these stand behind all others.
const ARGS: [&str; 4] = ["-c", "listen_addresses=", "-c", "unix_socket_directories=/var/run/postgresql"];
/// What takes PostgreSQL's arguments.
const PROGRAMS: [&str; 2] = ["postgres", "docker-entrypoint.sh"];
const ENTRYPOINT: &str = "docker-entrypoint.sh";
const KEEP: &str = "let it listen nowhere but in /var/run/postgresql (listen_addresses = '') and add the annotation \
                    sidegate.dev/postgres-args: keep";

/// The volume with the socket.
pub(super) enum Socket {
    /// One that is added.
    Ours,
    /// The pod had one for it.
    Theirs(String),
}

impl Socket {
    pub(super) fn volume(&self) -> &str {
        match self {
            Self::Ours => SOCKET_VOLUME,
            Self::Theirs(name) => name,
        }
    }

    pub(super) fn own_volume(&self) -> Option<Value> {
        let volume = json!({"name": SOCKET_VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": SOCKET_VOLUME_SIZE}});
        matches!(self, Self::Ours).then_some(volume)
    }
}

/// Whether the arguments are those that were added.
pub(super) fn is_ours(args: &[Value]) -> bool {
    let program = |first: &Value| first == "postgres";
    let rest = match args {
        [first, rest @ ..] if program(first) => rest,
        all => all,
    };
    rest.iter().map(Value::as_str).eq(ARGS.map(Some))
}

/// Gives PostgreSQL its socket, if it is in this pod.
pub(super) fn prepare(
    template: &mut Value,
    wish: &Wish,
    record: &mut Record,
    errors: &mut Vec<String>,
    warnings: &mut Vec<String>,
) -> Option<Socket> {
    if !wish.has_postgres() {
        return None;
    }
    let spec = template.get_mut("spec")?.as_object_mut()?;
    let name = find(spec, wish.postgres_container.as_deref()).map_err(|why| errors.push(why)).ok()?;
    let volumes = spec.get("volumes").cloned().unwrap_or_default();
    let list = spec.get_mut("containers")?.as_array_mut()?;
    let container = list.iter_mut().find(|container| name_of(container) == name)?.as_object_mut()?;
    let socket = socket(container, &volumes).map_err(|why| errors.push(format!("container {name}: {why}"))).ok()?;
    warn_of_probes(&name, container, warnings);
    let mut changed = PostgresRecord { container: name.clone(), ..PostgresRecord::default() };
    if !wish.keeps_postgres_args
        && let Err(why) = extend_args(container, &mut changed)
    {
        errors.push(format!("container {name}: {why}"));
    }
    changed.mounts = Before::of(container.get("volumeMounts"));
    if matches!(socket, Socket::Ours)
        && let Some(mounts) = list_of(container, "volumeMounts")
    {
        mounts.push(json!({"name": SOCKET_VOLUME, "mountPath": SOCKET_DIRECTORY}));
    }
    record.postgres = Some(changed);
    Some(socket)
}

/// The container that is PostgreSQL: the one that is named, the only one, or the only one with an image of that name.
fn find(spec: &Map<String, Value>, named: Option<&str>) -> Result<String, String> {
    let all: Vec<_> = containers(spec).collect();
    let by_image = || all.iter().filter(|container| image_name(container).starts_with("postgres")).collect::<Vec<_>>();
    let found = match (named, all.as_slice()) {
        (Some(named), all) => all.iter().find(|container| name_of(container) == named).copied(),
        (None, [only]) => Some(*only),
        (None, _) => match by_image().as_slice() {
            [only] => Some(**only),
            _ => None,
        },
    };
    found.map(|container| name_of(container).to_owned()).ok_or_else(|| match named {
        Some(named) => format!("sidegate.dev/postgres-container: there is no container {named:?}"),
        None => "which container is PostgreSQL? Name it in sidegate.dev/postgres-container".to_owned(),
    })
}

/// `postgres` of `registry.example/library/postgres:17@sha256:…`.
fn image_name(container: &Value) -> &str {
    let image = image(container);
    let name = image.rsplit('/').next().unwrap_or(image);
    name.split([':', '@']).next().unwrap_or(name)
}

fn image(container: &Value) -> &str {
    container.get("image").and_then(Value::as_str).unwrap_or_default()
}

/// Where the socket will be: in a volume of ours, or in the one that the pod has for it.
fn socket(container: &Map<String, Value>, volumes: &Value) -> Result<Socket, String> {
    let mounts = container.get("volumeMounts").and_then(Value::as_array).into_iter().flatten();
    let path = |mount: &Value| {
        mount.get("mountPath").and_then(Value::as_str).map(|path| path.trim_end_matches('/').to_owned())
    };
    let mut there = mounts.filter(|mount| path(mount).is_some_and(|path| SOCKET_DIRECTORIES.contains(&path.as_str())));
    let Some(mount) = there.next() else { return Ok(Socket::Ours) };
    let volume = name_of(mount);
    let all = volumes.as_array().into_iter().flatten();
    let is_empty_dir = all.filter(|v| name_of(v) == volume).any(|v| v.get("emptyDir").is_some());
    match is_empty_dir && mount.get("subPath").is_none() && mount.get("subPathExpr").is_none() {
        true => Ok(Socket::Theirs(volume.to_owned())),
        false => Err(format!("has volume {volume} at {SOCKET_DIRECTORY}, which must be an emptyDir to be shared")),
    }
}

/// Appends to the arguments in the way that the image understands.
fn extend_args(container: &mut Map<String, Value>, record: &mut PostgresRecord) -> Result<(), String> {
    let words = |field: &str| texts(container.get(field));
    let (command, args) = (words("command"), words("args"));
    let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
    let program = command.first().map(|path| path.rsplit('/').next().unwrap_or(path).to_owned());
    let given: Vec<_> = command.iter().skip(1).chain(&args).collect();
    let names_program = match program.as_deref() {
        None if image.contains("bitnami") => {
            return Err(format!("image {image} takes no arguments for PostgreSQL: {KEEP}"));
        }
        Some(program) if !PROGRAMS.contains(&program) => return Err(format!("its command is {program}: {KEEP}")),
        // The entrypoint runs what its first argument names, and PostgreSQL if that is an option.
        None | Some(ENTRYPOINT) => match given.first().map(|first| first.as_str()) {
            None => true,
            Some("postgres") => false,
            Some(first) if first.starts_with('-') => false,
            Some(first) => return Err(format!("it runs {first}: {KEEP}")),
        },
        Some(_) => false,
    };
    if has_other_port(&given, container) {
        return Err(
            "PostgreSQL's port names its socket, which is looked for as .s.PGSQL.5432: take the other port out"
                .to_owned(),
        );
    }
    record.args = Before::of(container.get("args"));
    let added: Vec<_> = names_program.then_some("postgres").into_iter().chain(ARGS).map(Value::from).collect();
    record.args_added = added.len();
    list_of(container, "args").ok_or("args: no list")?.extend(added);
    Ok(())
}

fn has_other_port(args: &[&String], container: &Map<String, Value>) -> bool {
    let environment = container.get("env").and_then(Value::as_array).into_iter().flatten();
    let mut named = environment.filter(|variable| name_of(variable) == "PGPORT");
    let is_other = |variable: &Value| variable.get("value").and_then(Value::as_str) != Some("5432");
    let is_port = |word: &str| word == "-p" || (word.starts_with("-p") && word != "-p5432") || is_port_setting(word);
    named.any(is_other) || args.iter().any(|word| is_port(word))
}

fn is_port_setting(word: &str) -> bool {
    let setting = word.trim_start_matches("--").trim_start_matches("-c");
    setting.split_once('=').is_some_and(|(name, value)| name.trim() == "port" && value.trim() != "5432")
}

/// A command that goes by TCP meets the sidecar, which asks for a token.
fn warn_of_probes(name: &str, container: &Map<String, Value>, warnings: &mut Vec<String>) {
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        let command = container.get(probe).and_then(|probe| probe.get("exec")).and_then(|exec| exec.get("command"));
        let text = texts(command).join(" ");
        if ["127.0.0.1", "localhost", "$(POD_IP)"].iter().any(|host| text.contains(host)) {
            warnings.push(format!(
                "container {name}: {probe} goes by TCP, where the sidecar answers now; take the host out, and it goes by the socket"
            ));
        }
    }
}

fn texts(list: Option<&Value>) -> Vec<String> {
    let items = list.and_then(Value::as_array).into_iter().flatten();
    items.map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned)).collect()
}
