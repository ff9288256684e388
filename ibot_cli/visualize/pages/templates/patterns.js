(() => {
  "use strict";
  const { images, members, grid } = JSON.parse(document.getElementById("data").textContent);
  const root = document.querySelector(".pairs");
  const tools = document.querySelector(".tools");

  const size = document.getElementById("size");
  const resize = (pixels) => {
    size.value = pixels;
    root.style.setProperty("--tile", `${size.value}px`);
  };
  const enlarge = (by) => resize(Math.round(Number(size.value) * (by > 0 ? 1.25 : 0.8)));
  size.value = Math.round(root.querySelector(".grid a").getBoundingClientRect().width);
  size.addEventListener("input", () => resize(size.value));
  tools.querySelectorAll("[data-size]").forEach((button) =>
    button.addEventListener("click", () => enlarge(Number(button.dataset.size))));
  const outlines = document.getElementById("outlines");
  const toggle = () => {
    const plain = root.classList.toggle("plain");
    outlines.setAttribute("aria-pressed", String(!plain));
  };
  outlines?.addEventListener("click", toggle);
  const jump = document.getElementById("jump");
  jump.addEventListener("change", () => document.getElementById(jump.value).scrollIntoView({ behavior: "instant" }));
  tools.hidden = false;

  const links = (list) => [...list.querySelectorAll("a")];
  document.querySelectorAll(".grid").forEach((list) => {
    const enter = (link) => links(list).forEach((other) => { other.tabIndex = other === link ? 0 : -1; });
    enter(links(list)[0]);
    list.addEventListener("focusin", (event) => enter(event.target.closest("a")));
    list.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const all = links(list);
      const at = all.indexOf(event.target.closest("a"));
      const row = all.filter((link) => link.offsetTop === all[0].offsetTop).length;
      const moves = { ArrowLeft: at - 1, ArrowRight: at + 1, ArrowUp: at - row, ArrowDown: at + row, Home: 0, End: all.length - 1 };
      const next = all[moves[event.key]];
      if (!next) return;
      event.preventDefault();
      next.focus();
    });
  });

  const dialog = document.getElementById("source");
  const svg = dialog.querySelector("svg");
  const aside = dialog.querySelector("aside");
  const element = (name, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
    return made;
  };
  const path = ([left, top, right, bottom]) => `M${left} ${top}H${right}V${bottom}H${left}Z`;
  const frame = ([left, top, right, bottom], kind) => ["dark", "light"].map((tone) =>
    element("rect", { x: left, y: top, width: right - left, height: bottom - top, class: `${kind} ${tone}` }));
  const draw = (member, image) => {
    const { width, height } = image;
    const box = member.window.map((edge, side) => [Math.min, Math.min, Math.max, Math.max][side](edge, [0, 0, width, height][side]));
    svg.setAttribute("viewBox", `${box[0]} ${box[1]} ${box[2] - box[0]} ${box[3] - box[1]}`);
    svg.setAttribute("aria-label", `${member.path} with the patch marked`);
    const picture = element("image", { width, height, href: image.uri, preserveAspectRatio: "none", class: image.sharp ? "sharp" : "" });
    const shade = element("path", { class: "shade", d: path([0, 0, width, height]) + path(member.seen) });
    const around = member.window.some((edge, side) => edge !== member.box[side]) ? frame(member.window, "around") : [];
    svg.replaceChildren(picture, shade, ...around, ...(member.row === null ? [] : frame(member.box, "patch")));
  };
  const describe = (member, image) => {
    const facts = [
      ["Image", member.path, true],
      ["Class", member.class],
      ["Patch", member.row === null ? null : `row ${member.row + 1} of ${grid[0]}, column ${member.column + 1} of ${grid[1]}`],
      ["In the image", `x ${Math.round(member.box[0])} to ${Math.round(member.box[2])}, y ${Math.round(member.box[1])} to ${Math.round(member.box[3])} of ${image.width} × ${image.height}`],
      ["Score", member.score.toFixed(3)],
      ["Probability", String(member.probability)],
    ];
    const list = document.createElement("dl");
    facts.filter(([, text]) => text !== null && text !== undefined).forEach(([name, text, wide]) => {
      const group = document.createElement("div");
      const term = document.createElement("dt");
      const value = document.createElement("dd");
      term.textContent = name;
      value.textContent = text;
      if (wide) group.className = "wide";
      group.append(term, value);
      list.append(group);
    });
    const legend = document.createElement("p");
    legend.textContent = member.row === null ? "Pale: not seen by the network." : "Solid: the patch. Dashed: its window. Pale: not seen by the network.";
    aside.replaceChildren(list, legend);
  };

  let current = null;
  const siblings = () => links(document.getElementById(current).closest(".grid"));
  const open = (key) => {
    const member = members[key];
    const image = images[member.image];
    if (!image) return;
    current = key;
    draw(member, image);
    describe(member, image);
    const [side, rank, place] = key.split("-");
    dialog.querySelector(".lightbox-caption").textContent =
      `${side === "random" ? "Random weights, pattern" : "Pattern"} ${rank}, prototype ${member.prototype}: ${place} of ${siblings().length}`;
    if (!dialog.open) dialog.showModal();
  };
  const leave = (rename = true) => {
    if (current === null) return;
    const link = document.getElementById(current);
    if (rename) history.replaceState(null, "", `#${current.replace(/-\d+$/, "")}`);
    current = null;
    dialog.close();
    link.focus();
  };
  const follow = () => {
    const key = decodeURIComponent(location.hash.slice(1));
    if (members[key]) open(key);
    else if (dialog.open) leave(false);
  };
  const step = (by) => {
    const all = siblings();
    const next = all[(all.findIndex((link) => link.id === current) + by + all.length) % all.length];
    history.replaceState(null, "", `#${next.id}`);
    open(next.id);
  };
  addEventListener("hashchange", follow);
  document.querySelectorAll(".grid a").forEach((link) => link.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    history.pushState(null, "", link.hash);
    open(link.id);
  }));
  dialog.addEventListener("click", (event) => {
    const arrow = event.target.closest("[data-step]");
    if (arrow) step(Number(arrow.dataset.step));
    else if (event.target.closest("[data-close]")) leave();
  });
  dialog.addEventListener("cancel", (event) => { event.preventDefault(); leave(); });
  dialog.addEventListener("close", () => { if (!dialog.open) leave(); }); // a second Escape cannot be prevented
  addEventListener("popstate", follow);
  follow();

  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (dialog.open) {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (by) { event.preventDefault(); step(by); }
      return;
    }
    if (event.target.closest?.("input, select, textarea")) return;
    if (event.key === "+" || event.key === "=") enlarge(1);
    else if (event.key === "-") enlarge(-1);
    else if (event.key === "o" && outlines) toggle();
  });
})();
