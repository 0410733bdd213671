//! Directories of documents that change, and files that cannot be read.

use super::*;
use std::os::unix::fs::symlink;
use std::time::Duration;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(3);

fn names(files: &[File]) -> Vec<&str> {
    files.iter().map(|f| f.path.as_str()).collect()
}

async fn until(receiver: &mut watch::Receiver<Arc<Vec<File>>>, what: impl Fn(&[File]) -> bool) {
    let found = timeout(SOON, receiver.wait_for(|f| what(f))).await.map(|r| drop(r.unwrap()));
    found.unwrap_or_else(|_| panic!("not in time; now {:?}", names(&receiver.borrow())));
}

#[test]
fn reads_documents_below_sorted_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    fs::create_dir_all(root.join("team/.git")).unwrap();
    for name in
        ["b.yaml", "a.yml", "c.json", "README.md", ".b.yaml.swp", ".hidden.yaml", "team/d.yaml", "team/.git/e.yaml"]
    {
        fs::write(root.join(name), name).unwrap();
    }
    assert_eq!(names(&read(root).unwrap()), ["a.yml", "b.yaml", "c.json", "team/d.yaml"]);
}

#[test]
fn everything_unreadable_is_named_at_once() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("latin.yaml"), [0xff, 0xfe]).unwrap();
    symlink("/nonexistent", dir.path().join("dangling.yaml")).unwrap();
    let error = read(dir.path()).unwrap_err().to_string();
    assert!(error.contains("latin.yaml") && error.contains("dangling.yaml"), "{error}");
    assert!(watch(dir.path().join("absent")).is_err(), "a cold start on nothing refuses");
}

#[test]
fn a_circle_of_links_ends() {
    let dir = tempfile::tempdir().unwrap();
    symlink(dir.path(), dir.path().join("again")).unwrap();
    assert!(read(dir.path()).is_err());
}

#[tokio::test]
async fn follows_files_and_directories_below() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let mut receiver = watch(root.to_owned()).unwrap();
    assert!(receiver.borrow().is_empty());
    fs::write(root.join("a.yaml"), "1").unwrap();
    until(&mut receiver, |f| names(f) == ["a.yaml"]).await;
    fs::create_dir(root.join("team")).unwrap();
    fs::write(root.join("team/b.yaml"), "1").unwrap();
    until(&mut receiver, |f| names(f) == ["a.yaml", "team/b.yaml"]).await;
    fs::write(root.join("team/b.yaml"), "22").unwrap();
    until(&mut receiver, |f| f.iter().any(|f| f.text == "22")).await;
    fs::remove_file(root.join("a.yaml")).unwrap();
    until(&mut receiver, |f| names(f) == ["team/b.yaml"]).await;
}

#[tokio::test]
async fn follows_a_mounted_config_map() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let put = |version: &str, text: &str| {
        fs::create_dir(root.join(version)).unwrap();
        fs::write(root.join(version).join("a.yaml"), text).unwrap();
        symlink(version, root.join("..tmp")).unwrap();
        fs::rename(root.join("..tmp"), root.join("..data")).unwrap();
    };
    put("..1", "one");
    symlink("..data/a.yaml", root.join("a.yaml")).unwrap();
    let mut receiver = watch(root.to_owned()).unwrap();
    assert_eq!(names(&receiver.borrow()), ["a.yaml"], "each document once, not again behind the links");
    put("..2", "two");
    until(&mut receiver, |f| f.len() == 1 && f[0].text == "two").await;
}

#[tokio::test]
async fn an_unreadable_file_leaves_the_last_reading_in_force() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.yaml"), "1").unwrap();
    let mut receiver = watch(dir.path().to_owned()).unwrap();
    receiver.mark_unchanged();
    fs::write(dir.path().join("b.yaml"), [0xff]).unwrap();
    fs::write(dir.path().join("a.yaml"), "2").unwrap();
    assert!(timeout(Duration::from_millis(400), receiver.changed()).await.is_err());
    fs::remove_file(dir.path().join("b.yaml")).unwrap();
    until(&mut receiver, |f| f.len() == 1 && f[0].text == "2").await;
    fs::remove_dir_all(dir.path()).unwrap();
    assert!(timeout(Duration::from_millis(400), receiver.changed()).await.is_err(), "gone is not empty");
}
