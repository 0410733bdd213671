//! How long things live in the demo: as in production, or short enough to watch them being renewed.

use clap::Args;

/// The longest that a new signing key or authority is published before it signs, as in production.
const KEY_LEAD: u32 = 120;
const AUTHORITY_LEAD: u32 = 3600;

/// Times as arguments.
#[derive(Args)]
pub struct Clocks {
    /// How long access tokens live, from 5s to 1h.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = |text: &str| seconds(text, 5, 3600))]
    pub token_ttl: u32,
    /// How long the sidecars' certificates live, from 10s to 1d; they are renewed at half of it.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = |text: &str| seconds(text, 10, DAY))]
    pub certificate_ttl: u32,
    /// How often the issuer takes a new signing key, from 10s to 365d.
    #[arg(long, value_name = "TIME", default_value = "1d", value_parser = |text: &str| seconds(text, 10, 365 * DAY))]
    pub key_rotation: u32,
    /// How often the issuer takes a new certificate authority, from 10s to 3650d.
    #[arg(long, value_name = "TIME", default_value = "365d", value_parser = |text: &str| seconds(text, 10, 3650 * DAY))]
    pub authority_rotation: u32,
}

const DAY: u32 = 24 * 60 * 60;

impl Clocks {
    /// How long a new signing key is published before it signs.
    pub fn key_lead(&self) -> u32 {
        KEY_LEAD.min(self.key_rotation / 2)
    }

    /// The same for a new authority.
    pub fn authority_lead(&self) -> u32 {
        AUTHORITY_LEAD.min(self.authority_rotation / 2)
    }
}

/// Seconds, from a number with the unit `s`, `m`, `h` or `d`.
fn seconds(text: &str, least: u32, most: u32) -> Result<u32, String> {
    let units = [('s', 1), ('m', 60), ('h', 3600), ('d', DAY)];
    let unit = units.into_iter().find_map(|(name, unit)| text.strip_suffix(name).map(|number| (number, unit)));
    let (number, unit) = unit.unwrap_or((text, 1));
    let seconds = number.parse::<u32>().ok().and_then(|number| number.checked_mul(unit));
    let fits = |seconds: &u32| (least..=most).contains(seconds);
    seconds.filter(fits).ok_or_else(|| format!("want a time from {least}s to {most}s, like 20s, 5m, 1h or 1d"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units_and_bounds() {
        for (text, expected) in [("20s", 20), ("20", 20), ("5m", 300), ("1h", 3600)] {
            assert_eq!(seconds(text, 5, 3600), Ok(expected), "{text}");
        }
        for text in ["", "s", "4s", "2h", "-5s", "5x", "99999999999s", "1d"] {
            assert!(seconds(text, 5, 3600).is_err(), "{text}");
        }
    }
}
