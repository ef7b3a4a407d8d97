/* Results that wait for a guess. The pages' HTML is made by book/_ext/waiting_results.py, which says
   what waits for what; without this script each result is a plain <details> that a click opens.
   Guesses stay in the reader's browser: {key: guess}, where null means "shown without a guess". */
(() => {
  "use strict";
  const place = `guesses:${location.pathname}`;
  const read = () => {
    try {
      const stored = JSON.parse(localStorage.getItem(place));
      return stored?.constructor === Object ? stored : {};
    } catch {
      return {}; // no storage here, or nothing that can be read
    }
  };
  let guesses = read();
  const keep = () => {
    try {
      localStorage.setItem(place, JSON.stringify(guesses));
    } catch {
      // private windows and full disks: the guess holds until the page is left
    }
  };

  const forms = new Map();
  for (const form of document.querySelectorAll("form.guess")) forms.set(form.dataset.guess, form);
  const outcomes = [...document.querySelectorAll("details.outcome")];
  const keysOf = (outcome) => JSON.parse(outcome.dataset.guess);
  const missing = (outcome) => keysOf(outcome).filter((key) => !(key in guesses) && forms.has(key));
  const element = (tag, text) => Object.assign(document.createElement(tag), { textContent: text });

  // The line that the notebook printed holds its author's guess: the reader's takes its place.
  const printed = new Map(outcomes.map((outcome) => [outcome, []]));
  for (const [outcome, lines] of printed) {
    const texts = document.createTreeWalker(outcome, NodeFilter.SHOW_TEXT);
    for (let text = texts.nextNode(); text; text = texts.nextNode()) {
      const revealed = /^(You guessed |You have not guessed yet)/m.test(text.data);
      if (revealed && text.parentElement.closest(".output")) lines.push([text, text.data]);
    }
  }
  const rewrite = (lines, outcome) => {
    const keys = keysOf(outcome); // one for each line, in the same order
    const start = /^(You guessed .*?|You have not guessed yet);\s+it is /gm;
    for (const [text, original] of lines) {
      text.data = original.replace(start, (line) => {
        const key = keys.shift();
        if (!(key in guesses)) return line;
        return guesses[key] === null ? "It is " : `You guessed ${guesses[key]}; it is `;
      });
    }
  };

  const update = () => {
    for (const outcome of outcomes) {
      const open = missing(outcome).length === 0;
      outcome.classList.toggle("waits", !open);
      const title = open ? "The result" : "The result (enter your guess above first)";
      outcome.querySelector("summary").textContent = title;
      const entered = keysOf(outcome).map((key) => guesses[key]);
      const made = entered.filter((guess) => guess !== null && guess !== undefined);
      const line = outcome.querySelector(".outcome-guess");
      line.hidden = made.length === 0;
      line.textContent = `Your guess: ${made.join("; ")}`;
    }
    printed.forEach(rewrite);
    for (const row of document.querySelectorAll(".guess-table tr[data-guess]")) {
      const key = row.dataset.guess;
      const [guess, truth] = row.querySelectorAll("td");
      guess.textContent = guesses[key] ?? "no guess yet";
      truth.textContent = (key in guesses && row.dataset.truth) || "not yet";
    }
  };

  // Fields show what was entered; one that did not change may hold what is being typed.
  const fill = (before) => {
    for (const [key, form] of forms) {
      if (guesses[key] !== before[key]) form.querySelector("input").value = guesses[key] ?? "";
    }
  };

  const say = (form, text) => {
    form.querySelector(".guess-status").textContent = text;
  };

  // A guess, or null for none, is entered: results that waited for nothing else open.
  let cameFrom = null;
  const enter = (key, guess) => {
    guesses[key] = guess;
    keep();
    update();
    const form = forms.get(key);
    const skip = form.querySelector(".guess-skip");
    const skipped = document.activeElement === skip;
    skip.hidden = true;
    const waiting = outcomes.filter((outcome) => keysOf(outcome).includes(key));
    for (const outcome of waiting) outcome.open = missing(outcome).length === 0;
    const next = waiting.flatMap(missing)[0];
    if (next) {
      say(form, "Entered. The result opens after one more guess.");
      if (guess === null) forms.get(next).querySelector(".guess-skip").hidden = false;
      forms.get(next).querySelector("input").focus();
      return;
    }
    for (const other of waiting.flatMap(keysOf)) {
      if (forms.has(other)) say(forms.get(other), ""); // it no longer waits for one more
    }
    say(form, guess === null ? "The result is open." : "Entered. The result is open.");
    const link = waiting[0] && element("a", "Go to the result");
    if (link) {
      link.href = `#${waiting[0].id}`;
      form.querySelector(".guess-status").append(" ", link);
    }
    if (waiting.includes(cameFrom)) {
      cameFrom.querySelector("summary").focus();
      cameFrom = null;
    } else if (skipped) {
      (waiting[0]?.querySelector("summary") ?? form.querySelector("input")).focus();
    }
  };

  for (const [key, form] of forms) {
    form.hidden = false;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const input = form.querySelector("input");
      const guess = input.value.trim();
      if (guess) {
        enter(key, guess);
      } else {
        say(form, "Type a guess first; a rough one will do.");
        input.focus();
      }
    });
    form.querySelector(".guess-skip").addEventListener("click", () => enter(key, null));
  }

  // A click on the title of a result that waits, or Enter or Space there, leads to the question.
  for (const outcome of outcomes) {
    outcome.querySelector("summary").addEventListener("click", (event) => {
      const key = missing(outcome)[0];
      if (key === undefined || outcome.open) return;
      event.preventDefault();
      cameFrom = outcome;
      const form = forms.get(key);
      form.querySelector(".guess-skip").hidden = false;
      form.querySelector("input").focus();
      form.scrollIntoView({ block: "center" });
      say(form, "The result opens when you have entered a guess here; a rough one will do.");
    });
  }

  for (const box of document.querySelectorAll(".guess-table")) {
    box.hidden = false;
    document.querySelectorAll(".guess-stored-table").forEach((stored) => (stored.hidden = true));
    box.querySelector(".guess-forget").addEventListener("click", () => {
      guesses = {};
      cameFrom = null;
      keep();
      update();
      for (const outcome of outcomes) outcome.open = false;
      for (const form of forms.values()) {
        form.reset();
        form.querySelector(".guess-skip").hidden = true;
        say(form, "");
      }
      box.scrollIntoView({ block: "nearest" }); // what closed above has moved it
    });
  }

  // A link to something inside a closed result opens it, and printing opens all.
  const named = () => {
    try {
      return document.getElementById(decodeURIComponent(location.hash.slice(1)));
    } catch {
      return null; // such as #%
    }
  };
  const follow = () => {
    const target = named();
    const outcome = target?.closest("details.outcome");
    if (!outcome || outcome.open) return;
    if (target === outcome && missing(outcome).length) return; // its title can be seen
    outcome.open = true;
    target.scrollIntoView();
  };
  let closed = [];
  addEventListener("beforeprint", () => {
    closed.push(...outcomes.filter((outcome) => !outcome.open));
    for (const outcome of outcomes) {
      outcome.open = true;
      outcome.querySelector("summary").textContent = "The result"; // no form is printed
    }
  });
  addEventListener("afterprint", () => {
    for (const outcome of closed) outcome.open = false;
    closed = [];
    update();
  });
  addEventListener("hashchange", follow);
  addEventListener("click", (event) => {
    // The same link once more is no change of the address.
    const link = event.target.closest?.("a[href]");
    if (link?.hash && link.href === location.href) setTimeout(follow);
  });

  // What is entered or forgotten in another tab holds here too.
  addEventListener("storage", (event) => {
    if (event.key !== place && event.key !== null) return;
    const before = guesses;
    guesses = read();
    update();
    fill(before);
  });

  update();
  fill({});
  for (const outcome of outcomes) outcome.open = missing(outcome).length === 0;
  follow();
})();
