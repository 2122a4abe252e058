for (const button of document.querySelectorAll(".sortable button")) {
  button.addEventListener("click", () => {
    const head = button.parentElement, body = head.closest("table").tBodies[0];
    const column = head.cellIndex, named = column === 0;
    const before = head.getAttribute("aria-sort");
    const rising = before ? before === "descending" : named;
    const compare = (a, b) => named
      ? a.cells[0].textContent.localeCompare(b.cells[0].textContent)
      : a.cells[column].dataset.key - b.cells[column].dataset.key;
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", rising ? "ascending" : "descending");
    body.append(...[...body.rows].sort((a, b) => rising ? compare(a, b) : compare(b, a)));
  });
}
const confusion = document.querySelector(".confusion");
for (const kind of confusion ? ["pointerover", "click"] : []) {
  confusion.addEventListener(kind, event => {
    if (event.target.title) document.querySelector(".readout").textContent = event.target.title;
  });
}
