"use strict";
document.documentElement.classList.add("scripted");
const parts = JSON.parse(document.getElementById("data").textContent);
const SIZE = 1000; // Places on a map are whole numbers up to this, MAP_SIZE of contents.py.
const REACH = 16; // Pixels within which a pointer finds an item.

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

const maps = [];
document.querySelectorAll(".maps").forEach((figures) => {
  const part = parts[figures.dataset.part];
  const mine = [...figures.querySelectorAll("canvas")].map((canvas) => ({
    canvas, part, tip: canvas.nextElementSibling, ...part.maps[canvas.dataset.run],
  }));
  maps.push(...mine);
  mine.forEach((map) => {
    const point = (event) => {
      const item = nearest(map, event);
      if (item !== map.shown) mine.forEach((other) => show(other, item));
    };
    map.canvas.addEventListener("pointermove", point);
    map.canvas.addEventListener("pointerdown", point);
    map.canvas.addEventListener("pointerleave", (event) => {
      if (event.pointerType === "mouse") mine.forEach((other) => show(other, undefined));
    });
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
