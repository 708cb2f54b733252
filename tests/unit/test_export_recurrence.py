"""The description of a recurrence, apart from any framework."""

from __future__ import annotations

import numpy as np
import pytest

from lockstep.exporters.standins.recurrence import (
    SIGMOID,
    TANH,
    Activation,
    Recurrence,
    RecurrenceKind,
    UnsupportedRecurrence,
    bidirectional,
    reorder,
)


def lstm(direction: str = "forward", hidden: int = 2, **more: object) -> Recurrence:
    return Recurrence(
        kind=RecurrenceKind.LSTM,
        input_size=3,
        hidden_size=hidden,
        direction=direction,
        weights=np.ones((1, 4 * hidden, 3), dtype=np.float32),
        recurrent_weights=np.ones((1, 4 * hidden, hidden), dtype=np.float32),
        biases=np.ones((1, 8 * hidden), dtype=np.float32),
        **more,  # type: ignore[arg-type]
    )


def test_reordering_takes_whole_gates() -> None:
    gates = np.arange(8, dtype=np.float32)[:, None]
    assert reorder(gates, (0, 3, 1, 2))[:, 0].tolist() == [0, 1, 6, 7, 2, 3, 4, 5]


def test_defaults_are_left_out_of_the_attributes() -> None:
    assert lstm(activations=(SIGMOID, TANH, TANH)).attributes == {"hidden_size": 2, "direction": "forward"}


def test_constants_of_activations_stand_in_their_order() -> None:
    hard = Activation("HardSigmoid", 0.2, 0.5)
    both = bidirectional(lstm(activations=(hard, TANH, TANH)), lstm("reverse", activations=(hard, TANH, TANH)))
    assert both.attributes == {
        "hidden_size": 2,
        "direction": "bidirectional",
        "activations": ["HardSigmoid", "Tanh", "Tanh"] * 2,
        "activation_alpha": [0.2, 0.2],
        "activation_beta": [0.5, 0.5],
    }


def test_two_directions_stack_on_the_first_axis() -> None:
    peepholes = np.zeros((1, 6), dtype=np.float32)
    both = bidirectional(lstm(peepholes=peepholes), lstm("reverse", peepholes=peepholes + 1))
    assert both.weights.shape == (2, 8, 3)
    assert both.peepholes is not None
    assert both.peepholes[:, 0].tolist() == [0, 1]
    assert (both.directions, both.states) == (2, 2)


@pytest.mark.parametrize(
    ("forward", "backward"),
    [
        (lstm(), lstm()),
        (lstm(), lstm("reverse", hidden=4)),
        (lstm(), lstm("reverse", peepholes=np.zeros((1, 6), dtype=np.float32))),
    ],
)
def test_unlike_directions_are_not_one_recurrence(forward: Recurrence, backward: Recurrence) -> None:
    with pytest.raises(UnsupportedRecurrence):
        bidirectional(forward, backward)


@pytest.mark.parametrize(
    "wrong",
    [
        {"direction": "sideways"},
        {"peepholes": np.zeros((1, 5), dtype=np.float32)},
        {"linear_before_reset": True},
        {"activations": (TANH,)},
    ],
)
def test_what_disagrees_is_refused_at_construction(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        lstm(**wrong)  # type: ignore[arg-type]


def test_float64_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="float64"):
        Recurrence(
            kind=RecurrenceKind.RNN,
            input_size=1,
            hidden_size=1,
            direction="forward",
            weights=np.ones((1, 1, 1)),  # type: ignore[arg-type]
            recurrent_weights=np.ones((1, 1, 1), dtype=np.float32),
            biases=np.ones((1, 2), dtype=np.float32),
        )
