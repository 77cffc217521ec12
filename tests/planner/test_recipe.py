import json

import pytest

from tfcompress.planner.candidates import file_steps
from tfcompress.planner.recipe import Outcome, Recipe
from tfcompress.planner.target import Figures

RECIPES = [Recipe(step) for step in file_steps()]


@pytest.mark.parametrize("recipe", RECIPES, ids=Recipe.label)
def test_recipe_survives_json_and_keeps_its_key(recipe):
    again = Recipe.from_dict(json.loads(json.dumps(recipe.to_dict())))
    assert again == recipe
    assert again.key("model") == recipe.key("model") != recipe.key("other")


def test_recipes_have_keys_of_their_own():
    assert len({recipe.key() for recipe in RECIPES}) == len(RECIPES)


def test_outcome_survives_json():
    done = Outcome(RECIPES[0], Figures(1, 0.5, 0.1, 0.2), 0.1, "", "a.tflite", 2.0, ("said",))
    for outcome in (done, Outcome(RECIPES[0], why="it failed")):
        assert Outcome.from_dict(json.loads(json.dumps(outcome.to_dict()))) == outcome
