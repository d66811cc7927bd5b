"""`causal_bits` equals an independent computation, and nothing that sees the future gains by it."""

import math

import numpy as np
import pytest
import torch

from course_lib.checking.measures import Invalid, causal_bits, images


class Chain:
    """An honest model in closed form: each pixel given the one before, from counts."""

    def __init__(self) -> None:
        x = images("train").flatten(1).long()
        before = torch.cat([torch.zeros(len(x), 1).long(), x[:, :-1]], 1)
        counts = torch.full((64, 17, 17), 0.05, dtype=torch.float64)
        place = torch.arange(64).expand_as(x)
        counts.index_put_((place, before, x), torch.ones(x.shape).double(), accumulate=True)
        self.table = counts.log()  # not normalized: the measure does that

    def logits(self, x):
        x = x.flatten(1)
        before = torch.cat([torch.zeros(len(x), 1).long(), x[:, :-1]], 1)
        return self.table[torch.arange(64), before]

    def bits(self, x):
        x = x.flatten(1).long()
        log_p = torch.distributions.Categorical(logits=self.logits(x)).log_prob(x)
        return -(log_p.sum(1) / (64 * math.log(2))).mean().item()


def measured(model, split="validation", seed=1, record=None):
    def ask(name, x):
        if record is not None:
            record.append(torch.from_numpy(x))
        assert name == "logits"
        assert x.shape[1:] == (1, 8, 8)
        assert x.dtype == np.int64
        return {"": np.asarray(model.logits(torch.from_numpy(x)))}

    return causal_bits(ask, split=split, seed=seed)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_it_equals_the_closed_form(split):
    model, record = Chain(), []
    found = measured(model, split, record=record)
    x = record[-1]  # the whole images come last
    known = {tuple(image) for image in images(split).flatten(1).tolist()}
    assert len(x) == 96
    assert all(tuple(image) in known for image in x.flatten(1).tolist())
    assert found.value == pytest.approx(model.bits(x), abs=1e-10)
    assert found.unit == "bits/dim"
    assert not found.suspicious


class Inflated(Chain):
    """Adds a constant to every logit, which a claimed likelihood would show."""

    def logits(self, x):
        return super().logits(x) + 5


def test_logits_are_normalized_outside():
    assert measured(Inflated()).value == pytest.approx(measured(Chain()).value, abs=1e-10)


class SeesItself(Chain):
    """Mask B in the first layer: the loss of a model that copies."""

    def logits(self, x):
        return 20.0 * torch.nn.functional.one_hot(x.flatten(1), 17).double()


class SeesNext(Chain):
    def logits(self, x):
        after = torch.cat([x.flatten(1)[:, 1:], torch.zeros(len(x), 1).long()], 1)
        return super().logits(x) + torch.nn.functional.one_hot(after, 17)


class Random(Chain):
    """Dropout is still on."""

    def logits(self, x):
        return torch.nn.functional.dropout(super().logits(x), 0.2)


class Remembers(Chain):
    """Copies from any earlier round whose image began in the same way, as far as it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = torch.zeros(0, 64).long()

    def logits(self, x):
        x = x.flatten(1)
        answer = super().logits(x)
        if len(self.seen):
            differs = np.ones(
                (len(self.seen), len(x), 65), bool
            )  # behind the last pixel at the latest
            np.not_equal(self.seen[:, None].numpy(), x[None].numpy(), out=differs[:, :, :64])
            alike = torch.from_numpy(differs.argmax(2))  # the length of the common beginning
            length, best = alike.max(0)
            after = torch.nn.functional.one_hot(self.seen[best], 17)
            answer = answer + 3 * after * (torch.arange(64) >= length[:, None])[:, :, None]
        self.seen = torch.cat([self.seen, x])[-2000:]
        return answer


class SeesOthers(Chain):
    """Batch normalization in training mode: the other images of the batch count."""

    def logits(self, x):
        return super().logits(x) + 0.1 * x.flatten(1).double().mean(0)[:, None] * torch.arange(17)


class ByPlace(Chain):
    """Something else for each row of the batch."""

    def logits(self, x):
        place = torch.linspace(0, 1, len(x)).double()
        return super().logits(x) + place[:, None, None] * torch.arange(17)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (SeesItself, "sees the future"),
        (SeesNext, "sees the future"),
        (Remembers, "future|random .* or remembers"),
        (Random, r"random \(dropout"),
        (SeesOthers, "other points of its batch"),
        (ByPlace, "place in the batch"),
    ],
)
def test_what_sees_more_than_the_past_is_rejected(model, said):
    with pytest.raises(Invalid, match=said):
        measured(model())


class Short(Chain):
    def logits(self, x):
        return super().logits(x)[:, :, :16]


class Undefined(Chain):
    def logits(self, x):
        return super().logits(x).log()


@pytest.mark.parametrize(("model", "message"), [(Short, "shape"), (Undefined, "finite")])
def test_what_is_no_answer_is_rejected_with_a_reason(model, message):
    with pytest.raises(Invalid, match=message):
        measured(model())


def test_no_round_shows_a_pixel_that_is_still_to_be_predicted():
    record = []
    measured(Chain(), record=record)
    x = {tuple(image) for image in record[-1].flatten(1).tolist()}
    for i, shown in enumerate(record[:64]):
        known = {image[:i] for image in x}
        assert {tuple(image[:i].tolist()) for image in shown.flatten(1)} == known
        # What follows is noise: hardly one of the images begins so for five pixels more.
        further = {image[: i + 5] for image in x}
        assert sum(tuple(image[: i + 5].tolist()) in further for image in shown.flatten(1)) < 48
    assert all(len(shown) < 97 for shown in record)


def test_the_images_are_asked_in_another_order_each_time():
    record = []
    measured(Chain(), record=record)
    first = [tuple(shown[:, 0, :2].flatten().tolist()) for shown in record[20:40]]
    assert len(set(first)) == 20
