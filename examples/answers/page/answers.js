// Shows an answer while it is written. The job's address is kept in this page's own, so that a reload finds it again.

const RETRY_MILLISECONDS = 3000;
const WAITING = "Waiting …";
const ENDS = { succeeded: "That is the answer.", failed: "The answer has failed.", cancelled: "Stopped." };

const find = (id) => document.getElementById(id);
const [form, question, stop, state, answer] = ["ask", "question", "stop", "state", "answer"].map(find);
let source = null;

function follow(job) {
  source?.close();
  answer.textContent = "";
  state.textContent = WAITING;
  stop.disabled = false;
  stop.onclick = () => {
    stop.disabled = true;
    fetch(`${job}/cancel`, { method: "POST" });
  };
  listen(job, "");
}

function listen(job, after) {
  const events = new EventSource(`${job}/events?kinds=item&after=${after}`);
  let last = after;
  source = events;
  events.addEventListener("item", (event) => {
    last = event.lastEventId;
    if (state.textContent === WAITING) state.textContent = "Being written …";
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
  events.addEventListener("error", () => {
    // A browser connects again by itself, but not after an answer like 502, as a proxy gives during a deployment.
    if (events.readyState === EventSource.CLOSED && source === events) {
      state.textContent = "The connection is lost; trying again …";
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
  });
  if (response.status !== 202) {
    state.textContent = `This could not be asked (${response.status}).`;
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
