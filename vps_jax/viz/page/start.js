// Choosing a video, keys, and what happens first.

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
