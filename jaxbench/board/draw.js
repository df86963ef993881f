"use strict";
// Pictures of a board as SVG, drawn at the width there is.
const SVG = "http://www.w3.org/2000/svg";
const pen = document.createElement("canvas").getContext("2d");
const COLORS = 13;
const families = new Map();

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child != null && child !== false));
  return node;
}
// Children that are text stay text: nothing of a result is ever read as HTML.
const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const shape = (tag, attributes, ...children) =>
  fill(document.createElementNS(SVG, tag), attributes, children);
const said = (x, y, words, attributes) => shape("text", { x, y, ...attributes }, words);

function widthOf(words, size = 12) {
  pen.font = `${size}px ${getComputedStyle(document.body).fontFamily}`;
  return pen.measureText(words).width;
}
function shorten(words, most) {
  if (widthOf(words) <= most) return words;
  let end = words.length;
  while (end > 1 && widthOf(words.slice(0, end) + "…") > most) end--;
  return words.slice(0, end) + "…";
}
function colorOf(family) {
  if (!families.has(family)) families.set(family, families.size % COLORS);
  return `var(--f${families.get(family)})`;
}
const number = (value, digits = 4) =>
  Number(value.toPrecision(digits)).toLocaleString("en", { maximumSignificantDigits: digits });

// A scale: from values to pixels, with ticks whose labels do not touch.
function scale(low, high, from, to, log) {
  const way = log ? Math.log10 : (value) => value;
  const at = (value) => from + ((way(value) - way(low)) / (way(high) - way(low) || 1)) * (to - from);
  const step = 10 ** Math.floor(Math.log10((high - low) / 4));
  const wide = [5, 2, 1].map((k) => k * step).find((k) => (high - low) / k >= 4) || step;
  let ticks = [];
  if (log) {
    for (let power = Math.floor(way(low)); power <= way(high); power++) {
      for (const k of [1, 2, 5]) ticks.push(k * 10 ** power);
    }
    if (high / low > 300) ticks = ticks.filter((v) => Number.isInteger(Math.round(way(v) * 1e6) / 1e6));
  }
  if (ticks.filter((v) => v >= low && v <= high).length < 3) {
    ticks = [];
    for (let k = Math.ceil(low / wide); k * wide <= high; k++) ticks.push(k * wide || 0);
  }
  const digits = Math.max(0, -Math.floor(Math.log10(wide) + 1e-9));
  const label = (value) => {
    if (Math.abs(value) >= 1e4) return value.toLocaleString("en", { notation: "compact" });
    if (log) return value.toLocaleString("en", { maximumSignificantDigits: 3 });
    return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  };
  let end = -Infinity;
  const shown = ticks.filter((v) => v >= low && v <= high).map((value) => ({ value, x: at(value), label: label(value) }));
  const across = Math.abs(to - from) > 0 && to > from;
  return { at, ticks: shown.filter((tick) => {
    const half = across ? widthOf(tick.label, 11) / 2 + 5 : 8;
    const place = across ? tick.x : -tick.x;
    if (place - half < end) return false;
    end = place + half;
    return true;
  }) };
}

function axisBelow(x, top, bottom, title, width) {
  return [
    x.ticks.map((t) => [
      shape("path", { d: `M${t.x} ${top}V${bottom}`, class: "grid" }),
      said(t.x, bottom + 15, t.label, { class: "tick", "text-anchor": "middle" }),
    ]),
    said(width / 2, bottom + 34, shorten(title, width - 8), { class: "axis", "text-anchor": "middle" }),
  ];
}
function axisLeft(y, left, right, title) {
  return [
    y.ticks.map((t) => [
      shape("path", { d: `M${left} ${t.x}H${right}`, class: "grid" }),
      said(left - 6, t.x + 4, t.label, { class: "tick", "text-anchor": "end" }),
    ]),
    said(0, 12, title, { class: "axis" }),
  ];
}
const canvas = (width, height, name, ...children) => shape(
  "svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", tabindex: 0, "aria-label": name }, children);
// What belongs to a row: lit together, told by `data-tip`, opened by a click.
const group = (row, tip, ...children) =>
  shape("g", { class: "mark", "data-row": row.name, "data-family": row.family, "data-tip": tip,
    style: `color:${colorOf(row.family)}` }, children);

function scoreOf(board, row, key) {
  const mean = key === board.score ? row.score?.mean : row.cells[key];
  const around = key === board.score ? row.score : row.spread?.[key];
  return typeof mean === "number" ? { values: [], ...around, mean } : null;
}
// Rows come in the order of the score, those with failed seeds behind the others.
function sorted(board, key, rows) {
  const way = columnOf(board, key).better === "high" ? -1 : 1;
  return rows.map((row) => ({ row, score: scoreOf(board, row, key) })).filter((e) => e.score)
    .sort((a, b) => key === board.score ? 0 : way * (a.score.mean - b.score.mean));
}
const columnOf = (board, key) => board.columns.find((column) => column.key === key);
function tipOf(board, row, key) {
  const lines = [row.name, `${columnOf(board, key).title}: ${row.texts[key] || "none"}`];
  if (key === board.score && row.texts.interval) lines.push(`95 % interval ${row.texts.interval}`);
  if (row.texts.rank) lines.push(`place ${row.texts.rank} of ${board.rows.length}`);
  lines.push(`${row.seeds} seed${row.seeds === 1 ? "" : "s"}${row.failed ? ` (${row.failed} failed)` : ""}, ${row.family}`);
  if (row.why_not) lines.push(row.why_not);
  return lines.join("\n");
}

// The first picture: a line for each row, the best on top.
function ranking(board, key, width, most) {
  const column = columnOf(board, key), ends = board.limits[key];
  const all = sorted(board, key, board.rows), entries = all.slice(0, most);
  const lost = board.rows.filter((row) => row.status !== "ok" && !scoreOf(board, row, key)).slice(0, most);
  if (!all.length) return el("p", { class: "muted" }, `Nothing to draw: no row has a value for ${column.title}.`);
  const need = board.needs.find((other) => other.column === key);
  const tier = ({ row }) => key === board.score ? row.tier : need?.leaders.includes(row.name) ? 1 : null;
  const names = [...entries.map((e) => e.row), ...lost].map((row) => row.name);
  const left = Math.min(0.4 * width, 14 + Math.max(...names.map((name) => widthOf(name))));
  const right = width - (entries.some((e) => tier(e) != null) ? 40 : 12);
  const floors = board.floors.filter((f) => f.cells[key] >= ends.low && f.cells[key] <= ends.high)
    .sort((a, b) => a.cells[key] - b.cells[key]);
  const x = scale(ends.low, ends.high, left, right), levels = [];
  const labels = floors.map((floor) => {
    const at = x.at(floor.cells[key]), words = shorten(floor.name, right - left), half = widthOf(words, 11) / 2 + 4;
    const middle = Math.max(left + half, Math.min(right - half, at));
    let level = levels.findIndex((end) => end < middle - half);
    if (level < 0) level = levels.length;
    levels[level] = middle + half;
    return { at, middle, level, words, floor };
  });
  const step = 18, top = 8 + 14 * levels.length, bottom = top + step * entries.length;
  const height = bottom + 44 + step * lost.length;
  const line = ({ row, score }, i) => {
    const y = top + step * (i + 0.5), over = score.mean > ends.high, marks = [];
    const px = (value) => x.at(Math.max(ends.low, Math.min(ends.high, value)));
    if (over || score.mean < ends.low) {
      marks.push(said(over ? right : left, y + 4, over ? `${number(score.mean)} ▸` : `◂ ${number(score.mean)}`,
        { class: "tick", "text-anchor": over ? "end" : "start" }));
    } else {
      if (score.low != null) marks.push(shape("path", { d: `M${px(score.low)} ${y}H${px(score.high)}`, class: "interval" }));
      if (score.values.length > 1) {
        marks.push(score.values.map((v) => shape("circle", { cx: px(v), cy: y, r: 2, class: "seed" })));
      }
      marks.push(shape("circle", { cx: px(score.mean), cy: y, r: 4.5, class: row.takes_part ? "dot" : "dot hollow" }));
    }
    return group(row, tipOf(board, row, key),
      shape("rect", { x: 0, y: y - step / 2, width, height: step, class: "catch" }),
      said(left - 8, y + 4, shorten(row.name, left - 12), { "text-anchor": "end", class: "name" }), marks);
  };
  const brackets = [];
  entries.forEach((entry, i) => {
    const own = tier(entry), last = brackets.at(-1);
    if (own == null) return;
    if (last && last.own === own) last.end = i;
    else brackets.push({ own, start: i, end: i });
  });
  const fails = lost.map((row, i) => {
    const y = bottom + 44 + step * (i + 0.5);
    return group(row, `${row.name}\n${row.status}: ${row.reason}`,
      shape("rect", { x: 0, y: y - step / 2, width, height: step, class: "catch" }),
      said(left - 8, y + 4, shorten(row.name, left - 12), { "text-anchor": "end", class: "name" }),
      said(left + 4, y + 4, shorten(`${row.status}: ${row.reason}`, width - left - 8), { class: "lost" }));
  });
  return canvas(width, height, `${column.title} of ${all.length} rows, best first`,
    axisBelow(x, top, bottom, column.axis, width),
    labels.map((f) => [
      shape("path", { d: `M${f.at} ${6 + 14 * levels.length}V${bottom}`, class: "floor" }),
      said(f.middle, 11 + 14 * f.level, f.words, { class: "floorname", "text-anchor": "middle" }),
    ]),
    entries.map(line), fails,
    brackets.map(({ own, start, end }) => {
      const [a, b] = [top + step * start + 3, top + step * (end + 1) - 3], edge = right + 14;
      return [
        shape("path", { d: `M${edge - 5} ${a}H${edge}V${b}H${edge - 5}`, class: "bracket" }),
        said(edge + 5, (a + b) / 2 + 4, String(own), { class: "tick" }),
      ];
    }));
}

// Labels beside points: each takes the first place that touches nothing, or none.
function placeLabels(points, box) {
  const taken = points.map((p) => [p.x - 5, p.y - 5, p.x + 5, p.y + 5]);
  const free = (b) => b[0] >= box[0] && b[2] <= box[2] && b[1] >= box[1] && b[3] <= box[3] &&
    !taken.some((t) => b[0] < t[2] && b[2] > t[0] && b[1] < t[3] && b[3] > t[1]);
  return points.flatMap((p) => {
    const w = widthOf(p.words, 11) + 2;
    for (const [dx, dy] of [[7, -6], [-7 - w, -6], [-w / 2, -19], [-w / 2, 7], [6, -17], [6, 5], [-w - 4, -17], [-w - 4, 5]]) {
      const b = [p.x + dx, p.y + dy, p.x + dx + w, p.y + dy + 12];
      if (!free(b)) continue;
      taken.push(b);
      return [{ ...p, left: b[0], base: b[1] + 10 }];
    }
    return [];
  });
}

function scatter(board, figure, width) {
  const [cx, cy] = [columnOf(board, figure.x), columnOf(board, figure.y)], ends = board.limits[figure.y];
  const value = (row, key) => key === board.score ? row.score?.mean : row.cells[key];
  const known = board.rows.map((row) => ({ row, a: value(row, figure.x), b: value(row, figure.y) }))
    .filter((p) => typeof p.a === "number" && typeof p.b === "number" && (p.a > 0 || !figure.log_x));
  const inside = known.filter((p) => p.b >= ends.low && p.b <= ends.high);
  if (new Set(inside.map((p) => p.a)).size < 2) {
    return el("p", { class: "muted" }, "Nothing to draw: fewer than two rows have different values of both.");
  }
  const xs = inside.map((p) => p.a), [low, high] = [Math.min(...xs), Math.max(...xs)];
  const pad = figure.log_x ? [low / 1.15, high * 1.15] : [low - 0.05 * (high - low), high + 0.05 * (high - low)];
  const note = figure.note && figure.note.value <= 2 * high && figure.note.value >= low / 2 ? figure.note : null;
  if (note) pad[1] = Math.max(pad[1], note.value * 1.05);
  const height = Math.min(380, Math.max(280, 0.6 * width)), bottom = height - 44, top = 24, right = width - 8;
  const left = 10 + Math.max(...scale(ends.low, ends.high, bottom, top).ticks.map((t) => widthOf(t.label, 11)));
  const x = scale(pad[0], pad[1], left, right, figure.log_x), y = scale(ends.low, ends.high, bottom, top);
  const better = (a, b, way) => (way === "high" ? a >= b : a <= b);
  const best = (p) => !inside.some((q) => q !== p && (q.a !== p.a || q.b !== p.b) &&
    better(q.a, p.a, cx.better || "low") && better(q.b, p.b, cy.better));
  const points = inside.map((p) => ({ ...p, x: x.at(p.a), y: y.at(p.b), best: best(p), words: p.row.name }))
    .sort((p, q) => q.best - p.best || p.b - q.b);
  const front = points.filter((p) => p.best).sort((p, q) => p.a - q.a);
  const edge = front.map((p, i) => i ? `H${p.x}V${p.y}` : `M${p.x} ${p.y}`).join("");
  const labels = placeLabels(points, [left, top, right, bottom]);
  const beyond = known.filter((p) => !inside.includes(p)).map((p) => p.row.name);
  if (figure.note && !note) beyond.push(figure.note.text.replace(/\.$/, ""));
  const words = `Line: rows that none beats in both.${beyond.length ? ` Beyond the picture: ${beyond.join(", ")}.` : ""}`;
  return el("div", {}, canvas(width, height, figure.title,
    axisBelow(x, top, bottom, cx.axis, width), axisLeft(y, left, right, cy.axis),
    shape("path", { d: edge, class: "front" }),
    note && [shape("path", { d: `M${x.at(note.value)} ${top}V${bottom}`, class: "floor" }),
      said(x.at(note.value) - 4, top + 10, shorten(note.text, x.at(note.value) - left), { class: "floorname", "text-anchor": "end" })],
    points.map((p) => group(p.row, `${tipOf(board, p.row, figure.y)}\n${cx.title}: ${p.row.texts[figure.x]}`,
      shape("circle", { cx: p.x, cy: p.y, r: 11, class: "catch" }),
      shape("circle", { cx: p.x, cy: p.y, r: 4.5, class: p.row.takes_part ? "dot" : "dot hollow" }))),
    labels.map((p) => said(p.left, p.base, p.words, { class: p.best ? "label best" : "label" }))),
    el("figcaption", {}, words));
}

// Lines along x: learning curves, performance profiles. series: {row, points, band, tip}.
function lines(series, titles, ends, width, name) {
  if (!series.length) return el("p", { class: "muted" }, "Nothing to draw: no row has a curve.");
  const xs = series.flatMap((s) => s.points.map((p) => p[0]));
  const height = Math.min(380, Math.max(280, 0.6 * width)), bottom = height - 44, top = 24;
  const left = 10 + Math.max(...scale(ends.low, ends.high, bottom, top).ticks.map((t) => widthOf(t.label, 11)));
  const right = width - Math.min(0.3 * width, 12 + Math.max(...series.map((s) => widthOf(s.row.name, 11))));
  const x = scale(Math.min(...xs), Math.max(...xs), left, right), y = scale(ends.low, ends.high, bottom, top);
  const path = (points) => points.map((p, i) => `${i ? "L" : "M"}${x.at(p[0]).toFixed(1)} ${y.at(p[1]).toFixed(1)}`).join("");
  const clip = `clip${lines.count = (lines.count || 0) + 1}`, taken = [];
  const labels = series.map((s) => ({ s, y: y.at(s.points.at(-1)[1]) })).filter((l) => {
    if (l.y < top || l.y > bottom || taken.some((t) => Math.abs(t - l.y) < 12)) return false;
    taken.push(l.y);
    return true;
  });
  return canvas(width, height, name, axisBelow(x, top, bottom, titles[0], width), axisLeft(y, left, right, titles[1]),
    shape("clipPath", { id: clip }, shape("rect", { x: left, y: top, width: right - left, height: bottom - top })),
    shape("g", { "clip-path": `url(#${clip})` }, series.map((s) => group(s.row, s.tip,
      s.band && shape("path", { d: `${path(s.band.low)}${path(s.band.high.slice().reverse()).replace("M", "L")}Z`, class: "band" }),
      shape("path", { d: path(s.points), class: "line" }), shape("path", { d: path(s.points), class: "catch wide" })))),
    labels.map((l) => said(right + 5, l.y + 4, shorten(l.s.row.name, width - right - 6), { class: "label" })));
}
function curves(board, figure, width) {
  const column = columnOf(board, board.score);
  const series = sorted(board, board.score, board.rows.filter((row) => row.curve?.length > 1))
    .map(({ row }) => ({ row, points: row.curve, tip: tipOf(board, row, board.score) }));
  const values = series.flatMap((s) => s.points.map((p) => p[1])).sort((a, b) => a - b);
  const cut = (share) => values[Math.round(share * (values.length - 1))];
  const [low, high] = column.better === "high" ? [cut(0.05), cut(1)] : [cut(0), cut(0.95)];
  const pad = 0.04 * (high - low || 1);
  return lines(series, [figure.x_label || "updates", column.axis], { low: low - pad, high: high + pad }, width, figure.title);
}
function profile(board, figure, width) {
  const { tau, rows } = board.across.profiles, pairs = (ys) => ys.map((y, i) => [tau[i], y]);
  const series = board.rows.filter((row) => rows[row.name]).map((row) => ({
    row, points: pairs(rows[row.name].mean), tip: tipOf(board, row, board.score),
    band: rows[row.name].low && { low: pairs(rows[row.name].low), high: pairs(rows[row.name].high) },
  }));
  return lines(series, ["rescaled score, tau", "share of runs above tau"], { low: 0, high: 1.02 }, width, figure.title);
}
