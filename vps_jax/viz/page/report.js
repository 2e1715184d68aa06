"use strict";
// Draws the page from its blocks of json: `head`, and `video0`, `video1`, ... as viz/report.py writes them.

const MOST_DECODED = 40; // pictures that are kept decoded
const LEAST_BAND = 0.09; // of the chart's height, from which on a band gets its name
const LONGEST_OPEN = 24; // rows of a table that is not folded
const HIGHLIGHT = [255, 255, 0];
const SVG = "http://www.w3.org/2000/svg";

const by = (id) => document.getElementById(id);
const read = (id) => JSON.parse(by(id).textContent);
const head = read("head");
const hidden = new Set(); // classes that are switched off, in all videos

let video = null; // the block of the video that is shown
let index = 0; // of its picture
let marked = 0; // track that is marked
let decoded = new Map(); // index of a picture -> {image, labels}
let timer = null;

// ---------------------------------------------------------------- small helpers

function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

const css = (color) => `rgb(${color.join(",")})`;
const className = (c) => (c < 0 ? "no class" : head.classes[c].name);
const segmentName = (s) => className(s.class) + (s.track ? ` ${s.track}` : "");
const percent = (share) => `${(100 * share).toFixed(share < 0.0995 ? 2 : 1)} %`;
const pixelsOf = (shape) => shape[0] * shape[1];

function bytesOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

// The way back from `pack_labels`: all low bytes, then all high bytes, rows XOR the row above.
async function unpackLabels(base64, width) {
  const stream = new Blob([bytesOf(base64)]).stream().pipeThrough(new DecompressionStream("deflate"));
  const planes = new Uint8Array(await new Response(stream).arrayBuffer());
  const count = planes.length / 2;
  const labels = new Uint16Array(count);
  for (let i = 0; i < count; i++) {
    labels[i] = (planes[i] | (planes[count + i] << 8)) ^ (i < width ? 0 : labels[i - width]);
  }
  return labels;
}

async function decode(i) {
  if (decoded.has(i)) return decoded.get(i);
  const into = decoded; // another video may be chosen meanwhile
  const picture = video.pictures[i];
  const image = picture.image && createImageBitmap(new Blob([bytesOf(picture.image)], { type: "image/webp" }));
  const both = { labels: await unpackLabels(picture.labels, video.picture[1]), image: await image };
  into.set(i, both);
  if (into.size > MOST_DECODED) into.delete(into.keys().next().value);
  return both;
}

// ---------------------------------------------------------------- the picture

function paint(labels, opacity, borders) {
  const [height, width] = video.picture;
  const data = new ImageData(width, height);
  const pixels = new Uint32Array(data.data.buffer);
  const rgba = (color, alpha) => ((alpha << 24) | (color[2] << 16) | (color[1] << 8) | color[0]) >>> 0;
  const shown = video.segments.map((s) => s.class >= 0 && !hidden.has(s.class));
  const isMarked = video.segments.map((s) => s.track > 0 && s.track === marked);
  const fill = video.segments.map((s, i) => (shown[i] ? rgba(s.color, Math.round(255 * opacity)) : 0));
  const edge = rgba([255, 255, 255], Math.round(255 * Math.min(1, opacity + 0.3)));
  const strong = rgba(HIGHLIGHT, 255);
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at++) {
      const label = labels[at];
      const right = x + 1 < width ? labels[at + 1] : label;
      const below = y + 1 < height ? labels[at + width] : label;
      pixels[at] = fill[label];
      if (label === right && label === below) continue;
      if (isMarked[label] || isMarked[right] || isMarked[below]) pixels[at] = strong;
      else if (borders && (shown[label] || (right !== label && shown[right]) || shown[below])) pixels[at] = edge;
    }
  }
  return data;
}

async function draw() {
  const wanted = [video, index];
  const { image, labels } = await decode(index);
  if (wanted[0] !== video || wanted[1] !== index) return; // a later frame was asked for meanwhile
  const canvas = by("canvas");
  const [height, width] = video.picture;
  if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, width, height);
  if (image) context.drawImage(image, 0, 0, width, height);
  const colors = new OffscreenCanvas(width, height);
  colors.getContext("2d").putImageData(paint(labels, image ? by("opacity").value / 100 : 1, by("borders").checked), 0, 0);
  context.drawImage(colors, 0, 0);
  canvas.setAttribute("aria-label", `Frame ${stem()}: ${seenNow(labels).join(", ") || "nothing"}`);
  canvas.dataset.drawn = `${video.name} ${index}`;
}

function seenNow(labels) {
  const seen = new Set(labels);
  return video.segments.filter((s, i) => seen.has(i) && s.class >= 0 && !hidden.has(s.class)).map(segmentName);
}

const frame = () => video.pictures[index].frame;
const stem = (at = frame()) => video.stems[at];

function point(event) {
  const canvas = by("canvas");
  const box = canvas.getBoundingClientRect();
  const scale = Math.min(box.width / canvas.width, box.height / canvas.height); // object-fit: contain
  const x = Math.floor((event.clientX - box.left - (box.width - scale * canvas.width) / 2) / scale);
  const y = Math.floor((event.clientY - box.top - (box.height - scale * canvas.height) / 2) / scale);
  const both = decoded.get(index);
  if (!both || x < 0 || y < 0 || x >= canvas.width || y >= canvas.height) return null;
  return both.labels[y * canvas.width + x];
}

function sayPointed(event) {
  const label = point(event);
  if (label === null) return clearPointed();
  let area = 0;
  for (const one of decoded.get(index).labels) area += one === label;
  const segment = video.segments[label];
  const off = hidden.has(segment.class) ? ", hidden" : "";
  by("pointed").textContent = `${segmentName(segment)}: ${percent(area / pixelsOf(video.picture))} of the image${off}`;
}

function clearPointed() {
  by("pointed").textContent = "\u00a0";
}

// ---------------------------------------------------------------- moving in time

function go(to) {
  index = Math.max(0, Math.min(video.pictures.length - 1, to));
  const { time } = video.pictures[index];
  by("position").value = index;
  const clock = time === null ? "" : `, ${time.toFixed(2)} s`;
  by("place").textContent = `${stem()} (frame ${frame() + 1} of ${video.stems.length}${clock})`;
  by("position").setAttribute("aria-valuetext", by("place").textContent);
  const middle = (frame() + 0.5) / video.stems.length;
  for (const now of document.querySelectorAll(".now")) now.style.left = `${100 * middle}%`;
  const line = by("areas").querySelector("line");
  for (const end of ["x1", "x2"]) line.setAttribute(end, middle * video.stems.length);
  showShares();
  return draw();
}

function goNear(position) {
  const distance = (picture) => Math.abs(picture.frame - position);
  const nearest = video.pictures.reduce((best, one) => (distance(one) < distance(best) ? one : best));
  go(video.pictures.indexOf(nearest));
}

function goToPointer(event) {
  const box = event.currentTarget.getBoundingClientRect();
  goNear(Math.floor(((event.clientX - box.left) / box.width) * video.stems.length));
}

function pause() {
  clearTimeout(timer);
  timer = null;
  by("play").textContent = "Play";
  by("play").setAttribute("aria-pressed", "false");
}

function play() {
  if (timer !== null) return pause();
  by("play").textContent = "Pause";
  by("play").setAttribute("aria-pressed", "true");
  const step = async () => {
    const [now, next] = [video.pictures[index], video.pictures[index + 1]];
    const wait = next && now.time !== null && next.time !== null ? 1000 * (next.time - now.time) : 166;
    const started = performance.now();
    await go(next ? index + 1 : 0);
    if (timer !== null) timer = setTimeout(step, Math.max(10, Math.min(1000, wait) - (performance.now() - started)));
  };
  timer = setTimeout(step, 0);
}

// ---------------------------------------------------------------- classes

function setHidden(categories, off) {
  for (const c of categories) off ? hidden.add(c) : hidden.delete(c);
  showHidden();
}

function showHidden() {
  for (const row of by("classes").children) {
    const off = hidden.has(Number(row.dataset.class));
    row.classList.toggle("off", off);
    row.querySelector("input").checked = !off;
  }
  for (const row of by("tracks").children) row.classList.toggle("off", hidden.has(Number(row.dataset.class)));
  drawAreas();
  return go(index);
}

function listClasses() {
  const rows = [...video.classes].sort((a, b) => b.mean - a.mean).map((row) => {
    const c = row.class;
    const tracks = video.tracks.filter((t) => t.class === c);
    const box = make("input", { type: "checkbox", checked: !hidden.has(c) });
    box.addEventListener("change", () => setHidden([c], !box.checked));
    const swatch = make("span", { className: "swatch" });
    swatch.style.background = tracks.length ? stripes(tracks) : css(head.classes[c].color);
    const name = make("span", { className: "name", textContent: className(c) });
    if (tracks.length > 1) name.append(make("span", { className: "quiet", textContent: ` \u00d7 ${tracks.length}` }));
    const share = make("span", { className: "share", title: "share of the image in this frame" });
    const item = make("li", {}, make("label", {}, box, swatch, name, share));
    item.dataset.class = c;
    return item;
  });
  by("classes").replaceChildren(...rows);
}

// In the picture a thing has the colour of its track.
function stripes(tracks) {
  const colors = tracks.slice(0, 4).map((t) => css(video.segments[t.segment].color));
  const stops = colors.map((c, i) => `${c} ${(100 * i) / colors.length}% ${(100 * (i + 1)) / colors.length}%`);
  return `linear-gradient(90deg, ${stops.join(", ")})`;
}

function showShares() {
  const { areas } = video.pictures[index];
  for (const row of by("classes").children) {
    const share = (areas[row.dataset.class] ?? 0) / pixelsOf(video.size);
    row.querySelector(".share").textContent = share > 0 ? percent(share) : "\u2013";
  }
}

// ---------------------------------------------------------------- charts

function listTracks() {
  const rows = video.tracks.map((track) => {
    const color = css(video.segments[track.segment].color);
    const [first, last] = [track.spans[0][0], track.spans.at(-1)[1]];
    const swatch = make("span", { className: "swatch" });
    swatch.style.background = color;
    const button = make("button", { type: "button" }, swatch, `${className(track.class)} ${track.track}`);
    button.setAttribute("aria-pressed", "false");
    const parts = track.spans.length > 1 ? ` in ${track.spans.length} parts` : "";
    button.title = `from ${stem(first)} to ${stem(last)}${parts}`;
    button.addEventListener("click", () => mark(track, first));
    const lane = make("div", { className: "lane" }, ...track.spans.map((span) => drawSpan(span, color)));
    lane.append(make("div", { className: "now" }));
    lane.addEventListener("click", goToPointer);
    const row = make("div", { className: "track" }, button, lane);
    row.dataset.class = track.class;
    row.dataset.track = track.track;
    return row;
  });
  by("tracks").replaceChildren(...rows);
  by("tracks-section").hidden = !rows.length;
}

function drawSpan([first, last], color) {
  const span = make("div", { className: "span" });
  span.style.left = `${(100 * first) / video.stems.length}%`;
  span.style.width = `${(100 * (last + 1 - first)) / video.stems.length}%`;
  span.style.background = color;
  return span;
}

function mark(track, first) {
  marked = marked === track.track ? 0 : track.track;
  for (const row of by("tracks").children) {
    row.querySelector("button").setAttribute("aria-pressed", String(Number(row.dataset.track) === marked));
  }
  if (!marked) return draw();
  const [begin, end] = track.spans[0];
  const inside = video.pictures.findIndex((picture) => picture.frame >= begin && picture.frame <= end);
  return inside < 0 ? goNear(first) : go(inside);
}

// Stacked areas; x in frames, y in shares of the image from the bottom. A value stands in the middle of its frame.
function drawAreas() {
  const shown = [...video.classes].sort((a, b) => b.mean - a.mean).map((row) => row.class).filter((c) => !hidden.has(c));
  const frames = video.stems.length;
  const points = Math.ceil(frames / video.step);
  const total = pixelsOf(video.size);
  const layers = [new Float64Array(points)];
  for (const c of shown) layers.push(layers.at(-1).map((below, i) => below + video.areas[c][i] / total));
  const top = niceTop(layers.at(-1).reduce((a, b) => Math.max(a, b), 0));
  const corners = (layer) => {
    const inner = [...layer].map((value, i) => [Math.min(frames, i * video.step + 0.5), 1 - value / top]);
    return [[0, inner[0][1]], ...inner, [frames, inner.at(-1)[1]]];
  };
  const text = (list) => list.map(([x, y]) => `${x.toFixed(2)} ${y.toFixed(5)}`).join("L");
  const paths = shown.map((c, i) => {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("d", `M${text(corners(layers[i + 1]))}L${text(corners(layers[i]).reverse())}Z`);
    path.setAttribute("fill", css(head.classes[c].color));
    path.dataset.class = c;
    const title = document.createElementNS(SVG, "title");
    title.textContent = className(c);
    path.append(title);
    return path;
  });
  const line = document.createElementNS(SVG, "line");
  for (const [name, value] of Object.entries({ x1: 0, x2: 0, y1: 0, y2: 1 })) line.setAttribute(name, value);
  by("areas").setAttribute("viewBox", `0 0 ${frames} 1`);
  by("areas").setAttribute("aria-label", `Areas over time of ${shown.map(className).join(", ") || "nothing"}`);
  by("areas").replaceChildren(...paths, line);
  const labels = [1, 0.5, 0].map((part) => make("span", { textContent: `${+(100 * part * top).toFixed(2)} %` }));
  by("scale").replaceChildren(...labels);
  nameBands(shown, layers, top);
}

// Names of the bands that are high enough for one, where they are highest.
function nameBands(shown, layers, top) {
  const points = layers[0].length;
  const names = shown.flatMap((c, k) => {
    const height = (i) => (layers[k + 1][i] - layers[k][i]) / top;
    let best = 0;
    for (let i = 1; i < points; i++) if (height(i) > height(best)) best = i;
    if (height(best) < LEAST_BAND) return [];
    const name = make("span", { textContent: className(c) });
    name.style.left = `${Math.max(7, Math.min(93, (100 * (best + 0.5)) / points))}%`;
    name.style.top = `${100 * (1 - (layers[k + 1][best] + layers[k][best]) / 2 / top)}%`;
    return [name];
  });
  by("bands").replaceChildren(...names);
}

function niceTop(most) {
  const steps = [0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1];
  return steps.find((step) => most <= step + 1e-9) ?? 1;
}

function drawAxes() {
  const last = video.stems.length - 1;
  const places = [...new Set([0, Math.floor(last / 2), last])];
  for (const id of ["tracks-axis", "areas-axis"]) {
    by(id).replaceChildren(make("div", {}, ...places.map((at) => make("span", { textContent: stem(at) }))));
  }
}

// ---------------------------------------------------------------- tables

const cell = (value) => {
  if (value === null) return "\u2013";
  return typeof value === "number" && !Number.isInteger(value) ? value.toFixed(2) : String(value);
};

// A table whose columns sort it; `bars` is a column of percents that are drawn as well.
function drawTable(columns, rows, bars = -1) {
  const isText = columns.map((_, i) => rows.some((row) => typeof row[i] === "string"));
  const body = make("tbody");
  const lines = rows.map((row) => {
    const cells = row.map((value, i) => {
      const td = make("td", { textContent: cell(value), className: isText[i] ? "text" : "" });
      if (i === bars && typeof value === "number") {
        td.classList.add("bar");
        td.style.setProperty("--share", `${Math.max(0, Math.min(100, value))}%`);
      }
      return td;
    });
    return { row, line: make("tr", {}, ...cells) };
  });
  const heads = columns.map((column, i) => {
    const th = make("th", { scope: "col", className: isText[i] ? "text" : "" });
    const button = make("button", { type: "button", textContent: column, title: "sort" });
    button.addEventListener("click", () => {
      const before = th.getAttribute("aria-sort");
      const falls = before === "descending" || (!before && isText[i]) ? "ascending" : "descending";
      for (const other of heads) other.removeAttribute("aria-sort");
      th.setAttribute("aria-sort", falls);
      const sign = falls === "ascending" ? 1 : -1;
      lines.sort((a, b) => sign * order(a.row[i], b.row[i]));
      body.replaceChildren(...lines.map((one) => one.line));
    });
    th.append(button);
    return th;
  });
  body.append(...lines.map((one) => one.line));
  return make("div", { className: "scroll" }, make("table", {}, make("thead", {}, make("tr", {}, ...heads)), body));
}

function order(a, b) {
  if (a === null || b === null) return (b === null) - (a === null) || 0;
  return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
}

function showNumbers() {
  const kind = (c) => (head.classes[c].thing ? "thing" : "stuff");
  by("class-table").replaceChildren(drawTable(
    ["class", "kind", "frames", "mean share in %", "largest share in %"],
    video.classes.map((row) => [className(row.class), kind(row.class), row.frames, 100 * row.mean, 100 * row.most]),
    3,
  ));
  by("track-table").replaceChildren(drawTable(
    ["track", "class", "first frame", "last frame", "frames", "mean area in pixels", "mean score"],
    video.tracks.map((t) => [
      t.track, className(t.class), stem(t.spans[0][0]), stem(t.spans.at(-1)[1]), t.frames, t.pixels, t.score,
    ]),
  ));
  by("track-details").hidden = !video.tracks.length;
  const scores = video.scores.length ? [drawTable(video.scores.map((s) => s[0]), [video.scores.map((s) => s[1])])] : [];
  by("video-scores").replaceChildren(...scores);
}

function showEvaluation() {
  const sections = new Map();
  for (const one of head.tables) {
    if (!sections.has(one.heading)) sections.set(one.heading, make("section", {}, make("h2", { textContent: one.heading })));
    const bars = one.columns[0] === "id" ? 3 : one.columns[0] === "video" ? 1 : -1;
    const table = drawTable(one.columns, one.rows, bars);
    const long = one.rows.length > LONGEST_OPEN;
    sections.get(one.heading).append(
      ...(long
        ? [make("details", {}, make("summary", { textContent: `${one.title} (${one.rows.length} rows)` }), table)]
        : [make("h3", { textContent: one.title }), table]),
    );
  }
  for (const plot of head.plots) {
    const image = make("img", { src: `data:image/png;base64,${plot.png}`, alt: `Plot: ${plot.title}` });
    const title = make("summary", { textContent: `Plot: ${plot.title}` });
    sections.get("Scores")?.append(make("details", {}, title, make("figure", {}, image)));
  }
  by("evaluation").replaceChildren(...sections.values());
}

// ---------------------------------------------------------------- the page

function showVideo(i) {
  pause();
  [video, index, marked, decoded] = [read(`video${i}`), 0, 0, new Map()];
  by("video").value = i;
  by("previous-video").disabled = i === 0;
  by("next-video").disabled = i === head.videos.length - 1;
  by("player-title").textContent = video.name;
  by("position").max = video.pictures.length - 1;
  by("opacity-label").hidden = video.pictures[0].image === null;
  const [all, some] = [video.stems.length, video.pictures.length];
  const notes = [...video.notes];
  if (some < all) notes.push(`pictures of ${some} of its ${all} frames, evenly chosen; numbers are of all frames`);
  by("video-notes").replaceChildren(...notes.map((note) => make("li", { textContent: note })));
  clearPointed();
  listClasses();
  listTracks();
  drawAxes();
  showNumbers();
  return showHidden();
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const kind = event.target.tagName;
  if (kind === "SELECT" || (kind === "INPUT" && event.target.type === "range")) return; // they have keys of their own
  if (event.key === " " && (kind === "BUTTON" || kind === "INPUT" || kind === "SUMMARY")) return;
  const current = Number(by("video").value);
  const actions = {
    ArrowLeft: () => (pause(), go(index - 1)),
    ArrowRight: () => (pause(), go(index + 1)),
    Home: () => (pause(), go(0)),
    End: () => (pause(), go(video.pictures.length - 1)),
    " ": play,
    n: () => current + 1 < head.videos.length && showVideo(current + 1),
    p: () => current > 0 && showVideo(current - 1),
    a: () => setHidden([...hidden], false),
  };
  const action = actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!action) return;
  event.preventDefault();
  action();
}

function start() {
  document.title = `${head.title} - vps-jax report`;
  by("title").textContent = head.title;
  const frames = head.videos.reduce((sum, one) => sum + one.frames, 0);
  const count = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;
  by("summary").textContent = `${count(head.videos.length, "video")}, ${count(frames, "frame")}`;
  by("notes").replaceChildren(...head.notes.map((note) => make("li", { textContent: note })));
  by("picker").hidden = head.videos.length < 2;
  by("video").replaceChildren(...head.videos.map((one, i) => make("option", { value: i, textContent: one.name })));
  by("video").addEventListener("change", () => showVideo(Number(by("video").value)));
  by("previous-video").addEventListener("click", () => showVideo(Number(by("video").value) - 1));
  by("next-video").addEventListener("click", () => showVideo(Number(by("video").value) + 1));
  by("position").addEventListener("input", () => (pause(), go(Number(by("position").value))));
  by("play").addEventListener("click", play);
  by("back").addEventListener("click", () => (pause(), go(index - 1)));
  by("forward").addEventListener("click", () => (pause(), go(index + 1)));
  by("opacity").addEventListener("input", draw);
  by("borders").addEventListener("change", draw);
  by("all").addEventListener("click", () => setHidden([...hidden], false));
  by("none").addEventListener("click", () => setHidden(video.classes.map((row) => row.class), true));
  by("canvas").addEventListener("pointermove", sayPointed);
  by("canvas").addEventListener("pointerleave", clearPointed);
  by("canvas").addEventListener("click", (event) => {
    const label = point(event);
    if (label === null || video.segments[label].class < 0) return;
    const c = video.segments[label].class;
    setHidden([c], !hidden.has(c));
    sayPointed(event);
  });
  by("areas").addEventListener("click", goToPointer);
  document.addEventListener("keydown", onKey);
  showEvaluation();
  showVideo(0);
}

start();
