"""Write the decoder that pages hold, from the checkpoint of its recorded run.

    course-lib train VAE --data mnist --budget source-2d
    python tools/page_decoder.py

It says by how much what is stored differs from the recorded model, in grey levels of 256.
"""

from pathlib import Path

import torch

from course_lib.data import load
from course_lib.experiments.page_decoder import (
    LIMIT,
    POINTS,
    RECORD,
    PageDecoder,
    decoder_path,
    factorized,
    read_decoder,
)
from course_lib.experiments.running import checkpoint_path, images_of, plan, train

ROOT = Path(__file__).parents[1]


def main(checkpoints: Path) -> None:
    """Read the checkpoint, write the decoder, compare both."""
    data_name, model_name, *budget, _ = RECORD.split("-")
    budget, recipe = plan(model_name, data_name, "-".join(budget))
    checkpoint = checkpoint_path(checkpoints, model_name, data_name, budget, 0, recipe)
    if not checkpoint.exists():
        raise SystemExit(f"{checkpoint} is missing: train the run first, as above.")
    data = load(data_name)
    model, _ = train(model_name, data, recipe, checkpoint=checkpoint, progress=False)
    whole = model.decoder[:-1]
    with torch.no_grad():
        points = model.encode(images_of(data.test[:POINTS], data, recipe)).mean
    stored = PageDecoder(factorized(model.decoder[:-1]), points, data.test_labels[:POINTS])
    path = decoder_path(ROOT / "results")
    stored.write(path)
    z = LIMIT * (2 * torch.rand(10_000, 2, generator=torch.Generator().manual_seed(0)) - 1)
    with torch.no_grad():
        found = read_decoder(path).decoder(z).sigmoid()
        apart = 255 * (found - whole(z).sigmoid()).abs().max().item()
    print(f"{path}: {path.stat().st_size} bytes, at most {apart:.2f} grey levels apart")
    if apart > 1:
        raise SystemExit("More than a grey level: a larger rank is needed.")


if __name__ == "__main__":
    import argparse

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoints", type=Path, default=ROOT / "checkpoints")
    main(parser.parse_args().checkpoints)
