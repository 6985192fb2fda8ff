// Charts as SVG, drawn at the width that they have on the page.

const PAD = { left: 44, right: 12, top: 10, bottom: 34 };

/** Places of round numbers between two values. */
function ticks(low, high, count = 5) {
  const raw = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= raw);
  const found = [];
  for (let i = Math.ceil(low / step); i * step <= high + step / 1e6; i += 1)
    found.push(Number((i * step).toPrecision(12)));
  return found;
}

/** From values to a share of the axis and back; logarithmic where scores span much. */
function scoreAxis(scores) {
  let [low, high] = [Infinity, -Infinity];
  for (const score of scores) { low = Math.min(low, score); high = Math.max(high, score); }
  if (!(high > low)) { const around = Math.abs(low) || 1; low -= 0.05 * around; high += 0.05 * around; }
  const log = low > 0 && high / low > 20;
  const [f, g] = log ? [Math.log, Math.exp] : [(x) => x, (x) => x];
  const margin = (f(high) - f(low)) / 40;
  const [start, end] = [f(low) - margin, f(high) + margin];
  const powers = [1, 2, 5].flatMap((m) => [...Array(40).keys()].map((i) => m * 10 ** (i - 20)));
  return {
    to: (value) => (f(Math.max(value, log ? 1e-300 : -Infinity)) - start) / (end - start),
    from: (share) => g(start + share * (end - start)),
    ticks: log ? powers.filter((x) => x >= g(start) && x <= g(end)).sort((a, b) => a - b)
               : ticks(start, end, 6),
  };
}

/** Two rows of bars, good images above the line and defective ones below it; returns an SVG. */
function histogram(groups, axis, width, bins = 40) {
  const half = 80, both = groups.length > 1;
  const height = PAD.top + half * (both ? 2 : 1) + PAD.bottom;
  const svg = element("svg", { viewBox: `0 0 ${width} ${height}`, class: "chart", role: "img",
                               "aria-label": "histogram of scores" });
  const inner = width - PAD.left - PAD.right, base = PAD.top + half;
  const filled = groups.map(({ scores }) => {
    const counts = Array(bins).fill(0);
    for (const score of scores)
      counts[Math.min(bins - 1, Math.max(0, Math.floor(axis.to(score) * bins)))] += 1;
    return counts;
  });
  const most = Math.max(1, ...filled.flat());
  filled.forEach((counts, row) => counts.forEach((count, bin) => {
    const tall = count ? Math.max(2, count / most * (half - 6)) : 0;
    svg.append(element("rect", {
      class: groups[row].className, x: PAD.left + bin * inner / bins + 0.5,
      width: Math.max(1, inner / bins - 1), y: row ? base : base - tall, height: tall,
    }));
  }));
  groups.forEach(({ name }, row) => svg.append(element("text", {
    x: width - PAD.right, y: row ? base + half - 8 : PAD.top + 8, "text-anchor": "end",
    class: `legend ${groups[row].className}` }, name)));
  svg.append(element("line", { class: "axis", x1: PAD.left, x2: width - PAD.right, y1: base, y2: base }));
  bottomAxis(svg, axis.ticks, (value) => PAD.left + axis.to(value) * inner, height, "score", width);
  svg.append(element("text", { x: PAD.left - 6, y: PAD.top + 10, "text-anchor": "end" }, String(most)),
             element("text", { x: PAD.left - 6, y: base + 4, "text-anchor": "end" }, "0"));
  return svg;
}

function bottomAxis(svg, places, x, height, title, width) {
  let last = -Infinity;
  for (const value of places) {
    if (x(value) - last < 38) continue;
    last = x(value);
    svg.append(element("line", { class: "grid", x1: last, x2: last, y1: PAD.top, y2: height - PAD.bottom }),
               element("text", { x: last, y: height - PAD.bottom + 14, "text-anchor": "middle" }, digits(value, 3)));
  }
  svg.append(element("text", { x: (PAD.left + width - PAD.right) / 2, y: height - 3,
                               "text-anchor": "middle", class: "title" }, title));
}

/** Lines in a square; ``lines`` are {points, name, className}, ``marks`` {at, className}. */
function lineChart({ title, xTitle, yTitle, lines, xEnd = 1, marks = [] }, width) {
  const height = Math.min(width, 340);
  const x = (value) => PAD.left + value / xEnd * (width - PAD.left - PAD.right);
  const y = (value) => PAD.top + (1 - value) * (height - PAD.top - PAD.bottom);
  const svg = element("svg", { viewBox: `0 0 ${width} ${height}`, class: "chart", role: "img", "aria-label": title });
  bottomAxis(svg, ticks(0, xEnd, 4), x, height, xTitle, width);
  for (const value of ticks(0, 1, 5))
    svg.append(element("line", { class: "grid", x1: PAD.left, x2: width - PAD.right, y1: y(value), y2: y(value) }),
               element("text", { x: PAD.left - 6, y: y(value) + 4, "text-anchor": "end" }, digits(value)));
  svg.append(element("text", { class: "title", "text-anchor": "middle",
    transform: `translate(11 ${(PAD.top + height - PAD.bottom) / 2}) rotate(-90)` }, yTitle));
  for (const { points, className } of lines)
    svg.append(element("path", { class: `line ${className}`,
      d: points.map(([px, py], i) => `${i ? "L" : "M"}${x(px).toFixed(1)} ${y(py).toFixed(1)}`).join("") }));
  for (const { at, className } of marks)
    svg.append(element("circle", { class: `mark ${className}`, cx: x(at[0]), cy: y(at[1]), r: 5 }));
  const legend = element("p", { class: "keys" }, lines.map(({ name, className }) =>
    element("span", {}, element("svg", { viewBox: "0 0 26 8", class: "key" },
      element("path", { class: `line ${className}`, d: "M1 4L25 4" })), ` ${name}`)));
  return element("figure", {}, element("figcaption", {}, title), svg, legend);
}

/** Draw now, and again whenever the width of a box changes. */
function fitted(draw) {
  const box = element("div", { class: "fitted" });
  let drawn = 0;
  const redraw = () => {
    const width = Math.round(box.clientWidth);
    if (width > 0) { drawn = width; box.replaceChildren(draw(width)); }
  };
  const changed = () => { if (Math.round(box.clientWidth) !== drawn) redraw(); };
  new ResizeObserver(() => requestAnimationFrame(changed)).observe(box);
  return [box, redraw];
}
