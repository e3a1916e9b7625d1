
"use strict";
// Without this, all is there: tables as they came, conversations that unfold one by one.
const valueOf = (row, column) => {
  const cell = row.cells[column];
  return cell.dataset.v !== undefined ? Number(cell.dataset.v) : cell.textContent;
};
const compare = (first, second) =>
  typeof first === "number" && typeof second === "number" ? first - second : String(first).localeCompare(String(second), "en");

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const before = head.getAttribute("aria-sort");
      const numeric = head.classList.contains("number");
      const descending = before === null ? numeric : before === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const body = table.tBodies[0];
      const rows = [...body.rows].sort((one, two) => compare(valueOf(one, column), valueOf(two, column)));
      body.append(...(descending ? rows.reverse() : rows));
    });
  });
}

const rows = [...document.querySelectorAll("details.row")];
if (rows.length > 1) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "all";
  const told = () => { button.textContent = rows.every((row) => row.open) ? "Fold all" : "Unfold all"; };
  button.addEventListener("click", () => {
    const open = !rows.every((row) => row.open);
    rows.forEach((row) => { row.open = open; });
  });
  rows.forEach((row) => row.addEventListener("toggle", told));
  told();
  rows[0].before(button);
}
