// Several runs on the same images, each at its own calibrated threshold.

const { runs } = content;
const names = [...new Set(runs[0].images.map((image) => image.category))];
const STYLES = 6;

function thresholdIn(run, category) {
  return run.categories.find(({ name }) => name === category)?.threshold ?? Infinity;
}

function verdicts() {
  const rows = runs.map((run) => {
    const c = added(names.map((name) => countsAt(run.images.filter((i) => i.category === name), thresholdIn(run, name))));
    return [run.name, c.good ? `${c.passed} of ${c.good}` : "–", c.defective ? `${c.found} of ${c.defective}` : "–", `${c.flagged} of ${c.judged}`];
  });
  return section("verdicts", "Verdicts at each run's own threshold", table(["run", "good passed", "defects found", "flagged"], rows));
}

function metrics() {
  const found = runs.find((run) => run.metrics.names.length)?.metrics;
  if (!found) return null;
  const heading = (name) => name.replace("_", " ").replace("f1max", "F1max").replace(/au\w+/, (m) => m.toUpperCase());
  const rows = found.rows.flatMap(([title]) => runs.map((run) => {
    const row = run.metrics.rows.find(([own]) => own === title);
    return [title, run.name, ...found.names.map((name) => {
      const value = row?.[1 + run.metrics.names.indexOf(name)];
      return run.metrics.names.includes(name) && typeof value === "number" ? Number((100 * value).toFixed(2)) : "–";
    })];
  }));
  return section("metrics", "Metrics in percent", table(["category", "run", ...found.names.map(heading)], rows));
}

function curves() {
  const chart = (category, key, title, xTitle, yTitle, xEnd = 1) => {
    const lines = runs.map((run, i) => ({ name: run.name, className: `run${i % STYLES}`,
      points: run.categories.find(({ name }) => name === category)?.curves[key] ?? [] })).filter(({ points }) => points.length);
    return lines.length ? fitted((width) => lineChart({ title, xTitle, yTitle, lines, xEnd }, width))[0] : null;
  };
  const rows = names.map((name) => [element("h3", {}, name), element("div", { class: "charts" }, [
    chart(name, "image_roc", "image ROC", "false alarms, share of good", "found, share of defective"),
    chart(name, "pixel_pr", "pixel precision and recall", "recall", "precision"),
    chart(name, "pro", "PRO", "false positives, share of normal pixels", "overlap with regions", 0.3),
  ].filter(Boolean))]);
  return section("curves", "Curves", rows.flat());
}

/** Each run's heat of one image, side by side. */
function disputed() {
  const rows = content.disputed.map((name, number) => element("div", { class: "compared" },
    element("p", { class: "facts" }, name),
    element("div", { class: "pair" }, runs.map((run, i) => {
      const image = run.images.find((each) => each.name === name);
      const flagged = image.judged ? (image.score > thresholdIn(run, image.category) ? "anomalous" : "normal") : "not judged";
      const data = pictures[number * runs.length + i];
      return element("figure", {}, data ? element("img", { class: "both", loading: "lazy", alt: "photograph and anomaly map", src: `data:image/jpeg;base64,${data}` }) : element("p", { class: "quiet" }, "no picture"),
        element("figcaption", {}, element("span", { class: `badge ${flagged.replace(" ", "-")}` }, flagged),
          ` ${run.name}: ${digits(image.score)}`, image.label === null ? "" : `, labelled ${image.label ? "defective" : "good"}`));
    }))));
  return section("disputed", "Images that the runs rank most differently", rows);
}

const page = document.getElementById("page");
page.append(element("header", {}, element("h1", {}, content.title),
  element("p", { class: "quiet" }, `${runs[0].images.length} images, the same in each run`)));
if (content.notes.length) page.append(element("ul", { id: "notes" }, content.notes.map((note) => element("li", {}, note))));
page.append(...[verdicts(), metrics(), curves(), disputed(),
  section("origin", "What was trained on what", runs.map((run) => [element("h3", {}, run.name), table(["", ""], run.about, { class: "facts" })]).flat())].filter(Boolean));
