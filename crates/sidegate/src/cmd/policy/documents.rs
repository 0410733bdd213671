//! AccessRole and AccessGrant documents as files.

use std::path::Path;

use anyhow::Context;
use policy::snapshot::{Snapshot, Source};

/// The documents of a directory, compiled; without one only the built-in roles are there.
pub fn read(directory: Option<&Path>) -> anyhow::Result<Snapshot> {
    let sources = directory.map(sources).transpose()?.unwrap_or_default();
    Snapshot::compile(&sources).map_err(|errors| {
        let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("the documents are not right:\n  {}", errors.join("\n  "))
    })
}

/// All YAML and JSON files below a directory, in the order of their paths.
pub fn sources(directory: &Path) -> anyhow::Result<Vec<Source>> {
    let mut sources = Vec::new();
    collect(directory, &mut sources)?;
    sources.sort_by(|a: &Source, b| a.path.cmp(&b.path));
    Ok(sources)
}

fn collect(directory: &Path, sources: &mut Vec<Source>) -> anyhow::Result<()> {
    let entries = std::fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, sources)?;
        } else if path.extension().is_some_and(|e| ["yaml", "yml", "json"].iter().any(|known| e == *known)) {
            let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            sources.push(Source { path: path.display().to_string(), text });
        }
    }
    Ok(())
}
