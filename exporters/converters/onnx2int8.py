"""ONNX -> ONNX with 8-bit weights: ONNX Runtime's dynamic quantisation, in place.

Faster and a quarter of the size, and no longer the source's numbers: activations are scaled by the range of
the whole batch, so a row's answer moves with the rows beside it. A variant, with bounds of its own.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from lockstep.exporters.conversion import Conversion, ConversionError


def quantize(folder: Path, conversion: Conversion) -> Conversion:
    """Replace the folder's graph by its quantised form; raises `ConversionError` where nothing can be quantised."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    path = folder / conversion.path
    quantised = folder / "quantised.onnx"
    quantize_dynamic(path, quantised, weight_type=QuantType.QInt8)
    after = Counter(node.op_type for node in onnx.load(quantised).graph.node)
    integer = {name: count for name, count in after.items() if "Integer" in name or name.startswith("DynamicQuantize")}
    left = {name: after[name] for name in conversion.recurrent_ops if after[name]}
    if not integer or left:
        quantised.unlink()
        kinds = " or ".join(left) or "operator of this graph"
        raise ConversionError(f"ONNX Runtime quantises no {kinds}: the variant would be the float32 artifact")
    quantised.replace(path)
    return conversion.model_copy(
        update={
            "method": "int8",
            "notes": (f"dynamic int8: {', '.join(f'{count} {name}' for name, count in sorted(integer.items()))}",),
        }
    )
