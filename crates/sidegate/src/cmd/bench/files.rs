//! The files that a benchmark writes: opened before anything is measured, so that a mistyped path costs no time.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::bench::Outcome;
use crate::bench::report::{chart, csv};
use crate::bench::summary::Summary;

/// Results as CSV, run by run: whatever ends the benchmark, the runs so far are there.
pub struct CsvFile {
    file: File,
    path: PathBuf,
    wide: bool,
}

impl CsvFile {
    /// A new file with the names of its columns.
    pub fn create(path: &Path, wide: bool) -> anyhow::Result<Self> {
        let mut csv = Self { file: create(path)?, path: path.to_owned(), wide };
        csv.append(&csv::head(wide))?;
        Ok(csv)
    }

    /// One run more.
    pub fn write(&mut self, outcome: &Outcome) -> anyhow::Result<()> {
        self.append(&csv::rows(outcome, self.wide))
    }

    fn append(&mut self, text: &str) -> anyhow::Result<()> {
        self.file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", self.path.display()))
    }
}

/// A picture, or a page with it.
pub struct ChartFile {
    file: File,
    path: PathBuf,
    page: bool,
}

impl ChartFile {
    /// A new file; what it is to hold is told by the end of its name.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let page = match path.extension().and_then(|end| end.to_str()) {
            Some("svg") => false,
            Some("html" | "htm") => true,
            _ => bail!("--chart {}: the name must end with .svg or .html", path.display()),
        };
        Ok(Self { file: create(path)?, path: path.to_owned(), page })
    }

    /// All of it.
    pub fn write(mut self, summary: &Summary, notes: &[String], tables: &str) -> anyhow::Result<()> {
        let text = if self.page { chart::html(summary, notes, tables)? } else { chart::svg(summary, notes)? };
        self.file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", self.path.display()))
    }
}

fn create(path: &Path) -> anyhow::Result<File> {
    File::create(path).with_context(|| format!("cannot write {}", path.display()))
}
