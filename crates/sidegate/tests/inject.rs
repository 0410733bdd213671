//! `sidegate inject` as people run it: on the examples that we ship, and on what else comes by.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use policy::documents::Source;
use policy::snapshot::Snapshot;
use serde_json::Value;

#[test]
fn the_examples_inject_and_undo() {
    let examples = examples();
    let injected = run(&["inject", "-f", examples.to_str().unwrap()], "");
    assert!(injected.status.success(), "{}", text(&injected.stderr));
    let report = text(&injected.stderr);
    for workload in ["statefulset/postgres-a", "statefulset/postgres-b", "deployment/service-a", "deployment/service-b"]
    {
        assert!(report.contains(&format!("{workload}: injected\n")), "{report}");
    }
    assert!(!report.contains("warning"), "{report}");
    let output = text(&injected.stdout);
    assert_eq!(text(&run(&["inject"], &output).stdout), output, "twice is once");
    let before: Vec<Value> = documents(&run(&["uninject"], &files(&examples)).stdout);
    let after: Vec<Value> = documents(&run(&["uninject"], &output).stdout);
    assert_eq!(before, after);
    let services = documents(&injected.stdout).into_iter().filter_map(|object| {
        let annotations = object.pointer("/spec/template/metadata/annotations")?.clone();
        let config = annotations["sidegate.dev/sidecar-config"].as_str()?.to_owned();
        Some(sidecar::Config::parse(&config).unwrap().service.to_string())
    });
    assert_eq!(
        services.collect::<Vec<_>>(),
        ["postgres-a/postgres-a", "postgres-b/postgres-b", "service-a/service-a", "service-b/service-b"]
    );
}

#[test]
fn the_documents_of_the_examples_compile() {
    let all = documents(files(&examples()).as_bytes());
    let ours = all.iter().filter(|object| object["apiVersion"] == "sidegate.dev/v1alpha1");
    let sources: Vec<_> = ours.map(|object| Source { path: "examples".to_owned(), text: object.to_string() }).collect();
    let snapshot = Snapshot::compile(&sources).unwrap();
    assert!(snapshot.role("postgres-b", "orders-writer").is_some());
}

#[test]
fn every_listener_makes_a_configuration_that_the_sidecar_takes() {
    for annotations in [
        "sidegate.dev/inbound: postgres",
        "sidegate.dev/inbound: 'postgres 5433; query 9443 database=shop; http 8080 to 127.0.0.1:3000'",
        "sidegate.dev/inbound: query database=a-b, sidegate.dev/postgres-users: 'reader=r,writer=w,owner=o,admin=a'",
        "sidegate.dev/outbound: 'postgres 6432 to b/b; http 8080 to c/d:9 account=e', sidegate.dev/settings: watched",
        "sidegate.dev/inbound: postgres, sidegate.dev/unverified-user: 'yes', sidegate.dev/service: other",
    ] {
        let output = run(&["inject"], &pod(annotations));
        assert!(output.status.success(), "{annotations}: {}", text(&output.stderr));
    }
}

#[test]
fn what_does_not_ask_passes_as_it_is_and_what_asks_wrongly_stops_everything() {
    let strange = "# comment\nkind: Strange\nodd:   [1,\n 2]\n";
    let output = run(&["inject"], strange);
    assert_eq!(text(&output.stdout), format!("---\n{strange}"));
    let both = format!("{strange}---\n{}", pod("sidegate.dev/imbound: postgres"));
    let output = run(&["inject"], &both);
    assert!(!output.status.success() && output.stdout.is_empty());
    let errors = text(&output.stderr);
    assert!(errors.contains("pod/x: sidegate.dev/imbound") && errors.contains("standard input:5"), "{errors}");
    let list = format!("{{apiVersion: v1, kind: List, items: [{}]}}", pod("sidegate.dev/inbound: postgres"));
    let output = documents(&run(&["inject"], &list).stdout);
    assert_eq!(output[0]["items"][0]["spec"]["initContainers"][0]["name"], "sidegate");
}

fn pod(annotations: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: x, namespace: ns, annotations: {{{annotations}}}}}, \
         spec: {{serviceAccountName: x, containers: [{{name: x, image: 'postgres:17'}}]}}}}\n"
    )
}

/// With an authority, and without a cluster.
fn run(args: &[&str], input: &str) -> Output {
    let authority = Path::new(env!("CARGO_TARGET_TMPDIR")).join("inject-ca.pem");
    std::fs::write(&authority, CA).unwrap();
    let mut command = sidegate(args);
    if args[0] == "inject" {
        command.arg("--issuer-ca").arg(&authority);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

/// PEM is all that is looked at here; what is in it, the sidecar will see.
const CA: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

fn sidegate(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sidegate"));
    command.args(args).env("KUBECONFIG", "/nowhere").env_remove("KUBERNETES_SERVICE_HOST");
    command
}

/// All files of a directory, as `inject -f` reads them.
fn files(directory: &Path) -> String {
    let mut files: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|end| end == "yaml"));
    files.sort();
    files.iter().map(|file| format!("---\n{}", std::fs::read_to_string(file).unwrap())).collect()
}

fn documents(yaml: &[u8]) -> Vec<Value> {
    serde_saphyr::from_multiple(&text(yaml)).unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/examples/demo")
}
