"""What the comparison says about recorded runs is what the records hold."""

from collections import defaultdict
from pathlib import Path

import pytest

from course_lib.experiments import read_records

RESULTS = Path(__file__).parents[2] / "results"


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def tightest(record):
    return min(metric.value for metric in record.metrics.values())


def loosest(record):
    return max(metric.value for metric in record.metrics.values())


@pytest.fixture(scope="module")
def digits():
    groups = defaultdict(list)
    for record in read_records(RESULTS, data="digits"):
        groups[record.model, record.budget].append(record)
    return groups


def mnist(model, budget="cpu"):
    (record,) = read_records(RESULTS, data="mnist", model=model, budget=budget, seed=0)
    return record


def seen(record):
    return record.steps * record.settings["batch_size"]


def test_what_is_said_of_the_two_pixelcnns(digits):
    plain, gated = mnist("PixelCNN"), mnist("GatedPixelCNN")
    error = max(r.metrics["negative_log_likelihood"].standard_error for r in (plain, gated))
    assert tightest(plain) + 2 * error < tightest(gated)
    assert plain.parameters < gated.parameters / 2
    assert 1.9 < seen(plain) / seen(gated) < 2.2
    assert gated.best_step == gated.steps
    plain, gated = digits["PixelCNN", "60s"], digits["GatedPixelCNN", "60s"]
    assert {r.steps for r in plain} == {r.steps for r in gated}
    level = abs(mean(map(tightest, plain)) - mean(map(tightest, gated)))
    error = gated[0].metrics["negative_log_likelihood"].standard_error
    assert level < error
    longer = mean(map(tightest, digits["GatedPixelCNN", "300s"]))
    assert longer + 2 * error < mean(map(tightest, gated))


def test_what_is_said_of_the_flows_of_the_digits(digits):
    first, glow, multi = (digits[m, "60s"] for m in ("RealNVP", "Glow", "MultiScaleRealNVP"))
    assert max(map(tightest, first)) < min(map(tightest, [*glow, *multi]))
    for others in (glow, multi):
        assert first[0].steps > 2 * others[0].steps
        assert mean(r.cpu_seconds for r in first) < 1.1 * mean(r.cpu_seconds for r in others)
    assert first[0].parameters > 2 * glow[0].parameters
    assert all(r.best_step == r.steps for r in [*first, *glow, *multi])
    # Ranked by its looser bound RealNVP falls behind two models that it passes by the tighter one.
    for model in ("MADE", "FVSBN"):
        value = mean(map(tightest, digits[model, "60s"]))
        assert mean(map(tightest, first)) < value < mean(map(loosest, first))


def test_what_is_said_of_images_seen_and_of_the_encoder_of_the_iwae():
    binary = [
        r
        for r in read_records(RESULTS, data="mnist")
        if all(metric.unit == "nats" for metric in r.metrics.values())
    ]
    assert max(map(seen, binary)) > 100 * min(map(seen, binary))
    plain, weighted = mnist("VAE"), mnist("VAE", "cpu-iwae50")
    assert seen(weighted) < seen(plain) / 3
    assert weighted.parameters < plain.parameters

    def gap(record):
        return loosest(record) - tightest(record)

    assert gap(weighted) > 2 * gap(plain)


def test_what_is_said_of_the_first_models_on_the_digits(digits):
    names = ("VelocityFlow", "Transformer", "Diffusion", "DiagonalBiLSTM")
    flow, transformer, diffusion, lstm = (digits[name, "60s"] for name in names)
    every = sorted(mean(map(tightest, runs)) for key, runs in digits.items() if key[1] == "60s")
    assert every[:4] == [mean(map(tightest, runs)) for runs in (flow, transformer, diffusion, lstm)]
    assert every[2] < 1.76 < every[3]  # what stands in for the figure says so
    solver = mean(loosest(r) - tightest(r) for r in flow)
    assert 0 < solver < every[1] - every[0]
    error = mean(r.metrics["negative_elbo"].standard_error for r in diffusion)
    assert every[2] - every[1] < error
    assert 0.5 * error < every[3] - every[2] < 1.5 * error
    for runs, least, most in ((flow, 1.3, 1.7), (transformer, 1.6, 2), (diffusion, 1.6, 2)):
        more = mean(r.cpu_seconds for r in runs) / mean(r.cpu_seconds for r in lstm)
        assert least < more < most
    # At the last step the two that see new noise were best, and the transformer no longer.
    assert all(r.best_step == r.steps for r in (*flow, *diffusion))
    assert not any(r.best_step == r.steps for r in transformer)
    order = ("VelocityFlow", "GatedPixelCNN", "Diffusion")
    longer = [mean(map(tightest, digits[name, "300s"])) for name in order]
    assert longer == sorted(longer)


def test_flow_matching_is_recorded_by_its_bound_and_with_the_solvers_error(digits):
    for budget in ("60s", "300s"):
        for record in digits["VelocityFlow", budget]:
            assert set(record.metrics) == {"dequantization_bound", "bound_plus_solver_error"}
            assert record.tightest[0] == "dequantization_bound"


def test_what_is_said_of_the_diffusion_model_of_mnist():
    diffusion = mnist("Diffusion")
    others = [
        r
        for r in read_records(RESULTS, data="mnist")
        if r.protocol == diffusion.protocol and r.model not in ("Diffusion", "VelocityFlow")
    ]
    assert len(others) == 4
    for other in others:
        error = diffusion.tightest[1].standard_error + other.tightest[1].standard_error
        assert tightest(diffusion) + 3 * error < tightest(other)
    known = [r.cpu_seconds for r in others if r.cpu_seconds is not None]
    assert len(known) == 3
    assert diffusion.cpu_seconds < min(known)
    assert all(r.best_step == r.steps for r in [diffusion, *others])


def test_what_is_said_of_flow_matching_on_mnist(digits):
    diffusion, flow = mnist("Diffusion"), mnist("VelocityFlow")
    assert diffusion.protocol == flow.protocol
    assert 1.7 < flow.cpu_seconds / diffusion.cpu_seconds < 2.3
    error = diffusion.tightest[1].standard_error + flow.tightest[1].standard_error
    assert tightest(flow) > tightest(diffusion) + 3 * error
    for budget in ("60s", "300s"):
        small = [
            mean(map(tightest, digits[name, budget])) for name in ("VelocityFlow", "Diffusion")
        ]
        assert small[0] < small[1]
