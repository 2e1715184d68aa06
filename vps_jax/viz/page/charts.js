// The timeline of identities and the areas over time.

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
