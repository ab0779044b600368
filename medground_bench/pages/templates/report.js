"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent), { methods, classes } = data;
  const svg = (name, attributes) => {
    const e = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
    return e;
  };
  const make = (name, text, cls) => {
    const e = document.createElement(name);
    if (text !== undefined) e.textContent = text;
    if (cls) e.className = cls;
    return e;
  };
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // Pictures and records are read when they are looked at: from the page, or from files beside it.
  const picture = (n) => (data.folder ? `${encodeURIComponent(data.folder)}/pictures/${n}.jpg` : JSON.parse($(`p${n}`).textContent));
  const files = new Map();
  const withDetail = (r, then) => {
    if (!data.folder) { then(JSON.parse($(`r${r.at}`).textContent)); return; }
    const file = Math.floor(r.at / data.chunk), found = () => window.mgbRecords[file][r.at % data.chunk];
    if (!files.has(file)) files.set(file, new Promise((done, failed) => {
      const script = make("script");
      script.src = `${encodeURIComponent(data.folder)}/records/${file}.js`;
      script.onload = done;
      script.onerror = () => failed(new Error("missing"));
      document.head.append(script);
    }));
    files.get(file).then(() => then(found()), () => { $("v-question").textContent = `The folder ${data.folder} is not beside this page.`; });
  };

  // The two methods that are compared, in the drawings and in the gallery.
  const sides = ["one", "two"], picked = { one: 0, two: methods.length > 1 ? 1 : 0 };
  let shown = [], current = -1, detail = null;
  const gallery = data.records.filter((r) => r.at !== null);
  const pick = (side, m) => {
    picked[side] = m;
    document.querySelectorAll(`.pick-${side}`).forEach((s) => { s.selectedIndex = m; });
    if (side === "one") $("g-of").selectedIndex = m;
    plots(); redraw();
  };

  // The list ---------------------------------------------------------------------------------------------------------
  const filters = { lvlm: $("g-lvlm"), mode: $("g-mode"), dataset: $("g-dataset"), attribute: $("g-attribute") };
  const refilter = () => {
    const m = $("g-of").selectedIndex, wanted = classes.indexOf($("g-class").value), sort = $("g-sort").value;
    shown = gallery.filter((r) => Object.entries(filters).every(([k, s]) => s.value === "" || r[k] === s.value) && (wanted < 0 || r.class[m] === wanted));
    const iou = (r, k) => (r.iou[k] === null ? -1 : r.iou[k]);
    if (sort === "gap") shown.sort((a, b) => iou(b, picked.one) - iou(b, picked.two) - iou(a, picked.one) + iou(a, picked.two));
    else if (sort) shown.sort((a, b) => (sort === "worst" ? iou(a, m) - iou(b, m) : iou(b, m) - iou(a, m)));
    const cards = shown.map((r, k) => {
      const card = make("div", undefined, "card"), img = make("img");
      card.id = `card-${k}`; card.setAttribute("role", "option"); card.setAttribute("aria-selected", "false");
      if (data.folder) { img.loading = "lazy"; img.decoding = "async"; } img.alt = ""; img.src = picture(r.image);
      card.append(img, make("span", r.attribute));
      card.addEventListener("click", () => show(k));
      return card;
    });
    $("cards").classList.toggle("many", shown.length > 200);
    $("cards").replaceChildren(...cards);
    $("g-count").textContent = `${shown.length} of ${gallery.length} records`;
    $("g-none").hidden = shown.length > 0;
    $("viewer").hidden = !shown.length;
    current = -1;
    if (shown.length) show(0, false);
  };
  const show = (k, scroll = true) => {
    const r = shown[k];
    if (!r) return;
    const cards = $("cards").children;
    if (cards[current]) cards[current].setAttribute("aria-selected", "false");
    cards[k].setAttribute("aria-selected", "true");
    $("cards").setAttribute("aria-activedescendant", `card-${k}`);
    if (scroll) {
      cards[k].scrollIntoView({ block: "nearest", inline: "nearest" });
      // The address leads back to this record; where a page has no address of its own, it does not.
      try { history.replaceState(null, "", `#record=${encodeURIComponent(r.id)}`); } catch (e) { /* not kept */ }
    }
    current = k;
    withDetail(r, (found) => { if (shown[current] === r) { detail = found; draw(); } });
  };
  const step = (by) => show(Math.max(0, Math.min(shown.length - 1, current + by)));
  const open = (r) => {
    if (r.at === null) { $("t-words").textContent = `${r.id} is not in this report's sample: IoU ${r.iou[picked.one]} and ${r.iou[picked.two]}.`; return; }
    if (!shown.includes(r)) { [...Object.values(filters), $("g-class")].forEach((s) => { if (s.options[0].value === "") s.value = ""; }); refilter(); }
    show(shown.indexOf(r));
    $("gallery").scrollIntoView();
    $("cards").focus({ preventScroll: true });
  };

  // One record -------------------------------------------------------------------------------------------------------
  // Plasma (Smith, van der Walt) up to 0.85: perceptually uniform, and its end is seen on white as on black.
  const stops = [[13, 8, 135], [65, 4, 157], [106, 0, 168], [143, 13, 164], [177, 42, 144], [204, 71, 120], [225, 100, 98], [242, 132, 75], [254, 186, 44]];
  const ramp = (v) => {
    const at = Math.min(stops.length - 2, Math.floor(v * (stops.length - 1))), t = v * (stops.length - 1) - at;
    return stops[at].map((c, i) => c + t * (stops[at + 1][i] - c));
  };
  const drawScale = () => {
    const c = $("v-scale"), g = c.getContext("2d");
    for (let x = 0; x < c.width; x++) { g.fillStyle = `rgb(${ramp(x / (c.width - 1))})`; g.fillRect(x, 0, 1, c.height); }
  };
  const bytes = (heat) => Uint8Array.from(atob(heat.data), (c) => c.charCodeAt(0));
  const drawHeat = (canvas, d, heat) => {
    const zoom = Math.min(1, 900 / Math.max(d.width, d.height)), g = canvas.getContext("2d");
    canvas.width = Math.round(d.width * zoom); canvas.height = Math.round(d.height * zoom);
    if (!heat) return;
    const values = bytes(heat);
    // The map covers the frame; the image lies in the frame's content rectangle.
    const [x1, y1, x2, y2] = d.content, sx = canvas.width / (x2 - x1), sy = canvas.height / (y2 - y1);
    const place = [-x1 * sx, -y1 * sy, d.frame[0] * sx, d.frame[1] * sy];
    if ($("v-heat").checked) {
      const small = make("canvas");
      small.width = heat.cols; small.height = heat.rows;
      const pixels = small.getContext("2d").createImageData(heat.cols, heat.rows);
      values.forEach((v, k) => { pixels.data.set([...ramp(v / 255), 255 * Math.min(1, 0.15 + v / 255)], 4 * k); });
      small.getContext("2d").putImageData(pixels, 0, 0);
      g.imageSmoothingEnabled = true; g.imageSmoothingQuality = "high";
      g.globalAlpha = $("v-opacity").value / 100;
      g.drawImage(small, ...place);
      g.globalAlpha = 1;
    }
    if ($("v-lines").checked) contours(g, values, heat, place);
  };
  // Marching squares between the cells' centres, at half and at nine tenths of the map's range.
  const contours = (g, values, heat, [ox, oy, w, h]) => {
    const at = (r, c) => values[r * heat.cols + c], x = (c) => ox + ((c + 0.5) * w) / heat.cols, y = (r) => oy + ((r + 0.5) * h) / heat.rows;
    for (const level of [127.5, 229.5]) {
      const path = new Path2D();
      for (let r = 0; r + 1 < heat.rows; r++) for (let c = 0; c + 1 < heat.cols; c++) {
        const v = [at(r, c), at(r, c + 1), at(r + 1, c + 1), at(r + 1, c)], p = [[c, r], [c + 1, r], [c + 1, r + 1], [c, r + 1]], cuts = [];
        for (let k = 0; k < 4; k++) {
          const a = v[k], b = v[(k + 1) % 4];
          if ((a > level) === (b > level)) continue;
          const t = (level - a) / (b - a), [p1, p2] = [p[k], p[(k + 1) % 4]];
          cuts.push([x(p1[0] + t * (p2[0] - p1[0])), y(p1[1] + t * (p2[1] - p1[1]))]);
        }
        for (let k = 0; k + 1 < cuts.length; k += 2) { path.moveTo(...cuts[k]); path.lineTo(...cuts[k + 1]); }
      }
      for (const [colour, width] of [["#000", 4], ["#fff", 1.8]]) { g.strokeStyle = colour; g.lineWidth = width; g.stroke(path); }
    }
  };
  const drawBoxes = (layer, d, said) => {
    layer.setAttribute("viewBox", `0 0 ${d.width} ${d.height}`);
    layer.setAttribute("preserveAspectRatio", "none");
    const unit = Math.max(d.width, d.height) / 400;
    const box = (b, cls) => [["dark", 4.2], [cls, 2]].map(([name, width]) => svg("rect", {
      x: b[0], y: b[1], width: b[2] - b[0], height: b[3] - b[1], class: `line ${name}`,
      style: `stroke-width:${width * unit};${name === "evidence" ? `stroke-dasharray:${7 * unit} ${4 * unit}` : ""}` }));
    const mine = said && $("v-boxes").checked ? said.boxes.flatMap((b) => box(b, "said")) : [];
    layer.replaceChildren(...mine, ...d.boxes.flatMap((b) => box(b, "evidence")));
  };
  const percent = (v) => (v >= 0.995 ? "100 %" : v >= 0.0995 ? `${Math.round(100 * v)} %` : v >= 0.001 ? `${(100 * v).toFixed(1)} %` : v > 0 ? "< 0.1 %" : "0 %");
  const drawConcepts = (box, said) => {
    box.textContent = "";
    if (!said || !said.concepts) return;
    box.append(make("h3", said.fallback ? "no concept passes the threshold: whole image" : `concept: ${said.concept}`));
    const total = Math.max(1e-12, said.concepts.reduce((t, c) => t + Math.max(0, c[1]), 0)), top = Math.max(1e-12, ...said.concepts.map((c) => c[1]));
    said.concepts.forEach(([name, score]) => {
      const line = make("div", undefined, "concept" + (name === said.concept ? " best" : "")), bar = make("div", undefined, "bar"), fill = make("i");
      fill.style.width = `${Math.max(0, (100 * score) / top)}%`;
      bar.append(fill);
      line.title = `score ${score.toPrecision(3)}; the share of all scores is shown`;
      line.append(make("span", name), bar, make("span", percent(Math.max(0, score) / total), "n"));
      box.append(line);
    });
  };
  const drawTokens = (d) => {
    const p = $("v-response");
    p.replaceChildren(make("strong", "Answer: "));
    const owner = [methods[picked.one], methods[picked.two], ...methods].find((m) => d.predictions[m] && d.predictions[m].tokens);
    if (!owner) { p.append((d.response || "").trim()); return; }
    const { tokens, texts } = d.predictions[owner], top = Math.max(1e-12, ...tokens.map(Math.abs));
    tokens.forEach((t, k) => {
      const s = make("span", texts[k], "token");
      s.style.background = `rgb(${css("--heat")} / ${Math.round((45 * Math.abs(t)) / top)}%)`;
      s.title = `${owner}: ${t.toPrecision(3)}`;
      p.append(s);
    });
    p.append(make("span", `  (colour: ${owner})`, "note"));
  };
  const drawStrip = (d) => {
    $("v-strip").replaceChildren(...d.strip.map((s) => {
      const figure = make("figure"), box = make("div", undefined, "picture"), answer = make("span", undefined, "answer");
      if (s.image === null) box.append("picture not kept");
      else { const img = make("img"); img.src = picture(s.image); img.alt = s.title; box.append(img); }
      const right = s.read === s.expected;
      answer.title = (s.answer || "").trim();
      answer.append(make("b", s.read === null ? "undecided" : s.read, right ? "yes" : "no"), right ? ", as it must: " : `, ${s.expected} was expected: `, (s.answer || "no answer").trim());
      figure.append(box, make("figcaption", s.title), answer);
      return figure;
    }));
  };
  const drawScores = (d, r) => {
    $("v-scores").tBodies[0].replaceChildren(...methods.filter((m) => d.predictions[m]).map((m) => {
      const said = d.predictions[m], row = make("tr"), buttons = make("td", undefined, "text"), k = methods.indexOf(m);
      row.append(make("td", m, "text pin"), ...said.scores.map((v) => make("td", v.toFixed(3))), make("td", classes[r.class[k]] || "", "text"), make("td", said.note, "text"));
      sides.forEach((side) => {
        const b = make("button", side === "one" ? "left" : "right");
        b.type = "button"; b.setAttribute("aria-pressed", picked[side] === k); b.setAttribute("aria-label", `show ${m} ${side === "one" ? "left" : "right"}`);
        b.addEventListener("click", () => { pick(side, k); const again = $("v-scores").tBodies[0].querySelectorAll(`button[aria-label^="show "]`); [...again].find((o) => o.getAttribute("aria-label") === b.getAttribute("aria-label")).focus(); });
        buttons.append(b, " ");
      });
      row.append(buttons);
      return row;
    }));
  };
  const draw = () => {
    const r = shown[current], d = detail;
    $("v-title").textContent = `${r.attribute} · ${r.lvlm} · ${r.mode}`;
    $("v-question").textContent = `${d.question} (${r.dataset}/${d.image_id}, ${d.width}×${d.height})`;
    $("v-previous").disabled = current === 0; $("v-next").disabled = current === shown.length - 1;
    sides.forEach((side) => {
      const img = $(`v-${side}-stage`).querySelector("img");
      img.src = picture(r.image);
      img.alt = `Radiograph ${d.image_id}, asked for ${r.attribute}, with what the ${side === "one" ? "left" : "right"} method says`;
      img.style.aspectRatio = `${d.width} / ${d.height}`;
    });
    $("v-lies").textContent = d.lies;
    drawStrip(d);
    redraw();
  };
  const redraw = () => {
    const r = shown[current], d = detail;
    if (!r || !d || d.id !== r.id) return;
    sides.forEach((side) => {
      const k = picked[side], said = d.predictions[methods[k]], stage = $(`v-${side}-stage`);
      drawHeat(stage.querySelector("canvas"), d, said && said.heat);
      drawBoxes(stage.querySelector("svg"), d, said);
      drawConcepts($(`v-${side}-concepts`), said);
      $(`v-${side}-lies`).textContent = said ? said.lies : "";
      $(`v-${side}-said`).textContent = !said ? "says nothing of this record" : `IoU ${said.scores[0].toFixed(3)}, ${classes[r.class[k]]}${said.heat ? "" : "; no heat map"}`;
    });
    drawTokens(d); drawScores(d, r);
  };

  // Two methods over all records -------------------------------------------------------------------------------------
  const dots = { size: [], pair: [] };
  const plot = (name, xs, ticks, points) => {
    const c = $(`t-${name}`), zoom = devicePixelRatio || 1, w = c.clientWidth, h = c.clientHeight, g = c.getContext("2d");
    c.width = w * zoom; c.height = h * zoom; g.scale(zoom, zoom);
    const [l, t, b] = [34, 8, 24], px = (x) => l + 8 + xs(x) * (w - l - 20), py = (y) => h - b - 6 - y * (h - t - b - 12);
    g.font = "12px system-ui, sans-serif"; g.fillStyle = css("--soft"); g.strokeStyle = css("--line");
    for (const y of [0, 0.25, 0.5, 0.75, 1]) { g.beginPath(); g.moveTo(l, py(y)); g.lineTo(w - 6, py(y)); g.stroke(); g.fillText(y.toString(), 2, py(y) + 4); }
    for (const [x, text] of ticks) { g.beginPath(); g.moveTo(px(x), t); g.lineTo(px(x), h - b); g.stroke(); g.fillText(text, Math.min(px(x) - g.measureText(text).width / 2, w - g.measureText(text).width), h - 6); }
    if (name === "pair") { g.beginPath(); g.moveTo(px(0), py(0)); g.lineTo(px(1), py(1)); g.stroke(); }
    dots[name] = points.map((p) => ({ ...p, x: px(p.x), y: py(p.y) }));
    g.globalAlpha = points.length > 800 ? 0.35 : 0.75;
    dots[name].forEach((p) => {
      g.fillStyle = p.colour; g.beginPath();
      if (p.square) g.rect(p.x - 3, p.y - 3, 6, 6); else g.arc(p.x, p.y, 3.6, 0, 7);
      g.fill();
    });
    g.globalAlpha = 1;
  };
  const plots = () => {
    const [a, b] = [picked.one, picked.two], mode = $("t-mode").value;
    const records = data.records.filter((r) => mode === "" || r.mode === mode), one = css("--one"), two = css("--two");
    const sizes = records.map((r) => Math.max(r.size, 1e-4)), low = Math.log(sizes.reduce((m, v) => Math.min(m, v), 1)), high = Math.log(sizes.reduce((m, v) => Math.max(m, v), 0.01));
    const along = (x) => (high > low ? (Math.log(Math.max(x, 1e-4)) - low) / (high - low) : 0.5);
    const ticks = [0.0001, 0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1].filter((v) => Math.log(v) >= low && Math.log(v) <= high).map((v) => [v, `${+(100 * v).toPrecision(2)} %`]);
    const of = (k, colour, square) => records.filter((r) => r.iou[k] !== null).map((r) => ({ r, x: r.size, y: r.iou[k], colour, square }));
    plot("size", along, ticks, a === b ? of(a, one, false) : [...of(b, two, true), ...of(a, one, false)]);
    const both = records.filter((r) => r.iou[a] !== null && r.iou[b] !== null);
    plot("pair", (x) => x, [0, 0.25, 0.5, 0.75, 1].map((v) => [v, v.toString()]), both.map((r) => ({ r, x: r.iou[a], y: r.iou[b], colour: r.iou[a] >= r.iou[b] ? one : two, square: r.iou[a] < r.iou[b] })));
    const better = both.filter((r) => r.iou[a] > r.iou[b]).length, worse = both.filter((r) => r.iou[a] < r.iou[b]).length;
    const tests = data.pairs.filter((p) => (mode === "" || p.mode === mode) && [p.first, p.second].includes(methods[a]) && [p.first, p.second].includes(methods[b])).map((p) =>
      `${p.mode}: mean IoU of ${p.first} minus ${p.second} ${p.difference}, ${p.words}`);
    $("t-words").textContent = a === b ? "Choose two methods." : `Of ${both.length} records ${methods[a]} is better on ${better}, ${methods[b]} on ${worse}. ${tests.map((t) => `${t[0].toUpperCase()}${t.slice(1)}.`).join(" ")}`;
  };
  Object.keys(dots).forEach((name) => $(`t-${name}`).addEventListener("click", (e) => {
    const at = [e.offsetX, e.offsetY], far = (p) => Math.hypot(p.x - at[0], p.y - at[1]);
    const near = dots[name].reduce((best, p) => (far(p) < far(best) ? p : best), { x: 1e9, y: 1e9 });
    if (near.r && far(near) < 14) open(near.r);
  }));

  // What the reader does ---------------------------------------------------------------------------------------------
  sides.forEach((side) => document.querySelectorAll(`.pick-${side}`).forEach((s) => s.addEventListener("change", () => pick(side, s.selectedIndex))));
  ["v-boxes", "v-heat", "v-lines", "v-opacity"].forEach((id) => $(id).addEventListener("input", redraw));
  [...Object.values(filters), $("g-sort"), $("g-class"), $("g-of")].forEach((s) => s.addEventListener("change", refilter));
  $("t-mode").addEventListener("change", plots);
  $("v-previous").addEventListener("click", () => step(-1));
  $("v-next").addEventListener("click", () => step(1));
  document.querySelectorAll("#classes-table a").forEach((a) => a.addEventListener("click", (e) => {
    e.preventDefault();
    Object.values(filters).forEach((s) => { if (s.options[0].value === "") s.value = ""; });
    filters.mode.value = a.dataset.mode; $("g-class").value = a.dataset.class; $("g-sort").value = "";
    pick("one", methods.indexOf(a.dataset.method));
    refilter();
    $("gallery").scrollIntoView();
    $("cards").focus({ preventScroll: true });
  }));
  document.addEventListener("keydown", (e) => {
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -1e9, End: 1e9 }[e.key], inList = e.target === $("cards");
    // In the list all arrows step; elsewhere left and right do, where nothing else wants them.
    const free = e.target === document.body || ($("gallery").contains(e.target) && !e.target.closest("select, input, .scroll"));
    if (!by || e.altKey || e.ctrlKey || e.metaKey || !(inList || (free && /Left|Right/.test(e.key)))) return;
    e.preventDefault();
    step(by);
  });
  document.addEventListener("mgb-theme", () => { plots(); redraw(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { plots(); redraw(); });
  addEventListener("resize", plots);
  drawScale();
  sides.forEach((side) => document.querySelectorAll(`.pick-${side}`).forEach((s) => { s.selectedIndex = picked[side]; }));
  refilter();
  plots();
  const linked = () => {
    const wanted = new URLSearchParams(location.hash.slice(1)), m = methods.indexOf(wanted.get("method"));
    if (m >= 0) { // from a leaderboard's row: its method, on the middle one of its records
      pick("one", m);
      $("g-class").value = "";
      for (const key of ["lvlm", "mode"]) if ([...filters[key].options].some((o) => o.value === wanted.get(key))) filters[key].value = wanted.get(key);
      refilter();
      const mine = shown.filter((one) => one.iou[m] !== null).sort((a, b) => a.iou[m] - b.iou[m]);
      if (mine.length) open(mine[mine.length >> 1]);
      return;
    }
    const r = data.records.find((one) => location.hash === `#record=${encodeURIComponent(one.id)}`);
    if (r) open(r);
  };
  addEventListener("hashchange", linked);
  linked();
})();
