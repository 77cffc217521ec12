import pytest

from tfcompress.planner.target import Figures, Target, loss_of, met_by, rank


def figures(bytes=100, latency=1.0, metric=0.9):
    return Figures(bytes, metric, latency, latency)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "at least one of"),
        ({"bytes": 0}, "`bytes`"),
        ({"latency": 1.5, "accuracy_drop": 0.1}, "`latency`"),
        ({"accuracy_drop": -0.1}, "`accuracy_drop`"),
        ({"accuracy_drop": 0.1, "minimize": "size"}, "`minimize`"),
        ({"bytes": 9, "minimize": "bytes"}, "needs `accuracy_drop`"),
    ],
)
def test_target_refuses_what_makes_no_sense(arguments, words):
    with pytest.raises(ValueError, match=words):
        Target(**arguments)


def test_target_is_met_only_within_all_bounds():
    target = Target(bytes=100, latency=0.5, accuracy_drop=0.01)
    assert met_by(target, figures(100, 0.5), 0.01)
    assert not met_by(target, figures(101, 0.5), 0.01)
    assert not met_by(target, figures(100, 0.51), 0.01)
    assert not met_by(target, figures(100, 0.5), 0.011)


def test_rank_takes_the_best_metric_where_the_size_is_bounded():
    target = Target(bytes=100, accuracy_drop=0.1)
    good, small = (figures(100), 0.0), (figures(10), 0.05)
    assert rank(target, *good) < rank(target, *small)


def test_rank_takes_the_smallest_where_the_accuracy_alone_is_bounded_or_bytes_are_minimized():
    good, small = (figures(100), 0.0), (figures(10), 0.05)
    for target in (Target(accuracy_drop=0.1), Target(200, accuracy_drop=0.1, minimize="bytes")):
        assert rank(target, *small) < rank(target, *good)


def test_rank_takes_the_fastest_if_latency_is_minimized():
    target = Target(accuracy_drop=0.1, minimize="latency")
    assert rank(target, figures(100, 0.2), 0.1) < rank(target, figures(10, 0.3), 0.0)


def test_rank_prefers_what_is_accurate_among_files_that_miss_the_target():
    target = Target(bytes=10, accuracy_drop=0.01)
    useless, large, larger = (figures(5), 0.5), (figures(20), 0.0), (figures(30), 0.0)
    assert rank(target, *large) < rank(target, *larger) < rank(target, *useless)


def test_loss_is_positive_for_a_worse_metric_of_either_kind():
    assert loss_of(0.8, 0.9, True) == pytest.approx(0.1)
    assert loss_of(1.2, 1.0, False) == pytest.approx(0.2)
