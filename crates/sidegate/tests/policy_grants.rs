//! `sidegate policy grants`: what it prints, applied to a real PostgreSQL, leaves nothing to differ; and what somebody changes
//! there by hand is told, with the reason.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use testkit::Demo;

const PROGRAM: &str = env!("CARGO_BIN_EXE_sidegate");

/// Roles with usual names, with odd ones, and for another database.
const DOCUMENTS: &str = r#"
apiVersion: sidegate.dev/v1alpha1
kind: AccessRole
metadata: {namespace: postgres-b, name: orders-writer}
spec:
  service: postgres-b
  postgres:
    user: app_orders_writer
    rules: [{actions: [select, insert], tables: [public.orders, public.items]}, {actions: [insert], tables: [public.log]}]
---
apiVersion: sidegate.dev/v1alpha1
kind: AccessRole
metadata: {namespace: postgres-b, name: odd}
spec:
  service: postgres-b
  postgres:
    user: 'we"ird; drop\'
    rules:
      - {actions: [select, delete], tables: ['Überall.tab''le 1', 'select.*']}
      - {actions: [execute], functions: ['Überall.Fun$ction']}
---
apiVersion: sidegate.dev/v1alpha1
kind: AccessRole
metadata: {namespace: postgres-b, name: elsewhere}
spec:
  service: postgres-b
  postgres: {user: app_elsewhere, database: [not_shop], rules: [{actions: [select], tables: [public.orders]}]}
"#;

const ODD: &str = r#"
create schema "Überall"; create schema "select";
create table "Überall"."tab'le 1" (a int); create table "select"."from" (a serial);
create function "Überall"."Fun$ction"(int) returns int language sql return 1;
create function "Überall"."Fun$ction"(text) returns int language sql return 1;
"#;

struct Shop {
    demo: Demo,
    roles: TempDir,
}

impl Shop {
    fn open() -> Self {
        let demo = Demo::start_without_prometheus(PROGRAM);
        let roles = tempfile::tempdir().unwrap();
        fs::write(roles.path().join("roles.yaml"), DOCUMENTS).unwrap();
        let shop = Self { demo, roles };
        shop.sql(ODD);
        shop
    }

    /// As the superuser, on PostgreSQL's own socket; the first error ends it.
    fn sql(&self, text: &str) -> String {
        let socket = self.demo.socket_dir("postgres-b");
        let arguments = ["-XAtq", "-v", "ON_ERROR_STOP=1", "-h", socket, "-U", "postgres", "-d", "shop"];
        let mut psql = Command::new("psql");
        psql.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = psql.spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stderr).unwrap() + &String::from_utf8(output.stdout).unwrap()
    }

    fn grants(&self, more: &[&str]) -> Output {
        let roles = self.roles.path().to_str().unwrap();
        let fixed = ["policy", "grants", "--service", "postgres-b", "--roles-dir", roles, "--users"];
        let mut command = Command::new(PROGRAM);
        command.args(fixed).arg("reader=app_reader,writer=app_writer,owner=app_owner,admin=app_admin").args(more);
        command.output().unwrap()
    }

    fn script(&self) -> String {
        let output = self.grants(&[]);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// `login way privilege object why`, a line each.
    fn differences(&self) -> Vec<String> {
        let dsn = format!("host={} user=postgres dbname=shop", self.demo.socket_dir("postgres-b"));
        let output = self.grants(&["--diff", "--json", "--database", &dsn]);
        let text = String::from_utf8(output.stdout).unwrap();
        let lines = text.lines().map(|line| {
            let one: Value = serde_json::from_str(line).unwrap();
            assert_eq!(one["database"], "shop");
            let field = |name: &str| one[name].as_str().unwrap().to_owned();
            ["login", "way", "privilege", "object", "why"].map(field).join(" ")
        });
        let lines: Vec<String> = lines.collect();
        let expected = if lines.is_empty() { 0 } else { 3 };
        assert_eq!(output.status.code(), Some(expected), "{}", String::from_utf8_lossy(&output.stderr));
        lines
    }
}

#[test]
fn what_is_printed_makes_both_locks_alike() {
    let shop = Shop::open();
    let before = shop.differences();
    for line in [
        r#"we"ird; drop\ less  we"ird; drop\ there is no such login"#,
        "app_elsewhere less  app_elsewhere there is no such login",
        "app_orders_writer less insert public.log the privilege is missing",
        r#"app_reader less select select.from the privilege is missing"#,
    ] {
        assert!(before.iter().any(|one| one == line), "{line}\n{}", before.join("\n"));
    }
    // New functions are PUBLIC's, which the script leaves as it is, and says so.
    let of_public = |one: &&String| one.contains(" execute ") && one.ends_with("granted to PUBLIC");
    let script = shop.script();
    for _ in 0..2 {
        shop.sql(&script);
        let left: Vec<String> = shop.differences().iter().filter(|one| !of_public(one)).cloned().collect();
        assert_eq!(left, Vec::<String>::new());
    }
    shop.sql(r#"revoke execute on all functions in schema "Überall" from public"#);
    assert_eq!(shop.differences(), Vec::<String>::new());

    // The rights are there: the login does what its rules open, and nothing else.
    let odd = r#"set session authorization "we""ird; drop\";"#;
    shop.sql(&format!(
        r#"{odd} select * from "Überall"."tab'le 1"; delete from "select"."from"; select "Überall"."Fun$ction"(1);"#
    ));
    shop.sql(
        "set session authorization app_orders_writer; insert into log (msg) values ('a sequence gives its number');",
    );
    let hides = |login: &str, text: &str| {
        shop.sql(&format!(
            "set session authorization {login}; do $$ begin {text}; raise 'let in'; exception when insufficient_privilege then null; end $$"
        ));
    };
    hides(r#""we""ird; drop\""#, r#"insert into "select"."from" values (1)"#);
    hides("app_orders_writer", "perform * from customers");
    hides("app_reader", "insert into orders (note) values ('')");
    hides("app_writer", "truncate orders");
}

#[test]
fn what_somebody_changed_is_told_with_the_reason() {
    let shop = Shop::open();
    shop.sql(&shop.script());
    shop.sql(r#"revoke execute on all functions in schema "Überall" from public"#);
    assert_eq!(shop.differences(), Vec::<String>::new());
    let changes = [
        (
            "grant update on orders to app_reader",
            "revoke update on orders from app_reader",
            "app_reader more update public.orders granted to it",
        ),
        (
            "grant update (note) on orders to app_reader",
            "revoke update (note) on orders from app_reader",
            "app_reader more update public.orders granted on columns",
        ),
        (
            "grant delete on log to public",
            "revoke delete on log from public",
            "app_reader more delete public.log granted to PUBLIC",
        ),
        (
            "revoke insert on log from app_orders_writer",
            "grant insert on log to app_orders_writer",
            "app_orders_writer less insert public.log the privilege is missing",
        ),
        (
            "alter table log owner to app_reader",
            "alter table log owner to app_owner",
            "app_reader more truncate public.log it is the owner",
        ),
        (
            "alter role app_reader superuser",
            "alter role app_reader nosuperuser",
            "app_reader more  app_reader it is a superuser, whom no privilege binds",
        ),
        (
            "alter role app_writer bypassrls",
            "alter role app_writer nobypassrls",
            "app_writer more  app_writer row-level security does not bind it",
        ),
        (
            "alter role app_reader nologin",
            "alter role app_reader login",
            "app_reader less  app_reader it may not log in",
        ),
        (
            "grant create on schema public to app_writer",
            "revoke create on schema public from app_writer",
            "app_writer more create public granted to it",
        ),
        (
            "grant pg_execute_server_program to app_reader",
            "revoke pg_execute_server_program from app_reader",
            "app_reader more  app_reader it is a member of pg_execute_server_program, and can become it",
        ),
        (
            "grant app_owner to app_reader",
            "revoke app_owner from app_reader",
            "app_reader more insert public.log it is a member of the owner, app_owner",
        ),
        (
            "create role team; grant update on log to team; grant team to app_reader",
            "drop owned by team; drop role team",
            "app_reader more update public.log granted to team, of which it is a member",
        ),
        (
            "create function public.shout() returns int language sql return 1",
            "drop function public.shout()",
            "app_reader more execute public.shout() granted to PUBLIC",
        ),
        (
            "grant trigger on orders to app_reader",
            "revoke trigger on orders from app_reader",
            "app_reader more trigger public.orders granted to it",
        ),
        (
            "grant references (note) on orders to app_reader",
            "revoke references (note) on orders from app_reader",
            "app_reader more references public.orders granted on columns",
        ),
        (
            "grant select on orders to app_reader with grant option",
            "revoke select on orders from app_reader",
            "app_reader more  app_reader it may grant select on public.orders to others",
        ),
        (
            "grant execute on function pg_read_file(text) to app_reader",
            "revoke execute on function pg_read_file(text) from app_reader",
            "app_reader more execute pg_catalog.pg_read_file(text) granted to it",
        ),
        (
            "grant select on pg_authid to public",
            "revoke select on pg_authid from public",
            "app_orders_writer more select pg_catalog.pg_authid granted to PUBLIC",
        ),
        (
            "grant pg_write_all_data to app_reader; alter role app_reader noinherit",
            "revoke pg_write_all_data from app_reader; alter role app_reader inherit",
            "app_reader more  app_reader it is a member of pg_write_all_data, and can become it",
        ),
        (
            "grant update on sequence log_id_seq to app_orders_writer",
            "revoke update on sequence log_id_seq from app_orders_writer",
            "app_orders_writer more update public.log_id_seq granted to it",
        ),
        (
            "revoke usage on sequence log_id_seq from app_orders_writer",
            "grant usage on sequence log_id_seq to app_orders_writer",
            "app_orders_writer less usage public.log_id_seq the privilege is missing",
        ),
        ("create sequence later", "drop sequence later", "app_writer less usage public.later the privilege is missing"),
        (
            "drop table items cascade",
            "create table items (a int); grant select, insert on items to app_orders_writer",
            "app_orders_writer less insert public.items the relation is not there",
        ),
        (
            "revoke usage on schema \"select\" from \"we\"\"ird; drop\\\"",
            "grant usage on schema \"select\" to \"we\"\"ird; drop\\\"",
            "we\"ird; drop\\ less delete select.from the privilege is missing",
        ),
    ];
    for (change, back, told) in changes {
        shop.sql(change);
        let found = shop.differences();
        assert!(found.iter().any(|one| one == told), "{change}: {told}\n{}", found.join("\n"));
        shop.sql(back);
        assert_eq!(shop.differences(), Vec::<String>::new(), "after {back}");
    }
}

#[test]
fn what_somebody_changed_the_script_sets_right() {
    let shop = Shop::open();
    let script = shop.script();
    shop.sql(&script);
    shop.sql(r#"revoke execute on all functions in schema "Überall" from public"#);
    for change in [
        "alter role app_reader noinherit superuser nologin",
        "grant all on orders to app_reader with grant option; grant create on schema public to app_reader",
        "create role team; grant select, update (msg) on log to team with grant option; set role team;
         grant select, update (msg) on log to app_orders_writer",
        "grant pg_write_all_data, app_owner to app_reader; grant execute on function pg_read_file(text) to app_reader",
        "revoke all on sequence log_id_seq from app_orders_writer; create sequence later",
    ] {
        shop.sql(change);
        assert_ne!(shop.differences(), Vec::<String>::new(), "{change}");
        shop.sql(&script);
        assert_eq!(shop.differences(), Vec::<String>::new(), "after {change}");
    }
}

#[test]
fn the_demo_has_both_locks_alike() {
    let demo = Demo::start_without_prometheus(PROGRAM);
    for service in ["postgres-a", "postgres-b"] {
        let dsn = format!("host={} user=postgres dbname=shop", demo.socket_dir(service));
        let documents = demo.dir().join("documents");
        let config = demo.dir().join(format!("config/{service}.yaml"));
        let mut command = Command::new(PROGRAM);
        command.args(["policy", "grants", "--service", service, "--diff", "--database", &dsn]);
        let output = command.arg("--roles-dir").arg(&documents).arg("--config").arg(&config).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "{text}{}", String::from_utf8_lossy(&output.stderr));
        assert!(text.contains("app_owner: not compared") && text.ends_with("differences: 0\n"), "{text}");
    }
}

#[test]
fn what_cannot_be_answered_is_told() {
    let roles = tempfile::tempdir().unwrap();
    let grants = |arguments: &[&str]| {
        let fixed = ["policy", "grants", "--roles-dir", roles.path().to_str().unwrap(), "--service"];
        let output = Command::new(PROGRAM).args(fixed).args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let fails = |arguments: &[&str], why: &str| {
        let (code, stderr) = grants(arguments);
        assert!(code == Some(2) && stderr.contains(why), "{code:?} {stderr}");
    };
    fails(&["postgres-b"], "--users ROLE=LOGIN");
    fails(&["postgres-b", "--users", "reader=a,reader=b"], "named twice");
    fails(&["postgres-b", "--users", "reader=public"], "no login of its own");
    fails(&["postgres-b", "--users", "reader=a", "--diff"], "--database");
    fails(
        &["postgres-b", "--users", "reader=a", "--diff", "--database", "host=127.0.0.1 port=1 user=x"],
        "cannot connect to",
    );
    fails(&["postgres-b", "--config", "/nowhere"], "cannot read /nowhere");
}
