//! Manifests: files, directories or standard input, taken apart into documents and put together again. What is not
//! changed is written as it was read, comments and all.
//!
//! Deliberately absent: directories below directories, URLs and kustomizations; pipe those in.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::Value;

/// Endings of the files of a directory that count, as with `kubectl apply -f`.
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];

/// One document of a file.
pub struct Document {
    /// Where it is from, for messages.
    pub origin: String,
    pub value: Value,
    text: String,
}

impl Document {
    /// Puts something else in its place.
    pub fn replace(&mut self, value: Value) -> anyhow::Result<()> {
        self.text = written(&value)?;
        self.value = value;
        Ok(())
    }
}

/// Reads all documents, in order.
pub fn read(sources: &[PathBuf]) -> anyhow::Result<Vec<Document>> {
    let mut documents = Vec::new();
    if sources.is_empty() {
        if std::io::stdin().is_terminal() {
            bail!("nothing to read: give -f FILE, or pipe manifests in");
        }
        read_one(Path::new("-"), &mut documents)?;
    }
    for source in sources {
        match source.is_dir() {
            true => files(source)?.iter().try_for_each(|file| read_one(file, &mut documents))?,
            false => read_one(source, &mut documents)?,
        }
    }
    Ok(documents)
}

/// All documents as one text.
pub fn text(documents: &[Document]) -> String {
    documents.iter().fold(String::new(), |mut text, document| {
        // Writing to a String does not fail.
        let _ = writeln!(text, "---\n{}", document.text.trim_end());
        text
    })
}

fn files(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<Vec<_>>>()?;
    files.retain(|file| file.extension().and_then(|end| end.to_str()).is_some_and(|end| ENDINGS.contains(&end)));
    files.sort();
    Ok(files)
}

fn read_one(file: &Path, documents: &mut Vec<Document>) -> anyhow::Result<()> {
    let (name, text) = if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
        ("standard input".to_owned(), text)
    } else {
        let name = file.display().to_string();
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {name}"))?;
        (name, text)
    };
    for (line, text) in split(&text) {
        let origin = format!("{name}:{line}");
        let value = parse(&text).with_context(|| format!("the document at {origin} is no YAML"))?;
        documents.push(Document { origin, value, text });
    }
    Ok(())
}

/// As `kubectl` reads it: octal numbers are written 0644.
fn parse(text: &str) -> anyhow::Result<Value> {
    let options = serde_saphyr::options! { with_snippet: false, legacy_octal_numbers: true };
    // A document of comments alone is nothing.
    Ok(serde_saphyr::from_str_with_options::<Option<Value>>(text, options)?.unwrap_or_default())
}

/// The documents and the lines on which they begin. `---` at the beginning of a line is a marker wherever it stands.
fn split(text: &str) -> Vec<(usize, String)> {
    let mut documents = vec![(1, String::new())];
    for (number, line) in text.lines().enumerate() {
        match line.strip_prefix("---").filter(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r'])) {
            Some(rest) if rest.trim().is_empty() => documents.push((number + 1, String::new())),
            Some(rest) => documents.push((number + 1, format!("{}\n", rest.trim()))),
            None => {
                if let Some((_, document)) = documents.last_mut() {
                    document.push_str(line);
                    document.push('\n');
                }
            }
        }
    }
    documents.retain(|(_, text)| !text.trim().is_empty());
    documents
}

/// As YAML that reads as the same again; else as JSON, which is YAML, too.
fn written(value: &Value) -> anyhow::Result<String> {
    let yaml = serde_saphyr::to_string(value)?;
    match parse(&yaml) {
        Ok(again) if again == *value => Ok(yaml),
        _ => Ok(serde_json::to_string_pretty(value)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn documents_are_kept_apart_and_their_lines_known() {
        let text = "# head\n---\na: 1\n--- # two\nb: |\n  ---\n  x\n---\n\n---\n{\"c\": 1}\n";
        let documents = split(text);
        let lines: Vec<_> = documents.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [1, 2, 4, 10]);
        let values: Vec<_> = documents.iter().map(|(_, text)| parse(text).unwrap()).collect();
        assert_eq!(values, [Value::Null, json!({"a": 1}), json!({"b": "---\nx\n"}), json!({"c": 1})]);
    }

    #[test]
    fn what_is_written_reads_as_the_same() {
        let odd = [
            "yes", "0644", "1e3", "", " x", "a: b", "null", "~", "- x", "on", "0x1f", "12:30:45", "#", "|", "\ttab",
            "1_000",
        ];
        let long = format!("{} \n  {}\n\n", "word ".repeat(40), "x".repeat(200));
        let value =
            json!({"odd": odd, "long": long, "words": "w ".repeat(80), "nested": [{"a": [], "b": {}}, null, 1.5]});
        assert_eq!(parse(&written(&value).unwrap()).unwrap(), value);
        assert_eq!(parse("mode: 0644").unwrap(), json!({"mode": 420}));
    }
}
