// The live tail: entries come as Server-Sent Events, each as the line of the list that the server has made. The browser comes again by itself after
// a cut, and says which entry of the log it had last.
"use strict";
(() => {
  const most = 500; // entries that the page keeps
  const again = 15000; // milliseconds until a refused page asks again
  const list = document.getElementById("tail");
  const state = document.getElementById("tail-state");
  const pause = document.getElementById("tail-pause");
  const address = new URL(list.dataset.stream, document.baseURI);
  let source;

  const say = (text) => { state.textContent = text; };

  const open = () => {
    say("Connecting");
    source = new EventSource(address);
    source.onopen = () => say("Live");
    source.onmessage = (event) => {
      if (event.lastEventId) {
        address.searchParams.set("after", event.lastEventId); // where a pause ends
      }
      list.insertAdjacentHTML("afterbegin", event.data);
      while (list.children.length > most) {
        list.lastElementChild.remove();
      }
      document.getElementById("tail-none")?.remove();
    };
    source.onerror = () => {
      if (source.readyState !== EventSource.CLOSED) {
        say("Cut off; it connects again");
        return;
      }
      say("Refused: this process has too many tails open, or you have to log in again. It asks again");
      const refused = source;
      setTimeout(() => { if (source === refused) { open(); } }, again);
    };
  };

  pause.onclick = () => {
    if (source) {
      source.close();
      source = undefined;
      pause.textContent = "Go on";
      say("Paused: nothing is read");
      return;
    }
    pause.textContent = "Pause";
    open();
  };
  document.getElementById("tail-clear").onclick = () => list.replaceChildren();
  document.getElementById("tail-live").hidden = false;
  open();
})();
