//! `sidegate install`: prints what a cluster needs, for `kubectl apply -f -`.
//!
//! Deliberately absent: talking to a cluster. Who applies the manifests has read them, or may have.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use clap::{Args, ValueEnum};
use control::install::{Console, NAMESPACE, Options, REPLICAS, SettingsReaders};

/// Arguments of `sidegate install`.
#[derive(Args)]
#[command(after_help = "\
Install:    sidegate install | kubectl apply -f -
Upgrade:    the same again. Keys and certificates that issuer and injector wrote stay as they are.
Uninstall:  sidegate install | kubectl delete --ignore-not-found -f -
            This deletes the CRDs, and with them all AccessRoles and AccessGrants. Take sidecars out first (sidegate uninject).
            What is in the namespace goes with it, and may be gone before its turn comes: hence --ignore-not-found.
With Helm:  helm install sidegate deploy/charts/sidegate -n sidegate-system --create-namespace

docs/KUBERNETES.md says what every object is for and why each right is needed.")]
pub struct InstallArgs {
    /// Where issuer and injector go
    #[arg(long, value_name = "NAMESPACE", default_value = NAMESPACE)]
    namespace: String,
    /// The image of issuer, injector and, by default, sidecars [default: sidegate:VERSION]
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// How many issuers, and how many injectors
    #[arg(long, value_name = "N", default_value_t = REPLICAS, value_parser = clap::value_parser!(i32).range(1..))]
    replicas: i32,
    /// The trust domain of the workloads' certificates [default: cluster.local]
    #[arg(long, value_name = "DOMAIN")]
    trust_domain: Option<String>,
    /// Which service accounts may watch auth-settings through the API, for an effect within a second
    #[arg(long, value_enum, default_value_t = Rbac::Cluster)]
    rbac: Rbac,
    /// The namespaces of --rbac namespaced
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    namespaces: Vec<String>,
    /// Add the console, on which everybody does what their own rights in the cluster allow
    #[arg(long, value_enum, value_name = "RIGHTS", require_equals = true, num_args = 0..=1, default_missing_value = "signed-in")]
    console: Option<Rights>,
    /// Add PodMonitors. A cluster without the Prometheus operator refuses them; annotations for Prometheus are always there
    #[arg(long)]
    pod_monitors: bool,
    /// Print the CustomResourceDefinitions alone
    #[arg(long)]
    crds_only: bool,
    /// Write the Helm chart into a directory instead
    #[arg(long, value_name = "DIR", hide = true)]
    helm: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Rbac {
    /// All, everywhere: one ClusterRole for the one name
    Cluster,
    /// Those of the namespaces named: a Role in each
    Namespaced,
    /// None: changes come through the mounted directory, within a minute or two
    None,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Rights {
    /// The default: all with the rights of whoever signed in
    SignedIn,
    /// Settings with those of the console's own account, the rest with those of whoever signed in
    OwnAccount,
}

/// Prints the manifests.
///
/// # Errors
/// Arguments that do not fit; standard output that cannot be written to.
pub fn run(args: InstallArgs) -> anyhow::Result<ExitCode> {
    if let Some(directory) = &args.helm {
        write_chart(directory)?;
        return Ok(ExitCode::SUCCESS);
    }
    let text =
        if args.crds_only { control::install::definitions()? } else { control::install::manifests(&options(args)?)? };
    std::io::stdout().lock().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn options(args: InstallArgs) -> anyhow::Result<Options> {
    let defaults = Options::default();
    for namespace in args.namespaces.iter().chain([&args.namespace]) {
        identity::ServiceName::new(namespace, namespace).with_context(|| format!("`{namespace}` is no namespace"))?;
    }
    let settings = readers(args.rbac, args.namespaces)?;
    let image = args.image.unwrap_or(defaults.image);
    ensure!(is_word(&image), "--image {image:?} is no image: write one like registry.example/sidegate:0.1.0");
    let trust_domain = args.trust_domain.unwrap_or(defaults.trust_domain);
    ensure!(
        is_trust_domain(&trust_domain),
        "--trust-domain {trust_domain:?} is none: lower-case letters, digits, '-', '_' and '.', like cluster.local"
    );
    Ok(Options {
        namespace: args.namespace,
        image,
        replicas: args.replicas,
        trust_domain,
        settings,
        console: match args.console {
            None => Console::Absent,
            Some(Rights::SignedIn) => Console::SignedIn,
            Some(Rights::OwnAccount) => Console::OwnAccount,
        },
        pod_monitors: args.pod_monitors,
    })
}

fn readers(rbac: Rbac, namespaces: Vec<String>) -> anyhow::Result<SettingsReaders> {
    match (rbac, namespaces.is_empty()) {
        (Rbac::Cluster, true) => Ok(SettingsReaders::Cluster),
        (Rbac::None, true) => Ok(SettingsReaders::Nobody),
        (Rbac::Namespaced, false) => Ok(SettingsReaders::Namespaces(namespaces)),
        (Rbac::Namespaced, true) => {
            bail!("--rbac namespaced needs --namespaces, like --namespaces service-a,postgres-b")
        }
        (_, false) => bail!("--namespaces are those of --rbac namespaced: add it, or leave them out"),
    }
}

/// It is written into YAML, where blanks and quotes would be read as something else.
fn is_word(text: &str) -> bool {
    let fine = |c: char| c.is_ascii_alphanumeric() || "-._:/@[]".contains(c);
    text.chars().all(fine) && text.starts_with(|c: char| c.is_ascii_alphanumeric())
}

fn is_trust_domain(text: &str) -> bool {
    let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
    (1..=255).contains(&text.len()) && text.chars().all(fine)
}

fn write_chart(directory: &Path) -> anyhow::Result<()> {
    for (path, text) in control::install::chart()? {
        let path = directory.join(path);
        let parent = path.parent().unwrap_or(directory);
        std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
