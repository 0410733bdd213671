//! `sidegate policy verify-log`: whether a decision log with a chain is whole.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use policy::record::{Event, Line};
use runtime::decision_log::chain::Head;
use runtime::decision_log::verify::{Link, Verifier};

use super::{DENIED, bad_input, log};

/// Arguments of `sidegate policy verify-log`.
#[derive(Args)]
pub struct VerifyArgs {
    /// The files of one log, oldest first (FILE.2 FILE.1 FILE); `-` is standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// A head that an earlier run printed: the log must still contain the line that bears it.
    #[arg(long, value_name = "HEX", value_parser = head)]
    head: Option<Head>,
}

fn head(text: &str) -> Result<Head, String> {
    Head::parse(text.as_bytes()).ok_or_else(|| "a head is 64 hexadecimal digits in lower case".to_owned())
}

/// What is told of a file.
#[derive(Default)]
struct Counts {
    name: String,
    lines: u64,
    lost: u64,
    torn: u64,
    unfinished: bool,
    chains: u64,
    /// The chain began before the file that is given first.
    enters: bool,
    head: Option<Head>,
}

struct Check {
    verifier: Verifier,
    wanted: Option<Head>,
    found: bool,
    files: Vec<Counts>,
    broken: Option<String>,
}

/// Checks, and says what it found.
///
/// # Errors
/// Standard output that cannot be written to.
pub fn run(args: VerifyArgs) -> anyhow::Result<ExitCode> {
    let mut check =
        Check { verifier: Verifier::default(), wanted: args.head, found: false, files: Vec::new(), broken: None };
    let read = log::lines(&args.files, |place, line, ended| {
        check.line(place, line, ended);
        Ok(())
    });
    if let Err(error) = read {
        return bad_input(&error);
    }
    log::print(&check.files.iter().map(told).collect::<String>())?;
    check.conclude()
}

impl Check {
    fn line(&mut self, place: &log::Place<'_>, line: &[u8], ended: bool) {
        if self.broken.is_some() {
            return;
        }
        if self.files.last().is_none_or(|counts| counts.name != place.file) {
            self.files.push(Counts { name: place.file.to_owned(), ..Counts::default() });
        }
        let Some(counts) = self.files.last_mut() else { return };
        counts.lines += 1;
        match self.verifier.line(line) {
            Ok(Link::Torn) if ended => counts.torn += 1,
            Ok(Link::Torn) => counts.unfinished = true,
            Ok(Link::Begins(_)) => counts.chains += 1,
            Ok(Link::Enters(_)) => counts.enters = true,
            Ok(Link::Follows(_)) => {}
            Err(broken) => return self.broken = Some(format!("{place}: {broken}")),
        }
        if let Ok(Line::Event(Event::Lost { count })) = Line::read(line) {
            counts.lost += count;
        }
        counts.head = self.verifier.head();
        self.found |= self.wanted.is_some() && counts.head == self.wanted;
    }

    fn conclude(&self) -> anyhow::Result<ExitCode> {
        if let Some(broken) = &self.broken {
            if self.verifier.head().is_none() {
                return bad_input(&anyhow::anyhow!(
                    "{broken}\n  to do: set `decision_log: {{chain: true}}` or start the sidecar with --audit-chain"
                ));
            }
            eprintln!("sidegate: {broken}");
            return Ok(ExitCode::from(DENIED));
        }
        let Some(head) = self.verifier.head() else {
            return bad_input(&anyhow::anyhow!("there is no line with a digest in what was given"));
        };
        if self.wanted.is_some() && !self.found {
            eprintln!(
                "sidegate: the head that was asked for is not in the log: its end was cut off or written anew, or this is another log"
            );
            return Ok(ExitCode::from(DENIED));
        }
        let contains = if self.found { ", and contains the head that was asked for" } else { "" };
        log::print(&format!("intact{contains}; head {head}\n"))?;
        Ok(ExitCode::SUCCESS)
    }
}

fn told(counts: &Counts) -> String {
    let mut text = format!("{}: {} lines, {} lost", counts.name, counts.lines, counts.lost);
    let mut more = |said: String| {
        let _ = write!(text, ", {said}");
    };
    if counts.torn > 0 {
        more(format!("{} torn (no digest covers them)", counts.torn));
    }
    if counts.unfinished {
        more("the last line is torn (being written, or its writer died)".to_owned());
    }
    if counts.chains > 0 {
        more(format!("{} chains begin", counts.chains));
    }
    if counts.enters {
        more("the chain began in a file that is not given (its first line is not checked)".to_owned());
    }
    if let Some(head) = counts.head {
        more(format!("head {head}"));
    }
    text + "\n"
}
