
'use strict';

// Everything that comes from the device (labels, names, reasons) is inserted into the page as text, never as markup.
const $ = id => document.getElementById(id);
const node = (tag, name, text) => {
  const made = document.createElement(tag);
  if (name) made.className = name;
  if (text !== undefined) made.textContent = text;
  return made;
};
// Names and errors come from outside: characters that hide or turn text around are shown as their numbers.
const HIDDEN = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff0-\ufffb]|\udb40[\udc00-\udfff]/g;
const visible = text => text.replace(HIDDEN, c => `\\u{${c.codePointAt(0).toString(16)}}`);
const shownValue = (_, value) => typeof value === 'string' ? visible(value) : value;
const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// ---------------------------------------------------------------- the connection

let socket, status, moment, picture, retry = 500, lastMoment = 0, resume;

function connect() {
  const url = new URL('live', location.href);
  url.protocol = url.protocol.replace('http', 'ws');
  socket = new WebSocket(url);
  socket.binaryType = 'blob';
  let expecting = null;
  socket.onmessage = async event => {
    if (typeof event.data !== 'string') {
      const owner = expecting;
      expecting = null;
      try { show(owner, await createImageBitmap(event.data)); } catch (_) { /* the next picture may be readable */ }
      return;
    }
    const given = JSON.parse(event.data);
    // Zones, lines and rules are edited and sent back: they stay as they are.
    const message = given.type === 'events' ? given : JSON.parse(event.data, shownValue);
    if (message.type === 'status') {
      retry = 500;
      status = message;
      showStatus();
    } else if (message.type === 'events') {
      setEvents(message);
    } else if (message.type === 'moment') {
      if (message.picture) expecting = message; else show(message, null);
    }
  };
  socket.onclose = () => {
    status = null;
    showStatus();
    if (document.hidden) return;
    resume = setTimeout(connect, retry);
    retry = Math.min(retry * 2, 8000);
  };
}

// A hidden page disconnects, so that the device sends it nothing.
document.addEventListener('visibilitychange', () => {
  clearTimeout(resume);
  if (document.hidden) socket.close();
  else if (socket.readyState > WebSocket.OPEN) connect();
});

// ---------------------------------------------------------------- the picture

const colours = new Map();
function colour(label) {
  if (!colours.has(label)) {
    // Multiples of the golden angle, in the order of the model's labels, give colours that differ as much as possible.
    const known = status?.model?.labels?.indexOf(label) ?? -1;
    const index = known >= 0 ? known : colours.size;
    colours.set(label, `hsl(${(165 + index * 137.5) % 360} 72% 52%)`);
  }
  return colours.get(label);
}

function show(next, bitmap) {
  if (!next) return;
  moment = next;
  picture?.close();
  picture = bitmap;
  lastMoment = Date.now();
  addToHistory(next);
  followObjects(next);
  requestAnimationFrame(draw);
}

let drawn = null;
function draw() {
  if (!moment || drawn === moment) return;
  drawn = moment;
  $('view').hidden = !picture;
  $('sound').hidden = typeof moment.level !== 'number';
  if (picture) drawPicture();
  if (typeof moment.level === 'number') {
    $('level').style.width = `${Math.round(Math.min(1, moment.level) * 100)}%`;
    const best = entries(moment.result)[0];
    $('heard').textContent = best ? best.label : '–';
  }
  showResults();
  showNotice();
  const decision = $('decision');
  decision.textContent = moment.decision;
  decision.className = `tag ${moment.decision}`;
}

function drawPicture() {
  const view = $('view'), width = picture.width, height = picture.height;
  const scale = Math.max(1, Math.min(3, $('frame').clientWidth * devicePixelRatio / width));
  const pixels = [Math.round(width * scale), Math.round(height * scale)];
  if (view.width !== pixels[0]) view.width = pixels[0];
  if (view.height !== pixels[1]) view.height = pixels[1];
  const ctx = view.getContext('2d');
  ctx.drawImage(picture, 0, 0, view.width, view.height);
  // Where the model's input is in this picture: all of it, or a part of the camera's picture.
  const [x, y, wide, high] = moment.area ?? [0, 0, width, height];
  const across = view.width / width, down = view.height / height;
  const toCanvas = ({x: left, y: top, width: w, height: h}) => [
    across * (x + left * wide / moment.width), down * (y + top * high / moment.height),
    across * w * wide / moment.width, down * h * high / moment.height];
  const result = moment.result, unit = Math.max(1, view.width / 640);
  drawHeat(ctx, result, toCanvas);
  for (const box of result.object_tracking ?? result.bounding_boxes ?? []) drawBox(ctx, box, toCanvas(box), unit);
  drawObjects(ctx, moment.objects, toCanvas, unit);
  setShownPicture(picture, moment.area);
}

function drawHeat(ctx, result, toCanvas) {
  const cells = result.visual_anomaly_grid ?? [];
  if (!cells.length) return;
  const most = Math.max(1e-9, result.visual_anomaly_max ?? 0, ...cells.map(cell => cell.value));
  for (const cell of cells) {
    const heat = Math.max(0, Math.min(1, cell.value / most));
    ctx.fillStyle = `hsl(${60 - 60 * heat} 95% 52% / ${.2 + .4 * heat})`;
    ctx.fillRect(...toCanvas(cell));
  }
}

function drawBox(ctx, box, [x, y, width, height], unit) {
  ctx.lineWidth = 2.5 * unit;
  ctx.strokeStyle = colour(box.label);
  ctx.strokeRect(x, y, width, height);
  const number = box.object_id === undefined ? '' : ` #${box.object_id}`;
  const text = `${box.label}${number} ${box.value.toFixed(2)}`;
  ctx.font = `600 ${14 * unit}px system-ui, "DejaVu Sans", sans-serif`;
  const wide = ctx.measureText(text).width + 12 * unit, high = 21 * unit;
  const left = Math.max(0, Math.min(x - ctx.lineWidth / 2, ctx.canvas.width - wide));
  const top = y - high >= 0 ? y - high : Math.min(y + height, ctx.canvas.height - high);
  ctx.fillStyle = colour(box.label);
  ctx.fillRect(left, top, wide, high);
  ctx.fillStyle = '#08110e';
  ctx.textBaseline = 'middle';
  ctx.fillText(text, left + 6 * unit, top + high / 2 + unit);
}

// ---------------------------------------------------------------- the result

// The content of the result as labels with values.
function entries(result) {
  const boxes = result.object_tracking ?? result.bounding_boxes;
  const list = [];
  const add = (label, value, most = 1, tint = colour(label)) => list.push({label, value, most, tint});
  for (const [label, value] of Object.entries(result.classification ?? {})) add(label, value);
  list.sort((a, b) => b.value - a.value);
  for (const box of boxes ?? []) add(box.object_id === undefined ? box.label : `${box.label} #${box.object_id}`, box.value, 1, colour(box.label));
  const anomaly = ['anomaly', 'visual_anomaly_max', 'visual_anomaly_mean'];
  const most = Math.max(1, ...anomaly.map(name => result[name] ?? 0));
  for (const name of anomaly) {
    if (typeof result[name] === 'number') add(name.replaceAll('_', ' '), result[name], most, 'hsl(20 85% 55%)');
  }
  (result.freeform ?? []).forEach((values, n) => {
    const peak = values.reduce((at, value, i) => value > values[at] ? i : at, 0);
    add(`output ${n}: ${values.length} values, highest at ${peak}`, values[peak] ?? 0, Math.max(1, Math.abs(values[peak] ?? 1)));
  });
  return list;
}

function showResults() {
  const list = entries(moment.result).slice(0, 40);
  const rows = list.map(({label, value, most, tint}) => {
    const item = node('li'), row = node('div', 'row'), track = node('div', 'track'), bar = node('i');
    row.append(node('span', '', label), node('span', 'value', value.toFixed(value < 10 ? 3 : 1)));
    bar.style.width = `${Math.max(0, Math.min(1, value / most)) * 100}%`;
    bar.style.background = tint;
    track.append(bar);
    item.append(row, track);
    return item;
  });
  $('results').replaceChildren(...(rows.length ? rows : [node('li', 'empty', 'Nothing found in this picture')]));
  $('info').hidden = !moment.info;
  $('info').textContent = moment.info ?? '';
}

// ---------------------------------------------------------------- the chart

const SPAN = 180, BUCKET = 500;
const history = [];
function confidence(result) {
  const mean = list => list.reduce((sum, item) => sum + item.value, 0) / list.length;
  if (result.visual_anomaly_grid?.length) return mean(result.visual_anomaly_grid);
  const boxes = result.object_tracking ?? result.bounding_boxes;
  if (boxes?.length) return mean(boxes);
  const values = Object.values(result.classification ?? {});
  return values.length ? Math.max(...values) : null;
}
function addToHistory({result, wallMs}) {
  const at = Math.floor(Date.now() / BUCKET), value = confidence(result);
  let last = history.at(-1);
  if (!last || last.at !== at) history.push(last = {at, sum: 0, n: 0, ms: 0, times: 0});
  if (value !== null) { last.sum += Math.min(1, value); last.n += 1; }
  last.ms += wallMs; last.times += 1;
  while (history[0].at < at - SPAN * 1000 / BUCKET) history.shift();
}

function drawChart() {
  const chart = $('chart'), width = chart.clientWidth, height = 120;
  if (!width) return;
  chart.width = width * devicePixelRatio;
  chart.height = height * devicePixelRatio;
  const ctx = chart.getContext('2d');
  ctx.scale(devicePixelRatio, devicePixelRatio);
  ctx.strokeStyle = css('--line');
  ctx.lineWidth = 1;
  for (const part of [0, .5, 1]) {
    const y = Math.round(4 + part * (height - 8)) + .5;
    ctx.beginPath(); ctx.moveTo(0, y); ctx.lineTo(width, y); ctx.stroke();
  }
  const now = Date.now() / BUCKET, buckets = SPAN * 1000 / BUCKET;
  const most = Math.max(1, ...history.map(h => h.ms / h.times)) * 1.15;
  const line = (value, tint, fill) => {
    let open = null, before = null;
    const end = () => {
      if (!open) return;
      ctx.strokeStyle = tint; ctx.lineWidth = 1.75; ctx.lineJoin = 'round'; ctx.stroke(open.path);
      if (fill) {
        open.path.lineTo(before.x, height - 4); open.path.lineTo(open.x, height - 4);
        ctx.globalAlpha = .14; ctx.fillStyle = tint; ctx.fill(open.path); ctx.globalAlpha = 1;
      }
      open = null;
    };
    for (const point of history) {
      const at = value(point);
      if (at === null || (before && point.at - before.at > 4)) end();
      if (at === null) continue;
      const x = width * (1 - (now - point.at) / buckets), y = 4 + (1 - at) * (height - 8);
      if (!open) { open = {path: new Path2D(), x}; open.path.moveTo(x, y); }
      open.path.lineTo(x, y);
      before = {at: point.at, x};
    }
    end();
  };
  line(h => h.n ? h.sum / h.n : null, css('--accent'), true);
  line(h => h.ms / h.times / most, css('--time'), false);
  $('scale').textContent = history.length ? `0–1 · 0–${most.toFixed(most < 10 ? 1 : 0)} ms` : '';
}

// ---------------------------------------------------------------- the state

function pill(id, kind, text) {
  $(id).className = kind;
  $(id).querySelector('span').textContent = text;
}
const span = s => s < 60 ? `${s} s` : s < 3600 ? `${Math.floor(s / 60)} min` : s < 172800 ? `${Math.floor(s / 3600)} h` : `${Math.floor(s / 86400)} days`;
const number = n => n.toLocaleString('en');
const STATE_PILLS = {
  off: ['', 'off'],
  starting: ['', 'starting'], 'warming-up': ['warn', 'warming up'], running: ['good', 'running'], waiting: ['bad', 'not running'], 'unsupported-model': ['bad', 'cannot be run'],
  paused: ['warn', 'paused'],
};
const STUDIO_PILLS = {
  off: ['', 'off'], connecting: ['warn', 'connecting'], online: ['good', 'connected'], offline: ['bad', 'offline'],
  refused: ['bad', 'refused'], contended: ['bad', 'used twice'],
};
const UPLOAD_TAGS = {
  waiting: ['warn', 'waiting'], uploaded: ['good', 'uploaded'], refused: ['bad', 'refused'], lost: ['bad', 'lost'],
};

function showStatus() {
  showNotice();
  if (!status) {
    for (const id of ['pill-model', 'pill-source', 'pill-mqtt', 'pill-studio']) pill(id, '', 'unknown');
    $('banner').hidden = true;
    return;
  }
  const {model, source, mqtt, filter, gate, cache, inference, counters} = status;
  document.title = `${status.device} – live`;
  $('device').textContent = status.device;
  const size = model.input?.width ? `, ${model.input.width} × ${model.input.height}` : '';
  $('model-name').textContent = model.name ? `${model.owner ? model.owner + ' / ' : ''}${model.name} ${model.version}${size}`
    : model.state === 'off' ? 'Collects data for Edge Impulse Studio' : 'No model yet';
  document.body.classList.toggle('without-model', model.state === 'off');
  pill('pill-model', ...STATE_PILLS[model.state]);
  // The source is not started before the model runs.
  pill('pill-source', ...(['running', 'off'].includes(model.state) || source.state !== 'starting' ? STATE_PILLS[source.state] : ['', 'waits for the model']));
  showDelivery(mqtt);
  const active = model.state === 'running' && source.state === 'running';
  $('rate').textContent = active ? inference.per_second.toFixed(1) : '–';
  $('ms').textContent = counters.inferences ? inference.ms_p50.toFixed(1) : '–';
  $('p95').textContent = counters.inferences ? inference.ms_p95.toFixed(1) : '–';
  const sign = {gt: '>', ge: '≥', eq: '=', le: '≤', lt: '<'};
  $('filter').textContent = !filter ? '–' : filter.enabled === 'yes'
    ? `on: confidence ${sign[filter.threshold_criteria]} ${filter.confidence_threshold}` : 'off: every confidence passes';
  $('filter').dataset.enabled = filter?.enabled ?? '';
  $('gate').textContent = gate.publish_every > 1 ? `every ${gate.publish_every}th inference that passes` : 'every inference that passes';
  const caches = [cache.file && 'files', cache.s3_bucket && `S3 bucket ${cache.s3_bucket}`].filter(Boolean);
  const failures = counters.cache_failures ? `, ${number(counters.cache_failures)} failed` : '';
  $('cache').textContent = caches.length ? `${caches.join(' and ')}: ${number(counters.cache_writes)} written${failures}` : 'off';
  $('counts').textContent = `${number(counters.published)} of ${number(counters.inferences)} inferences; ${number(counters.filtered)} filtered, ${number(counters.gated)} gated, ${number(counters.empty)} empty`;
  $('uptime').textContent = span(status.uptime_s);
  showVersions(model);
  showStudio(status.studio);
  showMessages(status.published);
  showEvents();
  $('footer').textContent = `ei-greengrass ${status.version} · ${(status.rss_bytes / 1048576).toFixed(0)} MB`;
  drawChart();
}

function showDelivery(mqtt) {
  const waiting = mqtt.waiting ? `, ${number(mqtt.waiting)} waiting` : '';
  const [kind, text] = {
    online: ['good', 'connected'], screen: ['good', 'on the screen'], off: ['', 'off'],
    connecting: ['warn', `connecting${waiting}`], offline: ['bad', `offline${waiting}`],
  }[mqtt.state];
  pill('pill-mqtt', kind, text);
  const lines = [];
  if (mqtt.state === 'offline') lines.push(`The broker cannot be reached: ${mqtt.reason}. Messages are kept and sent when the connection is back; the next attempt follows within ${span(Math.max(1, mqtt.retry_in_s))}.`);
  const lost = status.counters.outbox_dropped + status.counters.spool_dropped;
  if (lost) lines.push(`${number(lost)} messages were dropped, the oldest first, because the outbox or the spool was full.`);
  // The states of model, source and MQTT are shown elsewhere.
  const parts = {spool: 'The disk spool does not work', cache_file: 'The file cache does not work', cache_s3: 'The S3 cache does not work', event_clips: 'The clips of events are not written', local_topics: 'The local topics of Greengrass do not work', studio: 'There is no connection to Edge Impulse Studio'};
  if (status.model.state === 'running') parts.model = 'Model';
  for (const problem of status.problems) {
    const [, part, reason] = /^(\w+): ([^]*)/.exec(problem);
    if (parts[part]) lines.push(`${parts[part]}: ${reason}${/[.!?…]$/.test(reason) ? '' : '.'}`);
  }
  $('banner').hidden = !lines.length;
  $('banner').textContent = lines.join(' ');
}

// Only for a model that can be updated.
function showVersions({version, previous_version: before, probation_s: probation, update, bad_version: bad}) {
  $('versions').hidden = !(before || update || bad || probation !== null);
  const proof = probation === null ? '' : `; on probation for ${span(probation)} more${before ? `, ${before} comes back if it fails` : ''}`;
  $('version').textContent = `${version ?? 'none'}${proof}`;
  $('version-before').textContent = before ?? 'none';
  $('version-update').textContent = !update ? 'none in progress'
    : update.state === 'trial' ? `${update.version} is tried beside the running version` : 'looking for a new version, or downloading it';
  $('version-bad').textContent = bad ? `${bad.version}: ${bad.reason}` : 'none';
}

const size = bytes => bytes < 1000 ? `${bytes} B` : bytes < 1e6 ? `${(bytes / 1000).toFixed(0)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
function showStudio({state, reason, project, waiting, uploads}) {
  // Frames are also uploaded without a connection on which Studio asks for something.
  const isOff = state === 'off';
  $('pill-studio').hidden = isOff;
  $('studio').hidden = isOff && !uploads.length && !waiting;
  if ($('studio').hidden) return;
  for (const part of document.querySelectorAll('.of-project')) part.hidden = isOff;
  const [kind, text] = STUDIO_PILLS[state];
  pill('pill-studio', kind, text);
  $('studio-state').textContent = isOff ? 'none; frames are uploaded without it' : reason ? `${text}: ${reason}` : text;
  showProject(project);
  $('studio-device').textContent = project?.device ?? 'not known yet';
  const {studio_uploads: stored, studio_uploads_refused: refused, studio_uploads_dropped: lost} = status.counters;
  $('studio-samples').textContent = `${number(stored)} uploaded, ${number(waiting)} waiting, ${number(refused)} refused, ${number(lost)} lost`;
  const items = uploads.map(upload => {
    const item = node('li'), [tag, word] = UPLOAD_TAGS[upload.state];
    item.append(
      node('time', '', new Date(upload.ts).toLocaleTimeString('en-GB')),
      node('span', 'name', upload.name), node('span', 'label', upload.label || 'no label'),
      node('span', 'category', upload.category), node('span', 'size', size(upload.bytes)),
      node('span', `tag ${tag}`, word));
    if (upload.reason) item.append(node('span', 'why', upload.reason));
    return item;
  });
  $('uploads').replaceChildren(...items);
}

// A link only to a page of the web: no other scheme may run a script.
function showProject(project) {
  if (!project) return void ($('studio-project').textContent = 'not known yet');
  if (!/^https?:\/\//.test(project.link)) return void ($('studio-project').textContent = project.name);
  const link = node('a', '', project.name);
  link.href = project.link;
  link.target = '_blank';
  link.rel = 'noopener noreferrer';
  $('studio-project').replaceChildren(link);
}

// Why there is no picture; shown in its place.
function missing() {
  if (!status) return 'No connection to the device. Trying again…';
  const {model, source} = status;
  if (model.state === 'off' && source.state === 'running') return 'The source runs. Without a model there is no live picture.';
  if (model.state === 'starting') return 'The model is loading…';
  if (model.state === 'warming-up') return `The model prepares its first inference, ${span(model.for_s)} so far. With a GPU engine this can take up to an hour the first time.`;
  if (model.state === 'waiting') return `No model: ${model.reason}. The component tries again.`;
  if (model.state === 'unsupported-model') return `This model works on sensor “${model.input?.kind}”, which this component cannot read. Deploy another model.`;
  if (source.state === 'starting') return 'The source is starting…';
  if (source.state === 'waiting') return `No picture: ${source.reason}. The component tries again.`;
  if (source.state === 'paused') return 'The source ended. Send the command “restart” to start it again.';
  if (Date.now() - lastMoment > 3000) return 'Waiting for the next inference…';
  return '';
}
function showNotice() {
  const text = missing();
  $('notice').hidden = !text;
  $('notice').textContent = text;
  $('frame').classList.toggle('bare', !picture && (moment?.level ?? null) === null);
}

function showMessages(list) {
  if (!list.length) return;
  const items = list.map(({ts, topic, payload}) => {
    const item = node('li');
    item.append(
      node('time', '', new Date(ts).toLocaleTimeString('en-GB')),
      node('span', 'topic', topic.split('/').slice(4).join('/')),
      node('code', '', JSON.stringify(payload)));
    return item;
  });
  $('messages').replaceChildren(...items);
}
