// The picture under its colours, moving in time, and the list of classes.

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
