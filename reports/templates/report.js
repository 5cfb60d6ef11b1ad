// Draws a case's surfaces when they come into view and drops them when they leave it: browsers keep few WebGL contexts.
(function () {
  const config = { displaylogo: false, responsive: true, scrollZoom: false };
  function draw(box) {
    const figure = JSON.parse(document.getElementById(box.dataset.figure).textContent);
    if (box.clientWidth < 480) putColourBarBelow(figure);
    box.dataset.drawn = "yes";
    Plotly.newPlot(box, figure.data, figure.layout, config);
  }
  function putColourBarBelow(figure) {
    for (const trace of figure.data.filter((one) => one.colorbar)) {
      Object.assign(trace.colorbar, { orientation: "h", x: 0.5, y: 0, yanchor: "top", len: 0.9, thickness: 10 });
      figure.layout.margin.b = 70;
    }
  }
  function drop(box) {
    delete box.dataset.drawn;
    Plotly.purge(box);
  }
  const observer = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        if (isIntersecting && !target.dataset.drawn) draw(target);
        else if (!isIntersecting && target.dataset.drawn) drop(target);
      }
    },
    { rootMargin: "400px" },
  );
  document.querySelectorAll("[data-figure]").forEach((box) => observer.observe(box));
  document.querySelectorAll(".wake").forEach((button) => {
    button.addEventListener("click", () => button.parentElement.classList.add("awake"));
  });
})();
