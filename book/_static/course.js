// What scrolls sideways by itself must be reachable by the keyboard, so that arrow keys can scroll it.
(() => {
  const wide = "article :is(div.math, mjx-container[display], table, pre, div.output)";
  const reach = () => {
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
