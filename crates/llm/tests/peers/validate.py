"""Validates JSON against a vendor's OpenAPI schema.

Reads lines {"vendor": "openai", "schema": "CreateResponse", "instance": ...} and writes one line for each: a list of
messages, empty if the instance is valid. The first argument is the directory with the prepared specs.
"""

import json
import pathlib
import sys

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

specs = {}


def load(vendor):
    if vendor not in specs:
        text = (pathlib.Path(sys.argv[1]) / f"{vendor}.json").read_text(encoding="utf-8")
        specs[vendor] = json.loads(text)["components"]
    return specs[vendor]


for line in sys.stdin:
    task = json.loads(line)
    components = load(task["vendor"])
    if task["schema"] not in components["schemas"]:
        print(json.dumps([f"the spec has no schema {task['schema']}"]), flush=True)
        continue
    schema = {"$ref": f"#/components/schemas/{task['schema']}", "components": components}
    errors = list(Draft202012Validator(schema).iter_errors(task["instance"]))
    messages = [f"{'/'.join(map(str, e.absolute_path))}: {best_match([e]).message[:400]}" for e in errors]
    print(json.dumps(messages), flush=True)
