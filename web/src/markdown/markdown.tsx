// Markdown of agents and people. Both are untrusted: raw HTML is not rendered, pictures of other origins do not load by
// themselves, links carry no referrer and open elsewhere.
import ReactMarkdown, { type Components } from "react-markdown";
import remarkGfm from "remark-gfm";
import { Code } from "./code.tsx";
import { isOwnOrigin } from "./origin.ts";

const COMPONENTS: Components = {
  a({ href, children }) {
    if (href === undefined || href === "") return <span>{children}</span>;
    if (isOwnOrigin(href)) return <a href={href}>{children}</a>;
    return (
      <a href={href} target="_blank" rel="noopener noreferrer nofollow" title={href}>
        {children}
      </a>
    );
  },
  img({ src, alt }) {
    if (typeof src === "string" && isOwnOrigin(src)) return <img src={src} alt={alt ?? ""} />;
    const address = typeof src === "string" ? src : "";
    return (
      <a href={address} target="_blank" rel="noopener noreferrer nofollow">
        [picture: {alt === undefined || alt === "" ? address : alt}]
      </a>
    );
  },
  table({ children }) {
    return (
      <div className="table-frame" tabIndex={0} role="region" aria-label="Table">
        <table>{children}</table>
      </div>
    );
  },
  pre({ children }) {
    return (
      <pre tabIndex={0} role="region" aria-label="Code">
        {children}
      </pre>
    );
  },
  code({ className, children }) {
    const language = /language-([\w+-]+)/u.exec(className ?? "")?.[1];
    if (language === undefined || typeof children !== "string") return <code>{children}</code>;
    return (
      <code>
        <Code text={children.replace(/\n$/u, "")} language={language} />
      </code>
    );
  },
};

export function Markdown({ text }: { text: string }) {
  return (
    <div className="prose-agent min-w-0">
      <ReactMarkdown remarkPlugins={[remarkGfm]} components={COMPONENTS} skipHtml>
        {text}
      </ReactMarkdown>
    </div>
  );
}
