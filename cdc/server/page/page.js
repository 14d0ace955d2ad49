'use strict';

// Everything from the server is inserted into the page as text, never as HTML.
const shownChanges = 500;
const refreshEvery = 2000;
const $ = (id) => document.getElementById(id);
let token = sessionStorage.getItem('token') || '';
let following = null; // stops the stream that is shown

function element(name, className, text) {
  const e = document.createElement(name);
  if (className) e.className = className;
  if (text !== undefined) e.textContent = text;
  return e;
}

async function call(path, options = {}) {
  const headers = {...options.headers};
  if (token) headers.Authorization = 'Bearer ' + token;
  const response = await fetch(path, {...options, headers});
  if (response.status === 401) {
    $('denied').textContent = token ? 'It is not this one.' : '';
    if ($('access').hidden) {
      $('access').hidden = false;
      $('token').focus();
    }
  } else {
    $('access').hidden = true;
  }
  if (!response.ok) {
    const problem = await response.json().catch(() => ({}));
    throw new Error(problem.error || 'the server answers ' + response.status);
  }
  return response;
}

function bytes(n) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let i = 0;
  for (; n >= 1024 && i < units.length - 1; i++) n /= 1024;
  return (i ? n.toFixed(1) : n) + ' ' + units[i];
}

// cell makes a cell of a row; on a narrow page, each cell shows the name of its column.
function cell(column, className, ...content) {
  const e = element('td', className);
  e.role = 'cell';
  if (column) e.dataset.column = column;
  e.append(...content);
  return e;
}

// tablesOf returns the tables of a slot, or its owner if it is not of this server.
function tablesOf(slot) {
  if (slot.own) return (slot.tables || []).join(', ');
  if (slot.v1) return element('span', 'faint', slot.v1 === 'default' ? 'session of /v1' : 'session of /v1, installation ' + slot.v1);
  return element('span', 'faint', slot.temporary ? 'temporary' : 'not made here');
}

function slotRow(slot) {
  const row = element('tr');
  row.role = 'row';
  const sick = slot.status === 'lost' || slot.status === 'missing' || slot.status === 'unreserved';
  const state = element('span', sick ? 'bad' : slot.active ? 'good' : 'mild', sick ? slot.status : slot.active ? 'streaming' : 'waiting');
  if (slot.snapshot) state.append(element('span', 'faint', ', snapshot held'));
  row.append(cell('Name', '', element('code', '', slot.name)), cell('Tables', 'tables', tablesOf(slot)), cell('State', '', state),
    cell('Confirmed', '', element('code', '', slot.confirmed)), cell('Lag', 'number', bytes(slot.lag_bytes)),
    cell('Log kept', 'number', bytes(slot.retained_bytes)));
  return row;
}

async function refresh() {
  try {
    const {slots} = await (await call('/v2/slots')).json();
    const rows = slots.map(slotRow);
    if (!rows.length) {
      const empty = cell('', 'faint', 'There are none yet: POST /v2/slots makes one.');
      empty.colSpan = 6;
      rows.push(element('tr'));
      rows[0].role = 'row';
      rows[0].append(empty);
    }
    $('slots').replaceChildren(...rows);
    say('health', '');
  } catch (error) {
    say('health', error instanceof TypeError ? 'The server does not answer.' : error.message);
  }
}

// say sets a text only if it has changed, because screen readers read it out each time.
function say(id, text) {
  if ($(id).textContent !== text) $(id).textContent = text;
}

function values(row) {
  return Object.entries(row).map(([name, value]) => name + '=' + JSON.stringify(value)).join(' ');
}

function show(transaction) {
  const list = $('changes');
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  const time = transaction.commit_time ? new Date(transaction.commit_time).toLocaleTimeString('en-GB') : '';
  for (const change of transaction.changes) {
    const item = element('li');
    const row = change.new || change.old || change.key || {};
    const kept = change.unchanged ? ' (' + change.unchanged.join(', ') + ' unchanged)' : '';
    item.append(element('time', 'faint', time), element('span', 'kind ' + change.kind, change.kind),
      element('span', '', change.schema + '.' + change.table), element('span', 'row', values(row) + kept));
    list.append(item);
  }
  while (list.children.length > shownChanges) list.firstChild.remove();
  if (atEnd) list.scrollTop = list.scrollHeight;
}

// events reads Server-Sent Events. EventSource cannot send a token, and fetch can.
async function events(response, handle) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const {value, done} = await reader.read();
    if (done) return;
    const parts = (rest + value).split('\n\n');
    rest = parts.pop();
    for (const part of parts) {
      const data = part.split('\n').find((line) => line.startsWith('data: '));
      if (data) handle(JSON.parse(data.slice(6)));
    }
  }
}

async function follow() {
  if (!document.querySelector('[name=kind]:checked')) {
    say('state', 'Choose a kind of change');
    return;
  }
  const stop = new AbortController();
  following = stop;
  $('follow').dataset.on = '';
  $('follow').textContent = 'Stop';
  const query = new URLSearchParams();
  if ($('tables').value.trim()) query.set('tables', $('tables').value);
  query.set('kinds', [...document.querySelectorAll('[name=kind]:checked')].map((box) => box.value).join(','));
  let ending = 'Not following';
  try {
    say('state', 'Connecting…');
    const response = await call('/v2/tail?' + query, {headers: {Accept: 'text/event-stream'}, signal: stop.signal});
    await events(response, (message) => {
      if (message.type === 'position') say('state', 'Following');
      if (message.type === 'transaction') show(message);
      if (message.type === 'error') throw new Error(message.error);
    });
    ending = 'The server has ended it';
  } catch (error) {
    if (!stop.signal.aborted) ending = error instanceof TypeError ? 'The server does not answer' : error.message;
  }
  stop.abort();
  if (following === stop) {
    following = null;
    delete $('follow').dataset.on;
    $('follow').textContent = 'Follow';
    say('state', ending);
  }
}

$('access').addEventListener('submit', (event) => {
  event.preventDefault();
  token = $('token').value.trim();
  sessionStorage.setItem('token', token);
  $('token').value = '';
  refresh();
});
$('tail').addEventListener('submit', (event) => {
  event.preventDefault();
  if (following) following.abort();
  else follow();
});
$('clear').addEventListener('click', () => $('changes').replaceChildren());

(async function always() {
  if (!document.hidden) await refresh();
  setTimeout(always, refreshEvery);
})();
