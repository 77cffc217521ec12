import json

import pytest

from tfcompress.planner.candidates import file_steps
from tfcompress.planner.recipe import Outcome, Recipe
from tfcompress.planner.steps.channels import Channels
from tfcompress.planner.steps.int8 import Int8File
from tfcompress.planner.steps.low_rank import LowRank
from tfcompress.planner.steps.qat import QuantizationAware
from tfcompress.planner.steps.zeros import Zeros
from tfcompress.planner.target import Figures

RECIPES = [Recipe(step) for step in file_steps()]
CHANGED = Recipe(Int8File(), (Channels(0.5), LowRank(0.5), Zeros(0.5), QuantizationAware()), 3)


@pytest.mark.parametrize("recipe", [*RECIPES, CHANGED], ids=Recipe.label)
def test_recipe_survives_json_and_keeps_its_key(recipe):
    again = Recipe.from_dict(json.loads(json.dumps(recipe.to_dict())))
    assert again == recipe
    assert again.key("model") == recipe.key("model") != recipe.key("other")


def test_key_names_the_model_and_not_how_its_file_is_made():
    changed = [Recipe(Int8File(), (Channels(0.5), Zeros(0.5)), epochs) for epochs in (0, 1)] + [
        Recipe(Int8File(), (Channels(0.25),), 1)
    ]
    assert len({recipe.key() for recipe in [*RECIPES, *changed]}) == 1 + len(changed)


def test_outcome_survives_json():
    done = Outcome(RECIPES[0], Figures(1, 0.5, 0.1, 0.2), 0.1, "", "a.tflite", 2.0, ("said",))
    for outcome in (done, Outcome(RECIPES[0], why="it failed")):
        assert Outcome.from_dict(json.loads(json.dumps(outcome.to_dict()))) == outcome
