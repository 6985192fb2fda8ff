// Counting at a threshold: an image is flagged if its score is above it.

/** What happens to images at a threshold; who was not judged counts nowhere else. */
function countsAt(images, threshold) {
  const counts = { good: 0, passed: 0, defective: 0, found: 0, judged: 0, flagged: 0, unjudged: 0 };
  for (const image of images) {
    if (!image.judged) { counts.unjudged += 1; continue; }
    const flagged = image.score > threshold;
    counts.judged += 1;
    counts.flagged += flagged;
    if (image.label === 0) { counts.good += 1; counts.passed += !flagged; }
    if (image.label === 1) { counts.defective += 1; counts.found += flagged; }
  }
  return counts;
}

/** The sum of several counts. */
function added(many) {
  const total = countsAt([], 0);
  for (const counts of many) for (const name of Object.keys(total)) total[name] += counts[name];
  return total;
}

/** The conformal threshold of a false-alarm rate: of n sorted normal scores, number
 *  ceil((n + 1)(1 - rate)), or the largest if they are too few. */
function thresholdOf(rate, normal) {
  return normal[Math.min(Math.ceil(Number(((normal.length + 1) * (1 - rate)).toFixed(9))), normal.length) - 1];
}

/** The smallest false-alarm rate that a threshold keeps, going by sorted normal scores. */
function rateOf(threshold, normal) {
  const above = normal.filter((score) => score > threshold).length;
  return (above + 1) / (normal.length + 1);
}

/** The 95 % interval of a share, k of n (Clopper, Pearson, Biometrika 1934). */
function interval(k, n) {
  if (!n) return [0, 1];
  const solve = (count, wanted) => {
    let [low, high] = [0, 1];
    for (let step = 0; step < 60; step += 1) {
      const middle = (low + high) / 2;
      if (atMost(count, n, middle) > wanted) low = middle; else high = middle;
    }
    return (low + high) / 2;
  };
  return [k === 0 ? 0 : solve(k - 1, 0.975), k === n ? 1 : solve(k, 0.025)];
}

/** The chance of at most k of n where each has the chance p. */
function atMost(k, n, p) {
  let [sum, logChoose] = [0, 0];
  for (let i = 0; i <= k; i += 1) {
    if (i) logChoose += Math.log(n - i + 1) - Math.log(i);
    sum += Math.exp(logChoose + i * Math.log(p) + (n - i) * Math.log1p(-p));
  }
  return sum;
}
