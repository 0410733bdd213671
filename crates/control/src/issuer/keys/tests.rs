use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::super::store::file::FileStore;
use super::super::stored_ring::Rotation;
use super::*;

const TIMING: Timing = Timing { period: 1000, lead: 100, life: 600 };

fn place() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys.json");
    (directory, path)
}

fn open(path: &Path) -> Result<SigningKeys, KeysError> {
    SigningKeys::signing(Box::new(FileStore::new(path)), TIMING)
}

fn now() -> i64 {
    runtime::clock::now()
}

fn active(keys: &SigningKeys, now: i64) -> String {
    keys.ring().active(now).id().to_owned()
}

#[test]
fn keys_are_made_once_and_kept_0600() {
    let (_directory, path) = place();
    let first = open(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let second = open(&path).unwrap();
    assert_eq!(first.jwks(now()), second.jwks(now()));
}

#[test]
fn issuers_that_start_at_once_share_one_key() {
    let (_directory, path) = place();
    let kids: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| active(&open(&path).unwrap(), now()))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(kids.windows(2).all(|pair| pair[0] == pair[1]), "{kids:?}");
}

#[test]
fn a_file_that_others_may_read_is_refused() {
    let (_directory, path) = place();
    open(&path).unwrap();
    for mode in [0o644, 0o640, 0o604, 0o620] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let error = open(&path).err().unwrap();
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }
}

fn damages(good: &str) -> Vec<String> {
    let version = format!("\"version\": {}", 2);
    vec![
        String::new(),
        "{}".to_owned(),
        r#"{"version":2,"keys":[]}"#.to_owned(),
        good[..good.len() / 2].to_owned(),
        good.replace(&version, "\"version\": 3"),
        good.replace("ES256", "HS256"),
        good.replacen("\"kid\": \"", "\"kid\": \"x", 1),
    ]
}

#[test]
fn a_damaged_file_is_refused_and_left_alone() {
    let (_directory, path) = place();
    open(&path).unwrap();
    let good = fs::read_to_string(&path).unwrap();
    for bad in damages(&good) {
        fs::write(&path, &bad).unwrap();
        let error = open(&path).err().unwrap();
        assert!(matches!(error, KeysError::Damaged { .. }), "{bad}: {error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), bad);
    }
}

#[test]
fn what_breaks_while_we_run_leaves_the_last_good_keys_and_is_not_overwritten() {
    let (_directory, path) = place();
    let keys = open(&path).unwrap();
    let good = fs::read_to_string(&path).unwrap();
    let (jwks, late) = (keys.jwks(now()), now() + 5000);
    for bad in damages(&good) {
        fs::write(&path, &bad).unwrap();
        // A rotation is due, too, and must not replace what it could not read.
        assert!(!keys.tick(late), "{bad}");
        assert_eq!((keys.jwks(now()), fs::read_to_string(&path).unwrap()), (jwks.clone(), bad));
    }
    fs::remove_file(&path).unwrap();
    assert!(!keys.tick(late) && !path.exists());
    fs::write(&path, &good).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    assert!(!keys.tick(late));
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    assert!(keys.tick(late));
    assert_eq!(keys.ring().published(late).count(), 2);
}

#[test]
fn a_file_of_version_1_is_taken_over() {
    let (_directory, path) = place();
    let keys = open(&path).unwrap();
    let kid = active(&keys, now());
    let old = fs::read_to_string(&path).unwrap().replace("\"version\": 2", "\"version\": 1");
    fs::write(&path, old).unwrap();
    let keys = open(&path).unwrap();
    assert_eq!(active(&keys, now()), kid);
    assert!(matches!(keys.rotate(now(), false).unwrap(), Rotation::Done(_)));
    assert!(fs::read_to_string(&path).unwrap().contains("\"version\": 2"));
    assert_eq!((active(&keys, now()), keys.ring().published(now()).count()), (kid, 2));
}

#[test]
fn a_rotation_waits_for_the_one_before_and_the_others_follow() {
    let (_directory, path) = place();
    let (one, two) = (open(&path).unwrap(), open(&path).unwrap());
    let (begin, first) = (now(), active(&one, now()));
    assert_eq!(one.rotate(begin, false).unwrap(), Rotation::Done(begin + 101));
    assert_eq!(two.rotate(begin + 1, false).unwrap(), Rotation::Pending(begin + 101));
    assert!(two.tick(begin + 1));
    assert_eq!((active(&one, begin + 100), active(&two, begin + 100)), (first.clone(), first.clone()));
    let second = active(&one, begin + 101);
    assert_ne!(second, first);
    assert_eq!(active(&two, begin + 101), second);
    assert_eq!(one.jwks(begin + 101), two.jwks(begin + 101));
    assert_eq!((one.jwks(begin + 701).0["keys"].as_array().unwrap().len(), one.jwks(0).1), (2, 50));
    assert_eq!(two.jwks(begin + 702).0["keys"].as_array().unwrap().len(), 1);
}

#[test]
fn of_many_that_find_a_rotation_due_one_rotates() {
    let (_directory, path) = place();
    open(&path).unwrap();
    let late = now() + 1000;
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert!(open(&path).unwrap().tick(late)));
        }
    });
    assert_eq!(open(&path).unwrap().ring().published(late).count(), 2);
}

#[test]
fn keys_do_not_pile_up() {
    let (_directory, path) = place();
    let keys = open(&path).unwrap();
    let mut now = now();
    for _ in 0..30 {
        now += 1001;
        assert!(keys.tick(now));
    }
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.matches("private_key").count() <= 2, "{text}");
    let keys = SigningKeys::signing(Box::new(FileStore::new(&path)), Timing { period: 1, lead: 1, life: i64::MAX / 4 })
        .unwrap();
    let refused = (0..100).find_map(|second| keys.rotate(now + 3 * second, false).err()).unwrap();
    assert!(matches!(refused, KeysError::TooMany { .. }), "{refused}");
}

#[test]
fn published_keys_have_no_private_half_and_the_first_signs() {
    let (_directory, path) = place();
    let keys = open(&path).unwrap();
    keys.rotate(now(), false).unwrap();
    let (jwks, first) = (keys.jwks(now()).0, active(&keys, now()));
    let set = identity::jwks::KeySet::parse(jwks.to_string().as_bytes()).unwrap();
    assert_eq!((set.len(), jwks["keys"][0]["kid"].as_str()), (2, Some(first.as_str())));
    assert!(set.contains(&first) && !jwks.to_string().contains("\"d\""));
}
