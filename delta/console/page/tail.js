// The live tail: entries arrive as Server-Sent Events, each as an HTML line that the server has rendered. After a lost connection the browser
// reconnects by itself, and sends the position of its last entry.
"use strict";
(() => {
  const maxEntries = 500; // the page keeps the latest
  const retryAfter = 15000; // milliseconds until a refused page tries again
  const list = document.getElementById("tail");
  const state = document.getElementById("tail-state");
  const pause = document.getElementById("tail-pause");
  const address = new URL(list.dataset.stream, document.baseURI);
  let source;

  const showState = (text) => { state.textContent = text; };

  const open = () => {
    showState("Connecting");
    source = new EventSource(address);
    source.onopen = () => showState("Live");
    source.onmessage = (event) => {
      if (event.lastEventId) {
        address.searchParams.set("after", event.lastEventId); // continue from here after a pause
      }
      list.insertAdjacentHTML("afterbegin", event.data);
      while (list.children.length > maxEntries) {
        list.lastElementChild.remove();
      }
      document.getElementById("tail-none")?.remove();
    };
    source.onerror = () => {
      if (source.readyState !== EventSource.CLOSED) {
        showState("Disconnected; reconnecting");
        return;
      }
      showState("Refused: this process has too many open tails, or you have to log in again. It will retry");
      const refused = source;
      setTimeout(() => { if (source === refused) { open(); } }, retryAfter);
    };
  };

  pause.onclick = () => {
    if (source) {
      source.close();
      source = undefined;
      pause.textContent = "Continue";
      showState("Paused");
      return;
    }
    pause.textContent = "Pause";
    open();
  };
  document.getElementById("tail-clear").onclick = () => list.replaceChildren();
  document.getElementById("tail-live").hidden = false;
  open();
})();
