
// ---------------------------------------------------------------- zones, lines, objects and events

// The zones, lines and rules in force, as the device sends them.
let events = null;

function setEvents(message) {
  events = message;
  showEvents();
}

// Objects that are followed: their boxes get their ids, and each has a trail of its last places.
const TRAIL = 24;
const trails = new Map();
function followObjects({objects = [], result}) {
  const free = new Set(objects.filter(object => object.found));
  for (const box of result.object_tracking ?? result.bounding_boxes ?? []) {
    if (box.object_id !== undefined) continue;
    for (const object of free) {
      const at = object.box;
      if (at.x !== box.x || at.y !== box.y || at.width !== box.width || at.height !== box.height) continue;
      box.object_id = object.id;
      free.delete(object);
      break;
    }
  }
  const ids = new Set(objects.map(object => object.id));
  for (const id of trails.keys()) if (!ids.has(id)) trails.delete(id);
  for (const {id, box, found} of objects) {
    if (!found) continue;
    const trail = trails.get(id) ?? [];
    trail.push({x: box.x + box.width / 2, y: box.y + box.height / 2});
    if (trail.length > TRAIL) trail.shift();
    trails.set(id, trail);
  }
}

function drawObjects(ctx, objects, toCanvas, unit) {
  for (const {id, label, value, box, found} of objects ?? []) {
    const trail = trails.get(id) ?? [];
    ctx.strokeStyle = colour(label);
    ctx.lineWidth = 2 * unit;
    ctx.lineJoin = 'round';
    ctx.beginPath();
    for (const {x, y} of trail) ctx.lineTo(...toCanvas({x, y, width: 0, height: 0}).slice(0, 2));
    ctx.stroke();
    if (found) continue;
    // It was not found this time, but is still followed.
    ctx.setLineDash([6 * unit, 5 * unit]);
    drawBox(ctx, {label, value, object_id: id}, toCanvas(box), unit);
    ctx.setLineDash([]);
  }
}

// Fractions of the model's input to pixels of the shown picture and back. `area` is where the model's input is in the picture.
let shown = null;
function setShownPicture({width, height}, area) {
  const next = {width, height, area: area ?? [0, 0, width, height]};
  if (JSON.stringify(next) === JSON.stringify(shown)) return;
  shown = next;
  $('zones').setAttribute('viewBox', `0 0 ${width} ${height}`);
  showEvents();
}
const toPicture = ([x, y]) => [shown.area[0] + x * shown.area[2], shown.area[1] + y * shown.area[3]];
const toFraction = ([x, y]) => [(x - shown.area[0]) / shown.area[2], (y - shown.area[1]) / shown.area[3]]
  .map(value => Math.round(Math.max(0, Math.min(1, value)) * 1e4) / 1e4);

const svg = (tag, attributes, text) => {
  const made = document.createElementNS($('zones').namespaceURI, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
};
// Pixels of the shown picture for each pixel of the screen.
const pictureUnit = () => 1 / ($('zones').getScreenCTM()?.a || 1);
const shapeColour = (kind, index) => `hsl(${((kind === 'zones' ? 45 : 195) + index * 61) % 360} 95% 62%)`;

const isPoint = value => Array.isArray(value) && value.length === 2 && value.every(Number.isFinite);
// The points of a zone or line; what a person has typed may be anything.
function pointsOf(kind, shape) {
  const points = kind === 'zones' ? shape?.polygon : [shape?.from, shape?.to];
  return Array.isArray(points) && points.every(isPoint) ? points : [];
}
const shapesOf = (config, kind) => Object.entries(config?.[kind] ?? {});

const SIDEWAYS = ['left_to_right', 'right_to_left'], UPDOWN = ['top_to_bottom', 'bottom_to_top'];
// The names of the movements across a line, forward first.
function movementsOf({from, to, directions}) {
  for (const movements of [SIDEWAYS, UPDOWN]) if (movements.some(name => directions?.[name] !== undefined)) return movements;
  return Math.abs(to[1] - from[1]) >= Math.abs(to[0] - from[0]) ? SIDEWAYS : UPDOWN;
}
const ARROWS = {left_to_right: '→', right_to_left: '←', top_to_bottom: '↓', bottom_to_top: '↑'};
// The direction's name; none: it is not counted.
const directionName = (line, movement) => line.directions ? String(line.directions[movement] ?? '') : movement;

const insideOf = zone => status?.event_counts?.zones?.[zone];
function crossingsOf(line, direction) {
  const labels = status?.event_counts?.lines?.[line]?.[direction] ?? {};
  return Object.values(labels).reduce((sum, count) => sum + count, 0);
}

function drawZones() {
  if (!shown) return;
  const unit = pictureUnit(), config = editor ? editor.draft : events?.config, layers = [];
  shapesOf(config, 'zones').forEach(([name, zone], index) => layers.push(...zoneLayers(name, zone, index, unit)));
  shapesOf(config, 'lines').forEach(([name, line], index) => layers.push(...lineLayers(name, line, index, unit)));
  if (editor) layers.push(...editorLayers(unit));
  $('zones').replaceChildren(...layers);
}

const path = points => points.map(point => point.map(value => value.toFixed(2)).join(',')).join(' ');
// A text that is readable on every picture and stays inside it.
function caption(text, [x, y], unit, tint, anchor = 'start') {
  const size = 14 * unit, half = text.length * size * .3;
  const reach = {start: [0, 2 * half], middle: [half, half], end: [2 * half, 0]}[anchor];
  const left = Math.max(reach[0] + 4 * unit, Math.min(x, shown.width - reach[1] - 4 * unit));
  const top = Math.max(size, Math.min(y, shown.height - 5 * unit));
  return svg('text', {
    x: left, y: top, 'font-size': size, 'text-anchor': anchor, fill: tint, stroke: '#08110e', 'stroke-width': 4 * unit,
    'stroke-linejoin': 'round', 'paint-order': 'stroke',
  }, text);
}

function zoneLayers(name, zone, index, unit) {
  const points = pointsOf('zones', zone).map(toPicture);
  if (!points.length) return [];
  const tint = shapeColour('zones', index), inside = editor ? undefined : insideOf(name);
  const [left, top] = [0, 1].map(axis => Math.min(...points.map(point => point[axis])));
  return [
    svg('polygon', {
      points: path(points), fill: tint, 'fill-opacity': inside ? .28 : .12, stroke: tint, 'stroke-width': 2 * unit,
      'data-zone': name, ...isSelected('zones', name) && {'stroke-width': 3.5 * unit},
    }),
    caption(inside === undefined ? name : `${name} · ${inside}`, [left + 6 * unit, top + 18 * unit], unit, tint)];
}

function lineLayers(name, line, index, unit) {
  const points = pointsOf('lines', line);
  if (!points.length) return [];
  const [from, to] = points.map(toPicture), tint = shapeColour('lines', index), movements = movementsOf(line);
  const middle = [(from[0] + to[0]) / 2, (from[1] + to[1]) / 2];
  const length = Math.hypot(to[0] - from[0], to[1] - from[1]) || 1;
  let normal = [(from[1] - to[1]) / length, (to[0] - from[0]) / length];
  // Forward is to the right, or down.
  if (normal[movements === SIDEWAYS ? 0 : 1] < 0) normal = normal.map(value => -value);
  const layers = [svg('line', {
    x1: from[0], y1: from[1], x2: to[0], y2: to[1], stroke: tint, 'stroke-width': (isSelected('lines', name) ? 4.5 : 3) * unit,
    'stroke-linecap': 'round', 'data-line': name,
  })];
  movements.forEach((movement, which) => {
    const direction = directionName(line, movement);
    if (!direction) return;
    const way = which === 0 ? normal : normal.map(value => -value), along = [way[1], -way[0]];
    const at = (forth, aside) => [0, 1].map(axis => middle[axis] + unit * (forth * way[axis] + aside * along[axis]));
    layers.push(
      svg('polyline', {points: path([middle, at(22, 0)]), stroke: tint, 'stroke-width': 2.5 * unit, fill: 'none'}),
      svg('polygon', {points: path([at(32, 0), at(20, -7), at(20, 7)]), fill: tint, 'data-direction': movement}));
    const [x, y] = at(38, 0), anchor = Math.abs(way[0]) < .5 ? 'middle' : way[0] > 0 ? 'start' : 'end';
    // The arrow alone says what a direction without a name of its own is.
    const text = [direction === movement ? '' : direction, editor ? '' : number(crossingsOf(name, direction))].filter(Boolean).join(' ');
    if (!text) return;
    layers.push(caption(text, [x, y + (way[1] > .5 ? 11 : way[1] < -.5 ? -2 : 5) * unit], unit, tint, anchor));
  });
  const beyond = [0, 1].map(axis => from[axis] + 18 * unit * (from[axis] - to[axis]) / length);
  layers.push(caption(name, [beyond[0], beyond[1] + 5 * unit], unit, tint, 'middle'));
  return layers;
}

// Redraws what depends on the configuration or on the numbers.
function showEvents() {
  const config = events?.config, hasPictures = status?.model?.input?.kind === 'image';
  $('zone-bar').hidden = !!editor || !events || !status?.model?.input || (hasPictures && !shown);
  $('edit').textContent = !hasPictures ? 'Edit rules' : config ? 'Edit zones and lines' : 'Draw zones and lines';
  $('zone-source').textContent = !events ? '' : events.deployed ? (config ? 'As deployed' : 'None yet')
    : 'Changed on the device until a deployment changes them';
  const list = status?.last_events ?? [], counts = status?.event_counts;
  $('events').hidden = !config;
  $('last-events').replaceChildren(...(list.length ? list.map(eventItem) : [node('li', 'empty', 'None yet')]));
  $('event-counts').replaceChildren(...(counts ? countItems(counts) : []));
  drawZones();
}

function countItems({zones, lines, rules}) {
  const item = (name, text) => {
    const made = node('li');
    made.append(node('b', '', name), node('span', '', text));
    return made;
  };
  return [
    ...Object.entries(zones).map(([name, count]) => item(name, `${number(count)} inside`)),
    ...Object.entries(lines).map(([name, counts]) => {
      const parts = Object.entries(counts).map(([direction, labels]) => {
        const each = Object.entries(labels).map(([label, count]) => `${number(count)} ${label}`).join(', ');
        return `${direction} ${number(crossingsOf(name, direction))}${each ? ` (${each})` : ''}`;
      });
      return item(name, parts.join(' · ') || 'no crossing yet');
    }),
    ...Object.entries(rules).map(([name, {started, open}]) => item(name, `${number(started)} ${started === 1 ? 'event' : 'events'}${open ? `, ${number(open)} open` : ''}`)),
  ];
}

function eventItem(event) {
  const item = node('li');
  const who = [event.label, event.object_id === undefined ? '' : `#${event.object_id}`].filter(Boolean).join(' ');
  const what = [
    who, event.zone && `in ${event.zone}`, event.direction, event.count === undefined || event.object_id !== undefined ? '' : `${event.count} inside`,
    event.event === 'end' && event.dwell_ms !== undefined ? `after ${(event.dwell_ms / 1000).toFixed(1)} s` : '',
    event.reason ? `(${event.reason.replaceAll('_', ' ')})` : '',
  ];
  item.append(
    node('time', '', new Date(event.ts).toLocaleTimeString('en-GB')),
    node('span', `tag ${{start: 'good', cross: 'warn'}[event.event] ?? ''}`, event.event),
    node('b', 'name', event.rule ?? event.line ?? ''), node('span', 'what', what.filter(Boolean).join(' ')));
  return item;
}
addEventListener('resize', drawZones);
