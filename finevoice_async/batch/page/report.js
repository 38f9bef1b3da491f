"use strict";
(() => {
  const find = document.getElementById("find");
  const sort = document.getElementById("sort");
  const list = document.getElementById("list");
  const shown = document.getElementById("shown");
  const nothing = document.getElementById("nothing");
  const said = document.getElementById("said");
  const more = document.getElementById("more");
  const step = Number(list.dataset.step); // how many are laid out at once
  let rows = Array.from(list.children, (element, order) => ({
    element,
    order, // as the page came: problems first
    states: element.dataset.states.split(" "),
    care: element.dataset.care === "1",
    key: element.querySelector("h3").textContent,
    text: null, // what is searched, once it was read
    fits: true,
  }));
  let limit = step; // of those that fit, how many are shown

  // Filtering and sorting

  const folded = (text) => text.normalize("NFKC").toLowerCase().replace(/\s+/g, " ");

  function textOf(row) {
    if (row.text === null) {
      const parts = row.element.querySelectorAll("h3, p:not(.facts), .facts a");
      row.text = folded(Array.from(parts, (part) => part.textContent).join(" "));
    }
    return row.text;
  }

  // Reading thousands of rows takes a moment: done while nobody waits for it.
  const idle = window.requestIdleCallback ?? ((work) => setTimeout(() => work({ timeRemaining: () => 10 }), 50));
  let unread = 0;
  function readOn(deadline) {
    while (unread < rows.length && deadline.timeRemaining() > 1) textOf(rows[unread++]);
    if (unread < rows.length) idle(readOn);
  }
  idle(readOn);

  function filter() {
    const words = folded(find.value).trim();
    const state = document.querySelector("input[name=state]:checked").value;
    for (const row of rows) {
      const fits = state === "" || (state === "care" ? row.care : row.states.includes(state));
      row.fits = fits && (words === "" || textOf(row).includes(words));
    }
    limit = step;
    backToTop();
    layOut();
    const number = (value) => value.toLocaleString("en");
    const found = rows.filter((row) => row.fits).length;
    shown.textContent =
      found === rows.length ? `${number(found)} in all` : `${number(found)} of ${number(rows.length)} found`;
    nothing.hidden = found > 0 || rows.length === 0;
  }

  function backToTop() {
    const above = find.form.getBoundingClientRect().bottom - list.getBoundingClientRect().top;
    if (above > 0) scrollBy({ top: -above, behavior: "instant" });
  }

  function layOut() {
    let count = 0;
    for (const row of rows) {
      count += row.fits;
      const hidden = !row.fits || count > limit;
      if (row.element.hidden !== hidden) row.element.hidden = hidden;
    }
    more.hidden = count <= limit;
  }

  function showMore() {
    limit += step;
    layOut();
    nearEnd.unobserve(more); // seen anew, it tells again if there is still room
    nearEnd.observe(more);
  }

  const nearEnd = new IntersectionObserver(
    (entries) => {
      if (entries.some((entry) => entry.isIntersecting)) showMore();
    },
    { rootMargin: "1000px" },
  );
  nearEnd.observe(more);
  more.addEventListener("click", showMore);

  const compareKeys = new Intl.Collator(undefined, { numeric: true }).compare;

  function arrange() {
    const by = sort.value;
    const value = (row) => (row.element.dataset[by] === "" ? -Infinity : Number(row.element.dataset[by]));
    const orders = {
      care: (a, b) => a.order - b.order,
      key: (a, b) => compareKeys(a.key, b.key),
    };
    const compare = orders[by] ?? ((a, b) => (value(a) === value(b) ? a.order - b.order : value(b) - value(a)));
    rows = [...rows].sort(compare);
    list.append(...rows.map((row) => row.element));
    limit = step;
    backToTop();
    layOut();
  }

  find.addEventListener("input", filter);
  sort.addEventListener("change", arrange);
  for (const input of document.querySelectorAll("input[name=state]")) input.addEventListener("change", filter);
  find.form.addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("all").addEventListener("click", () => {
    find.form.reset();
    arrange();
    filter();
    find.focus();
  });

  // Playing: a player is made when it is wanted first, and only one plays at a time

  const players = new Map(); // by button
  const isCalm = matchMedia("(prefers-reduced-motion: reduce)");
  let playing = null; // the button

  function show(button) {
    const audio = players.get(button);
    const share = audio.duration > 0 ? audio.currentTime / audio.duration : 0;
    button.parentElement.style.setProperty("--at", `${share * 100}%`);
    if (playing === button && !isCalm.matches) requestAnimationFrame(() => show(button));
  }

  function stopped(button) {
    button.setAttribute("aria-pressed", "false");
    if (playing === button) playing = null;
  }

  function playerOf(button) {
    if (players.has(button)) return players.get(button);
    const audio = document.createElement("audio");
    audio.preload = "none";
    audio.src = button.dataset.src;
    audio.addEventListener("pause", () => stopped(button));
    audio.addEventListener("timeupdate", () => show(button));
    audio.addEventListener("ended", () => {
      stopped(button);
      audio.currentTime = 0;
      button.parentElement.classList.remove("playing");
    });
    button.after(audio);
    players.set(button, audio);
    return audio;
  }

  async function toggle(button) {
    const audio = playerOf(button);
    if (playing === button) {
      audio.pause();
      return;
    }
    if (playing !== null) players.get(playing).pause();
    playing = button;
    button.setAttribute("aria-pressed", "true");
    button.parentElement.classList.add("playing");
    try {
      await audio.play();
      show(button);
    } catch (error) {
      if (error.name === "AbortError") return; // it was paused before it began
      stopped(button);
      button.parentElement.classList.remove("playing");
      complain(button);
    }
  }

  function complain(button) {
    const words = "This browser cannot play the file, or it is not there.";
    const player = button.parentElement;
    if (player.nextElementSibling?.dataset.unplayed !== "1") {
      const line = document.createElement("p");
      line.className = "why";
      line.dataset.unplayed = "1";
      line.textContent = words;
      player.after(line);
    }
    said.textContent = words;
  }

  function seek(button, seconds) {
    const audio = players.get(button);
    if (audio?.duration > 0) {
      audio.currentTime = Math.min(Math.max(seconds, 0), audio.duration);
      show(button);
    }
  }

  // Copying

  async function copy(button) {
    const text = button.dataset.copy;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // Without a secure address or leave to write: as it was done before.
      const code = button.parentElement.querySelector("code");
      getSelection().selectAllChildren(code);
      if (!document.execCommand("copy")) return;
    }
    button.textContent = "Copied";
    said.textContent = `Copied: ${text}`;
    setTimeout(() => (button.textContent = "Copy"), 1500);
  }

  document.addEventListener("click", (event) => {
    const play = event.target.closest(".play");
    const copied = event.target.closest(".copy");
    const wave = event.target.closest(".playing .wave");
    if (play) toggle(play);
    if (copied) copy(copied);
    if (wave) {
      const box = wave.getBoundingClientRect();
      const button = wave.parentElement.querySelector(".play");
      seek(button, ((event.clientX - box.left) / box.width) * players.get(button).duration);
    }
  });

  // Keys: / finds, Escape clears, up and down go from player to player, left and right move within a sound

  function neighbour(button, step) {
    const all = Array.from(list.querySelectorAll(".effect:not([hidden]) .play"));
    return all[button === null ? 0 : all.indexOf(button) + step];
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const at = event.target;
    const button = at.closest?.(".play") ?? null;
    if (event.key === "/" && !at.matches("input[type=search], select")) {
      event.preventDefault();
      find.focus();
      find.select();
    } else if (at === find && event.key === "Escape") {
      find.value = "";
      filter();
    } else if ((button && ["ArrowDown", "ArrowUp"].includes(event.key)) || (at === find && event.key === "ArrowDown")) {
      const next = neighbour(button, event.key === "ArrowUp" ? -1 : 1);
      event.preventDefault();
      (next ?? (event.key === "ArrowUp" ? find : button))?.focus();
    } else if (button && ["ArrowLeft", "ArrowRight"].includes(event.key) && players.has(button)) {
      event.preventDefault();
      seek(button, players.get(button).currentTime + (event.key === "ArrowLeft" ? -1 : 1));
    }
  });

  if (innerWidth < 600) document.querySelector("details")?.removeAttribute("open");
})();
