// Chats of the AI SDK, whose answers go on without them. Run in Node.js, as a module.
import { AbstractChat, DefaultChatTransport } from "ai";

class State {
  status = "ready"; error = undefined; messages = [];
  pushMessage = (message) => { this.messages = [...this.messages, message]; };
  popMessage = () => { this.messages = this.messages.slice(0, -1); };
  replaceMessage = (index, message) => { this.messages = this.messages.with(index, message); };
  snapshot = (value) => structuredClone(value);
}

class Chat extends AbstractChat {
  constructor(id, api) {
    super({ id, transport: new DefaultChatTransport({ api }), state: new State() });
  }
}

// What a page would show.
const shown = (chat) => [
  chat.status,
  chat.error?.message ?? null,
  chat.messages.map(({ id, role, parts }) => [
    role === "user" ? null : id,
    role,
    parts.filter(({ type }) => type === "text").map(({ text }) => text).join(""),
  ]),
];

const [api, id, asks] = JSON.parse(process.argv[1]);
const chats = [];
if (asks) {
  const first = new Chat(id, api);
  const asked = first.sendMessage({ text: "?" });
  // The page is left, in the middle of the answer.
  while (!first.lastMessage?.parts.some(({ text }) => text?.startsWith("word"))) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  await first.stop();
  await asked;
  chats.push(shown(first));
}
// It is there again, twice.
const others = [new Chat(id, api), new Chat(id, api)];
await Promise.all(others.map((chat) => chat.resumeStream()));
console.log(JSON.stringify([...chats, ...others.map(shown)]));
process.exit();
