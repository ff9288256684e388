(() => {
  "use strict";

  const themes = ["automatic", "light", "dark"];
  const toggle = document.getElementById("theme");
  const theme = () => document.documentElement.dataset.theme || "automatic";
  const nameTheme = () => { toggle.textContent = `Theme: ${theme()}`; };
  toggle.addEventListener("click", () => {
    const next = themes[(themes.indexOf(theme()) + 1) % themes.length];
    if (next === "automatic") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = next;
    try { localStorage.setItem("ibot-theme", next === "automatic" ? "" : next); } catch { /* storage may be off */ }
    nameTheme();
  });
  toggle.hidden = false;
  nameTheme();

  const box = document.getElementById("lightbox");
  const stage = box.querySelector(".lightbox-stage");
  let shown = null;
  const siblings = () => [...(shown.closest("[data-gallery]") || document).querySelectorAll("button.zoom")]
    .filter((button) => button.offsetParent !== null);
  const show = (button) => {
    shown = button;
    const inside = button.querySelector("img, svg");
    const copy = inside.cloneNode(true);
    stage.replaceChildren(copy);
    const figcaption = button.closest("figure")?.querySelector("figcaption");
    box.querySelector(".lightbox-caption").textContent =
      button.dataset.caption || figcaption?.textContent.trim() || inside.getAttribute("alt") || "";
    const alone = siblings().length < 2;
    box.querySelectorAll("[data-step]").forEach((arrow) => { arrow.hidden = alone; });
  };
  const step = (by) => {
    const all = siblings();
    show(all[(all.indexOf(shown) + by + all.length) % all.length]);
  };
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button.zoom");
    if (!button) return;
    show(button);
    box.showModal();
  });
  box.addEventListener("click", (event) => {
    const arrow = event.target.closest("[data-step]");
    if (arrow) step(Number(arrow.dataset.step));
    else if (!event.target.closest(".lightbox-caption")) box.close();
  });
  box.addEventListener("keydown", (event) => {
    if (event.key === "ArrowRight" || event.key === "ArrowLeft") {
      event.preventDefault();
      step(event.key === "ArrowRight" ? 1 : -1);
    }
  });
  box.addEventListener("close", () => { stage.replaceChildren(); shown?.focus(); });

  const copyByHand = (source) => {
    const range = document.createRange();
    range.selectNodeContents(source);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    return document.execCommand("copy");
  };
  document.querySelectorAll("button.copy").forEach((button) => {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const source = button.parentElement.querySelector("code");
      let done = true;
      try { await navigator.clipboard.writeText(source.textContent); } catch { done = copyByHand(source); }
      button.textContent = done ? "Copied" : "Press Ctrl-C";
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
  });

  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    opened.forEach((details) => { details.open = true; });
  });
  addEventListener("afterprint", () => opened.forEach((details) => { details.open = false; }));
})();
