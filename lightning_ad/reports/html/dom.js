// Elements and numbers. Text only ever becomes text nodes.

const content = JSON.parse(document.getElementById("content").textContent);
const pictures = JSON.parse(document.getElementById("pictures").textContent);

/** An element with attributes (functions become listeners) and children (strings become text). */
function element(name, attributes = {}, ...children) {
  const svg = ["svg", "g", "path", "line", "rect", "circle", "text"].includes(name);
  const made = svg ? document.createElementNS("http://www.w3.org/2000/svg", name)
                   : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(key, value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

/** A number with four digits that count, or a dash. */
function digits(value, count = 4) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  return String(Number(value.toPrecision(count)));
}

function percent(share, places = 1) {
  return share === null || Number.isNaN(share) ? "–" : `${(100 * share).toFixed(places)} %`;
}

/** A table with a header; cells are strings, numbers to the right. */
function table(header, rows, attributes = {}) {
  const cell = (kind, value) =>
    element(kind, typeof value === "number" ? { class: "number" } : {}, String(value));
  return element("div", { class: "scroll" }, element("table", attributes,
    element("thead", {}, element("tr", {}, header.map((title) => cell("th", title)))),
    element("tbody", {}, rows.map((row) =>
      element("tr", {}, row.map((value) => value instanceof Node ? element("td", {}, value)
                                                                   : cell("td", value)))))));
}

/** A section with a heading. */
function section(id, title, ...children) {
  return element("section", { id }, element("h2", {}, title), ...children);
}
