// Read a run over WebSockets: as many as it takes, until its end.
//
// url: where a RunMessages(..., errors="close") answers. show: called with each item.
// Returns what stops the run, and a promise of how it has ended.
function readRun(url, show) {
  let socket, seen, pause = 500, end;

  const ended = new Promise((resolve) => {
    const open = () => {
      socket = new WebSocket(seen ? `${url}?starting_after=${seen}` : url);
      socket.onmessage = ({ data }) => {
        const message = JSON.parse(data);
        pause = 500;
        seen = message.id ?? seen;
        if ("data" in message) show(message.data);
        else if (message.end) end = message.end.kind;
      };
      socket.onclose = ({ code, reason }) => {
        // 1008 is a run that is not there, or not any more. Anything else gets over it.
        if (end || code === 1008) return resolve(end ?? reason);
        setTimeout(open, pause * (0.5 + Math.random()));
        pause = Math.min(2 * pause, 30_000);
      };
    };
    open();
  });

  const stop = (reason) => socket.send(JSON.stringify({ type: "stop", reason }));
  return { ended, stop };
}
