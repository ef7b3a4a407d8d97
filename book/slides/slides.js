"use strict";
// One slide at a time; the address holds its number, so that a link leads to it.
const slides = [...document.querySelectorAll("section")];
const here = () => Math.min(Math.max(Number(location.hash.slice(1)) || 1, 1), slides.length);
const show = () => slides.forEach((slide, i) => slide.classList.toggle("here", i + 1 === here()));
const go = (number) => {
  location.hash = Math.min(Math.max(number, 1), slides.length);
  show(); // at once: the event comes later
};
const steps = { ArrowRight: 1, PageDown: 1, " ": 1, ArrowLeft: -1, PageUp: -1 };

document.body.classList.add("turning");
addEventListener("hashchange", show);
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.tagName === "BUTTON" && event.key === " ") return;
  if (event.key in steps) go(here() + steps[event.key]);
  else if (event.key === "Home") go(1);
  else if (event.key === "End") go(slides.length);
  else return;
  event.preventDefault();
});
document.getElementById("next").addEventListener("click", () => go(here() + 1));
document.getElementById("back").addEventListener("click", () => go(here() - 1));
show();
