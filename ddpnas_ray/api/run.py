"""Runs of the Python API: a search's run directory as a value."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, overload

from ddpnas_ray.api.arguments import Config, Overrides, display_of, texts_of
from ddpnas_ray.api.network import Network, TrainedRun, costs_text, train
from ddpnas_ray.core.errors import BudgetError
from ddpnas_ray.core.generation.budgets import parse_budgets
from ddpnas_ray.core.generation.solve import solve_many
from ddpnas_ray.experiment.config import SearchConfig, check
from ddpnas_ray.experiment.finished import FinishedRun
from ddpnas_ray.experiment.yaml_text import parse
from ddpnas_ray.retraining.choice import of_search, of_solution
from ddpnas_ray.retraining.prepare import retrained_folders
from ddpnas_ray.runs.directory import read_config, read_result
from ddpnas_ray.storage.folder import Folder


class Run:
    """A search's run directory. Files are read when they are needed.

    Args:
        path: The run directory, a local path or a URI.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    @cached_property
    def config(self) -> SearchConfig:
        """Its configuration, with every default filled in."""
        text = read_config(self._folder)
        return check(parse(text, self.path), f"{self.path}/config.yaml")

    @property
    def finished(self) -> bool:
        """Whether the search has finished. If not, what needs the result raises ``RunDirError``."""
        return self._folder.has("result.json")

    @cached_property
    def result(self) -> dict[str, Any]:
        """Content of ``result.json``: genotype, costs, scores with their split, confidence, fingerprint, and more."""
        return read_result(self._folder)

    @property
    def genotype(self) -> dict[str, Any]:
        """The architecture found, plain JSON in the form of its space."""
        return dict(self.result["genotype"])

    @property
    def costs(self) -> dict[str, int]:
        """Exact costs of the architecture found, in the target network."""
        return dict(self.result["costs"])

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what the search decided and learned, in hexadecimal."""
        return str(self.result["fingerprint"])

    @property
    def theta(self) -> dict[str, dict[str, float]]:
        """The distribution over operations at the end: edge -> {operation: probability}, most probable first.

        Pruned operations are left out and probabilities are not rescaled, so those of an edge sum to at most 1.

        Raises:
            ConfigError: The strategy has no distribution.
        """
        run = self._finished()
        run.refuse_without_theta()
        space, theta_EK, live = run.problem.space, run.problem.theta_EK, self.result["live"]
        return {
            edge.name: {
                edge.candidates[k].name: float(theta_EK[e, k])
                for k in sorted(range(len(edge.candidates)), key=lambda k: -theta_EK[e, k])
                if live[e][k]
            }
            for e, edge in enumerate(space.edges)
        }

    @property
    def network(self) -> Network:
        """The result architecture."""
        return Network(of_search(self._finished()), self.path)

    @overload
    def generate(self, budget: str = ..., /, *, include_pruned: bool = ..., target: str | None = ...) -> Network: ...

    @overload
    def generate(
        self, budget: str, second: str, /, *more: str, include_pruned: bool = ..., target: str | None = ...
    ) -> list[Network]: ...

    @overload
    def generate(
        self, *budgets: str, best: int, include_pruned: bool = ..., target: str | None = ...
    ) -> list[Network]: ...

    def generate(
        self, *budgets: str, best: int | None = None, include_pruned: bool = False, target: str | None = None
    ) -> Network | list[Network]:
        """Generate the best network for each budget: none within has a larger E[alpha] (Eq. 9-10). Writes no file.

        Args:
            budgets: ``"macs=400M"`` at most, ``"height=2..3"`` between, ``"macs=3M,height=3..3"`` both; suffixes and
                keys as for the command ``generate``. Empty: no bound. A sweep (``"macs=50%..100%:5"``) needs ``best``.
            best: How many networks of each budget; given, the result is a list.
            include_pruned: Whether operations that the search pruned may be chosen.
            target: Count the costs of another deploy network, such as ``"cells=20,channels=36"``.

        Returns:
            A ``Network`` for one budget; a list for several budgets or with ``best``: budget by budget, best first.

        Raises:
            BudgetError: A budget cannot be parsed, or nothing meets it.
            ConfigError: The strategy has no theta, or the target no such key.
        """
        run = FinishedRun.load(self.path, target=target, include_pruned=include_pruned)
        run.refuse_without_theta()
        if best is not None and best < 1:
            raise BudgetError(f"best is {best}; it must be at least 1")
        _, unbounded = run.unbounded()
        parsed = [budget for text in budgets for budget in parse_budgets(text, unbounded)] or [{}]
        alone = len(budgets) < 2 and best is None
        if alone and len(parsed) > 1:
            raise BudgetError(f"budget {budgets[0]!r} is a sweep of {len(parsed)}; add best=1 for the list of networks")
        solutions = solve_many(run.problem, parsed, k=best or 1)
        networks = [
            Network(chosen, self.path)
            for budget, found in zip(parsed, solutions, strict=True)
            for chosen in of_solution(run, budget, found)
        ]
        return networks[0] if alone else networks

    def retrain(
        self,
        network: Network | str | None = None,
        *,
        config: Config | None = None,
        out: str | Path | None = None,
        resume: bool = False,
        overrides: Overrides = (),
        address: str | None = None,
        progress: bool = True,
    ) -> TrainedRun:
        """Train a network for use; see ``Network.retrain``.

        Args:
            network: A network of this run or a published one, a budget, or None: the result architecture.
            config: As for ``Network.retrain``; None is the run's.
            out: As there.
            resume: As there.
            overrides: As there.
            address: As there.
            progress: As there.
        """
        if network is None:
            network = self.network
        elif isinstance(network, str):
            network = self.generate(network)
        return train(network, self.path, config, out, resume, overrides, address, progress)

    def finals(
        self,
        networks: int | None = None,
        budget: str | None = None,
        *,
        overrides: Overrides = (),
        address: str | None = None,
        progress: bool = True,
    ) -> Network:
        """Train the best candidates for real by successive halving; the winner has the best validation score.

        Finals that were interrupted go on where they stopped. Their curves are in ``RUN/finals``.

        Args:
            networks: How many; None: ``finals.networks`` of the configuration.
            budget: Budget that all of them meet, as for ``generate``.
            overrides: Of ``finals.*``, ``retraining.*``, ``execution.*`` and where data are.
            address: Ray cluster, as for ``search``.
            progress: Whether to show the progress.

        Raises:
            DdpnasError: Bad input, or what ended them; finished epochs are saved.
        """
        from ddpnas_ray.launch import finals as launch

        run = self._finished()
        budgets = launch.budgets_of(run, () if budget is None else (budget,))
        if len(budgets) > 1:
            raise BudgetError(f"budget {budget!r} is a sweep of {len(budgets)}; give one at a time")
        count = [] if networks is None else [f"finals.networks={networks}"]
        config = launch.finals_config(run, [*texts_of(overrides), *count])
        display = display_of("", progress)
        (plan,) = launch.planned(run, budgets, config, display.lines)
        launch.finals(run, plan, display.lines, address=address, live=display.live)
        return Network(launch.winner_of(run, budgets[0]), self.path)

    @property
    def retrained(self) -> list[TrainedRun]:
        """Its finished retrainings in ``RUN/retrained``, by name."""
        return [TrainedRun(folder.uri) for folder in retrained_folders(self._folder)]

    def report(self, html: bool = True) -> str:
        """Write the HTML report, one page that opens offline.

        Args:
            html: False returns the summary as text instead, as the command ``report`` prints it.

        Returns:
            Path of the page, ``RUN/report.html``.
        """
        if not html:
            from ddpnas_ray.reporting.summary import summary

            return summary(self.result, self.path)
        from ddpnas_ray.reporting.page import run_page
        from ddpnas_ray.reporting.runfiles import read_run, searched

        self._folder.write("report.html", run_page(read_run(*searched(self.path))), hint="correct its permissions")
        return (self._folder / "report.html").uri

    def __repr__(self) -> str:
        config = self.config
        about = f"{config.space.name} on {config.searched_on}, strategy {config.strategy}, seed {config.seed}"
        end = costs_text(self.costs) if self.finished else "not finished"
        return f"<Run {self.path}: {about}, {end}>"

    def _repr_html_(self) -> str | None:
        if not self.finished:
            return None
        from ddpnas_ray.reporting.cards import run_card

        space = self._finished().problem.space
        return run_card(self.result, self.path, space, [trained.result for trained in self.retrained])

    @property
    def _folder(self) -> Folder:
        return Folder.open(self.path)

    def _finished(self) -> FinishedRun:
        return FinishedRun.load(self.path)
