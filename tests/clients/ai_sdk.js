// Chats of the AI SDK. Run in Node.js, as a module: it does what it is told, and says what each
// chat shows and was told.
const [sdk, api, id, does] = JSON.parse(process.argv[1]);
const { AbstractChat, DefaultChatTransport } = await import(sdk);

class State {
  status = "ready"; error = undefined; messages = [];
  pushMessage = (message) => { this.messages = [...this.messages, message]; };
  popMessage = () => { this.messages = this.messages.slice(0, -1); };
  replaceMessage = (index, message) => { this.messages = this.messages.with(index, message); };
  snapshot = (value) => structuredClone(value);
}

class Chat extends AbstractChat {
  constructor() {
    const told = { data: [], finish: [], errors: [] };
    super({
      id,
      transport: new DefaultChatTransport({ api }),
      state: new State(),
      onData: ({ type, data }) => told.data.push([type, data]),
      onError: (error) => told.errors.push(error.message),
      onFinish: ({ isAbort, isDisconnect, isError }) => {
        told.finish.push({ isAbort, isDisconnect, isError });
      },
    });
    this.told = told;
  }
}

// What a page would show.
const shown = (chat) => ({
  status: chat.status,
  error: chat.error?.message ?? null,
  messages: chat.messages
    .filter(({ role }) => role === "assistant")
    .map(({ id, parts }) => ({
      id,
      parts: parts.map(({ type, state, text, errorText }) => (
        [type, state ?? null, text ?? errorText ?? null]
      )),
    })),
  ...chat.told,
});

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const hasText = (chat) => chat.lastMessage?.parts.some(({ text }) => text?.startsWith("word"));

const chats = [];
for (const what of does) {
  if (what === "again") {
    // In the page that is there.
    await chats.at(-1).resumeStream();
    continue;
  }
  const chat = new Chat();
  chats.push(chat);
  if (what === "ask") await chat.sendMessage({ text: "?" });
  if (what === "resume") await chat.resumeStream();
  if (what === "leave" || what === "cancel") {
    const asked = chat.sendMessage({ text: "?" });
    while (!hasText(chat)) await sleep(10);
    if (what === "leave") await chat.stop();
    else await fetch(`${api}/${id}/cancel`, { method: "POST" });
    await asked;
  }
}
console.log(JSON.stringify(chats.map(shown)));
process.exit();
