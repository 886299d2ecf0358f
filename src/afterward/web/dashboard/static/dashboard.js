// Keeps an open page up to date. All that the dashboard can do, it can do without this.

const SLOW_MILLISECONDS = 15_000; // times such as "3 min ago" grow old, though nothing has changed
const AGAIN_MILLISECONDS = 5_000;
const TOLD = ["said", "cancel", "asked", "retry", "hasten", "refused"];

const lamp = document.getElementById("live");
let stream = null;
let fetching = false;
let wanted = false;

/** Is somebody busy in this part of the page, with what a newer one would take away? */
function isInUse(part) {
  const selection = document.getSelection();
  const isSelected = !selection.isCollapsed && selection.containsNode(part, true);
  return isSelected || (part.contains(document.activeElement) && document.activeElement.matches("input, select, textarea"));
}

/** What tells an element again in a newer page: its id, or what it leads to. */
function nameOf(element) {
  const form = element.form?.getAttribute("action");
  return JSON.stringify([element.id, element.getAttribute("href"), form, element.name, element.closest("tr")?.cells[0]?.textContent]);
}

function replace(part, newer) {
  const focused = part.contains(document.activeElement) ? nameOf(document.activeElement) : null;
  const open = new Map([...part.querySelectorAll("details[id]")].map((details) => [details.id, details.open]));
  const log = part.querySelector(".lines");
  const wasAt = log && (log.scrollTop + log.clientHeight >= log.scrollHeight - 8 ? Infinity : log.scrollTop);
  part.replaceChildren(...newer.childNodes);
  for (const [id, isOpen] of open) {
    const details = document.getElementById(id);
    if (details) details.open = isOpen;
  }
  if (log) part.querySelector(".lines")?.scrollTo(0, wasAt === Infinity ? 1e9 : wasAt);
  if (focused) {
    const again = [...part.querySelectorAll("a, button, summary, [tabindex]")].find((one) => nameOf(one) === focused);
    again?.focus({ preventScroll: true });
  }
}

async function refresh() {
  if (fetching) {
    wanted = true;
    return;
  }
  fetching = true;
  wanted = false;
  try {
    const answer = await fetch(location.href, { cache: "no-store" });
    if (!answer.ok || answer.redirected) throw new Error(answer.status); // another page, such as a login, tells nothing of this one
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const part of document.querySelectorAll("[data-live]")) {
      const newer = page.getElementById(part.id);
      if (newer && newer.innerHTML !== part.dataset.was && !isInUse(part)) {
        part.dataset.was = newer.innerHTML;
        replace(part, newer);
      }
    }
    offerCopies();
    tell(stream?.readyState === EventSource.OPEN);
  } catch {
    tell(false);
  } finally {
    fetching = false;
    if (wanted) setTimeout(refresh, 250);
  }
}

function tell(isLive) {
  lamp.hidden = false;
  lamp.classList.toggle("stale", !isLive);
  document.getElementById("live-word").textContent = isLive ? "live" : "not live";
}

/** A browser connects again by itself, but not after an answer such as a proxy's 502. */
function listen() {
  const listening = new EventSource(document.body.dataset.changes);
  stream = listening;
  listening.addEventListener("open", refresh);
  listening.addEventListener("changed", refresh);
  listening.addEventListener("error", () => {
    tell(false);
    if (listening.readyState === EventSource.CLOSED) setTimeout(() => stream === listening && listen(), AGAIN_MILLISECONDS);
  });
}

/** A page that nobody sees asks for nothing: a browser has only so many connections. */
function followWhileSeen() {
  if (document.hidden) {
    stream?.close();
    stream = null;
  } else if (!stream) {
    listen();
  }
}

function offerCopies() {
  for (const button of document.querySelectorAll("[data-copy]")) button.hidden = !navigator.clipboard;
}

async function copy(button) {
  const text = document.getElementById(button.dataset.copy);
  let word = "Copied";
  try {
    await navigator.clipboard.writeText(text.textContent);
  } catch {
    document.getSelection().selectAllChildren(text); // a browser that forbids it leaves it to the keys
    word = "Selected";
  }
  button.dataset.label ??= button.innerHTML;
  button.textContent = word;
  setTimeout(() => (button.innerHTML = button.dataset.label), 1500);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest?.("[data-copy]");
  if (button) copy(button);
});

// What an action has done is told once, and not again when the page is loaded again.
const here = new URL(location.href);
for (const name of TOLD) here.searchParams.delete(name);
if (here.href !== location.href) history.replaceState(null, "", here);
document.getElementById("notice")?.focus();

const log = document.getElementById("log");
if (log && !here.searchParams.has("after")) log.scrollTop = log.scrollHeight;

offerCopies();
if (document.body.dataset.changes) {
  document.addEventListener("visibilitychange", followWhileSeen);
  addEventListener("pagehide", () => stream?.close());
  addEventListener("pageshow", (event) => event.persisted && ((stream = null), followWhileSeen()));
  setInterval(() => !document.hidden && stream && refresh(), SLOW_MILLISECONDS);
  followWhileSeen();
}
