"use strict";
// Everything here is a convenience, but for the details of the cases beyond the first: without it the page
// has their headlines.
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const inflated = async (id) => {
    const bytes = Uint8Array.from(atob(document.getElementById(id).textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
    return new Response(stream).text();
  };
  const once = (make) => {
    let made;
    return () => (made ??= make());
  };
  const details = once(async () => JSON.parse(await inflated("details")));
  const report = once(async () => JSON.parse(await inflated("data")));

  // Of hundreds of cases the later rows and sections are text until the first are on the screen, or all are asked for.
  const later = all("noscript.later").map((text) => {
    const rows = text.previousElementSibling.tBodies?.[0];
    const put = rows ? (markup) => rows.insertAdjacentHTML("beforeend", markup) : (markup) => text.insertAdjacentHTML("beforebegin", markup);
    return { put, pieces: text.textContent.match(/<(tr|details) [^]*?<\/\1>/g) };
  });
  const fill = (most = Infinity) => {
    for (const { put, pieces } of later) put(pieces.splice(0, most).join(""));
    return later.some(({ pieces }) => pieces.length > 0);
  };
  const idle = window.requestIdleCallback ?? ((work) => setTimeout(work, 20));
  const trickle = () => fill(50) && idle(trickle);
  if (later.length > 0) addEventListener("load", () => idle(trickle));

  const show_copy = (root) => all(".copy", root).forEach((button) => (button.hidden = false));
  const map_of = async (figure) => {
    const field = (await report()).cases[figure.dataset.case].fields.find((f) => f.field === figure.dataset.field);
    return field[figure.dataset.way].pattern.map;
  };
  // Maps of packed cases are no pictures in the file, which would hold their levels twice.
  const paint = async (image) => {
    const [{ colours }, { levels }] = [await details(), await map_of(image.closest("figure"))];
    const canvas = Object.assign(document.createElement("canvas"), { width: levels[0].length, height: levels.length });
    const pen = canvas.getContext("2d");
    levels.forEach((row, y) =>
      [...row].forEach((level, x) => {
        if (level === ".") return;
        pen.fillStyle = level === "#" ? colours.at(-1) : colours[level.charCodeAt(0) - 97];
        pen.fillRect(x, y, 1, 1);
      }),
    );
    image.setAttribute("href", canvas.toDataURL());
  };
  const unpack = async (section) => {
    if (!("packed" in section.dataset)) return;
    delete section.dataset.packed;
    const { pieces, cases } = await details();
    section.insertAdjacentHTML("beforeend", (cases[section.id] ?? []).map((i) => pieces[i]).join(""));
    show_copy(section);
    for (const image of all("svg.heat image:not([href])", section)) paint(image);
  };
  document.addEventListener("toggle", (event) => event.target.open && unpack(event.target), true);

  // Filter: the matrix's rows and the cases' sections together. The address keeps it: #show=bad&find=name.
  const filter = document.querySelector(".filter");
  const search = filter.querySelector("input");
  let shown = "all";
  const apply = () => {
    fill();
    const words = search.value.toLowerCase();
    for (const row of all(".matrix tbody tr")) {
      const name = row.firstElementChild.textContent.toLowerCase();
      const visible = (shown === "all" || row.dataset.kind === shown) && name.includes(words);
      row.hidden = !visible;
      document.getElementById(row.dataset.case).hidden = !visible;
    }
    for (const button of all("[data-show]", filter)) button.setAttribute("aria-pressed", String(button.dataset.show === shown));
  };
  const remember = () => {
    const state = new URLSearchParams();
    if (shown !== "all") state.set("show", shown);
    if (search.value) state.set("find", search.value);
    history.replaceState(null, "", "#" + state);
    apply();
  };
  filter.hidden = false;
  filter.addEventListener("click", (event) => {
    const button = event.target.closest("[data-show]");
    if (!button) return;
    shown = button.dataset.show;
    remember();
  });
  search.addEventListener("input", remember);

  // Deep links open what they point into, also what is still packed.
  const open_target = async () => {
    const hash = decodeURIComponent(location.hash.slice(1));
    if (/^(show|find)=/.test(hash)) {
      const state = new URLSearchParams(hash);
      shown = state.get("show") ?? "all";
      search.value = state.get("find") ?? "";
      apply();
      document.getElementById("matrix").scrollIntoView();
      return;
    }
    if (!document.getElementById(hash.split("-")[0])) fill();
    const section = document.getElementById(hash.split("-")[0]);
    if (section) await unpack(section);
    const target = document.getElementById(hash);
    if (!target) return;
    for (let node = target; node; node = node.parentElement) {
      if (node.tagName === "DETAILS") node.open = true;
      node.hidden = false;
    }
    target.scrollIntoView();
  };
  addEventListener("hashchange", open_target);
  if (location.hash.length > 1) open_target();

  // A map says what its cell under the pointer holds, and a click keeps it with the line that explains it.
  const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_";
  const bin_rows = (map) => {
    const rows = [];
    const end = (map.first_row ?? 0) + map.rows;
    const bands = map.bands ?? [[-1, map.first_row ?? 0]];
    bands.forEach(([, first], i) => {
      const last = i + 1 < bands.length ? bands[i + 1][1] : end;
      for (let row = first; row < last; row += map.bin_rows) rows.push(row);
    });
    return rows;
  };
  /// The worst element of a cell: its level, and its indices by axis.
  const worst_of = (map, figure, r, c) => {
    const level = map.levels[r]?.[c];
    if (level === undefined || level === ".") return null;
    let width = 0;
    for (let places = map.bin_rows * map.bin_columns; places > 1; places = Math.ceil(places / 64)) ++width;
    const before = [...map.levels[r].slice(0, c)].filter((one) => one !== ".").length;
    const text = width ? map.places[r].slice(before * width, (before + 1) * width) : "";
    const place = [...text].reduce((sum, digit) => sum * 64 + digits.indexOf(digit), 0);
    const row = bin_rows(map)[r] + Math.floor(place / map.bin_columns);
    const column = (map.first_column ?? 0) + c * map.bin_columns + (place % map.bin_columns);
    const axes = figure.dataset.axes.split(" ");
    const matrix = Number(figure.dataset.matrix);
    const indices = axes.length === 3 ? [Math.floor(row / matrix), row % matrix, column] : axes.length === 2 ? [row, column] : [row];
    return { level, at: axes.map((axis, i) => `${axis}=${indices[i]}`) };
  };
  const cell_at = (event) => {
    const svg = event.target.closest?.("figure.map svg.heat");
    if (!svg) return null;
    const [left, top, wide, high] = svg.dataset.cells.split(" ").map(Number);
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    return { figure: svg.closest("figure"), r: Math.floor((point.y - top) / high), c: Math.floor((point.x - left) / wide) };
  };
  const say = async (event, keep) => {
    const cell = cell_at(event);
    if (!cell) return;
    let line = cell.figure.querySelector(".readout");
    if (!line) {
      line = document.createElement("div");
      line.className = "readout";
      cell.figure.append(line);
    }
    if (line.dataset.kept && !keep) return;
    const worst = worst_of(await map_of(cell.figure), cell.figure, cell.r, cell.c);
    if (!worst) {
      if (keep) delete line.dataset.kept;
      line.textContent = "nothing outside";
      return;
    }
    const power = worst.level.charCodeAt(0) - 97;
    const size = worst.level === "#" ? "no ratio" : `${2 ** power} to ${2 ** (power + 1)} times the bound`;
    line.textContent = `worst at ${worst.at.join(", ").replaceAll("=", " ")}: ${size}`;
    if (!keep) return;
    line.dataset.kept = "";
    if (!cell.figure.dataset.explain) return;
    const [before, after] = cell.figure.dataset.explain.split(" --mode");
    const command = document.createElement("div");
    command.className = "command";
    command.append(document.createElement("code"), Object.assign(document.createElement("button"), { type: "button", className: "copy", textContent: "copy" }));
    command.firstChild.textContent = `${before} --at ${worst.at.join(",")}${after ? ` --mode${after}` : ""}`;
    line.append(command);
  };
  document.addEventListener("pointermove", (event) => say(event, false));

  document.addEventListener("click", async (event) => {
    // A second click on the same link changes no hash, and must open again what was folded.
    const link = event.target.closest('a[href^="#"]');
    if (link && link.getAttribute("href") === location.hash) open_target();
    say(event, true);
    const button = event.target.closest(".copy");
    if (!button) return;
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
  show_copy(document);

  const download = document.getElementById("download");
  download.hidden = false;
  download.addEventListener("click", async () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([await inflated("data")], { type: "application/json" }));
    link.download = "assay-report.json";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });

  const unfold = document.getElementById("unfold");
  const open_all = (selector) => all(selector).forEach((one) => (one.open = true));
  unfold.hidden = false;
  unfold.addEventListener("click", async () => {
    fill();
    for (const section of all("[data-packed]")) await unpack(section);
    open_all("details");
  });
  // On paper every case is there; fields that passed stay as they were, or they would fill dozens of pages.
  addEventListener("beforeprint", () => {
    fill();
    open_all("details.case:not([data-packed])");
  });
})();
