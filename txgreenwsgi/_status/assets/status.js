// Keeps the status page up to date. Each event carries the page's content as HTML that
// the server has escaped; only what differs is replaced, so that a selection, the focus
// and the scroll position stay. A hidden page is not updated.
"use strict";

(() => {
  const main = document.getElementById("status");
  const notice = document.getElementById("connection");
  const SILENT_MS = 6000;
  let source = null;
  let silence = 0;

  const isSame = (one, other) =>
    one.nodeType === other.nodeType && one.nodeName === other.nodeName;

  function updateAttributes(old, fresh) {
    for (const { name } of Array.from(old.attributes)) {
      if (!fresh.hasAttribute(name)) old.removeAttribute(name);
    }
    for (const { name, value } of fresh.attributes) {
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
  }

  function update(old, fresh) {
    if (old.nodeType === Node.TEXT_NODE) {
      if (old.data !== fresh.data) old.data = fresh.data;
      return;
    }
    updateAttributes(old, fresh);
    updateChildren(old, fresh);
  }

  function updateChildren(old, fresh) {
    const wanted = Array.from(fresh.childNodes);
    while (old.childNodes.length > wanted.length) old.lastChild.remove();
    wanted.forEach((child, index) => {
      const present = old.childNodes[index];
      if (!present) old.append(child);
      else if (isSame(present, child)) update(present, child);
      else present.replaceWith(child);
    });
  }

  function expectEvent() {
    clearTimeout(silence);
    silence = setTimeout(() => {
      notice.hidden = false;
    }, SILENT_MS);
  }

  function show(event) {
    const parsed = new DOMParser().parseFromString(event.data, "text/html");
    updateChildren(main, parsed.body);
    notice.hidden = true;
    expectEvent();
  }

  function connect() {
    if (source || document.hidden) return;
    source = new EventSource("events");
    source.onmessage = show;
    source.onerror = () => {
      notice.hidden = false;
      // The browser connects again by itself, unless the server refused.
      if (source && source.readyState === EventSource.CLOSED) {
        source = null;
        setTimeout(connect, 3000);
      }
    };
    expectEvent();
  }

  function disconnect() {
    clearTimeout(silence);
    if (source) source.close();
    source = null;
  }

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) disconnect();
    else connect();
  });
  addEventListener("pagehide", disconnect);
  addEventListener("pageshow", connect);
  connect();
})();
