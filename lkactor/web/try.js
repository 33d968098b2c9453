// The try page: a LiveKit client in one file, no library. It speaks protojson on /rtc (two peer connections) and
// publishes a drawn clock and a silent tone, so that two tabs make a call without any permission prompt.

const WIDTH = 1024, HEIGHT = 576, FPS = 15;
const LAYERS = [ // smallest first, as LiveKit wants the RIDs
  { rid: 'q', quality: 'LOW', scale: 4, bitrate: 120_000 },
  { rid: 'h', quality: 'MEDIUM', scale: 2, bitrate: 350_000 },
  { rid: 'f', quality: 'HIGH', scale: 1, bitrate: 1_200_000 },
];
const LEVELS = ['LOW', 'MEDIUM', 'HIGH', 'OFF'];

// ---- DataPacket { kind = 1, user = 2 { payload = 2, topic = 4, participant_identity = 5 }, participant_identity = 4 }

const utf8 = new TextEncoder(), text = new TextDecoder();

function varint(number) {
  const bytes = [];
  for (; number > 127; number = Math.floor(number / 128)) bytes.push((number % 128) | 128);
  return [...bytes, number];
}

const field = (number, bytes) => [...varint((number << 3) | 2), ...varint(bytes.length), ...bytes];

export function encodePacket(payload, topic) {
  const user = [...field(2, utf8.encode(payload)), ...field(4, utf8.encode(topic))];
  return new Uint8Array(field(2, user)); // kind 0, reliable, is the default and not written
}

// The length-delimited fields of a message, by number; the other wire types are skipped, as are groups' remains.
function fields(bytes) {
  const found = new Map();
  let at = 0;
  const number = () => {
    let value = 0, scale = 1, byte;
    do { byte = bytes[at++]; value += (byte & 127) * scale; scale *= 128; } while (byte > 127);
    return value;
  };
  while (at < bytes.length) {
    const tag = number(), type = tag & 7;
    if (type === 0) number();
    else if (type === 1) at += 8;
    else if (type === 5) at += 4;
    else if (type === 2) {
      const length = number();
      found.set(Math.floor(tag / 8), bytes.subarray(at, at += length));
    } else break;
  }
  return found;
}

export function decodePacket(bytes) {
  const packet = fields(bytes);
  if (!packet.has(2)) return null; // not a UserPacket
  const user = fields(packet.get(2));
  const string = (value) => text.decode(value ?? new Uint8Array());
  return { payload: string(user.get(2)), topic: string(user.get(4)), identity: string(packet.get(4) ?? user.get(5)) };
}

// ---- what we send ---------------------------------------------------------------------------------------------------

// A worker's timer keeps its pace in a tab that is not in front.
function drawClock(identity) {
  const canvas = Object.assign(document.createElement('canvas'), { width: WIDTH, height: HEIGHT });
  const pen = canvas.getContext('2d');
  const hue = [...identity].reduce((sum, letter) => (sum * 31 + letter.charCodeAt(0)) % 360, 0);
  const draw = () => {
    const now = new Date(), turn = (now % 4000) / 4000;
    pen.fillStyle = `hsl(${hue} 55% 32%)`;
    pen.fillRect(0, 0, WIDTH, HEIGHT);
    pen.fillStyle = `hsl(${(hue + 40) % 360} 80% 65%)`;
    pen.beginPath();
    pen.arc(WIDTH / 2 + 400 * Math.sin(turn * 2 * Math.PI), HEIGHT * 0.78, 48, 0, 7);
    pen.fill();
    pen.fillStyle = '#fff';
    pen.textAlign = 'center';
    pen.font = 'bold 120px monospace';
    pen.fillText(now.toISOString().slice(11, 21), WIDTH / 2, HEIGHT * 0.42);
    pen.font = '48px sans-serif';
    pen.fillText(identity, WIDTH / 2, HEIGHT * 0.58);
  };
  draw();
  const worker = new Worker('/try/try.js', { type: 'module' });
  worker.onmessage = draw;
  const track = canvas.captureStream(FPS).getVideoTracks()[0];
  return { track, stop: () => { worker.terminate(); track.stop(); } };
}

function playTone() {
  const context = new AudioContext(), tone = context.createOscillator(), volume = context.createGain();
  const out = context.createMediaStreamDestination();
  tone.frequency.value = 330;
  volume.gain.value = 0.1;
  tone.connect(volume).connect(out);
  tone.start();
  // Browsers start audio only after a gesture; "Sound" is one.
  return { track: out.stream.getAudioTracks()[0], resume: () => context.resume(), stop: () => context.close() };
}

async function openDevice(kind) {
  const wanted = kind === 'video' ? { video: { width: { ideal: WIDTH }, height: { ideal: HEIGHT } } } : { audio: true };
  const track = (await navigator.mediaDevices.getUserMedia(wanted)).getTracks()[0];
  return { track, stop: () => track.stop() };
}

// ---- the call -------------------------------------------------------------------------------------------------------

// Signalling and the two peer connections. `view` is told what happens: see `Page`.
class Call {
  constructor(view, room, identity) {
    Object.assign(this, { view, room, identity });
    this.waiting = new Map(); // cid -> resolve of `announce`
    this.sent = {}; // 'video', 'audio' -> { sid, sender }
    this.early = { PUBLISHER: [], SUBSCRIBER: [] }; // candidates before their description
    this.order = Promise.resolve();
  }

  async join() {
    const query = new URLSearchParams({ room: this.room, identity: this.identity });
    const answer = await fetch(`/try/token?${query}`);
    if (!answer.ok) throw new Error(`no token: ${answer.status}`);
    const { token } = await answer.json();
    const ask = new URLSearchParams({ access_token: token, protocol: 16, auto_subscribe: 1, sdk: 'js', version: 0, json: 1 });
    const socket = new WebSocket(`${location.origin.replace(/^http/, 'ws')}/rtc?${ask}`);
    this.socket = socket;
    socket.onclose = () => this.end('Connection lost');
    socket.onmessage = ({ data }) => { // one after the other: a candidate must not pass its description
      this.order = this.order.then(() => this.receive(JSON.parse(data))).catch((error) => this.view.failed(error));
    };
  }

  send(message) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  async receive(message) {
    const [kind] = Object.keys(message), body = message[kind];
    if (kind === 'join') this.joined(body);
    else if (kind === 'offer') await this.answer(body);
    else if (kind === 'answer') await this.describe('PUBLISHER', body);
    else if (kind === 'trickle') await this.candidate(body);
    else if (kind === 'update') this.view.people(body.participants ?? []);
    else if (kind === 'trackPublished') this.waiting.get(body.cid)?.(body.track);
    else if (kind === 'speakersChanged') this.view.speakers(body.speakers ?? []);
    else if (kind === 'subscribedQualityUpdate') await this.useLayers(body);
    else if (kind === 'leave') this.end('The server ended the call');
  }

  joined(join) {
    const iceServers = (join.iceServers ?? []).filter(({ urls }) => urls?.length);
    this.pc = { PUBLISHER: this.connection('PUBLISHER', iceServers), SUBSCRIBER: this.connection('SUBSCRIBER', iceServers) };
    this.pc.SUBSCRIBER.ontrack = ({ track, streams }) => this.view.track(track, streams[0]);
    this.pc.SUBSCRIBER.ondatachannel = ({ channel }) => this.listen(channel);
    this.reliable = this.pc.PUBLISHER.createDataChannel('_reliable', { ordered: true });
    this.pc.PUBLISHER.createDataChannel('_lossy', { ordered: false, maxRetransmits: 0 });
    this.reliable.onopen = () => this.view.chatReady(true);
    this.reliable.onclose = () => this.view.chatReady(false);
    this.pinging = setInterval(() => this.send({ ping: String(Date.now()) }), (join.pingInterval || 5) * 1000);
    this.view.joined(join);
  }

  connection(target, iceServers) {
    const pc = new RTCPeerConnection({ iceServers });
    pc.onicecandidate = ({ candidate }) => {
      if (candidate) this.send({ trickle: { candidateInit: JSON.stringify(candidate), target } });
    };
    pc.onconnectionstatechange = () => this.view.state(target, pc.connectionState);
    return pc;
  }

  // Any channel may carry any packet; the identity is the server's word, not the sender's.
  listen(channel) {
    channel.binaryType = 'arraybuffer';
    channel.onmessage = ({ data }) => {
      const packet = decodePacket(new Uint8Array(data));
      if (packet) this.view.said(packet.identity, packet.payload);
    };
  }

  async answer({ sdp, id }) {
    await this.describe('SUBSCRIBER', { type: 'offer', sdp });
    await this.pc.SUBSCRIBER.setLocalDescription();
    this.send({ answer: { type: 'answer', sdp: this.pc.SUBSCRIBER.localDescription.sdp, id } });
  }

  async describe(target, { type, sdp }) {
    await this.pc[target].setRemoteDescription({ type, sdp });
    for (const init of this.early[target].splice(0)) await this.pc[target].addIceCandidate(init);
  }

  async candidate({ candidateInit, target = 'PUBLISHER' }) { // protojson leaves out the value 0
    if (!candidateInit) return;
    const init = JSON.parse(candidateInit);
    if (this.pc[target].remoteDescription) await this.pc[target].addIceCandidate(init);
    else this.early[target].push(init);
  }

  // The server has to know a track (by its cid, the track id of the msid) before it sees it in an offer.
  announce(track, request) {
    return new Promise((resolve) => {
      this.waiting.set(track.id, resolve);
      this.send({ addTrack: { cid: track.id, ...request } });
    });
  }

  async publish(video, audio, mutedAudio) {
    const layers = LAYERS.map(({ quality, scale, bitrate }) => ({ quality, width: WIDTH / scale, height: HEIGHT / scale, bitrate }));
    const [videoInfo, audioInfo] = await Promise.all([
      this.announce(video, { name: 'camera', type: 'VIDEO', source: 'CAMERA', width: WIDTH, height: HEIGHT, layers }),
      this.announce(audio, { name: 'microphone', type: 'AUDIO', source: 'MICROPHONE', muted: mutedAudio }),
    ]);
    const pc = this.pc.PUBLISHER;
    const sendEncodings = LAYERS.map(({ rid, scale, bitrate }) => ({ rid, scaleResolutionDownBy: scale, maxBitrate: bitrate, maxFramerate: FPS * 2 }));
    const add = (track, extra) => pc.addTransceiver(track, { direction: 'sendonly', streams: [new MediaStream([track])], ...extra }).sender;
    this.sent.video = { sid: videoInfo.sid, sender: add(video, { sendEncodings }) };
    this.sent.audio = { sid: audioInfo.sid, sender: add(audio, {}) };
    await pc.setLocalDescription();
    this.send({ offer: { type: 'offer', sdp: pc.localDescription.sdp, id: 1 } });
  }

  // Layers nobody watches need not be encoded.
  async useLayers({ trackSid, subscribedQualities = [] }) {
    const { sid, sender } = this.sent.video ?? {};
    if (sid !== trackSid || !subscribedQualities.length) return;
    const parameters = sender.getParameters();
    for (const { quality = 'LOW', enabled = false } of subscribedQualities) {
      const layer = LAYERS.find((each) => each.quality === quality);
      const encoding = parameters.encodings.find(({ rid }) => rid === layer?.rid);
      if (encoding) encoding.active = enabled;
    }
    await sender.setParameters(parameters);
  }

  mute(kind, muted) {
    if (this.sent[kind]) this.send({ mute: { sid: this.sent[kind].sid, muted } });
  }

  watch(sid, level) {
    const disabled = level === 'OFF';
    this.send({ trackSetting: { trackSids: [sid], disabled, ...(disabled ? {} : { quality: level }) } });
  }

  say(words) {
    this.reliable.send(encodePacket(words, 'chat'));
  }

  leave() {
    this.send({ leave: { reason: 'CLIENT_INITIATED' } });
    this.end('You left');
  }

  end(why) {
    if (this.ended) return;
    this.ended = true;
    clearInterval(this.pinging);
    this.socket?.close();
    for (const pc of Object.values(this.pc ?? {})) pc.close();
    this.view.ended(why);
  }
}

// ---- the page -------------------------------------------------------------------------------------------------------

const $ = (id) => document.getElementById(id);

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

const press = (button, on) => button.setAttribute('aria-pressed', String(on));

class Page {
  constructor() {
    const query = new URLSearchParams(location.search);
    this.room = query.get('room') || 'demo';
    this.identity = query.get('identity') || `guest-${Math.random().toString(36).slice(2, 7)}`;
    $('room').textContent = this.room;
    $('identity').textContent = this.identity;
    this.on = { video: true, audio: false };
    this.device = { video: false, audio: false };
    $('leave').onclick = () => (this.call && !this.call.ended ? this.call.leave() : this.start());
    $('video-on').onclick = () => this.toggle('video');
    $('audio-on').onclick = () => this.toggle('audio');
    $('camera').onclick = () => this.swap('video').catch((error) => this.failed(error));
    $('microphone').onclick = () => this.swap('audio').catch((error) => this.failed(error));
    $('say').onsubmit = (event) => { event.preventDefault(); this.say(); };
    // Sound that the browser held back starts with the first gesture.
    addEventListener('pointerdown', () => document.querySelectorAll('audio').forEach((audio) => audio.play().catch(() => {})));
    addEventListener('pagehide', () => this.call?.leave());
    setInterval(() => this.measure().catch(() => {}), 1000); // a connection may close under getStats
  }

  status(state, words) {
    document.documentElement.dataset.state = state;
    $('status').textContent = words;
  }

  async start() {
    this.status('joining', 'Joining');
    $('leave').textContent = 'Leave';
    this.persons = new Map(); // sid -> { card, heading, figures: Map(track sid -> { figure, video, stats }) }
    this.before = new Map(); // what the last second's statistics said
    this.source ??= { video: drawClock(this.identity), audio: playTone() };
    this.show();
    this.call = new Call(this, this.room, this.identity);
    await this.call.join().catch((error) => { this.failed(error); this.call.end('Could not join'); });
  }

  show() {
    for (const kind of ['video', 'audio']) this.source[kind].track.enabled = this.on[kind];
    $('self').srcObject = new MediaStream([this.source.video.track]);
  }

  // -- told by the call

  joined({ participant, otherParticipants = [] }) {
    this.sid = participant.sid;
    this.people(otherParticipants);
    this.call.publish(this.source.video.track, this.source.audio.track, !this.on.audio)
      .then(() => { if (!this.on.video) this.call.mute('video', true); })
      .catch((error) => this.failed(error));
  }

  state(target, state) {
    document.documentElement.dataset[target.toLowerCase()] = state;
    if (state === 'connected') this.status('connected', 'Connected');
    else if (state === 'failed') this.status('failed', 'No way to the server for media');
  }

  people(list) {
    for (const { sid, identity, name, state } of list) {
      if (sid === this.sid) continue;
      if (state === 'DISCONNECTED') {
        this.persons.get(sid)?.card.remove();
        this.persons.delete(sid);
      } else this.person(sid).heading.textContent = name || identity;
    }
  }

  person(sid) {
    if (!this.persons.has(sid)) {
      const heading = make('h2'), card = make('article', { className: 'person' }, heading);
      card.dataset.participant = sid;
      $('people').append(card);
      this.persons.set(sid, { card, heading, figures: new Map() });
    }
    return this.persons.get(sid);
  }

  // The server names a stream "participant|track"; one that does not has the track's sid as its track id.
  track(track, stream) {
    const [owner, named] = stream.id.split('|');
    const sid = named?.startsWith('TR_') ? named : track.id;
    const person = this.person(owner);
    const element = make(track.kind, { autoplay: true, playsInline: true, srcObject: new MediaStream([track]) });
    element.dataset.sid = sid;
    const holder = track.kind === 'video' ? this.figure(person, sid, element) : element;
    person.card.append(holder);
    element.play().catch(() => {}); // held back until a gesture: see the constructor
    stream.onremovetrack = () => {
      holder.remove();
      person.figures.delete(sid);
    };
  }

  figure(person, sid, video) {
    video.setAttribute('aria-label', `Picture of ${person.heading.textContent}`);
    video.muted = true;
    const stats = make('p', { className: 'stats' });
    const group = make('div', { className: 'buttons' });
    group.setAttribute('role', 'group');
    group.setAttribute('aria-label', 'Quality you receive');
    const buttons = LEVELS.map((level) => make('button', { type: 'button', textContent: level[0] + level.slice(1).toLowerCase() }));
    buttons.forEach((button, index) => {
      button.dataset.level = LEVELS[index];
      press(button, LEVELS[index] === 'HIGH');
      button.onclick = () => {
        buttons.forEach((each) => press(each, each === button));
        this.call.watch(sid, LEVELS[index]);
      };
    });
    group.append(...buttons);
    const figure = make('figure', {}, video, group, stats);
    figure.dataset.track = sid;
    person.figures.set(sid, { figure, video, stats });
    return figure;
  }

  speakers(list) {
    for (const { sid, active = false } of list) {
      const card = sid === this.sid ? $('me') : this.persons.get(sid)?.card;
      card?.classList.toggle('speaking', active);
    }
  }

  chatReady(ready) {
    $('send').disabled = !ready;
  }

  said(identity, words) {
    const line = make('li', {}, make('b', { textContent: identity || 'server' }), words);
    $('messages').append(line);
    while ($('messages').children.length > 200) $('messages').firstChild.remove();
    line.scrollIntoView({ block: 'nearest' });
  }

  failed(error) {
    console.error(error);
    $('status').textContent = error.message;
  }

  ended(why) {
    for (const { card } of this.persons.values()) card.remove();
    this.persons.clear();
    this.chatReady(false);
    $('sent').textContent = '';
    $('leave').textContent = 'Join';
    this.status('left', why);
  }

  // -- told by the user

  toggle(kind) {
    this.on[kind] = !this.on[kind];
    press($(`${kind}-on`), this.on[kind]);
    if (this.on.audio) this.source.audio.resume?.();
    this.source[kind].track.enabled = this.on[kind];
    this.call.mute(kind, !this.on[kind]);
  }

  async swap(kind) {
    const device = !this.device[kind];
    const synthetic = kind === 'video' ? () => drawClock(this.identity) : playTone;
    const source = device ? await openDevice(kind) : synthetic();
    if (kind === 'audio' && this.on.audio) source.resume?.();
    const old = this.source[kind];
    this.source[kind] = source;
    this.device[kind] = device;
    press($(kind === 'video' ? 'camera' : 'microphone'), device);
    this.show();
    if (!this.call.ended) await this.call.sent[kind]?.sender.replaceTrack(source.track);
    old.stop();
  }

  say() {
    const words = $('text').value.trim();
    if (!words || $('send').disabled) return;
    this.call.say(words);
    this.said(this.identity, words);
    $('text').value = '';
  }

  // -- once a second

  async measure() {
    if (this.call?.ended || !this.call?.pc) return;
    const reports = [...await this.call.pc.SUBSCRIBER.getStats()].map(([, report]) => report);
    const trip = roundTrip(reports);
    for (const { figures } of this.persons.values()) {
      for (const { video, stats } of figures.values()) {
        const { id } = video.srcObject.getVideoTracks()[0];
        const report = reports.find((each) => each.type === 'inbound-rtp' && each.trackIdentifier === id);
        if (report) this.received(report, trip, stats);
      }
    }
    const sent = [...await this.call.pc.PUBLISHER.getStats()].map(([, report]) => report);
    const layers = sent.filter(({ type, kind, active }) => type === 'outbound-rtp' && kind === 'video' && active);
    const rate = layers.reduce((sum, layer) => sum + this.rate(layer, layer.bytesSent), 0);
    $('sent').textContent = `sending ${layers.length} layers, ${rate} kbit/s, round trip ${roundTrip(sent)}`;
  }

  received(report, trip, stats) {
    const { frameWidth = 0, frameHeight = 0, framesPerSecond = 0, packetsLost = 0, bytesReceived } = report;
    Object.assign(stats.dataset, { width: frameWidth, lost: packetsLost });
    stats.textContent = `${frameWidth} × ${frameHeight}, ${framesPerSecond} fps, ${this.rate(report, bytesReceived)} kbit/s, `
      + `lost ${packetsLost}, round trip ${trip}`;
  }

  rate({ id, timestamp }, bytes) {
    const last = this.before.get(id) ?? { timestamp, bytes };
    this.before.set(id, { timestamp, bytes });
    return timestamp > last.timestamp ? Math.round((bytes - last.bytes) * 8 / (timestamp - last.timestamp)) : 0;
  }
}

function roundTrip(reports) {
  const pair = reports.find(({ type, nominated, state }) => type === 'candidate-pair' && nominated && state === 'succeeded');
  return pair?.currentRoundTripTime === undefined ? '–' : `${Math.round(pair.currentRoundTripTime * 1000)} ms`;
}

if (typeof document === 'undefined') setInterval(() => postMessage(0), 1000 / FPS); // we are the worker of `drawClock`
else new Page().start();
