// A webhook receiver on livekit-server-sdk: prints its port, then one JSON line per request, verified or refused.
import { createServer } from "node:http";
import { WebhookReceiver } from "livekit-server-sdk";

const [key, secret] = process.argv.slice(2);
const receiver = new WebhookReceiver(key, secret);

const server = createServer((request, response) => {
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", async () => {
    try {
      const event = await receiver.receive(Buffer.concat(parts).toString("utf8"), request.headers.authorization);
      console.log(JSON.stringify({
        event: event.event, id: event.id, room: event.room?.name, identity: event.participant?.identity,
        track: event.track?.name, createdAt: Number(event.createdAt),
      }));
      response.writeHead(200).end();
    } catch (error) {
      console.log(JSON.stringify({ error: String(error) }));
      response.writeHead(401).end();
    }
  });
});
server.listen(0, "127.0.0.1", () => console.log(JSON.stringify({ port: server.address().port })));
