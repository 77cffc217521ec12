from tfcompress.planner.candidates import file_steps, free
from tfcompress.planner.recipe import Outcome, Recipe
from tfcompress.planner.steps.int8 import Int8File
from tfcompress.planner.target import Figures, Target

TARGET = Target(accuracy_drop=0.01)


def outcome(loss):
    return Outcome(Recipe(Int8File()), Figures(10, 0.9 - loss, 1.0, 1.0), loss)


def labels(outcomes):
    return [recipe.label() for recipe in free(outcomes, TARGET)]


def test_free_leaves_out_what_was_tried():
    assert labels([outcome(0.0)]) == ["float16", "dynamic int8", "int4 weights"]


def test_free_comes_to_the_rescue_where_int8_loses_too_much_or_fails():
    rescues = ["equalized int8", "int8 weights in float32"]
    assert labels([outcome(0.02)])[-2:] == rescues
    assert labels([Outcome(Recipe(Int8File()), why="crashed")])[-2:] == rescues


def test_every_way_to_make_a_file_tells_its_bits():
    assert all(step.bits in (4, 8, 16) and step.label() for step in file_steps())
