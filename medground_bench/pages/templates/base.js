"use strict";
// Theme: the system's, until the reader chooses. Storage may be forbidden for local files.
(() => {
  const root = document.documentElement;
  try { const t = localStorage.getItem("mgb-theme"); if (t) root.dataset.theme = t; } catch (e) { /* not kept */ }
  document.getElementById("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    try { localStorage.setItem("mgb-theme", root.dataset.theme); } catch (e) { /* not kept */ }
    document.dispatchEvent(new Event("mgb-theme"));
  });
})();
// Sortable tables: a button in each header cell; cells carry data-v where text is not the value.
document.querySelectorAll("table.sortable").forEach((table) => {
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  const value = (row, k) => { const c = row.cells[k]; return c.dataset.v !== undefined ? c.dataset.v : c.textContent.trim(); };
  heads.forEach((th, k) => {
    const button = document.createElement("button");
    button.type = "button"; button.textContent = th.textContent; th.textContent = ""; th.append(button);
    button.addEventListener("click", () => {
      const down = th.getAttribute("aria-sort") ? th.getAttribute("aria-sort") === "ascending" : !th.classList.contains("text");
      heads.forEach((h) => h.removeAttribute("aria-sort"));
      th.setAttribute("aria-sort", down ? "descending" : "ascending");
      const body = table.tBodies[0];
      [...body.rows].sort((a, b) => {
        const x = value(a, k), y = value(b, k), nx = parseFloat(x), ny = parseFloat(y);
        const order = !Number.isNaN(nx) && !Number.isNaN(ny) ? nx - ny : x.localeCompare(y);
        return down ? -order : order;
      }).forEach((row) => body.append(row));
    });
  });
});
// Tables may be narrowed by selects: <select data-filter="TABLE-IDS" data-key="lvlm">. A row fits that says nothing of
// the key, has the value, or has it among several (data-has), or for "most" is not above the number.
(() => {
  const selects = [...document.querySelectorAll("select[data-filter]")];
  const fits = (row, s) => {
    const said = row.dataset[s.dataset.key];
    if (s.value === "" || said === undefined) return true;
    if (s.dataset.kind === "most") return said !== "" && +said <= +s.value;
    return s.dataset.kind === "has" ? said.split("\n").includes(s.value) : said === s.value;
  };
  const apply = () => {
    const by = new Map();
    selects.forEach((s) => s.dataset.filter.split(" ").forEach((id) => by.set(id, [...(by.get(id) || []), s])));
    by.forEach((mine, id) => {
      const table = document.getElementById(id);
      if (!table) return;
      const rows = [...table.tBodies[0].rows];
      rows.forEach((row) => { row.hidden = !mine.every((s) => fits(row, s)); });
      // A column that says the chosen value in every row is not shown.
      [...table.tHead.rows[0].cells].forEach((th, k) => {
        const chosen = mine.find((s) => th.dataset.key && s.dataset.key === th.dataset.key);
        if (chosen) [th, ...rows.map((row) => row.cells[k])].forEach((cell) => { cell.hidden = chosen.value !== ""; });
      });
    });
  };
  selects.forEach((s) => s.addEventListener("change", apply));
  apply();
})();
// <button data-csv="TABLE-ID">: the rows that are shown, as a file; numbers as they are, not as they are printed.
document.querySelectorAll("button[data-csv]").forEach((button) => button.addEventListener("click", () => {
  const table = document.getElementById(button.dataset.csv);
  // A text that a spreadsheet would take for a formula gets an apostrophe in front.
  const safe = (text) => (/^[=+\-@\t]/.test(text) && Number.isNaN(+text) ? `'${text}` : text);
  const quote = (text) => (/[",\n\r]/.test(text) ? `"${safe(text).replace(/"/g, '""')}"` : safe(text));
  const heads = [...table.tHead.rows[0].cells], keep = heads.map((h, k) => k).filter((k) => !("nocsv" in heads[k].dataset));
  const lines = [keep.map((k) => heads[k].textContent.trim())];
  [...table.tBodies[0].rows].filter((row) => !row.hidden).forEach((row) => lines.push(keep.map((k) => {
    const c = row.cells[k];
    return c.dataset.csv !== undefined ? c.dataset.csv : c.dataset.v !== undefined && !heads[k].classList.contains("text") && !/^[–\s]*$/.test(c.textContent) ? c.dataset.v : c.textContent.trim().replace("–", "");
  })));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([lines.map((l) => l.map(quote).join(",")).join("\n") + "\n"], { type: "text/csv" }));
  link.download = button.dataset.name || "table.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}));
