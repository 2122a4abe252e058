"""The short form of `python -m benchmarks.attacks`: every one of its attacks is survived."""

import os

import pytest

from benchmarks import attacks


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flaxrnn.reporting.plots.save_curves", lambda *found: found[-1].touch())
        patch.setattr("flaxrnn.reporting.plots.curves_svg", lambda *_: "")
        return attacks.train(tmp_path_factory.mktemp("attacked"))


def test_every_attack_is_survived(run, capsys):
    chosen = attacks.attacks(run, seed=1)
    assert len(chosen) >= 600
    outcomes = [(attack, attacks.outcome(attack)) for attack in chosen[::3]]
    counts = attacks.table(outcomes)
    assert sum(kind["attacks"] for kind in counts.values()) >= 120
    assert len(counts) == 10
    fallen = {
        f"{attack.kind}: {attack.name}": result
        for attack, result in outcomes
        if result not in ("refused", "harmless")
    }
    assert fallen == {}
    assert counts["Keras files"]["refused"] > 3
    assert counts["code in a workdir"]["refused"] > 2


@pytest.mark.parametrize(
    ("act", "problem"),
    [
        (lambda _: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda _: print(attacks.SECRET), "leaked"),
        (lambda _: attacks._check(True, "code was run"), "AssertionError: code was run"),
        (lambda _: os.read(os.pipe()[0], 1), "TimeoutError: no end after 1 s"),
    ],
)
def test_what_is_not_survived_is_told(act, problem, monkeypatch):
    monkeypatch.setattr(attacks, "SECONDS", 1)
    attack = attacks.Attack("a kind", "a name", act)
    assert attacks.outcome(attack) == problem
    (found,) = attacks.table([(attack, problem)]).values()
    assert found == {"attacks": 1, "refused": 0, "harmless": 0, "not survived": 1}
