"""Ours beside the published figure of every model of the theory: python -m benchmarks.theory.table"""

from rich.console import Console
from rich.table import Table

import pytest_nnscale

from . import bert, convnet, deepspeech, gpt2, mask_rcnn, resnet, transformer, wav2vec2, yolov3

MODELS = (resnet, yolov3, mask_rcnn, convnet, bert, gpt2, transformer, deepspeech, wav2vec2)


def main() -> None:
    """Measure each model on shapes alone and print a row of it."""
    table = Table("model", title="1 multiply-accumulate = 2 FLOP", row_styles=["", "dim"])
    for heading in ("params", "published", "FLOPs", "published"):
        table.add_column(heading, justify="right")
    table.add_column("source", overflow="fold")
    for published in (row for model in MODELS for row in model.PUBLISHED):
        model, args = published.workload()
        profile = pytest_nnscale.profile(model, args=args)
        flops = f"{profile.flops / published.per:,.0f}"
        figures = (f"{profile.params:,}", published.params, flops, published.flops)
        table.add_row(published.name, *figures, published.source)
    Console(width=None).print(table)


if __name__ == "__main__":
    main()
