"""No point without its work: the cheapest wrong answers to each question, as a student would write them.

Every one is refused for every submission, by what its own hidden probes tell apart. And no point is lost
to the form of a right answer.
"""

import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from course_lib.checking.answers import as_arrays, as_function
from course_lib.checking.checking import diagnosis, evaluate, shows
from course_lib.checking.compare import agree
from course_lib.checking.public import load
from course_lib.grading.question import Question

from .assignments import ASSIGNMENTS

V, G, A, N, D, M = (
    sys.modules[f"questions_of_{name}"]
    for name in ("vae", "gan", "autoregressive", "flow", "diffusion", "flow_matching")
)
QUESTIONS = {
    f"{a.name}.{q.name}": q for a in ASSIGNMENTS for q in a.questions if isinstance(q, Question)
}
KEYS = [("of the tests", f"student {k}") for k in range(50)]


def changed(reference, change):
    """An answer that applies `change` to what the reference gives."""

    def answer(*inputs):
        result = reference(*inputs)
        return tuple(map(change, result)) if isinstance(result, tuple) else change(result)

    return answer


def with_inputs(reference, change):
    """An answer that calls the reference with other inputs."""
    return lambda *inputs: reference(*change(*inputs))


def unsigned(x):
    return x.abs() if isinstance(x, torch.Tensor) and x.is_floating_point() else x


def of_moduli(*positions):
    """Change of inputs: those at `positions` lose their sign."""
    return lambda *x: [unsigned(v) if k in positions else v for k, v in enumerate(x)]


def replaced(position, value):
    """Change of inputs: another value in one place."""
    return lambda *x: [value(*x) if k == position else v for k, v in enumerate(x)]


# What is wrong with each answer is its key; nothing of it needs a derivation.
WRONG = {
    "vae.kl_gaussians": {
        "0": "0",
        "modulus of the logarithm": (
            "Abs(log(sigma_p/sigma_q)) + (sigma_q**2 + (mu_q-mu_p)**2)/(2*sigma_p**2) - 1/2"
        ),
        "moduli of the means": (
            "log(sigma_p/sigma_q) + (sigma_q**2 + (Abs(mu_q)-Abs(mu_p))**2)/(2*sigma_p**2) - 1/2"
        ),
        "opposite means": (
            "log(sigma_p/sigma_q) + (sigma_q**2 + (Abs(mu_q)+Abs(mu_p))**2)/(2*sigma_p**2) - 1/2"
        ),
        "no means": "log(sigma_p/sigma_q) + sigma_q**2/(2*sigma_p**2) - 1/2",
        "smaller variance on top": (
            "Max(log(sigma_p/sigma_q), 0) + (sigma_q**2 + (mu_q-mu_p)**2)/(2*sigma_p**2) - 1/2"
        ),
    },
    "vae.kl_diagonal": {
        "zeros": lambda m, v, pm, pv: torch.zeros(len(m)),
        "first dimension": lambda m, v, pm, pv: V.kl_diagonal(m[:, :1], v[:, :1], pm[:1], pv[:1]),
        "three dimensions": lambda m, v, pm, pv: V.kl_diagonal(m[:, :3], v[:, :3], pm[:3], pv[:3]),
        "mean of the batch": lambda *x: V.kl_diagonal(*x).mean().expand(len(x[0])),
        "moduli of log-variances": with_inputs(V.kl_diagonal, of_moduli(1, 3)),
        "wider priors only": lambda m, v, pm, pv: V.kl_diagonal(m, v.minimum(pv), pm, pv),
        "moduli of means": with_inputs(V.kl_diagonal, of_moduli(0, 2)),
    },
    "vae.gap": {
        "zeros": dict.fromkeys(V.gap_table(), 0.0),
        "three digits": {k: float(f"{v:.3g}") for k, v in V.gap_table().items()},
        "one of three": V.gap_table() | {"kl_to_posterior": 0.0},
        "without a key": {k: v for k, v in V.gap_table().items() if k != "elbo"},
        "rearranged": dict(zip(V.gap_table(), reversed(V.gap_table().values()), strict=True)),
    },
    "vae.gaussian_nll": {
        "zeros": lambda x, m, v: torch.zeros(len(x)),
        "squares of H": lambda x, m, v: (
            0.5
            * (
                ((x - m) ** 2).sum((1, 2, 3)) / v.exp()
                + x.shape[1] * x.shape[2] ** 2 * (v + N.LOG_2PI)
            )
        ),
        "30 pixels": lambda x, m, v: (
            0.5 * (((x - m) ** 2).sum((1, 2, 3)) / v.exp() + 30 * (v + N.LOG_2PI))
        ),
        "mean of the batch": lambda *x: V.gaussian_nll(*x).mean().expand(len(x[0])),
        "modulus of the log-variance": with_inputs(V.gaussian_nll, of_moduli(2)),
        "first channel": lambda x, m, v: V.gaussian_nll(x[:, :1], m[:, :1], v),
        "one variance": lambda x, m, v: V.gaussian_nll(x, m, v.mean().expand_as(v)),
    },
    "vae.lognormal_sample": {
        "noise": lambda m, v, e: e.exp(),
        "mean": lambda m, v, e: m.exp().expand_as(e),
        "own noise": lambda m, v, e: V.lognormal_sample(m, v, torch.randn_like(e)),
        "modulus of the log-variance": with_inputs(V.lognormal_sample, of_moduli(1)),
        "modulus of the noise": with_inputs(V.lognormal_sample, of_moduli(2)),
        "one draw": lambda m, v, e: V.lognormal_sample(m, v, e[:1].expand_as(e)),
        "unit variance": lambda m, v, e: (m + e).exp(),
    },
    "vae.renyi_bound": {
        "largest weight": lambda w, a: w.max(0).values,
        "naive": lambda w, a: ((1 - a) * w).exp().mean(0).log() / (1 - a),
        "one scale for all examples": lambda w, a: (
            w.max() + ((1 - a) * (w - w.max())).exp().mean(0).log() / (1 - a)
        ),
        "α = ¼": lambda w, a: V.renyi_bound(w, 0.25),
        "clamped": lambda w, a: V.renyi_bound(w.clamp(min=-100), a),
        "α/2": lambda w, a: V.renyi_bound(w, a / 2),
        "mean of the batch": lambda w, a: V.renyi_bound(w, a).mean().expand(w.shape[1]),
        "normal approximation": lambda w, a: w.mean(0) + (1 - a) / 2 * w.var(0),
    },
    "vae.negative_elbo": {
        "0": lambda x, kl: 0.0,
        "moduli of the log-likelihoods": with_inputs(V.negative_elbo, of_moduli(0)),
        "negative log-likelihoods only": lambda x, kl: V.negative_elbo(x.clamp(max=0), kl),
        "modulus of the loss": changed(V.negative_elbo, torch.abs),
        "first example": lambda x, kl: V.negative_elbo(x[:1], kl[:1]),
        "no KL": lambda x, kl: -x.sum() / len(x),
        "four examples": lambda x, kl: (kl.sum() - x.sum()) / 4,
        "means of the two": lambda x, kl: kl.sum(1).mean() - x.mean((2, 3)).sum(1).mean(),
    },
    "vae.score_gradient": {
        "zeros": lambda f, z, m, v: torch.zeros_like(m),
        "baseline": lambda f, z, m, v: V.score_gradient(f - f.mean(), z, m, v),
        "moduli of the values": with_inputs(V.score_gradient, of_moduli(0)),
        "modulus of the log-variance": with_inputs(V.score_gradient, of_moduli(3)),
        "unit variance": lambda f, z, m, v: V.score_gradient(f, z, m, 0 * v),
        "sum over dimensions": lambda *x: V.score_gradient(*x).sum().expand_as(x[2]),
        "n − 1": lambda *x: V.score_gradient(*x) * len(x[0]) / (len(x[0]) - 1),
        "detached autograd of the mean": lambda f, z, m, v: (f[:, None] * (z - m)).mean(0),
    },
    "vae.mmd_unbiased": {
        "0": lambda a, b, c: 0.0,
        "not below 0": changed(V.mmd_unbiased, torch.relu),
        "modulus": changed(V.mmd_unbiased, torch.abs),
        "moduli of the kernel": with_inputs(V.mmd_unbiased, of_moduli(0, 1, 2)),
        "ones on the diagonal": lambda a, b, c: (
            (a.sum() - len(a)) / (len(a) * (len(a) - 1))
            + (b.sum() - len(b)) / (len(b) * (len(b) - 1))
            - 2 * c.mean()
        ),
        "one size for both": lambda a, b, c: (
            (a.sum() - a.trace()) / (len(a) * (len(a) - 1))
            + (b.sum() - b.trace()) / (len(a) * (len(a) - 1))
            - 2 * c.mean()
        ),
        "first distribution alone": lambda a, b, c: (a.sum() - a.trace()) / (len(a) * (len(a) - 1)),
        "cross term without its diagonal": lambda a, b, c: (
            V.mmd_unbiased(a, b, c)
            + 2 * c.mean()
            - 2 * (c.sum() - c.diagonal().sum()) / (c.numel() - min(c.shape))
        ),
    },
    "gan.optimal_output": {
        "½": "1/2",
        "w": "w",
        "larger density on top": "Max(w*p, (1-w)*q)/(w*p + (1-w)*q)",
        "smaller density on top": "Min(w*p, (1-w)*q)/(w*p + (1-w)*q)",
        "w above ½": "Max(w, 1-w)*p/(Max(w, 1-w)*p + Min(w, 1-w)*q)",
        "densities up to 1": "w*Min(p, 1)/(w*Min(p, 1) + (1-w)*Min(q, 1))",
    },
    "gan.smoothed_discriminator": {
        "mean of the labels": lambda p, q, a, b: (a + b) / 2 + 0 * p,
        "naive": lambda p, q, a, b: (a * p.exp() + b * q.exp()) / (p.exp() + q.exp()),
        "naive ratio": lambda p, q, a, b: (a * (p - q).exp() + b) / ((p - q).exp() + 1),
        "less likely data": lambda p, q, a, b: G.smoothed_discriminator(p, torch.max(p, q), a, b),
        "more likely data": lambda p, q, a, b: G.smoothed_discriminator(p, torch.min(p, q), a, b),
        "nearer label": lambda p, q, a, b: torch.where(p > q, a, b).to(p),
        "β = ¼": lambda p, q, a, b: G.smoothed_discriminator(p, q, a, 0.25),
        "ε": lambda p, q, a, b: (a * p.exp() + b * q.exp()) / (p.exp() + q.exp() + 1e-8),
    },
    "gan.game": {
        "zeros": dict.fromkeys(G.game_table(), 0.0),
        "three digits": {k: float(f"{v:.3g}") for k, v in G.game_table().items()},
        "without a key": {k: v for k, v in G.game_table().items() if k != "best"},
        "list": list(G.game_table().values()),
    },
    "gan.generator_gradient": {
        "zeros": lambda a, m: 0 * a,
        "½": lambda a, m: G.generator_gradient(a, 0.5),
        "larger part": lambda a, m: G.generator_gradient(a, max(m, 1 - m)),
        "moduli of the logits": with_inputs(G.generator_gradient, of_moduli(0)),
        "found out only": lambda a, m: G.generator_gradient(a.clamp(max=0), m),
        "clamped at −10": lambda a, m: G.generator_gradient(a.clamp(min=-10), m),
        "five examples": lambda a, m: G.generator_gradient(a, m) * len(a) / 5,
        "mean of the gradient": lambda a, m: G.generator_gradient(a, m).mean().expand_as(a),
    },
    "gan.discriminator_loss": {
        "2 log 2": lambda r, f, a, b: 2 * math.log(2),
        "moduli of the logits": lambda r, f, a, b: G.discriminator_loss(r.abs(), -f.abs(), a, b),
        "found out only": lambda r, f, a, b: G.discriminator_loss(
            r.clamp(min=0), f.clamp(max=0), a, b
        ),
        "naive": lambda r, f, a, b: (
            -(a * r.sigmoid().log() + (1 - a) * (1 - r.sigmoid()).log()).mean()
            - (b * f.sigmoid().log() + (1 - b) * (1 - f.sigmoid()).log()).mean()
        ),
        "clamped at 50": lambda r, f, a, b: G.discriminator_loss(
            r.clamp(-50, 50), f.clamp(-50, 50), a, b
        ),
        "real batch's size": lambda r, f, a, b: (
            G.discriminator_loss(r, f * 0 - 1e4, a, 0)
            + G.discriminator_loss(r * 0 + 1e4, f, 1, b) * len(f) / len(r)
        ),
        "real examples alone": lambda r, f, a, b: F.binary_cross_entropy_with_logits(
            r, torch.full_like(r, a)
        ),
        "per example": lambda r, f, a, b: F.softplus(-r),
    },
    "gan.penalty_gradient": {
        "zeros": lambda r, f, u, w, c: (0.0, torch.zeros_like(w)),
        "penalty alone": lambda *x: (G.penalty_gradient(*x)[0], torch.zeros_like(x[3])),
        "two-sided but for 0": lambda *x: G.penalty_of(
            *x,
            one_sided=False,
            norm=lambda g: torch.where(
                g.flatten(1).abs().sum(1) > 1e-9, g.flatten(1).norm(dim=1), x[4]
            ),
        ),
        "midpoints": lambda r, f, u, w, c: G.penalty_of(r, f, 0 * u + 0.5, w, c),
        "target ½": lambda r, f, u, w, c: G.penalty_of(r, f, u, w, 0.5),
        "first channel": lambda *x: G.penalty_of(*x, norm=lambda g: g[:, 0].flatten(1).norm(dim=1)),
        "maximum norm": lambda *x: G.penalty_of(*x, norm=lambda g: g.flatten(1).abs().amax(1)),
        "without those below the target": lambda *x: G.penalty_of(
            *x, reduce=lambda e: e.sum() / (e > 0).sum()
        ),
        "seven pairs": lambda *x: tuple(y * len(x[0]) / 7 for y in G.penalty_gradient(*x)),
    },
    "gan.wgan_rounds": {
        "unmoved": lambda r, f, s, c: f,
        "real": lambda r, f, s, c: r.mean(0).expand_as(f),
        "one round": lambda r, f, s, c: f + s * (s * (r.mean(0) - f.mean(0))).clamp(-c, c) / len(f),
        "always at the bound": lambda r, f, s, c: (
            f + 2 * s * c * (r.mean(0) - f.mean(0)).sign() / len(f)
        ),
        "bounded above only": lambda r, f, s, c: _rounds(r, f, s, lambda w: w.clamp(max=c)),
        "bounded below only": lambda r, f, s, c: _rounds(r, f, s, lambda w: w.clamp(min=-c)),
        "new critic each round": lambda r, f, s, c: _rounds(
            r, f, s, lambda w: w.clamp(-c, c), fresh=True
        ),
        "clipped in the first round alone": lambda r, f, s, c: _rounds(
            r, f, s, lambda w: w.clamp(-c, c), rounds=1, more=1
        ),
        "real batch's size": lambda r, f, s, c: (
            f + (G.wgan_rounds(r, f, s, c) - f) * len(f) / len(r)
        ),
        "bound 0.6": lambda r, f, s, c: G.wgan_rounds(r, f, s, 0.6),
    },
    "gan.noise_penalty": {
        "0": lambda *x: 0.0,
        "first channel": lambda r, gr, f, gf, a, b: G.both_sided_penalty(
            r, gr[:, :1], f, gf[:, :1], a, b
        ),
        "moduli of the logits": with_inputs(G.both_sided_penalty, of_moduli(0, 2)),
        "right ones only": lambda r, gr, f, gf, a, b: G.both_sided_penalty(
            r.clamp(min=0), gr, f.clamp(max=0), gf, a, b
        ),
        "larger γ for the generated": lambda r, gr, f, gf, a, b: G.both_sided_penalty(
            r, gr, f, gf, min(a, b), max(a, b)
        ),
        "three generated": lambda r, gr, f, gf, a, b: G.both_sided_penalty(
            r, gr, f, gf, a, b * len(f) / 3
        ),
        "real term alone": lambda r, gr, f, gf, a, b: G.both_sided_penalty(r, gr, f, gf, a, 0),
        "mean weight": lambda r, gr, f, gf, a, b: (
            a / 2 * r.neg().sigmoid().square().mean() * gr.square().sum() / len(r)
            + b / 2 * f.sigmoid().square().mean() * gf.square().sum() / len(f)
        ),
    },
    "gan.w1_weighted": {
        "0": lambda *x: 0.0,
        "grid from −5 to 5": lambda x, a, y, b: sum(
            abs((a * (x <= t)).sum() - (b * (y <= t)).sum()) * 1e-1
            for t in torch.arange(-5, 5, 0.1)
        ),
        "first distribution's points alone": lambda x, a, y, b: _area_between(x, x, a, y, b),
        "second distribution's points alone": lambda x, a, y, b: _area_between(y, x, a, y, b),
        "one-sided": lambda *x: (
            G.cdf_difference(*x)[0].clamp(min=0) * G.cdf_difference(*x)[1]
        ).sum(),
        "pairs in order": lambda x, a, y, b: (
            (x.sort().values[:4] - y.sort().values[:4]).abs().mean()
        ),
        "distance to the nearest": lambda x, a, y, b: a @ (x[:, None] - y).abs().amin(1),
    },
    "gan.step_radii": {
        "ones": lambda *x: [1.0, 1.0],
        "roots of determinants": lambda s, c, h: [
            abs(1 - h * c + (h * s) ** 2) ** 0.5,
            abs(1 - h * c) ** 0.5,
        ],
        "root of the simultaneous determinant": lambda s, c, h: [
            abs(1 - h * c + (h * s) ** 2) ** 0.5,
            G.step_radii(s, c, h)[1],
        ],
        "root of the alternating determinant": lambda s, c, h: [
            G.step_radii(s, c, h)[0],
            abs(1 - h * c) ** 0.5,
        ],
        "real parts": lambda *x: [
            np.linalg.eigvals(m.numpy()).real.max() for m in G.step_matrices(*x)
        ],
        "moduli of real parts": lambda *x: [
            np.abs(np.linalg.eigvals(m.numpy()).real).max() for m in G.step_matrices(*x)
        ],
        "smallest": lambda *x: [
            np.abs(np.linalg.eigvals(m.numpy())).min() for m in G.step_matrices(*x)
        ],
        "largest real eigenvalue": lambda *x: [
            np.abs(max(np.linalg.eigvals(m.numpy()), key=lambda z: z.real))
            for m in G.step_matrices(*x)
        ],
        "norms": lambda *x: [m.norm() for m in G.step_matrices(*x)],
        "at most 1": changed(G.step_radii, lambda r: r.clamp(max=1)),
    },
    "autoregressive.chain_entropy": {
        "n log 2": "n*log(2)",
        "0": "0",
        "b the larger": f"({A.H_START} + (n - 1)*(Max(a, b)*{A.H_A} + Min(a, b)*{A.H_B})/(a + b))",
        "n + 1 transitions": f"{A.H_START} + Max(n - 1, 1)*(b*{A.H_A} + a*{A.H_B})/(a + b)",
        "pixels that stay": f"{A.H_START} + (n - 1)*(b*{A.H_A} + a*{A.H_B})/Min(a + b, 1)",
    },
    "autoregressive.three_pixels": {
        "zeros": dict.fromkeys(A.PIXELS, 0.0),
        "three digits": {k: float(f"{v:.3g}") for k, v in A.PIXELS.items()},
        "halves": dict.fromkeys(A.PIXELS, 0.5),
        "without a key": {k: v for k, v in A.PIXELS.items() if k != "nats"},
    },
    "autoregressive.made_masks": {
        "ones": lambda o, h: (
            torch.ones(len(h), len(o)),
            torch.ones(len(o), len(h)),
            torch.ones(len(o), len(o)),
        ),
        "lower triangles": lambda o, h: tuple(
            torch.ones(m.shape).tril(-1) for m in A.made_masks(o, h)
        ),
        "paths for the direct ones": lambda o, h: (
            *A.made_masks(o, h)[:2],
            (A.made_masks(o, h)[1] @ A.made_masks(o, h)[0]).clamp(max=1),
        ),
        "no direct ones": lambda o, h: (*A.made_masks(o, h)[:2], 0 * A.made_masks(o, h)[2]),
        "hidden degrees in order": lambda o, h: A.made_masks(o, h.sort().values),
        "degrees of its own": lambda o, h: A.made_masks(o, torch.arange(len(h)) % (len(o) - 1)),
        "counts": lambda o, h: (
            *A.made_masks(o, h)[:2],
            A.made_masks(o, h)[1] @ A.made_masks(o, h)[0],
        ),
    },
    "autoregressive.colour_masks": {
        "one channel": lambda s, o, i: A.colour_masks(s, o * 0, i * 0),
        "colours in turn": lambda s, o, i: A.colour_masks(
            s, torch.arange(len(o)) % 3, torch.arange(len(i)) % 3
        ),
        "reading in turn": lambda s, o, i: A.colour_masks(s, torch.arange(len(o)) % 3, i),
        "read in turn": lambda s, o, i: A.colour_masks(s, o, torch.arange(len(i)) % 3),
        "sorted": lambda s, o, i: A.colour_masks(s, o.sort().values, i.sort().values),
        "size 3": lambda s, o, i: A.colour_masks(3, o, i),
        "read alike": lambda s, o, i: A.colour_masks(s, o, o),
    },
    "autoregressive.gated_unit": {
        "features": lambda x, y, e: x[:, : x.shape[1] // 2],
        "rows of the embedding": lambda x, y, e: A.gated_unit(x, torch.arange(len(x)) % len(e), e),
        "first label": lambda x, y, e: A.gated_unit(x, y[:1].expand_as(y), e),
        "inverse labels": lambda x, y, e: A.gated_unit(x, y.argsort() % len(e), e),
        "labels in order": lambda x, y, e: A.gated_unit(x, y.sort().values, e),
        "moduli": lambda x, y, e: A.gated_unit(x.abs(), y, e),
        "relu": lambda x, y, e: (
            A.gated_halves(x, y, e)[0].relu() * A.gated_halves(x, y, e)[1].sigmoid()
        ),
        "after the gate": lambda x, y, e: (
            A.gated_unit(x, y, 0 * e) + e[y][:, : e.shape[1] // 2, None, None]
        ),
    },
    "autoregressive.logistic_mixture": {
        "uniform": lambda x, w, m, s, k: torch.full((len(x),), -x.shape[1] * math.log(k)),
        "levels from x": lambda x, w, m, s, k: A.logistic_mixture(x, w, m, s, int(x.max()) + 1),
        "17 levels": lambda x, w, m, s, k: A.logistic_mixture(x, w, m, s, 17),
        "lower tail alone": lambda x, w, m, s, k: A.logistic_mixture(x, w, m, s, k + 99),
        "upper tail alone": lambda x, w, m, s, k: A.logistic_mixture(x + 9, w, m + 9, s, k + 9),
        "tails by place": lambda x, w, m, s, k: _tails_by_place(x, w, m, s, k),
        "scales above 1": lambda x, w, m, s, k: A.logistic_mixture(x, w, m, s.clamp(min=0), k),
        "moduli of log-scales": with_inputs(A.logistic_mixture, of_moduli(3)),
        "locations inside": lambda x, w, m, s, k: A.logistic_mixture(x, w, m.clamp(0, k - 1), s, k),
        "first component": lambda x, w, m, s, k: A.logistic_mixture(
            x, w[..., :1], m[..., :1], s[..., :1], k
        ),
    },
    "autoregressive.causal_attention": {
        "values": lambda q, k, v: v,
        "mean of the past": lambda q, k, v: A.causal_attention(0 * q, k, v),
        "largest score": lambda q, k, v: A.causal_attention(1e6 * q, k, v),
        "exponentials without a maximum": lambda q, k, v: _naive_attention(q, k, v),
        "maximum of all": lambda q, k, v: _naive_attention(q, k, v, lambda s: s.max()),
        "maximum of the future": lambda q, k, v: _naive_attention(
            q, k, v, lambda s: s.amax(-1, keepdim=True)
        ),
        "epsilon": lambda q, k, v: _naive_attention(
            q, k, v, lambda s: s.tril().amax(-1, keepdim=True), 1e-3
        ),
        "clamped scores": lambda q, k, v: A.attention_with(
            q, k, v, weigh=lambda s: s.clamp(max=80).softmax(-1)
        ),
        "hidden by −100": A.attention_wrong(hidden=-100),
        "scale of the values": lambda q, k, v: A.attention_with(
            q, k, v, scale=lambda d: math.sqrt(v.shape[-1])
        ),
        "scale of the length": lambda q, k, v: A.attention_with(
            q, k, v, scale=lambda d: math.sqrt(q.shape[-2])
        ),
        "times √d": A.attention_wrong(scale=lambda d: d**-0.5),
        "scale 2": A.attention_wrong(scale=lambda d: 2),
        "keys read": lambda q, k, v: A.causal_attention(k, q, v),
        "cosines": lambda q, k, v: A.causal_attention(F.normalize(q, dim=-1), k, v),
        "sigmoids": A.attention_wrong(weigh=torch.sigmoid),
        "four places": lambda q, k, v: A.causal_attention(q, k, v)[..., :4, :],
        "first image": lambda q, k, v: A.causal_attention(q[:1], k[:1], v[:1]).expand_as(v),
        "one past for all": lambda q, k, v: A.attention_with(
            q, k, v, mask=lambda past: past[-1:].expand_as(past)
        ),
        "windows of four places": A.attention_wrong(mask=lambda past: past.triu(-3)),
        "renormalized with an epsilon": A.attention_wrong(
            mask=torch.ones_like,
            weigh=lambda s: (
                s.softmax(-1).tril() / (s.softmax(-1).tril().sum(-1, keepdim=True) + 1e-8)
            ),
        ),
        "NaN for 0": lambda q, k, v: A.attention_with(
            q, k, v, mask=lambda past: past.tril(-1)
        ).nan_to_num(),
    },
    "autoregressive.attention_step": {
        "the value": lambda h, i, k, v, a, b, c: (
            h @ c,
            *A.attention_step(h, i, k, v, a, b, c)[1:],
        ),
        "mean of the values": lambda h, i, k, v, a, b, c: A.attention_step(h, i, k, v, 0 * a, b, c),
        "values without a key": A.step_wrong(stored=(False, True)),
        "nothing stored": A.step_wrong(stored=(False, False)),
        "in the last row": lambda h, i, k, v, *m: A.step_with(
            h, i, k, v, *m, at=lambda place: k.shape[1] - 1
        ),
        "in the first row": A.step_wrong(at=lambda place: 0),
        "stored one row too far": lambda h, i, k, v, *m: A.step_with(
            h, i, k, v, *m, at=lambda place: (place + 1) % k.shape[1]
        ),
        "newest three": A.step_wrong(rows=lambda place: slice(max(place - 2, 0), place + 1)),
        "from the second place on": A.step_wrong(
            rows=lambda place: slice(min(place, 1), place + 1)
        ),
        "own place alone": A.step_wrong(rows=lambda place: slice(place, place + 1)),
        "divided by d": lambda h, i, k, v, a, *m: A.step_with(
            h, i, k, v, a, *m, scale=a.shape[1] ** 2
        ),
        "the token is the query": lambda h, i, k, v, a, b, c: A.step_with(
            h, i, k, v, torch.eye(*a.shape).to(a), b, c
        ),
        "key for query": lambda h, i, k, v, a, b, c: A.attention_step(h, i, k, v, b, b, c),
        "query for key": lambda h, i, k, v, a, b, c: A.attention_step(h, i, k, v, a, a, c),
        "matrices transposed": lambda h, i, k, v, a, b, c: A.attention_step(
            h, i, k, v, *(m.T.reshape(m.shape) for m in (a, b, c))
        ),
        "exponentials without a maximum": lambda h, i, k, v, a, b, c: _naive_step(
            h, i, k, v, a, b, c
        ),
        "stale rows of zeros read": lambda h, i, k, v, *m: A.step_with(
            h,
            i,
            *(cache * (torch.arange(k.shape[1]) <= i)[:, None] for cache in (k, v)),
            *m,
            rows=lambda place: slice(None),
        ),
        "first example": lambda h, *more: (
            A.attention_step(h, *more)[0][:1].expand(len(h), -1),
            *A.attention_step(h, *more)[1:],
        ),
        "all rows returned": lambda h, i, k, v, *m: (A.attention_step(h, i, k, v, *m)[0], k, v),
        "read alone": lambda *x: A.attention_step(*x)[0],
    },
    "autoregressive.receptive_field": {
        "1": lambda k, d: 1,
        "largest dilation": lambda k, d: 1 + (k.max() - 1) * d.max(),
        "two taps at least": lambda k, d: 1 + ((k - 1).clamp(min=1) * d).sum(),
        "dilations from 2": lambda k, d: 1 + ((k - 1) * d.clamp(min=2)).sum(),
        "sorted": lambda k, d: 1 + ((k.sort().values - 1) * d.sort().values).sum(),
        "three layers": lambda k, d: 1 + ((k - 1) * d)[:3].sum(),
        "growing dilations": lambda k, d: 1 + ((k - 1) * d.cummax(0).values).sum(),
        "two taps": lambda k, d: 1 + d.sum(),
    },
    "autoregressive.skew_left": {
        "zeros": lambda x: x.new_zeros(*x.shape[:3], sum(x.shape[2:]) - 1),
        "padded": lambda x: F.pad(x, (0, x.shape[2] - 1)),
        "moduli": with_inputs(A.skew_left, of_moduli(0)),
        "square": lambda x: F.pad(A.skew_left(x), (0, x.shape[2] - x.shape[3])),
        "first channel": lambda x: A.skew_left(x[:, :1].expand_as(x)),
        "three rows": lambda x: A.skew_left(x[:, :, :3]),
        "first example": lambda x: A.skew_left(x[:1].expand_as(x)),
    },
    "autoregressive.complete": {
        "unchanged": lambda x, k, u, c, w: x,
        "zeros": lambda x, k, u, c, w: torch.cat([x[:, :k], 0 * x[:, k:]], 1),
        "own noise": lambda x, k, u, c, w: A.complete(x, k, torch.rand_like(u), c, w),
        "no weights": lambda x, k, u, c, w: A.complete(x, k, u, c, 0 * w),
        "no bias": lambda x, k, u, c, w: A.complete(x, k, u, 0 * c, w),
        "three levels": lambda x, k, u, c, w: A.complete(x, k, u, c, w).clamp(max=2),
        "one known": lambda x, k, u, c, w: A.complete(x, 1, u, c, w),
        "first example's noise": lambda x, k, u, c, w: A.complete(x, k, u[:1].expand_as(u), c, w),
    },
    "autoregressive.teacher_forcing": {
        "uniform": lambda x, e, r, o: torch.full((len(x),), x.shape[1] * math.log(o.shape[1])),
        "no memory": lambda x, e, r, o: A.teacher_forcing(x, e, 0 * r, o),
        "transposed": lambda x, e, r, o: A.teacher_forcing(x, e, r.T, o),
        "moduli": with_inputs(A.teacher_forcing, of_moduli(2)),
        "three values": lambda x, e, r, o: A.teacher_forcing(x[:, :3], e, r, o),
        "first sequence": lambda *x: A.teacher_forcing(*x)[:1].expand(len(x[0])),
        "start symbol 1": lambda x, e, r, o: A.forced_terms(
            torch.cat([torch.full_like(x[:, :1], 1), x[:, :-1]], 1), x, e, r, o
        ).sum(1),
    },
    "autoregressive.order_ensemble": {
        "zeros": lambda p: torch.zeros(p.shape[1]),
        "first order": lambda p: -p[0].sum(1) / p.shape[2] / math.log(2),
        "three orders": lambda p: A.order_ensemble(p[:3]),
        "mean over the batch": lambda p: A.order_ensemble(p).mean().expand(p.shape[1]),
        "axes mixed": lambda p: A.order_ensemble(p.transpose(0, 2)),
        "decimal digits": lambda p: A.order_ensemble(p) * math.log10(2),
    },
    "autoregressive.masked_bound": {
        "zeros": lambda p, masked: torch.zeros(len(p)),
        "first image's mask": lambda p, masked: A.masked_bound(p, masked[:1].expand_as(masked)),
        "mean over the batch": lambda p, masked: A.masked_bound(p, masked).mean().expand(len(p)),
        "sum over all": lambda p, masked: p.sum(1),
        "one masked pixel": lambda p, masked: (
            p.shape[1] * p.gather(1, masked.int().argmax(1)[:, None])[:, 0]
        ),
        "eight pixels": lambda p, masked: A.masked_bound(p, masked) * 8 / p.shape[1],
        "weight with one more": lambda p, masked: (
            (p * masked).sum(1) * p.shape[1] / (masked.sum(1) + 1)
        ),
    },
    "flow.log_density": {
        "0": "0",
        "standard normal": "-log(2*pi)/2 - x**2/2",
        "above m": "-log(2*pi)/2 - asinh(Max(x - m, 0)/s)**2/2 - log(s**2 + (x - m)**2)/2",
        "moduli of x and m": (
            "-log(2*pi)/2 - asinh((Abs(x) - Abs(m))/s)**2/2 - log(s**2 + (Abs(x) - Abs(m))**2)/2"
        ),
        "scales above 1": "-log(2*pi)/2 - asinh((x - m)/s)**2/2 - log(Max(s, 1)**2 + (x - m)**2)/2",
        "m = 0": "-log(2*pi)/2 - asinh(x/s)**2/2 - log(s**2 + x**2)/2",
    },
    "flow.bits": {
        "zeros": dict.fromkeys(N.bits_table(), 0.0),
        "three digits": {k: float(f"{v:.3g}") for k, v in N.bits_table().items()},
        "without a key": {k: v for k, v in N.bits_table().items() if k != "log_density"},
        "uniform": N.bits_table() | {"bits_per_dim": math.log2(5)},
    },
    "flow.sinh_arcsinh": {
        "identity": lambda x, a, b: (x, torch.zeros(len(x))),
        "moduli of x": with_inputs(N.sinh_arcsinh, of_moduli(0)),
        "moduli of log_tail": with_inputs(N.sinh_arcsinh, of_moduli(1)),
        "moduli of the skew": with_inputs(N.sinh_arcsinh, of_moduli(2)),
        "odd in x": lambda x, a, b: (
            x.sign() * N.sinh_arcsinh(x.abs(), a, b)[0],
            N.sinh_arcsinh(x.abs(), a, b)[1],
        ),
        "heavier tails": lambda x, a, b: N.sinh_arcsinh(x, a.clamp(min=0), b),
        "no skew": lambda x, a, b: N.sinh_arcsinh(x, a, 0 * b),
        "z alone": lambda x, a, b: (N.sinh_arcsinh(x, a, b)[0], torch.zeros(len(x))),
        "three entries": lambda x, a, b: (
            N.sinh_arcsinh(x, a, b)[0],
            N.log_slope(x, a, b)[:, :2].sum(1),
        ),
    },
    "flow.coupling_inverse": {
        "identity": lambda z, k, p, s, t: (z, torch.zeros(len(z))),
        "first two kept": lambda z, k, p, s, t: N.coupling_inverse(
            z, torch.arange(len(k)) < k.sum(), p, s, t
        ),
        "the others kept": lambda z, k, p, s, t: N.coupling_inverse(z, ~k, p, s, t),
        "no scale": lambda z, k, p, s, t: N.coupling_inverse(z, k, p, 0 * s, t),
        "no shift": lambda z, k, p, s, t: N.coupling_inverse(z, k, p, s, 0 * t),
        "transposed": lambda z, k, p, s, t: N.coupling_inverse(z, k, p, s.T, t.T),
        "x alone": lambda *x: (N.coupling_inverse(*x)[0], torch.zeros(len(x[0]))),
        "no permutation": lambda z, k, p, s, t: N.coupling_inverse(z, k, p.sort().values, s, t),
    },
    "flow.sylvester_log_det": {
        "zeros": lambda x, u, w, b: torch.zeros(len(x)),
        "positive determinants": lambda x, u, w, b: _signed_sylvester(x, u, w, b).log(),
        "moduli": changed(N.sylvester_log_det, torch.abs),
        "stretching": changed(N.sylvester_log_det, torch.relu),
        "first column": lambda x, u, w, b: N.sylvester_log_det(x, u[:, :1], w[:, :1], b[:1]),
        "u for w": lambda x, u, w, b: N.sylvester_log_det(x, w, u, b),
        "log1p of the trace": lambda x, u, w, b: (
            (1 + ((1 - torch.tanh(x @ w + b) ** 2) * (u * w).sum(0)).sum(1)).abs().log()
        ),
        "mean slope": lambda x, u, w, b: N.sylvester_log_det(x.mean(0).expand_as(x), u, w, b),
    },
    "flow.actnorm": {
        "identity": lambda x: (x, torch.zeros(len(x))),
        "squares of H": lambda x: (N.actnorm(x)[0], N.actnorm(x, factor=x.shape[2] ** 2)[1]),
        "twelve pixels": lambda x: (N.actnorm(x)[0], N.actnorm(x, factor=12)[1]),
        "squeezed only": lambda x: (N.actnorm(x)[0], N.actnorm(x)[1].abs()),
        "no shift": lambda x: (x / x.std((0, 2, 3), correction=0, keepdim=True), N.actnorm(x)[1]),
        "one scale for all": lambda x: (
            (x - x.mean()) / x.std(correction=0),
            -x[0].numel() * x.std(correction=0).log().expand(len(x)),
        ),
        "first channel's scale": lambda x: (
            N.actnorm(x)[0],
            (-x[0].numel() * x[:, 0].std(correction=0).log()).expand(len(x)),
        ),
    },
    "flow.multiscale_log_prob": {
        "zeros": lambda e, z, d: torch.zeros(len(e)),
        "one late pixel": lambda e, z, d: N.multiscale_log_prob(e, z[:, :, :1, :1], d),
        "first late column": lambda e, z, d: N.multiscale_log_prob(e, z[..., :1], d),
        "moduli of log-determinants": with_inputs(N.multiscale_log_prob, of_moduli(2)),
        "positive log-determinants": lambda e, z, d: N.multiscale_log_prob(e, z, d.relu()),
        "first example's": lambda e, z, d: N.multiscale_log_prob(e, z, d[:, :1].expand_as(d)),
        "three layers": lambda e, z, d: N.multiscale_log_prob(e, z, d[:3]),
        "early alone": lambda e, z, d: N.multiscale_log_prob(e, z[:, :0], d),
    },
    "flow.dequantized_bits": {
        "log₂ K": lambda p, q, k, d: torch.full((p.shape[1],), math.log2(k)),
        "first draw": lambda p, q, k, d: N.dequantized_bits(p[:1], q[:1], k, d),
        "largest weight": lambda p, q, k, d: (
            math.log2(k) - ((p - q).max(0).values - math.log(len(p))) / (d * math.log(2))
        ),
        "moduli of log q": with_inputs(N.dequantized_bits, of_moduli(1)),
        "mean noise": lambda p, q, k, d: N.dequantized_bits(p, q.mean(0).expand_as(q), k, d),
        "16 levels": lambda p, q, k, d: N.dequantized_bits(p, q, 16, d),
        "mean of the batch": lambda *x: N.dequantized_bits(*x).mean().expand(x[0].shape[1]),
    },
    "flow.logit_inverse": {
        "identity": lambda z, a: (z, torch.zeros(len(z))),
        "moduli": with_inputs(N.logit_inverse, of_moduli(0)),
        "positive logits": lambda z, a: N.logit_inverse(z.relu(), a),
        "not above 1": lambda z, a: (
            N.logit_inverse(z, a)[0].clamp(max=1),
            N.logit_inverse(z, a)[1],
        ),
        "not below 0": lambda z, a: (
            N.logit_inverse(z, a)[0].clamp(min=0),
            N.logit_inverse(z, a)[1],
        ),
        "logits bounded by 4": lambda z, a: N.logit_inverse(z.clamp(-4, 4), a),
        "α = 0.05": lambda z, a: N.logit_inverse(z, 0.05),
        "small α": lambda z, a: N.logit_inverse(z, min(a, 0.2) * 0.99),
        "y alone": lambda z, a: (N.logit_inverse(z, a)[0], torch.zeros(len(z))),
    },
    "flow.autoregressive_inverse": {
        "identity": lambda z, a, b: (z, torch.zeros(len(z))),
        "all entries": lambda z, a, b: _fixed_point(z, a, b),
        "with the diagonal": lambda z, a, b: _fixed_point(z, a.tril(), b.tril()),
        "two passes": lambda z, a, b: _fixed_point(z, a.tril(-1), b.tril(-1), passes=2),
        "no scale": lambda z, a, b: N.autoregressive_inverse(z, a, 0 * b),
        "no mean": lambda z, a, b: N.autoregressive_inverse(z, 0 * a, b),
        "transposed": lambda z, a, b: N.autoregressive_inverse(z, a.T, b.T),
        "x alone": lambda *x: (N.autoregressive_inverse(*x)[0], torch.zeros(len(x[0]))),
        "first example": lambda z, a, b: N.autoregressive_inverse(z[:1].expand_as(z), a, b),
    },
    "diffusion.noising_marginal": {
        "ones and zeros": lambda b: (torch.ones(len(b) + 1), torch.zeros(len(b) + 1)),
        "first β for all": lambda b: D.noising_marginal(b[:1].expand_as(b)),
        "mean of the β": lambda b: D.noising_marginal(b.mean().expand_as(b)),
        "βs sorted": lambda b: D.noising_marginal(b.sort().values),
        "exponential of the sum": lambda b: (
            D.after_data(1.0, (-b.cumsum(0) / 2).exp()),
            D.after_data(0.0, (1 - (-b.cumsum(0)).exp()).sqrt()),
        ),
        "α alone": lambda b: (D.noising_marginal(b)[0], torch.zeros(len(b) + 1)),
        "five steps": lambda b: tuple(
            torch.cat([v[:6], v[5:6].expand(max(len(v) - 6, 0))])[: len(v)]
            for v in D.noising_marginal(b)
        ),
    },
    "diffusion.posterior_step": {
        "x": lambda z, x, i, b: (x, torch.zeros(len(z))),
        "z": lambda z, x, i, b: (z, b[i - 1]),
        "first example's step": lambda z, x, i, b: D.posterior_step(z, x, i[:1].expand_as(i), b),
        "noise at least after the first step": lambda z, x, i, b: D.posterior_step(
            z, x, i.clamp(min=2), b
        ),
        "moduli": with_inputs(D.posterior_step, of_moduli(0, 1)),
        "mean alone": lambda *x: (D.posterior_step(*x)[0], torch.zeros(len(x[0]))),
        "variance alone": lambda *x: (x[1], D.posterior_step(*x)[1]),
        "equal βs": lambda z, x, i, b: D.posterior_step(z, x, i, b.mean().expand_as(b)),
        "marginal": lambda z, x, i, b: (
            D.noising_marginal(b)[0][i - 1][:, None] * x,
            D.noising_marginal(b)[1][i - 1] ** 2,
        ),
    },
    "diffusion.chain_bound": {
        "zeros": dict.fromkeys(D.CHAIN, 0.0),
        "three digits": {k: float(f"{v:.3g}") for k, v in D.CHAIN.items()},
        "no gap": D.CHAIN | {"gap": 0.0},
        "without a key": {k: v for k, v in D.CHAIN.items() if k != "prior"},
    },
    "diffusion.bound_bits": {
        "log₂ K": lambda x, z, p, a, s, k: torch.full((len(x),), math.log2(k)),
        "levels from x": lambda x, z, p, a, s, k: D.bound_bits(x, z, p, a, s, int(x.max()) + 2),
        "17 levels": lambda x, z, p, a, s, k: D.bound_bits(x, z, p, a, s, 17),
        "first step": lambda x, z, p, a, s, k: D.bound_bits(x, z, p[:1], a[[0, 1]], s[[0, 1]], k),
        "three steps": lambda x, z, p, a, s, k: D.bound_bits(x, z, p[:3], a[:4], s[:4], k),
        "variance preserved at a half": lambda x, z, p, a, s, k: D.bound_bits(
            x, z, p, a, (1 - a**2).sqrt() * 1.01, k
        ),
        "mean of the batch": lambda *x: D.bound_bits(*x).mean().expand(len(x[0])),
        "clipped": lambda x, z, p, a, s, k: D.bound_bits(x, z, p.clamp(-0.5, 0.5), a, s, k),
        "nearest level": lambda x, z, p, a, s, k: (
            sum(D.bound_terms(x, z, p, a, s, k)[:2]) / x.shape[1] / math.log(2)
        ),
    },
    "diffusion.mixture_score": {
        "zeros": lambda z, *m: 0 * z,
        "standard normal": lambda z, *m: -z,
        "nearest component": D.weighted(
            lambda *m: F.one_hot(D.responsibilities(*m).argmax(1), len(m[1])).to(m[0])
        ),
        "one Gaussian": lambda z, w, m, c, a, s: D.mixture_score(
            z, w[:1] / w[:1], (w @ m)[None], torch.einsum("k,kde->de", w, c)[None], a, s
        ),
        "naive": lambda z, w, m, c, a, s: _naive_score(z, w, m, c, a, s),
        "naive with ε": lambda z, w, m, c, a, s: _naive_score(z, w, m, c, a, s, 1e-8),
        "diagonals": lambda z, w, m, c, a, s: D.mixture_score(
            z, w, m, torch.diag_embed(c.diagonal(dim1=1, dim2=2)), a, s
        ),
        "first three components": lambda z, w, m, c, a, s: D.mixture_score(
            z, w[:3] / w[:3].sum(), m[:3], c[:3], a, s
        ),
        "variance preserved": lambda z, w, m, c, a, s: D.mixture_score(
            z, w, m, c, a, math.sqrt(1 - a**2)
        ),
    },
    "diffusion.predict_clean": {
        "zeros": lambda z, s, a, b: (0 * z, z / b[:, None, None, None]),
        "bounded above only": D.clean_by(D.unclipped, lambda x: x.clamp(max=1)),
        "bounded below only": D.clean_by(D.unclipped, lambda x: x.clamp(min=-1)),
        "tanh": D.clean_by(D.unclipped, torch.tanh),
        "signs": D.clean_by(D.unclipped, torch.sign),
        "variance preserved": lambda z, s, a, b: D.predict_clean(z, s, a, (1 - a**2).sqrt()),
        "first image's level": lambda z, s, a, b: D.predict_clean(
            z, s, a[:1].expand_as(a), b[:1].expand_as(b)
        ),
        "clean example alone": lambda *x: (D.predict_clean(*x)[0], 0 * x[0]),
        "moduli of the score": with_inputs(D.predict_clean, of_moduli(1)),
    },
    "diffusion.reverse_step": {
        "unmoved": lambda z, s, e, b, g, h: z,
        "without noise": lambda z, s, e, b, g, h: D.reverse_step(z, s, 0 * e, b, g, h),
        "own noise": lambda z, s, e, b, g, h: D.reverse_step(z, s, torch.randn_like(e), b, g, h),
        "larger of the strengths": lambda z, s, e, b, g, h: D.reverse_step(
            z, s, e, b, max(g, math.sqrt(b)), h
        ),
        "smaller of the strengths": lambda z, s, e, b, g, h: D.reverse_step(
            z, s, e, b, min(g, math.sqrt(b)), h
        ),
        "standard normal data": lambda z, s, e, b, g, h: D.reverse_step(z, -z, e, b, g, h),
        "noise below": lambda z, s, e, b, g, h: D.reverse_step(z, s, -e, b, g, h),
        "step 0.1": lambda z, s, e, b, g, h: D.reverse_step(z, s, e, b, g, 0.1),
    },
    "diffusion.ddim_sample": {
        "noise": lambda z, *more: z,
        "zeros": lambda z, *more: 0 * z,
        "stride 2": lambda z, a, s, k, w, b: (
            D.ddim_wrong(z, a, s, k, w, b, pace=2) if len(a) % 2 else 0 * z
        ),
        "stride 3": lambda z, a, s, k, w, b: D.ddim_sample(z, a, s, 3, w, b),
        "no bias": lambda z, a, s, k, w, b: D.ddim_sample(z, a, s, k, w, 0 * b),
        "no weights": lambda z, a, s, k, w, b: D.ddim_sample(z, a, s, k, 0 * w, b),
        "one bias": lambda z, a, s, k, w, b: D.ddim_sample(z, a, s, k, w, b[-1:].expand_as(b)),
        "transposed": lambda z, a, s, k, w, b: D.ddim_sample(z, a, s, k, w.T, b),
        "clipped": lambda *x: D.ddim_sample(*x).clamp(-1, 1),
        "first example": lambda z, *more: D.ddim_sample(z[:1].expand_as(z), *more),
    },
    "diffusion.reverse_variance": {
        "c": "c",
        "between": f"({D.BETA} + {D.TILDE})/2",
        "data narrower than 1": (
            f"Min({D.BETA}, {D.TILDE} + {D.FACTOR}**2*c*sigma_t**2/(alpha_t**2*c + sigma_t**2))"
        ),
        "variances at most 1": (
            f"{D.TILDE} + {D.FACTOR}**2*Min(c, 1)*sigma_t**2/(alpha_t**2*Min(c, 1) + sigma_t**2)"
        ),
        "variance preserved": (
            f"{D.TILDE} + {D.FACTOR}**2*c*(1 - alpha_t**2)/(alpha_t**2*c + 1 - alpha_t**2)"
        ),
        "interpolated by c": f"(1 - Min(c, 1))*{D.TILDE} + Min(c, 1)*{D.BETA}",
    },
    "diffusion.guided_score": {
        "with the class": lambda c, u, s, w: -c / s[:, None],
        "without the class": lambda c, u, s, w: -u / s[:, None],
        "w = 1": lambda c, u, s, w: D.guided_score(c, u, s, 1.0),
        "w at most 1": lambda c, u, s, w: D.guided_score(c, u, s, min(w, 1)),
        "w at least 1": lambda c, u, s, w: D.guided_score(c, u, s, max(w, 1)),
        "one σ": lambda c, u, s, w: D.guided_score(c, u, s.mean().expand_as(s), w),
        "moduli": with_inputs(D.guided_score, of_moduli(0, 1)),
    },
    "flow_matching.training_pair": {
        "x and noise": lambda x, e, t: (x, e),
        "half-way": lambda x, e, t: M.training_pair(x, e, torch.full_like(t, 0.5)),
        "z alone": lambda x, e, t: (M.training_pair(x, e, t)[0], 0 * x),
        "velocity alone": lambda x, e, t: (x, e - x),
        "moduli": with_inputs(M.training_pair, of_moduli(0, 1)),
        "later times": lambda x, e, t: M.training_pair(x, e, t.clamp(min=0.5)),
        "earlier times": lambda x, e, t: M.training_pair(x, e, t.clamp(max=0.5)),
    },
    "flow_matching.mixture_velocity": {
        "zeros": lambda z, *m: 0 * z,
        "standard normal data": lambda z, w, m, c, t: (
            z * ((2 * t - 1) / (1 - 2 * t + 2 * t**2))[:, None]
        ),
        "nearest component": M.velocity_with(
            lambda *m: F.one_hot(M.responsibilities(*m).argmax(1), len(m[1])).to(m[0])
        ),
        "one time": lambda z, w, m, c, t: M.mixture_velocity(z, w, m, c, t[:1].expand_as(t)),
        "points for components": lambda z, w, m, c, t: M.mixture_velocity(z, w, m, 0 * c + 1e-3, t),
        "equal variances": lambda z, w, m, c, t: M.mixture_velocity(
            z, w, m, c.mean().expand_as(c), t
        ),
        "first three components": lambda z, w, m, c, t: M.mixture_velocity(
            z, w[:3] / w[:3].sum(), m[:3], c[:3], t
        ),
        "first two dimensions": lambda z, w, m, c, t: M.combined(
            M.responsibilities(z[:, :1], w, m[:, :1], c, t), *M.mixture_parts(z, w, m, c, t)[1:], m
        ),
    },
    "flow_matching.velocity_from_score": {
        "score": lambda z, s, *p: s,
        "z": lambda z, s, *p: z,
        "first point's path": lambda z, s, *p: M.velocity_from_score(
            z, s, *(v[:1].expand_as(v) for v in p)
        ),
        "moduli": with_inputs(M.velocity_from_score, of_moduli(0, 1)),
        "rising signal": lambda z, s, a, b, da, db: M.velocity_from_score(z, s, a, b, -da, db),
        "unit rates": lambda z, s, a, b, da, db: M.velocity_from_score(
            z, s, a, b, -torch.ones_like(a), torch.ones_like(b)
        ),
    },
    "flow_matching.gaussian_by_hand": {
        "zeros": dict.fromkeys(M.GAUSSIAN, 0.0),
        "three digits": {k: float(f"{v:.3g}") for k, v in M.GAUSSIAN.items()},
        "without a key": {k: v for k, v in M.GAUSSIAN.items() if k != "floor"},
        "noise": M.GAUSSIAN | {"exact": 1.6},
    },
    "flow_matching.heun_sample": {
        "noise": lambda z, w, b: z,
        "no weights": lambda z, w, b: M.heun_sample(z, 0 * w, b),
        "no bias": lambda z, w, b: M.heun_sample(z, w, 0 * b),
        "one step": lambda z, w, b: M.heun_sample(z, w, b[[0, -1]]),
        "three steps": lambda z, w, b: M.heun_sample(z, w, b[:4]),
        "transposed": lambda z, w, b: M.heun_sample(z, w.T, b),
        "first example": lambda z, w, b: M.heun_sample(z[:1].expand_as(z), w, b),
        "one bias": lambda z, w, b: M.heun_sample(z, w, b[-1:].expand_as(b)),
    },
    "flow_matching.ode_log_density": {
        "zeros": lambda x, w, b: torch.zeros(len(x)),
        "first divergence": lambda x, w, b: (
            M.log_normal(M.euler_terms(x, w, b)[0]) + M.euler_terms(x, w, b)[1][0]
        ),
        "four steps": lambda x, w, b: M.ode_log_density(x, w, b[:4]),
        "one bias": lambda x, w, b: M.ode_log_density(x, w, b[:1].expand_as(b)),
        "transposed": lambda x, w, b: M.ode_log_density(x, w.T, b),
        "exact determinants": lambda x, w, b: _residual_log_density(x, w, b),
        "mean of the batch": lambda *x: M.ode_log_density(*x).mean().expand(len(x[0])),
        "three dimensions": lambda x, w, b: (
            M.log_normal(M.euler_terms(x, w, b)[0])
            + M.euler_terms(x, w * (torch.arange(len(w)) < 3), b)[1].mean(0)
        ),
    },
    "flow_matching.hutchinson": {
        "zeros": lambda a, z: (0.0, 0.0),
        "first probe": lambda a, z: (M.hutchinson(a, z[:1])[0], M.hutchinson(a, z)[1]),
        "three probes": lambda a, z: M.hutchinson(a, z[:3]),
        "moduli": with_inputs(M.hutchinson, of_moduli(0)),
        "ones": lambda a, z: M.hutchinson(a, z.abs()),
        "own probes": lambda a, z: M.hutchinson(a, torch.randn_like(z).sign()),
        "estimate alone": lambda a, z: (M.hutchinson(a, z)[0], 0.0),
    },
    "flow_matching.pair_noise": {
        "examples": lambda x, e, y: x,
        "zeros": lambda x, e, y: 0 * e,
        "sorted": lambda x, e, y: M.pair_within(
            lambda a, b: b[:, 0].argsort()[a[:, 0].argsort().argsort()]
        )(x, e, y),
        "first class alone": lambda x, e, y: torch.where(y[:, None] == 0, M.pair_noise(x, e, y), e),
        "first two classes": lambda x, e, y: (
            torch.where(y[:, None] < 2, M.pair_noise(x, e, y), e) if y.max() > 1 else e
        ),
        "first dimension": lambda x, e, y: M.pair_within(lambda a, b: M.best(a[:, :1], b[:, :1]))(
            x, e, y
        ),
        "pairs swapped once": M.pair_within(lambda x, e: _swapped_once(x, e)),
    },
    "flow_matching.average_velocity": {
        "z": "z",
        "straight to the mean": "z/t",
        "c at most 1": (
            "(1 - sqrt(((1 - r)**2*Min(c, 1) + r**2)/((1 - t)**2*Min(c, 1) + t**2)))*z/(t - r)"
        ),
        "c at least 1": (
            "(1 - sqrt(((1 - r)**2*Max(c, 1) + r**2)/((1 - t)**2*Max(c, 1) + t**2)))*z/(t - r)"
        ),
        "modulus of z": f"(1 - sqrt({M.S_R}/{M.S_T}))*Abs(z)/(t - r)",
        "velocity in the middle": (
            "((r + t)/2 - (1 - (r + t)/2)*c)/((1 - (r + t)/2)**2*c + ((r + t)/2)**2)*z"
        ),
    },
    "flow_matching.mean_flow_target": {
        "zeros": lambda z, *more: 0 * z,
        "one interval": lambda z, r, t, v, w, a, b: M.mean_flow_target(
            z, r[:1].expand_as(r), t[:1].expand_as(t), v, w, a, b
        ),
        "no weights": lambda z, r, t, v, w, a, b: M.mean_flow_target(z, r, t, v, 0 * w, a, b),
        "slope 1": M.target_with(lambda u, s, v, w, a, b: v @ w + b),
        "moduli": with_inputs(M.mean_flow_target, of_moduli(3)),
        "network": lambda z, r, t, v, w, a, b: M.mean_flow_parts(z, r, t, w, a, b)[0],
        "r = 0": lambda z, r, t, v, w, a, b: M.mean_flow_target(z, 0 * r, t, v, w, a, b),
    },
}


def _residual_log_density(x, weight, bias):
    """The density of the steps as a flow of residual layers, by their determinants."""
    log_det = 0
    for row in bias:
        v = torch.tanh(x @ weight + row)
        jacobian = torch.eye(len(weight)).to(x) + (1 - v**2)[:, :, None] * weight.T / len(bias)
        log_det = log_det + torch.linalg.slogdet(jacobian)[1]
        x = x + v / len(bias)
    return M.log_normal(x) + log_det


def _swapped_once(x, noise):
    """The best of one exchange of two."""
    orders = [torch.arange(len(x))]
    for i in range(len(x)):
        for j in range(i):
            order = torch.arange(len(x))
            order[[i, j]] = order[[j, i]]
            orders.append(order)
    return min(orders, key=lambda order: ((x - noise[order]) ** 2).sum().item())


def _naive_score(z, weights, means, covariances, alpha, sigma, epsilon=0.0):
    """Densities for their logarithms."""
    log_joint, solved = D.mixture_parts(z, weights, means, covariances, alpha, sigma)
    density = log_joint.exp() + epsilon
    return -((density / density.sum(1, keepdim=True))[..., None] * solved).sum(1)


def _area_between(points, x, a, y, b):
    points = points.sort().values
    left = points[:-1, None]
    return (((a * (x <= left)).sum(1) - (b * (y <= left)).sum(1)).abs() * points.diff()).sum()


def _rounds(real, fake, step, clip, fresh=False, rounds=2, more=0):
    w = torch.zeros_like(real[0])
    for k in range(rounds + more):
        w = (0 if fresh else w) - step * (fake.mean(0) - real.mean(0))
        w = clip(w) if k < rounds else w
        fake = fake + step * w / len(fake)
    return fake


def _naive_attention(queries, keys, values, shift=lambda scores: 0, epsilon=0.0):
    """Exponentials of the scores, masked and divided by their sum."""
    scores = queries @ keys.mT / math.sqrt(keys.shape[-1])
    weights = (scores - shift(scores)).exp().tril()
    return weights / (weights.sum(-1, keepdim=True) + epsilon) @ values


def _naive_step(token, place, keys, values, to_query, to_key, to_value):
    _, keys, values = A.attention_step(token, place, keys, values, to_query, to_key, to_value)
    weights = (keys @ (token @ to_query)[:, :, None] / math.sqrt(keys.shape[2])).exp()
    return (weights * values).sum(1) / weights.sum(1), keys, values


def _tails_by_place(x, logits, mean, log_scale, levels):
    """The first pixel gets the lower tail, the last one the upper tail, whatever their levels."""
    k = x[:, :, None].to(mean)
    upper = torch.sigmoid((k + 0.5 - mean) / log_scale.exp())
    lower = torch.sigmoid((k - 0.5 - mean) / log_scale.exp())
    lower[:, 0], upper[:, -1] = 0, 1
    return ((upper - lower) * logits.softmax(-1)).sum(-1).log().sum(1)


def _signed_sylvester(x, u, w, b):
    slope = 1 - torch.tanh(x @ w + b) ** 2
    return torch.linalg.det(torch.eye(u.shape[1]).to(x) + slope[:, :, None] * (w.T @ u))


def _fixed_point(z, to_mean, to_log_scale, passes=6):
    x = torch.zeros_like(z)
    for _ in range(passes):
        x = x @ to_mean.T + (x @ to_log_scale.T).tanh().exp() * z
    return x, (x @ to_log_scale.T).tanh().sum(1)


def hidden(name, key):
    return QUESTIONS[name].cases(name.partition(".")[0], *key)


def accepted(function, cases) -> bool:
    """Whether the judge would give the points, as far as these probes go."""
    for case in cases:
        inputs = [torch.tensor(x) if isinstance(x, np.ndarray) else x for x in case.inputs]
        try:
            result = as_arrays(function(*inputs))
        except Exception:  # an answer that raises earns nothing
            return False
        if not agree(result, case.expected, case.tolerance):
            return False
    return True


def test_every_question_has_its_cheapest_wrong_answers():
    assert set(WRONG) == set(QUESTIONS)
    assert all(len(answers) >= 3 for answers in WRONG.values())


@pytest.mark.parametrize("name", WRONG)
def test_no_submission_gets_the_points_for_a_cheap_wrong_answer(name):
    question = QUESTIONS[name]
    functions = {
        what: as_function(answer, question.kind, question.symbols)
        for what, answer in WRONG[name].items()
    }
    # A value has no probes but one.
    keys = KEYS[:1] if question.kind == "value" else KEYS
    for key in keys:
        cases = hidden(name, key)
        torch.manual_seed(0)
        wrongly = [what for what, f in functions.items() if accepted(f, cases)]
        assert not wrongly, key


# The named mistakes as a student writes them: not by a change of the right answer, but by wrong steps.
# Each is the name of a mistake of its question, and must earn that mistake's hint.
sigmoid = torch.sigmoid


def _student_penalty(r, gr, f, gf, a, b, reduce, norm):
    real = (1 - sigmoid(r)) ** 2 * norm(gr**2)
    fake = sigmoid(f) ** 2 * norm(gf**2)
    return a / 2 * reduce(real) + b / 2 * reduce(fake)


def _student_loss(reduce):
    def loss(r, f, a, b):
        real, fake = (
            F.binary_cross_entropy_with_logits(x, torch.full_like(x, y), reduction="none")
            for x, y in ((r, a), (f, b))
        )
        return reduce(real, fake)

    return loss


def _student_sampling(level, place=lambda i, known: i):
    def complete(x, known, noise, bias, weight):
        x = x.clone()
        for i in range(known, x.shape[1]):
            p = torch.softmax(bias[i] + x[:, :i].to(weight) @ weight[i, :i], -1)
            x[:, i] = level(p.cumsum(-1), noise[:, place(i, known)][:, None])
        return x

    return complete


def _student_tails(x, logits, mean, log_scale, levels):
    """The scale is log_scale itself."""
    k = x[..., None]
    above, below = (sigmoid((k + d - mean) / log_scale) for d in (0.5, -0.5))
    above[(k == levels - 1).expand_as(above)] = 1
    below[(k == 0).expand_as(below)] = 0
    return ((above - below) * logits.softmax(2)).sum(2).log().sum(1)


def _student_attention(q, k, v, divisor, diagonal, *, axis=-1):
    n = q.shape[-2]
    mask = torch.triu(torch.full((n, n), -math.inf), diagonal)
    return torch.nn.functional.softmax(torch.matmul(q, k.mT) / divisor + mask.to(q), axis) @ v


def _student_step(h, place, keys, values, to_query, to_key, to_value, end):
    """Rows up to `end` are read, with PyTorch's function."""
    keys[:, place] = torch.matmul(h, to_key)
    values[:, place] = torch.matmul(h, to_value)
    query = torch.matmul(h, to_query)[:, None, :]
    read = F.scaled_dot_product_attention(query, keys[:, :end], values[:, :end])
    return read[:, 0], keys[:, : place + 1], values[:, : place + 1]


def _student_posterior(z, x, i, betas):
    """With arrays that begin with step 1, which has no ᾱ before it; `i` is an index of them."""
    product = torch.cumprod(1 - betas, 0)
    beta, now, before = betas[i], product[i], product[i - 1]
    of_z, of_x = (1 - beta).sqrt() * (1 - before) / (1 - now), before.sqrt() * beta / (1 - now)
    mean = torch.einsum("n,nd->nd", of_z, z) + torch.einsum("n,nd->nd", of_x, x)
    return mean, (1 - before) / (1 - now) * beta


def _student_bound(
    x,
    z,
    predicted,
    alpha,
    sigma,
    levels,
    *,
    error=lambda e: e.sum(-1),
    steps=lambda e: e.sum(0),
    place=None,
    decoder=lambda log_density: log_density - log_density.logsumexp(-1, keepdim=True),
):
    places = torch.linspace(-1, 1, levels).to(z) if place is None else place(torch.arange(levels))
    places = places.to(z)
    clean = places[x]
    normal = torch.distributions.Normal
    prior = torch.distributions.kl_divergence(
        normal(alpha[-1] * clean, sigma[-1]), normal(0.0, 1.0)
    ).sum(1)
    snr = (alpha / sigma).square()
    parts = -snr.diff()[:, None] * error((clean - predicted) ** 2) / 2
    density = decoder(normal(alpha[0] * places, sigma[0]).log_prob(z[..., None]))
    log_p = density.gather(-1, x[..., None]).sum((1, 2))
    return (prior + steps(parts) - log_p) / x.shape[1] / math.log(2)


def _student_ddim(z, alpha, sigma, weight, bias, steps):
    for t, s in steps:
        e = torch.tanh(z @ weight + bias[t])
        z = alpha[s] / alpha[t] * (z - sigma[t] * e) + sigma[s] * e
    return z


def _student_euler(z, weight, bias, sign):
    n = len(bias) - 1
    for k in reversed(range(1, n + 1)):
        z = z + sign * torch.tanh(z @ weight + bias[k]) / n
    return z


def _student_density(x, weight, bias, add):
    total, n = 0, len(bias)
    for k in range(n):
        v = torch.tanh(x @ weight + bias[k])
        jacobian = torch.diag_embed(1 - v**2) @ weight.T
        total = add(total, jacobian.diagonal(dim1=1, dim2=2).sum(1), n)
        x = x + v / n
    return torch.distributions.Normal(0, 1).log_prob(x).sum(1) + total


def _student_target(z, r, t, v, weight, of_r, of_t, along, of_time):
    def u(z, t):
        return torch.tanh(z @ weight + torch.outer(r, of_r) + torch.outer(t, of_t))

    _, rate = torch.func.jvp(u, (z, t), (along, of_time))
    return v - (t - r)[:, None] * rate


STUDENTS = {
    "vae.kl_diagonal": {
        "mean over dimensions": lambda m, v, pm, pv: torch.distributions.kl_divergence(
            torch.distributions.Normal(m, (v / 2).exp()),
            torch.distributions.Normal(pm, (pv / 2).exp()),
        ).mean(1),
        "−1 counted once": lambda m, v, pm, pv: (
            0.5 * (((v - pv).exp() + (m - pm) ** 2 / pv.exp() - v + pv).sum(1) - 1)
        ),
        "standard normal prior": lambda m, v, pm, pv: -0.5 * (1 + v - m**2 - v.exp()).sum(1),
    },
    "vae.gaussian_nll": {
        "mean over pixels": lambda x, m, v: (
            0.5 * (((x - m) ** 2).mean((1, 2, 3)) / v.exp() + v + math.log(2 * math.pi))
        ),
        "constant dropped": lambda x, m, v: (
            0.5 * (((x - m) ** 2).sum((1, 2, 3)) / v.exp() + v * x[0].numel())
        ),
        "log-determinant counted once": lambda x, m, v: (
            0.5
            * (((x - m) ** 2).sum((1, 2, 3)) / v.exp() + v + x[0].numel() * math.log(2 * math.pi))
        ),
        "channels not counted": lambda x, m, v: (
            0.5
            * (
                ((x - m) ** 2).sum((1, 2, 3)) / v.exp()
                + x.shape[2] * x.shape[3] * (v + math.log(2 * math.pi))
            )
        ),
    },
    "vae.renyi_bound": {
        "−log k missing": lambda w, a: 1 / (1 - a) * ((1 - a) * w).logsumexp(0),
        "averaged over the batch": lambda w, a: (
            (((1 - a) * w).logsumexp(1) - math.log(w.shape[1])) / (1 - a)
        ),
        "α ignored": lambda w, a: w.logsumexp(0) - math.log(len(w)),
    },
    "vae.negative_elbo": {
        "sum over the batch": lambda x, kl: kl.sum() - x.sum(),
        "channels averaged": lambda x, kl: (kl.sum(1) - x.mean(1).sum((1, 2))).mean(),
        "everything averaged": lambda x, kl: -(x.mean() - kl.mean()),
    },
    "vae.score_gradient": {
        "sum over samples": lambda f, z, m, v: (
            f[:, None] * (-0.5 + (z - m) ** 2 / (2 * v.exp()))
        ).sum(0),
        "derivative for log σ": lambda f, z, m, v: (f[:, None] * ((z - m) ** 2 / v.exp() - 1)).mean(
            0
        ),
    },
    "vae.mmd_unbiased": {
        "diagonal dropped, divided by n²": lambda a, b, c: (
            (a * (1 - torch.eye(len(a)))).mean()
            + (b * (1 - torch.eye(len(b)))).mean()
            - 2 * c.mean()
        ),
        "clipped at 0": lambda a, b, c: max(V.mmd_unbiased(a, b, c).item(), 0.0),
    },
    "gan.generator_gradient": {
        "sum over the batch": lambda a, m: -(m * sigmoid(a) + (1 - m) * (1 - sigmoid(a))),
        "gradient for the probability": lambda a, m: (
            -(m / (1 - sigmoid(a)) + (1 - m) / sigmoid(a)) / a.shape[0]
        ),
    },
    "gan.discriminator_loss": {
        "pooled mean": _student_loss(lambda r, f: torch.cat([r, f]).mean()),
        "sum over the batch": _student_loss(lambda r, f: r.sum() + f.sum()),
        "half": _student_loss(lambda r, f: (r.mean() + f.mean()) / 2),
        "clamped logarithm": lambda r, f, a, b: (
            F.binary_cross_entropy(sigmoid(r), r * 0 + a)
            + F.binary_cross_entropy(sigmoid(f), f * 0 + b)
        ),
    },
    "gan.noise_penalty": {
        "mean over pixels": lambda *x: _student_penalty(
            *x, torch.mean, lambda g: g.mean(dim=(1, 2, 3))
        ),
        "sum over the batch": lambda *x: _student_penalty(
            *x, torch.sum, lambda g: g.sum(dim=(1, 2, 3))
        ),
        "weights ignored": lambda r, gr, f, gf, a, b: (
            a / 2 * (gr**2).sum() / len(gr) + b / 2 * (gf**2).sum() / len(gf)
        ),
    },
    "gan.wgan_rounds": {
        "not clipped": lambda r, f, s, c: _rounds(r, f, s, lambda w: w),
        "sum over generated points": lambda *x: _summed_rounds(*x),
    },
    "gan.step_radii": {
        "roots of the determinants": lambda s, c, h: torch.tensor(
            [math.sqrt(abs(1 - h * c + h * h * s * s)), math.sqrt(abs(1 - h * c))]
        ).double(),
        "determinants": lambda *x: [torch.det(m) for m in G.step_matrices(*x)],
        "squares of the moduli": lambda *x: [
            (torch.linalg.eigvals(m).abs() ** 2).max() for m in G.step_matrices(*x)
        ],
        "real parts": lambda *x: [
            np.abs(np.linalg.eigvals(m.numpy()).real).max() for m in G.step_matrices(*x)
        ],
        "field instead of step": lambda s, c, h: (
            [np.abs(np.linalg.eigvals(np.array([[0, s], [-s, -c]]))).max()] * 2
        ),
        "slope ½": lambda s, c, h: [
            torch.linalg.eigvals(m).abs().max() for m in G.step_matrices(0.5, c, h)
        ],
    },
    "autoregressive.logistic_mixture": {"log_scale as scale": _student_tails},
    "autoregressive.made_masks": {
        "direct connections as paths": lambda o, h: (
            (h[:, None] >= o).int(),
            (o[:, None] > h).int(),
            ((o[:, None] > h).int() @ (h[:, None] >= o).int() > 0).int(),
        ),
    },
    "autoregressive.complete": {
        "noise counted from the first drawn entry": _student_sampling(
            lambda c, u: (c[:, :-1] <= u).sum(1), lambda i, known: i - known
        ),
        "noise moved": _student_sampling(
            lambda c, u: (c[:, :-1] <= u).sum(1), lambda i, known: i - 1
        ),
        "one level too low, down to −1": _student_sampling(lambda c, u: (c <= u).sum(1) - 1),
        "one level too low": _student_sampling(lambda c, u: ((c <= u).sum(1) - 1).clamp(min=0)),
        "from the top": _student_sampling(
            lambda c, u: torch.searchsorted(c[:, :-1].contiguous(), 1 - u, right=True)[:, 0]
        ),
    },
    "autoregressive.causal_attention": {
        "no mask": F.scaled_dot_product_attention,
        "own place hidden": lambda q, k, v: _student_attention(q, k, v, q.shape[-1] ** 0.5, 0),
        "own place hidden, by a large number": lambda q, k, v: (
            torch.softmax(
                torch.where(
                    torch.ones(q.shape[-2], q.shape[-2]).tril(-1) == 1,
                    q @ k.mT / q.shape[-1] ** 0.5,
                    -1e10,
                ),
                -1,
            )
            @ v
        ),
        "one place of the future": lambda q, k, v: _student_attention(
            q, k, v, q.shape[-1] ** 0.5, 2
        ),
        "mask transposed": lambda q, k, v: F.scaled_dot_product_attention(
            q, k, v, attn_mask=torch.ones(q.shape[-2], q.shape[-2], dtype=torch.bool).triu()
        ),
        "scale missing": lambda q, k, v: F.scaled_dot_product_attention(
            q, k, v, is_causal=True, scale=1.0
        ),
        "d for √d": lambda q, k, v: _student_attention(q, k, v, q.size(-1), 1),
        "softmax over the queries": lambda q, k, v: _student_attention(
            q, k, v, q.shape[-1] ** 0.5, 1, axis=-2
        ),
        "masked after the softmax": lambda q, k, v: torch.einsum(
            "...ij,ij,...je->...ie",
            (torch.einsum("...id,...jd->...ij", q, k) * q.shape[-1] ** -0.5).softmax(-1),
            torch.tril(q.new_ones(q.shape[-2], q.shape[-2])),
            v,
        ),
        "scores set to 0": lambda q, k, v: (
            torch.softmax(torch.tril(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])), -1) @ v
        ),
    },
    "autoregressive.attention_step": {
        "stale rows read": lambda h, i, k, v, a, b, c: _student_step(h, i, k, v, a, b, c, None),
        "one row too many": lambda h, i, k, v, a, b, c: _student_step(h, i, k, v, a, b, c, i + 2),
        "own place left out": lambda h, i, k, v, a, b, c: _student_step(h, i, k, v, a, b, c, i),
        "read before stored": lambda h, i, k, v, a, b, c: (
            F.scaled_dot_product_attention((h @ a)[:, None], k[:, : i + 1], v[:, : i + 1])[:, 0],
            *_student_step(h, i, k, v, a, b, c, None)[1:],
        ),
        "values not stored": lambda h, i, k, v, a, b, c: (
            F.scaled_dot_product_attention(
                (h @ a)[:, None], torch.cat([k[:, :i], (h @ b)[:, None]], 1), v[:, : i + 1]
            )[:, 0],
            torch.cat([k[:, :i], (h @ b)[:, None]], 1),
            v[:, : i + 1],
        ),
        "scale missing": lambda h, i, k, v, a, b, c: _student_step(
            h, i, k, v, a * a.shape[1] ** 0.5, b, c, i + 1
        ),
        "width of the token": lambda h, i, k, v, a, b, c: _student_step(
            h, i, k, v, a * (a.shape[1] / a.shape[0]) ** 0.5, b, c, i + 1
        ),
    },
    "autoregressive.order_ensemble": {
        "not divided": lambda p: -p.sum(-1).logsumexp(0) / p.shape[-1] / math.log(2),
        "averaged pixel by pixel": lambda p: -p.exp().mean(0).log2().mean(1),
        "bits per image": lambda p: -p.sum(-1).exp().mean(0).log2(),
    },
    "autoregressive.masked_bound": {
        "weight 1": lambda p, masked: torch.where(masked, p, 0).sum(1),
        "mean over the masked pixels": lambda p, masked: torch.stack(
            [row[hidden].mean() for row, hidden in zip(p, masked, strict=True)]
        ),
        "known pixels": lambda p, masked: torch.stack(
            [len(row) * row[~hidden].mean() for row, hidden in zip(p, masked, strict=True)]
        ),
        "weight inverted": lambda p, masked: (
            torch.where(masked, p, 0).sum(1) * masked.double().mean(1)
        ),
    },
    "diffusion.noising_marginal": {
        "ᾱ for α": lambda b: (
            F.pad((1 - b).cumprod(0), (1, 0), value=1.0),
            F.pad((1 - (1 - b).cumprod(0)).sqrt(), (1, 0)),
        ),
        "data left out": lambda b: (
            (1 - b).cumprod(0).sqrt(),
            (1 - (1 - b).cumprod(0)).sqrt(),
        ),
        "no root in the shrinking": lambda b: (
            F.pad((1 - b).cumprod(0), (1, 0), value=1.0),
            (1 - F.pad((1 - b).cumprod(0), (1, 0), value=1.0) ** 2).sqrt(),
        ),
    },
    "diffusion.posterior_step": {
        "no ᾱ of the data": lambda z, x, i, b: _student_posterior(z, x, i - 1, b),
    },
    "diffusion.bound_bits": {
        "mean over dimensions": lambda x, z, p, a, s, k: _student_bound(
            x, z, p, a, s, k, error=lambda e: e.mean(-1)
        ),
        "mean over steps": lambda x, z, p, a, s, k: _student_bound(
            x, z, p, a, s, k, steps=lambda e: e.mean(0)
        ),
        "K for K − 1": lambda x, z, p, a, s, k: _student_bound(
            x, z, p, a, s, k, place=lambda j: 2 * j / k - 1
        ),
        "density for probability": lambda x, z, p, a, s, k: _student_bound(
            x, z, p, a, s, k, decoder=lambda log_density: log_density
        ),
    },
    "diffusion.mixture_score": {
        "weights dropped": lambda z, w, m, c, a, s: D.mixture_score_by_autograd(
            z, torch.full_like(w, 1 / len(w)), m, c, a, s
        ),
        "σ for σ²": lambda z, w, m, c, a, s: D.mixture_score_by_autograd(
            z, w, m, c, a, math.sqrt(s)
        ),
        "α dropped": lambda z, w, m, c, a, s: D.mixture_score_by_autograd(z, w, m / a, c, a, s),
    },
    "diffusion.predict_clean": {
        "old noise kept": lambda z, s, a, b: (
            ((z + (b**2)[:, None, None, None] * s) / a[:, None, None, None]).clip(-1, 1),
            -b[:, None, None, None] * s,
        ),
    },
    "diffusion.ddim_sample": {
        "stride ignored within the step": lambda z, a, s, k, w, b: _student_ddim(
            z, a, s, w, b, [(t, t - 1) for t in range(len(a) - 1, 0, -k)]
        ),
        "all levels visited": lambda z, a, s, k, w, b: _student_ddim(
            z, a, s, w, b, [(t, t - 1) for t in range(len(a) - 1, 0, -1)]
        ),
        "last step missing": lambda z, a, s, k, w, b: _student_ddim(
            z, a, s, w, b, [(t, t - k) for t in range(len(a) - 1, k, -k)]
        ),
    },
    "diffusion.guided_score": {
        "weight taken for the scale": lambda c, u, s, w: -torch.lerp(u, c, w) / s[:, None],
    },
    "flow_matching.mixture_velocity": {
        "denoiser": lambda z, w, m, c, t: torch.einsum(
            "nk,nkd->nd",
            M.responsibilities(z, w, m, c, t),
            m
            + ((1 - t[:, None]) * c / ((1 - t[:, None]) ** 2 * c + t[:, None] ** 2))[..., None]
            * (z[:, None] - (1 - t)[:, None, None] * m),
        ),
        "weights dropped": lambda z, w, m, c, t: M.mixture_velocity_by_score(
            z, torch.full_like(w, 1 / len(w)), m, c, t
        ),
    },
    "flow_matching.heun_sample": {
        "Euler": lambda z, w, b: _student_euler(z, w, b, -1),
    },
    "flow_matching.ode_log_density": {
        "last divergence alone": lambda x, w, b: _student_density(
            x, w, b, lambda total, div, n: div
        ),
        "last term alone": lambda x, w, b: _student_density(x, w, b, lambda total, div, n: div / n),
        "h missing": lambda x, w, b: _student_density(x, w, b, lambda total, div, n: total + div),
        "sign of the divergence": lambda x, w, b: _student_density(
            x, w, b, lambda total, div, n: total - div / n
        ),
    },
    "flow_matching.mean_flow_target": {
        "transport term dropped": lambda z, r, t, v, w, a, b: _student_target(
            z, r, t, v, w, a, b, torch.zeros_like(v), torch.ones_like(t)
        ),
        "time derivative dropped": lambda z, r, t, v, w, a, b: _student_target(
            z, r, t, v, w, a, b, v, torch.zeros_like(t)
        ),
        "u along its own direction": lambda z, r, t, v, w, a, b: _student_target(
            z, r, t, v, w, a, b, M.mean_flow_parts(z, r, t, w, a, b)[0], torch.ones_like(t)
        ),
    },
    "flow.sinh_arcsinh": {
        "log_tail as factor": lambda x, a, b: (
            torch.sinh(a * torch.asinh(x) + b),
            (torch.cosh(a * torch.asinh(x) + b) * a / torch.sqrt(1 + x**2)).abs().log().sum(1),
        ),
        "log_tail as factor of z": lambda x, a, b: (
            torch.sinh(a * torch.asinh(x) + b),
            (torch.cosh(a * torch.asinh(x) + b).log() + a - 0.5 * (1 + x**2).log()).sum(1),
        ),
    },
    "flow.sylvester_log_det": {
        "tanh for its slope": lambda x, u, w, b: torch.stack(
            [
                torch.linalg.det(torch.eye(len(u)).to(x) + u @ torch.diag(h) @ w.T).abs().log()
                for h in torch.tanh(x @ w + b)
            ]
        ),
        "slope of tanh dropped": lambda x, u, w, b: (
            torch.linalg.det(torch.eye(len(u)).to(x) + u @ w.T).abs().log().expand(len(x))
        ),
    },
    "flow.actnorm": {
        "n − 1": lambda x: (
            (x - x.mean((0, 2, 3), keepdim=True)) / x.std((0, 2, 3), keepdim=True),
            (-x.shape[2] * x.shape[3] * x.std((0, 2, 3)).log().sum()).expand(len(x)),
        ),
        "pixels not counted": lambda x: (
            N.actnorm(x)[0],
            -x.std((0, 2, 3), correction=0).log().sum().repeat(len(x)),
        ),
    },
    "flow.multiscale_log_prob": {
        "overwritten layer by layer": lambda e, z, d: (
            torch.distributions.Normal(0, 1)
            .log_prob(torch.cat([e.flatten(1), z.flatten(1)], 1))
            .sum(1)
            + d[-1]
        ),
        "mean over dimensions": lambda e, z, d: (
            torch.distributions.Normal(0, 1)
            .log_prob(torch.cat([e.flatten(1), z.flatten(1)], 1))
            .mean(1)
            + d.sum(0)
        ),
    },
    "flow.dequantized_bits": {
        "offset once": lambda p, q, k, d: (
            -(torch.logsumexp(p - q, 0) - math.log(len(p)) - math.log(k)) / (d * math.log(2))
        ),
        "−log k missing": lambda p, q, k, d: (
            math.log2(k) - torch.logsumexp(p - q, 0) / (d * math.log(2))
        ),
    },
    "flow.logit_inverse": {
        "clamped": lambda z, a: (
            ((z.sigmoid() - a) / (1 - 2 * a)).clamp(0, 1),
            (F.logsigmoid(z) + F.logsigmoid(-z) - math.log(1 - 2 * a)).sum(1),
        ),
        "slope of the squeeze dropped": lambda z, a: (
            (z.sigmoid() - a) / (1 - 2 * a),
            (F.logsigmoid(z) + F.logsigmoid(-z)).sum(1),
        ),
    },
}


def _summed_rounds(real, fake, step, bound):
    w = torch.zeros_like(real[0])
    for _ in range(2):
        w = (w + step * (real.mean(0) - fake.mean(0))).clamp(-bound, bound)
        fake = fake + step * w
    return fake


@pytest.mark.parametrize("name", STUDENTS)
def test_a_mistake_is_recognised_as_students_write_it(name):
    question = QUESTIONS[name]
    public = load(name.partition(".")[0])[question.name]
    mistakes = {mistake.name: mistake for mistake in question.mistakes}
    for what, answer in STUDENTS[name].items():
        assert diagnosis(public, evaluate(public, answer)) == mistakes[what].hint.rstrip("."), what
        for key in KEYS[:8]:
            drawn = replace(public, cases=tuple(hidden(name, key)))
            expected = question.results(mistakes[what].answer, drawn.cases)
            assert shows(evaluate(drawn, answer), expected, drawn.cases), (what, key)


FUNCTIONS = [name for name, question in QUESTIONS.items() if question.kind == "function"]


def _float32(x):
    return x.float() if isinstance(x, torch.Tensor) and x.is_floating_point() else x


def _tracked(x):
    return x.requires_grad_() if isinstance(x, torch.Tensor) and x.is_floating_point() else x


@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_point_is_lost_to_the_form_of_a_right_answer(name):
    """Rounded to float32, as NumPy array, with a gradient, as list, as plain number; inputs overwritten."""
    reference = QUESTIONS[name].reference

    def overwriting(*inputs):
        result = reference(*(x.clone() if isinstance(x, torch.Tensor) else x for x in inputs))
        for x in inputs:
            if isinstance(x, torch.Tensor):
                x.zero_()
        return result

    def listed(*inputs):
        result = reference(*inputs)
        return (
            list(result)
            if isinstance(result, tuple) or (result.ndim <= 1 and result.ndim)
            else result
        )

    def plain(x):
        return x.item() if isinstance(x, torch.Tensor) and x.ndim == 0 else x

    forms = {
        "float32": changed(reference, _float32),
        "NumPy": changed(reference, lambda x: x.detach().numpy()),
        "gradient": lambda *inputs: reference(*map(_tracked, inputs)),
        "list": listed,
        "number": changed(reference, plain),
        "overwriting": overwriting,
        "not contiguous": changed(reference, lambda x: x.mT.contiguous().mT if x.ndim > 1 else x),
    }
    for key in KEYS[:8]:
        cases = hidden(name, key)
        for what, answer in forms.items():
            assert accepted(answer, cases), (what, key)
