/* The search page. book/_ext/site_search.py makes the index: small scripts that hand over their data,
   since a page opened from disk may load scripts and nothing else. */
(() => {
  "use strict";
  const folder = `${document.documentElement.dataset.content_root || "./"}search/`;
  const parts = {};
  const waiting = {};
  window.siteSearch = (name, data) => {
    parts[name] = data;
  };
  const load = (name) =>
    (waiting[name] ??= new Promise((done, fail) => {
      const script = document.createElement("script");
      script.src = `${folder}${name}.js`;
      script.onload = () => done(parts[name]);
      script.onerror = () => {
        delete waiting[name]; // the next query tries again
        fail(new Error(`${script.src} could not be loaded`));
      };
      document.head.append(script);
    }));

  const SHOWN = 10;
  const field = document.getElementById("site-search-field");
  const status = document.getElementById("site-search-status");
  const list = document.getElementById("site-search-results");

  const plain = (word) => word.replace(/'s$/, "").replaceAll("'", "");
  const wordsOf = (text) =>
    (text.toLowerCase().replaceAll("’", "'").match(/[a-z0-9]+(?:[_'][a-z0-9]+)*/g) ?? []).map(plain);

  // Letters to change, add, drop or swap with the next until one word is the other; at most `most`.
  const distance = (a, b, most) => {
    if (Math.abs(a.length - b.length) > most) return most + 1;
    let before = [];
    let last = Array.from({ length: b.length + 1 }, (_, j) => j);
    for (let i = 1; i <= a.length; i++) {
      const row = [i];
      for (let j = 1; j <= b.length; j++) {
        row[j] = Math.min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] !== b[j - 1]));
        if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
          row[j] = Math.min(row[j], before[j - 2] + 1);
        }
      }
      [before, last] = [last, row];
      if (Math.min(...row) > most) return most + 1;
    }
    return last[b.length];
  };

  // The word of the book that a mistyped one is nearest to.
  const nearest = async (word) => {
    if (word.length < 4) return undefined;
    const most = word.length < 10 ? 1 : 2;
    let best = most + 1;
    let found;
    for (const other of (await load("words")).split(" ")) {
      const far = distance(word, other, most) + (other[0] === word[0] ? 0 : 0.5);
      if (far < best) [best, found] = [far, other];
    }
    return found;
  };

  // Score of each section (Okapi BM25), and how many of the reader's words it has.
  const rank = async (query) => {
    const { sections, pages, also, stop, starts } = await load("sections");
    await load("stemmer");
    const stemmer = new Stemmer();
    const stem = (word) => stemmer.stemWord(word.replace(/is(ations?|e[drs]?|es|ing)$/, "iz$1")) || word;
    const readers = new Set(Object.keys(also).flatMap((key) => key.split(" ")));
    const mean = sections.reduce((sum, row) => sum + row[3], 0) / sections.length;
    const scores = new Map();
    const matched = new Map();
    const marked = new Set();
    const instead = [];
    const look = async (term, weight, number) => {
      const start = term.slice(0, 2);
      const postings = starts.includes(start) && (await load(`terms-${start}`))[term];
      if (!postings) return false;
      marked.add(term);
      const share = Math.log(1 + sections.length / (postings.length / 2));
      for (let i = 0; i < postings.length; i += 2) {
        const [at, count] = [postings[i], postings[i + 1]];
        const norm = 1.2 * (0.35 + (0.65 * sections[at][3]) / mean);
        const gain = (weight * share * count * 2.2) / (count + norm);
        scores.set(at, (scores.get(at) ?? 0) + gain);
        if (number !== undefined) matched.set(at, (matched.get(at) ?? new Set()).add(number));
      }
      return true;
    };
    const every = wordsOf(query);
    const words = every.some((word) => !stop.includes(word))
      ? every.filter((word) => !stop.includes(word))
      : every;
    const corrected = [];
    for (const [number, word] of words.entries()) {
      let used = word;
      if (!(await look(stem(word), 1, number)) && !readers.has(stem(word))) {
        const other = await nearest(word);
        if (other && (await look(stem(other), 0.9, number))) {
          instead.push(other);
          used = other;
        }
      }
      corrected.push(used);
    }
    // All of the reader's words count more than one of them often.
    for (const [at, score] of scores) {
      scores.set(at, score * ((matched.get(at)?.size ?? 0) / Math.max(words.length, 1)) ** 2);
    }
    const phrase = ` ${corrected.map(stem).join(" ")} `;
    const best = [];
    for (const [key, [more, page]] of Object.entries(also)) {
      if (!phrase.includes(` ${key} `)) continue;
      for (const word of wordsOf(more)) if (!stop.includes(word)) await look(stem(word), 0.5);
      if (page >= 0) best.push(page);
    }
    const top = Math.max(0, ...scores.values());
    for (const page of best) {
      // The section of that page that fits best stands first; its beginning where none does. What is
      // asked of the reader there explains nothing.
      const asks = /^(Exercises|Your guesses)$/;
      const own = sections.flatMap((row, at) => (row[0] === page && !asks.test(row[2]) ? [at] : []));
      const at = own.reduce((a, b) => ((scores.get(b) ?? 0) > (scores.get(a) ?? 0) ? b : a), own[0]);
      scores.set(at, top + 1 + (scores.get(at) ?? 0));
    }
    for (const [at, score] of scores) {
      if (pages[sections[at][0]][0].includes("/reference/") && !query.includes("_")) {
        scores.set(at, score * 0.6);
      }
    }
    const order = [...scores.keys()].sort((a, b) => scores.get(b) - scores.get(a) || a - b);
    return { order: order.filter((at) => scores.get(at) > 0), marked, instead, stem };
  };

  // The part of a text with most of the words in question, which are marked; a short text is shown
  // whole, so that a definition in the glossary begins with what it defines.
  const excerpt = (text, marked, stem) => {
    const pieces = text.length <= 300 ? [text] : text.split(/(?<=[.?!:])\s+/);
    const hits = pieces.map((piece) => new Set(wordsOf(piece).map(stem).filter((t) => marked.has(t))).size);
    let start = hits.indexOf(Math.max(...hits));
    let shown = pieces[start];
    while (shown.length < 160 && start + 1 < pieces.length) shown += ` ${pieces[++start]}`;
    if (shown.length > 300) shown = `${shown.slice(0, 300).replace(/\s\S*$/, "")} …`;
    const line = document.createElement("p");
    for (const piece of shown.split(/([A-Za-z0-9_]+)/)) {
      if (marked.has(stem(piece.toLowerCase()))) {
        line.append(Object.assign(document.createElement("mark"), { textContent: piece }));
      } else {
        line.append(piece);
      }
    }
    return line;
  };

  const root = document.documentElement.dataset.content_root || "./";
  let latest = 0;
  // The next results, unless another query than `mine` has come; whether they are shown.
  const show = async (found, from, mine) => {
    const { sections, pages } = await load("sections");
    const rows = found.order.slice(from, from + SHOWN).map((at) => sections[at]);
    const texts = await Promise.all(rows.map((row) => load(`text-${row[4]}`)));
    if (mine !== latest) return false;
    rows.forEach(([page, anchor, name, , , place], i) => {
      const title = name || anchor;
      const item = document.createElement("li");
      const link = document.createElement("a");
      link.href = `${root}${pages[page][0]}${anchor ? `#${anchor}` : ""}`;
      link.textContent = title;
      item.append(link);
      if (title !== pages[page][1]) {
        const where = Object.assign(document.createElement("span"), { textContent: pages[page][1] });
        where.className = "site-search-where";
        item.append(" ", where);
      }
      if (texts[i]?.[place]) item.append(excerpt(texts[i][place], found.marked, found.stem));
      list.append(item);
    });
    document.getElementById("site-search-more")?.remove();
    if (from + SHOWN < found.order.length) {
      const more = Object.assign(document.createElement("button"), { textContent: "More results" });
      more.id = "site-search-more";
      more.type = "button";
      more.addEventListener("click", async () => {
        more.disabled = true;
        try {
          if (await show(found, from + SHOWN, mine)) {
            list.children[from + SHOWN].querySelector("a").focus();
          }
        } catch {
          failed(mine);
          more.disabled = false;
        }
      });
      list.after(more);
    }
    return true;
  };

  const failed = (mine) => {
    if (mine === latest) status.textContent = "A part of the search could not be loaded; try again.";
  };

  const answer = async (query) => {
    const mine = ++latest;
    list.replaceChildren();
    delete list.dataset.query;
    document.getElementById("site-search-more")?.remove();
    status.textContent = query.trim() ? "Searching …" : "";
    if (!query.trim()) return;
    try {
      const found = await rank(query);
      if (mine !== latest) return; // another query has come
      const count = found.order.length;
      const number = count === 1 ? "One section" : `${count || "No"} sections`;
      const other = found.instead.length ? `, with ${found.instead.join(", ")} for what you typed` : "";
      status.textContent = `${number} found${other}.`;
      if (await show(found, 0, mine)) list.dataset.query = query;
    } catch {
      failed(mine);
    }
  };

  const given = new URLSearchParams(location.search).get("q") ?? "";
  field.value = given;
  if (!given) field.focus();
  field.form.addEventListener("submit", (event) => {
    event.preventDefault();
    history.replaceState(null, "", `?${new URLSearchParams({ q: field.value })}`);
    answer(field.value);
  });
  answer(given);
})();
