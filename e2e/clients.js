// node-postgres through a pair of sidecars: a pool, parameters, named statements, transactions, denials.
const assert = require("node:assert/strict");
const fs = require("node:fs");
const { Client, Pool } = require("pg");

const ready = JSON.parse(fs.readFileSync(process.env.READY, "utf8"));
const url = (app, database) => ready.outbound[app][database];

async function reader() {
  const pool = new Pool({ connectionString: url("service-a", "postgres-b"), max: 4 });
  const sums = await Promise.all([...Array(40).keys()].map((n) => pool.query("select $1::int + 1 as n", [n])));
  assert.deepEqual(sums.map((r) => r.rows[0].n), [...Array(40).keys()].map((n) => n + 1));
  await assert.rejects(pool.query("update public.orders set note = 'x'"), {
    code: "42501",
    message: "sidegate: reader may not update public.orders",
  });
  const named = { name: "count", text: "select count(*)::int as n from public.orders" };
  assert.ok((await pool.query(named)).rows[0].n > 0);
  assert.ok((await pool.query(named)).rows[0].n > 0);
  await pool.end();
}

async function scoped() {
  const client = new Client({ connectionString: url("service-b", "postgres-b") });
  await client.connect();
  await client.query("begin");
  await client.query("insert into public.orders (customer_id) values ($1)", [1]);
  await assert.rejects(client.query("delete from public.orders where id = $1", [1]), { code: "42501" });
  await assert.rejects(client.query("select 1"), { code: "25P02" });
  assert.equal((await client.query("commit")).command, "ROLLBACK");
  assert.equal((await client.query("select 1 as one")).rows[0].one, 1);
  await client.end();
}

async function refused() {
  const client = new Client({ connectionString: url("service-b", "postgres-a") });
  await assert.rejects(client.connect(), { code: "28000" });
}

(async () => {
  for (const suite of [reader, scoped, refused]) await suite();
  console.log("node-postgres: 3 passed, 0 failed");
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
