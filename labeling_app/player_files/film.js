// The cameras of one episode, played as one film.
//
// The first camera is the clock; the others follow it: small drift is corrected through their speed, large drift by
// a jump. A frame is a recorded control step: frame n is on the screen from n / rate to (n + 1) / rate seconds, so
// that seeking to the middle of that span always shows exactly frame n.

const HOLD_MS = 1000; // the last picture stays for a while: it is what most answers hang on
const SPEEDS = [0.25, 0.5, 1, 2, 4, 8];
const JUMP_S = 0.5; // drift beyond this is not worth catching up with
const READY = 2; // HTMLMediaElement.HAVE_CURRENT_DATA

class Film {
  constructor(onFrame, onState, onError) {
    Object.assign(this, { onFrame, onState, onError, videos: [], rate: 1, length: 1, frame: 0 });
    Object.assign(this, { speed: 1, loop: true, playing: false, hold: 0, ticking: 0, loads: 0 });
  }

  // Shows other videos; `urls` is one a camera. They start together, once all of them show their first picture.
  async load(videos, urls, rate, length, frame, play) {
    this.dispose();
    const load = ++this.loads;
    Object.assign(this, { videos, rate, length, frame: 0 });
    const shown = videos.map((video, i) => new Promise((resolve) => {
      video.onloadeddata = resolve;
      video.onerror = () => { resolve(); if (load === this.loads) this.onError(); };
      video.src = urls[i];
    }));
    this.watch(videos[0], load);
    videos[0].onended = () => this.end();
    await Promise.all(shown);
    if (load !== this.loads) return;
    if (frame > 0 || !play) this.seek(frame);
    if (play) this.play();
  }

  // Says which frame is on the screen, from the browser's own word where it gives one.
  watch(video, load) {
    if (!video.requestVideoFrameCallback) return;
    const seen = (_, { mediaTime }) => {
      if (load !== this.loads) return;
      if (this.playing) this.show(Math.round(mediaTime * this.rate));
      video.requestVideoFrameCallback(seen);
    };
    video.requestVideoFrameCallback(seen);
  }

  show(frame) {
    const inside = Math.max(0, Math.min(this.length - 1, frame));
    if (inside !== this.frame) { this.frame = inside; this.onFrame(inside); }
  }

  play() {
    clearTimeout(this.hold);
    if (this.frame >= this.length - 1) this.seek(0);
    this.playing = true;
    this.setSpeed(this.speed);
    this.start();
    cancelAnimationFrame(this.ticking);
    const tick = () => { this.follow(); this.ticking = requestAnimationFrame(tick); };
    this.ticking = requestAnimationFrame(tick);
    this.onState();
  }

  start() {
    for (const video of this.videos) if (!video.error) video.play().catch(() => {});
  }

  pause() {
    this.stop();
    this.seek(this.frame); // all cameras on the very frame that was seen last
  }

  stop() {
    clearTimeout(this.hold);
    cancelAnimationFrame(this.ticking);
    this.playing = false;
    for (const video of this.videos) video.pause();
    this.onState();
  }

  toggle() { if (this.playing) this.pause(); else this.play(); }

  step(frames) {
    if (this.playing) this.stop();
    this.seek(this.frame + frames);
  }

  seek(frame) {
    const inside = Math.max(0, Math.min(this.length - 1, Math.round(frame)));
    for (const video of this.videos) video.currentTime = (inside + 0.5) / this.rate;
    this.frame = inside;
    this.onFrame(inside);
  }

  setSpeed(speed) {
    this.speed = speed;
    for (const video of this.videos) { video.defaultPlaybackRate = speed; video.playbackRate = speed; }
    this.onState();
  }

  changeSpeed(steps) {
    const at = SPEEDS.indexOf(this.speed) + steps;
    this.setSpeed(SPEEDS[Math.max(0, Math.min(SPEEDS.length - 1, at))]);
  }

  setLoop(loop) {
    this.loop = loop;
    if (!loop) clearTimeout(this.hold);
    this.onState();
  }

  end() {
    this.show(this.length - 1);
    if (!this.playing) return;
    if (!this.loop) { this.pause(); return; }
    clearTimeout(this.hold);
    this.hold = setTimeout(() => {
      for (const video of this.videos) video.currentTime = 0;
      this.frame = 0;
      this.onFrame(0);
      this.start();
    }, HOLD_MS);
  }

  // Keeps the other cameras with the first; all wait for one that has to load.
  follow() {
    const [clock, ...others] = this.videos;
    if (!clock || clock.ended || clock.seeking) return;
    if (!clock.requestVideoFrameCallback) this.show(Math.floor(clock.currentTime * this.rate + 1e-3));
    const late = others.some((video) => video.readyState < READY && !video.error);
    if (late !== clock.paused) { if (late) clock.pause(); else clock.play().catch(() => {}); }
    for (const video of others) {
      if (video.seeking || video.ended || video.error) continue;
      const drift = video.currentTime - clock.currentTime;
      if (Math.abs(drift) > JUMP_S * Math.max(1, this.speed)) video.currentTime = clock.currentTime;
      const wanted = Math.abs(drift) * this.rate < 0.3 ? 1 : 1 - Math.max(-0.5, Math.min(0.5, drift * 2));
      video.playbackRate = Math.max(0.1, Math.min(16, this.speed * wanted));
      if (video.paused && !late) video.play().catch(() => {});
    }
  }

  // Lets go of the videos: what is downloaded and decoded is freed at once.
  dispose() {
    this.loads += 1;
    clearTimeout(this.hold);
    cancelAnimationFrame(this.ticking);
    this.playing = false;
    for (const video of this.videos) {
      video.onerror = video.onended = video.onloadeddata = null;
      video.pause();
      video.removeAttribute("src");
      video.load();
    }
    this.videos = [];
  }
}
