"use strict";

// A browser opens six connections per server: two for sleeps, two for an upload and
// its progress, one for a stream and one for the table.
const SLEEPING_REQUESTS = 2;
const MAX_UPLOAD_BYTES = 32 * 1048576;

const $ = (id) => document.getElementById(id);
const seconds = (since) => ((performance.now() - since) / 1000).toFixed(2);
const mebibytes = (bytes) => (bytes / 1048576).toFixed(1);

// Sends a request; an error response becomes an Error with its reason.
async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, { cache: "no-store", ...options });
  } catch (error) {
    if (error.name === "AbortError" || error.name === "TimeoutError") throw error;
    throw new Error("The server is unreachable.");
  }
  if (response.ok) return response;
  let reason = response.statusText;
  try {
    reason = (await response.json()).error || reason;
  } catch {
    // Not a response of this application: the status is the reason.
  }
  throw new Error(`The server responded ${response.status}: ${reason}.`);
}

// Yields each line of JSON when it arrives.
async function* lines(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    for (const part of parts) yield JSON.parse(part);
  }
}

// Runs one demonstration at a time, and shows an error in its report. The button is
// not disabled, because it would lose the keyboard focus.
async function run(button, report, demonstration) {
  if (button.getAttribute("aria-disabled") === "true") return;
  button.setAttribute("aria-disabled", "true");
  report.classList.remove("bad");
  try {
    await demonstration();
  } catch (error) {
    report.classList.add("bad");
    report.textContent = error.message;
  } finally {
    button.removeAttribute("aria-disabled");
  }
}

function onSubmit(form, report, demonstration) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    run(form.querySelector("button"), report, demonstration);
  });
}

function bold(report, before, strong, after) {
  const b = document.createElement("b");
  b.textContent = strong;
  report.replaceChildren(before, b, after);
}

// --- Sleep -----------------------------------------------------------------

function drawDots(count) {
  const dots = $("dots");
  dots.classList.remove("asleep");
  dots.replaceChildren(...Array.from({ length: count }, () => document.createElement("i")));
}

function showSleepers() {
  const count = Number($("sleepers").value);
  $("sleepers-shown").textContent = count;
  if ($("sleep-form").querySelector("button").hasAttribute("aria-disabled")) return;
  drawDots(count);
  $("sleep-result").classList.remove("bad");
  bold($("sleep-result"), "One after another, these sleeps take ", `${count} s`, ".");
}

onSubmit($("sleep-form"), $("sleep-result"), async () => {
  const count = Number($("sleepers").value);
  drawDots(count);
  const dots = [...$("dots").children];
  $("dots").classList.add("asleep");
  $("sleep-result").textContent = `${count} tasks are asleep…`;
  const share = count / SLEEPING_REQUESTS;
  const started = performance.now();
  let awake = 0;
  try {
    await Promise.all(Array.from({ length: SLEEPING_REQUESTS }, async () => {
      const response = await ask(`sleep?seconds=1&tasks=${share}`);
      for await (const _ of lines(response)) dots[awake++].className = "awake";
    }));
  } finally {
    $("dots").classList.remove("asleep");
  }
  if (awake < count) throw new Error(`Only ${awake} of ${count} tasks woke.`);
  bold($("sleep-result"), `${count} sleeps of one second each took `,
    `${seconds(started)} s`, ".");
});

$("sleepers").addEventListener("input", showSleepers);

// --- Stream ----------------------------------------------------------------

const PAUSE = 0.2;

onSubmit($("stream-form"), $("stream-result"), async () => {
  const count = Number($("blocks").value);
  $("timeline").replaceChildren();
  $("stream-result").textContent = "Waiting for the first block…";
  const started = performance.now();
  const response = await ask(`stream?blocks=${count}&pause=${PAUSE}`);
  let first = "";
  let last = 0;
  for await (const { block } of lines(response)) {
    const now = (performance.now() - started) / 1000;
    first = first || now.toFixed(2);
    last = block;
    const mark = document.createElement("li");
    mark.textContent = block;
    mark.style.left = `${Math.min(now / (count * PAUSE * 1.1), 1) * 100}%`;
    $("timeline").append(mark);
    $("stream-result").textContent = `Block ${block} of ${count} arrived after ${now.toFixed(2)} s.`;
  }
  if (last < count) throw new Error(`The stream ended after block ${last}.`);
  bold($("stream-result"), "The first block arrived after ", `${first} s`,
    `, the last of ${count} after ${seconds(started)} s.`);
});

$("blocks").addEventListener("input", () => {
  $("blocks-shown").textContent = $("blocks").value;
});

// --- Upload ----------------------------------------------------------------

onSubmit($("upload-form"), $("upload-result"), async () => {
  const body = $("file").files[0] || new Blob([new Uint8Array(4 * 1048576)]);
  const size = Math.max(body.size, 1);
  // The server refuses it too, but a browser that is still sending may miss that.
  if (size > MAX_UPLOAD_BYTES) throw new Error("Choose a file of at most 32 MiB.");
  const key = [...crypto.getRandomValues(new Uint8Array(16))]
    .map((byte) => byte.toString(16).padStart(2, "0")).join("");
  const report = $("upload-result");
  $("upload-bar").value = 0;
  report.textContent = "Sending…";
  const started = performance.now();
  let done = false;
  const watch = async () => {
    for await (const { counted } of lines(await ask(`progress?key=${key}`))) {
      if (done) continue;
      $("upload-bar").value = counted / size;
      report.textContent =
        `The server has counted ${mebibytes(counted)} of ${mebibytes(body.size)} MiB.`;
    }
  };
  const watched = watch();
  watched.catch(() => {}); // the upload reports the error
  try {
    const response = await ask(`upload?key=${key}`, { method: "POST", body });
    const { counted } = await response.json();
    done = true;
    $("upload-bar").value = counted / size;
    bold(report, "The server counted ", `${counted.toLocaleString("en")} bytes`,
      ` in ${seconds(started)} s, and stored none.`);
  } finally {
    done = true;
  }
});

// --- Wait ------------------------------------------------------------------

for (const button of document.querySelectorAll("[data-what]")) {
  const { what } = button.dataset;
  const report = $(`wait-${what}`);
  button.addEventListener("click", () => run(button, report, async () => {
    report.classList.remove("done");
    report.textContent = "waiting…";
    const answer = await (await ask(`deferred?what=${what}`)).json();
    report.classList.add("done");
    report.textContent = `${answer.result}, after ${answer.seconds.toFixed(2)}\u00a0s`;
  }));
}

// --- WebSocket -------------------------------------------------------------

let echoes = null;

// Opens the WebSocket, or returns the open one.
function connection() {
  if (echoes !== null && echoes.readyState === WebSocket.OPEN) return Promise.resolve(echoes);
  const url = new URL("echo", location.href);
  url.protocol = url.protocol.replace("http", "ws");
  return new Promise((resolve, reject) => {
    const opened = new WebSocket(url);
    opened.onopen = () => { echoes = opened; resolve(opened); };
    opened.onclose = () => {
      if (echoes === opened) $("echo-result").textContent = "The connection was closed.";
      reject(new Error("The server does not accept the WebSocket; it needs the extra txgreenwsgi[websocket]."));
    };
  });
}

onSubmit($("echo-form"), $("echo-result"), async () => {
  const opened = await connection();
  const started = performance.now();
  const echo = await new Promise((resolve, reject) => {
    opened.onmessage = (event) => resolve(event.data);
    opened.addEventListener("close", () => reject(new Error("The connection was closed.")));
    opened.send($("message").value);
  });
  bold($("echo-result"), "The server sent back ", echo,
    ` after ${(performance.now() - started).toFixed(1)} ms.`);
});

// --- In flight -------------------------------------------------------------

function row(request) {
  const tr = document.createElement("tr");
  if (request.ours) tr.className = "ours";
  const age = `${request.age.toFixed(2)} s`;
  const waits = request.ours ? "this update" : request.waiting_on || "running";
  for (const text of [request.method, request.path, age, waits]) {
    tr.insertCell().textContent = text;
  }
  tr.cells[2].className = "number";
  return tr;
}

async function look() {
  const response = await ask("requests", { signal: AbortSignal.timeout(5000) });
  const { count, requests } = await response.json();
  $("flight").replaceChildren(...requests.map(row));
  $("headline").textContent =
    count === 1 ? "1 request in flight: this update" : `${count} requests in flight`;
  $("pulse").classList.remove("lost");
}

async function watchFlight() {
  if ($("watching").checked && !document.hidden) {
    try {
      await look();
    } catch (error) {
      $("pulse").classList.add("lost");
      $("headline").textContent =
        error.name === "TimeoutError" ? "The server responds slowly" : error.message;
    }
  }
  setTimeout(watchFlight, 1000);
}

showSleepers();
watchFlight();
