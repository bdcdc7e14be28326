
'use strict';

// Everything that comes from the device is inserted into the page as text, never as markup.
const $ = id => document.getElementById(id);
const origin = location.origin;

// Names and errors come from outside: characters that hide or turn text around are shown as their numbers.
const HIDDEN = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff0-\ufffb]|\udb40[\udc00-\udfff]/g;
const visible = text => text.replace(HIDDEN, c => `\\u{${c.codePointAt(0).toString(16)}}`);
const shownValue = (_, value) => typeof value === 'string' ? visible(value) : value;

async function request(path, options) {
  $('error').hidden = true;
  try {
    const answer = await fetch(path, options);
    const text = await answer.text();
    if (!answer.ok) throw new Error(visible(text.trim()));
    return JSON.parse(text, shownValue);
  } catch (error) {
    $('error').textContent = error.message;
    $('error').hidden = false;
    return null;
  }
}

function show(answer) {
  $('answer').textContent = JSON.stringify(answer, null, 2);
  $('answer').hidden = false;
}

async function classifyPicture(file) {
  const form = new FormData();
  form.append('file', file);
  const answer = await request('api/image', {method: 'POST', body: form});
  if (!answer) return;
  show(answer);
  const bitmap = await createImageBitmap(file, {imageOrientation: 'none'}).catch(() => null);
  if (bitmap) draw(bitmap, answer.result);
}

function draw(bitmap, result) {
  const view = $('view'), ctx = view.getContext('2d'), unit = Math.max(1, bitmap.width / 640);
  view.width = bitmap.width;
  view.height = bitmap.height;
  view.hidden = false;
  ctx.drawImage(bitmap, 0, 0);
  const cells = result.visual_anomaly_grid ?? [];
  const most = Math.max(1e-9, ...cells.map(cell => cell.value));
  for (const cell of cells) {
    ctx.fillStyle = `hsl(${60 - 60 * cell.value / most} 95% 52% / ${.2 + .4 * cell.value / most})`;
    ctx.fillRect(cell.x, cell.y, cell.width, cell.height);
  }
  for (const box of result.object_tracking ?? result.bounding_boxes ?? []) {
    const text = `${box.label} ${box.value.toFixed(2)}`;
    ctx.lineWidth = 2.5 * unit;
    ctx.strokeStyle = ctx.fillStyle = 'hsl(165 72% 52%)';
    ctx.strokeRect(box.x, box.y, box.width, box.height);
    ctx.font = `600 ${14 * unit}px system-ui, sans-serif`;
    const top = box.y >= 21 * unit ? box.y - 21 * unit : box.y + box.height;
    ctx.fillRect(box.x, top, ctx.measureText(text).width + 12 * unit, 21 * unit);
    ctx.fillStyle = '#08110e';
    ctx.fillText(text, box.x + 6 * unit, top + 15.5 * unit);
  }
}

async function classifyFeatures() {
  const features = $('features').value.split(/[\s,]+/).filter(Boolean).map(Number);
  const answer = await request('api/features', {
    method: 'POST', headers: {'Content-Type': 'application/json'}, body: JSON.stringify({features}),
  });
  if (answer) show(answer);
}

async function start() {
  const info = await request('api/info');
  if (!info) { setTimeout(start, 2000); return; }
  const {project, modelParameters: model} = info;
  document.title = project.name;
  $('name').textContent = `${project.owner} / ${project.name} (v${project.deploy_version})`;
  const pictures = model.sensorType === 'camera' || model.image_input_width > 0;
  $('picture-part').hidden = !pictures;
  $('features-part').hidden = pictures;
  if (pictures) {
    $('about').textContent = `Takes pictures; the input of the model has ${model.image_input_width} × ${model.image_input_height} pixels.`;
    $('example').textContent = `curl -F 'file=@picture.jpg' ${origin}/api/image`;
  } else {
    $('about').textContent = `Takes ${model.input_features_count} features.`;
    $('example').textContent = `curl -H 'Content-Type: application/json' -d '{"features": [5, 10, 15]}' ${origin}/api/features`;
  }
}

$('file').addEventListener('change', () => { if ($('file').files[0]) classifyPicture($('file').files[0]); });
$('classify').addEventListener('click', classifyFeatures);
const drop = document.querySelector('.drop');
drop.addEventListener('dragover', event => { event.preventDefault(); drop.classList.add('over'); });
drop.addEventListener('dragleave', () => drop.classList.remove('over'));
drop.addEventListener('drop', event => {
  event.preventDefault();
  drop.classList.remove('over');
  if (event.dataTransfer.files[0]) classifyPicture(event.dataTransfer.files[0]);
});
start();
