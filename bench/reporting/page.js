"use strict";
// Draws the charts one after the other; between two the page answers.
async function draw() {
  for (const figure of document.querySelectorAll("figure.chart")) {
    const place = figure.querySelector("div");
    try {
      await vegaEmbed(place, JSON.parse(figure.querySelector("script").textContent), {
        renderer: "svg",
        ast: true, // expressions are interpreted, so the policy needs no "unsafe-eval"
        actions: { export: true, source: false, compiled: false, editor: false },
        downloadFileName: figure.id,
      });
    } catch (error) {
      place.textContent = "This chart cannot be drawn.";
      console.error(figure.id, error);
    }
    await new Promise((next) => setTimeout(next));
  }
  document.documentElement.dataset.charts = "drawn";
}
draw();
