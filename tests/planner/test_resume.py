"""A worker that is killed, at any time, costs its trial only."""

import random
import time

import pytest

from tests.support.planner_worker import Worker, make_net
from tests.support.postgres_server import postgres_server

TRIALS = 5


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    path = tmp_path_factory.mktemp("net") / "net.keras"
    make_net(path)
    return path


@pytest.fixture(scope="module")
def expected(net, tmp_path_factory):
    """What one worker finds that nobody kills, and the seconds that it takes."""
    start = time.monotonic()
    found, count = Worker(net, tmp_path_factory.mktemp("whole"), TRIALS).finish()
    assert count >= TRIALS == len(found["tried"])
    return found, time.monotonic() - start


def killed(net, folder, waits):
    """Kill a worker after each of some times, resume it, and return what it finds at the end."""
    kills = 0
    for wait in waits:
        worker = Worker(net, folder, TRIALS)
        end = time.monotonic() + wait
        while time.monotonic() < end and worker.process.is_alive():
            time.sleep(0.01)
        kills += worker.process.is_alive()
        worker.kill()
    found, _ = Worker(net, folder, TRIALS).finish()
    return found, kills


@pytest.mark.slow("converts in a process that is killed twice")
def test_kill_and_resume_give_the_same_best(net, expected, tmp_path):
    found, seconds = expected
    resumed, kills = killed(net, tmp_path, [0.4 * seconds, 0.7 * seconds])
    assert kills >= 1
    assert resumed == found


@pytest.mark.large
def test_twenty_kills_at_random_points_give_the_same_best(net, expected, tmp_path):
    found, seconds = expected
    rng = random.Random(0)
    total = 0
    for storage in range(4):  # most kills of one storage would come after its end
        waits = [rng.uniform(0.1, 0.9) * seconds for _ in range(5)]
        resumed, kills = killed(net, tmp_path / str(storage), waits)
        total += kills
        tried = [row for row in resumed["tried"] if "workers died" not in row[3]]
        assert all(row in found["tried"] for row in tried)
        # A trial that two workers died of is dropped, and may be the best one.
        assert resumed["best"] == found["best"] or len(tried) < len(resumed["tried"])
        print(f"{kills} of {len(waits)} kills at {waits}: {resumed['best']}, {len(tried)} trials")
    assert total >= 10


@pytest.mark.slow("converts in two processes at once")
def test_workers_share_a_database_and_one_that_dies_elsewhere_costs_its_trial_only(
    net, expected, tmp_path
):
    with postgres_server() as database:
        # It cannot be seen from here that a process elsewhere has died: its lease runs out.
        first = Worker(net, tmp_path, TRIALS, database, host="elsewhere", lease=5.0)
        second = Worker(net, tmp_path, TRIALS, database, lease=5.0)
        told = first.told()
        first.kill()
        found, count = second.finish()
    assert told is not None
    assert found["best"] == expected[0]["best"]
    labels = [label for label, *_ in found["tried"]]
    assert len(labels) == len(set(labels)) >= TRIALS
    assert all(size for _, size, _, _ in found["tried"]), "none was dropped"
    assert 0 < count <= len(labels)
