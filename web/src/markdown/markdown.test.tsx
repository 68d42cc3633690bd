import { cleanup, render, screen } from "@testing-library/react";
import { afterEach, expect, test } from "vitest";
import { Markdown } from "./markdown.tsx";

afterEach(cleanup);

test("raw HTML is not rendered", () => {
  const { container } = render(
    <Markdown text={'before <script>alert(1)</script><img src="x" onerror="alert(1)"> after'} />,
  );
  expect(container.querySelector("script, img")).toBeNull();
});

test("pictures of other origins do not load by themselves", () => {
  const { container } = render(<Markdown text="![plan](https://tracker.example/p.png)" />);
  expect(container.querySelector("img")).toBeNull();
  expect(screen.getByRole("link").getAttribute("rel")).toContain("noreferrer");
});

test.each(["javascript:alert(1)", "data:text/html,x", "vbscript:x"])("%s is no link", (address) => {
  const { container } = render(<Markdown text={`[click](${address})`} />);
  expect(container.querySelector("a[href]")).toBeNull();
  expect(container.textContent).toBe("click");
});

test("code gets colours and stays text", () => {
  const { container } = render(<Markdown text={"```python\ndef f(): return '<b>'\n```"} />);
  expect(container.querySelector(".hljs-keyword")?.textContent).toBe("def");
  expect(container.querySelector("b")).toBeNull();
});
