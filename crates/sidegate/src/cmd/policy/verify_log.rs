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
    /// A head that an earlier run printed: the log must still contain the line that bears it, behind a line that leads to
    /// it.
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

#[derive(Default)]
struct Check {
    verifier: Verifier,
    wanted: Option<Head>,
    /// The first line that is proven.
    first: Option<String>,
    /// The first line that is proven of the chain that is being read.
    since: Option<String>,
    /// The line whose own beginning is not given: it may bear any digest, as nothing leads to it.
    unproven: Option<String>,
    /// That line bears the head that is wanted, which says nothing.
    is_claimed: bool,
    /// The lines that the wanted head proves.
    found: Option<String>,
    files: Vec<Counts>,
    broken: Option<String>,
}

/// What there is to say in the end.
enum Conclusion {
    Intact(String),
    Broken(String),
    Unreadable(String),
}

/// Checks, and says what it found.
///
/// # Errors
/// Standard output that cannot be written to.
pub fn run(args: VerifyArgs) -> anyhow::Result<ExitCode> {
    let check = match Check::of(&args) {
        Ok(check) => check,
        Err(error) => return bad_input(&error),
    };
    log::print(&check.files.iter().map(told).collect::<String>())?;
    match check.conclude() {
        Conclusion::Unreadable(why) => bad_input(&anyhow::anyhow!(why)),
        Conclusion::Broken(why) => {
            eprintln!("sidegate: {why}");
            Ok(ExitCode::from(DENIED))
        }
        Conclusion::Intact(said) => log::print(&said).map(|()| ExitCode::SUCCESS),
    }
}

impl Check {
    fn of(args: &VerifyArgs) -> anyhow::Result<Self> {
        let mut check = Self { wanted: args.head, ..Self::default() };
        log::lines(&args.files, |place, line, ended| {
            check.line(place, line, ended);
            Ok(())
        })?;
        Ok(check)
    }

    fn line(&mut self, place: &log::Place<'_>, line: &[u8], ended: bool) {
        if self.broken.is_some() {
            return;
        }
        if self.files.last().is_none_or(|counts| counts.name != place.file) {
            self.files.push(Counts { name: place.file.to_owned(), ..Counts::default() });
        }
        let Some(counts) = self.files.last_mut() else { return };
        counts.lines += 1;
        let link = match self.verifier.line(line) {
            Ok(link) => link,
            Err(broken) => return self.broken = Some(format!("{place}: {broken}")),
        };
        match link {
            Link::Torn if ended => counts.torn += 1,
            Link::Torn => counts.unfinished = true,
            Link::Begins(_) => counts.chains += 1,
            Link::Enters(_) => counts.enters = true,
            Link::Follows(_) => {}
        }
        if let Ok(Line::Event(Event::Lost { count })) = Line::read(line) {
            counts.lost += count;
        }
        counts.head = self.verifier.head();
        self.prove(place, link);
    }

    /// Notes what the line proves: with what is before it, its digest; alone, nothing.
    fn prove(&mut self, place: &log::Place<'_>, link: Link) {
        let head = match link {
            Link::Torn => return,
            Link::Enters(head) => {
                self.unproven = Some(place.to_string());
                return self.is_claimed = self.wanted == Some(head);
            }
            Link::Begins(head) => {
                self.since = Some(place.to_string());
                head
            }
            Link::Follows(head) => head,
        };
        let since = self.since.get_or_insert_with(|| place.to_string());
        if self.first.is_none() {
            self.first = Some(since.clone());
        }
        if self.wanted == Some(head) {
            self.found = Some(format!("{since} to {place}"));
        }
    }

    fn conclude(&self) -> Conclusion {
        let Some(head) = self.verifier.head() else {
            let why = self.broken.as_deref().unwrap_or("there is no line with a digest in what was given");
            return Conclusion::Unreadable(format!(
                "{why}\n  to do: set `decision_log: {{chain: true}}` or start the sidecar with --audit-chain"
            ));
        };
        if let Some(broken) = &self.broken {
            return Conclusion::Broken(broken.clone());
        }
        if self.wanted.is_some() && self.found.is_none() {
            return Conclusion::Broken(self.not_found());
        }
        let from = match (&self.unproven, &self.first) {
            (None, _) => String::new(),
            (Some(unproven), Some(first)) => format!(
                " from {first} on (its chain began in a file that is not given: nothing proves {unproven}, nor what was before)"
            ),
            (Some(unproven), None) => {
                return Conclusion::Unreadable(format!(
                    "nothing is proven: {unproven} is the only line with a digest, and what leads to it is not given\n  \
                     to do: give the file before it, too"
                ));
            }
        };
        let contains = self.found.iter().map(|lines| {
            format!(", and contains the head that was asked for: {lines} are as they were when it was the head")
        });
        Conclusion::Intact(format!("intact{from}{}; head {head}\n", contains.collect::<String>()))
    }

    fn not_found(&self) -> String {
        match &self.unproven {
            Some(unproven) if self.is_claimed => format!(
                "the head that was asked for is only at {unproven}, the first line that is given: nothing leads to it, so that \
                 anything may have been written there\n  to do: give the file before it, too, or ask for a later head"
            ),
            _ => "the head that was asked for is not in the log: its end was cut off or written anew, or this is another log"
                .to_owned(),
        }
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
        more("the chain began in a file that is not given (nothing proves the first line)".to_owned());
    }
    if let Some(head) = counts.head {
        more(format!("head {head}"));
    }
    text + "\n"
}

#[cfg(test)]
mod tests;
