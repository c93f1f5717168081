// Sorts and filters the audits; the charts show what the table shows.
"use strict";
(() => {
  const get = (id) => document.getElementById(id);
  const table = get("audits"), body = table.tBodies[0], headers = [...table.tHead.rows[0].cells];
  const marks = new Map();
  for (const mark of document.querySelectorAll(".mark")) {
    if (!marks.has(mark.dataset.row)) marks.set(mark.dataset.row, []);
    marks.get(mark.dataset.row).push(mark);
  }
  const rows = [...body.rows].map((row) => ({
    row, marks: marks.get(row.id.slice(1)) || [], text: row.textContent.toLowerCase(), shown: true,
    keys: [...row.cells].map((cell) => cell.dataset.key ?? cell.textContent.trim()),
    words: [...row.cells].map((cell) => cell.title.toLowerCase()).join(" "),
  }));

  const MOST = 100;  // rows at a time: a table of thousands is slow to lay out
  let all = false;

  // Rows in their order, those that the filter leaves out hidden, and behind the first ones those that come later.
  function arrange() {
    let count = 0;
    for (const each of rows) each.row.classList.toggle("later", each.shown && ++count > MOST && !all);
    const more = get("more");
    more.hidden = all || count <= MOST;
    more.textContent = `Show all ${count}`;
    get("shown").textContent = count === rows.length ? `${count} audits.` : `${count} of ${rows.length} audits.`;
  }

  function filter() {
    const words = get("find").value.toLowerCase().split(/\s+/).filter(Boolean);
    const outcome = get("outcome").value, training = get("training")?.value ?? "";
    for (const each of rows) {
      const data = each.row.dataset;
      const shown = (!outcome || data.outcome === outcome) && (!training || data.training === training)
        && words.every((word) => each.text.includes(word) || each.words.includes(word));
      if (shown === each.shown) continue;
      each.shown = shown;
      each.row.hidden = !shown;
      for (const mark of each.marks) mark.classList.toggle("hidden", !shown);
    }
    arrange();
  }

  function sort(column) {
    const header = headers[column], up = header.getAttribute("aria-sort") !== "ascending";
    for (const each of headers) each.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = (each) => each.keys[column];
    const numbers = rows.every((each) => key(each) === "" || !Number.isNaN(Number(key(each))));
    const compare = numbers ? (a, b) => Number(a) - Number(b) : new Intl.Collator("en", {numeric: true}).compare;
    // What has no value stays at the end, whichever way round.
    rows.sort((a, b) => (key(a) === "") - (key(b) === "") || (up ? 1 : -1) * compare(key(a), key(b)));
    arrange();
    body.append(...rows.map((each) => each.row));
  }

  function over(what) {
    document.body.classList.toggle("over-time", what === "time");
    for (const mark of document.querySelectorAll(".mark")) {
      mark.setAttribute("transform", `translate(${mark.dataset[what]})`);
    }
  }

  function choose(number) {
    for (const each of document.querySelectorAll(".chosen")) each.classList.remove("chosen");
    const row = get(`a${number}`);
    row.classList.remove("later");
    row.classList.add("chosen");
    for (const mark of marks.get(number) || []) mark.classList.add("chosen");
    return row;
  }

  get("controls").hidden = false;
  arrange();
  get("more").addEventListener("click", () => { all = true; arrange(); });
  for (const id of ["find", "outcome", "training"]) get(id)?.addEventListener("input", filter);
  headers.forEach((header, i) => header.querySelector("button").addEventListener("click", () => sort(i)));
  for (const radio of document.querySelectorAll("[name=over]")) {
    radio.addEventListener("change", () => over(radio.value));
  }
  for (const chart of document.querySelectorAll(".charts svg")) {
    chart.addEventListener("click", (event) => {
      const mark = event.target.closest(".mark");
      if (mark) choose(mark.dataset.row).scrollIntoView({block: "center"});
    });
  }
  body.addEventListener("click", (event) => {
    const row = event.target.closest("tr");
    if (row && !event.target.closest("a")) choose(row.id.slice(1));
  });
})();
