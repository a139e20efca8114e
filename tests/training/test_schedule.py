"""The learning rate as a function of epoch and step."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ddpnas_ray.tasks.recipe import RetrainingConfig
from ddpnas_ray.training.schedule import learning_rate

DARTS = RetrainingConfig(epochs=600, lr=0.025)


def rates(config: RetrainingConfig, steps: int) -> list[float]:
    return [learning_rate(config, epoch, step, steps) for epoch in range(config.epochs) for step in range(steps)]


@pytest.mark.parametrize("schedule", ["cosine", "step"])
def test_it_is_torchs_own_schedule(schedule: str) -> None:
    config = replace(DARTS, epochs=20, schedule=schedule, lr_epochs=3)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], config.lr)
    own: torch.optim.lr_scheduler.LRScheduler = (
        torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)
        if schedule == "cosine"
        else torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.97)
    )
    for epoch in range(20):
        assert learning_rate(config, epoch, 4, 7) == pytest.approx(own.get_last_lr()[0], rel=1e-6)
        optimizer.step()
        own.step()


@given(
    epochs=st.integers(1, 30),
    warmup=st.integers(0, 30) | st.integers(0, 300).map(lambda tenths: tenths / 10),
    steps=st.integers(1, 9),
    per=st.sampled_from(["epoch", "step"]),
    schedule=st.sampled_from(["cosine", "linear", "poly", "step"]),
)
def test_it_rises_to_lr_then_falls_and_is_never_negative(
    epochs: int, warmup: float, steps: int, per: str, schedule: str
) -> None:
    config = replace(DARTS, epochs=epochs, warmup_epochs=warmup, lr_per=per, schedule=schedule, lr_factor=0.5)
    found = rates(config, steps)
    assert all(0 <= rate <= config.lr * (1 + 1e-12) for rate in found)
    rising = math.ceil(warmup * steps)
    up, down = found[:rising], found[rising:]
    assert up == sorted(up) and down == sorted(down, reverse=True)
    if warmup and warmup <= epochs:
        assert up[-1] == pytest.approx(config.lr)


def test_berts_schedule_rises_for_a_tenth_of_the_steps_then_falls_in_a_line_to_zero() -> None:
    """As ``get_linear_schedule_with_warmup`` of transformers, one step on: the first step there has rate 0."""
    bert = replace(DARTS, epochs=3, lr=1.0, warmup_epochs=0.3, schedule="linear", lr_per="step")
    wanted = [(i + 1) / 30 if i < 30 else (300 - i) / 270 for i in range(300)]
    assert rates(bert, 100) == pytest.approx(wanted)


def test_a_cosine_by_steps_ends_near_zero() -> None:
    config = replace(DARTS, epochs=10, lr_per="step")
    assert rates(config, 50)[-1] == pytest.approx(config.lr * 0.5 * (1 + math.cos(math.pi * (1 - 1 / 500))))


def test_poly_is_torchs_polynomial_schedule_step_by_step() -> None:
    config = replace(DARTS, epochs=5, lr=0.1, schedule="poly", lr_per="step")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], config.lr)
    own = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=20, power=0.9)
    for rate in rates(config, 4):
        assert rate == pytest.approx(own.get_last_lr()[0], rel=1e-6)
        optimizer.step()
        own.step()
    assert rates(replace(config, lr_power=1.0), 4) == pytest.approx(rates(replace(config, schedule="linear"), 4))
