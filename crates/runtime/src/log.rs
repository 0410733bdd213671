//! The log for people and collectors, on standard error: text on a terminal, JSON elsewhere. Standard output belongs
//! to the decision log.
//!
//! Absent on purpose: files and rotation (the platform's affair), and traces.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// Text for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The level is no level and no filter.
    #[error("{0:?} is no log level; use error, warn, info, debug or trace, or a filter like info,sidecar=debug")]
    Level(String),
    /// There can be one log a process.
    #[error("the log was set up before")]
    Twice,
}

/// Sends everything from `level` up (or what a filter like `info,sidecar=debug` lets through) to standard error.
pub fn init(format: Format, level: &str) -> Result<(), LogError> {
    let filter = EnvFilter::try_new(level).map_err(|_| LogError::Level(level.to_owned()))?;
    let terminal = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let json = match format {
        Format::Auto => !terminal,
        Format::Text => false,
        Format::Json => true,
    };
    let result = if json {
        builder.json().flatten_event(true).with_current_span(false).try_init()
    } else {
        builder.with_ansi(terminal).with_target(false).compact().try_init()
    };
    result.map_err(|_| LogError::Twice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_level_says_what_is_right() {
        let error = init(Format::Text, "info,sidecar=lots").unwrap_err().to_string();
        assert!(error.contains("debug"), "{error}");
    }
}
