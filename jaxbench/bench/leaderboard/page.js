"use strict";
// Sorting, searching, filtering and unfolding. All of it is in location.hash, so that a
// view can be linked. Without this script the page is a plain, complete table.
(() => {
  document.documentElement.classList.add("js");
  const boards = [...document.querySelectorAll("section.ranking")].map(makeBoard);

  function makeBoard(section) {
    const table = section.querySelector("table.board");
    const body = table.tBodies[0];
    const find = (name) => section.querySelector(`[data-control="${name}"]`);
    const rows = [...body.querySelectorAll("tr.row, tr.floor")].map((tr, order) => ({
      tr, order,
      detail: tr.nextElementSibling?.matches(".detail") ? tr.nextElementSibling : null,
      button: tr.querySelector(".name button"),
      text: tr.dataset.search || "",
    }));
    const heads = [...table.tHead.rows[0].cells];
    const blank = { sort: "", dir: "", q: "", family: "", status: "", view: "", open: "" };
    const board = { id: section.id, state: { ...blank }, apply, reset };

    function reset(values) {
      board.state = { ...blank, ...values };
      apply();
    }

    function apply() {
      const s = board.state;
      table.dataset.view = s.view || "overview";
      for (const b of section.querySelectorAll(".views button")) {
        b.setAttribute("aria-pressed", String(b.value === table.dataset.view));
      }
      find("q").value = s.q;
      find("family").value = s.family;
      find("status").value = s.status;
      order(s.sort, s.dir);
      show(s);
      brackets();
      measure();
    }

    function order(key, dir) {
      const column = heads.findIndex((th) => th.dataset.key === key);
      for (const th of heads) th.removeAttribute("aria-sort");
      const sorted = [...rows];
      if (column >= 0) {
        const down = dir === "desc";
        heads[column].setAttribute("aria-sort", down ? "descending" : "ascending");
        const numeric = heads[column].dataset.kind !== "text";
        sorted.sort((a, b) => {
          const x = a.tr.cells[column].dataset.v ?? "";
          const y = b.tr.cells[column].dataset.v ?? "";
          if (x === "" || y === "") return (x === "") - (y === "") || a.order - b.order;
          const way = numeric ? x - y : x.localeCompare(y, "en", { numeric: true });
          return (down ? -way : way) || a.order - b.order;
        });
      } else {
        heads[0].setAttribute("aria-sort", "ascending");
      }
      for (const row of sorted) {
        body.append(row.tr);
        if (row.detail) body.append(row.detail);
      }
    }

    function show(s) {
      const words = s.q.toLowerCase().split(/\s+/).filter(Boolean);
      const open = new Set(s.open.split(",").filter(Boolean));
      let shown = 0, all = 0;
      for (const { tr, detail, button, text } of rows) {
        const isRow = tr.matches(".row");
        const fits = words.every((word) => text.includes(word)) && (isRow
          ? (!s.family || tr.dataset.family === s.family) &&
            (!s.status || tr.dataset.status.split(" ").includes(s.status))
          : !s.family && !s.status);
        tr.hidden = !fits;
        const unfolded = open.has(tr.dataset.row);
        if (detail) detail.hidden = !fits || !unfolded;
        if (button) button.setAttribute("aria-expanded", String(unfolded));
        all += isRow;
        shown += isRow && fits;
      }
      find("count").textContent = shown === all ? `${all} rows` : `${shown} of ${all} rows`;
      section.querySelector(".none").style.display = shown ? "none" : "block";
    }

    // Neighbours that share a rank are held by one bracket, whatever the order.
    function brackets() {
      const seen = [...body.rows].filter((tr) => tr.matches(".row") && !tr.hidden);
      const rank = (tr) => tr?.cells[0].dataset.v || "";
      seen.forEach((tr, i) => {
        const cell = tr.cells[0], own = rank(tr);
        const before = own && rank(seen[i - 1]) === own;
        const after = own && rank(seen[i + 1]) === own;
        cell.classList.toggle("tied", Boolean(before || after));
        cell.classList.toggle("first", Boolean(after && !before));
        cell.classList.toggle("last", Boolean(before && !after));
        cell.classList.toggle("top", !before);
      });
    }

    function change(values) {
      Object.assign(board.state, values);
      apply();
      write();
    }

    table.tHead.addEventListener("click", (event) => {
      const th = event.target.closest("th[data-key]");
      if (!th || !event.target.closest("button")) return;
      const now = th.getAttribute("aria-sort");
      const first = th.dataset.better === "high" ? "desc" : "asc";
      const other = now === "ascending" ? "desc" : "asc";
      change({ sort: th.dataset.key, dir: now ? other : first });
    });
    body.addEventListener("click", (event) => {
      const tr = event.target.closest("tr.row");
      if (!tr || getSelection().toString()) return;
      const open = new Set(board.state.open.split(",").filter(Boolean));
      if (!open.delete(tr.dataset.row)) open.add(tr.dataset.row);
      change({ open: [...open].join(",") });
    });
    find("q").addEventListener("input", (event) => change({ q: event.target.value }));
    for (const name of ["family", "status"]) {
      find(name).addEventListener("change", (event) => change({ [name]: event.target.value }));
    }
    section.querySelector(".views").addEventListener("click", (event) => {
      if (event.target.value) {
        const view = event.target.value;
        change({ view: view === "overview" ? "" : view });
      }
    });
    link(section, rows);
    return board;
  }

  // A row and its marks in the plots light up together.
  function link(section, rows) {
    const tip = document.getElementById("tip");
    const marks = [...section.querySelectorAll(".mark")];
    const light = (row) => {
      section.classList.toggle("hovering", row !== null);
      for (const mark of marks) mark.classList.toggle("hot", mark.dataset.row === row);
      for (const { tr } of rows) tr.classList.toggle("hot", tr.dataset.row === row);
    };
    for (const { tr } of rows) {
      if (!tr.dataset.row) continue;
      tr.addEventListener("mouseenter", () => light(tr.dataset.row));
      tr.addEventListener("mouseleave", () => light(null));
    }
    for (const mark of marks) {
      mark.addEventListener("mousemove", (event) => {
        tip.textContent = mark.dataset.tip;
        tip.hidden = false;
        const x = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
        const y = Math.max(8, event.clientY - tip.offsetHeight - 12);
        tip.style.left = `${x}px`;
        tip.style.top = `${y}px`;
      });
      mark.addEventListener("mouseenter", () => light(mark.dataset.row));
      mark.addEventListener("mouseleave", () => { tip.hidden = true; light(null); });
    }
  }

  function write() {
    const parts = new URLSearchParams();
    for (const { id, state } of boards) {
      for (const [key, value] of Object.entries(state)) {
        if (value) parts.set(`${id}.${key}`, value);
      }
    }
    const text = parts.toString();
    try {
      history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
    } catch {
      // A page without an address of its own, in a notebook's frame, keeps no view.
    }
  }

  function read() {
    const text = location.hash.slice(1);
    // A plain anchor is not a view.
    if (text && !text.includes("=")) return;
    const parts = new URLSearchParams(text);
    for (const board of boards) {
      const values = {};
      for (const [key, value] of parts) {
        const [id, name] = key.split(".");
        if (id === board.id && name in board.state) values[name] = value;
      }
      board.reset(values);
    }
  }

  function measure() {
    for (const section of document.querySelectorAll("section.ranking")) {
      const bar = section.querySelector(".bar");
      section.style.setProperty("--bar", `${bar.offsetHeight}px`);
      const frame = section.querySelector(".scroll.tall");
      frame.classList.remove("fits", "framed");
      const fits = frame.scrollWidth <= frame.clientWidth && innerWidth > 640;
      frame.classList.add(fits ? "fits" : "framed");
    }
  }

  for (const board of boards) board.apply();
  read();
  addEventListener("hashchange", read);
  addEventListener("resize", measure);
})();
