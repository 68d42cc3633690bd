"""Checks calls of an HTTP API against its OpenAPI 2.0 file (the first argument).

Reads lines {"method": "PUT", "path": "/drives/base", "body": {...}} and writes one line for each: a list of messages, empty
if the call is valid. A path or method that the file does not know is a message too. Bodies may hold no field that the
file does not name: the API refuses those.
"""

import json
import re
import sys

import yaml
from jsonschema import Draft4Validator

with open(sys.argv[1], encoding="utf-8") as file:
    spec = yaml.safe_load(file)


def closed(schema):
    """The schema with unknown fields refused, also in what it refers to."""
    if isinstance(schema, dict):
        schema = {key: closed(value) for key, value in schema.items()}
        if "properties" in schema and isinstance(schema["properties"], dict):
            schema.setdefault("additionalProperties", False)
        return schema
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    return schema


definitions = closed(spec["definitions"])


def operation(method, path):
    for template, methods in spec["paths"].items():
        pattern = re.sub(r"\{[^}]*\}", "[^/]+", template)
        if re.fullmatch(pattern, path):
            return methods.get(method.lower())
    return None


def check(call):
    found = operation(call["method"], call["path"])
    if found is None:
        return [f"the specification has no {call['method']} {call['path']}"]
    for parameter in found.get("parameters", []):
        if parameter["in"] == "body":
            schema = {**parameter["schema"], "definitions": definitions}
            errors = Draft4Validator(schema).iter_errors(call["body"])
            return [f"{'/'.join(map(str, e.absolute_path))}: {e.message[:400]}" for e in errors]
    return [] if call.get("body") is None else ["this call has no body"]


for line in sys.stdin:
    print(json.dumps(check(json.loads(line))), flush=True)
