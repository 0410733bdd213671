// The console in a real browser, beside a running demo: signing in, switches on live connections, editing, conflicts, a benchmark,
// names that are meant to break pages, much traffic. axe looks at every page, and nothing may be said on the browser's console.
// SCREENSHOTS is where pictures of the pages are put, CHROMIUM the browser.
const assert = require("node:assert/strict");
const { execFileSync } = require("node:child_process");
const fs = require("node:fs");
const path = require("node:path");
const { Client } = require("pg");
const { chromium } = require("playwright-core");

const AXE = fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const READY = JSON.parse(fs.readFileSync(process.env.READY, "utf8"));
const ORIGIN = new URL(READY.console).origin;
const PICTURES = process.env.SCREENSHOTS;
const LINK_FILE = path.join(READY.dir, "console", "link");
const GRANT = "/access/postgres-b/AccessGrant/service-a";
// A reader may not; PostgreSQL lets anybody.
const DENIED = "select pg_advisory_lock(1)";

let browser;
// What browsers complained of, but for answers that a case asks for.
const complaints = [];
let expected = [];

async function context(options = {}) {
  const made = await browser.newContext({ viewport: { width: 1200, height: 800 }, ...options });
  made.setDefaultTimeout(15000);
  made.on("page", (page) => {
    page.on("console", (message) => {
      const text = `${message.text()} ${message.location().url}`;
      if (["error", "warning"].includes(message.type()) && !expected.some((one) => text.includes(one))) complaints.push(text);
    });
    page.on("pageerror", (error) => complaints.push(String(error)));
    page.on("dialog", (dialog) => { complaints.push(`a dialog: ${dialog.message()}`); dialog.dismiss(); });
  });
  return made;
}

async function signedIn(options) {
  const page = await (await context(options)).newPage();
  await page.goto(fs.readFileSync(LINK_FILE, "utf8").trim());
  await page.click("#sign-in");
  await page.waitForSelector("#services");
  return page;
}

async function axe(page, name) {
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => window.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21aa", "best-practice"] }));
  const told = violations.map((one) => `${one.id}: ${one.nodes.map((node) => node.html).join(" | ")}`);
  assert.deepEqual(told, [], name);
  if (PICTURES) await page.screenshot({ path: path.join(PICTURES, `${name}.png`), fullPage: true });
}

async function text(page, selector) {
  return (await page.textContent(selector)).trim().replace(/\s+/g, " ");
}

async function until(what, holds, seconds = 10) {
  const end = Date.now() + seconds * 1000;
  for (;;) {
    if (await holds()) return;
    assert.ok(Date.now() < end, what);
    await new Promise((go) => setTimeout(go, 50));
  }
}

async function connect(app, database) {
  const client = new Client({ connectionString: `${READY.outbound[app][database]}`, user: "app" });
  client.on("error", () => {});
  await client.connect();
  return client;
}

async function code(client, statement) {
  return client.query(statement).then(() => "", (error) => error.code);
}

async function set(page, namespace, key, value) {
  await page.goto(`${ORIGIN}/services/${namespace}`);
  await page.click(`#${key}-${value}`);
  await page.click("#confirm");
  await page.waitForSelector("#pods");
}

async function a_link_signs_one_browser_in() {
  const link = fs.readFileSync(LINK_FILE, "utf8").trim();
  const stranger = await (await context()).newPage();
  await stranger.goto(`${ORIGIN}/access`);
  assert.equal(stranger.url(), `${ORIGIN}/sign-in`);
  await axe(stranger, "sign-in");
  const page = await (await context()).newPage();
  await page.goto(link);
  await page.click("#sign-in");
  await page.waitForSelector("#services");
  expected = ["403", "sign-in"];
  await stranger.goto(link);
  await stranger.click("#sign-in");
  assert.match(await text(stranger, "main"), /not valid, or was used already/);
  expected = [];
  const [cookie] = await page.context().cookies();
  assert.ok(cookie.httpOnly && cookie.sameSite === "Strict", JSON.stringify(cookie));
  await page.click("text=Sign out");
  await page.goto(`${ORIGIN}/`);
  assert.equal(page.url(), `${ORIGIN}/sign-in`);
}

async function every_page_is_accessible_in_both_languages_and_schemes() {
  const pages = { services: "/", service: "/services/postgres-b", access: "/access", document: GRANT, decisions: "/decisions",
    issuer: "/issuer", benchmark: "/benchmark", missing: "/access/postgres-b/AccessGrant/nobody" };
  for (const colorScheme of ["light", "dark"]) {
    const page = await signedIn({ colorScheme });
    for (const [name, at] of Object.entries(pages)) {
      expected = name === "missing" ? ["404"] : [];
      await page.goto(ORIGIN + at);
      await axe(page, `${name}-${colorScheme}`);
    }
    expected = [];
  }
  const page = await signedIn({ locale: "ru-RU" });
  assert.equal(await page.getAttribute("html", "lang"), "ru");
  assert.match(await text(page, "h1"), /Сервисы/);
  await page.click("text=English");
  assert.match(await text(page, "h1"), /Services/);
  await page.click("text=Русский");
  await page.goto(`${ORIGIN}/services/postgres-b`);
  await axe(page, "service-russian");
  // By the keyboard: the first stop leads past the navigation.
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.id), "main");
}

async function verification_is_switched_on_a_live_connection() {
  const page = await signedIn();
  // The second does nothing meanwhile that it may not: it goes on when verification is on again.
  const [client, innocent] = [await connect("service-a", "postgres-b"), await connect("service-a", "postgres-b")];
  for (const one of [client, innocent]) assert.equal(await code(one, DENIED), "42501");
  await page.goto(`${ORIGIN}/services/postgres-b`);
  await page.click("#verify-false");
  assert.match(await text(page, "main"), /Nothing is denied, and nobody needs a token/);
  await axe(page, "confirm");
  await page.click("text=Cancel");
  assert.equal(await code(client, DENIED), "42501", "nothing is done before it is confirmed");
  const began = Date.now();
  await page.click("#verify-false");
  await page.click("#confirm");
  await page.waitForSelector("#pod-verify-postgres-b:has-text('off')");
  await page.waitForSelector("#pod-state-postgres-b:has-text('taken up')");
  console.log(`ok taken up after ${Date.now() - began} ms, two clicks included`);
  assert.equal(await text(page, "#verify"), "off");
  await until("it passes", async () => (await code(client, DENIED)) === "");
  await set(page, "postgres-b", "verify", "observe");
  await page.waitForSelector("#pod-verify-postgres-b:has-text('observe')");
  assert.equal(await code(client, DENIED), "", "recorded, not denied");
  await page.goto(`${ORIGIN}/`);
  await page.click("#everywhere");
  await page.click("#confirm");
  await page.waitForSelector("#everywhere-already");
  // What was done meanwhile ends with the session that did it; the other is denied as before.
  await until("it ends", async () => (await code(client, "select 1")) !== "");
  assert.equal(await code(innocent, DENIED), "42501");
  assert.equal(await code(innocent, "select 1"), "");
  await page.goto(`${ORIGIN}/services/postgres-b`);
  assert.match(await text(page, "#history"), /link:\d+VERIFY_AUTH_ENABLED: observeVERIFY_AUTH_ENABLED: true/);
  await innocent.end();
}

async function tokens_are_refreshed_without_a_failed_statement() {
  const page = await signedIn();
  const client = await connect("service-a", "postgres-b");
  await page.goto(`${ORIGIN}/services/postgres-b`);
  await page.click("#refresh-tokens");
  await page.click("#confirm");
  await page.waitForSelector("#not-before time");
  for (let n = 0; n < 50; n += 1) assert.equal(await code(client, "select 1"), "");
  await client.end();
}

async function a_denial_leads_to_the_grant_that_would_allow_it() {
  const page = await signedIn();
  await page.goto(`${ORIGIN}/decisions?verdict=deny&service=postgres-b`);
  const client = await connect("service-b", "postgres-b");
  await new Promise((go) => setTimeout(go, 1500));
  assert.equal(await code(client, "select name from customers"), "42501");
  await page.waitForSelector("tr.decision.new:has-text('customers')");
  await page.click("tr.decision.new a");
  assert.match(await text(page, "#remedy"), /public\.customers/);
  await axe(page, "decision");
  await page.click("#draft");
  await page.click("#save");
  assert.match(await text(page, "#outcome"), /This is right.*would this have changed.*newly allowed/);
  const changes = await page.locator("#rehearsal tbody tr").allTextContents();
  assert.equal(changes.length, 1, `nothing but this: ${changes}`);
  await axe(page, "draft");
  await page.click("#confirm");
  await page.waitForSelector("p.note[role=status]");
  await until("it is allowed", async () => {
    const again = await connect("service-b", "postgres-b").catch(() => null);
    if (!again) return false;
    // Of two roles one must be named, or PostgreSQL's own lock is what refuses now: the sidecar allows it.
    const refused = await again.query("select name from customers").then(() => "", (error) => error.message);
    await again.end();
    return !refused.startsWith("sidegate: orders-writer");
  }, 20);
  await client.end();
}

async function an_edit_is_checked_as_it_is_typed() {
  const page = await signedIn();
  await page.goto(ORIGIN + GRANT);
  const before = await page.inputValue("#text");
  await page.fill("#text", before.replace("[reader]", "[raeder]"));
  await page.waitForSelector("#errors");
  assert.match(await text(page, "#errors"), /:\d+:\d+ .*raeder/);
  expected = ["422"];
  await page.click("#save");
  assert.match(await text(page, "#errors"), /raeder/);
  assert.equal(await page.isVisible("#confirm"), false);
  await axe(page, "errors");
  expected = [];
  await page.fill("#text", before.replace("[reader]", "[writer]"));
  await page.waitForSelector("#valid");
  await page.click("#save");
  await page.click("#confirm");
  await page.waitForSelector("p.note[role=status]");
  await page.goto(ORIGIN + GRANT);
  assert.match(await text(page, "#history"), /\[reader\].*\[writer\]/);
  await page.fill("#text", before);
  await page.click("#save");
  await page.click("#confirm");
  await page.goto(ORIGIN + GRANT);
  assert.equal(await page.inputValue("#text"), before, "byte for byte");
}

async function two_editors_do_not_overwrite_each_other() {
  const [one, other] = [await signedIn(), await signedIn()];
  await one.goto(`${ORIGIN}/services/postgres-a`);
  await other.goto(`${ORIGIN}/services/postgres-a`);
  await one.click("#verify-observe");
  await one.click("#confirm");
  expected = ["409"];
  await other.click("#verify-false");
  await other.click("#confirm");
  assert.match(await text(other, "main"), /Somebody else has changed this.*VERIFY_AUTH_ENABLED: observe/);
  await axe(other, "conflict");
  expected = [];
  await set(one, "postgres-a", "verify", "true");

  await one.goto(ORIGIN + GRANT);
  await other.goto(ORIGIN + GRANT);
  const before = await one.inputValue("#text");
  await one.fill("#text", `# mine\n${before}`);
  await other.fill("#text", `# theirs\n${before}`);
  for (const page of [one, other]) await page.click("#save");
  await one.click("#confirm");
  expected = ["409"];
  await other.click("#confirm");
  assert.match(await text(other, "main"), /Somebody else has changed this.*# theirs/);
  expected = [];
  await one.goto(ORIGIN + GRANT);
  assert.equal(await one.inputValue("#text"), `# mine\n${before}`);
  await one.fill("#text", before);
  await one.click("#save");
  await one.click("#confirm");
}

async function documents_are_made_and_deleted() {
  const page = await signedIn();
  await page.goto(`${ORIGIN}/access`);
  await page.selectOption("#g-namespace", "postgres-a");
  await page.fill("#g-account", "made-here");
  await page.fill("#g-roles", "reader");
  await page.click("#make-draft");
  await page.click("#save");
  await page.click("#confirm");
  await page.click("#grants a:has-text('made-here')");
  await page.click("#delete");
  assert.match(await text(page, "main"), /Delete: AccessGrant postgres-a\/made-here/);
  await page.click("#confirm");
  await page.waitForSelector("p.note[role=status]");
  assert.equal(await page.isVisible("#grants a:has-text('made-here')"), false);
}

async function names_are_texts_whatever_is_in_them() {
  const page = await signedIn();
  const evil = "<script>alert(1)</script>'; DROP TABLE orders; --\"><img src=x onerror=alert(2)>";
  await page.goto(`${ORIGIN}/access`);
  for (const field of ["account", "account-namespace", "roles"]) await page.fill(`#g-${field}`, evil);
  await page.click("#make-draft");
  assert.ok((await page.inputValue("#text")).includes("<script>alert(1)"));
  expected = ["422"];
  await page.click("#save");
  assert.match(await text(page, "#errors"), /<script>/);
  expected = [];
  await page.goto(`${ORIGIN}/decisions`);
  await page.fill("#f-subject", evil);
  await page.click("text=Filter");
  assert.equal(await page.inputValue("#f-subject"), evil);
  expected = ["404"];
  for (const at of ["services", "decisions", "access/x/AccessRole"]) {
    await page.goto(`${ORIGIN}/${at}/${encodeURIComponent(evil)}`);
    assert.ok(await page.isVisible("h1"));
  }
  expected = [];
  const setting = path.join(READY.settings["service-b"], "SIGN_AUTH_ENABLED");
  const was = fs.readFileSync(setting);
  fs.writeFileSync(setting, evil);
  await page.goto(`${ORIGIN}/services/service-b`);
  assert.match(await text(page, "p.warning"), /<script>alert/);
  fs.writeFileSync(setting, was);
  // What applications write, too: a table that nobody has, in the decisions.
  const client = await connect("service-b", "postgres-b").catch(() => null);
  if (client) {
    await page.goto(`${ORIGIN}/decisions`);
    await new Promise((go) => setTimeout(go, 1500));
    await code(client, `select * from "<script>alert(3)</script>"`);
    await page.waitForSelector("tr.decision:has-text('<script>alert(3)')");
    await client.end();
  }
  assert.equal(await page.locator("script").count(), 1, "ours");
}

async function it_works_without_scripts() {
  const page = await signedIn({ javaScriptEnabled: false });
  await page.goto(`${ORIGIN}/services/postgres-a`);
  await page.click("#sign-false");
  await page.click("#confirm");
  assert.equal(await text(page, "#sign"), "off");
  await page.click("#sign-true");
  await page.click("#confirm");
  assert.equal(await text(page, "#sign"), "on");
  await page.goto(ORIGIN + GRANT);
  const before = await page.inputValue("#text");
  await page.fill("#text", before.replace("AccessGrant", "AccessGrab"));
  expected = ["422"];
  await page.click("#rehearse");
  assert.match(await text(page, "#errors"), /AccessGrab/);
}

async function much_traffic_does_not_freeze_a_page() {
  const page = await signedIn();
  await page.goto(`${ORIGIN}/decisions`);
  const clients = await Promise.all([...Array(8).keys()].map(() => connect("service-a", "postgres-b")));
  const end = Date.now() + 6000;
  let made = 0;
  const load = Promise.all(clients.map(async (client) => {
    while (Date.now() < end) {
      await Promise.all([...Array(50).keys()].map(() => client.query("select 1")));
      made += 50;
    }
  }));
  const waits = [];
  while (Date.now() < end) {
    const began = Date.now();
    await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => done())));
    waits.push(Date.now() - began);
    await new Promise((go) => setTimeout(go, 100));
  }
  await load;
  const rows = await page.locator("#decisions tbody tr").count();
  console.log(`ok ${Math.round(made / 6)} statements a second, a frame after ${Math.max(...waits)} ms at most, ${rows} rows`);
  assert.ok(rows <= 230 && rows > 20, `${rows} rows`);
  assert.ok(Math.max(...waits) < 2000, `${waits}`);
  await page.waitForSelector("text=were not shown");
  for (const client of clients) await client.end();
}

async function a_console_that_hangs_holds_up_nobody() {
  const pid = execFileSync("pgrep", ["-f", `console --config ${READY.dir}/config/console.yaml`]).toString().trim().split("\n").map(Number);
  for (const one of pid) process.kill(one, "SIGSTOP");
  try {
    const client = await connect("service-a", "postgres-b");
    for (let n = 0; n < 100; n += 1) assert.equal(await code(client, "select 1"), "");
    assert.equal(await code(client, DENIED), "42501");
    await client.end();
  } finally {
    for (const one of pid) process.kill(one, "SIGCONT");
  }
}

async function a_benchmark_is_run_and_its_chart_read() {
  const page = await signedIn();
  await page.goto(`${ORIGIN}/benchmark`);
  await page.fill("#b-requests", "40");
  await page.fill("#b-repeat", "2");
  await page.click("#start");
  await page.waitForSelector("#running");
  await page.waitForSelector("section.result svg", { timeout: 120000 });
  assert.match(await text(page, "section.result svg"), /\d\.\d/);
  await axe(page, "benchmark-result");
  const [download] = await Promise.all([page.waitForEvent("download"), page.click("text=Download CSV")]);
  const csv = fs.readFileSync(await download.path(), "utf8").split("\n");
  assert.match(csv[0], /^requests,time_ms,operation,sign_enabled,verify_enabled/);
  assert.ok(csv.length > 8, csv.join("\n"));
  // One that is stopped reports what it has, and puts the settings back.
  await page.fill("#b-requests", "20000");
  await page.click("#start");
  await page.click("#stop");
  await until("it ends", async () => {
    await page.goto(`${ORIGIN}/benchmark`);
    return !(await page.isVisible("#running"));
  }, 60);
  await page.goto(`${ORIGIN}/services/postgres-a`);
  assert.equal(await text(page, "#verify"), "on");
}

(async () => {
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ["--no-sandbox", "--disable-dev-shm-usage"] });
  const cases = [
    a_link_signs_one_browser_in, every_page_is_accessible_in_both_languages_and_schemes,
    verification_is_switched_on_a_live_connection, tokens_are_refreshed_without_a_failed_statement,
    an_edit_is_checked_as_it_is_typed, two_editors_do_not_overwrite_each_other, documents_are_made_and_deleted,
    names_are_texts_whatever_is_in_them, it_works_without_scripts, much_traffic_does_not_freeze_a_page,
    a_console_that_hangs_holds_up_nobody, a_benchmark_is_run_and_its_chart_read,
    a_denial_leads_to_the_grant_that_would_allow_it,
  ].filter((one) => !process.argv[2] || one.name.includes(process.argv[2]));
  let failed = 0;
  for (const one of cases) {
    expected = [];
    complaints.length = 0;
    const passed = one().then(() => assert.deepEqual(complaints, [], "the browser's console"));
    await passed.catch((error) => {
      failed += 1;
      console.error(`--- ${one.name}`, error, complaints);
    });
    for (const open of browser.contexts()) await open.close();
  }
  await browser.close();
  console.log(`Console in ${browser.browserType().name()}: ${cases.length - failed} passed, ${failed} failed`);
  process.exit(failed ? 1 : 0);
})();
