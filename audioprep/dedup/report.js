"use strict";
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

// Filter and sort.
const form = document.getElementById("choose");
const list = document.getElementById("pairs");
const cards = all(".pair");
const by = {
  near: (one, other) => one.dataset.place - other.dataset.place,
  down: (one, other) => other.dataset.similarity - one.dataset.similarity,
  up: (one, other) => one.dataset.similarity - other.dataset.similarity,
};
function filter() {
  const { relation, from, to } = Object.fromEntries(new FormData(form));
  for (const card of cards) {
    const value = Number(card.dataset.similarity);
    card.hidden = (relation && card.dataset.relation !== relation)
      || (from !== "" && value < Number(from)) || (to !== "" && value > Number(to));
    if (card.hidden) all("audio", card).forEach((player) => player.pause());
  }
  const shown = cards.filter((card) => !card.hidden).length;
  document.getElementById("shown").value = `Pairs: ${shown === cards.length ? "" : `${shown} of `}${cards.length}`;
}
function sort() {
  list.append(...[...cards].sort(by[form.elements.sort.value]));
}
form.addEventListener("input", (event) => event.target.name === "sort" ? sort() : filter());
form.addEventListener("submit", (event) => event.preventDefault());
// A browser that comes back to a page fills in what was chosen.
filter();
sort();

// One player sounds at a time; a line in its picture says where.
const players = all("audio");
const sideOf = (player) => player.closest(".side");
for (const player of players) {
  const side = sideOf(player);
  const line = side.querySelector(".picture i");
  const draw = () => {
    line.style.left = 100 * player.currentTime / player.dataset.span + "%";
    if (!player.paused) requestAnimationFrame(draw);
  };
  player.addEventListener("play", () => {
    players.filter((other) => other !== player).forEach((other) => other.pause());
    all(".heard").forEach((other) => other.classList.remove("heard"));
    side.classList.add("playing", "heard");
    draw();
  });
  player.addEventListener("pause", () => side.classList.remove("playing"));
  player.addEventListener("seeked", draw);
  side.querySelector(".picture").addEventListener("click", (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    play(player, player.dataset.span * (event.clientX - box.left) / box.width);
  });
}

function play(player, seconds) {
  const start = () => {
    player.currentTime = Math.min(seconds, player.duration);
    player.play().catch(() => player.pause()); // a switch may have come before it began
  };
  if (player.readyState > 0) {
    start();
  } else { // before that it does not know where it could go to
    player.addEventListener("loadedmetadata", start, { once: true });
    player.load();
  }
}

// Of two aligned clips, the other one from the same moment of the music on: it may run at another speed.
function change(card) {
  const [keep, drop] = all("audio", card);
  const now = all(".heard audio", card)[0];
  const next = now === keep ? drop : keep;
  if (!now || now.ended) return play(keep, 0);
  return play(next, now.currentTime * now.dataset.speed / next.dataset.speed);
}
for (const card of cards.filter((one) => all("audio", one).length === 2)) {
  const turns = card.querySelector("[name=turns]");
  const inTurn = () => turns.getAttribute("aria-pressed") === "true";
  let timer;
  const stop = () => {
    clearTimeout(timer);
    turns.setAttribute("aria-pressed", "false");
  };
  card.querySelector("[name=change]").addEventListener("click", () => change(card));
  turns.addEventListener("click", () => {
    if (inTurn()) {
      all("audio", card).forEach((player) => player.pause());
      stop();
    } else {
      turns.setAttribute("aria-pressed", "true");
      change(card);
    }
  });
  // These do not bubble, but they can be caught on their way down.
  card.addEventListener("play", () => {
    clearTimeout(timer);
    if (inTurn()) timer = setTimeout(() => all(".playing", card).length ? change(card) : stop(), 2000);
  }, true);
  card.addEventListener("pause", (event) => {
    if (sideOf(event.target).classList.contains("heard")) stop(); // at its end, or by hand: not for the other one
  }, true);
}
