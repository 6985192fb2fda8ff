// A page to drop photographs on: the server scores them, a slider moves the threshold.

const cards = element("div", { class: "drops" });
const files = element("input", { type: "file", id: "files", accept: "image/*", multiple: true,
                                 change: () => take(files.files) });
const token = element("input", { type: "password", id: "token", autocomplete: "off" });
const category = element("select", { id: "category" },
  element("option", { value: "" }, "found out"),
  content.categories.map((name) => element("option", { value: name }, name)));
const slider = element("input", { type: "range", id: "slider", step: "any", min: "0", max: "1",
                                  disabled: true, "aria-label": "threshold",
                                  input: () => judge(Number(slider.value)) });
const typed = element("input", { type: "number", id: "threshold", step: "any", disabled: true,
                                 change: () => judge(Number(typed.value)) });
const back = element("button", { type: "button", id: "calibrated", disabled: true,
                                 click: () => judge(calibrated) }, "calibrated");
const flagged = element("p", { id: "flagged", role: "status" }, "No photograph yet.");
const zone = element("label", { id: "zone", for: "files" },
  element("b", {}, "Drop photographs here"), " or choose them: ", files);

const found = [];
let calibrated = null;
let threshold = null;
let running = 0;
const queue = [];

/** Score files, four at a time; each becomes a card at once. */
function take(chosen) {
  for (const file of chosen) {
    const card = element("article", { class: "drop" }, element("h3", {}, file.name),
      element("p", { class: "quiet" }, "scoring …"));
    cards.prepend(card);
    queue.push({ file, card });
  }
  files.value = "";
  work();
}

function work() {
  while (running < 4 && queue.length) {
    running += 1;
    const { file, card } = queue.shift();
    score(file, card).catch((error) => refuse(card, file.name, error.message))
      .finally(() => { running -= 1; work(); });
  }
}

async function score(file, card) {
  const body = new FormData();
  body.append("files", file, file.name);
  const query = new URLSearchParams({ picture: "true" });
  if (category.value) query.set("category", category.value);
  const headers = token.value ? { authorization: `Bearer ${token.value}` } : {};
  const response = await fetch(`predict?${query}`, { method: "POST", body, headers });
  const said = await response.json().catch(() => ({ detail: response.statusText }));
  if (!response.ok) {
    const reason = typeof said.detail === "string" ? said.detail : JSON.stringify(said.detail);
    return refuse(card, file.name, reason);
  }
  const image = said.images[0];
  found.push({ image, card });
  if (calibrated === null && image.threshold !== null) calibrated = image.threshold;
  show(card, image);
  judge(threshold ?? calibrated);
}

function refuse(card, name, reason) {
  card.replaceChildren(element("h3", {}, name), element("p", { class: "refused" }, reason));
}

function show(card, image) {
  const regions = image.regions.map((region) => [
    region.box.join(", "), region.area, percent(region.share), digits(region.peak.value)]);
  card.replaceChildren(
    element("h3", {}, image.path),
    element("div", { class: "line" }, element("span", { class: "badge" }),
      element("span", { class: "quiet" }, `score ${digits(image.score)}`)),
    element("img", { src: `data:image/png;base64,${image.picture}`,
                     alt: `heat and regions on ${image.path}` }),
    element("p", { class: "quiet" },
      `${image.size[1]} × ${image.size[0]} pixels` +
      (image.p_value === null ? "" : `, p-value ${digits(image.p_value, 2)}`)),
    ...(regions.length ? [table(["x, y, width, height", "area", "share", "peak"], regions)] : []));
}

/** Give every card the verdict at a threshold. */
function judge(value) {
  const scores = found.map(({ image }) => image.score);
  if (value === null || !scores.length) {
    flagged.textContent = `${found.length} scored, no threshold calibrated.`;
    return;
  }
  threshold = value;
  const low = Math.min(...scores, calibrated ?? value, value);
  const high = Math.max(...scores, calibrated ?? value, value);
  const room = 0.05 * (high - low || 1);
  slider.min = low - room;
  slider.max = high + room;
  slider.value = value;
  typed.value = Number(value.toPrecision(6));
  for (const control of [slider, typed]) control.disabled = false;
  back.disabled = calibrated === null;
  let count = 0;
  for (const { image, card } of found) {
    const anomalous = image.score > value;
    count += anomalous;
    const badge = card.querySelector(".badge");
    badge.className = `badge ${anomalous ? "anomalous" : "normal"}`;
    badge.textContent = anomalous ? "anomalous" : "normal";
  }
  const which = value === calibrated ? "the calibrated threshold" : "this threshold";
  flagged.textContent = `${count} of ${found.length} flagged at ${which}.`;
}

for (const kind of ["dragenter", "dragover"]) {
  addEventListener(kind, (event) => { event.preventDefault(); zone.classList.add("over"); });
}
addEventListener("dragleave", () => zone.classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  zone.classList.remove("over");
  take(event.dataTransfer.files);
});

document.getElementById("page").replaceChildren(
  element("h1", {}, `${content.method}: ${content.categories.join(", ")}`),
  zone,
  element("div", { class: "controls" },
    content.categories.length > 1 ? element("label", {}, "category ", category) : null,
    content.needsToken ? element("label", {}, "token ", token) : null),
  section("decision", "Threshold", flagged,
    element("div", { class: "controls" }, element("label", {}, "scores above ", typed), back),
    slider),
  section("photographs", "Photographs",
    element("p", { class: "quiet" },
      "Heat begins at the calibrated pixel threshold; regions of what it flagged have a white outline."),
    cards));
