//! Directories as the platform: versions, conflicts, and documents that are edited one by one.

use std::fs;

use super::*;

const TWO: &str = "\
# Who may do what.
apiVersion: sidegate.dev/v1alpha1
kind: AccessRole
metadata: {namespace: b, name: one}
spec:
  service: b
  postgres: {user: one, rules: [{actions: [select], tables: [public.orders]}]}
--- # the second
apiVersion: sidegate.dev/v1alpha1
kind: AccessGrant
metadata: {namespace: b, name: two}
spec:
  service: b
  subjects: [{serviceAccount: a, namespace: a}]
  roles: [one, reader]
";

fn platform() -> (tempfile::TempDir, Platform) {
    let dir = tempfile::tempdir().unwrap();
    let (settings, documents) = (dir.path().join("settings"), dir.path().join("documents"));
    fs::create_dir_all(settings.join("b")).unwrap();
    fs::create_dir_all(&documents).unwrap();
    fs::write(documents.join("b.yaml"), TWO).unwrap();
    (dir, Platform::Directories(Directories::new(settings, documents)))
}

fn grant() -> At {
    At::Existing { namespace: "b".to_owned(), kind: Kind::Grant, name: "two".to_owned() }
}

#[test]
fn of_two_who_set_the_same_one_is_told() {
    let (_dir, platform) = platform();
    let before = platform.settings("b").unwrap();
    assert!(before.values.is_empty() && before.meaning.sign);
    let after = platform.set("b", &before.version, &[(VERIFY, "observe")]).unwrap();
    assert_eq!(after.meaning.verify, runtime::settings::Verify::Observe);
    assert!(matches!(platform.set("b", &before.version, &[(VERIFY, "false")]), Err(WriteError::Conflict)));
    assert_eq!(platform.settings("b").unwrap().values[VERIFY], "observe");
    assert!(platform.set("b", &after.version, &[(VERIFY, "true"), (SIGN, "false")]).is_ok());
    assert_eq!(platform.namespaces().unwrap().into_iter().collect::<Vec<_>>(), ["b"]);
}

#[test]
fn no_name_leads_out_of_the_directory() {
    let (_dir, platform) = platform();
    for name in ["..", "", "a/b", "../b", ".hidden", "A", "a..b"] {
        assert!(platform.settings(name).is_err() && platform.set(name, "", &[]).is_err(), "{name}");
    }
}

#[test]
fn an_edit_leaves_all_else_byte_for_byte() {
    let (_dir, platform) = platform();
    let part = platform.documents().unwrap().part("b", Kind::Grant, "two").unwrap();
    assert!(part.text.starts_with("apiVersion") && part.start_line == 8, "{part:?}");
    let text = part.text.replace("[one, reader]", "[one]");
    platform.save(&grant(), &part.version, &text).unwrap();
    let file = platform.documents().unwrap().sources[0].text.clone();
    assert_eq!(file, TWO.replace("[one, reader]", "[one]"));
    assert!(matches!(platform.save(&grant(), &part.version, &text), Err(WriteError::Conflict)));
}

#[test]
fn what_does_not_compile_is_not_saved_and_told_by_its_own_lines() {
    let (_dir, platform) = platform();
    let part = platform.documents().unwrap().part("b", Kind::Grant, "two").unwrap();
    let text = part.text.replace("reader", "raeder");
    let Err(WriteError::Documents(errors)) = platform.save(&grant(), &part.version, &text) else { panic!() };
    assert_eq!(errors[0].place.line, 7, "{errors:?}");
    assert!(errors[0].what.contains("raeder"), "{errors:?}");
    assert_eq!(platform.documents().unwrap().sources[0].text, TWO);
    // A role that a grant names cannot go before the grant does.
    let role = At::Existing { namespace: "b".to_owned(), kind: Kind::Role, name: "one".to_owned() };
    let version = platform.documents().unwrap().part("b", Kind::Role, "one").unwrap().version;
    assert!(matches!(platform.save(&role, &version, ""), Err(WriteError::Documents(_))));
}

#[test]
fn documents_come_and_go() {
    let (dir, platform) = platform();
    let text = "apiVersion: sidegate.dev/v1alpha1\nkind: AccessGrant\nmetadata: {namespace: b, name: three}\n\
                spec: {service: b, subjects: [{serviceAccount: c, namespace: c}], roles: [reader]}";
    platform.save(&At::Named, &version(b""), text).unwrap();
    assert!(dir.path().join("documents/b-three.yaml").exists());
    assert!(matches!(platform.save(&At::Named, &version(b""), text), Err(WriteError::Conflict)), "it is there by now");
    let three = At::Existing { namespace: "b".to_owned(), kind: Kind::Grant, name: "three".to_owned() };
    let part = platform.documents().unwrap().part("b", Kind::Grant, "three").unwrap();
    platform.save(&three, &part.version, "").unwrap();
    assert!(!dir.path().join("documents/b-three.yaml").exists(), "a file without documents is gone");
    let part = platform.documents().unwrap().part("b", Kind::Grant, "two").unwrap();
    platform.save(&grant(), &part.version, "").unwrap();
    let left = &platform.documents().unwrap().sources[0].text;
    assert_eq!(*left, TWO.split_once("--- #").unwrap().0);
}

#[test]
fn of_several_documents_each_goes_to_its_place() {
    let (_dir, platform) = platform();
    let (role, _) = TWO.split_once("--- #").unwrap();
    let new = "apiVersion: sidegate.dev/v1alpha1\nkind: AccessGrant\nmetadata: {namespace: b, name: four}\n\
               spec: {service: b, subjects: [{serviceAccount: d, namespace: d}], roles: [one]}\n";
    let text = format!("{}---\n{new}", role.replace("[select]", "[select, insert]"));
    let draft = platform.draft(&At::Named, &text).unwrap();
    assert!(matches!(platform.save(&At::Named, &version(b""), &text), Err(WriteError::Conflict)), "one is there");
    platform.save(&At::Named, &draft.version, &text).unwrap();
    let sources = platform.documents().unwrap().sources;
    assert_eq!(sources[0].path, "b-four.yaml");
    assert_eq!(sources[0].text, new);
    assert_eq!(sources[1].text, TWO.replace("[select]", "[select, insert]"));
}

#[test]
fn what_cannot_be_told_apart_is_complained_of_and_not_lost() {
    let (_dir, platform) = platform();
    let (role, _) = TWO.split_once("--- #").unwrap();
    for rest in ["---\nkind: [", "---\nno document\n", "---\nkind: Secret\nmetadata: {name: x}\n"] {
        let refused = platform.draft(&At::Named, &format!("{role}{rest}"));
        assert!(matches!(refused, Err(WriteError::Documents(_))), "{rest}");
    }
}
