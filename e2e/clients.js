// node-postgres through both sidecars: what an application does, allowed and denied. Run by e2e/run-clients.
const assert = require("node:assert");
const { readFileSync } = require("node:fs");
const { Client, Pool } = require("pg");

const { outbound } = JSON.parse(readFileSync(process.env.READY));
const url = (address) => address.replace("postgresql://", "postgresql://app@");
const reader = url(outbound["service-a"]["postgres-b"]);
const writer = url(outbound["service-a"]["postgres-a"]);
const refused = url(outbound["service-b"]["postgres-a"]);

const tests = {
  async reads() {
    const client = new Client(reader);
    await client.connect();
    const plain = await client.query("select count(*)::int as n from orders");
    assert(plain.rows[0].n > 100);
    for (let i = 0; i < 3; i++) {
      const named = await client.query({ name: "by-id", text: "select name from customers where id = $1", values: [1 + i] });
      assert.strictEqual(named.rowCount, 1);
    }
    await client.end();
  },

  async denied() {
    const client = new Client(reader);
    await client.connect();
    for (const query of [["delete from orders"], ["delete from orders where id = $1", [1]]]) {
      await assert.rejects(client.query(...query), { code: "42501", message: "sidegate: reader may not delete orders" });
    }
    await client.query("begin");
    await assert.rejects(client.query("delete from orders"), { code: "42501" });
    await assert.rejects(client.query("select 1"), { code: "25P02" });
    await client.query("rollback");
    assert.strictEqual((await client.query("select 1 as one")).rows[0].one, 1);
    await client.end();
  },

  async pools() {
    const pool = new Pool({ connectionString: writer, max: 8 });
    const insert = (n) => pool.query("insert into log (msg) values ($1) returning id", [`node ${n}`]);
    const results = await Promise.all(Array.from({ length: 100 }, (_, n) => insert(n)));
    assert.strictEqual(new Set(results.map((result) => result.rows[0].id)).size, 100);
    await pool.end();
  },

  async "is refused without a grant"() {
    await assert.rejects(new Client(refused).connect());
  },
};

(async () => {
  for (const [name, test] of Object.entries(tests)) {
    await test();
    console.log("ok", name);
  }
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
