// Tables that are sorted by a click: numbers of a video, scores of an evaluation.

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
