"""Audits every page: axe-core in light and dark, narrow screens, alternative texts, the keyboard."""

from importlib.resources import files

import pytest

pytestmark = pytest.mark.browser

AXE = (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
COLOURS = ["color-contrast", "link-in-text-block"]
# Thousands of equal nodes only cost time: the outlines of a formula's glyphs are hidden from
# assistive technology, which reads the MathML beside them, where one formula stands for all; and of each
# kind of word in highlighted code and in the signatures of the reference, one stands for all.
THIN_OUT = """() => {
  for (const drawing of document.querySelectorAll("mjx-container > svg")) drawing.replaceChildren();
  const formulas = Array.from(document.querySelectorAll("mjx-assistive-mml"));
  for (const formula of formulas.slice(1)) formula.replaceChildren();
  const seen = new Set();
  for (const word of document.querySelectorAll(":is(pre, dt.sig) span[class]")) {
    const place = word.closest("pre, dt");
    if (!place) continue;  // it went with a word around it
    const kind = `${place.tagName} ${word.className}`;
    if (seen.has(kind)) word.replaceWith(word.textContent);
    seen.add(kind);
  }
}"""
# Most of an audit's time goes into the colours of text. They follow from what the element and those around
# it are computed to look like: of the texts that agree in all of it one is judged. What is taken out of the
# flow may lie over anything, so it is judged wherever it stands.
KINDS = """() => {
  const kinds = new Map([[null, "root"]]);
  let placed = 0;
  const kindOf = node => {
    if (!kinds.has(node)) {
      const style = getComputedStyle(node);
      const free = ["absolute", "fixed", "sticky"].includes(style.position) || style.zIndex != "auto";
      kinds.set(node, [
        kindOf(node.parentElement), style.color, style.backgroundColor, style.backgroundImage,
        style.opacity, style.filter, style.mixBlendMode, style.textShadow, style.fontSize,
        style.fontWeight, style.textDecorationLine, style.borderBottom, style.display, style.visibility,
        style.clip, style.clipPath, node.matches("a, button, input, select, summary, label"),
        node.ariaDisabled, node.ariaHidden, node.getAttribute("role"), free && ++placed,
      ].join());
    }
    return kinds.get(node);
  };
  // A link is told from the text around it where there is more of that than of links.
  const outweighed = link => {
    let block = link.parentElement;
    while (getComputedStyle(block).display.startsWith("inline")) block = block.parentElement;
    const length = text => text.replace(/\\s+/g, "").length;
    const links = Array.from(block.querySelectorAll("a"), other => length(other.textContent));
    return length(block.textContent) > 2 * links.reduce((sum, one) => sum + one, 0);
  };
  const chosen = new Map();
  for (const node of document.body.querySelectorAll("*")) {
    const texts = Array.from(node.childNodes).some(child => child.nodeType == 3 && child.data.trim());
    if (!texts && !node.matches("a, input, select")) continue;
    const kind = kindOf(node) + (node.matches("a") ? outweighed(node) : "");
    if (!chosen.has(kind)) chosen.set(kind, node);
  }
  return Array.from(chosen.values());
}"""
# Without preloading: it asks for the style sheets again, which a browser refuses for local files.
RUN = """async ([of, options]) => {
  const result = await axe.run(of, {...options, resultTypes: ["violations"], preload: false});
  return result.violations
    .filter(({impact}) => ["serious", "critical"].includes(impact))
    .map(({id, impact, nodes}) => `${id} (${impact}, ${nodes.length} times): ` +
      `${nodes[0].html.slice(0, 200)} ${nodes[0].failureSummary}`);
}"""


def audit(page, **options):
    return page.evaluate(RUN, [page.evaluate_handle("document"), options])


def audit_colours(page):
    kinds = page.evaluate_handle(f"({KINDS})()")
    return page.evaluate(RUN, [kinds, {"runOnly": COLOURS}])


def test_no_serious_finding_in_light_and_dark(page):
    page.evaluate(THIN_OUT)
    page.evaluate(AXE)
    assert not audit(page, runOnly=RULES, rules={rule: {"enabled": False} for rule in COLOURS})
    assert not audit_colours(page)
    # Without motion, so that no colour is seen half-way.
    page.emulate_media(color_scheme="dark", reduced_motion="reduce")
    page.wait_for_function("document.documentElement.dataset.theme == 'dark'")
    # Nothing but the colours has changed.
    assert not audit_colours(page)


@pytest.mark.parametrize(
    ("rule", "wrong"),
    [
        ("color-contrast", "<p style='color: #999'>Grey words.</p>"),
        ("color-contrast", "<div style='opacity: 0.4'><p>Words behind a veil.</p></div>"),
        ("color-contrast", "<section style='background: #555'><p>Words on grey.</p></section>"),
        (
            "link-in-text-block",
            "<p>Many words <a href='#' style='color: #333; text-decoration: none'>a link</a> more.</p>",
        ),
    ],
)
def test_one_wrong_text_among_many_that_look_alike_is_found(visit, tmp_path, rule, wrong):
    fine = "<p>Many words and <a href='#'>a link</a> among them.</p>" * 20
    path = tmp_path / "page.html"
    head = "<!doctype html><html lang=en><title>T</title><body style='color: #000'><main>"
    path.write_text(head + fine + wrong + fine, encoding="utf-8")
    page = visit(path).page
    page.evaluate(AXE)
    found = audit_colours(page)
    page.close()
    assert [finding.split()[0] for finding in found] == [rule]
    assert "(serious, 1 times)" in found[0]


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


# What is tapped by itself; a link within a text, which shares its line with others, is not, nor is what shows
# itself only to a mouse or to the keyboard.
TOO_SMALL = """() => Array.from(document.querySelectorAll(
    `button, input, select, summary, .toctree-toggle,
     .bd-links a, .bd-sidebar-secondary a, .prev-next-area a`))
  .filter(node => node.checkVisibility({opacityProperty: true, visibilityProperty: true}))
  .filter(node => !node.closest("dialog:not([open]), .copybtn, .bd-search-container"))
  .map(node => node.closest(".choice, .course-element label:has([type=checkbox])") ?? node)
  .filter(node => {
    const box = node.getBoundingClientRect();
    return box.width && box.height && box.right > 0 && (box.width < 43.5 || box.height < 43.5);
  })
  .map(node => node.outerHTML.slice(0, 120))"""


def test_what_is_tapped_on_a_phone_is_large_enough(page):
    page.set_viewport_size({"width": 390, "height": 844})
    assert not page.evaluate(TOO_SMALL)
    for toggle in (".primary-toggle", ".secondary-toggle"):
        for button in page.locator(f"{toggle}:visible").all()[:1]:
            button.click()
            page.wait_for_selector("dialog[open]")
            assert not page.evaluate(TOO_SMALL), toggle
            page.keyboard.press("Escape")
            page.wait_for_selector("dialog[open]", state="detached")


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
