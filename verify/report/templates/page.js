"use strict";
// Sorting and filtering of the tables that ask for it. Without this script they are plain tables.
for (const table of document.querySelectorAll("table.searchable")) {
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  let read = null;  // what the cells say, read when it is first needed
  const texts = () => read ??= rows.map((row) => Array.from(row.cells, (cell) => cell.textContent.trim()));
  const heads = Array.from(table.tHead.rows[0].cells);
  let order = rows.map((_, place) => place);

  // Tools: a box that filters, buttons for the statuses that occur, and how many rows are left.
  const tools = document.createElement("div");
  tools.className = "tools";
  const box = document.createElement("input");
  box.type = "search";
  box.placeholder = "Filter rows";
  box.setAttribute("aria-label", "Filter rows");
  const count = document.createElement("output");
  tools.append(box);
  const column = heads.findIndex((head) => head.textContent.trim() === "status");
  let chosen = null;
  if (column >= 0) {
    for (const status of ["proved", "refuted", "unknown", "timeout", "done", "error"]) {
      const number = body.querySelectorAll(`td.${status}`).length;
      if (!number) continue;
      const button = document.createElement("button");
      button.type = "button";
      button.className = status;
      button.textContent = `${status} ${number}`;
      button.setAttribute("aria-pressed", "false");
      button.addEventListener("click", () => {
        chosen = chosen === status ? null : status;
        for (const other of tools.querySelectorAll("button")) {
          other.setAttribute("aria-pressed", String(other === button && chosen !== null));
        }
        show();
      });
      tools.append(button);
    }
  }
  tools.append(count);
  table.closest(".rows").prepend(tools);

  function show() {
    const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    const cells = texts();
    const kept = order.filter((place) => (chosen === null || cells[place][column] === chosen)
      && words.every((word) => cells[place].some((text) => text.toLowerCase().includes(word))));
    body.replaceChildren(...kept.map((place) => rows[place]));
    count.textContent = kept.length === rows.length ? `${rows.length} rows` : `${kept.length} of ${rows.length} rows`;
  }

  // What has no number sorts last, whichever way the rest is sorted.
  function compare(left, right, way) {
    const empty = (left === "-") - (right === "-");
    if (empty || left === "-") return empty;
    const [a, b] = [parseFloat(left.replace(/^[<>]/, "")), parseFloat(right.replace(/^[<>]/, ""))];
    if (Number.isNaN(a) || Number.isNaN(b)) return way * left.localeCompare(right, "en", { numeric: true });
    return way * (a - b);
  }

  heads.forEach((head, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const way = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", way > 0 ? "ascending" : "descending");
      const cells = texts();
      order = rows.map((_, row) => row)
        .sort((a, b) => compare(cells[a][place], cells[b][place], way) || a - b);
      show();
    });
  });
  let waiting = 0;
  box.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(show, 120);
  });
  count.textContent = `${rows.length} rows`;
}
