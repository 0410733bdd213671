// Neon's serverless driver, unmodified but for its endpoint, through both sidecars: fetch instead of a connection.
const assert = require("node:assert/strict");
const fs = require("node:fs");
const { neon, neonConfig, Pool, NeonDbError } = require("@neondatabase/serverless");

const ready = JSON.parse(fs.readFileSync(process.env.READY, "utf8"));
neonConfig.fetchEndpoint = (host) => `${ready.http[neonConfig.app ?? "service-a"][host]}/query`;

// The host names the service, the user the role; `app` is no role, so it is the one that is granted.
const reader = neon("postgresql://reader@postgres-b/shop");
const writer = neon("postgresql://app@postgres-a/shop");
const uuid = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}";

async function rejected(promise) {
  const error = await promise.then(() => assert.fail("it was not refused"), (error) => error);
  assert.ok(error instanceof NeonDbError, error);
  return error;
}

async function templates_and_queries() {
  const minimum = 3;
  assert.equal((await reader`select count(*)::int as n from public.orders where id >= ${minimum}`)[0].n > 0, true);
  assert.deepEqual(await reader.query("select $1::int + $2::int as sum", [20, 22]), [{ sum: 42 }]);
  assert.deepEqual(await reader`select ${reader.unsafe("1 as one")}`, [{ one: 1 }]);
  assert.deepEqual(await reader`select 1 as one where false`, []);
}

async function parameters_of_many_types() {
  const date = new Date("2026-02-03T04:05:06.789Z");
  const [row] = await reader.query(
    `select $1::int4 as int4, $2::float8 as float8, $3::text as text, $4::text as nothing, $5::jsonb as json, $6::int[] as ints,
            $7::text[] as texts, $8::bytea as bytea, $9::timestamptz as at, $10::bool as bool, $11::int8 as int8,
            $12::numeric as numeric, $13::date as date, $14::json as object, $15::uuid as uuid`,
    [
      7, 1.5, "ü'\\\"\n$1", null, JSON.stringify({ a: [1, null, "x"] }), [1, -2, 3],
      ["a", 'b"c', null, "NULL", "{}", ""], Buffer.from([0, 1, 255]), date, true, "9007199254740993",
      "12345678901234567890.123", "2026-02-03", { k: "v" }, "00000000-0000-4000-8000-000000000001",
    ],
  );
  assert.equal(row.int4, 7);
  assert.equal(row.float8, 1.5);
  assert.equal(row.text, "ü'\\\"\n$1");
  assert.equal(row.nothing, null);
  assert.deepEqual(row.json, { a: [1, null, "x"] });
  assert.deepEqual(row.ints, [1, -2, 3]);
  assert.deepEqual(row.texts, ["a", 'b"c', null, "NULL", "{}", ""]);
  assert.deepEqual([...row.bytea], [0, 1, 255]);
  assert.equal(row.at.getTime(), date.getTime());
  assert.equal(row.bool, true);
  assert.equal(row.int8, "9007199254740993");
  assert.equal(row.numeric, "12345678901234567890.123");
  assert.equal(row.date.getFullYear(), 2026);
  assert.deepEqual(row.object, { k: "v" });
  assert.equal(row.uuid, "00000000-0000-4000-8000-000000000001");
  const [inferred] = await reader`select * from (values (1, 'one'), (2, 'two')) as t (n, name) where n = ${2} and name = ${"two"}`;
  assert.deepEqual(inferred, { n: 2, name: "two" });
}

async function array_mode_and_full_results() {
  const text = "select 1::int4 as n, 'x'::text as t, null::bytea as n";
  assert.deepEqual(await reader.query(text, [], { arrayMode: true }), [[1, "x", null]]);
  const full = await reader.query(text, [], { fullResults: true, arrayMode: true });
  assert.equal(full.command, "SELECT");
  assert.equal(full.rowCount, 1);
  assert.equal(full.rowAsArray, true);
  assert.deepEqual(full.fields.map((f) => [f.name, f.dataTypeID]), [["n", 23], ["t", 25], ["n", 17]]);
  for (const field of full.fields) {
    for (const key of ["tableID", "columnID", "dataTypeSize", "dataTypeModifier"]) assert.equal(typeof field[key], "number", key);
    assert.equal(field.format, "text");
  }
  const update = await writer.query("update public.orders set note = note where id in (1, 2)", [], { fullResults: true });
  assert.deepEqual([update.command, update.rowCount, update.rows], ["UPDATE", 2, []]);
}

async function transactions() {
  const level = "select current_setting('transaction_isolation') as level, current_setting('transaction_read_only') as ro, current_setting('transaction_deferrable') as de";
  const many = await writer.transaction([writer`select 1 as a`, writer`select ${"two"} as b`]);
  assert.deepEqual(many, [[{ a: 1 }], [{ b: "two" }]]);
  for (const [isolationLevel, said] of [
    ["ReadUncommitted", "read uncommitted"], ["ReadCommitted", "read committed"],
    ["RepeatableRead", "repeatable read"], ["Serializable", "serializable"],
  ]) {
    const [[row]] = await writer.transaction([writer.query(level)], { isolationLevel });
    assert.deepEqual(row, { level: said, ro: "off", de: "off" });
  }
  const [[row]] = await writer.transaction([writer.query(level)], { isolationLevel: "Serializable", readOnly: true, deferrable: true });
  assert.deepEqual(row, { level: "serializable", ro: "on", de: "on" });
  const error = await rejected(writer.transaction([writer`insert into public.log (msg) values ('x')`], { readOnly: true }));
  assert.equal(error.code, "25006");
  const [full] = await writer.transaction((sql) => [sql`select 1 as one`], { arrayMode: true, fullResults: true });
  assert.deepEqual([full.rows, full.command], [[[1]], "SELECT"]);
}

async function a_transaction_is_all_or_nothing() {
  const count = async () => (await writer`select count(*)::int as n from public.log where msg = 'atomic'`)[0].n;
  const insert = () => writer`insert into public.log (msg) values ('atomic')`;
  const before = await count();
  const error = await rejected(writer.transaction([insert(), writer`select 1 / 0`, insert()]));
  assert.equal(error.code, "22012");
  assert.match((await rejected(writer.transaction([insert(), writer`truncate public.orders`]))).message, /writer may not truncate/);
  assert.equal(await count(), before);
  await writer.transaction([insert(), insert()]);
  assert.equal(await count(), before + 2);
}

async function errors_are_postgresqls_own() {
  const column = await rejected(reader`select no_such_column from public.orders`);
  assert.deepEqual([column.code, column.severity, column.position], ["42703", "ERROR", "8"]);
  assert.match(column.message, /column "no_such_column" does not exist/);
  const unique = await rejected(writer`insert into public.customers (email) select email from public.customers where email is not null limit 1`);
  assert.deepEqual(
    [unique.code, unique.schema, unique.table, unique.constraint],
    ["23505", "public", "customers", "customers_email_key"],
  );
  assert.match(unique.detail, /already exists/);
  assert.equal((await rejected(writer`insert into public.items (qty) values (0)`)).code, "23514");
  assert.equal((await rejected(reader`select ${"x"}::int`)).code, "22P02");
  assert.equal((await rejected(reader`selec 1`)).code, "42601");
  assert.equal((await rejected(reader.query("select $1::int, $2::int", [1]))).code, "08P01");
}

async function denials() {
  const error = await rejected(reader`delete from public.orders where id = ${1}`);
  assert.match(error.message, /HTTP status 403/);
  assert.match(error.message, /sidegate: reader may not delete public\.orders/);
  assert.match(error.message, new RegExp(`"decision_id":\\s*"${uuid}"`));
  assert.match(error.message, /"code":\s*"42501"/);
  const [still] = await neon("postgresql://owner@postgres-b/shop")`select current_user`;
  assert.equal(still.current_user, "app_reader", "a name is no right: it chooses among the roles granted");
  neonConfig.app = "service-b";
  const scoped = neon("postgresql://app@postgres-b/shop");
  assert.equal((await scoped`select count(*)::int as n from public.orders`)[0].n > 0, true);
  assert.match((await rejected(scoped`select email from public.customers`)).message, /orders-writer may not select public\.customers/);
  assert.match((await rejected(neon("postgresql://app@postgres-a/shop")`select 1`)).message, /HTTP status 40[13]/);
  neonConfig.app = undefined;
}

async function a_pool_by_fetch() {
  neonConfig.poolQueryViaFetch = true;
  const pool = new Pool({ connectionString: "postgresql://reader@postgres-b/shop" });
  const result = await pool.query("select $1::int as n, $2::text[] as t", [5, ["a", "b"]]);
  assert.deepEqual([result.rows, result.command, result.rowCount], [[{ n: 5, t: ["a", "b"] }], "SELECT", 1]);
  await assert.rejects(pool.query("drop table public.orders"), /reader may not drop/);
  await pool.end();
}

async function many_and_large() {
  const sums = await Promise.all([...Array(60).keys()].map((n) => reader`select ${n}::int + 1 as n`));
  assert.deepEqual(sums.map(([row]) => row.n), [...Array(60).keys()].map((n) => n + 1));
  const rows = await reader`select n, repeat('x', 100) as t from generate_series(1, 100000) as n`;
  assert.equal(rows.length, 100000);
  assert.deepEqual(rows.at(-1), { n: 100000, t: "x".repeat(100) });
  const text = "ü".repeat(1 << 20);
  assert.equal((await reader`select length(${text}) as n`)[0].n, 1 << 20);
}

(async () => {
  const cases = [
    templates_and_queries, parameters_of_many_types, array_mode_and_full_results, transactions,
    a_transaction_is_all_or_nothing, errors_are_postgresqls_own, denials, a_pool_by_fetch, many_and_large,
  ];
  let failed = 0;
  for (const one of cases) {
    await one().catch((error) => {
      failed += 1;
      console.error(`--- ${one.name}`, error);
    });
  }
  console.log(`@neondatabase/serverless: ${cases.length - failed} passed, ${failed} failed`);
  process.exit(failed ? 1 : 0);
})();
