// An agent of AG-UI. Run in Node.js, as a module: it runs once, and says what it was told.
const [client, url] = JSON.parse(process.argv[1]);
const { HttpAgent } = await import(client);
const agent = new HttpAgent({ url, threadId: "thread" });
const told = [];
let thrown = null;
console.warn = console.error = () => {};
try {
  await agent.runAgent({ runId: "run" }, {
    onRunStartedEvent: ({ event }) => { told.push(["started", event.threadId, event.runId]); },
    onRunFinishedEvent: ({ event }) => { told.push(["finished", event.outcome?.type ?? null]); },
    onRunErrorEvent: ({ event }) => { told.push(["error", event.code ?? null, event.message]); },
    onRunFailed: ({ error }) => { told.push(["failed", error.message]); },
    onRunFinalized: () => { told.push(["finalized"]); },
  });
} catch (error) {
  thrown = error.message;
}
const messages = agent.messages.map(({ role, content, toolCalls }) => (
  // No more than goes through a pipe at once.
  [role, content?.slice(0, 1000) ?? null, toolCalls?.length ?? 0]
));
console.log(JSON.stringify({ told, thrown, messages }));
process.exit();
