"use strict";
// What every part of the page uses: its blocks of json `head`, `video0`, `video1`, ... as viz/run_page.py writes them,
// and what is shown just now.

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
