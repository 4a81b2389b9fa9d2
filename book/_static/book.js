// What moves in the book: explorers, whose pictures were drawn beforehand, the search, what scrolls, and
// the page on its way to a printer.

function follow(explorer) {
  const inputs = [...explorer.querySelectorAll("input")];
  const picture = explorer.querySelector("img");
  const alts = JSON.parse(explorer.dataset.alts);
  for (const input of inputs) {
    const values = JSON.parse(input.dataset.values);
    input.addEventListener("input", () => {
      input.setAttribute("aria-valuetext", values[input.value]);
      input.nextElementSibling.textContent = values[input.value];
      const frame = inputs.reduce((at, it) => at * (Number(it.max) + 1) + Number(it.value), 0);
      picture.src = `${explorer.dataset.frames}${frame}.png`;
      picture.alt = alts[frame];
    });
  }
}

function marked(text, words) {
  const parts = document.createDocumentFragment();
  const pattern = new RegExp(`(${words.map(it => it.replace(/\W/g, "\\$&")).join("|")})`, "gi");
  text.split(pattern).forEach((part, index) => {
    const node = index % 2 ? document.createElement("mark") : document.createTextNode(part);
    if (index % 2) node.textContent = part;
    parts.append(node);
  });
  return parts;
}

// About 240 characters of a text, from a place on.
function wholeWords(text, place) {
  const start = place ? text.indexOf(" ", place) + 1 : 0;
  const end = start + 240 < text.length ? text.lastIndexOf(" ", start + 240) : text.length;
  return `${start ? "… " : ""}${text.slice(start, end)}${end < text.length ? " …" : ""}`;
}

function search() {
  const results = document.getElementById("search-results");
  const asked = new URLSearchParams(location.search).get("q")?.trim();
  if (!results || !window.SECTIONS || !asked) return;
  const words = asked.toLowerCase().split(/\s+/);
  const count = (text, word) => text.toLowerCase().split(word).length - 1;
  const found = window.SECTIONS
    .map(section => ({
      section,
      score: words.every(word => count(section.title + " " + section.text, word))
        ? words.reduce((sum, word) => sum + 20 * count(section.title, word) + count(section.text, word), 0)
        : 0,
    }))
    .filter(it => it.score)
    .sort((a, b) => b.score - a.score);
  const list = document.createElement("ol");
  list.id = "sections-found";
  for (const {section} of found) {
    const item = document.createElement("li");
    const link = document.createElement("a");
    link.href = `${section.page}#${section.id}`;
    link.append(marked(section.title, words));
    const first = Math.max(0, Math.min(...words.map(word => {
      const at = section.text.toLowerCase().indexOf(word);
      return at < 0 ? Infinity : at;
    })) - 80);
    const excerpt = document.createElement("p");
    excerpt.append(marked(wholeWords(section.text, Number.isFinite(first) ? first : 0), words));
    const page = document.createElement("small");
    page.textContent = section.page.replace(".html", "");
    item.append(link, " ", page, excerpt);
    list.append(item);
  }
  const said = document.createElement("p");
  const sections = found.length === 1 ? "1 section contains" : `${found.length} sections contain`;
  said.textContent = `${sections} “${asked}”.`;
  results.before(said, list);
  results.hidden = true; // Sphinx goes on to fill it
}

// What scrolls can be reached without a mouse.
function letKeysScroll() {
  const wide = ":is(p:has(> img), .cell_output, .explorer, .formula.alone)";
  for (const it of document.querySelectorAll(`.bd-article ${wide}`)) {
    if (it.scrollWidth > it.clientWidth) it.tabIndex = 0;
    else it.removeAttribute("tabindex");
  }
}

// Paper is white: what is light on a dark page would not be seen on it.
function printOnWhite() {
  const page = document.documentElement.dataset;
  let theme;
  window.addEventListener("beforeprint", () => {
    theme = page.theme;
    page.theme = "light";
  });
  window.addEventListener("afterprint", () => {
    page.theme = theme;
  });
}

// Where a phone scrolls a figure, it scrolls no further than its numbers need to have 10 pixels.
function keepReadable() {
  for (const picture of document.querySelectorAll(".bd-article img")) {
    picture.style.setProperty("--least", `${0.6 * picture.naturalWidth}px`);
  }
}

printOnWhite();
window.addEventListener("load", keepReadable);
document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll(".explorer").forEach(follow);
  search();
});
window.addEventListener("load", letKeysScroll);
window.addEventListener("resize", letKeysScroll);
