// One player on a page: the film, the timeline, the buttons and keys, and what is sent to the server.

const ANSWERS = [
  ["success", "Success", "S", "The task is done at the end."],
  ["failure", "Failure", "F", "The task is not done at the end."],
  ["exclude", "Exclude", "X", "The recording is unusable; nobody learns from it."],
  ["skip", "Next", "N", "You cannot tell; somebody else may."],
];
const PATIENCE_MS = 15000; // longer than the server waits for a locked label store
const KEYS = [
  ["Space", "play, pause"], ["← →", "one frame; with Shift ten"], ["↑ ↓", "faster, slower"], ["L", "loop on, off"],
  ["S F X N", "success, failure, exclude, next"], ["U", "undo my last label"], ["1 2 3", "clean, clumsy, unsafe"],
  ["D G", "mark: done here, went wrong here"], ["B E", "a segment begins, ends"],
  ["⌫", "remove the last mark"], ["T", "write a note"], ["?", "show these keys"],
];
// What a page has other words for, or none: reviewers have no next episode, and on Review nothing is answered.
const KEYS_ELSEWHERE = {
  decide: { "S F X N": ["S F X", "decide: success, failure, exclude"], U: ["U", "undo my last decision"] },
  review: { "S F X N": null, U: null, "1 2 3": null, "D G": null, "B E": null, "⌫": null, T: null },
};

class Player {
  constructor(parent) {
    this.parent = parent;
    this.root = parent.querySelector(".rc") || parent;
    this.film = new Film((frame) => this.moved(frame), () => this.drawState(), () => this.broken());
    this.timeline = new Timeline(this.film);
    this.hint = element("p", "rc-hint");
    this.hint.setAttribute("role", "status");
    this.remarks = new Remarks(this.film, this.timeline, (text) => { this.hint.textContent = text; });
    this.cameras = element("div", "rc-cameras");
    this.help = element("div", "rc-help");
    this.help.hidden = true;
    this.answers = element("div", "rc-answers");
    this.buttons = ANSWERS.map(([name, words, key, why]) => {
      const made = button(`rc-answer rc-${name}`, words, key, () => this.say(name));
      made.title = why;
      made.dataset.answer = name;
      this.answers.append(made);
      return made;
    });
    this.controls();
    this.root.replaceChildren(
      this.cameras, this.timeline.root, this.bar, this.help, this.answers, this.remarks.root, this.hint,
    );
    this.onkey = (event) => this.key(event);
    document.addEventListener("keydown", this.onkey);
  }

  drawHelp(mode) {
    const others = KEYS_ELSEWHERE[mode] || {};
    const keys = KEYS.map((row) => (row[0] in others ? others[row[0]] : row)).filter((row) => row);
    this.help.replaceChildren(...keys.map(([key, words]) => {
      const row = element("div");
      row.append(element("kbd", "", key), element("span", "", words));
      return row;
    }));
  }

  controls() {
    this.bar = element("div", "rc-controls");
    this.playing = button("rc-play", "▶", "", () => this.film.toggle());
    this.back = button("rc-step", "◂", "", () => this.film.step(-1));
    this.forth = button("rc-step", "▸", "", () => this.film.step(1));
    this.position = element("output", "rc-position");
    this.slower = button("rc-slower", "−", "", () => this.film.changeSpeed(-1));
    this.speed = element("output", "rc-speed");
    this.faster = button("rc-faster", "+", "", () => this.film.changeSpeed(1));
    this.loop = button("rc-loop", "loop", "L", () => this.film.setLoop(!this.film.loop));
    const keys = button("rc-keys", "keys", "?", () => { this.help.hidden = !this.help.hidden; });
    const names = [[this.playing, "Play or pause"], [this.back, "One frame back"], [this.forth, "One frame on"]];
    for (const [made, name] of [...names, [this.slower, "Slower"], [this.faster, "Faster"]]) {
      made.setAttribute("aria-label", name);
      made.title = name;
    }
    this.legend = element("div", "rc-legend");
    this.bar.append(this.playing, this.back, this.forth, this.position, this.slower, this.speed, this.faster);
    this.bar.append(this.loop, this.legend, keys);
  }

  // Called whenever the server has something new to show; the same episode keeps its film and its remarks.
  update({ data, setTriggerValue }) {
    this.send = setTriggerValue;
    const another = !this.data || this.data.episode !== data.episode || this.data.visit !== data.visit;
    const films = JSON.stringify(data.cameras.map((camera) => camera.url));
    const otherFilm = another || this.films !== films;
    const otherCurves = otherFilm || JSON.stringify(this.data.curves) !== JSON.stringify(data.curves);
    const before = this.data;
    const sought = !another && data.seek !== this.data.seek;
    const [unsaved, refused] = [this.waiting, !another && data.attempt !== this.data.attempt];
    [this.data, this.films] = [data, films];
    this.rest();
    this.root.dataset.episode = data.episode;
    this.root.dataset.mode = data.mode;
    this.remarks.root.hidden = data.mode === "review";
    this.answers.hidden = data.mode === "review";
    if (before?.mode !== data.mode) this.drawHelp(data.mode);
    for (const made of this.buttons) made.hidden = made.dataset.answer === "skip" && data.mode === "decide";
    if (otherFilm) this.loadFilm(data);
    if (otherCurves) { this.timeline.show(data); this.drawLegend(data); this.timeline.move(this.film.frame); }
    if (another) {
      this.hint.textContent = data.hint || "";
      this.remarks.show(data, data.mode !== "review");
      if (before) this.remarks.forget(before);
    }
    if (refused) this.hint.textContent = "Not saved: the line above says why. Your marks and note are still here.";
    if (sought && data.frame !== null) { this.film.stop(); this.film.seek(data.frame); }
    if (before && !another && data.session !== before.session) {
      const answer = unsaved || this.unheard ? " Your answer was not saved: press its key again." : "";
      this.hint.textContent = `The server is back.${answer} Your marks and note are still here.`;
    }
    this.unheard = false;
  }

  loadFilm(data) {
    const videos = data.cameras.map((camera) => {
      const video = element("video");
      Object.assign(video, { muted: true, playsInline: true, preload: "auto", disablePictureInPicture: true });
      video.onclick = () => this.film.toggle();
      return video;
    });
    this.film.dispose();
    this.cameras.replaceChildren(...data.cameras.map((camera, i) => {
      const panel = element("figure", "rc-camera");
      panel.style.setProperty("--shape", String(camera.width / camera.height));
      panel.append(videos[i], element("figcaption", "", camera.name));
      return panel;
    }));
    if (!videos.length) { this.broken(); return; }
    const paused = data.frame !== null;
    this.film.load(videos, data.cameras.map(({ url }) => url), data.rate_hz, data.length, data.frame || 0, !paused);
    this.moved(this.film.frame);
    this.drawState();
  }

  drawLegend(data) {
    const drivers = new Map(data.spans.map((span) => [span.driver, span.words]));
    this.legend.replaceChildren(...[...drivers].map(([driver, words]) => {
      const entry = element("span", "", words);
      entry.prepend(element("i", `rc-${driver}`));
      return entry;
    }));
  }

  broken() {
    const said = element("p", "rc-broken", this.data.problem || "This film cannot be played.");
    this.cameras.append(said);
  }

  moved(frame) {
    this.timeline.move(frame);
    const { rate, length } = this.film;
    this.position.textContent = `${clock(frame, rate)} / ${clock(length, rate)} · frame ${frame + 1}/${length}`;
    this.root.dataset.frame = String(frame);
  }

  drawState() {
    this.playing.firstChild.textContent = this.film.playing ? "❚❚" : "▶";
    this.speed.textContent = `×${this.film.speed}`;
    this.loop.setAttribute("aria-pressed", String(this.film.loop));
  }

  // One answer for each look at an episode: the keys rest until the server has replied.
  say(answer) {
    if (this.waiting || this.data.mode === "review") return;
    if (answer === "skip" && this.data.mode === "decide") return;
    if (answer !== "skip" && !this.remarks.complete()) return;
    this.waiting = true;
    this.film.stop();
    this.buttons.find((made) => made.dataset.answer === answer).setAttribute("aria-pressed", "true");
    this.root.classList.add("rc-waiting");
    this.slow = setTimeout(() => {
      this.hint.textContent = "Saving …";
      this.slow = setTimeout(() => this.unanswered(), PATIENCE_MS);
    }, 700);
    this.send("said", { token: this.data.token, answer, ...this.remarks.said() });
  }

  // The server was away, or is: nothing of the answer is lost, and sending it twice does no harm.
  unanswered() {
    this.rest();
    this.unheard = true;
    this.hint.textContent = "No reply from the server: press the key again. Your marks and note are still here.";
  }

  rest() {
    this.waiting = false;
    clearTimeout(this.slow);
    this.root.classList.remove("rc-waiting");
    for (const made of this.buttons) made.removeAttribute("aria-pressed");
  }

  key(event) {
    if (!this.root.isConnected || !this.data || event.ctrlKey || event.altKey || event.metaKey) return;
    const target = event.composedPath()[0];
    if (isTyping(target) || document.querySelector("[role=dialog]")) return;
    if ((event.key === " " || event.key === "Enter") && target instanceof Element && target.closest("button, a, summary")) return;
    const act = this.action(event);
    if (!act) return;
    event.preventDefault();
    act();
  }

  action(event) {
    const { film, remarks } = this;
    const far = event.shiftKey ? 10 : 1;
    const moving = {
      " ": () => film.toggle(), ArrowLeft: () => film.step(-far), ArrowRight: () => film.step(far),
      ArrowUp: () => film.changeSpeed(1), ArrowDown: () => film.changeSpeed(-1),
      Home: () => film.step(-film.length), End: () => film.step(film.length),
    };
    if (moving[event.key]) return moving[event.key];
    if (event.repeat) return null; // a key held down is one answer, not many
    const key = event.key.toLowerCase();
    const showing = { l: () => film.setLoop(!film.loop), "?": () => { this.help.hidden = !this.help.hidden; } };
    if (showing[key]) return showing[key];
    if (this.data.mode === "review" || this.waiting || event.shiftKey) return null;
    const saying = {
      s: () => this.say("success"), f: () => this.say("failure"), x: () => this.say("exclude"),
      n: () => this.say("skip"), d: () => remarks.moment("success"), g: () => remarks.moment("failure"),
      b: () => remarks.begin(), e: () => remarks.end(), t: () => remarks.note.focus(),
      1: () => remarks.setQuality("clean"), 2: () => remarks.setQuality("clumsy"),
      3: () => remarks.setQuality("unsafe"), backspace: () => remarks.removeLast(),
    };
    return saying[key] || null;
  }

  dispose() {
    document.removeEventListener("keydown", this.onkey);
    this.film.dispose();
  }
}

const players = new WeakMap();

export default function show(component) {
  const parent = component.parentElement;
  if (!players.has(parent)) players.set(parent, new Player(parent));
  players.get(parent).update(component);
  return () => {
    players.get(parent)?.dispose();
    players.delete(parent);
  };
}
