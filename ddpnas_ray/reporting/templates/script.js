"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const tip = document.getElementById("tip");
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const make = (name, text, className) => {
    const element = document.createElement(name);
    if (text !== undefined) element.textContent = text;
    if (className) element.className = className;
    return element;
  };
  document.documentElement.classList.add("js");

  // --- tooltips ---
  const place = (event) => {
    tip.hidden = false;
    const { width, height } = tip.getBoundingClientRect();
    const left = Math.min(event.clientX + 14, innerWidth - width - 8);
    const top = event.clientY + 16 + height > innerHeight ? event.clientY - height - 12 : event.clientY + 16;
    tip.style.left = Math.max(4, left) + "px";
    tip.style.top = Math.max(4, top) + "px";
  };
  const hide = () => { tip.hidden = true; };
  const values = (edge, at) => {
    const list = make("ul", undefined, "values");
    const order = edge.operations.map((_, k) => k).sort((a, b) => edge.theta[b][at] - edge.theta[a][at]);
    for (const k of order) {
      const gone = edge.pruned[k] !== null && edge.pruned[k] <= data.theta.rounds[at];
      const text = edge.theta[k][at].toFixed(5) + " " + edge.operations[k] + (gone ? ", pruned in round " + edge.pruned[k] : "");
      list.append(make("li", text, "op" + edge.colours[k] + (gone ? " gone" : "")));
    }
    return list;
  };
  const when = (at) => data.theta.rounds[at] === 0 ? "before the first round" : "after round " + data.theta.rounds[at];
  const cursor = (svg, at) => {
    const { left, right } = svg.dataset, rounds = data.theta.rounds;
    const x = Number(left) + (right - left) * (rounds[at] / Math.max(1, rounds[rounds.length - 1]));
    const line = svg.querySelector(".cursor");
    line.setAttribute("x1", x);
    line.setAttribute("x2", x);
    line.classList.add("on");
  };
  const nearest = (svg, event) => {
    const { left, right } = svg.dataset, box = svg.getBoundingClientRect(), rounds = data.theta.rounds;
    const x = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
    const round = (x - left) / (right - left) * rounds[rounds.length - 1];
    return rounds.reduce((best, r, i) => Math.abs(r - round) < Math.abs(rounds[best] - round) ? i : best, 0);
  };
  for (const svg of all("svg.theta")) {
    const edge = data.theta.edges[svg.dataset.edge];
    svg.addEventListener("pointermove", (event) => {
      const at = nearest(svg, event);
      tip.replaceChildren(make("strong", edge.name + ", " + when(at)), values(edge, at));
      cursor(svg, at);
      place(event);
    });
    svg.addEventListener("pointerleave", () => { hide(); svg.querySelector(".cursor").classList.remove("on"); });
  }
  for (const element of all("[data-tip]")) {
    element.addEventListener("pointermove", (event) => { tip.textContent = element.dataset.tip; place(event); });
    element.addEventListener("pointerleave", hide);
  }
  addEventListener("scroll", hide, { passive: true });
  addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });

  // --- round slider, for keyboard and touch ---
  for (const slider of all(".slider input")) {
    const edge = data.theta.edges[slider.dataset.edge], last = data.theta.rounds.length - 1;
    const output = make("output");
    slider.max = last;
    slider.value = last;
    const show = () => {
      const at = Number(slider.value);
      slider.setAttribute("aria-valuetext", when(at));
      output.replaceChildren(make("span", when(at)), values(edge, at));
    };
    slider.addEventListener("input", () => {
      show();
      for (const svg of all("svg.theta", slider.closest("details"))) cursor(svg, Number(slider.value));
    });
    slider.closest("p").after(output);
    show();
  }

  // --- the enlarged edge ---
  const panels = all("details.edge"), select = document.getElementById("edge"), links = all(".multiples a");
  const choose = (index, go) => {
    const chosen = (index + panels.length) % panels.length;
    panels.forEach((panel, i) => { panel.open = i === chosen; });
    links.forEach((link, i) => i === chosen ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current"));
    select.value = String(chosen);
    if (go) {
      const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
      panels[chosen].querySelector("h3").focus({ preventScroll: true });
      document.querySelector(".chooser").scrollIntoView({ behavior: calm ? "auto" : "smooth", block: "start" });
    }
  };
  if (panels.length) {
    const fromAddress = () => {
      const found = panels.findIndex((panel) => "#" + panel.id === location.hash);
      if (found >= 0) choose(found, true);
      return found >= 0;
    };
    links.forEach((link, i) => link.addEventListener("click", (event) => {
      event.preventDefault();
      history.replaceState(null, "", link.getAttribute("href"));
      hide();
      choose(i, true);
    }));
    select.addEventListener("change", () => choose(Number(select.value), false));
    for (const button of all(".chooser [data-step]")) {
      button.addEventListener("click", () => choose(Number(select.value) + Number(button.dataset.step), false));
    }
    addEventListener("hashchange", fromAddress);
    if (!fromAddress()) choose(0, false);
  }

  // --- theta, or its distance from the mean ---
  for (const radio of all("input[name=view]")) {
    radio.addEventListener("change", () => document.documentElement.classList.toggle("distances", radio.value === "distance"));
  }

  // --- highlighted operation ---
  for (const button of all(".legend button")) {
    button.addEventListener("click", () => {
      const on = button.getAttribute("aria-pressed") !== "true";
      for (const other of all(".legend button")) other.setAttribute("aria-pressed", String(on && other === button));
      for (const line of all("svg.theta [data-op]")) line.classList.toggle("dim", on && line.dataset.op !== button.dataset.op);
    });
  }

  // --- tables ---
  const number = (text) => { const value = parseFloat(text.replace(/,/g, "")); return Number.isNaN(value) ? null : value; };
  for (const table of all("table.sortable")) {
    const heads = all("thead th", table), body = table.tBodies[0];
    heads.forEach((head, column) => {
      const button = make("button", head.textContent);
      button.type = "button";
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const numeric = head.classList.contains("n");
        const key = (row) => numeric ? number(row.cells[column].textContent) : row.cells[column].textContent;
        const rows = all("tr", body).map((row) => [key(row), row]);
        rows.sort(([a], [b]) => {
          if (a === null || b === null) return (a === null) - (b === null);  // unknown values last
          const order = numeric ? a - b : a.localeCompare(b, undefined, { numeric: true });
          return up ? order : -order;
        });
        body.append(...rows.map(([, row]) => row));
      });
    });
  }
  for (const filter of all("[data-filter]")) {
    const rows = all("tbody tr", document.getElementById(filter.dataset.filter));
    filter.addEventListener("change", () => {
      for (const row of rows) row.hidden = filter.value !== "" && row.dataset.key !== filter.value;
    });
  }
  for (const chooser of all("[data-show]")) {
    const figures = all("figure." + chooser.dataset.show);
    const show = () => figures.forEach((figure) => { figure.hidden = figure.dataset.name !== chooser.value; });
    chooser.addEventListener("change", show);
    show();
  }
})();
