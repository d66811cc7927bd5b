const style = `
.course-element { margin: 1rem 0; max-width: 46rem; }
.course-element img { width: 100%; background: white; border-radius: 4px; }
.course-element label { display: flex; gap: .6rem; align-items: center; flex-wrap: wrap; }
.course-element output { min-width: 4ch; font-variant-numeric: tabular-nums; }
.course-element input[type=range] { flex: 1; min-width: 8rem; }
.course-element .panes { display: flex; gap: 1rem; flex-wrap: wrap; }
.course-element canvas { background: white; border: 1px solid #767676; max-width: 100%; }
.course-element canvas.image { width: 200px; height: 200px; image-rendering: pixelated; }
.course-element canvas.plane { touch-action: none; cursor: crosshair; }`;
if (!document.getElementById("course-element-style")) {
  const node = document.createElement("style");
  node.id = "course-element-style";
  node.textContent = style;
  document.head.append(node);
}

function read(figure) {
  return JSON.parse(figure.querySelector("script[type='application/json']").textContent);
}

function start_frames(figure) {
  const { frames, texts } = read(figure);
  const slider = figure.querySelector("input");
  const show = () => {
    figure.querySelector("img").src = frames[slider.value];
    figure.querySelector("output").textContent = texts[slider.value];
    slider.setAttribute("aria-valuetext", texts[slider.value]);
  };
  slider.addEventListener("input", show);
  show();
}

function start_plane(figure) {
  const data = read(figure);
  const floats = (text) => new Float32Array(
    Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
  const layers = data.layers.map((l) => ({ inputs: l.inputs, weight: floats(l.weight), bias: floats(l.bias) }));
  const decode = (z) => layers.reduce((input, layer, index) => {
    const output = Array.from(layer.bias, (bias, row) => {
      let sum = bias;
      for (let k = 0; k < layer.inputs; k++) sum += layer.weight[row * layer.inputs + k] * input[k];
      return sum;
    });
    return index < layers.length - 1 ? output.map((v) => Math.max(0, v)) : output;
  }, z).map((logit) => 1 / (1 + Math.exp(-logit)));

  const plane = figure.querySelector(".plane"), image = figure.querySelector(".image");
  const colours = ["#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd",
                   "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf"];
  const size = plane.width, limit = data.limit;
  const pixel = ([a, b]) => [(a / limit + 1) * size / 2, (1 - b / limit) * size / 2];
  let z = [0, 0];
  const show = () => {
    const paint = plane.getContext("2d");
    paint.clearRect(0, 0, size, size);
    data.points.forEach((point, index) => {
      const [x, y] = pixel(point);
      paint.fillStyle = colours[data.labels[index] % 10];
      paint.globalAlpha = 0.6;
      paint.fillRect(x - 2, y - 2, 4, 4);
    });
    paint.globalAlpha = 1;
    const [x, y] = pixel(z);
    paint.lineWidth = 2;
    paint.strokeStyle = "black";
    paint.beginPath();
    paint.arc(x, y, 7, 0, 2 * Math.PI);
    paint.stroke();
    const [height, width] = data.shape, values = decode(z);
    const pixels = new ImageData(width, height);
    values.forEach((value, index) => {
      const grey = Math.round(255 * value);
      pixels.data.set([grey, grey, grey, 255], 4 * index);
    });
    image.getContext("2d").putImageData(pixels, 0, 0);
    figure.querySelector("output").textContent = `z = (${z[0].toFixed(2)}, ${z[1].toFixed(2)})`;
  };
  const move = (a, b) => {
    z = [a, b].map((v) => Math.min(limit, Math.max(-limit, v)));
    show();
  };
  const follow = (event) => {
    const box = plane.getBoundingClientRect();
    move(((event.clientX - box.left) / box.width * 2 - 1) * limit,
         (1 - (event.clientY - box.top) / box.height * 2) * limit);
  };
  plane.addEventListener("pointerdown", (event) => { plane.setPointerCapture(event.pointerId); follow(event); });
  plane.addEventListener("pointermove", (event) => { if (event.buttons) follow(event); });
  plane.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (!step) return;
    event.preventDefault();
    move(z[0] + 0.1 * step[0], z[1] + 0.1 * step[1]);
  });
  show();
}
