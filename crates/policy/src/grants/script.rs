//! The rights of logins as a text for `psql`: first what they have is taken, then what the policy says is given.
//!
//! One transaction, so nobody ever sees a login without its rights; a second run ends where the first did. A relation or
//! function that is not there is a WARNING and not an error, since one script serves every database of a service.
//! Absent: CASCADE (a right that a login has passed on ends it with PostgreSQL's error), and what is granted to PUBLIC, which is
//! other logins' too; comments and `--diff` tell.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use identity::ServiceName;

use super::quote::{array, block, comment, literal, name, qualified};
use super::{Login, Name, Rights, is_system};
use crate::role::Level;

/// Logins: no more than what the grants say, and no password, since the sidecar comes over the Unix socket.
const ATTRIBUTES: &str = "LOGIN INHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS";

/// The statements that make PostgreSQL's rights match the policy, for every database of the service.
#[must_use]
pub fn script(service: &ServiceName, logins: &[Login]) -> String {
    let mut text = comment(&format!("Rights of PostgreSQL's own that match the policy of {service}: the second lock."));
    text += HEAD;
    let (beyond, expressed): (Vec<&Login>, Vec<&Login>) = logins.iter().partition(|login| login.beyond().is_some());
    for login in beyond {
        let level = login.beyond().map_or("", Level::name);
        text += &comment(&format!(
            "{}: left as it is. Sessions of the built-in role {level} run as it, and what that may do (create, alter, \
             drop) is not a matter of GRANT: it owns the objects, or is a superuser.",
            name(&login.name)
        ));
    }
    if expressed.is_empty() {
        return text + "-- There is nothing to grant: no role of this service names a login.\n";
    }
    text += BEGIN;
    expressed.iter().for_each(|login| text += &create(login));
    text += &take(&expressed);
    expressed.iter().for_each(|login| text += &give(login));
    text + "\nCOMMIT;\n"
}

const HEAD: &str = "\
-- Run it in each database of the service, as a superuser or as the owner of all that it names:
--   psql -X -v ON_ERROR_STOP=1 -d DATABASE -f THIS_FILE
-- What is granted to PUBLIC is left, as it is other logins' too. PostgreSQL lets PUBLIC connect to databases and EXECUTE
-- new functions. Where nobody else counts on that:
--   REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA public FROM PUBLIC;
--   ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
";

const BEGIN: &str = "
BEGIN;
SET LOCAL search_path = pg_catalog;
SET LOCAL client_min_messages = notice;
";

fn create(login: &Login) -> String {
    let roles: Vec<&str> =
        login.levels.iter().map(|level| level.name()).chain(login.roles.iter().map(String::as_str)).collect();
    let user = name(&login.name);
    let mut text = "\n".to_owned() + &comment(&format!("{user}: {}", roles.join(", ")));
    if login.shared || (!login.levels.is_empty() && !login.roles.is_empty()) {
        text += &comment(
            "Roles with different rules share this login: here each has what any has. One login a role is tighter.",
        );
    }
    let stored = literal(&login.name);
    text + &block(&format!(
        "BEGIN\n  IF current_user = {stored} OR session_user = {stored} THEN\n    RAISE EXCEPTION USING MESSAGE = {};\n  END IF;\n  \
           IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {stored}) THEN\n    CREATE ROLE {user} {ATTRIBUTES};\n  \
           ELSIF EXISTS (SELECT FROM pg_roles WHERE rolname = {stored} AND (NOT rolcanlogin OR NOT rolinherit OR rolsuper OR rolcreatedb\n      \
           OR rolcreaterole OR rolreplication OR rolbypassrls)) THEN\n    ALTER ROLE {user} {ATTRIBUTES};\n  END IF;\nEND\n",
        literal(&format!("sidegate: this takes rights from {user}, so run it as somebody else"))
    ))
}

/// Takes all that is granted to the logins themselves, wherever it is; what they own they keep, and that is told.
fn take(logins: &[&Login]) -> String {
    let names = array(logins.iter().map(|login| login.name.as_str()));
    "\n-- REVOKE all that the logins have here, and every membership: what follows is all that they shall have.\n"
        .to_owned()
        + &block(&TAKE.replace("LOGINS", &names))
}

/// Names come from the catalogs, quoted by `format`; only what is granted is revoked, so a second run changes nothing.
const TAKE: &str = "\
DECLARE
  login record;
  thing record;
  before text := current_setting('role');
BEGIN
  FOR login IN SELECT oid, rolname FROM pg_roles WHERE rolname = ANY (LOGINS) ORDER BY rolname LOOP
    FOR thing IN
      SELECT DISTINCT what, CASE WHEN grantor <> owner AND pg_has_role(grantor, 'MEMBER') THEN pg_get_userbyid(grantor) END AS other FROM (
        SELECT format('%s %s', CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.oid::regclass) AS what,
          c.relowner AS owner, a.grantor, a.grantee FROM pg_class c, aclexplode(c.relacl) a WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
        UNION ALL SELECT format('TABLE %s', c.oid::regclass), c.relowner, a.grantor, a.grantee
          FROM pg_class c JOIN pg_attribute t ON t.attrelid = c.oid, aclexplode(t.attacl) a
        UNION ALL SELECT format('ROUTINE %s', p.oid::regprocedure), p.proowner, a.grantor, a.grantee FROM pg_proc p, aclexplode(p.proacl) a
        UNION ALL SELECT format('SCHEMA %I', n.nspname), n.nspowner, a.grantor, a.grantee FROM pg_namespace n, aclexplode(n.nspacl) a
        UNION ALL SELECT format('DATABASE %I', d.datname), d.datdba, a.grantor, a.grantee FROM pg_database d, aclexplode(d.datacl) a
          WHERE d.datname = current_database()) held
      WHERE grantee = login.oid AND owner <> login.oid ORDER BY what, other
    LOOP
      -- Who had it with grant option and passed it on must take it back. Whom the runner cannot become is left, and --diff tells.
      PERFORM set_config('role', coalesce(thing.other, before), true);
      EXECUTE format('REVOKE ALL ON %s FROM %I', thing.what, login.rolname);
      PERFORM set_config('role', before, true);
    END LOOP;
    FOR thing IN SELECT r.rolname, CASE WHEN current_setting('server_version_num')::int >= 160000 AND pg_has_role(m.grantor, 'USAGE')
        THEN format(' GRANTED BY %I', pg_get_userbyid(m.grantor)) END AS granted_by
      FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid WHERE m.member = login.oid ORDER BY r.rolname, granted_by
    LOOP
      EXECUTE format('REVOKE %I FROM %I%s', thing.rolname, login.rolname, thing.granted_by);
    END LOOP;
    IF EXISTS (SELECT FROM pg_shdepend WHERE refclassid = 'pg_authid'::regclass AND refobjid = login.oid AND deptype = 'o') THEN
      RAISE WARNING 'sidegate: % owns objects, which no REVOKE takes from it: give them to another role (REASSIGN OWNED)', login.rolname;
    END IF;
  END LOOP;
END
";

fn give(login: &Login) -> String {
    let user = name(&login.name);
    let mut text = "\n".to_owned() + &comment(&format!("What {user} may."));
    if !login.levels.is_empty() {
        text += &give_level(&user, login.memberships());
    }
    for (databases, rights) in &login.rights {
        text += &give_rights(&user, databases, rights);
    }
    text
}

fn give_level(user: &str, memberships: &[&str]) -> String {
    let mut text = "-- PostgreSQL 14 or later.\n".to_owned();
    text += "-- This opens PostgreSQL's own tables, too, and so the hashes of passwords in pg_authid, which the sidecar keeps shut.\n";
    text += &block(&format!("BEGIN\n{}END\n", connect_here(user)));
    for role in memberships {
        let _ = writeln!(text, "GRANT {role} TO {user};");
    }
    if memberships.contains(&"pg_write_all_data") {
        text += &block(&WRITER_SEQUENCES.replace("LOGIN", user));
    }
    text
}

/// What `pg_write_all_data` does not give: numbers from sequences.
const WRITER_SEQUENCES: &str = "\
DECLARE
  thing record;
BEGIN
  FOR thing IN SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' ORDER BY 1 LOOP
    EXECUTE format('GRANT USAGE, SELECT, UPDATE ON ALL SEQUENCES IN SCHEMA %I TO %s', thing.nspname, $login$LOGIN$login$);
  END LOOP;
END
";

fn connect_here(user: &str) -> String {
    format!("  EXECUTE format('GRANT CONNECT ON DATABASE %I TO %s', current_database(), {});\n", literal(user))
}

fn give_rights(user: &str, databases: &BTreeSet<String>, rights: &Rights) -> String {
    let mut text = String::new();
    let mut body = String::new();
    if databases.is_empty() {
        body += &connect_here(user);
    } else {
        let only = array(databases.iter().map(String::as_str));
        text +=
            &comment(&format!("Only in the databases {}.", databases.iter().cloned().collect::<Vec<_>>().join(", ")));
        body +=
            &format!("  IF current_database() <> ALL ({only}) THEN\n    RETURN;\n  END IF;\n{}", connect_here(user));
    }
    for schema in rights.schemas() {
        body +=
            &guarded("to_regnamespace", &name(schema), &format!("GRANT USAGE ON SCHEMA {} TO {user};", name(schema)));
    }
    for (relation, privileges) in &rights.relations {
        let privileges: Vec<&str> = super::RELATION_PRIVILEGES.into_iter().filter(|p| privileges.contains(p)).collect();
        let (notes, grants) = give_relation(user, relation, &privileges);
        text += &notes;
        body += &grants;
    }
    if rights.functions.iter().any(gives_numbers) {
        text += "-- PostgreSQL wants a right on the sequence, too, and no rule says which: GRANT USAGE (setval: UPDATE) ON SEQUENCE yourself,\n\
                 -- after this, which takes it again at each run.\n";
    }
    for function in &rights.functions {
        body += &give_function(user, function);
    }
    text + &block(&format!("DECLARE\n  thing record;\nBEGIN\n{body}END\n"))
}

fn give_relation(user: &str, (schema, relation): &Name, privileges: &[&str]) -> (String, String) {
    let list = privileges.join(", ");
    let sequences =
        if privileges.contains(&"INSERT") { sequences(user, schema, relation.as_deref()) } else { String::new() };
    let Some(relation) = relation else {
        if is_system(schema) {
            return (comment(&format!("{schema}.*: left as it is, as these are PostgreSQL's own.")), String::new());
        }
        let notes =
            comment("Tables that somebody makes later are not among them: run this again, or, as whoever makes them,")
                + &comment(&format!(
                    "ALTER DEFAULT PRIVILEGES IN SCHEMA {} GRANT {list} ON TABLES TO {user};",
                    name(schema)
                ));
        let mut grant = format!("GRANT {list} ON ALL TABLES IN SCHEMA {} TO {user};", name(schema));
        if privileges.contains(&"SELECT") {
            let _ = write!(grant, "\n    GRANT SELECT ON ALL SEQUENCES IN SCHEMA {} TO {user};", name(schema));
        }
        return (notes, guarded("to_regnamespace", &name(schema), &grant) + &sequences);
    };
    let relation = qualified(schema, relation);
    let grant = format!("GRANT {list} ON TABLE {relation} TO {user};");
    (String::new(), guarded("to_regclass", &relation, &grant) + &sequences)
}

/// A statement for a thing that may not be there.
fn guarded(lookup: &str, thing: &str, statement: &str) -> String {
    let warning = literal(&format!("sidegate: {thing} is not in this database, nothing of it is granted"));
    format!(
        "  IF {lookup}({}) IS NULL THEN\n    RAISE WARNING USING MESSAGE = {warning};\n  ELSE\n    {statement}\n  END IF;\n",
        literal(thing)
    )
}

/// The sequences that defaults of columns take their numbers from; identity columns need no right of their own.
fn sequences(user: &str, schema: &str, relation: Option<&str>) -> String {
    let one = relation.map(|relation| format!(" AND t.relname = {}", literal(relation))).unwrap_or_default();
    format!(
        "  FOR thing IN SELECT DISTINCT s.oid::regclass AS what FROM pg_class t JOIN pg_attrdef d ON d.adrelid = t.oid\n      \
         JOIN pg_depend p ON p.classid = 'pg_attrdef'::regclass AND p.objid = d.oid AND p.refclassid = 'pg_class'::regclass\n      \
         JOIN pg_class s ON s.oid = p.refobjid AND s.relkind = 'S'\n      \
         WHERE t.relnamespace = to_regnamespace({}){one} ORDER BY 1\n  LOOP\n    \
         EXECUTE format('GRANT USAGE ON SEQUENCE %s TO %s', thing.what, {});\n  END LOOP;\n",
        literal(&name(schema)),
        literal(user)
    )
}

/// Whether it is one of the functions that take a sequence as an argument.
fn gives_numbers((schema, function): &Name) -> bool {
    let known = ["nextval", "currval", "lastval", "setval"];
    schema == "pg_catalog" && function.as_deref().is_none_or(|name| known.contains(&name))
}

/// All functions of a name, and those behind operators of it.
fn give_function(user: &str, (schema, function): &Name) -> String {
    if function.is_none() && is_system(schema) {
        return String::new();
    }
    let namespace = format!("to_regnamespace({})", literal(&name(schema)));
    let one = function.as_ref().map(|function| {
        let stored = literal(function);
        format!(
            "\n      AND (p.proname = {stored} OR p.oid IN (SELECT o.oprcode::oid FROM pg_operator o\n        \
             WHERE o.oprname = {stored} AND o.oprnamespace = {namespace}))"
        )
    });
    // The function behind an operator may live in another schema.
    let within = match &one {
        Some(_) => format!(
            "(p.pronamespace = {namespace} OR p.oid IN (SELECT o.oprcode::oid FROM pg_operator o WHERE o.oprnamespace = {namespace}))"
        ),
        None => format!("p.pronamespace = {namespace}"),
    };
    let said = qualified(schema, function.as_deref().unwrap_or("*"));
    let warning = literal(&format!("sidegate: no function {said} in this database, nothing of it is granted"));
    format!(
        "  FOR thing IN SELECT p.oid::regprocedure AS what FROM pg_proc p WHERE {within}{}\n      ORDER BY p.oid::regprocedure::text\n  LOOP\n    \
         EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO %s', thing.what, {});\n  END LOOP;\n  \
         IF NOT FOUND THEN\n    RAISE WARNING USING MESSAGE = {warning};\n  END IF;\n",
        one.unwrap_or_default(),
        literal(user)
    )
}
