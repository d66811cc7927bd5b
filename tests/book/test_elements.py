"""What an element computes in the page equals what the library computes, in a real browser."""

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import shared_elements
import torch
from PIL import Image
from torch import nn
from torch.distributions import Normal

from course_lib import widgets
from course_lib.diffusion import ancestral, ddim, guided, heun, samplers
from course_lib.divergences import kl_univariate_gaussian
from course_lib.experiments.page_decoder import decoder_path, read_decoder
from course_lib.gan import dirac, jensen_shannon, optimal_discriminator
from course_lib.live import coarse_noise, fixed_noise
from course_lib.mixtures import GaussianMixture
from course_lib.schedules import LinearLogSNR, LinearPath
from course_lib.solvers import integrate, time_grid
from tests.book.conftest import Visit
from tests.diffusion.exact import plane

pytestmark = pytest.mark.browser
RESULTS = Path(__file__).parents[2] / "results"
ALT = "an element that is tested on its own"


@pytest.fixture(scope="module")
def window(browser, tmp_path_factory):
    """One window for all elements, each of which is a page of its own."""
    path = tmp_path_factory.mktemp("elements") / "page.html"
    path.touch()
    opened = Visit(browser, path)
    yield opened
    opened.page.close()


@pytest.fixture
def show(window, tmp_path):
    """Open a page with nothing but one element; returns it."""

    def show(element):
        path = tmp_path / "page.html"
        path.write_text(f"<!doctype html><meta charset=utf-8>{element.markup}", encoding="utf-8")
        window.open(path)
        assert not window.errors
        return window.page.locator(".course-element")

    return show


def numbers_in(text):
    found = re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e-?\d+)?", text.replace("−", "-"))
    return [float(number) for number in found]


def numbers(figure):
    return numbers_in(figure.locator("p output").inner_text())


def set_slider(figure, name, value):
    figure.locator(f"[name={name}]").evaluate(
        "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input')); }",
        str(value),
    )


@pytest.mark.parametrize("half", [False, True])
def test_decoded_image_is_that_of_torch(show, half):
    torch.manual_seed(1)
    decoder = nn.Sequential(
        nn.Linear(2, 30),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(30, 20),
        nn.Tanh(),
        nn.Linear(20, 8),
        nn.Linear(8, 12),
    ).eval()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter *= 3  # from black to white, as a trained decoder does
    figure = show(
        widgets.latent_plane(
            decoder,
            image_shape=(3, 4),
            points=torch.zeros(1, 2),
            labels=torch.zeros(1, dtype=torch.long),
            half_precision=half,
            alt=ALT,
        )
    )
    # Weights that are rounded to eleven digits shift a pixel by less than another grey level.
    error = (2 if half else 1) / 255
    plane, page = figure.locator("canvas.plane"), figure.page
    box = plane.bounding_box()
    for x, y in ((0.1, 0.2), (0.8, 0.3), (0.45, 0.9)):
        page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])
        z = torch.tensor(json.loads(figure.get_attribute("data-z")))
        torch.testing.assert_close(z, torch.tensor([6 * x - 3, 3 - 6 * y]), atol=0.05, rtol=0)
        shown = figure.locator("canvas.image").evaluate(
            "c => Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data)"
        )
        grey = torch.tensor(shown[::4]) / 255
        with torch.no_grad():
            expected = decoder(z).sigmoid()
        assert expected.max() - expected.min() > 0.5
        torch.testing.assert_close(grey, expected, atol=error, rtol=0)


def test_the_recorded_decoder_draws_in_the_page_what_it_draws_in_torch(show):
    """Digits of MNIST, by pointer and by keys, with an accessible name, within a third of a megabyte."""
    stored = read_decoder(decoder_path(RESULTS))
    element = widgets.latent_plane(
        stored.decoder, image_shape=(28, 28), points=stored.points, labels=stored.labels,
        half_precision=True, alt=ALT,
    )  # fmt: skip
    assert len(element.markup) < 500_000
    figure = show(element)
    plane, page = figure.locator("canvas.plane"), figure.page
    assert plane.get_attribute("aria-label").startswith(ALT)
    assert figure.locator("canvas.image").get_attribute("aria-label")

    def compare():
        z = torch.tensor(json.loads(figure.get_attribute("data-z")))
        shown = figure.locator("canvas.image").evaluate(
            "c => Array.from(c.getContext('2d').getImageData(0, 0, 28, 28).data)"
        )
        with torch.no_grad():
            expected = stored.decoder(z).sigmoid()
        assert expected.max() > 0.8
        torch.testing.assert_close(torch.tensor(shown[::4]) / 255, expected, atol=1 / 255, rtol=0)
        return z

    box = plane.bounding_box()
    for x, y in ((0.2, 0.3), (0.7, 0.25), (0.55, 0.8), (0.97, 0.03)):
        page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])
        before = compare()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowUp")
    moved = compare() - before
    assert moved[0] == pytest.approx(-0.1, abs=1e-5)
    assert moved[1] >= 0


@pytest.mark.parametrize(
    ("mean_p", "std_p", "mean_q", "std_q"), [(0, 1, 1, 0.5), (-1.3, 2.2, 0.8, 0.6)]
)
def test_divergences_of_gaussians(show, float64, mean_p, std_p, mean_q, std_q):
    figure = show(widgets.gaussian_pair(alt=ALT))
    values = {"mean_p": mean_p, "std_p": std_p, "mean_q": mean_q, "std_q": std_q}
    for name, value in values.items():
        set_slider(figure, name, value)
    mean_p, std_p, mean_q, std_q = map(torch.tensor, values.values())
    forward = kl_univariate_gaussian(mean_p, std_p, mean_q, std_q).item()
    reverse = kl_univariate_gaussian(mean_q, std_q, mean_p, std_p).item()
    assert numbers(figure) == pytest.approx([reverse, forward], abs=6e-5)


def test_optimal_discriminator_is_drawn(show, float64):
    p, q = Normal(-0.5, 0.8), Normal(0.9, 1.4)
    figure = show(widgets.gaussian_pair(p=(-0.5, 0.8), q=(0.9, 1.4), discriminator=True, alt=ALT))
    grid = torch.linspace(-30, 30, 6001)
    divergence = jensen_shannon(p.log_prob, q.log_prob, grid).item()
    found = numbers(figure)
    # The text reads "value of the game 2·JSD − log 4 = …": the last number is the value.
    assert found[0] == pytest.approx(divergence, abs=6e-5)
    assert found[-1] == pytest.approx(2 * divergence - torch.tensor(4.0).log().item(), abs=6e-5)
    path = figure.locator("svg > path[stroke=black][d*=L]").get_attribute("d")
    places = torch.tensor([[float(v) for v in pair.split()] for pair in re.split("[ML]", path)[1:]])
    x = -6 + 12 * (places[:, 0] - 36) / (560 - 36 - 8)
    height = (240 - 22 - places[:, 1]) / (240 - 22 - 8)
    expected = optimal_discriminator(p.log_prob(x), q.log_prob(x))
    torch.testing.assert_close(height, expected, atol=2e-3, rtol=0)  # a tenth of a pixel each way


@pytest.mark.parametrize("alternating", [False, True])
@pytest.mark.parametrize("loss", ["minimax", "non-saturating"])
@pytest.mark.parametrize(("gamma", "rate"), [(0.0, 0.2), (0.3, 0.35), (2.0, 0.2)])
def test_orbit_is_that_of_the_library(show, gamma, rate, loss, alternating):
    figure = show(widgets.dirac_orbit(gamma=gamma, start=(1.0, -0.7), steps=60, alt=ALT))
    set_slider(figure, "rate", rate)
    figure.locator("select").select_option(loss)
    figure.locator("input[type=checkbox]").set_checked(alternating)
    method = (dirac.minimax if loss == "minimax" else dirac.non_saturating)(gamma)
    path = dirac.trajectory(method, (1.0, -0.7), 60, rate, alternating=alternating)
    modulus = dirac.update_eigenvalues(method, rate, alternating=alternating).abs().max().item()
    *_, steps, end, shown = numbers(figure)
    assert steps == 60
    assert end == pytest.approx(path[-1].norm().item(), rel=6e-3)
    assert shown == pytest.approx(modulus, abs=6e-5)


def test_chosen_pixel_shows_its_field(show):
    generator = torch.Generator().manual_seed(0)
    order = torch.arange(20)
    fields = {
        name: (torch.rand(20, 20, generator=generator) < 0.5) & (order[None] < order[:, None])
        for name in ("first", "second")
    }
    element = widgets.receptive_field(
        {name: field.view(4, 5, 4, 5) for name, field in fields.items()}, alt=ALT
    )
    figure = show(element)
    svg = figure.locator("svg")
    box = svg.bounding_box()
    for row, column, model in ((2, 3, "first"), (3, 1, "second")):
        figure.locator("select").select_option(model)
        x, y = (column + 0.5) / 5 * box["width"], (row + 0.5) / 4 * box["height"]
        svg.click(position={"x": x, "y": y})
        place = 5 * row + column
        seen = fields[model][place]
        fills = figure.locator("rect").evaluate_all("all => all.map(r => r.getAttribute('fill'))")
        assert [fill == "#56a0d3" for fill in fills] == seen.tolist()
        count = int(seen.sum())
        assert numbers(figure) == [row + 1, column + 1, count, place, place - count]


def test_revealed_pixels_and_their_cost(show):
    torch.manual_seed(0)
    image = torch.randint(0, 5, (3, 4))
    probabilities = torch.randn(3, 4, 5).softmax(-1)
    figure = show(widgets.pixel_reveal(image, probabilities, alt=ALT))
    bits = -probabilities.gather(-1, image.unsqueeze(-1)).flatten().log2()
    for known in (0, 5, 11):
        set_slider(figure, "known", known)
        pixel, level, probability, cost, average = numbers(figure)
        assert (pixel, level) == (known + 1, image.flatten()[known])
        assert probability == pytest.approx(0.5 ** bits[known].item(), abs=6e-4)
        assert cost == pytest.approx(bits[known].item(), abs=6e-3)
        assert average == pytest.approx(bits[: known + 1].mean().item(), abs=6e-4)
        squares = figure.locator("svg").first.locator("rect")
        fills = squares.evaluate_all("all => all.map(r => r.getAttribute('fill'))")[:12]
        greys = [round(255 * v / 4) for v in image.flatten().tolist()]
        assert fills == [
            f"rgb({g} {g} {g})" if i < known else "#a9c8e0" for i, g in enumerate(greys)
        ]


def press(figure, x, y, limit=2.8):
    """Press at a place of the plane; the point that is there then, as the page has rounded it."""
    svg = figure.locator("svg")
    box, height = svg.bounding_box(), float(svg.get_attribute("viewBox").split()[-1])
    unit = box["width"] / 400
    assert box["height"] == pytest.approx(height * unit, abs=1)
    across = 36 + (x + limit) / (2 * limit) * (400 - 36 - 8)
    down = 400 - 22 - (y + limit) / (2 * limit) * (400 - 22 - 8)
    figure.page.mouse.click(box["x"] + across * unit, box["y"] + down * unit)


def test_noised_mixture_is_that_of_the_library(show, float64):
    mixture, limit = plane(), 2.8
    figure = show(widgets.noised_mixture(mixture, alt=ALT))
    places = torch.arange(-6.0, 7) * limit / 6.5
    starts = torch.cartesian_prod(places, places)
    side = limit * ((2 * torch.arange(90) + 1) / 90 - 1)
    points = torch.stack(torch.meshgrid(side, -side, indexing="xy"), -1).view(-1, 2)
    for log_snr, x, y in ((1.0, 0.6, 0.3), (-2.5, -1.9, 1.4), (6.0, 0.9, -0.5)):
        set_slider(figure, "log_snr", log_snr)
        press(figure, x, y)
        shown_snr, alpha, sigma, *z = numbers(figure)[:5]
        assert z == pytest.approx([x, y], abs=0.02)
        level = torch.tensor([log_snr, -log_snr]).sigmoid().sqrt()
        assert [shown_snr, alpha, sigma] == pytest.approx([log_snr, *level.tolist()], abs=6e-4)
        z = torch.tensor([z])
        score, clean = mixture.score(z, *level)[0], mixture.posterior_mean(z, *level)[0]
        known = [*mixture.log_prob(z, *level).tolist(), *score.tolist(), *clean.tolist()]
        assert numbers(figure)[5:] == pytest.approx(known, abs=6e-4)
        # The arrows: 13 by 13 of them, in the direction of the score, rounded to a tenth at each end.
        path = figure.locator("svg > path[stroke='#555']").get_attribute("d")
        ends = re.findall(r"M([-\d.]+) ([-\d.]+)L([-\d.]+) ([-\d.]+)", path)
        ends = torch.tensor([[float(v) for v in end] for end in ends])
        score = mixture.score(starts, *level)
        length = score.norm(dim=1, keepdim=True)
        drawn = (ends[:, 2:] - ends[:, :2]) * torch.tensor([1.0, -1.0])
        expected = 22 * (length / 3).tanh() * score / length
        torch.testing.assert_close(drawn, expected, atol=0.11, rtol=0)
        # The shade: the root of the density, as a share of the highest.
        data = figure.locator("svg > image").get_attribute("href").split(",")[1]
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
        log_p = mixture.log_prob(points, *level)
        share = ((log_p - log_p.max()) / 2).exp().view(90, 90).numpy()
        assert np.abs((255.0 - picture[..., 0]) / 165 - share).max() < 1 / 165


@pytest.mark.parametrize("schedule", [LinearLogSNR(6.0, -6.0), LinearPath()], ids=["λ", "path"])
def test_sampling_paths_are_those_of_the_library(show, float64, monkeypatch, schedule):
    mixture, is_path = plane(), isinstance(schedule, LinearPath)
    denoise, first = mixture.denoiser(schedule), "Euler" if is_path else "DDIM"
    figure = show(widgets.sampling_paths(mixture, schedule=schedule, seed=3, alt=ALT))

    def velocity(z, t):
        return mixture.velocity(z, t, schedule)

    for steps, x, y, method in (
        (1, -1.9, 1.3, first),
        (8, 0.9, -0.4, "Heun"),
        (16, 0.9, -0.4, first),
        (64, 1.5, 1.1, "Heun"),
    ):
        set_slider(figure, "steps", steps.bit_length() - 1)
        figure.locator("select").select_option(method)
        press(figure, x, y)
        shown = numbers(figure)
        assert shown[:2] == pytest.approx([x, y], abs=0.02)
        assert shown[4] == steps
        z, times = torch.tensor([shown[:2]]), time_grid(steps)
        exact = integrate(velocity, z, time_grid(160), "rk4")[0]
        if method == first:
            end = ddim(denoise, schedule, z, times)[0]
        elif is_path:
            end = integrate(velocity, z, times, "heun")[0]
        else:
            end = heun(denoise, schedule, z, times)[0]
        fresh = iter(coarse_noise(fixed_noise(3), steps))
        with monkeypatch.context() as patched:
            patched.setattr(samplers, "_noise", lambda z, _, fresh=fresh: next(fresh)[None])
            random = ancestral(denoise, schedule, z, times)[0]
        assert shown[2:4] == pytest.approx(exact.tolist(), abs=6e-4)
        assert shown[5:7] == pytest.approx(end.tolist(), abs=6e-4)
        assert shown[7] == pytest.approx((end - exact).norm().item(), rel=6e-3, abs=2e-6)
        assert shown[8:] == pytest.approx(random.tolist(), abs=6e-4)
        drawn = figure.locator("svg > path[stroke='#00507a']").first.get_attribute("d")
        assert len(re.findall("[ML]", drawn)) == steps + 1


def test_the_path_of_a_pair_is_straight_and_midpoint_is_that_of_the_library(show, float64):
    mixture, path = plane(), LinearPath()
    figure = show(widgets.sampling_paths(mixture, schedule=path, example=(1.0, -0.4), alt=ALT))
    for steps, x, y in ((1, -1.9, 1.3), (8, 0.9, -0.4)):
        set_slider(figure, "steps", steps.bit_length() - 1)
        figure.locator("select").select_option("midpoint")
        press(figure, x, y)
        shown = numbers(figure)
        z = torch.tensor([shown[:2]])
        end = integrate(lambda z, t: mixture.velocity(z, t, path), z, time_grid(steps), "midpoint")
        assert shown[5:7] == pytest.approx(end[0].tolist(), abs=6e-4)
        assert shown[8:] == [1.0, -0.4]
        drawn = figure.locator("svg > path[stroke='#8a3800']").first.get_attribute("d")
        assert len(re.findall("[ML]", drawn)) == 2


def test_fixed_noise_of_long_steps_is_standard_normal():
    noise = torch.stack([fixed_noise(seed) for seed in range(300)])
    for steps in (1, 8, 128):
        coarse = torch.stack([coarse_noise(each, steps) for each in noise])
        assert coarse.shape == (300, steps, 2)
        assert abs(coarse.var().item() - 1) < 4 * (2 / coarse.numel()) ** 0.5


def test_guided_density_is_that_of_the_library(show, float64):
    figure, path = show(widgets.guided_gaussian(alt=ALT)), LinearPath()
    own, every = (
        GaussianMixture(torch.ones(1), torch.tensor([[m]]), torch.tensor([[[c]]]))
        for m, c in ((1.0, 0.3), (0.0, 1.0))
    )
    x = torch.linspace(-6, 8, 2001)[:, None]
    for w in (0.0, 2.0, 2.7):
        set_slider(figure, "w", w)

        def velocity(z, t, w=w):
            return guided(own.velocity(z, t, path), every.velocity(z, t, path), w)

        low, high = integrate(velocity, torch.tensor([[0.0], [1.0]]), time_grid(160), "rk4")[:, 0]
        variance = 0.3 ** (1 + w)
        assert (high - low).item() ** 2 == pytest.approx(variance, rel=1e-6)
        # Mean and variance of the tilted density by quadrature.
        p = ((1 + w) * own.log_prob(x) - w * every.log_prob(x)).softmax(0)
        mean = (p @ x).item()
        spread = (p @ (x - mean) ** 2).item()
        shown = numbers(figure)
        assert shown[0] == w
        assert shown[1::2] == pytest.approx([low.item(), mean], abs=6e-4)
        assert shown[2::2] == pytest.approx([variance, spread], abs=6e-5)


ELEMENTS = [
    widgets.gaussian_pair(alt=ALT),
    widgets.gaussian_pair(q=(-0.5, 2.0), discriminator=True, alt=ALT),
    widgets.dirac_orbit(gamma=0.2, alt=ALT),
    widgets.receptive_field({"m": torch.tril(torch.ones(20, 20), -1).view(4, 5, 4, 5)}, alt=ALT),
    widgets.pixel_reveal(torch.ones(2, 2), torch.full((2, 2, 3), 1 / 3), alt=ALT),
    widgets.noised_mixture(plane(), alt=ALT),
    widgets.sampling_paths(plane(), alt=ALT),
    widgets.sampling_paths(plane(), schedule=LinearPath(), alt=ALT),
    widgets.guided_gaussian(alt=ALT),
]


@pytest.mark.parametrize("element", ELEMENTS, ids=lambda element: str(element).split(":")[0])
def test_page_and_live_notebook_start_alike(show, element):
    live = re.search(r'<p role="status">(.*?)</p>', element.widgets().children[-2].value)[1]
    # Trailing zeros and a digit at the border of rounding may differ, words may not.
    page = show(element).locator("p output").inner_text()
    assert re.sub(r"[\d.]+", "", live) == re.sub(r"[\d.]+", "", page)
    assert numbers_in(live) == pytest.approx(numbers_in(page), rel=6e-3, abs=1e-4)


def test_elements_of_a_page_share_one_script(show, visit, tmp_path):
    """With the script and the style of the site in place of their own they start as they do alone."""
    alone = [show(element).locator("p output").inner_text() for element in ELEMENTS]
    (tmp_path / "elements.js").write_text(shared_elements.shared_script(), encoding="utf-8")
    (tmp_path / "elements.css").write_text(shared_elements.shared_style(), encoding="utf-8")
    kept = [shared_elements.own_part(element.markup) for element in ELEMENTS]
    assert "function" not in "".join(kept)
    page = '<!doctype html><meta charset=utf-8><link rel="stylesheet" href="elements.css">'
    page += '<script defer src="elements.js"></script>' + "".join(kept)
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    opened = visit(tmp_path / "page.html")
    assert not opened.errors
    assert opened.page.locator(".course-element p output").all_inner_texts() == alone


def test_without_a_script_an_element_says_so(browser, tmp_path):
    (tmp_path / "page.html").write_text(ELEMENTS[0].markup, encoding="utf-8")
    page = browser.new_page(java_script_enabled=False)
    page.goto((tmp_path / "page.html").as_uri())
    assert "needs JavaScript" in page.locator("body").inner_text()
    assert ALT in page.locator("body").inner_text()
    assert not page.locator("svg, input").first.is_visible()
    page.close()
