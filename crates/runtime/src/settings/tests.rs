//! Settings as people write them, and directories that change in every way we know of.

use super::*;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::follow;
use notify::RecursiveMode;
use tokio::time::timeout;

/// The goal is 250 ms; a machine that builds beside the tests gets some more.
const SOON: Duration = Duration::from_secs(2);

type Receiver = watch::Receiver<Arc<Settings>>;

async fn until(receiver: &mut Receiver, what: impl Fn(&Settings) -> bool) -> Settings {
    let found = timeout(SOON, receiver.wait_for(|s| what(s))).await;
    let found = found.map(|r| r.unwrap().as_ref().clone());
    found.unwrap_or_else(|_| panic!("not in time; now {:?}", receiver.borrow()))
}

fn read(reader: &mut Reader, directory: &Path) -> Settings {
    reader.read(mounted::values(directory), &Place::Directory(directory))
}

fn following(directory: &Path) -> Receiver {
    watch(Sources { directory: Some(directory.to_owned()), cluster: None }).unwrap()
}

fn once(files: &[(&str, &str)]) -> Settings {
    let dir = tempfile::tempdir().unwrap();
    for (key, value) in files {
        fs::write(dir.path().join(key), value).unwrap();
    }
    read(&mut Reader::new(), dir.path())
}

#[test]
fn values_are_taken_as_people_write_them() {
    for (text, verify) in [
        ("true", Verify::Enforce),
        ("false\n", Verify::Off),
        (" Observe\r\n", Verify::Observe),
        ("FALSE", Verify::Off),
        ("", Verify::Enforce),
        ("no", Verify::Enforce),
        ("0", Verify::Enforce),
        ("fal se", Verify::Enforce),
        ("\u{0}", Verify::Enforce),
    ] {
        assert_eq!(once(&[(VERIFY, text)]).verify, verify, "{text:?}");
    }
    for (text, sign) in [("False", false), ("true", true), ("observe", true), ("off", true)] {
        assert_eq!(once(&[(SIGN, text)]).sign, sign, "{text:?}");
    }
    assert_eq!(once(&[]), Settings::default());
}

#[test]
fn times_are_rfc_3339() {
    for (text, seconds) in [
        ("2026-01-31T12:00:00Z", Some(1_769_860_800)),
        ("2026-01-31T13:00:00+01:00\n", Some(1_769_860_800)),
        ("2026-01-31t12:00:00.5z", Some(1_769_860_801)),
        ("1769860800", None),
        ("2026-01-31", None),
        ("", None),
    ] {
        assert_eq!(once(&[(NOT_BEFORE, text)]).tokens_not_before, seconds, "{text:?}");
    }
}

#[test]
fn a_time_is_never_loosened_by_a_mistake() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("settings");
    let mut reader = Reader::new();
    assert_eq!(read(&mut reader, &path).tokens_not_before, None);
    fs::create_dir(&path).unwrap();
    fs::write(path.join(NOT_BEFORE), "2026-01-31T12:00:00Z").unwrap();
    let set = read(&mut reader, &path).tokens_not_before;
    assert!(set.is_some());
    fs::write(path.join(NOT_BEFORE), "yesterday").unwrap();
    assert_eq!(read(&mut reader, &path).tokens_not_before, set, "a value that is no time");
    fs::remove_dir_all(&path).unwrap();
    assert_eq!(read(&mut reader, &path).tokens_not_before, set, "the directory is gone");
    fs::create_dir(&path).unwrap();
    assert_eq!(read(&mut reader, &path).tokens_not_before, set, "an empty directory");
    fs::write(path.join(SIGN), "true").unwrap();
    assert_eq!(read(&mut reader, &path).tokens_not_before, None, "others are set, this one is not: somebody meant it");
}

#[test]
fn a_value_that_cannot_be_read_enforces() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join(VERIFY)).unwrap();
    fs::write(dir.path().join(SIGN), "x".repeat(mounted::MAX_VALUE as usize + 1)).unwrap();
    assert_eq!(read(&mut Reader::new(), dir.path()), Settings::default());
}

#[tokio::test]
async fn without_a_directory_nothing_ever_changes() {
    let mut receiver = watch(Sources::default()).unwrap();
    assert_eq!(**receiver.borrow(), Settings::default());
    assert!(timeout(Duration::from_millis(50), receiver.changed()).await.is_err(), "neither a change nor an end");
}

#[tokio::test]
async fn follows_plain_edits_and_renames() {
    let dir = tempfile::tempdir().unwrap();
    let verify = dir.path().join(VERIFY);
    fs::write(&verify, "true").unwrap();
    let mut receiver = following(dir.path());
    assert_eq!(receiver.borrow().generation, 1);
    fs::write(&verify, "observe").unwrap();
    assert_eq!(until(&mut receiver, |s| s.verify == Verify::Observe).await.generation, 2);
    let temporary = dir.path().join("tmp");
    fs::write(&temporary, "false").unwrap();
    fs::rename(&temporary, &verify).unwrap();
    until(&mut receiver, |s| s.verify == Verify::Off).await;
    fs::remove_file(&verify).unwrap();
    assert_eq!(until(&mut receiver, |s| s.verify == Verify::Enforce).await.generation, 4);
}

/// As the kubelet does: a new directory, a new link beside, renamed over `..data`.
fn swap(dir: &Path, number: usize, value: &str) {
    let name = format!("..2026_01_{number}");
    fs::create_dir(dir.join(&name)).unwrap();
    fs::write(dir.join(&name).join(VERIFY), value).unwrap();
    let old = fs::read_link(dir.join("..data")).ok();
    std::os::unix::fs::symlink(&name, dir.join("..data_tmp")).unwrap();
    fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
    if let Some(old) = old {
        fs::remove_dir_all(dir.join(old)).unwrap();
    }
}

#[tokio::test]
async fn follows_every_swap_of_the_data_link() {
    let dir = tempfile::tempdir().unwrap();
    swap(dir.path(), 0, "true");
    std::os::unix::fs::symlink(format!("..data/{VERIFY}"), dir.path().join(VERIFY)).unwrap();
    let mut receiver = following(dir.path());
    let mut times = Vec::new();
    for number in 1..=20 {
        let (text, verify) = if number % 2 == 0 { ("true", Verify::Enforce) } else { ("observe", Verify::Observe) };
        let begin = Instant::now();
        swap(dir.path(), number, text);
        until(&mut receiver, |s| s.verify == verify).await;
        times.push(begin.elapsed());
    }
    assert_eq!(receiver.borrow().generation, 21, "no swap has a state in between");
    times.sort();
    assert!(times[times.len() / 2] < Duration::from_millis(250), "{times:?}");
}

#[tokio::test]
async fn follows_a_directory_that_comes_late_goes_and_comes_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("not/yet");
    let mut receiver = following(&path);
    for _ in 0..3 {
        assert_eq!(receiver.borrow_and_update().verify, Verify::Enforce);
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join(VERIFY), "observe").unwrap();
        until(&mut receiver, |s| s.verify == Verify::Observe).await;
        fs::write(path.join(VERIFY), "false").unwrap();
        until(&mut receiver, |s| s.verify == Verify::Off).await;
        fs::remove_dir_all(&path).unwrap();
        until(&mut receiver, |s| s.verify == Verify::Enforce).await;
    }
    // Replaced as a whole, by renaming.
    fs::create_dir_all(&path).unwrap();
    let other = dir.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join(VERIFY), "observe").unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    fs::rename(&path, dir.path().join("old")).unwrap();
    fs::rename(&other, &path).unwrap();
    until(&mut receiver, |s| s.verify == Verify::Observe).await;
    fs::write(path.join(VERIFY), "false").unwrap();
    until(&mut receiver, |s| s.verify == Verify::Off).await;
}

#[tokio::test]
async fn rewriting_the_same_value_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let verify = dir.path().join(VERIFY);
    fs::write(&verify, "observe").unwrap();
    let mut receiver = following(dir.path());
    receiver.mark_unchanged();
    for _ in 0..20 {
        // Truncates, then writes, as shells do: there is an empty file in between.
        fs::write(&verify, "").unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
        fs::write(&verify, "observe").unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    fs::write(dir.path().join(SIGN), "false").unwrap();
    let after = until(&mut receiver, |s| !s.sign).await;
    assert_eq!((after.verify, after.generation), (Verify::Observe, 2));
}

#[tokio::test]
async fn the_thread_ends_with_the_last_receiver() {
    let dir = tempfile::tempdir().unwrap();
    let threads = || {
        let names = fs::read_dir("/proc/self/task")
            .unwrap()
            .filter_map(|t| fs::read_to_string(t.ok()?.path().join("comm")).ok());
        names.filter(|n| n.trim() == "gone-soon").count()
    };
    let (ended, wait) = std::sync::mpsc::channel::<()>();
    let mut first = true;
    follow::follow("gone-soon", dir.path().to_owned(), RecursiveMode::NonRecursive, move || {
        let _held = &ended;
        if std::mem::take(&mut first) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })
    .unwrap();
    // The channel closes when the closure is dropped, that is, when the thread ends; polling alone brings it there.
    assert_eq!(wait.recv_timeout(Duration::from_secs(10)), Err(std::sync::mpsc::RecvTimeoutError::Disconnected));
    let begin = Instant::now();
    while threads() > 0 {
        assert!(begin.elapsed() < SOON);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
