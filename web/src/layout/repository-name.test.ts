import { expect, test } from "vitest";
import { repositoryNameOf } from "./repository-name.ts";

test.each([
  ["https://example.com/team/Shop.git", "shop"],
  ["/srv/code/my shop/", "my-shop"],
  ["git@example.com:team/api.git", "api"],
  ["C:\\code\\web", "web"],
  ["..", ""],
  ["", ""],
])("%j becomes %j", (source, name) => {
  expect(repositoryNameOf(source)).toBe(name);
});
