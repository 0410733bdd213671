//! The issuer is away: sessions and new connections go on while cached tokens last, and it comes back without a restart
//! of anybody. It is stopped by a signal that it cannot catch, so that its socket is there and nothing answers.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use testkit::Demo;
use testkit::raw::Raw;

fn issuer_processes(demo: &Demo) -> Vec<Pid> {
    let all = testkit::processes_naming(&demo.dir().display().to_string());
    let issuers = all.iter().filter(|(_, line)| line.contains("issuer") && !line.contains("guard"));
    let pids: Vec<Pid> = issuers.map(|(pid, _)| Pid::from_raw(*pid).unwrap()).collect();
    assert!(!pids.is_empty(), "{all:?}");
    pids
}

fn log_in(demo: &Demo) -> (String, String) {
    let mut raw = Raw::tcp(demo.outbound("service-a", "postgres-b"));
    let seen = raw.log_in("reader", "shop", None);
    let last = seen.last().expect("an answer");
    (last.outline(), last.field(b'D'))
}

#[test]
fn cached_tokens_carry_through_and_then_the_error_is_clear() {
    let demo = Demo::start_with(env!("CARGO_BIN_EXE_sidegate"), &["--token-ttl", "20s"]);
    let mut session = Raw::tcp(demo.outbound("service-a", "postgres-b"));
    session.log_in("reader", "shop", None);
    assert_eq!(log_in(&demo).0, "ZI");

    let issuers = issuer_processes(&demo);
    issuers.iter().for_each(|pid| kill_process(*pid, Signal::STOP).unwrap());
    let stopped = Instant::now();
    // A token of 20 s is renewed in time to leave at least 15.
    while stopped.elapsed() < Duration::from_secs(12) {
        assert_eq!(log_in(&demo).0, "ZI", "after {:?}", stopped.elapsed());
        assert_eq!(session.query("select 1").last().unwrap().outline(), "ZI");
        std::thread::sleep(Duration::from_millis(500));
    }
    let refused =
        testkit::within(Duration::from_secs(40), || Some(log_in(&demo)).filter(|(outline, _)| outline != "ZI"));
    let (outline, detail) = refused.expect("cached tokens end");
    assert_eq!(outline, "E28000");
    assert!(detail.contains("no token for postgres-b/postgres-b"), "{detail}");
    // The session's own token has run out, too, and nothing renewed it.
    let last = session.query("select 1");
    assert_eq!(last.last().map(testkit::raw::Message::outline).as_deref(), Some("E57P01"), "{last:?}");

    issuers.iter().for_each(|pid| kill_process(*pid, Signal::CONT).unwrap());
    let started = Instant::now();
    let back = testkit::within(Duration::from_secs(15), || Some(log_in(&demo).0).filter(|outline| outline == "ZI"));
    assert!(back.is_some(), "no recovery without a restart");
    assert!(started.elapsed() < Duration::from_secs(8), "recovery took {:?}", started.elapsed());
}
