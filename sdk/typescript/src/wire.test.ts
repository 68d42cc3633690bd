import { readFileSync } from "node:fs";
import { expect, test } from "vitest";

interface Schema {
  properties?: Record<string, { const?: unknown }>;
  anyOf?: Schema[];
  oneOf?: Schema[];
}

const wire = readFileSync(new URL("wire.ts", import.meta.url), "utf8");
const schemas = (
  JSON.parse(readFileSync(new URL("../../../schema/openapi.json", import.meta.url), "utf8")) as {
    components: { schemas: Record<string, Schema> };
  }
).components.schemas;

function fieldsIn(text: string): string[] {
  return [...text.matchAll(/\b(\w+)\??:/gu)].map((match) => match[1] ?? "").sort();
}

/** The fields of each known kind that a union of the schema tells apart by `tag`. */
function armsOf(name: string, tag: string) {
  const schema = schemas[name];
  return [...(schema?.anyOf ?? []), ...(schema?.oneOf ?? [])].flatMap((arm) => {
    const kind = arm.properties?.[tag]?.const;
    return typeof kind === "string" && arm.properties !== undefined
      ? [{ kind, fields: Object.keys(arm.properties).sort() }]
      : [];
  });
}

test.each([
  { name: "Event", tag: "type", atLeast: 19 },
  { name: "StreamFrame", tag: "frame", atLeast: 6 },
])("$name has the kinds and fields of the schema", ({ name, tag, atLeast }) => {
  const arms = armsOf(name, tag);
  expect(arms.length).toBeGreaterThanOrEqual(atLeast);
  for (const { kind, fields } of arms) {
    const written = new RegExp(`\\{[^{}]*\\b${tag}: "${kind.replace(".", "\\.")}"[^{}]*\\}`, "u").exec(wire);
    expect(fieldsIn(written?.[0] ?? ""), kind).toEqual(fields);
  }
});

test("Item has the kinds of the schema, and a file change its fields", () => {
  const arms = armsOf("Item", "kind");
  expect(arms.length).toBeGreaterThanOrEqual(4);
  for (const { kind } of arms) expect(wire).toContain(`kind: "${kind}"`);
  const written = /interface FileChangeBody \{[^}]*\}/u.exec(wire)?.[0] ?? "";
  const change = arms.find(({ kind }) => kind === "file_change");
  expect(["kind", ...fieldsIn(written)].sort()).toEqual(change?.fields);
});
