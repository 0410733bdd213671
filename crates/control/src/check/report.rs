//! Findings for people, by area and with what to do, and for programs.
//!
//! Deliberately absent: whether standard output is a terminal, which the caller knows.

use std::fmt::Write;

use serde::Serialize;

use super::catalogue::{area_title, title};
use super::{Finding, Status};

/// All findings, in the order in which they are to be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether there is nothing that failed or is unknown.
    ok: bool,
    checks: Vec<Finding>,
}

/// How text looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// For files and pipes.
    Plain,
    /// For terminals.
    Coloured,
}

/// Exit status: something failed.
const FAILED: u8 = 1;
/// Exit status: something could not be asked, and nothing failed.
const UNKNOWN: u8 = 2;

impl Report {
    pub(super) fn new(checks: Vec<Finding>) -> Self {
        let bad = |finding: &Finding| matches!(finding.status, Status::Failed | Status::Unknown);
        Self { ok: !checks.iter().any(bad), checks }
    }

    /// What was found.
    #[must_use]
    pub fn checks(&self) -> &[Finding] {
        &self.checks
    }

    /// 0 all is well or there are only warnings, 1 something failed, 2 something could not be asked.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        let any = |status| self.checks.iter().any(|finding| finding.status == status);
        match (any(Status::Failed), any(Status::Unknown)) {
            (true, _) => FAILED,
            (false, true) => UNKNOWN,
            (false, false) => 0,
        }
    }

    /// As `linkerd check` does it. What is well at many objects takes one line.
    #[must_use]
    pub fn text(&self, style: Style) -> String {
        let mut text = String::new();
        let mut area = "";
        for same in self.checks.chunk_by(|one, other| one.id == other.id) {
            let Some(first) = same.first() else { continue };
            if area_of(first.id) != area {
                area = area_of(first.id);
                heading(&mut text, area);
            }
            lines(&mut text, same, style);
        }
        let _ = write!(text, "\n{}\n", self.summary());
        text
    }

    fn summary(&self) -> String {
        let count = |status| self.checks.iter().filter(|finding| finding.status == status).count();
        let (failed, unknown, warnings) = (count(Status::Failed), count(Status::Unknown), count(Status::Warning));
        let verdict = match self.exit_code() {
            0 => "Status check results are √",
            _ => "Status check results are ×",
        };
        format!("{verdict} ({failed} failed, {unknown} could not be asked, {warnings} warnings)")
    }
}

fn area_of(id: &str) -> &str {
    id.split_once('.').map_or(id, |(area, _)| area)
}

fn heading(text: &mut String, area: &str) {
    let title = area_title(area);
    let gap = if text.is_empty() { "" } else { "\n" };
    let _ = writeln!(text, "{gap}{title}\n{}", "-".repeat(title.len()));
}

/// The findings of one check: what is well first, in one line.
fn lines(text: &mut String, same: &[Finding], style: Style) {
    let well: Vec<_> = same.iter().filter(|finding| finding.status == Status::Ok).collect();
    if let Some(first) = well.first() {
        let what = match well.len() {
            1 if first.message.is_empty() && first.subject.is_empty() => String::new(),
            1 => format!(": {}", [first.subject.as_str(), &first.message].join(" ").trim()),
            many => format!(": {many} of {}", same.len()),
        };
        let _ = writeln!(text, "{} {}{what}", sign(Status::Ok, style), title(first.id));
    }
    for finding in same.iter().filter(|finding| finding.status != Status::Ok) {
        let of = if finding.subject.is_empty() { String::new() } else { format!(": {}", finding.subject) };
        let _ = writeln!(text, "{} {}{of}", sign(finding.status, style), title(finding.id));
        indented(text, &finding.message);
        indented(text, &finding.remedy);
        let _ = writeln!(text, "    see docs/KUBERNETES.md, {}", finding.id);
    }
}

fn indented(text: &mut String, part: &str) {
    for line in part.lines() {
        let _ = writeln!(text, "    {line}");
    }
}

fn sign(status: Status, style: Style) -> String {
    let (sign, colour) = match status {
        Status::Ok => ("√", 32),
        Status::Warning => ("‼", 33),
        Status::Failed => ("×", 31),
        Status::Unknown => ("?", 35),
    };
    match style {
        Style::Plain => sign.to_owned(),
        Style::Coloured => format!("\x1b[{colour}m{sign}\x1b[0m"),
    }
}
