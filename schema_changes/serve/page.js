// The page: what the log has, then what comes, from the cursor of that answer on. Names are text, never markup:
// nothing here writes HTML.

const $ = (id) => document.getElementById(id);
const form = $("filters");
const FIELDS = ["object", "user", "tag", "day"];
const SIGNS = { created: "+", altered: "~", dropped: "−" };
const SHOWN = 8; // objects of a change
const KEPT = 2000; // changes in the page
const SILENCE = 40_000; // milliseconds without a sign of life, of which there is one every 15 s

let changes = []; // newest first, as they are shown
let cursor = ""; // what the page has all up to
let source = null;
let asked = 0; // the number of the last question, so that late answers to earlier ones are dropped
let silence = 0;
let before = null; // where older changes are to be had from

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function filters() {
  const chosen = {};
  for (const name of FIELDS) if (form[name].value.trim()) chosen[name] = form[name].value.trim();
  return chosen;
}

function passes(change, { object, user, tag, day }) {
  return (
    (!object || (change.objects ?? []).some((item) => (item.identity ?? "").toLowerCase().includes(object.toLowerCase()))) &&
    (!user || change.user === user) &&
    (!tag || change.tag.toLowerCase() === tag.toLowerCase()) &&
    (!day || when(change).toISOString().startsWith(day))
  );
}

function when(change) {
  return new Date(change.timestamp.replace(" ", "T").replace(/([+-]\d\d)$/, "$1:00"));
}

// A place in the history a little after this change, as the text tells milliseconds only; null for a reset.
function placeOf(change) {
  return change.type === "reset" ? null : `${new Date(when(change).getTime() + 1).toISOString()}/0/0`;
}

// Everything that can be chosen is in the URL, so that a link shows the same.
function toUrl() {
  const query = new URLSearchParams(filters());
  if (form.by.value !== "day") query.set("by", form.by.value);
  history.replaceState(null, "", query.size ? `?${query}` : location.pathname);
}

function fromUrl() {
  const query = new URLSearchParams(location.search);
  for (const name of [...FIELDS, "by"]) if (query.has(name)) form[name].value = query.get(name);
}

async function load(older = null) {
  const number = ++asked;
  if (!older) close();
  const query = new URLSearchParams(filters());
  if (older) query.set("before", older);
  let answer, body;
  try {
    answer = await fetch(`history?${query}`);
    body = await answer.json();
  } catch {
    if (number === asked) say("down", "no answer; asking again …"), setTimeout(() => number === asked && load(older), 2000);
    return;
  }
  if (number !== asked) return;
  $("login").hidden = answer.status !== 401;
  $("notice").textContent = answer.ok || answer.status === 401 ? "" : body.error;
  if (answer.status === 401) return say("down", "a token is needed");
  if (answer.ok) {
    changes = older ? [...changes, ...body.changes] : body.changes;
    before = body.before;
    if (!older) cursor = body.cursor;
  } else if (!older) {
    [changes, before] = [[], null];
  }
  show();
  if (!older && answer.status !== 400) follow();
  if (!older) state();
}

function close() {
  source?.close();
  source = null;
  clearTimeout(silence);
}

// EventSource comes back by itself after a cut, and says where it was; not after a refusal, nor when a line is silent.
function follow() {
  close();
  const mine = (source = new EventSource(cursor ? `events?cursor=${encodeURIComponent(cursor)}` : "events"));
  const alive = (event) => {
    clearTimeout(silence);
    silence = setTimeout(() => (say("down", "the line is silent; connecting again …"), follow()), SILENCE);
    if (event.lastEventId) cursor = event.lastEventId;
    say("live", "live");
  };
  mine.addEventListener("alive", alive);
  mine.addEventListener("change", (event) => (alive(event), add(JSON.parse(event.data))));
  mine.addEventListener("reset", (event) => (alive(event), add(JSON.parse(event.data))));
  mine.addEventListener("error", () => {
    say("down", "connecting again …");
    if (mine.readyState === EventSource.CLOSED && mine === source) setTimeout(() => mine === source && follow(), 2000);
  });
}

function add(change) {
  change.isNew = true;
  if (change.type !== "reset" && !passes(change, filters())) return;
  changes.unshift(change);
  if (changes.length > KEPT) {
    changes.length = KEPT;
    before = placeOf(changes.at(-1)) ?? before;
  }
  schedule();
}

let scheduled = false;
function schedule() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => ((scheduled = false), show()));
}

function groupsOf(change) {
  if (change.type === "reset") return [new Date().toISOString().slice(0, 10)];
  if (form.by.value === "user") return [change.user ?? "unknown"];
  if (form.by.value === "object") return [...new Set((change.objects ?? []).slice(0, SHOWN).map((item) => item.identity || item.kind))];
  return [when(change).toISOString().slice(0, 10)];
}

function show() {
  const open = new Set([...document.querySelectorAll("details[open]")].map((details) => details.dataset.key));
  const groups = new Map();
  for (const change of changes)
    for (const group of groupsOf(change)) groups.set(group, [...(groups.get(group) ?? []), change]);
  $("groups").replaceChildren(
    ...[...groups].map(([group, members]) =>
      element("section", {}, element("h3", {}, element("bdi", { textContent: group })), element("ol", {}, ...members.map((change) => row(change, open)))),
    ),
  );
  $("count").textContent = changes.length === 1 ? "1 change" : `${changes.length}${before ? "+" : ""} changes`;
  $("older").hidden = !before;
}

function row(change, open) {
  const entry = element("li", { className: change.isNew ? "change new" : "change" });
  if (change.type === "reset") {
    entry.append(element("p", { className: "reset", textContent: `Reset: ${change.reason}. What happened before this point cannot be told.` }));
    return entry;
  }
  const objects = (change.objects ?? []).slice(0, SHOWN).map((item) =>
    element("span", { className: SIGNS[item.action] ? item.action : "", textContent: visible(`${SIGNS[item.action] ?? "?"} ${item.kind} ${item.identity ?? ""}`), title: item.action }),
  );
  const left = (change.objects ?? []).length - objects.length;
  if (left > 0) objects.push(element("span", { textContent: `… ${left} more` }));
  const key = `${change.txid}-${change.id}-${change.timestamp}`;
  const details = element(
    "details",
    { open: open.has(key) },
    element(
      "summary",
      {},
      element("time", { dateTime: when(change).toISOString(), textContent: when(change).toLocaleTimeString(undefined, { hour12: false }) }),
      element("span", { className: "tag", textContent: change.tag }),
      element("span", { className: "objects" }, ...objects),
      element("span", { className: "user", textContent: visible(change.user ?? "") }),
    ),
  );
  details.dataset.key = key;
  // made when it is looked at: it can be long
  const fill = () => details.open && details.children.length === 1 && details.append(element("pre", { tabIndex: 0, textContent: visible(JSON.stringify(change, (name, value) => (name === "isNew" ? undefined : value), 2)) }));
  details.addEventListener("toggle", fill);
  fill();
  entry.append(details);
  if (change.differences_text) entry.append(element("p", { className: "differences", textContent: visible(change.differences_text.trimEnd()) }));
  return entry;
}

// Control letters and those that turn the direction of writing are shown as what they are.
function visible(text) {
  return text.replace(/(?!\n)[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (letter) => `\\u{${letter.codePointAt(0).toString(16)}}`);
}

function say(kind, text) {
  $("line").className = kind;
  if ($("line").textContent !== text) $("line").textContent = text;
}

async function state() {
  let body;
  try {
    const answer = await fetch("status");
    if (!answer.ok) return;
    body = await answer.json();
  } catch {
    return;
  }
  $("database").textContent = body.database;
  const entry = (name, healthy, words) =>
    element("li", {}, element("span", { className: healthy === false ? "ill" : "well", textContent: healthy === false ? "✗ " : "✓ " }), `${name}: ${words}`);
  $("states").replaceChildren(
    entry("Feed", body.feed.healthy, body.feed.healthy === null ? body.feed.problem : body.feed.healthy ? "healthy" : (body.feed.problem ?? "unhealthy")),
    ...body.relays.flatMap((relay) =>
      relay.sinks.length
        ? relay.sinks.map((sink) => entry(`Relay to ${sink.sink}`, sink.healthy, sink.problem ?? (sink.lag_seconds > 1 ? `${Math.round(sink.lag_seconds)} s behind` : `up to date, ${sink.delivered} delivered`)))
        : [entry("Relay", false, relay.problem)],
    ),
  );
}

let typing = 0;
form.addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => (toUrl(), load()), 250);
});
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("reset", () => setTimeout(() => (toUrl(), load())));
$("older").addEventListener("click", () => load(before));
$("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  const answer = await fetch("login", { method: "POST", body: event.target.token.value });
  $("refused").textContent = answer.ok ? "" : "This is not the token.";
  if (answer.ok) load();
});
window.addEventListener("popstate", () => (form.reset(), fromUrl()));
setInterval(state, 10_000);
fromUrl();
load();
