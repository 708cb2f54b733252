import pytest

from lockstep.clients.choice import ChoiceUnclear, choose_backends, choose_model
from lockstep.clients.results import ServedBackend, ServedModel


def served(name: str, *backends: str) -> ServedModel:
    return ServedModel(name, "1", "READY", "", tuple(ServedBackend(backend, "1", "READY", "") for backend in backends))


def test_the_only_model_needs_no_name() -> None:
    assert choose_model([served("a")], None).name == "a"
    assert choose_model([served("a"), served("b")], "b").name == "b"


def test_a_model_that_takes_no_calls_is_no_other_choice_and_can_be_named_to_hear_why() -> None:
    gone = ServedModel("gone", "1", "UNAVAILABLE", "unloaded", ())
    assert choose_model([gone, served("a", "x")], None).name == "a"
    assert choose_model([gone, served("a", "x")], "gone") is gone
    with pytest.raises(ChoiceUnclear, match="serves no model"):
        choose_model([gone], None)
    with pytest.raises(ChoiceUnclear, match=r"no model 'b'; it serves: a$"):
        choose_model([gone, served("a", "x")], "b")


def test_an_unclear_choice_lists_what_there_is() -> None:
    with pytest.raises(ChoiceUnclear, match=r"which model.*: a, b"):
        choose_model([served("a"), served("b")], None)
    with pytest.raises(ChoiceUnclear, match="no model 'c'; it serves: a"):
        choose_model([served("a")], "c")
    with pytest.raises(ChoiceUnclear, match="serves no model"):
        choose_model([], None)
    with pytest.raises(ChoiceUnclear, match="no backend y; it has: x"):
        choose_backends(served("a", "x"), ["x", "y"])
    with pytest.raises(ChoiceUnclear, match="lists no backend"):
        choose_backends(served("a"), [])


def test_no_backend_asked_for_means_all_and_the_asked_keep_their_order() -> None:
    assert choose_backends(served("a", "x", "y"), []) == ("x", "y")
    assert choose_backends(served("a", "x", "y"), ["y", "x", "y"]) == ("y", "x")
