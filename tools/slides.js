const fit = (slide) => {
  // What is too high or too wide is made smaller, down to half the size; beyond that it scrolls.
  slide.style.fontSize = "";
  const fits = () => slide.scrollHeight <= 700 && slide.scrollWidth <= slide.clientWidth + 1;
  for (let size = 100; !fits() && size > 50; size -= 5) slide.style.fontSize = size + "%";
  const element = slide.querySelector(".course-element, figure");
  if (element) for (let zoom = 100; slide.scrollHeight > 700 && zoom > 30; zoom -= 5) element.style.zoom = zoom / 100;
  if (slide.scrollHeight > 700) { slide.style.maxHeight = "700px"; slide.style.overflowY = "auto"; slide.tabIndex = 0; }
};
const begin = () => {
  if (window.MathJax && !window.MathJax.startup?.promise) return setTimeout(begin, 50);
  (window.MathJax?.startup.promise ?? Promise.resolve()).then(async () => {
    await Reveal.initialize({ hash: true, width: 1280, height: 720, margin: 0.04, center: false, slideNumber: "c/t",
      transition: "none", plugins: [RevealNotes] });
    Reveal.on("slidechanged", ({ currentSlide }) => fit(currentSlide));
    fit(Reveal.getCurrentSlide());
    document.documentElement.dataset.ready = "yes";
  });
};
window.addEventListener("load", begin);
