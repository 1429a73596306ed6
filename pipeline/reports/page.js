"use strict";
document.documentElement.classList.add("scripted");
const parts = JSON.parse(document.getElementById("data").textContent);
const SIZE = 1000; // Places on a map are whole numbers up to this, MAP_SIZE of contents.py.
const REACH = 16; // Pixels within which a pointer finds an item.
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
const STEPS = { PageUp: -1, PageDown: 1 };

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function drawMap(map) {
  const width = map.canvas.clientWidth, scale = window.devicePixelRatio || 1;
  if (!width) return;
  map.canvas.width = map.canvas.height = Math.round(width * scale);
  map.unit = (width - 16) / SIZE;
  map.points = document.createElement("canvas");
  map.points.width = map.points.height = map.canvas.width;
  const context = map.points.getContext("2d");
  context.scale(scale, scale);
  const radius = map.x.length > 1500 ? 1.6 : 2.5;
  [0, 1, 2, 3, 4].forEach((popularity) => {
    context.fillStyle = colour("--p" + popularity);
    context.beginPath();
    map.x.forEach((x, i) => {
      if (map.part.classes[i] !== popularity) return;
      const [across, down] = placeOf(map, i);
      context.moveTo(across + radius, down);
      context.arc(across, down, radius, 0, 2 * Math.PI);
    });
    context.fill();
  });
  show(map, map.shown);
}

function placeOf(map, item) {
  return [8 + map.x[item] * map.unit, 8 + (SIZE - map.y[item]) * map.unit];
}

function show(map, item) {
  const context = map.canvas.getContext("2d"), tip = map.tip;
  map.shown = item;
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, map.canvas.width, map.canvas.height);
  context.drawImage(map.points, 0, 0);
  tip.hidden = item === undefined;
  if (tip.hidden) return;
  const scale = window.devicePixelRatio || 1, [across, down] = placeOf(map, item), width = map.canvas.clientWidth;
  context.scale(scale, scale);
  context.strokeStyle = colour("--text");
  context.lineWidth = 2;
  context.beginPath();
  context.arc(across, down, 6, 0, 2 * Math.PI);
  context.stroke();
  tip.textContent = map.part.titles[item] + " · " + map.part.counts[item];
  tip.style.left = 0; // Whether it is folded depends on where it stands.
  tip.style.left = Math.max(0, Math.min(across - tip.offsetWidth / 2, width - tip.offsetWidth)) + "px";
  tip.style.top = (down > width / 2 ? down - tip.offsetHeight - 10 : down + 14) + "px";
}

function nearest(map, event) {
  const box = map.canvas.getBoundingClientRect();
  let found, best = REACH * REACH;
  map.x.forEach((_, i) => {
    const [across, down] = placeOf(map, i);
    const distance = (across - event.clientX + box.left) ** 2 + (down - event.clientY + box.top) ** 2;
    if (distance < best) [found, best] = [i, distance];
  });
  return found;
}

// The item to which a key leads. An arrow: the nearest within 45 degrees of its direction, or else on that side. Since not
// every item is one of these, and several may stand in one place, the page keys lead through all in their order.
function neighbour(map, from, key) {
  if (key in STEPS) return (from + STEPS[key] + map.x.length) % map.x.length;
  const [dx, dy] = ARROWS[key];
  let found, best = [Infinity, Infinity];
  map.x.forEach((x, i) => {
    const right = x - map.x[from], up = map.y[i] - map.y[from];
    const along = right * dx + up * dy, across = Math.abs(right * dy) + Math.abs(up * dx);
    if (along <= 0) return;
    const rank = [across > along ? 1 : 0, right ** 2 + up ** 2];
    if (rank[0] < best[0] || (rank[0] === best[0] && rank[1] < best[1])) [found, best] = [i, rank];
  });
  return found;
}

function middle(map) {
  const distance = (i) => (map.x[i] - SIZE / 2) ** 2 + (map.y[i] - SIZE / 2) ** 2;
  return map.x.reduce((best, _, i) => (distance(i) < distance(best) ? i : best), 0);
}

const maps = [];
document.querySelectorAll(".maps").forEach((figures) => {
  const part = parts[figures.dataset.part];
  const mine = [...figures.querySelectorAll("canvas")].map((canvas) => ({
    canvas, part, tip: canvas.nextElementSibling, ...part.maps[canvas.dataset.run],
  }));
  const said = figures.parentElement.querySelector(".said");
  maps.push(...mine);
  mine.forEach((map) => {
    const point = (event) => {
      const item = nearest(map, event);
      if (item !== map.shown) mine.forEach((other) => show(other, item));
    };
    map.canvas.addEventListener("pointermove", point);
    map.canvas.addEventListener("pointerdown", point);
    const clear = () => mine.forEach((other) => show(other, undefined));
    map.canvas.addEventListener("pointerleave", (event) => {
      if (event.pointerType === "mouse") clear();
    });
    map.canvas.addEventListener("keydown", (event) => {
      if (event.key === "Escape") clear();
      if (!(event.key in ARROWS || event.key in STEPS)) return;
      event.preventDefault(); // Else the page would scroll.
      const item = map.shown === undefined ? middle(map) : neighbour(map, map.shown, event.key);
      if (item === undefined) return; // There is none on that side.
      mine.forEach((other) => show(other, item));
      said.textContent = map.tip.textContent + " interactions";
    });
    map.canvas.addEventListener("blur", clear);
  });
});

function drawMaps() {
  maps.forEach(drawMap);
}
drawMaps();
window.addEventListener("resize", drawMaps);
["(prefers-color-scheme: dark)", "print"].forEach((query) => matchMedia(query).addEventListener("change", drawMaps));

document.querySelectorAll(".picker select").forEach((select) => {
  const users = select.closest("section").querySelectorAll(".user");
  const pick = () => users.forEach((user) => { user.hidden = user.dataset.user !== select.value; });
  select.addEventListener("change", pick);
  pick();
});
