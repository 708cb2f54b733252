"""What the scripts of tritonclient share: tensors, and how answers and errors are told. Imports no code of ours."""

import numpy as np
from tritonclient.grpc import InferInput, InferRequestedOutput

TEXTS = ("good film", "bad", "the good film")
IDS = ((2, 4, 6, 3), (2, 5, 3))


def text(texts=TEXTS, *, column=False):
    """Return the input `text`, BYTES [n] or [n, 1]."""
    values = np.array([one.encode() for one in texts], dtype=np.object_)
    return [_input("text", "BYTES", values.reshape(-1, 1) if column else values)]


def ids(rows=IDS, *, lengths=True):
    """Return `input_ids`, padded, with `lengths` or else `attention_mask`."""
    longest = max(map(len, rows))
    padded = np.array([[*row, *[0] * (longest - len(row))] for row in rows], dtype=np.int64)
    if lengths:
        second = _input("lengths", "INT64", np.array([len(row) for row in rows], dtype=np.int64))
    else:
        mask = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
        second = _input("attention_mask", "INT64", np.array(mask, dtype=np.int64))
    return [_input("input_ids", "INT64", padded), second]


def outputs(*names):
    """Return requested outputs."""
    return [InferRequestedOutput(name) for name in names]


def answer(result):
    """Return an answer as JSON can tell it."""
    response = result.get_response()
    tensors = {one.name: result.as_numpy(one.name) for one in response.outputs}
    parameters = {}
    for name, value in response.parameters.items():
        parameters[name] = getattr(value, value.WhichOneof("parameter_choice"))
    return {
        "model": response.model_name,
        "version": response.model_version,
        "id": response.id,
        "outputs": {
            name: [one.decode() for one in values] if values.dtype == np.object_ else values.tolist()
            for name, values in tensors.items()
        },
        "parameters": parameters,
    }


def failure(error):
    """Return an InferenceServerException as JSON can tell it."""
    return {"status": error.status(), "message": error.message()}


def _input(name, datatype, values):
    tensor = InferInput(name, list(values.shape), datatype)
    tensor.set_data_from_numpy(values)
    return tensor
