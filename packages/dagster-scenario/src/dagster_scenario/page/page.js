"use strict";
(function () {
  // No ampersands or less-than signs here: the page is well-formed XML as well.
  var chart = document.querySelector(".chart");
  var filter = document.getElementById("filter");
  var count = document.getElementById("count");
  var rows = Array.from(document.querySelectorAll("tbody tr"));
  var texts = rows.map(function (row) {
    return searched(Array.from(row.cells).map(function (cell) { return cell.textContent; }).join(" "));
  });

  // A run's number is one word: "run 3" is not found in "run 31", nor "run" and "3" anywhere in a row.
  function searched(text) {
    return text.toLowerCase().replace(/(?:run *|#)(\d+)/g, "|run$1|");
  }

  filter.hidden = false;
  filter.addEventListener("input", function () {
    var wanted = searched(filter.value).split(/\s+/).filter(Boolean);
    var left = 0;
    rows.forEach(function (row, number) {
      var found = wanted.every(function (word) { return texts[number].includes(word); });
      row.hidden = !found;
      left += found ? 1 : 0;
    });
    count.textContent = wanted.length ? left + " of " + rows.length : "";
    if (chart) { dim(wanted.length !== 0); }
  });

  // What is not in the filtered table steps back in the lanes.
  function dim(filtered) {
    chart.querySelectorAll(".item").forEach(function (item) {
      var links = Array.from(item.querySelectorAll("a"));
      links.forEach(function (link) {
        link.classList.toggle("dim", document.getElementById(link.getAttribute("href").slice(1)).hidden);
      });
      var dimmed = links.every(function (link) { return link.classList.contains("dim"); });
      item.classList.toggle("dim", filtered ? dimmed : false);
    });
  }

  if (!chart) { return; }

  // The box says what the browser's own tooltip would say, at once and to the keyboard also.
  var box = document.createElement("div");
  box.id = "detail";
  box.hidden = true;
  document.body.append(box);
  chart.querySelectorAll("title").forEach(function (title) {
    title.parentNode.setAttribute("aria-label", title.textContent);
    title.remove();
  });

  var shown = null;
  var pointer = null;

  function clear() {
    shown = null;
    box.hidden = true;
    chart.classList.remove("picking");
    chart.querySelectorAll(".picked").forEach(function (item) { item.classList.remove("picked"); });
  }

  function show(event) {
    clear();
    var item = event.target.closest(".item");
    if (!item) { return; }
    pick(item);
    shown = event.target.closest(".item [aria-label], .item[aria-label]");
    pointer = event.clientX === undefined ? null : event.clientX;
    if (!shown) { return; }
    box.textContent = shown.getAttribute("aria-label");
    box.hidden = false;
    place();
  }

  function place() {
    if (!shown) { return; }
    var at = shown.getBoundingClientRect();
    var x = pointer === null ? at.left : pointer;
    var below = at.bottom + 10;
    var above = Math.max(8, at.top - box.offsetHeight - 10);
    box.style.left = Math.max(8, Math.min(x, innerWidth - box.offsetWidth - 8)) + "px";
    box.style.top = (below + box.offsetHeight > innerHeight ? above : below) + "px";
  }

  function pick(item) {
    if (!item.dataset.runs) { return; }
    var runs = item.dataset.runs.split(" ");
    chart.classList.add("picking");
    chart.querySelectorAll("[data-runs]").forEach(function (other) {
      var shared = other.dataset.runs.split(" ").some(function (run) { return runs.includes(run); });
      other.classList.toggle("picked", shared);
    });
  }

  chart.addEventListener("pointerover", show);
  chart.addEventListener("pointerleave", clear);
  chart.addEventListener("focusin", show);
  chart.addEventListener("focusout", clear);
  chart.addEventListener("scroll", place, { passive: true });
  addEventListener("scroll", place, { passive: true });
  document.addEventListener("keydown", function (event) {
    if (event.key === "Escape") { clear(); }
    var step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    var link = step ? event.target.closest(".item a") : null;
    if (!link) { return; }
    var links = Array.from(chart.querySelectorAll(".item a"));
    var next = links[links.indexOf(link) + step];
    if (next) {
      event.preventDefault();
      next.focus();
    }
  });
})();
