/* The figure of the worst loss within a radius: a slider moves the radius. Without this script it shows one radius. */
"use strict";
document.querySelectorAll("svg[data-worst]").forEach((svg) => {
  const samples = JSON.parse(svg.dataset.worst);
  const { x, y, size, pad } = JSON.parse(svg.dataset.frame);
  const place = ([w, loss]) => [
    pad[0] + ((w - x[0]) / (x[1] - x[0])) * (size[0] - pad[0] - pad[2]),
    size[1] - pad[3] - ((loss - y[0]) / (y[1] - y[0])) * (size[1] - pad[1] - pad[3]),
  ];
  const slider = Object.assign(document.createElement("input"), {
    type: "range", min: 0, max: 1.2, step: 0.05, value: svg.dataset.rho,
  });
  const told = document.createElement("output");
  const label = document.createElement("label");
  label.className = "radius";
  label.append("radius \u03c1", slider, told);
  svg.parentElement.after(label);

  const draw = () => {
    const rho = Number(slider.value);
    const worst = samples
      .filter(([w]) => x[0] <= w && w <= x[1])
      .map(([w]) => [w, Math.max(...samples.filter(([v]) => Math.abs(v - w) <= rho + 1e-9).map(([, loss]) => loss))]);
    const inside = worst.filter(([, loss]) => loss <= y[1]);
    const points = inside.map((point) => place(point).map((value) => value.toFixed(1)).join(" "));
    svg.querySelector(".worst").setAttribute("d", "M" + points.join("L"));
    const least = inside.reduce((best, point) => (point[1] < best[1] ? point : best));
    const [cx, cy] = place(least);
    svg.querySelector(".least").setAttribute("cx", cx.toFixed(1));
    svg.querySelector(".least").setAttribute("cy", cy.toFixed(1));
    told.textContent = `${rho.toFixed(2)}: the worst loss is least at w = ${least[0].toFixed(2)}`;
  };
  slider.addEventListener("input", draw);
  draw();
});
