// What an annotator adds to an answer: marks, quality, and a note. Kept here until the answer is sent.

const KINDS = { success: "success moment", failure: "failure moment", segment: "segment" };

class Remarks {
  constructor(film, timeline, hint) {
    Object.assign(this, { film, timeline, hint, marks: [], opened: null, quality: null });
    this.root = element("div", "rc-remarks");
    const quality = element("div", "rc-group");
    quality.append(element("span", "rc-label", "Quality"));
    this.qualities = [["clean", "1"], ["clumsy", "2"], ["unsafe", "3"]].map(([name, key]) => {
      const made = button(`rc-quality rc-${name}`, name, key, () => this.setQuality(name));
      made.dataset.quality = name;
      quality.append(made);
      return made;
    });
    const marks = element("div", "rc-group");
    marks.append(
      element("span", "rc-label", "Mark"),
      button("rc-mark", "done here", "D", () => this.moment("success")),
      button("rc-mark", "went wrong here", "G", () => this.moment("failure")),
      button("rc-mark", "segment begins", "B", () => this.begin()),
      button("rc-mark", "ends", "E", () => this.end()),
    );
    this.note = element("input", "rc-note");
    Object.assign(this.note, { maxLength: 500, placeholder: "a note, if something is worth saying (T)" });
    this.note.setAttribute("aria-label", "Note");
    this.chips = element("div", "rc-chips");
    this.root.append(quality, marks, this.note, this.chips);
    // Enter and Escape go back to the keys; no other key that is typed here is anybody else's business.
    this.root.onkeydown = (event) => {
      if (!isTyping(event.target)) return;
      event.stopPropagation();
      if (event.key !== "Enter" && event.key !== "Escape") return;
      event.target.blur();
      this.hint(this.overlap()); // what it asked for is said
    };
    this.root.oninput = () => this.keep();
  }

  // Shows what the server knows, or what was said here before a reload or a visit to another page.
  show(data, kept) {
    this.place = kept ? place(data) : null;
    let draft = null;
    try { draft = kept ? JSON.parse(sessionStorage.getItem(this.place)) : null; } catch { /* none is kept */ }
    const { marks, quality, note } = draft || data;
    this.reset(marks, quality, note);
    this.opened = draft?.opened ?? null;
    this.draw();
  }

  // Marks, quality and note outlive this page until they are sent; the token names the look they belong to.
  keep() {
    if (!this.place) return;
    const { marks, quality, opened } = this;
    try {
      sessionStorage.setItem(this.place, JSON.stringify({ marks, quality, opened, note: this.note.value }));
    } catch { /* a browser that keeps nothing: as before */ }
  }

  forget(data) {
    try { sessionStorage.removeItem(place(data)); } catch { /* nothing is kept */ }
  }

  reset(marks = [], quality = null, note = "") {
    this.marks = marks.map((mark) => ({ ...mark }));
    this.opened = null;
    this.note.value = note;
    this.note.blur();
    this.quality = null;
    if (quality) this.setQuality(quality); else this.drawQuality();
    this.draw();
  }

  setQuality(name) {
    this.quality = this.quality === name ? null : name;
    this.drawQuality();
    this.keep();
  }

  drawQuality() {
    for (const made of this.qualities) {
      made.setAttribute("aria-pressed", String(made.dataset.quality === this.quality));
    }
  }

  // There is one moment of each kind: marking it again moves it.
  moment(kind) {
    this.film.stop();
    this.film.seek(this.film.frame);
    const frame = this.film.frame;
    this.marks = this.marks.filter((mark) => mark.kind !== kind);
    this.add({ kind, start_frame: frame, end_frame: frame, text: "" });
  }

  // Where a segment ends with this frame, the next one begins with the frame after it: no frame is in both.
  begin() {
    const next = this.film.frame + 1;
    const ended = this.marks.some((mark) => mark.kind === "segment" && mark.end_frame === next);
    if (ended && next < this.film.length) {
      this.film.stop();
      this.film.seek(next);
    }
    this.opened = this.film.frame;
    this.hint(`The segment begins at frame ${this.opened + 1}: go to its end and press E.`);
    this.draw();
  }

  end() {
    if (this.opened === null) { this.hint("Press B where the segment begins first."); return; }
    this.film.stop();
    this.film.seek(this.film.frame);
    const [start, last] = [this.opened, this.film.frame].sort((a, b) => a - b);
    this.opened = null;
    const mark = { kind: "segment", start_frame: start, end_frame: last + 1, text: "" };
    this.add(mark);
    this.chips.querySelector(`[data-mark="${this.marks.indexOf(mark)}"] input`).focus();
    this.hint("Say what happens in the segment, then press Enter.");
  }

  // Which frames two segments of different names share, in words; empty where there are none.
  overlap() {
    const name = ({ text }) => text.split(/\s+/).filter(Boolean).join(" ").toLowerCase();
    const named = this.marks.filter((mark) => mark.kind === "segment" && name(mark));
    for (const [i, one] of named.entries()) {
      for (const other of named.slice(i + 1)) {
        const first = Math.max(one.start_frame, other.start_frame) + 1; // counted from 1, as shown
        const last = Math.min(one.end_frame, other.end_frame);
        if (first <= last && name(one) !== name(other)) {
          const shared = first === last ? `frame ${first}` : `frames ${first}–${last}`;
          return `“${one.text.trim()}” and “${other.text.trim()}” share ${shared}, where neither is taught.`;
        }
      }
    }
    return "";
  }

  add(mark) {
    this.marks.push(mark);
    this.marks.sort((a, b) => a.start_frame - b.start_frame);
    this.draw();
  }

  removeLast() {
    if (this.opened !== null) { this.opened = null; this.hint(""); } else this.marks.pop();
    this.draw();
  }

  draw() {
    this.keep();
    this.timeline.showMarks(this.marks, this.opened);
    this.chips.replaceChildren(...this.marks.map((mark, i) => this.chip(mark, i)));
  }

  chip(mark, i) {
    const { rate } = this.film;
    const chip = element("div", `rc-chip rc-chip-${mark.kind}`);
    chip.dataset.mark = String(i);
    const span = mark.kind === "segment" ? `–${clock(mark.end_frame, rate)}` : "";
    const go = button("rc-go", `${KINDS[mark.kind]} ${clock(mark.start_frame, rate)}${span}`, "", () => {
      this.film.stop();
      this.film.seek(mark.start_frame);
    });
    chip.append(go);
    if (mark.kind === "segment") {
      const text = element("input", "rc-segment-text");
      Object.assign(text, { maxLength: 200, value: mark.text, placeholder: "what happens here" });
      text.setAttribute("aria-label", "What happens in the segment");
      text.oninput = () => { mark.text = text.value; this.timeline.showMarks(this.marks, this.opened); };
      chip.append(text);
    }
    const remove = button("rc-remove", "×", "", () => {
      this.marks = this.marks.filter((other) => other !== mark);
      this.draw();
      this.hint(this.overlap());
    });
    remove.setAttribute("aria-label", "Remove this mark");
    chip.append(remove);
    return chip;
  }

  // A segment without an end or without words teaches nothing: both are said, or it is taken away, before the answer.
  complete() {
    if (this.opened !== null) {
      this.hint(`Not sent: the segment that begins at frame ${this.opened + 1} has no end. Press E at its end, or ⌫ to drop it; then answer.`);
      return false;
    }
    const nameless = this.marks.findIndex((mark) => mark.kind === "segment" && !mark.text.trim());
    if (nameless < 0) return true;
    this.chips.querySelector(`[data-mark="${nameless}"] input`).focus();
    this.hint("Say what happens in the segment and press Enter, or remove it with ×; then answer.");
    return false;
  }

  said() {
    const marks = this.marks.map((mark) => ({ ...mark, text: mark.text.trim() }));
    return { quality: this.quality, note: this.note.value.trim(), marks };
  }
}

function button(className, text, key, act) {
  const made = element("button", className);
  made.type = "button";
  made.append(element("span", "rc-words", text));
  if (key) made.append(element("kbd", "", key));
  made.onclick = (event) => {
    if (event.detail > 0) made.blur(); // clicked, not reached by Tab: Space must go on to play and pause
    act();
  };
  return made;
}

function place({ token }) {
  return `recap-remarks-${token}`;
}

function isTyping(target) {
  return target instanceof Element
    && (target.closest("input, textarea, select, [contenteditable=true], [role=slider], [role=listbox]") !== null);
}
