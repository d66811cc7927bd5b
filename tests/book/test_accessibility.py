"""Audits every page: axe-core in light and dark, narrow screens, alternative texts, the keyboard."""

from importlib.resources import files

import pytest

pytestmark = pytest.mark.browser

AXE = (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
# Thousands of equal nodes only cost time: the outlines of a formula's glyphs are hidden from
# assistive technology, which reads the MathML beside them; and of each kind of word in
# highlighted code and in the signatures of the reference, one stands for all.
THIN_OUT = """() => {
  for (const drawing of document.querySelectorAll("mjx-container > svg")) drawing.replaceChildren();
  const seen = new Set();
  for (const word of document.querySelectorAll(":is(pre, dt.sig) span[class]")) {
    const place = word.closest("pre, dt");
    if (!place) continue;  // it went with a word around it
    const kind = `${place.tagName} ${word.className}`;
    if (seen.has(kind)) word.replaceWith(word.textContent);
    seen.add(kind);
  }
}"""
# Without preloading: it asks for the style sheets again, which a browser refuses for local files.
RUN = """async (options) => {
  const result = await axe.run(document, {...options, resultTypes: ["violations"], preload: false});
  return result.violations
    .filter(({impact}) => ["serious", "critical"].includes(impact))
    .map(({id, impact, nodes}) => `${id} (${impact}, ${nodes.length} times): ` +
      `${nodes[0].html.slice(0, 200)} ${nodes[0].failureSummary}`);
}"""


def audit(page, **options):
    return page.evaluate(RUN, options)


def test_no_serious_finding_in_light_and_dark(page):
    page.evaluate(THIN_OUT)
    page.evaluate(AXE)
    assert not audit(page, runOnly=RULES)
    # Without motion, so that no colour is seen half-way.
    page.emulate_media(color_scheme="dark", reduced_motion="reduce")
    page.wait_for_function("document.documentElement.dataset.theme == 'dark'")
    # Nothing but the colours has changed.
    assert not audit(page, runOnly=["color-contrast", "link-in-text-block"])


def test_narrow_screens_scroll_in_one_direction(page):
    page.set_viewport_size({"width": 375, "height": 800})
    wide = page.evaluate(
        """() => document.documentElement.scrollWidth <= 375 ? [] :
           Array.from(document.querySelectorAll("article *, .bd-header *, footer *"))
             .filter(node => node.getBoundingClientRect().right > 376)
             .map(node => node.outerHTML.slice(0, 150)).slice(0, 3)"""
    )
    assert not wide, "wider than the screen"
    # What scrolls by itself must be reached by the keyboard; the theme looks half a second after
    # a change of size.
    page.wait_for_function(
        """() => Array.from(document.querySelectorAll("article *"))
             .filter(node => node.scrollWidth > node.clientWidth + 1 && node.clientWidth > 0)
             .filter(node => ["auto", "scroll"].includes(getComputedStyle(node).overflowX))
             .filter(node => node.tabIndex < 0 && !node.querySelector("a, button, [tabindex='0']"))
             .length == 0""",
        timeout=3_000,
    )


def test_figures_have_alternative_texts(page):
    texts = page.evaluate(
        "Array.from(document.querySelectorAll('article.bd-article img'), image => image.alt)"
    )
    texts += page.evaluate(
        """Array.from(document.querySelectorAll('.course-element :is(svg, canvas)'),
                      node => node.getAttribute('aria-label') ?? '')"""
    )
    for text in texts:
        assert len(text.split()) > 3, f"no alternative text but {text!r}"
        assert "/" not in text.split()[0], f"a path for an alternative text: {text!r}"


def test_everything_that_acts_is_reached_by_the_keyboard(page):
    unreachable = page.evaluate(
        """() => {
          const acts = ":is(a[href], button, input, select, summary, [role], [onclick])";
          const roles = ["button", "application", "link", "slider", "tab"];
          return Array.from(document.querySelectorAll(`main ${acts}`))
            .filter(node => !node.hasAttribute("role") || roles.includes(node.getAttribute("role")))
            .filter(node => node.checkVisibility({visibilityProperty: true}) && !node.disabled)
            .filter(node => node.tabIndex < 0)
            .map(node => node.outerHTML.slice(0, 200));
        }"""
    )
    assert not unreachable
    # Real presses of the key reach every control of every element, in order and without a trap.
    controls = page.locator(".course-element :is(input, select, [tabindex])")
    wanted = controls.count()
    if not wanted:
        return
    controls.first.focus()
    reached = 1
    for _ in range(wanted + 200):
        if reached == wanted:
            break
        page.keyboard.press("Tab")
        reached += page.evaluate(
            "!!document.activeElement.matches('.course-element :is(input, select, [tabindex])')"
        )
    assert reached == wanted


def test_reduced_motion_is_respected(page):
    page.emulate_media(reduced_motion="reduce")
    moving = page.evaluate(
        """Array.from(document.querySelectorAll("body *")).filter(node => {
             const style = getComputedStyle(node);
             const takes = times => times.split(",").some(time => parseFloat(time) > 0);
             return takes(style.transitionDuration) ||
               (style.animationName != "none" && takes(style.animationDuration));
           }).map(node => node.outerHTML.slice(0, 100)).slice(0, 3)"""
    )
    assert not moving
    assert page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"
