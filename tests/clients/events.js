// Opens an event source and takes notes. Run in Node.js and in a page: `EventSource` is given.
//
// options: closes (on the event `end`), staysOpen (kinds of end on which it does not), names (of
// further events), until (ms to watch at most), opens (the number of connections after which to
// stop)
function watch(EventSource, url, options) {
  return new Promise((resolve) => {
    const source = new EventSource(url);
    const log = [];
    const done = () => { clearTimeout(timer); source.close(); resolve(log); };
    const timer = setTimeout(done, options.until ?? 20000);
    const note = (event) => log.push([event.type, event.data, event.lastEventId]);
    let opened = 0;
    source.onopen = () => { if (++opened === options.opens) done(); };
    source.onmessage = note;
    for (const name of options.names ?? []) source.addEventListener(name, note);
    source.onerror = (event) => log.push(["onerror", event.data ?? null, source.readyState]);
    source.addEventListener("end", (event) => {
      note(event);
      const stays = (options.staysOpen ?? []).includes(JSON.parse(event.data).kind);
      if ((options.closes ?? true) && !stays) {
        source.close();
        // A little later, to see what may still come.
        clearTimeout(timer);
        setTimeout(done, 50);
      }
    });
  });
}
