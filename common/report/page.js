// ---- figures: the groups and figures that fit the choice, and one of them large
const groups = document.getElementById("groups"), figureForm = document.getElementById("figure-filters");
const all = [...document.querySelectorAll("figure[data-kind]")];

function fits(group) {
  return ["learner", "pruning", "sparsity"].every(name => {
    const wanted = figureForm.elements[name].value, own = group.dataset[name];
    return !wanted || own === wanted || (name === "learner" && !own && group.dataset.pruning);
  });
}

function chooseFigures(event) {
  const kind = figureForm.elements.kind.value;
  let n = 0, open = 0;
  for (const group of groups.children) {
    const figures = [...group.querySelectorAll("figure")];
    for (const figure of figures) figure.hidden = Boolean(kind) && figure.dataset.kind !== kind;
    const shown = figures.filter(figure => !figure.hidden).length;
    group.hidden = !shown || !fits(group);
    n += group.hidden ? 0 : shown;
    if (event && !group.hidden) group.open = Boolean(kind) || open++ < 2;
  }
  groups.classList.toggle("one-kind", Boolean(kind));
  figureForm.querySelector("output").textContent = n + (n === 1 ? " figure" : " figures");
}

const large = document.getElementById("large");
let current = null;

function enlarge(figure) {
  current = figure;
  const cell = figure.closest(".cell"), image = figure.querySelector("img");
  large.querySelector("strong").textContent =
    cell ? cell.querySelector("summary").firstChild.textContent : image.alt;
  large.querySelector("img").src = image.src;
  large.querySelector("img").alt = image.alt;
  large.querySelector("figcaption").replaceChildren(
    ...figure.querySelector("figcaption").cloneNode(true).childNodes);
  large.querySelector("a").href = figure.querySelector("a").getAttribute("href");
  if (!large.open) large.showModal();
}

function step(by) {
  const shown = all.filter(figure => !figure.hidden && !(figure.closest(".cell") || figure).hidden);
  enlarge(shown[(shown.indexOf(current) + by + shown.length) % shown.length]);
}

document.addEventListener("click", event => {
  const link = event.target.closest("a.large");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  enlarge(link.closest("figure"));
});
large.addEventListener("click", event => {
  if (event.target === large || event.target.name === "close") large.close();
  if (event.target.name === "previous") step(-1);
  if (event.target.name === "next") step(1);
});
large.addEventListener("keydown", event => {
  if (event.key === "ArrowLeft") step(-1);
  if (event.key === "ArrowRight") step(1);
});
figureForm.addEventListener("change", chooseFigures);
chooseFigures();

// ---- gallery: a card for each PIE that fits the choice
const form = document.getElementById("filters"), gallery = document.getElementById("gallery");
const more = document.getElementById("more"), at_once = 60;
const pies = data.pies.map(row => Object.fromEntries(data.fields.map((name, i) => [name, row[i]])));
let shown = at_once;

function isChosen(pie) {
  const [learner, pruning, sparsity] = data.cells[pie.cell];
  const own = {learner, pruning, sparsity, "true class": data.classes[data.images[pie.tile][1]]};
  const threshold = form.elements.threshold ? Number(form.elements.threshold.value) : 0;
  return Object.keys(own).every(name => ["", own[name]].includes(form.elements[name].value))
    && (threshold === 0 || (pie.pie_probability ?? -1) >= threshold);
}

function line(parent, name, text) {
  const part = document.createElement("div");
  part.textContent = text;
  part.className = name;
  parent.append(part);
  return part;
}

function card(pie) {
  const [learner, pruning, sparsity, k] = data.cells[pie.cell], [index, label] = data.images[pie.tile];
  const item = document.createElement("li"), picture = line(item, "tile", "");
  picture.setAttribute("role", "img");
  picture.setAttribute("aria-label", "test image " + index + ", " + data.classes[label]);
  picture.style.backgroundSize = 72 * data.columns + "px";
  picture.style.backgroundPosition =
    -72 * (pie.tile % data.columns) + "px " + -72 * Math.floor(pie.tile / data.columns) + "px";
  line(item, "", "true: " + data.classes[label] + " (image " + index + ")");
  line(item, "", "dense: " + data.classes[pie.dense] + ", " + pie.dense_votes + " of " + k);
  line(item, "is", "pruned: " + data.classes[pie.pruned] + ", " + pie.pruned_votes + " of " + k);
  line(item, "cell-name", learner + ", " + pruning.replaceAll("_", " ") + ", " + sparsity);
  for (const name in titles) if (pie[name] !== null) {
    line(line(item, "score", titles[name]), "", pie[name].toFixed(2));
    item.dataset[name] = pie[name];
  }
  Object.assign(item.dataset, {index, cell: [learner, pruning, sparsity].join(" "), label: data.classes[label]});
  return item;
}

function draw() {
  const by = form.elements.sort.value, index = pie => data.images[pie.tile][0];
  const value = pie => pie[by] ?? -Infinity;
  const order = by === "index" ? (a, b) => index(a) - index(b) : (a, b) => value(b) - value(a);
  const chosen = pies.filter(isChosen).sort(order);
  gallery.replaceChildren(...chosen.slice(0, shown).map(card));
  form.elements.count.textContent = Math.min(shown, chosen.length) + " of " + chosen.length + " PIEs";
  if (form.elements.at_least) form.elements.at_least.textContent = Number(form.elements.threshold.value).toFixed(2);
  more.hidden = shown >= chosen.length;
}

for (const change of ["input", "change"]) form.addEventListener(change, () => { shown = at_once; draw(); });
for (const each of [form, figureForm]) each.addEventListener("submit", event => event.preventDefault());
more.addEventListener("click", () => { shown += at_once; draw(); });
draw();

// ---- print: everything open
const closed = [];
addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("details:not([open])")) { part.open = true; closed.push(part); }
});
addEventListener("afterprint", () => { for (const part of closed.splice(0)) part.open = false; });
