//! The console, opened in the browser of the person who started the demo, if there are both.
//!
//! Deliberately absent: what goes wrong with it, as the link is printed, too.

use std::io::{IsTerminal, stdout};
use std::process::Stdio;

use tokio::process::Command;

use super::files::{self, PRIVATE};
use super::layout::Layout;
use super::ready;

/// Opens it by a file that leads there: the link signs somebody in, and a command line is everybody's to read.
pub fn open(layout: &Layout) -> anyhow::Result<()> {
    let Some(opener) = opener() else { return Ok(()) };
    let page = layout.console_state().join("open.html");
    let link = ready::console_link(layout)?;
    files::replace(&page, format!("<meta http-equiv=refresh content=\"0;url={link}\">\n").as_bytes(), PRIVATE)?;
    let mut command = Command::new(opener);
    let _ = command.arg(&page).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    Ok(())
}

/// Desktops' own command for it, where a person looks at the output.
fn opener() -> Option<&'static str> {
    let has_screen = ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| std::env::var_os(name).is_some());
    match std::env::consts::OS {
        _ if !stdout().is_terminal() => None,
        "macos" => Some("open"),
        _ => has_screen.then_some("xdg-open"),
    }
}
