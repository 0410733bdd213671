//! What docs/ARCHITECTURE.md promises of the source tree: paths named exist, dependencies run one way, pure crates stay pure.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each crate of ours and those of ours that it may name.
const LAYERS: [(&str, &[&str]); 8] = [
    ("wire", &[]),
    ("identity", &[]),
    ("runtime", &[]),
    ("policy", &["identity"]),
    ("sidecar", &["runtime", "wire", "identity", "policy"]),
    ("control", &["runtime", "identity", "policy"]),
    ("testkit", &["wire"]),
    ("sidegate", &["runtime", "wire", "identity", "policy", "sidecar", "control"]),
];
const PURE: [&str; 3] = ["wire", "identity", "policy"];
/// Sockets, clocks, randomness: what a pure crate has no use for. (A thread may be borrowed for its stack.)
const IMPURE: [&str; 10] =
    ["tokio", "hyper", "axum", "rustls", "tokio-rustls", "kube", "notify", "rand", "uuid", "time"];
const IMPURE_PATHS: [&str; 5] = ["SystemTime", "Instant::now", "std::net", "std::fs", "std::env"];

#[test]
fn dependencies_run_one_way() {
    let ours: BTreeSet<&str> = LAYERS.iter().map(|(name, _)| *name).collect();
    for (name, allowed) in LAYERS {
        for dependency in dependencies(name) {
            let fine = !ours.contains(dependency.as_str()) || allowed.contains(&dependency.as_str());
            assert!(fine, "{name} must not depend on {dependency}");
        }
    }
    let present =
        fs::read_dir(root().join("crates")).unwrap().flatten().map(|entry| entry.file_name().into_string().unwrap());
    assert_eq!(
        present.collect::<BTreeSet<_>>(),
        ours.iter().map(ToString::to_string).collect(),
        "a crate without a layer"
    );
}

#[test]
fn pure_crates_name_nothing_impure() {
    for name in PURE {
        for dependency in dependencies(name) {
            assert!(!IMPURE.contains(&dependency.as_str()), "{name} depends on {dependency}");
        }
        for file in sources(&root().join("crates").join(name).join("src")) {
            let text = fs::read_to_string(&file).unwrap();
            // Tests of a pure crate may read their tables from files.
            let code = text.split("#[cfg(test)]\nmod").next().unwrap();
            let found = IMPURE_PATHS.iter().find(|path| code.contains(**path));
            assert_eq!(found, None, "{}", file.display());
        }
    }
}

#[test]
fn documents_name_only_paths_that_exist() {
    let root = root();
    for document in [
        "README.md",
        "docs/ARCHITECTURE.md",
        "docs/INVARIANTS.md",
        "docs/CONFIGURATION.md",
        "docs/KUBERNETES.md",
        "docs/BENCHMARK.md",
    ] {
        let text = fs::read_to_string(root.join(document)).unwrap_or_else(|error| panic!("{document}: {error}"));
        for path in text.split('`').skip(1).step_by(2).filter(|quoted| is_path(quoted)) {
            assert!(root.join(path.trim_start_matches("./")).exists(), "{document} names {path}");
        }
    }
}

#[test]
fn every_source_file_says_what_it_is_for() {
    // Tests that were put beside their code share its purpose.
    for file in sources(&root().join("crates")).iter().filter(|file| !file.ends_with("tests.rs")) {
        let text = fs::read_to_string(file).unwrap();
        assert!(text.starts_with("//!"), "{} does not open with //!", file.display());
    }
}

/// Written as a path of this repository: one of its top directories and a slash.
fn is_path(quoted: &str) -> bool {
    let tops = ["crates/", "docs/", "e2e/", "corpus/", "scripts/", "fuzz/", "bench/", "deploy/"];
    tops.iter().any(|top| quoted.starts_with(top)) && !quoted.contains([' ', '*', '{'])
}

/// Names in `[dependencies]`; what is for tests alone may point anywhere.
fn dependencies(name: &str) -> Vec<String> {
    let manifest = fs::read_to_string(root().join("crates").join(name).join("Cargo.toml")).unwrap();
    let section = manifest.split("[dependencies]").nth(1).unwrap_or_default();
    let lines = section.lines().skip(1).take_while(|line| !line.starts_with('['));
    lines
        .filter_map(|line| line.split(['.', '=', ' ']).next())
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

fn sources(dir: &Path) -> Vec<PathBuf> {
    let (dirs, files): (Vec<_>, Vec<_>) =
        fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path()).partition(|path| path.is_dir());
    let below = dirs.iter().flat_map(|dir| sources(dir));
    files.into_iter().filter(|path| path.extension().is_some_and(|end| end == "rs")).chain(below).collect()
}

fn root() -> PathBuf {
    fs::canonicalize(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")).unwrap()
}
