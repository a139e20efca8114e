"""Parsing and formatting of budgets."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddpnas_ray.core.errors import BudgetError
from ddpnas_ray.core.generation.budgets import Bound, Budget, budget_text, parse_budgets, quantity

COSTS = {
    "params": 3_000_001,
    "macs": 500_000_000,
    "height.normal": 3,
    "height.reduce": 2,
    "latency": 12_000_000,
}


def parsed(text: str) -> Budget:
    """The one budget that a text stands for."""
    (budget,) = parse_budgets(text, COSTS)
    return budget


def uppers(text: str, name: str = "macs") -> list[int | None]:
    """The upper bounds of a sweep."""
    return [budget[name].upper for budget in parse_budgets(text, COSTS)]


# --- forms ---


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("macs=600M", Bound(None, 600_000_000)),
        ("macs=200M..600M", Bound(200_000_000, 600_000_000)),
        ("macs=7..7", Bound(7, 7)),
        ("macs=200M..", Bound(200_000_000, None)),
        ("macs=..600M", Bound(None, 600_000_000)),
        ("macs=0", Bound(None, 0)),
        (" macs = 1 .. 2 ", Bound(1, 2)),
    ],
)
def test_at_most_between_exactly_and_at_least(text: str, bound: Bound) -> None:
    assert parsed(text) == {"macs": bound}


@pytest.mark.parametrize(
    ("number", "value"),
    [
        ("12", 12),
        ("1k", 1_000),
        ("1.5M", 1_500_000),
        (".25G", 250_000_000),
        ("0.1234567M", 123_456),  # at most: rounded down
        ("600 M", 600_000_000),
        ("90%", 450_000_000),
        ("12.5%", 62_500_000),
        ("250%", 1_250_000_000),
        ("4503599627370497", 2**52 + 1),
        ("4503599627.370497M", 2**52 + 1),  # exact, beyond floating point
    ],
)
def test_units_are_exact(number: str, value: int) -> None:
    assert parsed(f"macs={number}") == {"macs": Bound(None, value)}


@pytest.mark.parametrize(
    ("number", "ns"), [("8ms", 8_000_000), ("1.5us", 1_500), ("7ns", 7), ("0.5s", 500_000_000), ("50%", 6_000_000)]
)
def test_latencies_have_units_of_time(number: str, ns: int) -> None:
    assert parsed(f"latency={number}") == {"latency": Bound(None, ns)}


def test_what_is_no_whole_number_is_rounded_into_the_bounds() -> None:
    # 50 % of 3,000,001 is 1,500,000.5: at most 1,500,000, at least 1,500,001.
    assert parsed("params=50%") == {"params": Bound(None, 1_500_000)}
    assert parsed("params=50%..") == {"params": Bound(1_500_001, None)}
    assert parsed("params=50%..100%") == {"params": Bound(1_500_001, 3_000_001)}


def test_several_bounds_keep_their_order() -> None:
    budget = parsed("params=4M, macs=200M..600M,height.reduce=2..2")
    assert list(budget.items()) == [
        ("params", Bound(None, 4_000_000)),
        ("macs", Bound(200_000_000, 600_000_000)),
        ("height.reduce", Bound(2, 2)),
    ]


def test_a_family_stands_for_each_of_its_costs() -> None:
    assert parsed("height=2..3") == {"height.normal": Bound(2, 3), "height.reduce": Bound(2, 3)}
    assert parsed("height=100%") == {"height.normal": Bound(None, 3), "height.reduce": Bound(None, 2)}
    assert parsed("height.normal=1") == {"height.normal": Bound(None, 1)}


def test_a_cost_of_the_very_name_is_no_family() -> None:
    (budget,) = parse_budgets("height=4", {"height": 1, "height.normal": 2})
    assert budget == {"height": Bound(None, 4)}


@pytest.mark.parametrize(
    ("bound", "value", "allowed"),
    [
        (Bound(2, 4), 1, False),
        (Bound(2, 4), 2, True),
        (Bound(2, 4), 4, True),
        (Bound(2, 4), 5, False),
        (Bound(None, 4), -(10**9), True),
        (Bound(2, None), 10**18, True),
        (Bound(), 0, True),
    ],
)
def test_both_ends_of_a_bound_are_allowed(bound: Bound, value: int, allowed: bool) -> None:
    assert bound.allows(value) is allowed


# --- sweeps ---


def test_a_sweep_has_evenly_spaced_upper_bounds_with_both_ends() -> None:
    assert uppers("macs=200M..600M:5") == [200_000_000, 300_000_000, 400_000_000, 500_000_000, 600_000_000]
    assert uppers("macs=50%..100%:3") == [250_000_000, 375_000_000, 500_000_000]
    assert uppers("macs=0..10:4") == [0, 3, 6, 10]
    assert all(budget["macs"].lower is None for budget in parse_budgets("macs=1..9:9", COSTS))


@given(low=st.integers(0, 10**12), steps=st.integers(2, 300), more=st.integers(0, 10**12))
def test_a_sweep_of_n_is_n_different_budgets_that_rise_by_equal_steps(low: int, steps: int, more: int) -> None:
    high = low + steps - 1 + more
    values = [upper for upper in uppers(f"macs={low}..{high}:{steps}") if upper is not None]
    assert len(values) == steps
    assert (values[0], values[-1]) == (low, high)
    rises = {b - a for a, b in itertools.pairwise(values)}
    assert min(rises) >= 1
    assert max(rises) - min(rises) <= 1


def test_the_ends_of_a_sweep_are_upper_bounds_and_rounded_down() -> None:
    assert uppers("params=50%..100%:2", "params") == [1_500_000, 3_000_001]


@pytest.mark.parametrize("text", ["macs=1..3:3,height=2..3,latency=8ms", "height=2..3,latency=8ms,macs=1..3:3"])
def test_other_bounds_hold_in_every_budget_of_a_sweep(text: str) -> None:
    budgets = parse_budgets(text, COSTS)
    constant = {"height.normal": Bound(2, 3), "height.reduce": Bound(2, 3), "latency": Bound(None, 8_000_000)}
    assert budgets == [{"macs": Bound(None, upper), **constant} for upper in (1, 2, 3)]
    keys = [item.partition("=")[0] for item in text.split(",")]
    assert all([name.partition(".")[0] for name in budget if name != "height.reduce"] == keys for budget in budgets)


# --- back to text ---


@pytest.mark.parametrize(
    ("budget", "text"),
    [
        ({"macs": Bound(None, 600_000_000)}, "macs=600M"),
        ({"macs": Bound(None, 600_000_001)}, "macs=600000001"),
        ({"macs": Bound(1_500, 2_000_000_000)}, "macs=1500..2G"),
        ({"macs": Bound(5_000, None)}, "macs=5k.."),
        ({"macs": Bound(None, 0)}, "macs=0"),
        ({"latency": Bound(None, 8_500_000)}, "latency=8500us"),
        ({"latency": Bound(0, 1_000_000_000)}, "latency=0ns..1s"),
        ({"params": Bound(3, 3), "height.normal": Bound(None, 2)}, "params=3..3,height.normal=2"),
        ({}, "unbounded"),
    ],
)
def test_a_budget_is_written_in_the_shortest_exact_way(budget: Budget, text: str) -> None:
    assert budget_text(budget) == text


def test_a_family_that_is_bounded_alike_is_written_as_one() -> None:
    alike = {"height.normal": Bound(2, 2), "height.reduce": Bound(2, 2), "macs": Bound(None, 5)}
    assert budget_text(alike, COSTS) == "height=2..2,macs=5"
    assert budget_text(alike) == "height.normal=2..2,height.reduce=2..2,macs=5"
    assert budget_text({**alike, "height.reduce": Bound(1, 2)}, COSTS) == "height.normal=2..2,height.reduce=1..2,macs=5"
    assert budget_text({"height.normal": Bound(2, 2)}, COSTS) == "height.normal=2..2"


VALUES = st.one_of(st.integers(0, 50), st.integers(0, 10**13), st.integers(0, 999).map(lambda n: n * 10**6))
BOUNDS = st.one_of(
    VALUES.map(lambda v: Bound(None, v)),
    VALUES.map(lambda v: Bound(v, None)),
    st.tuples(VALUES, VALUES).map(lambda pair: Bound(min(pair), max(pair))),
)
NAMES = ("params", "macs", "latency", "height", "height.normal", "height.reduce", "nonparametric.normal")


@given(st.data())
def test_what_is_written_is_read_back(data: st.DataObject) -> None:
    costs = dict.fromkeys(data.draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True)), 1)
    names = data.draw(st.lists(st.sampled_from(sorted(costs)), min_size=1, unique=True))
    few = data.draw(st.lists(BOUNDS, min_size=1, max_size=2))  # so that families are often bounded alike
    budget = {name: data.draw(st.sampled_from(few)) for name in names}
    for text in (budget_text(budget), budget_text(budget, costs)):
        (again,) = parse_budgets(text, costs)
        assert again == budget
        assert next(iter(again)).partition(".")[0] == names[0].partition(".")[0]


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("macs", 500_987_520, "500,987,520"),
        ("height.normal", 3, "3"),
        ("latency", 12_345_678, "12.346 ms"),
        ("latency.gpu", 500, "0.001 ms"),
    ],
)
def test_costs_are_formatted_for_display(name: str, value: int, text: str) -> None:
    assert quantity(name, value) == text


# --- errors ---


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("macs", "'macs' is not key=value, such as macs=600M or height=2..3"),
        ("macs=", "'macs=' is not key=value"),
        ("=5", "'=5' is not key=value"),
        ("", "'' is not key=value"),
        ("macs=1M,", "'' is not key=value"),
        ("mac=1M", "mac is not a cost of this space; did you mean macs?"),
        ("heigth=2", "heigth is not a cost of this space; did you mean height?"),
        (
            "zzz=1",
            "zzz is not a cost of this space; allowed: height, height.normal, height.reduce, latency, macs, params",
        ),
        ("macs=1,macs=2", "macs is bounded twice; write key=L..U for two bounds"),
        ("height.normal=1,height=2", "height is bounded twice"),
        ("height=2,height.normal=1", "height.normal is bounded twice"),
        ("macs=1m", "'1m' is not a value of macs; allowed units: k, M, G, %"),
        ("macs=1ms", "'1ms' is not a value of macs; allowed units: k, M, G, %"),
        ("macs=1e6", "'1e6' is not a value of macs"),
        ("macs=-5", "'-5' is not a value of macs"),
        ("macs=1_000", "'1_000' is not a value of macs"),
        ("macs=1.M", "'1.M' is not a value of macs"),
        ("macs=nan", "'nan' is not a value of macs"),
        ("latency=5", "'5' is not a value of latency; allowed units: ns, us, ms, s, %"),
        ("latency=5M", "'5M' is not a value of latency"),
        ("macs=1..x", "'x' is not a value of macs"),
        ("macs=..", ".. bounds nothing; write V, L..U, L.. or ..U"),
        ("macs=3..2", "no value of macs lies in 3..2; write the smaller end first"),
        ("height.normal=2.4..2.6", "no value of height.normal lies in 2.4..2.6"),
        ("macs=5:3", "a sweep is key=L..U:n with n at least 2, such as macs=200M..600M:20"),
        ("macs=1..:3", "a sweep is key=L..U:n"),
        ("macs=1..9:", "a sweep is key=L..U:n"),
        ("macs=1..9:1", "a sweep is key=L..U:n"),
        ("macs=1..9:x", "a sweep is key=L..U:n"),
        ("macs=1..9:3:4", "a sweep is key=L..U:n"),
        ("macs=1..9:1000000", "a sweep is key=L..U:n"),
        ("macs=1..3:4", "from 1 to 3 there are fewer than 4 values of macs; write the smaller end first, or a sm"),
        ("macs=9..1:3", "from 9 to 1 there are fewer than 3 values of macs; write the smaller end first"),
        ("height=1..3:3", "height is several costs (height.normal, height.reduce); sweep one of them"),
        ("macs=1..9:3,params=1..9:3", "only one cost can be swept at a time, not macs and params"),
    ],
)
def test_what_cannot_be_parsed_is_one_line_with_a_hint(text: str, part: str) -> None:
    with pytest.raises(BudgetError) as caught:
        parse_budgets(text, COSTS)
    assert str(caught.value).startswith(f"budget {text!r}: ")
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)
