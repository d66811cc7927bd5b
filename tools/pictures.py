"""Draws the opening pictures of the front page and of the chapters, as SVG.

    python tools/pictures.py     write book/_static/pictures/*.svg

The pictures stand on a white ground of their own, so that they read alike on light and dark pages.
"""

import math
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "book" / "_static" / "pictures"
BLUE, ORANGE, GREEN, GREY, INK = "#0072b2", "#b34a00", "#00704f", "#767676", "#222222"
PALE = "#d7e6f4"


def text(x: float, y: float, words: str, *, size: int = 15, colour: str = INK) -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{colour}" text-anchor="middle">'
        f"{words}</text>"
    )


def box(x: float, y: float, width: float, height: float, *, fill: str = "white") -> str:
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6" '
        f'fill="{fill}" stroke="{INK}"/>'
    )


def arrow(x: float, y: float, u: float, v: float, *, colour: str = INK) -> str:
    angle = math.atan2(v - y, u - x)
    left, right = (
        (u - 9 * math.cos(angle + side), v - 9 * math.sin(angle + side)) for side in (0.45, -0.45)
    )
    return (
        f'<path d="M{x:.1f} {y:.1f}L{u:.1f} {v:.1f}M{left[0]:.1f} {left[1]:.1f}L{u:.1f} {v:.1f}'
        f'L{right[0]:.1f} {right[1]:.1f}" fill="none" stroke="{colour}" stroke-width="2"/>'
    )


def curve(points: list[tuple[float, float]], *, colour: str, fill: str = "none") -> str:
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return f'<path d="M{path}" fill="{fill}" stroke="{colour}" stroke-width="2"/>'


def bell(x: float, mean: float, std: float) -> float:
    return math.exp(-0.5 * ((x - mean) / std) ** 2) / std


def density(
    left: float, base: float, distribution: object, *, colour: str, scale: float = 70
) -> str:
    """A density over [−3, 3], 150 wide, with its base line."""
    places = [-3 + 6 * i / 100 for i in range(101)]
    return curve(
        [(left + 25 * (x + 3), base - scale * distribution(x)) for x in places], colour=colour
    ) + (f'<path d="M{left:g} {base:g}h150" stroke="{GREY}"/>')


def two_bells(x: float) -> float:
    return 0.6 * bell(x, -1.2, 0.6) + 0.4 * bell(x, 1.3, 0.5)


def foundations() -> str:
    """A distribution of data, and a model that is moved towards it."""
    return "".join(
        [
            density(60, 170, two_bells, colour=INK),
            text(135, 200, "data"),
            arrow(235, 120, 330, 120),
            text(282, 105, "learn", size=13),
            density(345, 170, lambda x: bell(x, -0.2, 1.5), colour=BLUE, scale=110),
            text(420, 200, "model"),
            arrow(510, 90, 580, 60),
            arrow(510, 120, 580, 120),
            arrow(510, 150, 580, 180),
            text(635, 65, "sample"),
            text(635, 125, "score"),
            text(635, 185, "complete"),
        ]
    )


def autoregressive() -> str:
    """Pixels in raster order: those that are known, the next one, and its distribution."""
    parts = []
    for row in range(6):
        for column in range(6):
            place = 6 * row + column
            fill = PALE if place < 20 else ORANGE if place == 20 else "white"
            parts.append(box(80 + 28 * column, 30 + 28 * row, 26, 26, fill=fill))
    parts.append(arrow(165, 128, 345, 110, colour=ORANGE))
    for k, height in enumerate((10, 22, 60, 95, 50, 18, 8)):
        parts.append(box(360 + 24 * k, 170 - height, 20, height, fill=PALE))
    parts += [
        text(164, 222, "the pixels before"),
        text(444, 200, "distribution of the next pixel"),
        arrow(545, 110, 605, 110),
        text(650, 105, "draw one,"),
        text(650, 125, "and go on"),
    ]
    return "".join(parts)


def vae() -> str:
    """From an image to a cloud of codes, and from a code back to an image."""
    cloud = "".join(
        f'<ellipse cx="360" cy="115" rx="{52 * r:g}" ry="{34 * r:g}" fill="none" stroke="{BLUE}" '
        f'stroke-width="2"/>'
        for r in (0.4, 0.7, 1.0)
    )
    return "".join(
        [
            box(40, 75, 80, 80, fill=PALE),
            text(80, 122, "x", size=20),
            arrow(125, 115, 165, 115),
            box(170, 85, 90, 60),
            text(215, 120, "encoder"),
            arrow(265, 115, 302, 115),
            f'<circle cx="360" cy="115" r="90" fill="none" stroke="{GREY}" stroke-dasharray="5 4"/>',
            cloud,
            f'<circle cx="378" cy="104" r="5" fill="{ORANGE}"/>',
            text(360, 172, "q(z|x)", colour=BLUE),
            text(360, 222, "prior p(z)", colour="#595959"),
            arrow(385, 104, 462, 112, colour=ORANGE),
            text(430, 96, "z", colour=ORANGE),
            box(467, 85, 90, 60),
            text(512, 120, "decoder"),
            arrow(562, 115, 602, 115),
            box(607, 75, 80, 80, fill=PALE),
            text(647, 122, "p(x|z)", size=17),
        ]
    )


def gan() -> str:
    """Noise to examples, and a judge who sees real and generated ones."""
    return "".join(
        [
            density(20, 185, lambda x: bell(x, 0, 1), colour=GREY),
            text(95, 210, "noise z"),
            arrow(180, 160, 225, 160),
            box(230, 130, 110, 60, fill=PALE),
            text(285, 165, "generator"),
            arrow(345, 160, 405, 130, colour=ORANGE),
            text(395, 172, "generated", colour=ORANGE),
            text(300, 65, "data", colour=BLUE),
            arrow(330, 62, 405, 92, colour=BLUE),
            box(410, 80, 120, 60, fill=PALE),
            text(470, 115, "discriminator"),
            arrow(535, 110, 590, 110),
            text(645, 115, "real, or not?"),
            f'<path d="M640 128C640 235 285 245 285 196" fill="none" stroke="{GREEN}" '
            f'stroke-width="2" stroke-dasharray="6 4"/>',
            text(470, 202, "gradient", colour=GREEN),
        ]
    )


def flow() -> str:
    """A simple distribution, bent by invertible maps into that of the data."""

    def between(share: float) -> object:
        return lambda x: (1 - share) * bell(x, 0, 1) + share * two_bells(x)

    return "".join(
        [
            density(30, 160, between(1.0), colour=BLUE),
            text(105, 190, "data x"),
            arrow(195, 100, 265, 100),
            arrow(265, 125, 195, 125),
            density(285, 160, between(0.5), colour=INK),
            arrow(450, 100, 520, 100),
            arrow(520, 125, 450, 125),
            density(540, 160, between(0.0), colour=GREY),
            text(615, 190, "noise z"),
            text(360, 222, "density of x = density of z × stretching of the map", size=14),
        ]
    )


def diffusion() -> str:
    """An image under more and more noise, and the way back, which is learned."""
    digit = (
        "........",
        "..####..",
        ".....#..",
        "....#...",
        "...###..",
        "....#...",
        "...#....",
        "........",
    )
    state, parts = 1, []
    for stage, (alpha, sigma) in enumerate(((1.0, 0.0), (0.85, 0.25), (0.55, 0.5), (0.0, 0.75))):
        left = 40 + 180 * stage
        for row, line in enumerate(digit):
            for column, mark in enumerate(line):
                noise = 0.0
                for _ in range(3):  # the sum of three uniform draws is nearly normal
                    state = (1103515245 * state + 12345) % 2**31
                    noise += 2 * state / 2**31 - 1
                value = alpha * (2 * (mark == "#") - 1) + sigma * noise
                grey = round(255 * (1 - min(max(0.5 + value / 2, 0.0), 1.0)))
                parts.append(
                    f'<rect x="{left + 12 * column}" y="{62 + 12 * row}" width="12" height="12" '
                    f'fill="#{grey:02x}{grey:02x}{grey:02x}"/>'
                )
        parts.append(f'<rect x="{left}" y="62" width="96" height="96" fill="none" stroke="{INK}"/>')
        if stage < 3:
            parts += [
                arrow(left + 103, 96, left + 173, 96),
                arrow(left + 173, 126, left + 103, 126, colour=ORANGE),
            ]
    parts += [
        text(88, 186, "data x"),
        text(628, 186, "noise z"),
        text(360, 42, "add noise: a fixed Gaussian step"),
        text(360, 192, "remove noise: a learned step", colour=ORANGE),
        text(
            360, 222, "a network guesses x, and the guess tells where each step back goes", size=14
        ),
    ]
    return "".join(parts)


def flow_matching() -> str:
    """Straight paths between data and noise, and the bent ones along their mean velocity."""

    def place(t: float, x: float) -> tuple[float, float]:
        return 110 + 500 * t, 112 - 34 * x

    parts = []
    noise = (-2.1, -1.3, -0.5, 0.3, 1.1, 1.9)
    for i, end in enumerate(noise):
        start = 1 if i % 2 else -1
        parts.append(curve([place(0, start), place(1, end)], colour=GREY))
    for x in noise:
        path, steps = [(1.0, x)], 200
        for step in range(steps, 1, -1):
            # The mean of the data ±1 given x at time t is tanh((1 − t) x / t²).
            t = step / steps
            x -= (x - math.tanh((1 - t) * x / t**2)) / t / steps
            path.append((t - 1 / steps, x))
        parts.append(curve([place(*point) for point in path], colour=BLUE))
    parts += [
        text(60, 82, "data"),
        text(60, 152, "data"),
        text(660, 117, "noise"),
        text(360, 20, "pairs: straight lines that cross", colour=INK, size=14),
        text(360, 222, "along the mean velocity: bent, and never crossing", colour=BLUE, size=14),
    ]
    return "".join(parts)


def comparison() -> str:
    """Two wrong models of one distribution: a wide one that covers it, a sharp one that misses a mode."""

    def sharp(x: float) -> float:
        return bell(x, -1.2, 0.6)

    def wide(x: float) -> float:
        return bell(x, -0.2, 1.4)

    parts = []
    for left, model, name, good, bad in (
        (110, wide, "wide", "no example is improbable", "many samples are wrong"),
        (460, sharp, "sharp", "every sample looks right", "some examples are impossible"),
    ):
        parts += [
            density(left, 140, two_bells, colour=GREY),
            density(left, 140, model, colour=BLUE if name == "wide" else ORANGE),
            text(left + 75, 170, f"{name} model", size=15),
            text(left + 75, 196, f"+ {good}", size=14, colour=GREEN),
            text(left + 75, 218, f"− {bad}", size=14, colour=ORANGE),
        ]
    return "".join(parts)


def course() -> str:
    """The chapters, and what each makes possible."""
    leaves = (
        (62, "2  Autoregressive", "exact, one by one", BLUE),
        (181, "5  Flows", "exact, invertible", GREEN),
        (300, "7  Flow matching", "exact, by an ODE", GREEN),
        (420, "6  Diffusion", "a bound, in steps", BLUE),
        (539, "3  VAE", "a lower bound", BLUE),
        (658, "4  GAN", "samples only", ORANGE),
    )
    parts = [
        box(235, 12, 250, 44, fill=PALE),
        text(360, 39, "1  Foundations: a distribution to learn", size=14),
    ]
    for x, name, what, colour in leaves:
        parts += [
            arrow(360, 60, x, 108, colour=GREY),
            box(x - 57, 112, 114, 66),
            text(x, 138, name, colour=colour, size=13),
            text(x, 162, what, size=12),
        ]
    parts.append(text(360, 215, "every equation tested · every figure computed", size=14))
    return "".join(parts)


def picture(draw: object) -> str:
    """A whole file; its title is the drawing's description."""
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 240" '
        f'font-family="sans-serif"><title>{draw.__doc__.splitlines()[0]}</title>'
        f'<rect width="720" height="240" rx="8" fill="white"/>{draw()}</svg>\n'
    )


PICTURES = {
    f.__name__: f
    for f in (
        course,
        foundations,
        autoregressive,
        vae,
        gan,
        flow,
        diffusion,
        flow_matching,
        comparison,
    )
}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, draw in PICTURES.items():
        (FOLDER / f"{name}.svg").write_text(picture(draw), encoding="utf-8")


if __name__ == "__main__":
    main()
