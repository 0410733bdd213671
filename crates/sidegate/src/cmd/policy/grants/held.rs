//! What a server lets logins do, asked of its catalogs.
//!
//! Of PostgreSQL's own schemas only what somebody granted counts: what everyone has there from the start, the sidecar knows. Absent:
//! types, large objects, foreign servers, and functions that only a trigger can call. A privilege counts if the schema may be used, too.

use policy::grants::{Held, Login, Privilege, Standing, Target, compare};
use tokio_postgres::{Client, Row};

use super::Found;

/// `l` is the login. What is beyond privileges, in words.
const STANDING: &str = "
select l.oid, l.rolcanlogin, l.rolsuper, array_remove(array[
    case when l.rolcreatedb then 'it creates databases' end,
    case when l.rolcreaterole then 'it creates roles' end,
    case when l.rolreplication then 'it replicates, and so reads all data' end,
    case when l.rolbypassrls then 'row-level security does not bind it' end,
    case when has_database_privilege(l.oid, current_database(), 'CREATE') then 'it creates schemas in this database' end
  ], null) || array(
    select format('it is a member of %I, and can become it', r.rolname) from pg_roles r
    where not l.rolsuper and r.oid <> l.oid and pg_has_role(l.oid, r.oid, 'MEMBER')
      and r.rolname <> 'pg_database_owner' and r.rolname::text <> all ($2::text[]) order by 1)
  || array(
    select distinct format('it may grant %s on %s to others', lower(a.privilege_type), o.what) from (
      select c.oid::regclass::text as what, c.relacl as acl from pg_class c
      union all select format('%s (%I)', t.attrelid::regclass, t.attname), t.attacl from pg_attribute t
      union all select p.oid::regprocedure::text, p.proacl from pg_proc p
      union all select format('schema %I', n.nspname), n.nspacl from pg_namespace n
      union all select format('database %I', d.datname), d.datacl from pg_database d where d.datname = current_database()
    ) o, aclexplode(o.acl) a
    where a.is_grantable and not l.rolsuper and pg_has_role(l.oid, a.grantee, 'MEMBER') order by 1)
from pg_roles l where l.rolname = $1";

/// Reasons, most telling first. `OWNER` and `ACL` are a thing's.
const WHY: &str = "case
    when OWNER = $1::oid then 'it is the owner'
    when exists (select from aclexplode(ACL) a where a.grantee = $1::oid and a.privilege_type = PRIVILEGE) then 'granted to it'
    when pg_has_role($1::oid, OWNER, 'USAGE') then format('it is a member of the owner, %I', pg_get_userbyid(OWNER))
    when exists (select from aclexplode(ACL) a where a.grantee = 0 and a.privilege_type = PRIVILEGE) then 'granted to PUBLIC'
    else coalesce(
      (select 'granted to ' || quote_ident(pg_get_userbyid(min(a.grantee::int8)::oid)) || ', of which it is a member' from aclexplode(ACL) a
       where a.grantee <> 0 and a.privilege_type = PRIVILEGE and pg_has_role($1::oid, a.grantee, 'USAGE')),
      (select 'it is a member of ' || r.rolname from pg_roles r where pg_has_role($1::oid, r.oid, 'USAGE') and r.rolname =
       case PRIVILEGE when 'SELECT' then 'pg_read_all_data' when 'INSERT' then 'pg_write_all_data'
       when 'UPDATE' then 'pg_write_all_data' when 'DELETE' then 'pg_write_all_data' end),
      'granted on columns') end";

/// Whether the login has something that was not there when the cluster was made. Of `information_schema` PostgreSQL does not
/// keep what that was: PUBLIC reads its views.
const GIVEN: &str = "STORED is not null and exists (select from aclexplode(ACL) a
    where a.privilege_type = PRIVILEGE and a.grantee <> OWNER and (a.grantee = 0 and n.nspname <> 'information_schema' or a.grantee <> 0 and pg_has_role($1::oid, a.grantee, 'MEMBER'))
    and not exists (select from aclexplode(coalesce((select i.initprivs from pg_init_privs i
      where i.objoid = OBJECT and i.classoid = 'CLASS'::regclass and i.objsubid = 0), acldefault(KIND, OWNER))) b
      where b.grantee = a.grantee and b.privilege_type = a.privilege_type))";

const RELATIONS: &str = "
select n.nspname, c.relname, p.name,
  has_schema_privilege($1::oid, n.oid, 'USAGE') and has_table_privilege($1::oid, c.oid, p.name),
  has_schema_privilege($1::oid, n.oid, 'USAGE') and (has_table_privilege($1::oid, c.oid, p.name)
    or case when p.name in ('SELECT', 'INSERT', 'UPDATE', 'REFERENCES') then has_any_column_privilege($1::oid, c.oid, p.name) else false end),
  WHY
from pg_class c join pg_namespace n on n.oid = c.relnamespace
cross join unnest(array['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'TRIGGER', 'REFERENCES', 'MAINTAIN']) p (name)
where c.relkind in ('r', 'p', 'v', 'm', 'f') and (p.name <> 'MAINTAIN' or current_setting('server_version_num')::int >= 170000)
  and (n.nspname !~ '^pg_' and n.nspname <> 'information_schema' or GIVEN)";

const SEQUENCES: &str = "
select n.nspname, c.relname, feeds.schemas, feeds.tables, p.name, has_sequence_privilege($1::oid, c.oid, p.name), WHY
from pg_class c join pg_namespace n on n.oid = c.relnamespace
cross join unnest(array['SELECT', 'UPDATE', 'USAGE']) p (name)
cross join lateral (
  select coalesce(array_agg(tn.nspname::text), '{}') as schemas, coalesce(array_agg(t.relname::text), '{}') as tables
  from pg_depend s join pg_attrdef d on d.oid = s.objid join pg_class t on t.oid = d.adrelid
  join pg_namespace tn on tn.oid = t.relnamespace
  where s.classid = 'pg_attrdef'::regclass and s.refclassid = 'pg_class'::regclass and s.refobjid = c.oid) feeds
where c.relkind = 'S' and n.nspname !~ '^pg_'";

const FUNCTIONS: &str = "
select n.nspname, f.proname, pg_get_function_identity_arguments(f.oid),
  array(select o.oprname::text from pg_operator o where o.oprcode::oid = f.oid order by 1),
  has_schema_privilege($1::oid, n.oid, 'USAGE') and has_function_privilege($1::oid, f.oid, 'EXECUTE'),
  WHY
from pg_proc f join pg_namespace n on n.oid = f.pronamespace
where (n.nspname !~ '^pg_' and n.nspname <> 'information_schema' or GIVEN)
  and f.prorettype not in ('trigger'::regtype, 'event_trigger'::regtype)";

const SCHEMAS: &str = "
select n.nspname, has_schema_privilege($1::oid, n.oid, 'CREATE'), WHY
from pg_namespace n where n.nspname !~ '^pg_' and n.nspname <> 'information_schema'";

/// Where each login and the policy disagree in this database.
pub(super) async fn differences(client: &Client, logins: &[&Login]) -> anyhow::Result<Vec<Found>> {
    let database: String = client.query_one("select current_database()::text", &[]).await?.try_get(0)?;
    let mut found = Vec::new();
    for login in logins {
        let row = client.query_opt(STANDING, &[&login.name, &login.memberships()]).await?;
        let standing = row.as_ref().map(standing).transpose()?;
        let held = match &row {
            Some(row) => held(client, row.try_get(0)?).await?,
            None => Vec::new(),
        };
        let differences = compare(login, &database, standing.as_ref(), &held);
        found.extend(differences.into_iter().map(|difference| Found { database: database.clone(), difference }));
    }
    Ok(found)
}

fn standing(row: &Row) -> anyhow::Result<Standing> {
    Ok(Standing { can_log_in: row.try_get(1)?, is_superuser: row.try_get(2)?, powers: row.try_get(3)? })
}

async fn held(client: &Client, login: u32) -> anyhow::Result<Vec<Held>> {
    let mut held = Vec::new();
    for row in client.query(&with_why(RELATIONS, "c.relowner", "c.relacl", "'r'", "p.name"), &[&login]).await? {
        let privilege =
            Privilege { name: row.try_get(2)?, whole: row.try_get(3)?, part: row.try_get(4)?, why: row.try_get(5)? };
        held.push(Held { schema: row.try_get(0)?, target: Target::Relation(row.try_get(1)?), privilege });
    }
    for row in client.query(&with_why(SEQUENCES, "c.relowner", "c.relacl", "'s'", "p.name"), &[&login]).await? {
        let (schemas, tables): (Vec<String>, Vec<String>) = (row.try_get(2)?, row.try_get(3)?);
        let target = Target::Sequence { name: row.try_get(1)?, feeds: schemas.into_iter().zip(tables).collect() };
        let name: String = row.try_get(4)?;
        held.push(Held { schema: row.try_get(0)?, target, privilege: undivided(&name, &row, 5)? });
    }
    for row in client.query(&with_why(FUNCTIONS, "f.proowner", "f.proacl", "'f'", "'EXECUTE'"), &[&login]).await? {
        let target = Target::Function { name: row.try_get(1)?, arguments: row.try_get(2)?, operators: row.try_get(3)? };
        held.push(Held { schema: row.try_get(0)?, target, privilege: undivided("EXECUTE", &row, 4)? });
    }
    for row in client.query(&with_why(SCHEMAS, "n.nspowner", "n.nspacl", "'n'", "'CREATE'"), &[&login]).await? {
        held.push(Held { schema: row.try_get(0)?, target: Target::Schema, privilege: undivided("CREATE", &row, 1)? });
    }
    Ok(held)
}

/// A privilege that there is on the whole or not at all, from a column and the reason behind it.
fn undivided(name: &str, row: &Row, column: usize) -> anyhow::Result<Privilege> {
    let has = row.try_get(column)?;
    Ok(Privilege { name: name.to_owned(), whole: has, part: has, why: row.try_get(column + 1)? })
}

/// Nothing granted or revoked yet means the defaults of the kind.
fn with_why(query: &str, owner: &str, acl: &str, kind: &str, privilege: &str) -> String {
    let stored = acl;
    let acl = format!("coalesce({stored}, acldefault({kind}, {owner}))");
    let why = WHY.replace("OWNER", owner).replace("ACL", &acl).replace("PRIVILEGE", privilege);
    let (object, class) = if kind == "'f'" { ("f.oid", "pg_proc") } else { ("c.oid", "pg_class") };
    let given = GIVEN.replace("STORED", stored).replace("OBJECT", object).replace("CLASS", class).replace("KIND", kind);
    let given = given.replace("OWNER", owner).replace("ACL", &acl).replace("PRIVILEGE", privilege);
    query.replace("WHY", &why).replace("GIVEN", &given)
}
