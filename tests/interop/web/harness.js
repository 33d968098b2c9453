// One room per page, driven by the tests: everything here takes and returns JSON, and every wait is bounded.
'use strict';

const { Room, RoomEvent, Track, VideoQuality, setLogLevel } = LivekitClient;
setLogLevel('warn');

const LIMIT = 25000;
const elements = new Map(); // track sid -> media element
const remotes = new WeakMap(); // received MediaStreamTrack -> { analyser }
let audioContext = null;

function plain(value) {
  if (value === null || value === undefined) return null;
  if (value instanceof Uint8Array) return new TextDecoder().decode(value);
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== 'object') return value;
  if (value.identity !== undefined) return value.identity;
  if (value.trackSid !== undefined) return { sid: value.trackSid, name: value.trackName, kind: value.kind };
  if (value.sid !== undefined) return { sid: value.sid, kind: value.kind };
  if (Object.getPrototypeOf(value) === Object.prototype) return value;
  return String(value);
}

async function poll(check, what, limit = LIMIT, every = 50) {
  const end = performance.now() + limit;
  let last;
  while (performance.now() < end) {
    last = await check();
    if (last) return last;
    await new Promise((wake) => setTimeout(wake, every));
  }
  throw new Error(`not within ${limit} ms: ${what}; events: ${lk.events.map((e) => e.name).join(' ')}`);
}

function publication(identity, kind) {
  const who = identity === room().localParticipant.identity
    ? room().localParticipant
    : room().remoteParticipants.get(identity);
  if (!who) return undefined;
  return [...who.trackPublications.values()].find((p) => p.kind === kind || p.trackName === kind);
}

function room() {
  if (!lk.room) throw new Error('not connected');
  return lk.room;
}

const lk = (window.lk = {
  room: null,
  events: [],

  async connect(url, token, options = {}, connectOptions = {}) {
    const r = new Room(options);
    lk.room = r;
    for (const name of Object.values(RoomEvent)) {
      r.on(name, (...args) => lk.events.push({ name, args: args.map(plain), at: performance.now() }));
    }
    r.on(RoomEvent.TrackSubscribed, (track) => {
      const element = track.attach();
      element.muted = track.kind === 'video';
      document.body.append(element);
      elements.set(track.sid, element);
    });
    r.on(RoomEvent.TrackUnsubscribed, (track) => track.detach().forEach((element) => element.remove()));
    await r.connect(url, token, connectOptions);
    return lk.me();
  },

  me() {
    const me = room().localParticipant;
    return { identity: me.identity, sid: me.sid, metadata: me.metadata ?? '', attributes: me.attributes, state: room().state };
  },

  async disconnect() {
    await room().disconnect();
  },

  mark: () => lk.events.length,

  // the first event of that name whose arguments, as JSON, contain the text
  event: (name, text = '', since = 0, limit = LIMIT) => poll(
    () => lk.events.slice(since).find((e) => e.name === name && JSON.stringify(e.args).includes(text)),
    `event ${name} ${text}`, limit, 10),

  seen: (name, text = '', since = 0) =>
    lk.events.slice(since).filter((e) => e.name === name && JSON.stringify(e.args).includes(text)),

  // all these are here and, unless told otherwise, ready for data
  meets: (identities, active = true) => poll(
    () => identities.every((i) => room().remoteParticipants.has(i) && (!active || room().remoteParticipants.get(i).isActive)),
    `sight of ${identities}`),

  people: () => [...room().remoteParticipants.values()].map((p) => ({
    identity: p.identity, metadata: p.metadata ?? '', attributes: p.attributes, name: p.name ?? '',
    tracks: [...p.trackPublications.values()].map((t) => ({
      sid: t.trackSid, name: t.trackName, kind: t.kind, muted: t.isMuted, subscribed: t.isSubscribed,
      simulcasted: t.simulcasted, mime: t.mimeType,
    })),
  })),

  // publishing

  async publishCamera(capture = { width: 1280, height: 720 }, options = {}) {
    const [track] = await LivekitClient.createLocalTracks({ video: { resolution: { ...capture, frameRate: 12 } }, audio: false });
    return (await room().localParticipant.publishTrack(track, { name: 'camera', ...options })).trackSid;
  },

  async publishMicrophone(options = {}) {
    const [track] = await LivekitClient.createLocalTracks({ video: false, audio: true });
    return (await room().localParticipant.publishTrack(track, { name: 'microphone', ...options })).trackSid;
  },

  async publishTone(frequency = 440, options = {}) {
    audioContext ??= new AudioContext({ sampleRate: 48000 });
    const oscillator = new OscillatorNode(audioContext, { frequency });
    const gain = new GainNode(audioContext, { gain: 0.4 });
    const out = new MediaStreamAudioDestinationNode(audioContext, { channelCount: 1 });
    oscillator.connect(gain).connect(out);
    oscillator.start();
    const track = out.stream.getAudioTracks()[0];
    return (await room().localParticipant.publishTrack(track, {
      name: 'tone', source: Track.Source.Microphone, dtx: false, ...options })).trackSid;
  },

  // one colour per half, a small moving square so that every picture differs
  async publishCanvas(left, right, size = [320, 180], options = {}) {
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = size;
    const draw = canvas.getContext('2d');
    let step = 0;
    setInterval(() => {
      draw.fillStyle = left;
      draw.fillRect(0, 0, size[0] / 2, size[1]);
      draw.fillStyle = right;
      draw.fillRect(size[0] / 2, 0, size[0] / 2, size[1]);
      draw.fillStyle = 'black';
      draw.fillRect((step += 4) % size[0], 0, 8, 8);
    }, 66);
    const track = canvas.captureStream(15).getVideoTracks()[0];
    return (await room().localParticipant.publishTrack(track, {
      name: 'canvas', source: Track.Source.Camera, ...options })).trackSid;
  },

  mute: (kind) => publication(room().localParticipant.identity, kind).mute(),
  unmute: (kind) => publication(room().localParticipant.identity, kind).unmute(),

  async unpublish(kind) {
    await room().localParticipant.unpublishTrack(publication(room().localParticipant.identity, kind).track);
  },

  // subscribing

  subscribed: (identity, kind) => poll(() => {
    const p = publication(identity, kind);
    return p?.isSubscribed && p.track ? p.trackSid : false;
  }, `subscription ${identity}/${kind}`),

  setSubscribed(identity, kind, wanted) {
    publication(identity, kind).setSubscribed(wanted);
  },

  setQuality(identity, kind, quality) {
    publication(identity, kind).setVideoQuality(VideoQuality[quality]);
  },

  setEnabled(identity, kind, enabled) {
    publication(identity, kind).setEnabled(enabled);
  },

  // inbound-rtp statistics of the subscribed track, or null while there are none
  async inbound(identity, kind) {
    const track = publication(identity, kind)?.track;
    if (!track) return null;
    const report = await track.getRTCStatsReport();
    for (const entry of report?.values() ?? []) {
      if (entry.type === 'inbound-rtp') return { ...entry };
    }
    return null;
  },

  // the local end of the selected candidate pair of that track's connection: "udp" or "tcp", "relay/udp" or "relay/tls"
  async selectedProtocol(identity, kind) {
    const report = await publication(identity, kind).track.getRTCStatsReport();
    const entries = [...report.values()];
    const transport = entries.find((entry) => entry.type === 'transport');
    const pair = entries.find((entry) => entry.id === transport.selectedCandidatePairId);
    const local = entries.find((entry) => entry.id === pair.localCandidateId);
    return local.candidateType === 'relay' ? `relay/${local.relayProtocol}` : local.protocol;
  },

  path: (identity, kind) => lk.selectedProtocol(identity, kind),

  // until that connection's selected pair is of this kind
  onPath: (identity, kind, wanted, limit = 60000) => poll(async () => {
    try {
      return (await lk.selectedProtocol(identity, kind)) === wanted;
    } catch {
      return false; // between two connections
    }
  }, `path ${wanted}`, limit, 100),

  async outbound(kind) {
    const track = publication(room().localParticipant.identity, kind)?.track;
    const report = track && (await track.getRTCStatsReport());
    return [...(report?.values() ?? [])].filter((entry) => entry.type === 'outbound-rtp').map((entry) => ({ ...entry }));
  },

  // what a subscribed video is decoded from, "vp9"
  async inboundCodec(identity, kind) {
    const report = await publication(identity, kind)?.track?.getRTCStatsReport();
    const entries = [...(report?.values() ?? [])];
    const inbound = entries.find((entry) => entry.type === 'inbound-rtp');
    const codec = entries.find((entry) => entry.id === inbound?.codecId);
    return codec?.mimeType.split('/')[1].toLowerCase() ?? null;
  },

  codecIs: (identity, kind, wanted) => poll(async () => (await lk.inboundCodec(identity, kind)) === wanted,
    `${wanted} of ${identity}`),

  // every encoding of a published video by codec, its backup's sender included: { vp9: [{ rid, active, frames }] }
  async encodings(kind) {
    const track = publication(room().localParticipant.identity, kind).track;
    const found = {};
    for (const sender of [track.sender, ...[...track.simulcastCodecs.values()].map((codec) => codec.sender)]) {
      const entries = [...((await sender?.getStats())?.values() ?? [])];
      for (const entry of entries.filter((e) => e.type === 'outbound-rtp')) {
        const codec = entries.find((e) => e.id === entry.codecId)?.mimeType.split('/')[1].toLowerCase() ?? 'none';
        (found[codec] ??= []).push({ rid: entry.rid ?? '', active: entry.active, frames: entry.framesEncoded });
      }
    }
    return found;
  },

  // this page's receivers no longer know that codec; before connect
  forgetCodec(name) {
    const same = (codec) => codec.mimeType.toLowerCase() === `video/${name}`;
    const add = RTCPeerConnection.prototype.addTransceiver;
    RTCPeerConnection.prototype.addTransceiver = function addTransceiver(what, init) {
      const transceiver = add.call(this, what, init);
      if (what === 'video') {
        transceiver.setCodecPreferences(RTCRtpReceiver.getCapabilities('video').codecs.filter((codec) => !same(codec)));
      }
      return transceiver;
    };
    const setRemote = RTCPeerConnection.prototype.setRemoteDescription;
    RTCPeerConnection.prototype.setRemoteDescription = function setRemoteDescription(description) {
      if (description.type !== 'offer') return setRemote.call(this, description);
      const pattern = new RegExp(`a=rtpmap:(\\d+) ${name}/`, 'gi');
      const gone = new Set([...description.sdp.matchAll(pattern)].map((match) => match[1]));
      for (const match of description.sdp.matchAll(/a=fmtp:(\d+) apt=(\d+)/g)) {
        if (gone.has(match[2])) gone.add(match[1]);
      }
      const lines = description.sdp.split('\r\n').filter((line) => !gone.has(/^a=(?:rtpmap|fmtp|rtcp-fb):(\d+)/.exec(line)?.[1]));
      const sdp = lines.map((line) => (line.startsWith('m=video')
        ? line.split(' ').filter((word, i) => i < 3 || !gone.has(word)).join(' ') : line)).join('\r\n');
      return setRemote.call(this, { type: 'offer', sdp });
    };
  },

  // until this many more frames are decoded than at the time of the call
  // resolves when the first picture of this track is shown
  async firstFrame(identity, kind = 'camera', limit = LIMIT) {
    const element = await poll(() => elements.get(publication(identity, kind)?.track?.sid), 'element', limit, 2);
    await new Promise((shown) => element.requestVideoFrameCallback(shown));
    return true;
  },

  async framesAdvance(identity, kind = 'video', count = 10, limit = LIMIT) {
    const start = (await lk.inbound(identity, kind))?.framesDecoded ?? 0;
    return poll(async () => {
      const stats = await lk.inbound(identity, kind);
      const now = stats?.framesDecoded ?? 0;
      // a new track counts from nought
      return now >= (now < start ? count : start + count) ? stats : false;
    }, `${count} more frames of ${identity}`, limit);
  },

  // until the energy of what is heard has grown by this much
  async soundAdvances(identity, kind = 'audio', energy = 0.001, limit = LIMIT) {
    const start = (await lk.inbound(identity, kind))?.totalAudioEnergy ?? 0;
    return poll(async () => {
      const stats = await lk.inbound(identity, kind);
      const now = stats?.totalAudioEnergy ?? 0;
      return now >= (now < start ? energy : start + energy) ? stats : false;
    }, `sound of ${identity}`, limit);
  },

  // until frames of that width (low <= width <= high) are decoded
  widthBetween: (identity, kind, low, high, limit = 45000) => poll(async () => {
    const stats = await lk.inbound(identity, kind);
    return stats && stats.frameWidth >= low && stats.frameWidth <= high ? stats.frameWidth : false;
  }, `width ${low}..${high} of ${identity}`, limit),

  // until both halves of the picture are near these colours ([r, g, b])
  async colours(identity, kind, left, right, limit = LIMIT) {
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [64, 36];
    const draw = canvas.getContext('2d', { willReadFrequently: true });
    // wide enough for a decoder that takes the picture for BT.709 when it is BT.601
    const near = (seen, wanted) => wanted.every((v, i) => Math.abs(v - seen[i]) <= 64);
    let seen = null;
    try {
      return await poll(() => {
        const element = elements.get(publication(identity, kind)?.trackSid);
        if (!element || element.readyState < 2) return false;
        draw.drawImage(element, 0, 0, 64, 36);
        seen = [[...draw.getImageData(16, 18, 1, 1).data], [...draw.getImageData(48, 18, 1, 1).data]];
        return near(seen[0], left) && near(seen[1], right) ? seen : false;
      }, `colours of ${identity}`, limit);
    } catch (error) {
      throw new Error(`${error.message}; last seen ${JSON.stringify(seen)}`);
    }
  },

  // until the strongest frequency heard is this one (within one bin of 8192, about 6 Hz)
  async frequency(identity, kind, wanted, limit = LIMIT) {
    audioContext ??= new AudioContext({ sampleRate: 48000 });
    await lk.subscribed(identity, kind);
    // asked for each time: a reconnect brings another track, with the same id
    const listener = () => {
      const track = publication(identity, kind)?.track?.mediaStreamTrack;
      if (track && !remotes.has(track)) {
        const analyser = new AnalyserNode(audioContext, { fftSize: 8192, smoothingTimeConstant: 0 });
        audioContext.createMediaStreamSource(new MediaStream([track])).connect(analyser);
        remotes.set(track, { analyser });
      }
      return track && remotes.get(track).analyser;
    };
    let heard = 0;
    try {
      return await poll(() => {
        const analyser = listener();
        if (!analyser) return false;
        const bins = new Float32Array(analyser.frequencyBinCount);
        analyser.getFloatFrequencyData(bins);
        const peak = bins.indexOf(Math.max(...bins));
        heard = (peak * 48000) / 8192;
        return bins[peak] > -60 && Math.abs(heard - wanted) <= 6 ? heard : false;
      }, `tone ${wanted} of ${identity}`, limit);
    } catch (error) {
      throw new Error(`${error.message}; last heard ${heard} Hz`);
    }
  },

  // data

  publishData: (text, options = {}) =>
    room().localParticipant.publishData(new TextEncoder().encode(text), { reliable: true, ...options }),

  performRpc: (destinationIdentity, method, payload) =>
    room().localParticipant.performRpc({ destinationIdentity, method, payload }),

  // answers with the caller, the length and the payload turned round
  serveRpc(method) {
    room().registerRpcMethod(method, async (call) =>
      `${call.callerIdentity}:${call.payload.length}:${[...call.payload].reverse().join('')}`);
  },

  async sendText(text, options = {}) {
    await room().localParticipant.sendText(text, options);
  },

  // pseudo-random bytes; returns their sha256
  async sendBytes(length, topic) {
    const bytes = new Uint8Array(length);
    for (let i = 0, x = 12345; i < length; i++) {
      x = (x * 1103515245 + 12345) & 0x7fffffff;
      bytes[i] = x >> 16;
    }
    const writer = await room().localParticipant.streamBytes({ name: 'blob', topic, totalSize: length });
    for (let start = 0; start < length; start += 50000) await writer.write(bytes.slice(start, start + 50000));
    await writer.close();
    return sha256(bytes);
  },

  // streams that come on the topic turn up as events textStream / byteStream: [sender, text or sha256, name]
  listenStreams(topic) {
    room().registerTextStreamHandler(topic, async (reader, { identity }) => {
      lk.events.push({ name: 'textStream', args: [identity, await reader.readAll()] });
    });
    room().registerByteStreamHandler(topic, async (reader, { identity }) => {
      const bytes = new Uint8Array(await new Blob(await reader.readAll()).arrayBuffer());
      lk.events.push({ name: 'byteStream', args: [identity, await sha256(bytes), reader.info.name] });
    });
  },

  setMetadata: (text) => room().localParticipant.setMetadata(text),
  setName: (text) => room().localParticipant.setName(text),
  setAttributes: (attributes) => room().localParticipant.setAttributes(attributes),

  // watching, for the soak: every subscribed video is sampled, a spell without a new frame for over a second is a freeze

  watch(every = 250) {
    lk.watched = new Map();
    lk.watcher = setInterval(async () => {
      for (const person of room().remoteParticipants.values()) {
        for (const pub of person.videoTrackPublications.values()) {
          if (!pub.isSubscribed || !pub.track || pub.isMuted) continue;
          const key = `${person.identity}/${pub.trackName}`;
          const stats = await lk.inbound(person.identity, pub.trackName);
          const now = performance.now();
          const seen = lk.watched.get(key) ?? {
            since: now, frames: -1, at: now, first: null, decoded: 0, spells: [], samples: 0, widths: {},
          };
          lk.watched.set(key, seen);
          seen.samples += 1;
          seen.stats = stats;
          const frames = stats?.framesDecoded ?? 0;
          if (frames !== seen.frames) {
            if (frames > 0) {
              seen.first ??= now;
              if (seen.decoded > 0 && now - seen.at > 1000) seen.spells.push(Math.round(now - seen.at));
              seen.decoded += Math.max(frames > seen.frames ? frames - Math.max(seen.frames, 0) : frames, 0);
              seen.at = now;
            }
            seen.frames = frames;
          }
          const width = stats?.frameWidth ?? 0;
          seen.widths[width] = (seen.widths[width] ?? 0) + 1;
        }
      }
    }, every);
  },

  // per track what `watch` saw; a freeze that still lasts counts
  watchReport() {
    clearInterval(lk.watcher);
    const now = performance.now();
    return Object.fromEntries([...lk.watched].map(([key, seen]) => {
      const spells = [...seen.spells];
      if (now - seen.at > 1000) spells.push(Math.round(now - seen.at));
      const stats = seen.stats ?? {};
      return [key, {
        seconds: (now - seen.since) / 1000,
        samples: seen.samples,
        frames_decoded: seen.decoded,
        freezes_over_1s: spells.length,
        longest_gap_ms: Math.max(0, ...spells),
        freeze_count: stats.freezeCount ?? 0,
        freezes_seconds: stats.totalFreezesDuration ?? 0,
        packets_received: stats.packetsReceived ?? 0,
        packets_lost: stats.packetsLost ?? 0,
        nacks: stats.nackCount ?? 0,
        plis: stats.pliCount ?? 0,
        key_frames: stats.keyFramesDecoded ?? 0,
        widths: seen.widths,
      }];
    }));
  },

  // reconnecting

  async simulate(scenario, argument) {
    await room().simulateScenario(scenario, argument);
  },

  state: () => room().state,
});

async function sha256(bytes) {
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
  return [...digest].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}
