"""A check is a fact by its name; what it finds is compared with what is wanted."""
from pathlib import Path

import yaml

CHECKS = {}
EVERYTHING = yaml.safe_load((Path(__file__).parent / "everything.yaml").read_text())


def check(function):
    CHECKS[function.__name__.replace("_", " ")] = function
    return function


def equal(found, wanted, what=""):
    assert found == wanted, f"{what}\n      found  {found}\n      wanted {wanted}"


def config(**keys):
    return {"config": keys}


def kubernetes(**keys):
    return config(discovery={"kubernetes": keys})
