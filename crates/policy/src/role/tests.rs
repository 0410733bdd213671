//! What makes a role unusable, and what it may hold.

use super::*;

fn rule(actions: &[&str], tables: &[&str], functions: &[&str]) -> Result<Role, RoleError> {
    let own = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
    let (actions, tables, functions) = (own(actions), own(tables), own(functions));
    Role::scoped("r", None, &[], &[(&actions, &tables, &functions)])
}

#[test]
fn understood() {
    assert!(rule(&["select", "truncate"], &["public.*"], &[]).is_ok());
    assert!(rule(&["select", "execute"], &["public.a"], &["s.f"]).is_ok());
    assert!(rule(&["select"], &["public.a b.c"], &[]).is_ok());
    assert!(rule(&["execute"], &[], &["public.*=*"]).is_ok());
}

#[test]
fn not_understood() {
    for (actions, tables, functions) in [
        (&["selct"][..], &["public.a"][..], &[][..]),
        (&["SELECT"], &["public.a"], &[]),
        (&[], &["public.a"], &[]),
        (&["select"], &[], &[]),
        (&["select"], &["a"], &[]),
        (&["select"], &["public."], &[]),
        (&["select"], &[".a"], &[]),
        (&["select"], &["*.*"], &[]),
        (&["select"], &["*"], &[]),
        (&["select"], &["public.a*"], &[]),
        (&["select"], &["public.\"A\""], &[]),
        (&["select"], &["public.a "], &[]),
        (&["execute"], &["public.a"], &[]),
        (&["select"], &[], &["public.f"]),
        (&["select"], &["public.a"], &["public.f"]),
        (&["ddl"], &["public.a"], &[]),
    ] {
        assert!(rule(actions, tables, functions).is_err(), "{actions:?} {tables:?} {functions:?}");
    }
    assert!(Role::scoped("reader", None, &[], &[]).is_err());
    assert!(Role::scoped("", None, &[], &[]).is_err());
}
