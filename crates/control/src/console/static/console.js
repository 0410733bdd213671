// What is live on a page. Everything here can be missing: pages are whole without it.
"use strict";

// A part that the server makes again: cells with an id are changed in place, so that focus and selection stay. If there is a
// cell more or less, the whole part is new.
function follow(region) {
  const source = new EventSource(region.dataset.live);
  source.onmessage = (event) => {
    const fresh = document.createElement("template");
    fresh.innerHTML = event.data;
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
  };
}

// Rows that come: newest on top, and no more than a page can bear.
const ROWS_MAX = 200;
function collect(table) {
  const body = table.tBodies[0];
  const source = new EventSource(table.dataset.rows);
  source.onmessage = (event) => {
    const fresh = document.createElement("template");
    fresh.innerHTML = event.data;
    for (const row of fresh.content.querySelectorAll("tr")) row.classList.add("new");
    body.prepend(fresh.content);
    while (body.rows.length > ROWS_MAX) body.lastElementChild.remove();
  };
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
      const answer = await fetch(area.dataset.check, { method: "POST", body: new URLSearchParams(form) });
      if (turn === asked && answer.ok) document.getElementById("outcome").innerHTML = await answer.text();
    }, 300);
    // What was looked at is not what is there any more: saving looks again.
    const confirm = document.getElementById("confirm");
    if (confirm) confirm.removeAttribute("name");
  });
}

document.querySelectorAll("[data-live]").forEach(follow);
document.querySelectorAll("[data-rows]").forEach(collect);
document.querySelectorAll("[data-check]").forEach(check);
