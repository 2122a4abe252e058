import pytest

from flaxrnn.runtime import clock


@pytest.fixture
def time(monkeypatch):
    """A time source that tests advance by hand."""

    class Time:
        now = 100.0

        def perf_counter(self):
            return self.now

    fake = Time()
    monkeypatch.setattr(clock, "time", fake)
    return fake


def test_phases_and_total_are_added_up(time):
    timed = clock.Clock()
    with timed("startup"):
        time.now += 2
    time.now += 1
    with timed("train"):
        time.now += 4
    with timed("train"):
        time.now += 8
    seconds = timed.read()
    assert (seconds["startup"], seconds["train"], seconds["total"]) == (2, 12, 15)
    assert set(seconds) == {*clock.PHASES, "total"}
    assert seconds["eval"] == 0


def test_waiting_for_items_is_timed_and_working_on_them_is_not(time):
    def batches():
        for batch in "ab":
            time.now += 3
            yield batch
        time.now += 1  # to find out that there are no more

    timed, seen = clock.Clock(), []
    with timed("train"):
        for batch in timed.each("input", batches()):
            seen.append(batch)
            time.now += 10
    assert seen == ["a", "b"]
    assert timed.read()["input"] == 7
    assert timed.read()["train"] == timed.read()["total"] == 27


def test_a_restarted_run_continues_from_the_earlier_seconds(time):
    first = clock.Clock()
    with first("train"):
        time.now += 5
    earlier = first.read()
    time.now += 1_000  # the run is not running
    second = clock.Clock()
    second.add(earlier)
    with second("train"):
        time.now += 2
    assert second.read()["train"] == second.read()["total"] == 7
