"""Small models with batches that pass through them, and one that notes each pass."""

import torch
from torch import nn

from bench.data.random_batches import RandomBatches
from models import gpt2, vit
from tests.helpers.commands import FP32, settle

TEXT, IMAGES = {"vocab_size": 99}, {"image_size": 8, "channels": 1, "classes": 5}
SIZES = {"layers": 2, "heads": 4, "width": 32}


class Counter(nn.Module):
    """A norm that has to do with one example, random numbers, and a count of what was seen."""

    def __init__(self):
        super().__init__()
        self.norm, self.head, self.drop = nn.BatchNorm1d(64), nn.Linear(64, 5), nn.Dropout(0.5)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, pixel_values):
        self.calls += 1
        torch.rand(1)
        return type("Out", (), {"logits": self.drop(self.head(self.norm(pixel_values.flatten(1))))})


class Counted:
    """Batches whose examples are 100 * step + their number."""

    def batch(self, step, examples):
        rows = 100 * step + torch.arange(examples)
        return {"input_ids": rows, "labels": rows}


def text():
    return gpt2.build(**TEXT, **SIZES, positions=64), RandomBatches("text", 64, TEXT)


def images():
    model = vit.build(**IMAGES, **SIZES, patch_size=4)
    return model, RandomBatches("images", 0, IMAGES)


def train(*overrides):
    return settle(*FP32, *overrides).train
