/* What every page needs beyond the theme's scripts: a few lines for keyboards, phones and pictures. */
(() => {
  "use strict";

  // What scrolls sideways takes the focus, so that arrow keys move it. Sizes change with the screen.
  const boxes = "main :is(.katex-display, .pst-scrollable-table-container, pre, .cell_output, .output, a.image-reference, .explore-frames)";
  const names = { "katex-display": "Formula", cell_output: "Output", output: "Output", "pst-scrollable-table-container": "Table" };
  // On which sides there is more: a picture covers the shadows that other boxes show there.
  const edges = (box) => {
    const left = box.scrollLeft > 2 ? "left" : "";
    const right = box.scrollLeft < box.scrollWidth - box.clientWidth - 2 ? "right" : "";
    box.dataset.more = `${left} ${right}`.trim();
  };
  document.addEventListener("scroll", (event) => event.target.dataset?.scrolls && edges(event.target), true);
  const mark = () => {
    for (const box of document.querySelectorAll(boxes)) {
      const scrolls =
        box.scrollWidth > box.clientWidth + 1 && /auto|scroll/.test(getComputedStyle(box).overflowX);
      if (scrolls) edges(box);
      if (scrolls === (box.dataset.scrolls === "yes")) continue;
      if (scrolls) {
        const kind = Object.keys(names).find((name) => box.classList.contains(name));
        const label = kind ? names[kind] : box.matches(".explore-frames") ? "Figure" : "Code or output";
        box.dataset.scrolls = "yes";
        if (box.matches("a")) continue; // a link has the focus already, and a name
        box.tabIndex = 0;
        box.setAttribute("role", "group");
        box.setAttribute("aria-label", `${label}, wider than the page`);
      } else {
        delete box.dataset.scrolls;
        delete box.dataset.more;
        for (const name of ["tabindex", "role", "aria-label"]) box.removeAttribute(name);
      }
    }
  };
  let due = 0;
  const later = () => {
    cancelAnimationFrame(due);
    due = requestAnimationFrame(mark);
  };
  mark();
  addEventListener("load", mark);
  addEventListener("resize", later);
  document.addEventListener("toggle", later, true); // what was closed has had no width

  // The other frames of a picture with controls are fetched once a reader touches it.
  const fetchFrames = (event) => {
    const picture = event.target.closest?.("figure.explore");
    for (const frame of picture?.querySelectorAll('img[loading="lazy"]') ?? []) frame.loading = "eager";
  };
  for (const kind of ["pointerover", "pointerdown", "focusin"]) document.addEventListener(kind, fetchFrames);

  // Beside the text only the list of chapters scrolls: to the one that is read.
  const current = document.querySelector(".bd-sidebar-primary nav a.current");
  const list = current?.closest(".sidebar-primary-item");
  if (list && list.scrollHeight > list.clientHeight) {
    const place = current.getBoundingClientRect().top - list.getBoundingClientRect().top;
    list.scrollTop = place - list.clientHeight / 2;
  }

  // Paper shows what was not scrolled to.
  addEventListener("beforeprint", () => {
    for (const image of document.querySelectorAll('img[loading="lazy"]:not([hidden])')) image.loading = "eager";
  });

  // On a phone the contents of the page cover it: choosing a section closes them.
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("dialog[open] a[href*='#']");
    if (link && link.pathname === location.pathname) link.closest("dialog").close();
  });
})();
