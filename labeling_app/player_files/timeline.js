// The bar under the film: who drove when, marks, curves of numbers, and a cursor that can be dragged.
// All text of people goes in as textContent: it is never read as HTML.

const SVG = "http://www.w3.org/2000/svg";

function element(tag, className = "", text = null) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== null) made.textContent = text;
  return made;
}

function clock(frame, rate) {
  const seconds = frame / rate;
  const minutes = Math.floor(seconds / 60);
  return `${minutes}:${(seconds - 60 * minutes).toFixed(1).padStart(4, "0")}`;
}

class Timeline {
  constructor(film) {
    this.film = film;
    this.root = element("div", "rc-timeline");
    this.pins = element("div", "rc-pins");
    this.bar = element("div", "rc-bar");
    this.curves = element("div", "rc-curves");
    this.cursor = element("div", "rc-cursor");
    this.root.append(this.pins, this.bar, this.curves, this.cursor);
    this.root.onpointerdown = (event) => this.grab(event);
  }

  show(data) {
    this.length = data.length;
    this.bar.replaceChildren(...data.spans.map((span) => {
      const part = this.place(element("div", `rc-span rc-${span.driver}`), span.start, span.end);
      part.title = span.words;
      return part;
    }));
    this.readings = [];
    this.curves.replaceChildren(...(data.curves || []).map((curve) => this.curve(curve)));
    this.move(0);
  }

  place(part, start, end) {
    part.style.left = `${(100 * start) / this.length}%`;
    part.style.width = `${(100 * (end - start)) / this.length}%`;
    return part;
  }

  curve({ name, values, low, high, threshold }) {
    const row = element("div", "rc-curve");
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", `0 0 ${values.length} 100`);
    svg.setAttribute("preserveAspectRatio", "none");
    const y = (value) => (100 * (high - value)) / (high - low || 1);
    const line = (points, className) => {
      const path = document.createElementNS(SVG, "path");
      path.setAttribute("d", points);
      path.setAttribute("class", className);
      path.setAttribute("vector-effect", "non-scaling-stroke");
      svg.append(path);
    };
    if (typeof threshold === "number") line(`M0 ${y(threshold)}H${values.length}`, "rc-threshold");
    line(values.map((v, i) => `${i ? "L" : "M"}${i + 0.5} ${y(v).toFixed(2)}`).join(""), "rc-line");
    const reading = element("output", "rc-reading");
    this.readings.push((frame) => {
      const value = values[Math.min(frame, values.length - 1)];
      const above = typeof threshold === "number" ? (value > threshold ? " · positive" : " · not positive") : "";
      reading.textContent = `${name} ${value.toFixed(3)}${above}`;
    });
    row.append(svg, reading);
    return row;
  }

  showMarks(marks, opened) {
    const shown = marks.map((mark) => {
      const segment = mark.kind === "segment";
      const pin = element("div", `rc-pin rc-pin-${mark.kind}`, segment ? mark.text : null);
      pin.title = segment ? mark.text || "a segment without text" : `moment of ${mark.kind}`;
      return this.place(pin, mark.start_frame, segment ? mark.end_frame : mark.start_frame + 1);
    });
    if (opened !== null) shown.push(this.place(element("div", "rc-pin rc-pin-opened"), opened, opened + 1));
    this.pins.replaceChildren(...shown);
  }

  move(frame) {
    this.cursor.style.left = `${(100 * (frame + 0.5)) / this.length}%`;
    for (const read of this.readings || []) read(frame);
  }

  grab(event) {
    if (event.button !== 0) return;
    event.preventDefault();
    this.root.setPointerCapture(event.pointerId);
    this.film.stop();
    const seek = ({ clientX }) => {
      const { left, width } = this.root.getBoundingClientRect();
      this.film.seek(Math.floor(((clientX - left) / width) * this.length));
    };
    seek(event);
    this.root.onpointermove = seek;
    this.root.onpointerup = this.root.onpointercancel = () => { this.root.onpointermove = null; };
  }
}
