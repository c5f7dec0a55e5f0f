#!/usr/bin/env bash
# A session with nothing but curl. EDGEPLAN_URL and MODEL choose the daemon and the model.
set -euo pipefail
url=${EDGEPLAN_URL:-http://127.0.0.1:8000}
model=${MODEL:-squeezenet}
ask() { curl --silent --show-error --fail-with-body "$@"; echo; }

ask "$url/v2/health/ready"
ask "$url/v2/models/$model"

# Inputs of zeros, made from the metadata: [{"name": ..., "datatype": ..., "shape": [...], "data": [0, ...]}]
curl --silent "$url/v2/models/$model" | python3 -c '
import json, math, sys
inputs = json.load(sys.stdin)["inputs"]
for entry in inputs:
    entry["shape"] = [1 if extent < 0 else extent for extent in entry["shape"]]
    entry["data"] = [False if entry["datatype"] == "BOOL" else 0] * math.prod(entry["shape"])
json.dump({"id": "from-curl", "inputs": inputs}, sys.stdout)' > request.json
ask --header 'Content-Type: application/json' --data-binary @request.json \
  "$url/v2/models/$model/infer" | cut -c 1-300
rm request.json

ask "$url/v2/models/$model/stats"
curl --silent "$url/metrics" | grep "^nv_inference_count"
