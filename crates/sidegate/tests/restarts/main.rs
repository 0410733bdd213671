//! Pods come and go: whoever connects while a sidecar, the issuer or PostgreSQL is away waits and gets in, whoever is to be
//! refused is refused at once, and a sidecar that is told to end lets finish what has begun.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::net::TcpListener;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use testkit::http::{Http, request};
use testkit::raw::Raw;

use world::{NOW, SLACK, World, ask, free_port, last, outlines};

mod world;

/// Each of them connects, asks once and leaves, over and over; gives how many logins there were.
fn clients_see_no_refused_login(world: &World, meanwhile: impl FnOnce()) -> u32 {
    let (over, logins) = (AtomicBool::new(false), AtomicU32::new(0));
    let longest = Mutex::new(Duration::ZERO);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let started = Instant::now();
                    let mut raw = Raw::tcp(&format!("127.0.0.1:{}", world.outbound));
                    let seen = raw.log_in("reader", "shop", None);
                    assert_eq!(last(&seen), "ZI", "after {logins:?} logins: {seen:?}");
                    logins.fetch_add(1, Ordering::Relaxed);
                    let mut longest = longest.lock().unwrap();
                    *longest = longest.max(started.elapsed());
                    drop(longest);
                    // A session may break off when its sidecar is killed; a login may not fail.
                    raw.query("select 1");
                }
            });
        }
        let _over = Over(&over);
        meanwhile();
    });
    println!("{logins:?} logins, the longest {:?}", longest.lock().unwrap());
    logins.into_inner()
}

/// Lets the others end, even if the test does not hold.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn restarts_refuse_no_login() {
    let world = World::new();
    let mut inbound = world.start_inbound("");
    let _outbound = world.start_outbound("{}", "");
    world.log_in();
    let logins = clients_see_no_refused_login(&world, || {
        for signal in [Signal::TERM, Signal::KILL, Signal::TERM] {
            thread::sleep(NOW);
            inbound.signal(signal);
            inbound.ends_within(SLACK);
            thread::sleep(NOW);
            inbound = world.start_inbound("");
        }
        // PostgreSQL's end is its own way to say 57P01 and 57P03; the demo starts it again.
        for _ in 0..2 {
            thread::sleep(NOW);
            let servers = testkit::processes_naming("postgres-b");
            let dir = world.demo.dir().display().to_string();
            let is_server = |line: &str| line.contains(" -D ") && line.contains(&dir) && !line.contains("guard");
            let (pid, _) = servers.iter().find(|(_, line)| is_server(line)).unwrap_or_else(|| panic!("{servers:?}"));
            kill_process(Pid::from_raw(*pid).unwrap(), Signal::INT).unwrap();
            thread::sleep(NOW * 3);
        }
    });
    assert!(logins > 50, "{logins}");
}

#[test]
fn logins_wait_for_who_is_away_and_for_nobody_else() {
    let world = World::new();
    let mut inbound = world.start_inbound("");
    let mut outbound = world.start_outbound("{}", "");
    world.log_in();

    // PostgreSQL is away for 3 s: by its own protocol and over HTTP alike the connection waits.
    world.postgres_leaves();
    thread::scope(|scope| {
        let logins: Vec<_> = (0..3).map(|_| scope.spawn(|| world.try_to_log_in())).collect();
        thread::sleep(NOW * 3);
        world.postgres_comes();
        for login in logins {
            let (outline, took) = login.join().unwrap();
            assert_eq!(outline, "ZI");
            assert!(took >= NOW * 2 && took < NOW * 5 + SLACK, "{took:?}");
        }
    });

    // A client that leaves is not waited for, nor is anybody by a sidecar that ends.
    world.postgres_leaves();
    let mut left = world.raw();
    left.start(&[("user", "reader"), ("database", "shop")]);
    let mut stayed = world.raw();
    stayed.start(&[("user", "reader"), ("database", "shop")]);
    thread::sleep(NOW);
    drop(left);
    outbound.signal(Signal::TERM);
    assert_eq!(outlines(&stayed.finish_log_in(None)), "E57P03");
    outbound.ends_within(NOW + SLACK);

    // Nothing hangs for longer than it was told to.
    inbound.kill();
    inbound = world.start_inbound(", upstream_timeout: 1");
    outbound = world.start_outbound("{}", ", connect_timeout: 0");
    let (outline, took) = world.try_to_log_in();
    assert_eq!(outline, "E08006");
    assert!(took >= NOW && took < NOW * 2 + SLACK, "{took:?}");
    inbound.kill();
    let (outline, took) = world.try_to_log_in();
    assert_eq!(outline, "E08006");
    assert!(took < SLACK, "{took:?}");
    outbound.kill();
    outbound = world.start_outbound("{}", ", connect_timeout: 2");
    let (outline, took) = world.try_to_log_in();
    assert_eq!(outline, "E08006");
    assert!(took >= NOW && took < NOW * 2 + SLACK, "{took:?}");

    // A request whose connection cannot be made waits, too.
    outbound.kill();
    let _outbound = world.start_outbound("{}", "");
    drop(world.raw());
    thread::scope(|scope| {
        let url = format!("http://127.0.0.1:{}", world.http);
        let asked = scope.spawn(move || world_ask(&url));
        thread::sleep(NOW * 2);
        world.postgres_comes();
        // What answers there is no HTTP, so that it is certain that the request came through: it broke off behind.
        let _inbound = world.start_inbound("");
        let (status, took) = asked.join().unwrap();
        assert_eq!(status, 502);
        assert!(took >= NOW * 2, "{took:?}");
    });

    // Whoever is refused for a reason of right hears it at once: no grant.
    let mut raw = Raw::tcp(world.demo.outbound("service-b", "postgres-a"));
    let started = Instant::now();
    assert_eq!(last(&raw.log_in("reader", "shop", None)), "E28000");
    assert!(started.elapsed() < SLACK, "{:?}", started.elapsed());
}

fn world_ask(url: &str) -> (u16, Duration) {
    let started = Instant::now();
    let mut http = Http::connect(url, std::path::Path::new("/"));
    http.send(&request("GET", "/", &[], b""));
    (http.answer().expect("an answer").status, started.elapsed())
}

/// Whoever starts before the issuer waits for its first token and certificate.
#[test]
fn logins_wait_for_the_issuer() {
    let world = World::new();
    let _inbound = world.start_inbound("");
    let head = world.head("service-a");
    let issuer = head.lines().find_map(|line| line.split("http://").nth(1)).unwrap();
    let issuer = issuer.split(['"', ',', '}']).next().unwrap().to_owned();
    let door = free_port();
    let head = head.replace(&issuer, &format!("127.0.0.1:{door}"));
    let _outbound = world.start_outbound_with(&head, "{}", "");
    drop(world.raw());
    thread::scope(|scope| {
        let login = scope.spawn(|| world.try_to_log_in());
        thread::sleep(NOW * 3);
        let open = TcpListener::bind(("127.0.0.1", door)).unwrap();
        thread::spawn(move || forward(&open, &issuer));
        let (outline, took) = login.join().unwrap();
        assert_eq!(outline, "ZI");
        assert!(took >= NOW * 2 && took < NOW * 12, "{took:?}");
    });
}

fn forward(door: &TcpListener, to: &str) {
    for stream in door.incoming() {
        let (mut from, mut there) = (stream.unwrap(), std::net::TcpStream::connect(to).unwrap());
        let (mut from_again, mut there_again) = (from.try_clone().unwrap(), there.try_clone().unwrap());
        thread::spawn(move || std::io::copy(&mut from, &mut there));
        thread::spawn(move || std::io::copy(&mut there_again, &mut from_again));
    }
}

#[test]
fn who_is_told_to_end_lets_finish_what_has_begun() {
    let world = World::new();
    let mut inbound = world.start_inbound("");

    // The side of the application.
    let mut outbound = world.start_outbound("{delay: 2, timeout: 10}", "");
    let [mut idle, mut busy, mut open] = [world.log_in(), world.log_in(), world.log_in()];
    assert_eq!(testkit::within(SLACK, || world.ready().filter(|status| *status == 200)), Some(200));
    assert_eq!(last(&open.query("begin")), "ZT");
    // It waits for a lock, so that it runs for as long as it is meant to.
    let mut holder = world.admin();
    assert_eq!(last(&holder.query("begin; lock table orders in access exclusive mode")), "ZT");
    ask(&mut busy, "select count(*) from orders");
    outbound.signal(Signal::TERM);
    let told = Instant::now();
    assert_eq!(testkit::within(NOW, || world.ready().filter(|status| *status == 503)), Some(503));
    // Those who have not heard of it yet are served.
    assert_eq!(world.try_to_log_in().0, "ZI");
    assert_eq!(last(&idle.query("select 1")), "ZI");
    assert_eq!(outlines(&idle.read_to_end()), "E57P01");
    assert!(told.elapsed() >= NOW * 2 && told.elapsed() < NOW * 2 + SLACK, "{:?}", told.elapsed());
    assert!(world.ready() == Some(503), "that it drains is to be seen");
    assert_eq!(last(&open.query("select 1")), "ZT");
    assert_eq!(outlines(&open.query("commit")), "CCOMMIT ZI");
    assert_eq!(outlines(&open.read_to_end()), "E57P01");
    assert!(outbound.0.try_wait().unwrap().is_none(), "a statement is under way");
    assert_eq!(last(&holder.query("commit")), "ZI");
    assert_eq!(outlines(&busy.read_to_end()), "T D CSELECT 1 ZI E57P01");
    outbound.ends_within(NOW + SLACK);

    // The side of the database.
    let mut outbound = world.start_outbound("{}", "");
    let [mut idle, mut open] = [world.log_in(), world.log_in()];
    assert_eq!(last(&open.query("begin")), "ZT");
    inbound.signal(Signal::TERM);
    assert_eq!(outlines(&idle.read_to_end()), "E57P01");
    assert_eq!(outlines(&open.query("commit")), "CCOMMIT ZI");
    assert_eq!(outlines(&open.read_to_end()), "E57P01");
    inbound.ends_within(NOW + SLACK);

    // Nobody is there: the end comes at once. Somebody is, but was asked twice: then, too.
    let mut inbound = world.start_inbound("");
    let mut busy = world.log_in();
    assert_eq!(last(&holder.query("begin; lock table orders in access exclusive mode")), "ZT");
    ask(&mut busy, "select count(*) from orders");
    thread::sleep(NOW / 2);
    outbound.signal(Signal::TERM);
    thread::sleep(NOW / 2);
    assert!(outbound.0.try_wait().unwrap().is_none());
    outbound.signal(Signal::TERM);
    outbound.ends_within(NOW);
    assert_eq!(last(&holder.query("commit")), "ZI");
    inbound.signal(Signal::TERM);
    inbound.ends_within(NOW + SLACK);
}
