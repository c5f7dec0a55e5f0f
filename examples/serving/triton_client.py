"""The Triton client against `edgeplan serve`: python triton_client.py HOST:PORT MODEL."""

from __future__ import annotations

import sys

import numpy as np
import tritonclient.http as triton


def main() -> None:
    """Send random inputs of the right shapes; print shapes and times."""
    address, model = sys.argv[1:]
    with triton.InferenceServerClient(address) as client:
        metadata = client.get_model_metadata(model)
        inputs = []
        generator = np.random.default_rng(1)
        for entry in metadata["inputs"]:
            shape = [1 if extent < 0 else extent for extent in entry["shape"]]
            data = generator.random(shape).astype(triton_to_numpy(entry["datatype"]))
            tensor = triton.InferInput(entry["name"], shape, entry["datatype"])
            tensor.set_data_from_numpy(data)
            inputs.append(tensor)
        result = client.infer(model, inputs, priority=1, timeout=5_000_000)
        for entry in metadata["outputs"]:
            array = result.as_numpy(entry["name"])
            print(f"{entry['name']}: {array.shape}, largest at {array.argmax()}")
        (row,) = client.get_inference_statistics(model)["model_stats"]
        success = row["inference_stats"]["success"]
        print(f"{success['count']} answers, {success['ns'] / success['count'] / 1e3:,.0f} µs each")


def triton_to_numpy(datatype: str) -> type:
    """The client's own table."""
    from tritonclient.utils import triton_to_np_dtype

    kind: type = triton_to_np_dtype(datatype)
    return kind


if __name__ == "__main__":
    main()
