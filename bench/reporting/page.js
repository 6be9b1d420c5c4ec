"use strict";
const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];

// Charts ----------------------------------------------------------------------------------------

// Rows of arms that are not asked for leave all data of a chart's description.
function leaveOut(node, arms) {
  for (const [key, value] of Object.entries(node)) {
    if (Array.isArray(value) && value.some((row) => row?.arm !== undefined)) {
      node[key] = value.filter((row) => !arms.has(row?.arm));
    } else if (value && typeof value === "object") leaveOut(value, arms);
  }
}

async function draw(figure, without = new Set()) {
  const place = figure.querySelector("div");
  try {
    const spec = JSON.parse(figure.querySelector("script").textContent);
    leaveOut(spec, without);
    await vegaEmbed(place, spec, {
      renderer: "svg",
      ast: true, // expressions are interpreted, so the policy needs no "unsafe-eval"
      actions: { export: true, source: false, compiled: false, editor: false },
      downloadFileName: figure.id,
    });
    // A layer without data is a symbol that has no text.
    for (const one of all('[role="graphics-symbol"]:not([aria-label])', place)) {
      one.setAttribute("aria-hidden", "true");
    }
    place.querySelector("summary")?.setAttribute("aria-label", `Save the chart ${figure.id}`);
  } catch (error) {
    place.textContent = "This chart cannot be drawn.";
    console.error(figure.id, error);
  }
}

// One after the other; between two the page answers.
async function drawAll() {
  for (const figure of all("figure.chart")) {
    await draw(figure);
    await new Promise((next) => setTimeout(next));
  }
  document.documentElement.dataset.charts = "drawn";
}

// One filter for the task and the optimizers of all charts of the loss.
function filter(form) {
  const task = form.querySelector("select");
  const boxes = all("input", form);
  const section = form.closest("section");
  const charts = all(".condition figure.chart", section);
  task.addEventListener("change", () => {
    for (const one of all("[data-task]", section)) {
      one.hidden = task.value !== "" && one.dataset.task !== task.value;
    }
    for (const one of all(".experiment", section)) {
      one.hidden = all("[data-task]", one).every((part) => part.hidden);
    }
    window.dispatchEvent(new Event("resize")); // charts that were hidden learn their width
  });
  let turn = Promise.resolve();
  form.addEventListener("change", (event) => {
    if (event.target === task) return;
    const without = new Set(boxes.filter((box) => !box.checked).map((box) => box.value));
    turn = turn.then(() => Promise.all(charts.map((figure) => draw(figure, without))));
  });
}

// Tables ----------------------------------------------------------------------------------------

const SIZES = { k: 1e3, M: 1e6, G: 1e9, T: 1e12 };

// The number a cell begins with: −1,024.5 or ~18.3k; null for text.
function number(text) {
  const found = text.replaceAll("−", "-").replaceAll(",", "").match(/^[~≤+ ]*(-?[\d.]+)([kMGT])?/);
  return found ? Number(found[1]) * (SIZES[found[2]] ?? 1) : null;
}

// A heading that is pressed sorts by its column: rising, then falling; what has no value stays last.
function sortable(table) {
  const body = table.tBodies[0];
  if (body.rows.length < 2) return;
  all("thead th", table).forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const falling = head.getAttribute("aria-sort") === "ascending";
      for (const other of all("th[aria-sort]", table)) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      const rows = [...body.rows].map((row) => {
        const cell = row.cells[column];
        return { row, text: (cell.firstChild?.textContent ?? "").trim() };
      });
      for (const one of rows) one.number = number(one.text);
      const numbers = rows.filter((one) => one.number !== null);
      const texts = rows.filter((one) => one.text && one.text !== "–");
      const numeric = 2 * numbers.length > texts.length; // beside words such as "reference"
      const filled = numeric ? numbers : texts;
      filled.sort((a, b) => (numeric ? a.number - b.number : a.text.localeCompare(b.text, "en")));
      if (falling) filled.reverse();
      const empty = rows.filter((one) => !filled.includes(one));
      body.append(...[...filled, ...empty].map((one) => one.row));
    });
  });
}

// Claims ----------------------------------------------------------------------------------------

// Rows with all words that are typed and the verdict that is chosen; their topics open.
function claims(form) {
  const typed = form.querySelector("input[type=search]");
  const said = form.querySelector("output");
  const topics = all("details.topic");
  const show = () => {
    const words = typed.value.toLowerCase().split(/\s+/).filter(Boolean);
    const verdict = form.querySelector("input[type=radio]:checked").value;
    const asked = words.length > 0 || verdict !== "all";
    let count = 0;
    for (const topic of topics) {
      let here = 0;
      for (const row of all("tbody tr[data-verdict]", topic)) {
        const text = row.textContent.toLowerCase();
        row.hidden =
          (verdict !== "all" && row.dataset.verdict !== verdict) ||
          !words.every((word) => text.includes(word));
        if (!row.hidden) here += 1;
      }
      topic.hidden = here === 0;
      topic.open = asked && here > 0;
      count += here;
    }
    said.value = asked ? `${count} claim${count === 1 ? "" : "s"} found` : "";
  };
  form.addEventListener("input", show);
}

// The batch -------------------------------------------------------------------------------------

// Overhead and interval at a batch: straight lines between the points, in logarithms where all
// are above zero, as overhead falls with 1 / batch.
function between(points, units) {
  let at = points.findIndex((point) => point[0] >= units);
  at = Math.min(Math.max(at < 0 ? points.length - 1 : at, 1), points.length - 1);
  if (points.length < 2) return points[0].slice(1);
  const [left, right] = [points[at - 1], points[at]];
  const part = Math.log(units / left[0]) / Math.log(right[0] / left[0]);
  return [1, 2, 3].map((k) => {
    const logs = left[k] > 0 && right[k] > 0;
    const [a, b] = logs ? [Math.log(left[k]), Math.log(right[k])] : [left[k], right[k]];
    const value = a + part * (b - a);
    return logs ? Math.exp(value) : value;
  });
}

function percent(share) {
  const places = Math.abs(share) < 0.0995 ? 2 : 1;
  const text = (100 * Math.abs(share)).toLocaleString("en", {
    minimumFractionDigits: places,
    maximumFractionDigits: places,
  });
  return `${share < 0 ? "−" : "+"}${text} %`;
}

function batch(form) {
  const { least, most, points } = JSON.parse(form.querySelector("script").textContent);
  const typed = form.querySelector("input");
  const said = form.querySelector("output");
  const rows = [...form.querySelector("tbody").rows];
  const say = () => {
    const units = Number(typed.value);
    if (!(units >= 1)) {
      said.value = "a whole number from 1 up";
      return;
    }
    const far = units > 10 * most || units < least / 10;
    const inside = least <= units && units <= most;
    said.value = inside
      ? "within what was measured"
      : `extrapolated${far ? ", more than ten times as far as measured" : ""}: measured from ` +
        `${least.toLocaleString("en")} to ${most.toLocaleString("en")}`;
    rows.forEach((row, index) => {
      if (!points[index]) return;
      const [value, low, high] = between(points[index], units);
      row.cells[1].textContent = (inside ? "" : "~") + percent(value);
      row.cells[2].textContent = `${percent(low)} to ${percent(high)}`;
    });
  };
  form.addEventListener("input", say);
  say();
}

// A link to something that is folded away unfolds it.
function unfold() {
  const there = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!there) return;
  for (let one = there; one; one = one.parentElement) if (one.tagName === "DETAILS") one.open = true;
  there.scrollIntoView();
}

for (const form of all("form")) form.addEventListener("submit", (event) => event.preventDefault());
all("table.sortable").forEach(sortable);
all("form.filter").forEach(filter);
all("form.find").forEach(claims);
all("form.batch").forEach(batch);
addEventListener("hashchange", unfold);
document.documentElement.dataset.ready = "";
unfold();
drawAll();
