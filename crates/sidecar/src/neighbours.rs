//! Who else listens in this network namespace: whatever does is a way round the sidecar, if it leads to the database.
//!
//! A pod's containers share their network, so a sidecar sees every TCP listener of its pod in `/proc/net`, without any
//! right. Its own are known by their descriptors, and left out. It is looked at when metrics are read, and at no other time.
//! Deliberately absent: an opinion. `sidegate check` knows the pod, and says what each port means.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Read;
use std::path::Path;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

/// Ports that are named. A pod has a handful; of more, `sidegate_foreign_listener_ports` tells how many there are.
const PORTS_MAX: usize = 64;
/// A line is 150 bytes; tables also have the open connections, of which a busy sidecar may have ten thousands.
const TABLE_MAX: u64 = 16 << 20;
/// The state of a socket that listens, as the kernel writes it.
const LISTENS: &str = "0A";

/// Where a foreign listener can be reached from.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    /// From other pods.
    Network,
    /// From the containers of this pod.
    Loopback,
}

/// Shows foreign listeners to Prometheus.
#[derive(Debug)]
pub(crate) struct Neighbours;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PortLabels {
    port: u16,
    reach: &'static str,
}

impl Collector for Neighbours {
    /// Without a look at the tables there is no metric: nothing seen must not look like nothing there.
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let Some(foreign) = foreign_listeners(Path::new("/proc")) else { return Ok(()) };
        let count: Gauge = Gauge::default();
        count.set(i64::try_from(foreign.len()).unwrap_or(i64::MAX));
        let help = "TCP ports in this network namespace on which somebody else listens";
        count.encode(encoder.encode_descriptor("foreign_listener_ports", help, None, MetricType::Gauge)?)?;
        let each: Family<PortLabels, Gauge> = Family::default();
        for (port, reach) in foreign.into_iter().take(PORTS_MAX) {
            let reach = match reach {
                Reach::Network => "network",
                Reach::Loopback => "loopback",
            };
            each.get_or_create(&PortLabels { port, reach }).set(1);
        }
        let help = "1 for each such port, and whether it can be reached from other pods or from this one only";
        each.encode(encoder.encode_descriptor("foreign_listeners", help, None, MetricType::Gauge)?)
    }
}

/// The ports with the widest reach of each; none if it cannot be told.
fn foreign_listeners(proc: &Path) -> Option<BTreeMap<u16, Reach>> {
    let mut foreign = BTreeMap::new();
    // In this order: a listener that opens in between is taken for foreign, which the next look corrects.
    let own = own_sockets(&proc.join("self/fd"))?;
    let four = table(&proc.join("net/tcp"))?;
    // A kernel without IPv6 has no second table.
    let six = table(&proc.join("net/tcp6")).unwrap_or_default();
    for (port, reach, inode) in four.lines().chain(six.lines()).filter_map(listener) {
        if !own.contains(&inode) {
            foreign.entry(port).and_modify(|known: &mut Reach| *known = reach.min(*known)).or_insert(reach);
        }
    }
    Some(foreign)
}

fn own_sockets(descriptors: &Path) -> Option<BTreeSet<u64>> {
    let links =
        std::fs::read_dir(descriptors).ok()?.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
    let inode = |link: std::path::PathBuf| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok();
    Some(links.filter_map(inode).collect())
}

/// All of a table; half of one would hide what is in the other half.
fn table(path: &Path) -> Option<String> {
    let mut text = String::new();
    let read = std::fs::File::open(path).ok()?.take(TABLE_MAX).read_to_string(&mut text).ok()?;
    (u64::try_from(read).ok()? < TABLE_MAX).then_some(text)
}

/// Port, reach and inode of a line: `sl local_address rem_address st queues timer retransmits uid timeout inode …`.
fn listener(line: &str) -> Option<(u16, Reach, u64)> {
    let mut words = line.split_ascii_whitespace();
    let (address, port) = words.nth(1)?.split_once(':')?;
    if words.nth(1)? != LISTENS {
        return None;
    }
    let inode = words.nth(5)?.parse().ok()?;
    let reach = if is_loopback(address) { Reach::Loopback } else { Reach::Network };
    Some((u16::from_str_radix(port, 16).ok()?, reach, inode))
}

/// Addresses are written as words of 32 bits, each in the machine's order of bytes.
fn is_loopback(address: &str) -> bool {
    let word = |index: usize| {
        let digits = address.get(index * 8..index * 8 + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    let words: Option<Vec<[u8; 4]>> = (0..address.len() / 8).map(word).collect();
    matches!(
        words.as_deref(),
        Some(
            [[127, ..]]
                | [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 255, 255], [127, ..]]
                | [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]]
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOUR: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
         0: 0100007F:1538 00000000:0000 0A 00000000:00000000 00:00000000 00000000   999        0 11 1 0 100 0 0 10 0\n\
         1: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000   999        0 12 1 0 100 0 0 10 0\n\
         2: 00000000:1539 00000000:0000 0A 00000000:00000000 00:00000000 00000000 65532        0 13 1 0 100 0 0 10 0\n\
         3: 0100007F:9C40 0100007F:1538 01 00000000:00000000 00:00000000 00000000   999        0 14 1 0 100 0 0 10 0\n";
    const SIX: &str = "  sl  local_address                         remote_address\n\
         0: 00000000000000000000000000000000:1538 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000 999 0 21 1 0\n\
         1: 00000000000000000000000001000000:1B9E 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000 999 0 22 1 0\n\
         2: 0000000000000000FFFF00000100007F:1B9F 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000 999 0 23 1 0\n";

    fn proc(four: &str, six: Option<&str>) -> tempfile::TempDir {
        let proc = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(proc.path().join("net")).unwrap();
        std::fs::create_dir_all(proc.path().join("self/fd")).unwrap();
        std::os::unix::fs::symlink("socket:[13]", proc.path().join("self/fd/7")).unwrap();
        std::os::unix::fs::symlink("/dev/null", proc.path().join("self/fd/0")).unwrap();
        std::fs::write(proc.path().join("net/tcp"), four).unwrap();
        if let Some(six) = six {
            std::fs::write(proc.path().join("net/tcp6"), six).unwrap();
        }
        proc
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn foreign_listeners_are_told_with_their_widest_reach() {
        let found = foreign_listeners(proc(FOUR, Some(SIX)).path()).unwrap();
        let expected =
            [(5432, Reach::Network), (7070, Reach::Loopback), (7071, Reach::Loopback), (8080, Reach::Network)];
        assert_eq!(found.into_iter().collect::<Vec<_>>(), expected);
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn a_kernel_without_ipv6_is_no_trouble() {
        let found = foreign_listeners(proc(FOUR, None).path()).unwrap();
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [(5432, Reach::Loopback), (8080, Reach::Network)]);
    }

    #[test]
    fn what_cannot_be_seen_is_not_taken_for_empty() {
        let proc = proc(FOUR, None);
        std::fs::remove_file(proc.path().join("net/tcp")).unwrap();
        assert!(foreign_listeners(proc.path()).is_none());
    }

    #[test]
    fn of_the_real_tables_a_foreign_listener_is_seen_and_an_own_one_is_not() {
        let own = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = own.local_addr().unwrap().port();
        assert!(!foreign_listeners(Path::new("/proc")).unwrap().contains_key(&port));
        let registry = runtime::metrics::Metrics::new();
        registry.register_collector(Neighbours);
        let text = registry.encode(runtime::metrics::Format::Text);
        assert!(text.contains("\nsidegate_foreign_listener_ports "), "{text}");
    }
}
