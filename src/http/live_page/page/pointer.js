
// ---------------------------------------------------------------- pointer: mouse, finger and pen

const pointerPlace = event => {
  const {x, y} = new DOMPoint(event.clientX, event.clientY).matrixTransform($('zones').getScreenCTM().inverse());
  return [x, y];
};
// How near a pointer must be, in pixels of the shown picture: a finger hides what it touches.
const reach = event => (event.pointerType === 'touch' ? 26 : 11) * pictureUnit();
// Handles outside the shown picture are drawn at its edge.
const handlePlace = point => toPicture(point).map((value, axis) => Math.max(0, Math.min(value, axis ? shown.height : shown.width)));
const between = (one, other) => [(one[0] + other[0]) / 2, (one[1] + other[1]) / 2];

function distanceToEdge(at, one, other) {
  const [dx, dy] = [other[0] - one[0], other[1] - one[1]];
  const part = Math.max(0, Math.min(1, ((at[0] - one[0]) * dx + (at[1] - one[1]) * dy) / (dx * dx + dy * dy || 1)));
  return distance(at, [one[0] + part * dx, one[1] + part * dy]);
}
function isInside(at, points) {
  let inside = false;
  points.forEach((one, n) => {
    const other = points[(n + 1) % points.length];
    if ((one[1] > at[1]) !== (other[1] > at[1]) && at[0] < one[0] + (at[1] - one[1]) / (other[1] - one[1]) * (other[0] - one[0])) inside = !inside;
  });
  return inside;
}

// The handle of the selected shape at this place: a point, or the middle of an edge, where a new point begins.
function handleAt(at, near) {
  const kind = editor.selected?.kind, points = pointsOf(kind, selectedShape()).map(handlePlace);
  let best = null;
  const offer = (place, found) => {
    const far = distance(at, place);
    if (far <= near && (!best || far < best.far)) best = {...found, far};
  };
  points.forEach((place, index) => offer(place, {index, isNew: false}));
  if (best || kind !== 'zones' || points.length >= MOST_POINTS) return best;
  points.forEach((place, index) => offer(between(place, points[(index + 1) % points.length]), {index: index + 1, isNew: true}));
  return best;
}
function shapeAt(at, near) {
  for (const [name, line] of shapesOf(editor.draft, 'lines')) {
    const points = pointsOf('lines', line).map(toPicture);
    if (points.length && distanceToEdge(at, ...points) <= near) return {kind: 'lines', name};
  }
  const zones = shapesOf(editor.draft, 'zones').filter(([, zone]) => isInside(at, pointsOf('zones', zone).map(toPicture)));
  // Of zones on top of each other the selected one, else the last: it is drawn above the others.
  const chosen = zones.find(([name]) => isSelected('zones', name)) ?? zones.at(-1);
  return chosen ? {kind: 'zones', name: chosen[0]} : null;
}

function onPointerDown(event) {
  if (!editor || !shown || editor.drag || event.button > 0) return;
  event.preventDefault();
  // Leaving an input takes its change over.
  $('zones').focus({preventScroll: true});
  const at = pointerPlace(event), near = reach(event);
  $('zones').setPointerCapture(event.pointerId);
  const drag = editor.drag = {pointer: event.pointerId, at, near, screen: [event.clientX, event.clientY], moved: false, before: JSON.stringify(editor.draft)};
  if (editor.drawing) {
    drag.kind = 'drawing';
    drag.count = editor.drawing.points.length;
    if (!isClosing(at, near)) editor.drawing.points.push(toFraction(at));
  } else {
    const handle = handleAt(at, near);
    if (handle) {
      Object.assign(drag, {kind: 'point', index: handle.index});
      editor.point = handle.index;
      if (handle.isNew) selectedShape().polygon.splice(handle.index, 0, toFraction(at));
    } else {
      const hit = shapeAt(at, near);
      if (!hit || !isSelected(hit.kind, hit.name)) editor.point = null;
      editor.selected = hit;
      Object.assign(drag, {kind: hit ? 'shape' : 'none', points: hit && structuredClone(pointsOf(hit.kind, selectedShape()))});
    }
  }
  showEditor();
}
// Whether a click here closes the polygon that is being drawn.
function isClosing(at, near) {
  const {kind, points} = editor.drawing;
  return kind === 'zones' && points.length > 2 && distance(at, toPicture(points[0])) <= near;
}

function onPointerMove(event) {
  const drag = editor?.drag;
  if (!drag || drag.pointer !== event.pointerId) return;
  const at = pointerPlace(event);
  drag.moved ||= distance(drag.screen, [event.clientX, event.clientY]) > 5;
  if (!drag.moved) return;
  if (drag.kind === 'drawing') moveDrawing(at, drag);
  else if (drag.kind === 'point') setPoint(drag.index, toFraction(at));
  else if (drag.kind === 'shape') moveShape(at, drag);
  editor.text = null;
  showEditor();
}
function moveDrawing(at, drag) {
  const {kind, points} = editor.drawing, to = toFraction(at);
  if (drag.count > 0) { if (points.length > drag.count) points[drag.count] = to; return; }
  // The first one is pulled open: a line, or a rectangle.
  const from = toFraction(drag.at);
  points.splice(0, points.length, ...(kind === 'lines' ? [from, to] : [from, [to[0], from[1]], to, [from[0], to[1]]]));
}
function setPoint(index, place) {
  const shape = selectedShape();
  if (editor.selected.kind === 'zones') shape.polygon[index] = place;
  else { shape[index === 0 ? 'from' : 'to'] = place; fitDirections(shape); }
}
// The whole shape moves with the pointer and stays within the model's input.
function moveShape(at, drag) {
  shiftShape(drag.points, [0, 1].map(axis => (at[axis] - drag.at[axis]) / shown.area[axis + 2]));
}
function shiftShape(points, wanted) {
  const shift = wanted.map((by, axis) => {
    const values = points.map(point => point[axis]);
    return Math.max(-Math.min(...values), Math.min(1 - Math.max(...values), by));
  });
  const moved = points.map(point => point.map((value, axis) => Math.round((value + shift[axis]) * 1e4) / 1e4));
  if (editor.selected.kind === 'zones') selectedShape().polygon = moved;
  else [selectedShape().from, selectedShape().to] = moved;
}

function onPointerUp(event) {
  const drag = editor?.drag;
  if (!drag || drag.pointer !== event.pointerId) return;
  editor.drag = null;
  if (drag.kind === 'drawing') return finishStroke(drag);
  if (drag.before !== JSON.stringify(editor.draft)) { remember(drag.before); changed(); } else showEditor();
}
function finishStroke(drag) {
  const {kind, points} = editor.drawing;
  const isDone = kind === 'lines' ? points.length === 2
    : (drag.count === 0 && drag.moved) || points.length === drag.count || points.length === MOST_POINTS;
  if (isDone) finishDrawing(); else showEditor();
}
function finishDrawing() {
  const {kind, points} = editor.drawing;
  if (kind === 'zones') {
    if (points.length < 3) return showEditor();
    return add('zones', {polygon: points, anchor: 'center'});
  }
  const [from, to] = points, line = {from, to, anchor: 'center'};
  const movements = movementsOf(line);
  add('lines', {...line, directions: Object.fromEntries(movements.map(name => [name, name]))});
}
// The browser took the pointer, or Escape was pressed: as if it had not begun.
function cancelDrag() {
  const drag = editor?.drag;
  if (!drag) return;
  editor.drag = null;
  if (drag.kind === 'drawing') editor.drawing.points.length = Math.min(drag.count, editor.drawing.points.length);
  else editor.draft = JSON.parse(drag.before);
  editor.point = null;
  showEditor();
}
