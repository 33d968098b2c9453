// One participant on @livekit/rtc-node, driven by the tests: a JSON line [id, verb, ...args] on stdin, one {id, value} or
// {id, error} on stdout. The verbs are those of ../web/harness.js; `connect` begins a new room.
import { createHash } from "node:crypto";
import { createInterface } from "node:readline";
import {
  AudioFrame, AudioSource, AudioStream, LocalAudioTrack, LocalVideoTrack, Room, RoomEvent, SimulateScenarioKind,
  TrackPublishOptions, TrackSource, VideoBufferType, VideoFrame, VideoSource, VideoStream,
} from "@livekit/rtc-node";

const LIMIT = 25000;
const RATE = 48000;
const SCENARIOS = {
  "signal-reconnect": SimulateScenarioKind.SIMULATE_SIGNAL_RECONNECT,
  speaker: SimulateScenarioKind.SIMULATE_SPEAKER,
  "node-failure": SimulateScenarioKind.SIMULATE_NODE_FAILURE,
  "server-leave": SimulateScenarioKind.SIMULATE_SERVER_LEAVE,
  migration: SimulateScenarioKind.SIMULATE_MIGRATION,
  "force-tcp": SimulateScenarioKind.SIMULATE_FORCE_TCP,
  "force-tls": SimulateScenarioKind.SIMULATE_FORCE_TLS,
  "full-reconnect": SimulateScenarioKind.SIMULATE_FULL_RECONNECT,
  "disconnect-signal-on-resume": SimulateScenarioKind.SIMULATE_DISCONNECT_SIGNAL_ON_RESUME,
};

let room = null;
let events = [];
let playing = new Set(); // what keeps a published track going; a value in it that is gone stops the loop

const sleep = (ms) => new Promise((wake) => setTimeout(wake, ms));
const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");

function plain(value) {
  if (value === null || value === undefined) return null;
  if (value instanceof Uint8Array) return new TextDecoder().decode(value);
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value === "bigint") return Number(value);
  if (typeof value !== "object") return value;
  if (value.info?.identity !== undefined) return value.info.identity;
  if (typeof value.sid === "string") return { sid: value.sid, name: value.name };
  return Object.getPrototypeOf(value) === Object.prototype ? value : String(value);
}

async function poll(check, what, limit = LIMIT, every = 20) {
  for (const end = performance.now() + limit; performance.now() < end; await sleep(every)) {
    const last = await check();
    if (last) return last;
  }
  throw new Error(`not within ${limit} ms: ${what}; events: ${events.map((e) => e.name).join(" ")}`);
}

const remote = (identity, name) =>
  [...(room.remoteParticipants.get(identity)?.trackPublications.values() ?? [])].find((p) => p.name === name);
const local = (name) => [...room.localParticipant.trackPublications.values()].find((p) => p.name === name);

// reads a subscribed track until `fits` takes a frame; a track that ends (a reconnect) is taken up again
async function watch(identity, name, open, fits, what, limit) {
  const end = performance.now() + limit;
  while (performance.now() < end) {
    const track = await poll(() => remote(identity, name)?.track, `track ${what}`, end - performance.now());
    const reader = open(track).getReader();
    try {
      while (performance.now() < end) {
        const { done, value } = await Promise.race([reader.read(), sleep(500).then(() => ({ silent: true }))]);
        if (done || remote(identity, name)?.track !== track) break;
        if (value && fits(value)) return true;
      }
    } finally {
      reader.cancel().catch(() => {});
    }
  }
  throw new Error(`not within ${limit} ms: ${what}`);
}

// the share of the samples' power that is at this frequency (Goertzel), and their RMS
function tonality(samples, frequency) {
  const turn = 2 * Math.cos((2 * Math.PI * frequency) / RATE);
  let [a, b, power] = [0, 0, 0];
  for (const sample of samples) {
    [a, b] = [sample + turn * a - b, a];
    power += sample * sample;
  }
  const near = (2 * (a * a + b * b - turn * a * b)) / samples.length;
  return { share: near / Math.max(power, 1), rms: Math.sqrt(power / samples.length) };
}

function picture(left, right, [width, height]) {
  const pixels = new Uint8Array(width * height * 4);
  const rgb = (text) => [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16));
  const halves = [rgb(left), rgb(right)];
  for (let at = 0; at < width * height; at++) pixels.set([...halves[at % width < width / 2 ? 0 : 1], 255], at * 4);
  return new VideoFrame(pixels, width, height, VideoBufferType.RGBA).convert(VideoBufferType.I420);
}

const verbs = {
  async connect(url, token, options = {}) {
    [room, events, playing] = [new Room(), [], new Set()];
    for (const name of Object.values(RoomEvent)) {
      room.on(name, (...args) => events.push({ name, args: args.map(plain) }));
    }
    await room.connect(url, token, { autoSubscribe: true, dynacast: false, ...options });
    return verbs.me();
  },

  async disconnect() {
    playing.clear();
    if (room?.isConnected) await room.disconnect();
  },

  me: () => ({ identity: room.localParticipant.identity, sid: room.localParticipant.sid }),

  mark: () => events.length,

  event: (name, text = "", since = 0, limit = LIMIT) => poll(
    () => events.slice(since).find((e) => e.name === name && JSON.stringify(e.args).includes(text)),
    `event ${name} ${text}`, limit),

  seen: (name, text = "", since = 0) =>
    events.slice(since).filter((e) => e.name === name && JSON.stringify(e.args).includes(text)),

  meets: (identities) => poll(() => identities.every((i) => room.remoteParticipants.has(i)), `sight of ${identities}`),

  people: () => [...room.remoteParticipants.values()].map((p) => ({
    identity: p.identity, metadata: p.metadata ?? "", attributes: p.attributes, name: p.name ?? "",
    tracks: [...p.trackPublications.values()].map((t) => ({ name: t.name, muted: t.muted, subscribed: t.subscribed })),
  })),

  async publishTone(frequency = 440) {
    const source = new AudioSource(RATE, 1, 200);
    const track = LocalAudioTrack.createAudioTrack("tone", source);
    const options = new TrackPublishOptions({ source: TrackSource.SOURCE_MICROPHONE, dtx: false });
    await room.localParticipant.publishTrack(track, options);
    const mine = playing;
    mine.add("tone");
    (async () => {
      for (let at = 0; mine.has("tone"); at += 480) {
        const samples = Int16Array.from({ length: 480 },
          (_, i) => 12000 * Math.sin((2 * Math.PI * frequency * (at + i)) / RATE));
        await source.captureFrame(new AudioFrame(samples, RATE, 1, 480));
      }
      await source.close();
    })();
  },

  async publishCanvas(left, right, size = [320, 180], { simulcast = false } = {}) {
    const source = new VideoSource(...size);
    const track = LocalVideoTrack.createVideoTrack("canvas", source);
    const options = new TrackPublishOptions({ source: TrackSource.SOURCE_CAMERA, simulcast });
    await room.localParticipant.publishTrack(track, options);
    const frame = picture(left, right, size);
    const mine = playing;
    mine.add("canvas");
    (async () => {
      for (; mine.has("canvas"); await sleep(66)) source.captureFrame(frame);
      await source.close();
    })();
  },

  async unpublish(name) {
    playing.delete(name);
    await room.localParticipant.unpublishTrack(local(name).sid);
  },

  frequency(identity, name, wanted, limit = LIMIT) {
    const window = RATE / 2;
    let heard = [];
    return watch(identity, name, (track) => new AudioStream(track, RATE, 1), (frame) => {
      heard = heard.concat(...frame.data).slice(-window);
      const { share, rms } = heard.length < window ? { share: 0, rms: 0 } : tonality(heard, wanted);
      return share > 0.9 && rms > 1000;
    }, `tone ${wanted} of ${identity}`, limit);
  },

  colours(identity, name, left, right, limit = LIMIT) {
    const near = (seen, wanted) => wanted.every((v, i) => Math.abs(v - seen[i]) <= 64);
    return watch(identity, name, (track) => new VideoStream(track), ({ frame }) => {
      const { data, width, height } = frame.convert(VideoBufferType.RGBA);
      const at = (x) => data.subarray(((height >> 1) * width + Math.floor(width * x)) * 4).subarray(0, 3);
      return near(at(0.25), left) && near(at(0.75), right);
    }, `colours of ${identity}`, limit);
  },

  publishData: (text, { reliable = true, topic } = {}) =>
    room.localParticipant.publishData(new TextEncoder().encode(text), { reliable, topic }),

  performRpc: (destinationIdentity, method, payload) =>
    room.localParticipant.performRpc({ destinationIdentity, method, payload }),

  serveRpc(method) {
    room.localParticipant.registerRpcMethod(method, async (call) =>
      `${call.callerIdentity}:${call.payload.length}:${[...call.payload].reverse().join("")}`);
  },

  async sendText(text, options) {
    await room.localParticipant.sendText(text, options);
  },

  async sendBytes(length, topic) {
    const bytes = new Uint8Array(length);
    for (let i = 0, x = 12345; i < length; i++) {
      x = (Math.imul(x, 1103515245) + 12345) & 0x7fffffff;
      bytes[i] = x >> 16;
    }
    const writer = await room.localParticipant.streamBytes({ name: "blob", topic, totalSize: length });
    for (let start = 0; start < length; start += 50000) await writer.write(bytes.slice(start, start + 50000));
    await writer.close();
    return sha256(bytes);
  },

  listenStreams(topic) {
    room.registerTextStreamHandler(topic, async (reader, { identity }) => {
      events.push({ name: "textStream", args: [identity, await reader.readAll()] });
    });
    room.registerByteStreamHandler(topic, async (reader, { identity }) => {
      events.push({ name: "byteStream", args: [identity, sha256(Buffer.concat(await reader.readAll())), reader.info.name] });
    });
  },

  setMetadata: (text) => room.localParticipant.updateMetadata(text),
  setName: (text) => room.localParticipant.updateName(text),
  setAttributes: (attributes) => room.localParticipant.setAttributes(attributes),

  // what the transport that carries media here goes over: "udp", "tcp"
  async path() {
    const { publisherStats, subscriberStats } = await room.getRtcStats();
    const entries = (subscriberStats.length ? subscriberStats : publisherStats).map((entry) => entry.stats);
    const all = (kind) => entries.filter((entry) => entry.case === kind).map((entry) => entry.value);
    const selected = all("transport")[0]?.transport.selectedCandidatePairId;
    const pair = all("candidatePair").find((entry) => entry.rtc.id === selected);
    const mine = all("localCandidate").find((entry) => entry.rtc.id === pair?.candidatePair.localCandidateId);
    return mine?.candidate.protocol ?? null;
  },

  simulate: (scenario) => room.simulateScenario(SCENARIOS[scenario]),

  // every scenario that this SDK knows, and what `simulate` sends of them
  scenarios: () => ({
    offered: Object.values(SimulateScenarioKind).filter((kind) => typeof kind === "number"),
    sent: Object.values(SCENARIOS),
  }),
};

process.on("unhandledRejection", (error) => console.error("unhandled", error));
for await (const line of createInterface({ input: process.stdin })) {
  const [id, verb, ...args] = JSON.parse(line);
  Promise.resolve().then(() => verbs[verb](...args)).then(
    (value) => ({ id, value: value ?? null }),
    (error) => ({ id, error: String(error?.stack ?? error) }),
  ).then((answer) => process.stdout.write(`${JSON.stringify(answer)}\n`));
}
process.exit(0);
