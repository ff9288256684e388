(() => {
  "use strict";
  const browser = document.getElementById("browser");
  const bar = browser?.querySelector(".browser-bar");
  if (!bar) return;
  const rows = [...browser.querySelectorAll(".lookup")];
  const buttons = [...bar.querySelectorAll("[data-show]")];
  const select = bar.querySelector("select");
  const count = bar.querySelector(".browser-count");
  const none = browser.querySelector(".browser-none");
  let which = "all";
  const apply = () => {
    let shown = 0;
    rows.forEach((row) => {
      const fits = (which === "all" || row.dataset.wrong === "yes")
        && (select.value === "" || row.dataset.class === select.value);
      row.hidden = !fits;
      shown += fits;
    });
    buttons.forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.show === which)));
    count.textContent = shown === rows.length ? "" : `${shown} of ${rows.length} shown`;
    none.hidden = shown > 0;
  };
  buttons.forEach((button) => button.addEventListener("click", () => { which = button.dataset.show; apply(); }));
  select.addEventListener("change", apply);
  bar.hidden = false;
  apply();
})();
