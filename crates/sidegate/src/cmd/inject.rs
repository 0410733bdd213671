//! `sidegate inject` and `sidegate uninject`: manifests in, manifests with the sidecar (or without it) out.
//!
//! Deliberately absent: what an injected pod looks like (`control::inject`), and writing to a cluster, which is `kubectl`'s.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use control::inject::{self, Asks, Defaults, Surroundings};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::config::Kubeconfig;
use serde_json::Value;

use manifests::Document;

mod manifests;

/// What sidecars trust for the issuer's https, where `sidegate install` put it.
const TRUST_BUNDLE: &str = "sidegate-trust-bundle";
const TRUST_BUNDLE_KEY: &str = "ca.pem";
const NO_BUNDLE: &str = "The sidecar must know whom to trust as the issuer: give --issuer-ca FILE, or let KUBECONFIG lead to a \
                         cluster where `sidegate install | kubectl apply -f -` has run and an issuer is up";

/// Arguments of `sidegate inject`.
#[derive(Args)]
#[command(after_help = "\
Deployments, StatefulSets, DaemonSets, ReplicaSets, Jobs, CronJobs and Pods whose pod template asks for it get the sidecar;
everything else passes through as it is. A database asks with

    sidegate.dev/inbound: postgres
    sidegate.dev/postgres-users: reader=app_reader,writer=app_writer

and who calls it with

    sidegate.dev/outbound: postgres 6432 to postgres-b/postgres-b

in spec.template.metadata.annotations; it then connects to 127.0.0.1:6432. docs/KUBERNETES.md has every annotation.

    sidegate inject -f app.yaml | kubectl apply -f -
    kubectl get deployment app -o yaml | sidegate inject | kubectl apply -f -")]
pub struct InjectArgs {
    #[command(flatten)]
    manifests: ManifestArgs,
    /// The namespace of manifests that name none [default: that of the current context, else `default`]
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// The authorities of the issuer's certificate, PEM [default: ConfigMap sidegate-trust-bundle of the cluster]
    #[arg(long, value_name = "FILE")]
    issuer_ca: Option<PathBuf>,
    /// The issuer, if it is not the one that `sidegate install` makes
    #[arg(long, value_name = "URL")]
    issuer_url: Option<String>,
    /// The namespace of Sidegate itself
    #[arg(long, value_name = "NAMESPACE", default_value = "sidegate-system")]
    system_namespace: String,
    /// The trust domain of workloads' certificates
    #[arg(long, value_name = "NAME", default_value = "cluster.local")]
    trust_domain: String,
    /// The sidecar's image [default: sidegate:VERSION, as this program's version]
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
}

/// Arguments of `sidegate uninject`.
#[derive(Args)]
pub struct UninjectArgs {
    #[command(flatten)]
    manifests: ManifestArgs,
}

#[derive(Args)]
struct ManifestArgs {
    /// A manifest, a directory of them, or - for standard input, which is also the default; may be given again
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR|-")]
    files: Vec<PathBuf>,
}

/// Adds sidecars. Writes nothing unless all of it went well.
pub fn run(args: InjectArgs) -> anyhow::Result<ExitCode> {
    let mut documents = manifests::read(&args.manifests.files)?;
    let is_asked =
        |object: &Value| inject::template(object).is_some_and(|template| inject::asks(template) == Asks::Sidecar);
    let asked = documents.iter().any(|document| objects(&document.value).any(is_asked));
    let injecting = Injecting {
        issuer_ca: if asked { issuer_ca(&args)? } else { String::new() },
        defaults: defaults(&args)?,
        namespace: args.namespace,
        context_namespace: context_namespace(),
    };
    rewrite(&mut documents, |object| injecting.inject(object))?;
    print!("{}", manifests::text(&documents));
    Ok(ExitCode::SUCCESS)
}

/// Takes sidecars out again.
pub fn run_uninject(args: UninjectArgs) -> anyhow::Result<ExitCode> {
    let mut documents = manifests::read(&args.manifests.files)?;
    rewrite(&mut documents, |object| {
        let Some(template) = inject::template_mut(object).filter(|template| inject::is_injected(template)) else {
            return Ok(Vec::new());
        };
        *template = inject::uninject(template)?;
        Ok(vec!["the sidecar is out".to_owned()])
    })?;
    print!("{}", manifests::text(&documents));
    Ok(ExitCode::SUCCESS)
}

/// What all injections of one call have in common.
struct Injecting {
    issuer_ca: String,
    defaults: Defaults,
    namespace: Option<String>,
    context_namespace: Option<String>,
}

impl Injecting {
    /// Says what was done; nothing, if nothing was.
    fn inject(&self, object: &mut Value) -> anyhow::Result<Vec<String>> {
        let misplaced = inject::asks_outside_template(object);
        if !misplaced.is_empty() {
            bail!(
                "{}: has no effect here; it belongs to the pod template's metadata.annotations",
                misplaced.join(", ")
            );
        }
        let namespace = self.namespace(object)?;
        let Some(template) = inject::template_mut(object) else { return Ok(Vec::new()) };
        match inject::asks(template) {
            Asks::Nothing => Ok(vec!["left as it is: no sidecar is asked for".to_owned()]),
            Asks::Disabled => {
                *template = inject::uninject(template)?;
                Ok(vec!["no sidecar: sidegate.dev/inject: disabled".to_owned()])
            }
            Asks::Sidecar => {
                let surroundings =
                    Surroundings { namespace: &namespace, issuer_ca: &self.issuer_ca, defaults: &self.defaults };
                let injected = inject::inject(template, &surroundings)?;
                sidecar::Config::parse(&injected.configuration)
                    .context("the sidecar would not take its configuration")?;
                *template = injected.template;
                let warnings = injected.warnings.into_iter().map(|warning| format!("warning: {warning}"));
                Ok(["injected".to_owned()].into_iter().chain(warnings).collect())
            }
        }
    }

    fn namespace(&self, object: &Value) -> anyhow::Result<String> {
        let own = object.pointer("/metadata/namespace").and_then(Value::as_str);
        if let (Some(own), Some(given)) = (own, &self.namespace)
            && own != given
        {
            bail!("its namespace is {own}, not {given} (--namespace)");
        }
        let namespace = own.or(self.namespace.as_deref()).or(self.context_namespace.as_deref());
        Ok(namespace.unwrap_or("default").to_owned())
    }
}

/// Applies a change to every object, in order, and says on standard error what became of each; fails with all that failed.
fn rewrite(
    documents: &mut [Document],
    change: impl Fn(&mut Value) -> anyhow::Result<Vec<String>>,
) -> anyhow::Result<()> {
    let mut failures = 0;
    for document in documents.iter_mut() {
        let mut value = document.value.clone();
        for object in objects_mut(&mut value) {
            let name = described(object);
            match change(object) {
                Ok(lines) => lines.iter().for_each(|line| eprintln!("{name}: {line}")),
                Err(error) => {
                    failures += 1;
                    let lines = format!("{error:#}").replace('\n', &format!("\n{name}: "));
                    eprintln!("{name}: {lines} ({})", document.origin);
                }
            }
        }
        if value != document.value {
            document.replace(value)?;
        }
    }
    match failures {
        0 => Ok(()),
        1 => bail!("nothing is written, since something is wrong with one of the objects"),
        many => bail!("nothing is written, since something is wrong with {many} of the objects"),
    }
}

/// The objects of a document: itself, or the items of a list.
fn objects(value: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    match value.get("items").and_then(Value::as_array) {
        Some(items) if is_list(value) => Box::new(items.iter()),
        _ => Box::new(std::iter::once(value)),
    }
}

fn objects_mut(value: &mut Value) -> Box<dyn Iterator<Item = &mut Value> + '_> {
    match is_list(value) {
        true => Box::new(value.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten()),
        false => Box::new(std::iter::once(value)),
    }
}

fn is_list(value: &Value) -> bool {
    value.get("kind").and_then(Value::as_str) == Some("List")
}

/// As `kubectl` would: deployment/app.
fn described(object: &Value) -> String {
    let text = |path| object.pointer(path).and_then(Value::as_str);
    let kind = text("/kind").unwrap_or("object").to_lowercase();
    format!("{kind}/{}", text("/metadata/name").or(text("/metadata/generateName")).unwrap_or("?"))
}

fn defaults(args: &InjectArgs) -> anyhow::Result<Defaults> {
    let built_in = Defaults::default();
    let issuer_url =
        args.issuer_url.clone().unwrap_or_else(|| format!("https://sidegate-issuer.{}.svc", args.system_namespace));
    if !issuer_url.starts_with("https://") || issuer_url.ends_with('/') {
        bail!("--issuer-url {issuer_url}: write https://HOST[:PORT], without a slash at the end, as tokens name it");
    }
    let image = args.image.clone().unwrap_or(built_in.image);
    Ok(Defaults { image, issuer_url, trust_domain: args.trust_domain.clone() })
}

fn context_namespace() -> Option<String> {
    let config = Kubeconfig::read().ok()?;
    let current = config.current_context?;
    config.contexts.into_iter().find(|context| context.name == current)?.context?.namespace
}

fn issuer_ca(args: &InjectArgs) -> anyhow::Result<String> {
    let pem = match &args.issuer_ca {
        Some(file) => std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?,
        None => {
            runtime::tls::install_crypto_provider();
            let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            tokio.block_on(trust_bundle(&args.system_namespace)).context(NO_BUNDLE)?
        }
    };
    inject::check_ca(&pem).map_err(anyhow::Error::msg)?;
    Ok(pem)
}

async fn trust_bundle(namespace: &str) -> anyhow::Result<String> {
    let client = kube::Client::try_default().await?;
    let bundle = kube::Api::<ConfigMap>::namespaced(client, namespace).get(TRUST_BUNDLE).await;
    let bundle = bundle.with_context(|| format!("cannot read ConfigMap {namespace}/{TRUST_BUNDLE}"))?;
    let pem = bundle.data.and_then(|mut data| data.remove(TRUST_BUNDLE_KEY)).filter(|pem| !pem.is_empty());
    pem.with_context(|| format!("ConfigMap {namespace}/{TRUST_BUNDLE} is still empty: no issuer has been up yet"))
}
