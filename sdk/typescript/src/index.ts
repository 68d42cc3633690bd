// The package's public face: re-exports only.
export * from "./client.ts";
export * from "./live-text.ts";
export * from "./overview.ts";
export * from "./problem.ts";
export * from "./reduce.ts";
export * from "./stream.ts";
export * from "./view.ts";
export type * from "./wire.ts";
