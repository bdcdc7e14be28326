
// ---------------------------------------------------------------- drawing without a pointer

// How far an arrow key moves a shape or a point, as a fraction of the picture; with Shift five times as far.
const KEY_STEP = 0.01;
const ARROW_KEYS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
const keyHint = () => matchMedia('(pointer: fine)').matches ? ' On the picture, arrow keys move it and Enter chooses the next point.' : '';

// What had the focus is hidden now.
function keepFocus(next) {
  if (!document.activeElement?.offsetParent) $(next).focus({preventScroll: true});
}

// The list of zones and lines.
function showChoice() {
  const shapes = shown ? ['zones', 'lines'].flatMap(kind => shapesOf(editor.draft, kind).map(([name]) => [kind, name])) : [];
  const selected = editor.selected ? `${editor.selected.kind} ${editor.selected.name}` : '';
  const option = (value, text) => Object.assign(document.createElement('option'), {value, textContent: text, selected: value === selected});
  $('shape-choice-field').hidden = !shapes.length || !!editor.drawing;
  $('shape-choice').replaceChildren(option('', 'none'), ...shapes.map(([kind, name]) => option(`${kind} ${name}`, `${kind === 'zones' ? 'zone' : 'line'} ${name}`)));
}
function choose(value) {
  const [kind, name] = value.split(' ');
  editor.selected = name ? {kind, name} : null;
  editor.point = null;
  showEditor();
}

function addInTheMiddle(kind) {
  editor.drawing = kind === 'zones' ? {kind, points: [[.3, .3], [.7, .3], [.7, .7], [.3, .7]]} : {kind, points: [[.5, .2], [.5, .8]]};
  finishDrawing();
  $('zones').focus({preventScroll: true});
}

// A key while the picture has the focus. Returns whether it means something there.
function onShapeKey(event) {
  const shape = selectedShape(), arrow = ARROW_KEYS[event.key], points = pointsOf(editor.selected?.kind, shape);
  if (!shape || !points.length || editor.drag || editor.drawing) return false;
  if (event.key === 'Enter') {
    editor.point = editor.point === null ? 0 : (editor.point + 1) % points.length;
    showEditor();
    return true;
  }
  if (!arrow) return false;
  const shift = arrow.map(direction => direction * KEY_STEP * (event.shiftKey ? 5 : 1));
  change(() => {
    if (editor.point === null) return shiftShape(points, shift);
    const moved = points[editor.point].map((value, axis) => Math.round(Math.max(0, Math.min(1, value + shift[axis])) * 1e4) / 1e4);
    setPoint(editor.point, moved);
  });
  return true;
}

// `event`: the click on the button. A keyboard makes one without a place, and gets a shape that it can move.
function startDrawing(kind, event) {
  if (event.detail === 0) return addInTheMiddle(kind);
  editor.drawing = editor.drawing?.kind === kind ? null : {kind, points: []};
  editor.selected = editor.point = null;
  showEditor();
}
function onKey(event) {
  if (!editor || ['INPUT', 'TEXTAREA', 'SELECT'].includes(event.target.tagName)) return;
  if (event.target === $('zones') && onShapeKey(event)) { /* done */ }
  else if (event.key === 'Escape') {
    if (editor.drag) cancelDrag();
    else if (editor.point !== null) { editor.point = null; showEditor(); }
    else { editor.drawing = editor.selected = editor.point = null; showEditor(); }
  } else if (event.key === 'Enter' && editor.drawing && event.target.tagName !== 'BUTTON') finishDrawing();
  else if (event.key === 'Delete' && editor.selected && !editor.drag) { if (canRemovePoint()) removePoint(); else removeSelected(); }
  else if (event.key === 'z' && (event.ctrlKey || event.metaKey) && !editor.drag) undo();
  else return;
  event.preventDefault();
}
