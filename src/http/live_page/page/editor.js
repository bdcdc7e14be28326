
// ---------------------------------------------------------------- drawing zones and lines

// While a person draws: the draft, and what is selected and dragged. null: nobody draws.
let editor = null;
const MOST_UNDO = 50, MOST_POINTS = 64;

function startEditing() {
  const draft = structuredClone(events?.config ?? {});
  editor = {draft, selected: null, point: null, drawing: null, drag: null, undo: [], text: null, checks: 0};
  $('applied').hidden = true;
  $('token').value ||= new URLSearchParams(location.search).get('token') ?? '';
  showError('');
  showEditor();
  check();
  keepFocus($('new-zone').hidden ? 'events-json' : 'new-zone');
}
function stopEditing() {
  forgetCheck();
  editor = null;
  showEditor();
  keepFocus('edit');
}

const isSelected = (kind, name) => editor?.selected?.kind === kind && editor.selected.name === name;
const selectedShape = () => editor?.selected && editor.draft[editor.selected.kind]?.[editor.selected.name];
const distance = (one, other) => Math.hypot(one[0] - other[0], one[1] - other[1]);

// Changes the draft, so that Undo can return.
function change(action) {
  remember(JSON.stringify(editor.draft));
  action(editor.draft);
  changed();
}
function remember(before) {
  editor.undo.push(before);
  if (editor.undo.length > MOST_UNDO) editor.undo.shift();
}
function changed() {
  editor.text = null;
  showEditor();
  check();
}
function undo() {
  if (editor.drawing?.points.length) { editor.drawing.points.pop(); return showEditor(); }
  const before = editor.undo.pop();
  if (before === undefined) return;
  editor.draft = JSON.parse(before);
  if (!selectedShape()) editor.selected = null;
  editor.point = null;
  changed();
}

// The draft as JSON: each zone, line and rule in a line of its own.
function draftText() {
  const parts = Object.entries(editor.draft).filter(([, value]) => value && Object.keys(value).length);
  const entry = ([name, value]) => `    ${JSON.stringify(name)}: ${JSON.stringify(value)}`;
  const part = ([name, value]) => `  ${JSON.stringify(name)}: {\n${Object.entries(value).map(entry).join(',\n')}\n  }`;
  return parts.length ? `{\n${parts.map(part).join(',\n')}\n}` : '';
}
const currentText = () => editor.text ?? draftText();

function freeName(kind, stem) {
  for (let n = 1; ; n++) if (!((editor.draft[kind] ?? {}).hasOwnProperty(`${stem}${n}`))) return `${stem}${n}`;
}
function add(kind, shape) {
  const name = freeName(kind, kind === 'zones' ? 'zone' : 'line');
  editor.drawing = null;
  editor.selected = {kind, name};
  editor.point = null;
  change(draft => {
    draft[kind] = {...draft[kind], [name]: shape};
    if (kind === 'zones') addRule(draft, name);
  });
}
const objectRules = (draft, zone) => shapesOf(draft, 'rules').filter(([, rule]) => rule?.zone === zone && !('count_at_least' in rule));
function addRule(draft, zone) {
  const stem = `${zone}-occupied`.slice(-48), rules = draft.rules ?? {};
  const name = stem in rules ? freeName('rules', `${zone}-occupied-`.slice(-40)) : stem;
  draft.rules = {...rules, [name]: {zone, enter_after_ms: 500, leave_after_ms: 2000}};
}

function rename(name) {
  const {kind, name: before} = editor.selected;
  if (name === before) return check();
  if (!/^[A-Za-z0-9_.-]{1,48}$/.test(name)) return refuseName(`“${name}” is not a name: accepted are 1 to 48 letters, digits, “_”, “-” and “.”, without accents and blanks.`);
  if ((editor.draft[kind] ?? {}).hasOwnProperty(name)) return refuseName(`There is already “${name}”.`);
  editor.selected = {kind, name};
  change(draft => {
    draft[kind] = Object.fromEntries(Object.entries(draft[kind]).map(([key, value]) => [key === before ? name : key, value]));
    if (kind !== 'zones') return;
    const moved = rule => rule?.zone === before ? {...rule, zone: name} : rule;
    const ruleName = key => key === `${before}-occupied` && key.length - before.length + name.length <= 48 ? `${name}-occupied` : key;
    const taken = new Set(Object.keys(draft.rules ?? {}));
    const free = key => ruleName(key) !== key && taken.has(ruleName(key)) ? key : ruleName(key);
    if (draft.rules) draft.rules = Object.fromEntries(Object.entries(draft.rules).map(([key, rule]) => [free(key), moved(rule)]));
  });
}
function refuseName(reason) {
  forgetCheck();
  showEditor();
  showError(reason);
}

function removeSelected() {
  const {kind, name} = editor.selected;
  editor.selected = editor.point = null;
  change(draft => {
    delete draft[kind][name];
    // A rule about a zone that does not exist would be a mistake.
    if (kind === 'zones') for (const [key, rule] of shapesOf(draft, 'rules')) if (rule?.zone === name) delete draft.rules[key];
  });
}
const canRemovePoint = () => editor.selected?.kind === 'zones' && editor.point !== null && pointsOf('zones', selectedShape()).length > 3;
function removePoint() {
  const index = editor.point;
  editor.point = null;
  change(() => selectedShape().polygon.splice(index, 1));
}

// A line that was turned gets the names of the movement that now crosses it.
function fitDirections(line) {
  if (!line.directions || typeof line.directions !== 'object') return;
  const before = movementsOf(line), wide = Math.abs(line.to[0] - line.from[0]), high = Math.abs(line.to[1] - line.from[1]);
  const isWrong = before === SIDEWAYS ? high < wide / 2 : wide < high / 2;
  if (!isWrong) return;
  const after = before === SIDEWAYS ? UPDOWN : SIDEWAYS;
  const kept = before.map((movement, n) => [after[n], line.directions[movement] === movement ? after[n] : line.directions[movement]]);
  line.directions = Object.fromEntries(kept.filter(([, name]) => name));
}

// ---------------------------------------------------------------- what the editor shows

function editorLayers(unit) {
  const layers = [], dot = (place, radius, more) => svg('circle', {
    cx: place[0], cy: place[1], r: radius * unit, fill: '#fff', stroke: '#08110e', 'stroke-width': 2 * unit, ...more,
  });
  const {drawing, selected, point} = editor;
  if (drawing) {
    const points = drawing.points.map(toPicture);
    layers.push(svg(drawing.kind === 'zones' ? 'polygon' : 'polyline', {
      points: path(points), fill: drawing.kind === 'zones' ? 'rgb(255 255 255 / .15)' : 'none', stroke: '#fff', 'stroke-width': 2 * unit,
      'stroke-dasharray': `${6 * unit} ${4 * unit}`,
    }));
    points.forEach((place, index) => layers.push(dot(place, index === 0 ? 8 : 6)));
    return layers;
  }
  const points = pointsOf(selected?.kind, selectedShape()).map(handlePlace);
  if (selected?.kind === 'zones' && points.length < MOST_POINTS) {
    points.forEach((place, index) => layers.push(dot(between(place, points[(index + 1) % points.length]), 4.5, {'fill-opacity': .65, 'data-middle': index})));
  }
  points.forEach((place, index) => layers.push(dot(place, 7.5, {'data-point': index, ...index === point && {fill: '#ffd54a'}})));
  return layers;
}

const HINTS = {
  zones: 'Click the corners, then the first one again. Or pull a rectangle open.',
  lines: 'Pull the line open from end to end, or click both ends.',
};
function showEditor() {
  $('editor').hidden = !editor;
  document.body.classList.toggle('editing', !!editor);
  if (editor) $('zones').setAttribute('tabindex', '0'); else $('zones').removeAttribute('tabindex');
  showEvents();
  if (!editor) return;
  const {drawing, selected, undo: steps} = editor, shape = selectedShape();
  $('hint').textContent = drawing ? HINTS[drawing.kind]
    : selected ? (selected.kind === 'zones' ? 'Drag a corner, the zone, or the middle of an edge for a new corner.' : 'Drag an end or the line.') + keyHint()
      : shown ? 'Click a zone or a line to change it.' : 'Write the rules as JSON.';
  $('new-zone').hidden = $('new-line').hidden = !shown;
  $('new-zone').setAttribute('aria-pressed', drawing?.kind === 'zones');
  $('new-line').setAttribute('aria-pressed', drawing?.kind === 'lines');
  $('finish').hidden = drawing?.kind !== 'zones';
  $('finish').disabled = (drawing?.points.length ?? 0) < 3;
  $('stop-drawing').hidden = !drawing;
  $('undo').disabled = !steps.length && !drawing?.points.length;
  $('shape').hidden = !shape || !!drawing;
  showChoice();
  if (shape && !drawing) showShape(selected, shape);
  setValue('events-json', currentText());
  $('token-field').hidden = !!events?.mayChange;
  $('as-deployed').hidden = !!events?.deployed;
}
// What a person is typing is not overwritten.
function setValue(id, value) {
  if (document.activeElement !== $(id)) $(id).value = value;
}
function showShape({kind, name}, shape) {
  setValue('shape-name', name);
  $('shape-kind').textContent = kind === 'zones' ? 'Zone' : 'Line';
  setValue('shape-labels', (Array.isArray(shape.labels) ? shape.labels : []).join(', '));
  $('shape-labels').placeholder = `every label${status?.model?.labels?.length ? `, or some of ${status.model.labels.slice(0, 6).join(', ')}` : ''}`;
  setValue('shape-anchor', shape.anchor ?? 'center');
  $('shape-rule-field').hidden = kind !== 'zones';
  $('shape-rule').checked = objectRules(editor.draft, name).length > 0;
  $('delete-point').hidden = kind !== 'zones';
  $('delete-point').disabled = !canRemovePoint();
  $('shape-directions').hidden = kind !== 'lines';
  if (kind !== 'lines' || !pointsOf('lines', shape).length) return;
  movementsOf(shape).forEach((movement, n) => {
    $(`arrow-${n}`).textContent = `${ARROWS[movement]} ${movement.replaceAll('_', ' ')}`;
    setValue(`direction-${n}`, directionName(shape, movement));
  });
}

function setDirection(which, name) {
  const line = selectedShape();
  if (!pointsOf('lines', line).length) return;
  const movements = movementsOf(line), names = movements.map(movement => directionName(line, movement));
  names[which] = name.trim();
  change(() => { line.directions = Object.fromEntries(movements.map((movement, n) => [movement, names[n]]).filter(([, given]) => given)); });
}
function setLabels(text) {
  const labels = text.split(',').map(label => label.trim()).filter(Boolean);
  change(() => { if (labels.length) selectedShape().labels = labels; else delete selectedShape().labels; });
}
function setRule(wanted) {
  const {name} = editor.selected;
  change(draft => {
    if (wanted) return addRule(draft, name);
    for (const [rule] of objectRules(draft, name)) delete draft.rules[rule];
  });
}
function setText(text) {
  let draft;
  try { draft = JSON.parse(text || '{}'); } catch { /* the device says what is wrong */ }
  if (draft && typeof draft === 'object' && !Array.isArray(draft)) {
    if (editor.text === null) remember(JSON.stringify(editor.draft));
    editor.draft = draft;
    if (!selectedShape()) editor.selected = null;
    editor.point = null;
  }
  editor.text = text;
  showEditor();
  check();
}

// ---------------------------------------------------------------- checking, copying and applying

function showError(text) {
  $('editor-error').hidden = !text;
  $('editor-error').textContent = visible(text);
}

const json = {'Content-Type': 'application/json'};

// The device checks the draft as it checks a deployment.
let checkLater;
function check() {
  forgetCheck();
  const mine = editor, turn = mine.checks;
  checkLater = setTimeout(async () => {
    const text = currentText();
    if (!text.trim()) return showError('');
    try {
      const answer = await fetch(new URL('api/events/check', location.href), {method: 'POST', headers: json, body: text});
      const reason = answer.ok ? '' : await answer.text();
      if (editor === mine && mine.checks === turn) showError(reason);
    } catch { /* the page says that there is no connection */ }
  }, 250);
}

// No answer to an earlier check replaces what is shown from now on.
function forgetCheck() {
  clearTimeout(checkLater);
  editor.checks += 1;
}

async function apply(text) {
  const token = $('token').value.trim(), mine = editor;
  forgetCheck();
  $('apply').disabled = $('as-deployed').disabled = true;
  try {
    const authorization = token && !events?.mayChange ? {Authorization: `Bearer ${token}`} : {};
    const answer = await fetch(new URL('api/events', location.href), {
      method: 'POST', headers: {...json, ...authorization}, body: text,
    });
    if (!answer.ok) return showError(await answer.text());
    const {events: config, deployed} = await answer.json();
    setEvents({...events, config, deployed});
    if (editor !== mine) return;
    stopEditing();
    $('applied').hidden = false;
    $('applied').textContent = deployed ? 'The zones, lines and rules of the deployment are in force again.'
      : 'Applied. They stay until a deployment changes them. To keep them for good, put the JSON (Edit, Copy) into the deployment.';
  } catch {
    showError('The device did not answer. Try again.');
  } finally {
    $('apply').disabled = $('as-deployed').disabled = false;
  }
}

// Browsers offer the clipboard only to pages over HTTPS.
async function copy() {
  const area = $('events-json');
  let isCopied = false;
  try {
    await navigator.clipboard.writeText(area.value);
    isCopied = true;
  } catch {
    area.select();
    isCopied = document.execCommand('copy');
  }
  $('copy').textContent = isCopied ? 'Copied' : 'Press Ctrl+C';
  setTimeout(() => { $('copy').textContent = 'Copy'; }, 2000);
}

const on = (id, kind, action) => $(id).addEventListener(kind, action);
on('zones', 'pointerdown', onPointerDown);
on('zones', 'pointermove', onPointerMove);
on('zones', 'pointerup', onPointerUp);
on('zones', 'pointercancel', event => { if (editor?.drag?.pointer === event.pointerId) cancelDrag(); });
addEventListener('keydown', onKey);
on('edit', 'click', startEditing);
on('cancel', 'click', stopEditing);
on('new-zone', 'click', event => startDrawing('zones', event));
on('new-line', 'click', event => startDrawing('lines', event));
on('shape-choice', 'change', event => choose(event.target.value));
on('finish', 'click', finishDrawing);
on('stop-drawing', 'click', () => { editor.drawing = null; showEditor(); });
on('undo', 'click', undo);
on('shape-name', 'change', event => rename(event.target.value.trim()));
on('shape-labels', 'change', event => setLabels(event.target.value));
on('shape-anchor', 'change', event => change(() => { selectedShape().anchor = event.target.value; }));
on('shape-rule', 'change', event => setRule(event.target.checked));
on('direction-0', 'change', event => setDirection(0, event.target.value));
on('direction-1', 'change', event => setDirection(1, event.target.value));
on('delete-point', 'click', removePoint);
on('delete-shape', 'click', removeSelected);
on('events-json', 'input', event => setText(event.target.value));
on('copy', 'click', copy);
on('apply', 'click', () => apply(currentText().trim() || 'none'));
on('as-deployed', 'click', () => apply('deployed'));
