"use strict";
// Everything here is a convenience: the page reads the same without it.
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // Filter: the matrix's rows and the cases' sections together.
  const filter = document.querySelector(".filter");
  const search = filter.querySelector("input");
  let shown = "all";
  const apply = () => {
    const words = search.value.toLowerCase();
    for (const row of all(".matrix tbody tr")) {
      const name = row.querySelector("th").textContent.toLowerCase();
      const visible = (shown === "all" || row.dataset.kind === shown) && name.includes(words);
      row.hidden = !visible;
      document.getElementById(row.dataset.case).hidden = !visible;
    }
    for (const button of all("[data-show]", filter)) button.setAttribute("aria-pressed", String(button.dataset.show === shown));
  };
  filter.hidden = false;
  filter.addEventListener("click", (event) => {
    const button = event.target.closest("[data-show]");
    if (!button) return;
    shown = button.dataset.show;
    apply();
  });
  search.addEventListener("input", apply);

  for (const chip of all(".chip[aria-label]")) chip.title = chip.getAttribute("aria-label");

  // Deep links open what they point into.
  const open_target = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    for (let node = target; node; node = node.parentElement) {
      if (node.tagName === "DETAILS") node.open = true;
      node.hidden = false;
    }
    target.scrollIntoView();
  };
  addEventListener("hashchange", open_target);
  if (location.hash.length > 1) open_target();
  // A second click on the same link changes no hash, and must open again what was folded.
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#"]');
    if (link && link.getAttribute("href") === location.hash) open_target();
  });

  for (const button of all(".copy")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const code = button.previousElementSibling;
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "copied";
      } catch {
        // Pages from disk may not write to the clipboard: select the text instead.
        getSelection().selectAllChildren(code);
        button.textContent = "press Ctrl+C";
      }
      setTimeout(() => (button.textContent = "copy"), 2000);
    });
  }

  const download = document.getElementById("download");
  download.hidden = false;
  download.addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([document.getElementById("data").textContent], { type: "application/json" }));
    link.download = "assay-report.json";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });

  const unfold = document.getElementById("unfold");
  const open_all = (selector) => all(selector).forEach((one) => (one.open = true));
  unfold.hidden = false;
  unfold.addEventListener("click", () => open_all("details"));
  // On paper every case is there; fields that passed stay as they were, or they would fill dozens of pages.
  addEventListener("beforeprint", () => open_all("details.case"));
})();
