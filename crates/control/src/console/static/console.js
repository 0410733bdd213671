// What is live on a page. Everything here can be missing: pages are whole without it.
"use strict";

// One connection for each address, whatever of a page follows it, and none while nobody looks: a browser has six for all pages together,
// and the seventh page would not load.
const followed = new Map();
const open = new Map();

function on(address, kind, take) {
  if (!followed.has(address)) followed.set(address, []);
  followed.get(address).push([kind, take]);
}

function connect(address) {
  if (document.hidden || open.has(address)) return;
  const source = new EventSource(address);
  open.set(address, source);
  source.onopen = () => { document.getElementById("stale").hidden = true; };
  source.onerror = () => {
    // What is shown must not pass for how things are.
    document.getElementById("stale").hidden = false;
    if (source.readyState !== EventSource.CLOSED) return;
    open.delete(address);
    setTimeout(() => connect(address), 5000);
  };
  for (const [kind, take] of followed.get(address)) source.addEventListener(kind, (event) => take(event.data));
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) { for (const address of followed.keys()) connect(address); return; }
  for (const source of open.values()) source.close();
  open.clear();
});

// A part that the server makes again: cells with an id are changed in place, so that focus and selection stay. If there is a
// cell more or less, the whole part is new.
function follow(region) {
  on(region.dataset.live, "part", (text) => {
    const fresh = document.createElement("template");
    fresh.innerHTML = text;
    const cells = [...fresh.content.querySelectorAll("td[id], p[id]")];
    const ids = (root) => [...root.querySelectorAll("td[id], p[id]")].map((cell) => cell.id).join(" ");
    if (cells.length === 0 || ids(region) !== ids(fresh.content)) {
      region.replaceChildren(fresh.content);
    } else {
      for (const cell of cells) {
        const old = document.getElementById(cell.id);
        if (old && old.innerHTML !== cell.innerHTML) old.replaceChildren(...cell.cloneNode(true).childNodes);
      }
      const [bar, now] = [region.querySelector("progress"), fresh.content.querySelector("progress")];
      if (bar && now) { bar.value = now.value; bar.max = now.max; }
    }
    // Something has ended that the rest of the page depends on.
    if (region.dataset.reload && region.dataset.began && region.querySelector(region.dataset.reload)) location.reload();
    if (region.querySelector("#running")) region.dataset.began = "yes";
  });
}

// Rows that come: newest on top, and no more than a page can bear.
const ROWS_MAX = 200;
function collect(table) {
  const body = table.tBodies[0];
  on(table.dataset.rows, "rows", (text) => {
    const fresh = document.createElement("template");
    fresh.innerHTML = text;
    for (const row of fresh.content.querySelectorAll("tr")) row.classList.add("new");
    body.prepend(fresh.content);
    while (body.rows.length > ROWS_MAX) body.lastElementChild.remove();
  });
  // What came while nobody looked is not here.
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden || body.rows.length === 0 || body.rows[0].classList.contains("quiet")) return;
    const row = body.insertRow(0);
    row.className = "quiet";
    const cell = row.insertCell();
    cell.colSpan = 7;
    cell.textContent = table.dataset.gap;
  });
}

// The compiler's messages, a moment after the last key.
function check(area) {
  let timer = 0;
  let asked = 0;
  area.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(async () => {
      const turn = ++asked;
      const form = new FormData(area.form);
      form.set("live", "yes");
      const answer = await fetch(area.dataset.check, { method: "POST", body: new URLSearchParams(form) }).catch(() => null);
      if (turn !== asked) return;
      // Without an answer nothing is known: what was said of an older text must not stand.
      document.getElementById("outcome").innerHTML = answer?.ok ? await answer.text() : "";
      document.getElementById("stale").hidden = Boolean(answer?.ok);
    }, 300);
    // What was looked at is not what is there any more: saving looks again.
    const confirm = document.getElementById("confirm");
    if (confirm) confirm.removeAttribute("name");
  });
}

document.querySelectorAll("[data-live]").forEach(follow);
document.querySelectorAll("[data-rows]").forEach(collect);
document.querySelectorAll("[data-check]").forEach(check);
for (const address of followed.keys()) connect(address);
