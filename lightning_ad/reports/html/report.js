// The report of one test or prediction: everything that follows the threshold is drawn here.

const { images, categories } = content;
const labelled = images.some((image) => image.label !== null);
const scoresOf = (name) => images.filter((image) => image.category === name).map((image) => image.score);

/** The threshold of each category; above every score where none was calibrated. */
const thresholds = new Map(categories.map(({ name, threshold }) =>
  [name, threshold ?? scoresOf(name).reduce((a, b) => Math.max(a, b), -Infinity)]));
let current = categories[0];
const followers = [];

function moveTo(threshold) {
  if (!Number.isFinite(threshold)) return;
  thresholds.set(current.name, threshold);
  for (const follow of followers) follow();
}

function at(name) {
  return countsAt(images.filter((image) => image.category === name), thresholds.get(name));
}

function fact(id, value, title, note) {
  return element("div", { class: "fact" }, element("b", { id }, value), element("span", {}, title),
    element("small", {}, note));
}

/** What became of the images, in large figures. */
function summary() {
  const box = element("div", { class: "facts-row", id: "summary" });
  const draw = () => {
    const all = added(categories.map(({ name }) => at(name)));
    const alarms = all.good - all.passed, [low, high] = interval(alarms, all.good);
    box.replaceChildren(...[
      labelled && all.good ? fact("good-passed", `${all.passed} of ${all.good}`, "good passed",
        `false alarms ${percent(alarms / all.good)} (95 % interval ${percent(low)} to ${percent(high)})`) : null,
      labelled && all.defective ? fact("defects-found", `${all.found} of ${all.defective}`, "defects found",
        `${all.defective - all.found} missed`) : null,
      fact("flagged", `${all.flagged} of ${all.judged}`, "flagged",
        all.unjudged ? `${all.unjudged} more not judged` : "all images were judged"),
    ].filter(Boolean));
  };
  followers.push(draw);
  draw();
  return box;
}

/** Histogram, slider and rate of one category. */
function thresholdSection() {
  const axis = () => scoreAxis([...scoresOf(current.name), current.threshold ?? scoresOf(current.name)[0]]);
  let scale = axis();
  const groupsOf = () => {
    const own = images.filter((image) => image.category === current.name && image.judged);
    const of = (label, name, className) => ({ name, className, scores: own.filter((i) => i.label === label).map((i) => i.score) });
    return labelled ? [of(0, "good", "good"), of(1, "defective", "defective")] : [of(null, "images", "good")];
  };
  const rule = element("div", { class: "rule" });
  const [chart, redraw] = fitted((width) => histogram(groupsOf(), scale, width));
  const slider = element("input", { id: "slider", type: "range", min: 0, max: 1000, step: "any", "aria-label": "threshold",
    input: () => moveTo(scale.from(slider.value / 1000)) });
  const number = element("input", { id: "threshold", type: "number", step: "any", "aria-label": "threshold as a number",
    change: () => moveTo(Number(number.value)) });
  const rate = element("input", { id: "rate", type: "number", min: 0.1, max: 99, step: "any", "aria-label": "false-alarm rate in percent",
    change: () => moveTo(thresholdOf(Number(rate.value) / 100, current.normal)) });
  const said = element("p", { id: "said", class: "quiet" });
  const reset = element("button", { id: "calibrated", type: "button", click: () => moveTo(current.threshold) }, "as calibrated");
  const rateLabel = element("label", {}, "false-alarm rate, % ", rate);
  const draw = () => {
    const threshold = thresholds.get(current.name);
    const share = Math.min(1, Math.max(0, scale.to(threshold)));
    slider.value = 1000 * share;
    number.value = threshold;
    rule.style.setProperty("--at", share);
    reset.disabled = current.threshold === null || threshold === current.threshold;
    const n = current.normal.length;
    rateLabel.hidden = !n;
    if (n) rate.value = Number((100 * rateOf(threshold, current.normal)).toPrecision(3));
    said.textContent = saidOf(threshold, n);
  };
  const anew = () => { scale = axis(); redraw(); draw(); };
  followers.push(draw);
  draw();
  const tabs = categories.length > 1 ? element("label", {}, "category ", element("select", { id: "category",
    change: (event) => { current = categories[event.target.selectedIndex]; anew(); for (const f of followers) f(); } },
    categories.map(({ name }) => element("option", {}, name)))) : null;
  return section("threshold-section", "Move the threshold", tabs,
    element("div", { class: "plot" }, chart, rule), slider,
    element("div", { class: "controls" }, element("label", {}, "threshold ", number), rateLabel, reset), said);
}

function saidOf(threshold, n) {
  const { normal, name } = current, counts = at(name);
  const above = normal.filter((score) => score > threshold).length;
  const here = `${categories.length > 1 ? `${name}: ` : ""}${counts.flagged} of ${counts.judged} flagged. `;
  if (!n) return `${here}Without the scores of held-out good images no rate goes with a threshold.`;
  return `${here}${above} of ${n} held-out good images score above: at most ${percent(rateOf(threshold, normal))} `
    + `of good parts are expected to. They vouch for no rate below ${percent(1 / (n + 1))}.`;
}

/** Verdicts by category and kind of defect. */
function verdictTable() {
  const box = element("div", { id: "verdicts" });
  const draw = () => {
    const rows = [];
    for (const { name } of categories) {
      const own = images.filter((image) => image.category === name);
      const kinds = labelled ? [...new Set(own.map((image) => image.label === 0 ? "good" : image.kind ?? "defective"))].sort() : ["all"];
      for (const kind of kinds) {
        const members = labelled ? own.filter((i) => (i.label === 0 ? "good" : i.kind ?? "defective") === kind) : own;
        const c = countsAt(members, thresholds.get(name));
        rows.push([...(several ? [name] : []), kind, members.length, c.judged - c.flagged, c.flagged, ...(c.unjudged ? [c.unjudged] : hasUnjudged ? [0] : [])]);
      }
    }
    box.replaceChildren(table([...(several ? ["category"] : []), labelled ? "label" : "", "images", "passed", "flagged",
      ...(hasUnjudged ? ["not judged"] : [])], rows));
  };
  const several = categories.length > 1;
  const hasUnjudged = images.some((image) => !image.judged);
  followers.push(draw);
  draw();
  return section("verdict-section", "Verdicts", box);
}

/** ROC, precision-recall and PRO curves of the current category, with the threshold's point. */
function curves() {
  if (!labelled || !categories.some((category) => Object.keys(category.curves).length)) return null;
  const box = element("div", { class: "charts" });
  const metric = (name) => {
    const row = content.metrics.rows.find(([title]) => title === current.name);
    const value = row?.[1 + content.metrics.names.indexOf(name)];
    return content.metrics.names.includes(name) && value !== null && value !== undefined ? ` ${percent(value)}` : "";
  };
  const line = (key, name, className) => ({ points: current.curves[key] ?? [], name, className });
  const drawn = (options) => { const [fit, redraw] = fitted((width) => lineChart(options(), width)); return [fit, redraw]; };
  const mark = (x, y) => (Number.isFinite(x) && Number.isFinite(y) ? [{ at: [x, y], className: "image" }] : []);
  const charts = [
    drawn(() => { const c = at(current.name);
      return { title: "ROC", xTitle: "false alarms, share of good", yTitle: "found, share of defective",
        lines: [line("image_roc", `images, AUROC${metric("image_auroc")}`, "image"), line("pixel_roc", `pixels, AUROC${metric("pixel_auroc")}`, "pixel")].filter((l) => l.points.length),
        marks: mark((c.good - c.passed) / c.good, c.found / c.defective) }; }),
    drawn(() => { const c = at(current.name);
      return { title: "Precision and recall", xTitle: "recall", yTitle: "precision",
        lines: [line("image_pr", `images, AP${metric("image_auprc")}`, "image"), line("pixel_pr", `pixels, AP${metric("pixel_auprc")}`, "pixel")].filter((l) => l.points.length),
        marks: mark(c.found / c.defective, c.found / c.flagged) }; }),
  ];
  if (categories.some(({ curves: c }) => c.pro?.length)) charts.push(drawn(() => ({
    title: "PRO", xTitle: "false positives, share of normal pixels", yTitle: "overlap with regions",
    xEnd: current.curves.pro?.at(-1)?.[0] ?? 0.3, lines: [line("pro", `AUPRO${metric("pixel_aupro")}`, "pixel")] })));
  box.append(...charts.map(([fit]) => fit));
  followers.push(() => charts.forEach(([, redraw]) => redraw()));
  return section("curves", "Curves", element("p", { class: "quiet" }, "The circle is the threshold above."), box);
}

/** The images of a kind of mistake, worst first. */
function mistakes(id, title, none, choose, order) {
  const count = element("p", { class: "quiet", id: `${id}-count` }), box = element("div", {});
  const draw = () => {
    const found = images.filter((image) => image.judged && choose(image, image.score > thresholds.get(image.category)))
      .sort((a, b) => order * (b.score - a.score));
    count.textContent = found.length ? `${found.length} in all${found.length > 12 ? ", the worst 12" : ""}` : none;
    box.replaceChildren(...cards(found.slice(0, 12)));
  };
  followers.push(draw);
  draw();
  return section(id, title, count, box);
}

function metricsSection() {
  const { names, rows } = content.metrics;
  if (!names.length) return null;
  const heading = (name) => name.replace("_", " ").replace("f1max", "F1max").replace(/au\w+/, (m) => m.toUpperCase());
  return section("metrics", "Metrics in percent", table(["", ...names.map(heading)],
    rows.map(([title, ...values]) => [title, ...values.map((v) => (v === null || v === undefined ? "–" : Number((100 * v).toFixed(2))))])));
}

function origin() {
  return section("origin", "What was trained on what", table(["", ""], content.about, { class: "facts" }),
    content.settings ? element("details", {}, element("summary", {}, "all settings of the training"), element("pre", {}, content.settings)) : null);
}

function show() {
  const page = document.getElementById("page");
  const kind = labelled ? "Test of" : "Prediction for", rate = content.rate;
  const by = { calibration: rate ? `calibrated for a false-alarm rate of ${percent(rate)}` : "calibrated", hand: "given by hand" }[content.thresholdFrom] ?? "no threshold was calibrated";
  page.append(element("header", {}, element("h1", {}, content.title),
    element("p", { class: "quiet" }, `${kind} ${images.length} images; threshold: ${by}`)));
  if (content.notes.length) page.append(element("ul", { id: "notes" }, content.notes.map((note) => element("li", {}, note))));
  if (images.length) {
    const late = [];
    followers.push(() => { clearTimeout(late[0]); late[0] = setTimeout(drawGallery, 150); });
    const [all, drawGallery] = gallery(images);
    page.append(...[summary(), thresholdSection(), verdictTable(), curves(),
      labelled ? mistakes("false-alarms", "Worst false alarms", "No good image is flagged.", (i, flagged) => i.label === 0 && flagged, 1)
               : mistakes("flagged-images", "Flagged images", "No image is flagged.", (i, flagged) => flagged, 1),
      labelled ? mistakes("missed", "Missed defects", "No defective image passes.", (i, flagged) => i.label === 1 && !flagged, -1) : null,
      metricsSection(), all].filter(Boolean));
  }
  page.append(...[origin(), large].filter(Boolean));
}

show();
