// Shows an answer while it is written. The job's address is kept in this page's own, so that a reload finds it again.

const RETRY_MILLISECONDS = 3000;
const WAITING = "Waiting …";
const LOST = "The connection is lost; trying again …";
const ENDS = { succeeded: "That is the answer.", failed: "The answer has failed.", cancelled: "Stopped." };

const find = (id) => document.getElementById(id);
const [form, question, stop, state, answer] = ["ask", "question", "stop", "state", "answer"].map(find);
let source = null;

function follow(job) {
  source?.close();
  answer.textContent = "";
  state.textContent = WAITING;
  stop.disabled = false;
  stop.onclick = async () => {
    stop.disabled = true;
    const status = await statusOf(`${job}/cancel`, { method: "POST" });
    if (status >= 500 || status === "no answer") {
      state.textContent = `This could not be stopped (${status}); try again.`;
      stop.disabled = false;
    }
  };
  listen(job, "");
}

/** What a request is answered, as far as that counts. */
async function statusOf(path, options) {
  const response = await fetch(path, options).catch(() => null);
  return response?.status ?? "no answer";
}

function listen(job, after) {
  const events = new EventSource(`${job}/events?kinds=item&after=${after}`);
  let last = after;
  source = events;
  events.addEventListener("item", (event) => {
    last = event.lastEventId;
    if ([WAITING, LOST].includes(state.textContent)) state.textContent = "Being written …";
    answer.append(JSON.parse(event.data).data); // as text: an answer is nothing to be run
  });
  events.addEventListener("attempt", (event) => {
    answer.textContent = "";
    state.textContent = `Begun anew: attempt ${JSON.parse(event.data).attempt} …`;
  });
  events.addEventListener("skipped", () => answer.append("[…]"));
  events.addEventListener("done", (event) => {
    events.close();
    stop.disabled = true;
    state.textContent = ENDS[JSON.parse(event.data).status];
  });
  events.addEventListener("error", async () => {
    // A browser connects again by itself, but not after an answer like 502, as a proxy gives during a deployment.
    if (events.readyState !== EventSource.CLOSED || source !== events) return;
    state.textContent = LOST;
    const status = await statusOf(job);
    if (source !== events) return;
    if ([401, 404].includes(status)) {
      state.textContent = "There is no such answer, or it is somebody else's.";
      stop.disabled = true;
    } else {
      setTimeout(() => source === events && listen(job, last), RETRY_MILLISECONDS);
    }
  });
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const response = await fetch("answers", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ question: question.value }),
  }).catch(() => null);
  if (response?.status !== 202) {
    state.textContent = `This could not be asked (${response?.status ?? "no answer"}); try again.`;
    return;
  }
  const job = response.headers.get("Location");
  history.replaceState(null, "", `#${job}`);
  follow(job);
});

const known = location.hash.slice(1);
if (known && new URL(known, location.href).origin === location.origin) {
  follow(known);
}
