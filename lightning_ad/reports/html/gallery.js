// Cards of images, made as they come into view, and one image at its largest.

const PAGE = 60;

/** How many first characters all names share, up to a folder. */
const COMMON = ((names) => {
  let length = Math.max(0, names[0]?.lastIndexOf("/") + 1 || 0);
  for (const name of names)
    while (length && name.slice(0, length) !== names[0].slice(0, length))
      length = names[0].lastIndexOf("/", length - 2) + 1;
  return length;
})(content.images.map(({ name }) => name));
const VERDICTS = { true: "anomalous", false: "normal" };

/** The photograph or its heat: both halves of one small picture. */
function picture(image, half) {
  const [height, width] = image.size ?? [1, 1];
  const frame = element("div", { class: `picture ${half}`, style: `aspect-ratio: ${width} / ${height}` });
  if (image.picture === null) frame.append(element("span", {}, "no picture"));
  else frame.append(element("img", { src: `data:image/jpeg;base64,${pictures[image.picture]}`,
    alt: half === "heat" ? "anomaly map" : "photograph", decoding: "async" }));
  return frame;
}

function verdictOf(image) {
  return image.judged ? VERDICTS[image.score > thresholds.get(image.category)] : "not judged";
}

function badge(image) {
  const verdict = verdictOf(image);
  return element("span", { class: `badge ${verdict.replace(" ", "-")}` }, verdict);
}

function labelOf(image) {
  if (image.label === null) return null;
  return image.label ? `labelled ${image.kind ?? "defective"}` : "labelled good";
}

/** One image as a card; a click shows it large. */
function card(image) {
  const facts = [labelOf(image), image.count ? `${image.count} region${image.count > 1 ? "s" : ""}` : null];
  return element("button", { class: "card", type: "button", click: () => showLarge(image) },
    picture(image, "heat"), picture(image, "photograph"),
    element("span", { class: "line" }, badge(image), element("b", {}, digits(image.score))),
    element("span", { class: "facts" }, facts.filter(Boolean).join(" · ")),
    element("span", { class: "name", title: image.name }, image.name.slice(COMMON)));
}

/** A box of cards that grows while its end is in sight. */
function cards(images, page = PAGE) {
  const box = element("div", { class: "cards" });
  const end = element("p", { class: "more" });
  let shown = 0;
  const grow = () => {
    box.append(...images.slice(shown, shown + page).map(card));
    shown = Math.min(images.length, shown + page);
    end.textContent = shown < images.length ? `${shown} of ${images.length} shown` : "";
    if (shown === images.length) watch.disconnect();
  };
  const watch = new IntersectionObserver((seen) => { if (seen.some((s) => s.isIntersecting)) grow(); },
                                         { rootMargin: "400px" });
  grow();
  if (shown < images.length) watch.observe(end);
  return [box, end];
}

const large = element("dialog", { id: "large", click: (event) => { if (event.target === large) large.close(); } });

function showLarge(image) {
  const facts = [
    ["verdict", verdictOf(image)], ["label", labelOf(image) ?? "none"], ["score", digits(image.score, 6)],
    ["threshold", digits(thresholds.get(image.category), 6)], ["p-value", digits(image.p)],
    ["category", image.category], ["photograph", image.size ? `${image.size[1]} × ${image.size[0]} pixels` : "–"],
  ];
  const regions = image.regions.map(({ box, area, share, peak }, i) =>
    [i + 1, `${box[0]}, ${box[1]}`, `${box[2]} × ${box[3]}`, area, percent(share, 2), digits(peak.value)]);
  const more = image.count > regions.length ? ` (the ${regions.length} strongest of ${image.count})` : "";
  large.replaceChildren(...[
    element("form", { method: "dialog" }, element("h3", {}, image.name), element("button", { class: "close" }, "Close")),
    element("div", { class: "pair" }, picture(image, "photograph"), picture(image, "heat")),
    image.panel ? element("p", {}, element("a", { href: image.panel, target: "_blank" }, "Picture in full size"),
                                   " (a file beside this report)") : null,
    table(["", ""], facts, { class: "facts" }),
    regions.length ? element("h4", {}, `Regions${more}`) : element("p", {}, "No region is above the pixel threshold."),
    regions.length ? table(["", "x, y", "width × height", "pixels", "share", "peak"], regions) : null,
  ].filter(Boolean));
  large.showModal();
}

const ORDERS = {
  "highest score first": (a, b) => b.score - a.score,
  "lowest score first": (a, b) => a.score - b.score,
  "by name": (a, b) => (a.name < b.name ? -1 : 1),
  "most regions first": (a, b) => b.count - a.count || b.score - a.score,
};

const FILTERS = {
  "all images": () => true,
  "flagged": (image) => verdictOf(image) === "anomalous",
  "passed": (image) => verdictOf(image) === "normal",
  "not judged": (image) => !image.judged,
  "labelled good": (image) => image.label === 0,
  "labelled defective": (image) => image.label === 1,
};

/** The gallery with its controls; returns the section and what draws it again. */
function gallery(images) {
  const labelled = images.some((image) => image.label !== null);
  const names = Object.keys(FILTERS).filter((name) =>
    (labelled || !name.startsWith("labelled")) && (name !== "not judged" || images.some((i) => !i.judged)));
  const kinds = [...new Set(images.map((image) => image.kind).filter(Boolean))].sort();
  const list = (id, options) => element("select", { id, change: () => draw() },
    options.map((name) => element("option", {}, name)));
  const order = list("order", Object.keys(ORDERS)), filter = list("filter", names);
  const kind = list("kind", ["any kind", ...kinds]);
  const search = element("input", { id: "search", type: "search", placeholder: "name contains", "aria-label": "name contains", input: () => draw() });
  const count = element("p", { id: "gallery-count", class: "quiet" }), box = element("div", {});
  const draw = () => {
    const chosen = images.filter((image) => FILTERS[filter.value](image) && image.name.includes(search.value)
      && (kind.value === "any kind" || image.kind === kind.value)).sort(ORDERS[order.value]);
    count.textContent = `${chosen.length} of ${images.length} images`;
    box.replaceChildren(...cards(chosen));
  };
  draw();
  return [section("gallery", "All images", element("div", { class: "controls" }, order, filter,
    kinds.length > 1 ? kind : null, search), count, box), draw];
}
