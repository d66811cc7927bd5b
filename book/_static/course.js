// What scrolls sideways by itself must be reachable by the keyboard, so that arrow keys can scroll it.
(() => {
  const wide = "article :is(div.math, span.math.wide, mjx-container[display], table, pre, div.output)";
  const reach = () => {
    // A formula within a line may scroll if it is long; a short one has at most an overhanging stroke.
    for (const node of document.querySelectorAll("article span.math")) {
      node.classList.toggle("wide", node.scrollWidth > Math.max(150, node.clientWidth + 1));
    }
    for (const node of document.querySelectorAll(wide)) {
      if (node.scrollWidth > node.clientWidth + 1) node.tabIndex = 0;
    }
  };
  window.addEventListener("load", () => {
    reach();
    window.MathJax?.startup?.promise?.then(reach);
    window.addEventListener("resize", reach);
    document.addEventListener("toggle", reach, true);  // a cell or a solution is unfolded
  });
})();
