// The page of a board: answers, the first picture, the table, other pictures, origin.
const BUILT = {
  interval: "95 % interval", rank: "places", seeds: "seeds", status: "status", name: "row",
};
const FIRST = 30;
const tip = el("div", { id: "tip", hidden: true });
const redraws = [];

// Draws into `frame` now and whenever its width changes.
function draws(frame, draw) {
  let width = 0;
  const again = () => {
    width = Math.floor(frame.clientWidth);
    if (width > 0) frame.replaceChildren(draw(width));
  };
  redraws.push(() => { if (Math.floor(frame.clientWidth) !== width) again(); });
  requestAnimationFrame(again);
  return again;
}

function render(board, level) {
  const state = { need: board.score, family: "", query: "", view: board.views[0], sort: board.score,
    down: false, all: board.rows.length <= FIRST + 6 };
  const root = el("section", { class: "board" });
  if (level === 1) {
    root.append(el("header", {}, el("p", { class: "by" }, board.title), el("h1", {}, board.question)));
  }
  const first = el("div", { class: "first" });
  root.append(first);
  const drawn = board.rows.some((row) => scoreOf(board, row, board.score));
  if (board.rows.length && !drawn) board.unknown.push("No row has a score, so none is drawn.");
  first.classList.toggle("alone", !drawn);
  first.append(...answers(board));
  if (board.rows.length) {
    const picture = drawn ? pictureOf(board, state) : {};
    const table = tableOf(board, state);
    if (drawn) first.append(picture.node);
    const chips = filters(board, state, () => { table.apply(); dim(root, state.family); });
    root.append(...[chips, table.node, figures(board)].filter(Boolean));
    picture.changed = () => dim(root, state.family);
    link(root, table);
  }
  root.append(...board.folds.map(folded));
  board.parts.forEach((part, i) => root.append(partOf(part, level, i === 0 && !board.rows.length)));
  return root;
}

// Buttons of which one is pressed; with `none`, pressing it again releases it.
function choice(label, items, chosen, pick, none = false) {
  const buttons = items.map(([value, words, attributes]) => el("button", { type: "button",
    "aria-pressed": String(value === chosen), ...attributes, onclick: () => {
      chosen = none && value === chosen ? "" : value;
      buttons.forEach((b, i) => b.setAttribute("aria-pressed", String(items[i][0] === chosen)));
      pick(chosen);
    } }, words));
  return el("div", { class: "choice", role: "group", "aria-label": label }, buttons);
}

// A number and its unit stay on one line.
const joined = (words) => words.replace(/(\d) (?=(?:%|ms|s|B|KiB|MiB|nats|bits)(?![a-z]))/g, "$1\u00a0");

function answers(board) {
  const lists = [board.needs.map((need) => el("li", { class: need.known ? "" : "open" },
    el("b", {}, need.need), " ", joined(need.answer))), board.unknown.map((words) => el("li", { class: "open" }, words))];
  return lists.filter((items) => items.length).map((items) => el("ul", { class: "answers" }, items));
}

function pictureOf(board, state) {
  const frame = el("div", { class: "frame" }), made = { node: null, changed: () => {} };
  const again = draws(frame, (width) => {
    const drawn = ranking(board, state.need, width, state.all ? Infinity : FIRST);
    requestAnimationFrame(() => made.changed());
    return drawn;
  });
  const keys = [...new Set([board.score, ...board.needs.map((n) => n.column)])]
    .filter((key) => key && board.limits[key]);
  const choose = keys.length > 1 && choice("What the picture shows",
    keys.map((key) => [key, columnOf(board, key).label]), state.need, (key) => { state.need = key; again(); });
  const rest = board.rows.length > FIRST + 6 && el("button", { type: "button", class: "rest",
    onclick: (event) => {
      state.all = !state.all;
      event.target.textContent = state.all ? `Show ${FIRST} rows` : `Show all ${board.rows.length} rows`;
      again();
    } }, `Show all ${board.rows.length} rows`);
  const { outside } = board.limits[board.score];
  const beyond = board.floors.filter((f) => outside.includes(f.name)).map((f) => `${f.name} ${f.texts[board.score]}`);
  const tiers = board.rows.some((row) => row.tier != null);
  const bars = board.rows.some((row) => row.score?.low != null);
  const explained = board.floors.filter((f) => !beyond.some((text) => text.startsWith(f.name)))
    .map((f) => `${f.name}: ${f.explain}`);
  const caption = ["A row is one backbone and its settings; its seeds are runs that begin with other random numbers.",
    `Dot: mean over seeds; ${bars ? "bar: 95 % interval; " : ""}small dots: single seeds.`,
    board.rows.some((row) => !row.takes_part) && "Hollow: takes part in no claim.",
    tiers && "Bracket: rows of one tier, none proven worse than the first of it.",
    explained.length && `Dashed: what needs no learning (${explained.join("; ")}).`,
    beyond.length && `Outside the picture: ${beyond.join(", ")}.`].filter(Boolean).join(" ");
  made.node = el("figure", { class: "main" }, choose, frame, rest, el("figcaption", {}, caption));
  return made;
}

function filters(board, state, changed) {
  const names = [...new Set(board.rows.map((row) => row.family))];
  const chips = choice("Filter by family", names.map((name) => [name, name, { style: `--c:${colorOf(name)}` }]), "",
    (family) => { state.family = family; changed(); }, true);
  chips.className = "chips";
  return names.length > 1 && chips;
}

function tableOf(board, state) {
  const thead = el("thead", {}), tbody = el("tbody", {}), count = el("output", { "aria-live": "polite" });
  const frame = el("div", { class: "scroll tall" }, el("table", { class: "rows" }, thead, tbody));
  const column = (key) => columnOf(board, key) || { title: BUILT[key], better: key === "rank" ? "low" : null };
  let entries = [], keys = [];

  function value(entry, key) {
    const { row, floor } = entry;
    if (floor) return key === "name" ? floor.name : floor.cells[key];
    if (key === "name" || key === "seeds" || key === "status") return row[key];
    if (key === "rank") return row.rank?.[0];
    if (key === "interval") return row.score?.low == null ? null : row.score.high - row.score.low;
    if (key !== board.score) return row.cells[key];
    return row.failed ? null : row.score?.mean;
  }
  function cell(entry, key) {
    const { row, floor } = entry, words = (floor || row).texts[key] || "";
    if (key === "name") {
      if (floor) return el("th", { scope: "row", title: floor.explain }, floor.name, " ", el("small", {}, "floor"));
      entry.button = el("button", { type: "button", "aria-expanded": "false", onclick: () => toggle(entry) }, row.name);
      return el("th", { scope: "row", style: `--c:${colorOf(row.family)}` }, entry.button);
    }
    if (key === "status" && row) {
      return el("td", { class: "words" }, row.status === "ok" ? words
        : [el("b", {}, row.status, " "), el("small", {}, row.reason)]);
    }
    const td = el("td", {}, words), raw = value(entry, key);
    if (row && columnOf(board, key)?.group === "task") {
      const all = board.rows.map((r) => r.cells[key]).filter((v) => typeof v === "number");
      const [low, high] = [Math.min(...all), Math.max(...all)];
      if (typeof raw !== "number") {
        td.className = "hole";
        td.title = "no run";
      } else {
        const part = high > low ? (raw - low) / (high - low) : 1;
        const share = column(key).unit === "%" ? Math.max(0, Math.min(1, raw)) : part;
        td.className = "heat";
        td.style.setProperty("--heat", `${Math.round(45 * (column(key).better === "low" ? 1 - share : share))}%`);
      }
    }
    return td;
  }
  function detail(row) {
    const facts = [["family", row.family], ["status", row.status], ["reason", row.reason], ["verdict", row.verdict], ["takes no part", row.why_not],
      ["seeds", row.score?.values?.map((v) => number(v, 5)).join(", ")], ["runs", row.runs?.join(", ")]];
    return el("td", { colspan: keys.length }, el("dl", {}, facts.filter(([, words]) => words)
      .map(([name, words]) => [el("dt", {}, name), el("dd", {}, words)])),
      row.log?.length ? el("pre", {}, row.log.join("\n")) : null);
  }
  function toggle(entry) {
    const open = entry.detail.hidden;
    if (open && !entry.detail.firstChild) entry.detail.append(detail(entry.row));
    entry.detail.hidden = !open;
    entry.button.setAttribute("aria-expanded", String(open));
  }

  function build() {
    const own = ["name", board.score, "interval", "rank", "seeds"];
    keys = [...own, ...(state.view?.columns || []).filter((key) => !own.includes(key) && columnOf(board, key)), "status"]
      .filter((key) => key === "name" || board.rows.some((row) => row.texts[key]));
    thead.replaceChildren(el("tr", {}, keys.map((key) => el("th", { scope: "col", "data-key": key,
      class: key === "status" ? "words" : "" }, el("button", { type: "button", title: column(key).explain,
        onclick: () => { state.down = state.sort === key ? !state.down : column(key).better === "high"; state.sort = key; apply(); },
      }, column(key).title)))));
    entries = [...board.rows.map((row) => ({ row })), ...board.floors.map((floor) => ({ floor }))];
    for (const entry of entries) {
      const { row, floor } = entry;
      entry.tr = el("tr", { class: floor ? "floor" : row.status === "ok" ? "row" : "row bad", "data-row": row?.name },
        keys.map((key) => cell(entry, key)));
      entry.detail = row && el("tr", { class: "detail", hidden: true });
    }
    apply();
  }
  function apply() {
    const words = state.query.toLowerCase().split(/\s+/).filter(Boolean);
    const way = state.down ? -1 : 1;
    const missing = (v) => v === null || v === undefined || v === "";
    entries.sort((a, b) => {
      const [x, y] = [value(a, state.sort), value(b, state.sort)];
      if (missing(x) || missing(y)) return missing(x) - missing(y);
      return way * (typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y), "en", { numeric: true }));
    });
    let shown = 0;
    for (const { row, floor, tr, detail: below, button } of entries) {
      const text = row ? `${row.name} ${row.title || ""} ${row.backbone} ${row.family} ${row.status}`.toLowerCase() : floor.name;
      const fits = words.every((word) => text.includes(word)) && (!state.family || row?.family === state.family);
      tr.hidden = !fits;
      if (below) below.hidden = !fits || button.getAttribute("aria-expanded") !== "true";
      shown += Boolean(row && fits);
      tbody.append(tr, ...(below ? [below] : []));
    }
    for (const th of thead.rows[0].cells) {
      if (th.dataset.key === state.sort) th.setAttribute("aria-sort", state.down ? "descending" : "ascending");
      else th.removeAttribute("aria-sort");
    }
    count.textContent = shown === board.rows.length ? `${shown} row${shown === 1 ? "" : "s"}`
      : shown ? `${shown} of ${board.rows.length} rows` : "no row fits";
  }
  state.down = columnOf(board, board.score).better === "high";
  const views = choice("Columns", board.views.map((view) => [view, view.name]), state.view,
    (view) => { state.view = view; build(); });
  const bar = el("div", { class: "bar" },
    el("input", { type: "search", placeholder: "Search", "aria-label": "Search rows",
      oninput: (event) => { state.query = event.target.value; apply(); } }),
    board.views.length > 1 && views, count);
  build();
  const open = (name) => {
    const entry = entries.find((other) => other.row?.name === name);
    if (entry.detail.hidden) toggle(entry);
    entry.tr.scrollIntoView({ block: "center" });
    entry.button.focus({ preventScroll: true });
  };
  return { node: el("div", { class: "table" }, bar, frame), apply, open };
}

function figures(board) {
  const kinds = { scatter, curves, profile };
  const drawn = board.figures.map((figure) => {
    const frame = el("div", { class: "frame" });
    draws(frame, (width) => kinds[figure.kind](board, figure, width));
    return el("figure", {}, el("h3", {}, figure.title), frame);
  });
  return drawn.length > 0 && el("div", { class: "figures" }, drawn);
}

function folded({ title, header, rows, facts }) {
  const table = rows.length > 0 && el("div", { class: "scroll" }, el("table", { class: "plain" },
    el("thead", {}, el("tr", {}, header.map((name) => el("th", { scope: "col" }, name)))),
    el("tbody", {}, rows.map((line) => el("tr", {}, line.map((cell) => el("td", {}, cell)))))));
  return el("details", {}, el("summary", {}, title), table, el("dl", {}, facts.map(([name, words]) =>
    [el("dt", {}, name), words.length === 1 ? el("dd", {}, words) : el("dd", {}, el("ul", {}, words.map((w) => el("li", {}, w))))])));
}

// A board inside a board: drawn when it is first opened.
function partOf(part, level, open) {
  const answer = part.needs[0]?.answer || part.unknown[0] || "";
  const node = el("details", { class: "part", open }, el("summary", {}, el("b", {}, part.title), " ", el("small", {}, answer)));
  const show = () => { if (node.open && node.children.length === 1) node.append(render(part, level + 1)); };
  node.addEventListener("toggle", show);
  show();
  return node;
}

function dim(root, family) {
  for (const mark of root.querySelectorAll(".mark")) {
    mark.classList.toggle("faint", Boolean(family) && mark.dataset.family !== family);
  }
}

// A row and its marks light up together; arrows walk through the marks of a picture.
function link(root, table) {
  let lit = null;
  const light = (name, at, words) => {
    lit = name;
    root.classList.toggle("lit", name !== null);
    for (const node of root.querySelectorAll("[data-row]")) node.classList.toggle("hot", node.dataset.row === name);
    tip.hidden = !words;
    if (!words) return;
    tip.textContent = words;
    tip.style.left = `${Math.max(8, Math.min(at.x + 14, innerWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${at.y > tip.offsetHeight + 20 ? at.y - tip.offsetHeight - 12 : at.y + 18}px`;
  };
  // A board inside this one has listeners of its own.
  const near = (event, what = ".mark") =>
    event.target.closest?.("section.board") === root ? event.target.closest(what) : null;
  root.addEventListener("pointermove", (event) => {
    const mark = near(event), row = near(event, "tr.row");
    if (mark) light(mark.dataset.row, { x: event.clientX, y: event.clientY }, mark.dataset.tip);
    else if ((row?.dataset.row ?? null) !== lit) light(row?.dataset.row ?? null);
  });
  root.addEventListener("pointerleave", () => light(null));
  root.addEventListener("click", (event) => {
    const mark = near(event);
    // A finger has no hover: its first touch says what the mark is, which stays.
    if (mark && matchMedia("(hover: hover)").matches) table.open(mark.dataset.row);
    else if (mark) light(mark.dataset.row, { x: event.clientX, y: event.clientY }, mark.dataset.tip);
  });
  root.addEventListener("keydown", (event) => {
    const svg = near(event, "svg");
    if (!svg || !["ArrowDown", "ArrowUp", "Enter", "Escape"].includes(event.key)) return;
    event.preventDefault();
    const marks = [...svg.querySelectorAll(".mark")], i = marks.findIndex((mark) => mark.dataset.row === lit);
    if (event.key === "Escape") return light(null);
    if (event.key === "Enter") return i >= 0 && table.open(lit);
    const mark = marks[Math.max(0, Math.min(marks.length - 1, event.key === "ArrowDown" ? i + 1 : i - 1))];
    const box = mark.getBoundingClientRect();
    light(mark.dataset.row, { x: box.left + box.width / 2, y: box.top }, mark.dataset.tip);
  });
}

const data = JSON.parse(document.getElementById("board").textContent);
document.body.append(el("main", {}, render(data, 1)), tip);
addEventListener("resize", () => redraws.forEach((redraw) => redraw()));
document.addEventListener("toggle", () => redraws.forEach((redraw) => redraw()), true);
addEventListener("beforeprint", () => document.querySelectorAll("details:not(.part)").forEach((fold) => { fold.open = true; }));
