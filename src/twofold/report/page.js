"use strict";
// The page is complete without this: it only restyles hover titles and offers the other theme.
(function () {
  const root = document.documentElement;
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const button = document.getElementById("theme");
  button.hidden = false;
  button.addEventListener("click", function () {
    const now = root.dataset.theme || (dark.matches ? "dark" : "light");
    root.dataset.theme = now === "dark" ? "light" : "dark";
  });

  const tip = document.createElement("div");
  tip.id = "tip";
  tip.setAttribute("aria-hidden", "true");
  document.body.append(tip);
  const words = new WeakMap();
  for (const title of document.querySelectorAll("svg g > title")) {
    words.set(title.parentNode, title.textContent);
    title.remove();
  }

  function show(event) {
    let node = event.target;
    while (node && node.nodeName !== "svg" && !words.has(node)) node = node.parentNode;
    if (!node || !words.has(node)) {
      tip.classList.remove("shown");
      return;
    }
    tip.textContent = words.get(node);
    tip.classList.add("shown");
    const room = root.clientWidth - tip.offsetWidth - 8;
    const above = event.clientY - tip.offsetHeight - 14;
    tip.style.left = Math.max(8, Math.min(event.clientX + 12, room)) + "px";
    tip.style.top = (above < 8 ? event.clientY + 18 : above) + "px";
  }
  document.addEventListener("pointermove", show);
  document.addEventListener("pointerdown", show);
  document.addEventListener("scroll", function () { tip.classList.remove("shown"); }, true);
  window.addEventListener("beforeprint", function () {
    for (const fold of document.querySelectorAll("details")) fold.open = true;
  });
})();
