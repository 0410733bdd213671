//! Decision logs as files: read line by line, in the order given, with places for errors.
//!
//! Memory is bounded by the longest line, whatever the file. Absent on purpose: finding rotated files, which are named
//! by whoever asks, oldest first.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use policy::record::{Event, Line, Record};

/// Far more than any record has: what has no end of line is no log.
const LONGEST_LINE: u64 = 16 << 20;

/// Where a line stands.
pub struct Place<'a> {
    pub file: &'a str,
    /// Counted from 1.
    pub number: u64,
}

impl std::fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file, self.number)
    }
}

/// What of a log is no record.
#[derive(Debug, Default)]
pub struct Aside {
    /// Records that their writer lost.
    pub lost: u64,
    /// Lines that their writer did not live to finish.
    pub torn: u64,
    /// Records of another schema.
    pub unreadable: u64,
}

impl Aside {
    /// Tells on standard error what is missing, so that nobody takes an answer for the whole truth.
    pub fn tell(&self) {
        let said = [
            (self.lost, "decisions are missing: the log says that they were lost"),
            (self.torn, "lines are torn: their writer did not live to finish them"),
            (self.unreadable, "decisions are of a schema that this version does not know"),
        ];
        for (count, what) in said.into_iter().filter(|(count, _)| *count > 0) {
            let _ = writeln!(std::io::stderr(), "sidegate: note: {count} {what}");
        }
    }
}

/// Reads every record of the files; `-` is standard input.
///
/// # Errors
/// A file that cannot be read, or a line that is none of a decision log, with its place.
pub fn records(files: &[PathBuf], mut take: impl FnMut(Record) -> anyhow::Result<()>) -> anyhow::Result<Aside> {
    let mut aside = Aside::default();
    lines(files, |place, line, _| {
        match Line::read(line).with_context(|| place.to_string())? {
            Line::Record(record) => take(*record)?,
            Line::Event(Event::Lost { count }) => aside.lost += count,
            Line::Event(_) => {}
            Line::OtherSchema(_) => aside.unreadable += 1,
            Line::Torn => aside.torn += 1,
        }
        Ok(())
    })?;
    Ok(aside)
}

/// Reads every line of the files, without its end; the last argument is whether it had one.
///
/// # Errors
/// A file that cannot be read, a line without end, or what the taker says.
pub fn lines(
    files: &[PathBuf],
    mut take: impl FnMut(&Place<'_>, &[u8], bool) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    for file in files {
        let name = if is_stdin(file) { "standard input".to_owned() } else { file.display().to_string() };
        let mut input = BufReader::with_capacity(1 << 16, open(file)?);
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            let read = (&mut input).take(LONGEST_LINE).read_until(b'\n', &mut line);
            if read.with_context(|| format!("cannot read {name}"))? == 0 {
                break;
            }
            let place = Place { file: &name, number };
            let ended = line.last() == Some(&b'\n');
            if ended {
                line.pop();
            } else if line.len() as u64 == LONGEST_LINE {
                bail!("{place}: a line of more than {LONGEST_LINE} bytes: this is no decision log");
            }
            take(&place, &line, ended)?;
        }
    }
    Ok(())
}

fn is_stdin(file: &Path) -> bool {
    file.as_os_str() == "-"
}

fn open(file: &Path) -> anyhow::Result<Box<dyn Read>> {
    if is_stdin(file) {
        return Ok(Box::new(std::io::stdin()));
    }
    let opened = File::open(file).with_context(|| format!("cannot read the log {}", file.display()))?;
    Ok(Box::new(opened))
}

/// Writes to standard output. That its reader had enough is no error.
///
/// # Errors
/// When it cannot be written otherwise.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> (tempfile::TempDir, Vec<PathBuf>) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("log");
        std::fs::write(&file, text).unwrap();
        (dir, vec![file])
    }

    const EVENTS: &str =
        "{\"schema\":1,\"event\":\"started\",\"service\":\"a/a\"}\n{\"schema\":1,\"event\":\"lost\",\"count\":3}\n";

    #[test]
    fn what_is_no_record_is_counted() {
        let (_dir, files) = written(&format!("{EVENTS}{{\"schema\":1,\"ti\n{{\"schema\":9}}\n"));
        let aside = records(&files, |_| bail!("there is none")).unwrap();
        assert_eq!((aside.lost, aside.torn, aside.unreadable), (3, 1, 1));
    }

    #[test]
    fn errors_say_where() {
        let (_dir, files) = written(&format!("{EVENTS}hello\n"));
        let error = format!("{:#}", records(&files, |_| Ok(())).unwrap_err());
        assert!(error.contains("log:3: this is no line of a decision log"), "{error}");
        let error = format!("{:#}", records(&["/no/such/log".into()], |_| Ok(())).unwrap_err());
        assert!(error.contains("/no/such/log"), "{error}");
    }
}
