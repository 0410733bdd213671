//! The OpenAPI documents in `docs/` are those that the program prints.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::Path;
use std::process::Command;

#[test]
fn the_documents_in_docs_are_those_that_the_program_prints() {
    ["issuer", "query"].into_iter().for_each(is_what_the_program_prints);
}

fn is_what_the_program_prints(name: &str) {
    let output = Command::new(env!("CARGO_BIN_EXE_sidegate")).args(["openapi", name]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let file = format!("docs/openapi-{name}.json");
    let written = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(&file)).unwrap_or_default();
    assert!(
        written == output.stdout,
        "{file} is not what the code serves; renew it with: cargo run -q -p sidegate -- openapi {name} > {file}"
    );
}
