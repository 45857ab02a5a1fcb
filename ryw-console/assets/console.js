'use strict';

// Everything that comes from the service is put in as text, never as markup.

const PERIOD_MS = 2000;
const DEADLINE_MS = 5000;
const $ = (id) => document.getElementById(id);
const number = new Intl.NumberFormat('en');
const clock = (ms) => new Date(ms).toLocaleTimeString('en-GB');
const count = (n, one, many) => `${number.format(n)} ${n === 1 ? one : many}`;

let live = null;
let lastGood = null;
let dismissed = null;
let announced = null;
let paused = false;
let chosen = null;
// On a phone each of them is a card.
const FEW = matchMedia('(max-width: 760px)').matches ? 10 : 25;
const MOST = 500;
const HINT = matchMedia('(pointer: coarse)').matches ? 'Tap a bar to see what is in it.' : 'Point at a bar, or use the arrow keys, to see what is in it.';
let asked = { session: '', primaryReads: false, limit: FEW };
let drawnDecisions = '';
let asking = 0;

function duration(seconds) {
  if (seconds === null || seconds === undefined) return '–';
  if (seconds < 0.0005) return '0 ms';
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 120) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3600)} h`;
}

const milliseconds = (ms) => (ms === 0 ? '–' : ms < 10 ? `${ms.toFixed(1)} ms` : duration(ms / 1000));
const plain = (n) => (n === null || n === undefined ? '–' : number.format(n));

function bytes(n) {
  const units = ['B', 'KiB', 'MiB', 'GiB'];
  let unit = 0;
  for (; n >= 1024 && unit < units.length - 1; unit += 1) n /= 1024;
  return `${unit === 0 ? n : n.toFixed(1)} ${units[unit]}`;
}

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const chip = (status, text) => make('span', { class: 'state', 'data-status': status }, text);
const swatch = (reason) => make('span', { class: `swatch r-${reason}`, 'aria-hidden': 'true' });

// A row of a table. Its cells carry their column's name, for narrow screens.
function row(table, cells) {
  const heads = [...$(table).querySelectorAll('thead th')];
  const made = cells.map((cell, at) => {
    const { content, ...rest } = cell instanceof Object && 'content' in cell ? cell : { content: cell };
    const contents = Array.isArray(content) ? content : [content];
    if (at === 0) return make('th', { scope: 'row', role: 'rowheader', ...rest }, make('span', {}, ...contents));
    const classes = [heads[at].className, rest.class].filter(Boolean).join(' ');
    return make('td', { role: 'cell', 'data-label': heads[at].textContent, ...rest, class: classes || null }, make('span', {}, ...contents));
  });
  return make('tr', { role: 'row' }, ...made);
}

function fill(table, rows, nothing) {
  const columns = $(table).querySelectorAll('thead th').length;
  const empty = () => make('tr', { role: 'row' }, make('td', { class: 'empty', role: 'cell', colspan: columns }, nothing));
  const body = $(table).querySelector('tbody');
  // Whoever is on a button in the table stays there.
  const key = body.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  const wanted = rows.length > 0 ? rows : [empty()];
  while (body.children.length > wanted.length) body.lastElementChild.remove();
  // What has not changed stays, so that nobody's click falls between two of the same.
  wanted.forEach((row, at) => {
    const there = body.children[at];
    if (there === undefined) body.append(row);
    else if (!there.isEqualNode(row)) there.replaceWith(row);
  });
  if (key) [...body.querySelectorAll('button')].find((button) => button.dataset.key === key)?.focus();
}

function facts(list, pairs) {
  $(list).replaceChildren(...pairs.flatMap(([name, value, bad]) => [make('dt', {}, name), make('dd', { class: bad ? 'bad' : null }, value)]));
}

function answer(id, big, more, status = 'ok') {
  $(id).textContent = big;
  $(id).dataset.status = status;
  $(`${id}-more`).textContent = more;
}

// ---- health

function showHealth() {
  const reached = lastGood !== null && live !== null && live.reached;
  const health = live?.health;
  let status = health?.status ?? 'unknown';
  let findings = health?.findings ?? [];
  if (!reached) {
    status = 'critical';
    const since = lastGood === null ? 'There was no answer yet.' : `What this page shows is from ${clock(lastGood)}.`;
    findings = [{ status, check: 'page', node: null, text: `The process does not answer. ${since}` }];
  }
  document.body.classList.toggle('stale', !reached && lastGood !== null);
  $('chip').dataset.status = status;
  $('chip').textContent = status;
  const judged = status === 'ok' ? '' : `${status[0].toUpperCase()}${status.slice(1)}: `;
  document.title = `${judged}Read-your-writes`;
  // Numbers in the texts change all the time; that alone is nothing new.
  const key = JSON.stringify(findings.map(({ status, check, node }) => [status, check, node]));
  const titles = { degraded: 'Degraded: it serves, but look at this', critical: 'Critical: somebody has to act now' };
  $('banner').hidden = status === 'ok' || dismissed === key;
  $('banner').dataset.status = status;
  $('banner').dataset.key = key;
  $('banner-title').textContent = titles[status] ?? '';
  $('findings').replaceChildren(...findings.map((finding) => make('li', {}, finding.text)));
  if (status === 'ok') dismissed = null;
  if (announced !== key) {
    if (announced !== null || findings.length > 0) {
      $('announce').textContent = `Health: ${status}. ${findings.map((finding) => finding.text).join(' ')}`;
    }
    announced = key;
  }
}

// ---- the five answers

function showAnswers() {
  const { routing, health, losses, checks, epoch } = live;
  const reads = routing.reads_by_replicas + routing.reads_by_primary;
  const share = reads === 0 ? 0 : (100 * routing.reads_by_primary) / reads;
  const percent = `${share < 10 && share > 0 ? share.toFixed(1) : Math.round(share)} %`;
  answer('a-reads', reads === 0 ? 'No reads yet' : percent,
    reads === 0 ? 'In the last 15 minutes.'
      : `${number.format(routing.reads_by_primary)} of ${count(reads, 'read', 'reads')} in the last 15 minutes. “Last decisions” lists them.`);

  const causes = routing.reasons.filter((reason) => reason.reason !== 'write' && reason.primary > 0);
  causes.sort((a, b) => b.primary - a.primary);
  if (causes.length === 0) answer('a-why', 'Nothing to explain', 'No read needed the primary.');
  else answer('a-why', causes[0].reason, `${number.format(causes[0].primary)} of these reads. ${causes[0].meaning}`);

  const replicas = health.nodes.filter((node) => node.state === 'replica');
  const oldest = replicas.reduce((worst, node) => (worst === null || (node.lag_seconds ?? Infinity) > (worst.lag_seconds ?? Infinity) ? node : worst), null);
  if (epoch === null) answer('a-lag', 'Not known', 'The layer was given no positions, or no node has answered yet.', health.nodes.length > 0 ? 'degraded' : 'ok');
  else if (oldest === null) answer('a-lag', 'No replica', 'None is in service.', 'degraded');
  else {
    const far = oldest.lag === 0 ? 'and has applied all of the log' : `by ${oldest.lag === 1 ? '1 unit' : `${plain(oldest.lag)} units`} of log`;
    const text = `${oldest.name} is furthest behind, ${far}. ${count(replicas.length, 'replica', 'replicas')} in service.`;
    answer('a-lag', duration(oldest.lag_seconds), text, oldest.status);
  }

  const allowed = routing.reasons.find((reason) => reason.reason === 'stale-allowed')?.replica ?? 0;
  const old = allowed > 0 ? ` ${count(allowed, 'read', 'reads')} asked for a level that allows old data.` : '';
  const checked = checks.decided_total === 0 ? '' : ` ${count(checks.decided_total, 'spot check', 'spot checks')} found the same on the primary.`;
  const unproven = routing.unproven === 0 ? '' : ` ${count(routing.unproven, 'read', 'reads')} brought a token that nobody believes, and got no more than without it.`;
  if (checks.violations > 0) answer('a-stale', 'Yes', `${count(checks.violations, 'spot check', 'spot checks')} in the last 15 minutes proved that a replica showed less than its session had to see. The log names it.`, 'critical');
  else if (routing.unachieved === 0) answer('a-stale', 'No', `Each answer kept what its level promises, as far as positions tell.${checks.violations_total === 0 ? checked : ''}${old}${unproven}`);
  else answer('a-stale', count(routing.unachieved, 'answer', 'answers'), `did not keep what the level promises, and said so.${old}${unproven}`, 'degraded');

  const unknown = losses.unknown_outcomes === 0 ? '' : ` Of ${count(losses.unknown_outcomes, 'write', 'writes')} nobody knows whether they were made.`;
  if (losses.told > 0) answer('a-lost', 'Yes', `${count(losses.told, 'answer', 'answers')} in the last 15 minutes told of work that did not survive a failover.${unknown}`, 'critical');
  else answer('a-lost', 'None known', `No session had to be told of a loss in the last 15 minutes.${unknown}`, unknown ? 'degraded' : 'ok');
}

// ---- tables

function showNodes() {
  const rows = live.health.nodes.map((node) => row('nodes', [
    node.name,
    { content: chip(node.status, node.state) },
    node.state === 'primary' ? '–' : duration(node.lag_seconds),
    node.state === 'primary' ? '–' : plain(node.lag),
    plain(node.position),
    plain(node.epoch),
    plain(node.load),
    node.last_seen_ms === null ? 'never' : `${duration(node.last_seen_ms / 1000)} ago`,
  ]));
  fill('nodes', rows, 'No positions are known: a time window decides.');
}

function showReasons() {
  const counted = (now, total) => ({ content: [number.format(now), ' ', make('span', { class: 'total' }, `(${number.format(total)})`)] });
  const occurred = (reason) => reason.replica_total + reason.primary_total > 0;
  const rows = live.routing.reasons.filter(occurred).map((reason) => row('reasons', [
    { content: [swatch(reason.reason), reason.reason] },
    counted(reason.replica, reason.replica_total),
    counted(reason.primary, reason.primary_total),
    { content: reason.meaning, class: 'prose' },
  ]));
  fill('reasons', rows, 'No request yet.');
  const others = live.routing.reasons.filter((reason) => !occurred(reason));
  $('others').replaceChildren(...others.flatMap((reason) => [make('dt', {}, reason.reason), make('dd', {}, reason.meaning)]));
}

function sessionButton(session, key) {
  if (session === null) return '–';
  const button = make('button', { type: 'button', class: 'link', 'data-key': key, 'aria-label': `Show the decisions of session ${session}` }, session);
  button.addEventListener('click', () => {
    $('session').value = session;
    filter();
    $('h-decisions').scrollIntoView({ block: 'start' });
  });
  return button;
}

function showRest() {
  const { sessions, store, losses, health } = live;
  facts('sessions', [
    ['Subjects with a mark in this process', number.format(sessions.marks)],
    ['Oldest mark', duration(sessions.oldest_seconds)],
    ['Marks on average', duration(sessions.mean_seconds)],
    ['Reads that wait for a replica now', number.format(sessions.waiting)],
  ]);
  fill('busiest', sessions.busiest.map((one) => row('busiest', [
    sessionButton(one.session, `s${one.session}`), number.format(one.requests), number.format(one.reads_on_primary), one.reason,
  ])), 'No session yet.');
  facts('store', store === null ? [['Marks are kept in this process', 'no store']] : [
    ['Shared store', store.away_seconds === null ? 'answers' : `away for ${duration(store.away_seconds)}`, store.away_seconds !== null],
    ['Last answered', store.heard_seconds === null ? 'never' : `${duration(store.heard_seconds)} ago`],
    ['Tries since it went away', number.format(store.tries)],
    ['Subjects whose marks wait to be delivered', number.format(store.backlog), store.backlog > 0],
    ['The oldest has waited for', duration(store.oldest_seconds)],
    ['Outbox on disk', store.outbox_failed ? 'can’t be written' : bytes(store.outbox_bytes), store.outbox_failed],
  ]);
  const { checks } = live;
  facts('checks', checks.all_total === 0 ? [['Reads compared with the primary', 'none']] : [
    ['Reads compared with the primary', number.format(checks.all_total)],
    ['of which have decided something', number.format(checks.decided_total)],
    ['Violations proved', number.format(checks.violations_total), checks.violations_total > 0],
  ]);
  facts('losses', [
    ['Answers that told of a loss', number.format(losses.told_total), losses.told > 0],
    ['Writes of unknown outcome', number.format(losses.unknown_outcomes_total)],
    ['Marks without a position, or not stored', number.format(losses.degraded_marks_total)],
    ['Marks dropped', number.format(losses.dropped_total), losses.dropped_total > 0],
    ['Tokens not believed', number.format(losses.tokens_refused_total)],
    ['Reads served as without such a token', number.format(losses.unproven_total)],
    ['Requests refused', number.format(live.routing.refused_total)],
  ]);
  const of = (measured, which) => (measured === null ? '–' : milliseconds(measured[which]));
  facts('latency', ['reads', 'writes'].flatMap((kind) => [
    [`Median of ${kind}`, of(health[kind], 'p50_ms')],
    [`95th percentile of ${kind}`, of(health[kind], 'p95_ms')],
  ]));
}

// ---- the chart

const SVG = 'http://www.w3.org/2000/svg';

function shape(tag, attributes, text) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

function ceiling(most) {
  const magnitude = 10 ** Math.floor(Math.log10(Math.max(most, 1)));
  const step = [1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10].find((step) => step * magnitude >= most) ?? 10;
  return Math.max(step * magnitude, 4);
}

function span() {
  const seconds = Number(document.querySelector('input[name=span]:checked').value);
  return live.routing.spans.find((span) => span.seconds === seconds);
}

function drawChart() {
  const { bars, width: seconds } = span();
  const families = ['served', 'primary', 'lag', 'trouble'];
  const order = [...live.routing.reasons].sort((a, b) => families.indexOf(a.family) - families.indexOf(b.family)).map((reason) => reason.reason);
  const sums = bars.map((bar) => bar.counts.reduce((sum, [, replica, primary]) => sum + replica + primary, 0));
  drawBars(bars, seconds, order, sums);
  const used = new Set(bars.flatMap((bar) => bar.counts.map(([reason]) => reason)));
  $('legend').replaceChildren(...order.filter((reason) => used.has(reason)).map((reason) => make('li', {}, swatch(reason), reason)));
  readOut(bars, seconds, sums);
}

function drawBars(bars, seconds, order, sums) {
  const { clientWidth: width, clientHeight: height } = $('chart');
  const [left, right, top, bottom] = [46, 4, 8, 24];
  // Not laid out yet, or hidden: it is drawn once it has a size.
  if (width <= left + right || height <= top + bottom) return;
  const most = ceiling(Math.max(...sums));
  const y = (value) => top + (height - top - bottom) * (1 - value / most);
  const step = (width - left - right) / bars.length;
  const svg = shape('svg', { viewBox: `0 0 ${width} ${height}`, 'aria-hidden': 'true' });
  for (const value of [0, most / 2, most]) {
    svg.append(shape('line', { x1: left, x2: width - right, y1: y(value), y2: y(value) }));
    svg.append(shape('text', { x: left - 8, y: y(value) + 4, 'text-anchor': 'end' }, number.format(value)));
  }
  bars.forEach((bar, at) => {
    const x = left + at * step;
    if (at === chosen) svg.append(shape('rect', { class: 'cursor', x, y: top, width: step, height: height - top - bottom }));
    const counts = new Map(bar.counts.map(([reason, replica, primary]) => [reason, replica + primary]));
    let below = 0;
    for (const reason of order.filter((reason) => counts.has(reason))) {
      const above = below + counts.get(reason);
      const gap = Math.min(2, step / 4);
      svg.append(shape('rect', { class: `r-${reason}`, x: x + gap / 2, y: y(above), width: step - gap, height: y(below) - y(above) }));
      below = above;
    }
  });
  const length = bars.length * seconds;
  svg.append(shape('text', { x: left, y: height - 6 }, length > 60 ? `${length / 60} min ago` : `${length} s ago`));
  svg.append(shape('text', { x: width - right, y: height - 6, 'text-anchor': 'end' }, 'now'));
  $('chart').replaceChildren(svg);
}

function readOut(bars, seconds, sums) {
  const at = chosen ?? bars.length - 1;
  const bar = bars[at];
  const parts = bar.counts.map(([reason, replica, primary]) => {
    const by = [replica > 0 ? `${number.format(replica)} by replicas` : '', primary > 0 ? `${number.format(primary)} by the primary` : ''];
    return `${reason} ${by.filter(Boolean).join(', ')}`;
  });
  const when = `${seconds} s from ${clock(live.now_ms - (bar.ago + seconds) * 1000)}`;
  const text = `${when}: ${sums[at] === 0 ? 'no requests' : `${count(sums[at], 'request', 'requests')}; ${parts.join('; ')}`}.`;
  $('readout').textContent = chosen === null ? HINT : text;
  const slider = { 'aria-valuemax': bars.length - 1, 'aria-valuenow': at, 'aria-valuetext': text };
  for (const [name, value] of Object.entries(slider)) $('chart').setAttribute(name, value);
}

function choose(at) {
  if (live === null) return;
  chosen = at === null ? null : Math.max(0, Math.min(at, span().bars.length - 1));
  drawChart();
}

// ---- decisions

function showDecisions(decisions) {
  const drawn = JSON.stringify([asked, decisions[0]?.number, decisions.length, decisions.length === 0 && live.decisions]);
  if (drawn === drawnDecisions) return;
  drawnDecisions = drawn;
  const whose = asked.session === '' ? '' : ` of session ${asked.session}`;
  const which = asked.primaryReads ? 'reads by the primary' : 'decisions';
  const { kept, total } = live.decisions;
  const beyond = total > kept ? ` among the last ${number.format(kept)} decisions. Older ones are not kept.` : ' yet.';
  $('found').textContent = decisions.length === 0 ? `No ${which}${whose}${beyond}` : `The last ${number.format(decisions.length)} ${which}${whose}, newest first.`;
  fill('decisions', decisions.map((one) => row('decisions', [
    clock(one.at_ms),
    one.kind,
    one.node === null ? one.route : `${one.route} ${one.node}`,
    { content: [swatch(one.reason), one.reason] },
    one.level,
    one.achieved ? 'yes' : one.proven ? { content: 'no', class: 'bad' } : 'not owed',
    milliseconds(one.took_ms),
    milliseconds(one.waited_ms),
    { content: sessionButton(one.session, `d${one.number}`) },
  ])), 'Nothing to show.');
  $('more').hidden = decisions.length < asked.limit || asked.limit >= MOST;
}

function filter() {
  asked = { session: $('session').value.trim(), primaryReads: $('primary-reads').checked, limit: FEW };
  refresh();
}

// ---- asking

async function json(path) {
  const response = await fetch(path, { cache: 'no-store', signal: AbortSignal.timeout(DEADLINE_MS) });
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
  return response.json();
}

async function refresh() {
  const turn = (asking += 1);
  const query = new URLSearchParams({ session: asked.session, primary_reads: asked.primaryReads, limit: asked.limit });
  try {
    const [state, decisions] = await Promise.all([json('ryw/live'), json(`ryw/decisions?${query}`)]);
    // An answer that was overtaken by a newer question is not shown.
    if (turn !== asking) return;
    live = { ...state, reached: true };
    lastGood = Date.now();
    showAnswers();
    showNodes();
    showReasons();
    showRest();
    drawChart();
    showDecisions(decisions);
  } catch {
    if (turn !== asking) return;
    if (live !== null) live.reached = false;
  }
  showHealth();
  showAge();
}

function showAge() {
  if (lastGood === null) return;
  const since = live === null ? '' : `up for ${duration(live.uptime_seconds)}`;
  $('updated').textContent = `${paused ? 'Paused, as of' : 'As of'} ${clock(lastGood)}, ${since}`;
}

async function again() {
  if (!paused && !document.hidden) await refresh();
  setTimeout(again, PERIOD_MS);
}

$('refresh').addEventListener('click', refresh);
$('pause').addEventListener('click', () => {
  paused = !paused;
  $('pause').setAttribute('aria-pressed', paused);
  if (!paused) refresh();
  showAge();
});
$('dismiss').addEventListener('click', () => {
  dismissed = $('banner').dataset.key;
  $('banner').hidden = true;
  $('refresh').focus();
});
$('filter').addEventListener('submit', (event) => {
  event.preventDefault();
  filter();
});
$('primary-reads').addEventListener('change', filter);
$('clear').addEventListener('click', () => {
  $('session').value = '';
  $('primary-reads').checked = false;
  filter();
});
$('more').addEventListener('click', () => {
  asked.limit = Math.min(asked.limit + 100, MOST);
  refresh();
});
for (const input of document.querySelectorAll('input[name=span]')) input.addEventListener('change', () => choose(null));
$('chart').addEventListener('keydown', (event) => {
  if (live === null) return;
  const last = span().bars.length - 1;
  const to = { ArrowLeft: (chosen ?? last + 1) - 1, ArrowRight: (chosen ?? last) + 1, Home: 0, End: last }[event.key];
  if (event.key === 'Escape') choose(null);
  else if (to !== undefined) choose(to);
  else return;
  event.preventDefault();
});
function pointed(event) {
  if (live === null) return;
  const { left, width } = $('chart').getBoundingClientRect();
  const at = Math.floor(((event.clientX - left - 46) / (width - 50)) * span().bars.length);
  if (at !== chosen && at >= 0) choose(at);
}
$('chart').addEventListener('pointermove', pointed);
$('chart').addEventListener('pointerdown', pointed);
// A finger that is lifted leaves as well, and what it has pointed at stays.
$('chart').addEventListener('pointerleave', (event) => event.pointerType === 'mouse' && choose(null));
new ResizeObserver(() => live !== null && drawChart()).observe($('chart'));
for (const table of document.querySelectorAll('table')) {
  table.setAttribute('role', 'table');
  table.querySelectorAll('thead, tbody').forEach((group) => group.setAttribute('role', 'rowgroup'));
  table.querySelectorAll('thead tr').forEach((head) => head.setAttribute('role', 'row'));
  table.querySelectorAll('thead th').forEach((head) => head.setAttribute('role', 'columnheader'));
}
again();
