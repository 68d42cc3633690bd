// Files that a session keeps: images of prompts, and what the agent shows.
import type { ArtifactItem, PromptImage as Image } from "@greenroom/sdk";
import { useQuery } from "@tanstack/react-query";
import { useContext, useState, type ReactNode } from "react";
import { client } from "../api.ts";
import { Icon } from "../ui/icon.tsx";
import { imageUrl } from "./images.ts";
import { SessionContext } from "./session-context.ts";

export function PromptImage({ image, label }: { image: Image; label: string }) {
  return "digest" in image ? (
    <KeptFile
      digest={image.digest}
      show={(url) => (url === null ? <Loading label={label} /> : <Picture url={url} label={label} opens />)}
      lost={<Lost label={label} />}
    />
  ) : (
    <Picture url={imageUrl(image)} label={label} />
  );
}

/** A picture is shown, everything else is offered. */
export function Artifact({ artifact }: { artifact: ArtifactItem }) {
  const { name, title, media_type, digest, size_bytes } = artifact;
  const isPicture = media_type.startsWith("image/");
  const label = title === "" ? name : title;
  return (
    <KeptFile
      digest={digest}
      lost={<Lost label={name} />}
      show={(url) => (
        <figure className="overflow-hidden rounded-md border border-line bg-surface">
          <figcaption className="flex min-w-0 items-center gap-2 px-2.5 py-1.5 text-[13px]">
            <Icon name={isPicture ? "image" : "file"} className="text-muted" />
            <span className="sr-only">File</span>
            <span className="min-w-0 flex-1 truncate">
              {title === "" ? (
                <span className="font-mono text-xs">{name}</span>
              ) : (
                <>
                  {title} <span className="font-mono text-xs text-muted">{name}</span>
                </>
              )}
            </span>
            <span className="shrink-0 text-xs text-muted">{sizeOf(size_bytes)}</span>
            {url !== null && (
              <a
                href={url}
                download={name}
                aria-label={`Download ${name}`}
                title="Download"
                className="-mr-1 grid size-7 shrink-0 place-items-center rounded-md text-muted hover:bg-hover hover:text-text"
              >
                <Icon name="arrow_down" />
              </a>
            )}
          </figcaption>
          {isPicture && (
            <div className="border-t border-line bg-sunken p-2">
              {url === null ? <Loading label={label} /> : <Picture url={url} label={label} opens isLarge />}
            </div>
          )}
        </figure>
      )}
    />
  );
}

/** Shows a file by its address, null until it is known. */
function KeptFile({
  digest,
  show,
  lost,
}: {
  digest: string;
  show: (url: string | null) => ReactNode;
  lost: ReactNode;
}) {
  const { sessionId, by } = useContext(SessionContext);
  // A browser sends the cookie of whoever is signed in wherever an address leads, but not the secret of a link.
  const isGuest = by !== client;
  const file = useQuery({
    queryKey: ["blob", sessionId, digest],
    queryFn: async ({ signal }) => URL.createObjectURL(await by.blob(sessionId, digest, signal)),
    // The address is good as long as the page is, and so is what it stands for.
    staleTime: Infinity,
    gcTime: Infinity,
    meta: { isGuest: true },
    enabled: isGuest,
  });
  if (!isGuest) return show(client.blobUrl(sessionId, digest));
  return file.error === null ? show(file.data ?? null) : lost;
}

function Picture({
  url,
  label,
  opens = false,
  isLarge = false,
}: {
  url: string;
  label: string;
  /** Whether it can be looked at in a tab of its own. */
  opens?: boolean;
  isLarge?: boolean;
}) {
  const [isLost, setLost] = useState(false);
  if (isLost) return <Lost label={label} />;
  const image = (
    <img
      src={url}
      alt={label}
      loading="lazy"
      onError={() => {
        setLost(true);
      }}
      className={`max-w-full rounded-md border border-line ${isLarge ? "max-h-112" : "max-h-48"}`}
    />
  );
  return opens ? (
    <a href={url} target="_blank" rel="noreferrer" aria-label={`${label}, in a new tab`} className={`block w-fit ${isLarge ? "mx-auto" : ""}`}>
      {image}
    </a>
  ) : (
    image
  );
}

function Loading({ label }: { label: string }) {
  return <div role="img" aria-label={`${label}, loading`} className="skeleton h-24 w-32 rounded-md" />;
}

function Lost({ label }: { label: string }) {
  return (
    <p className="w-fit rounded-md border border-line px-3 py-2 text-xs text-muted">{label} cannot be shown.</p>
  );
}

function sizeOf(bytes: number): string {
  if (bytes < 1024) return `${String(bytes)} B`;
  if (bytes < 1024 * 1024) return `${String(Math.ceil(bytes / 1024))} KiB`;
  return `${(bytes / (1024 * 1024)).toFixed(1)} MiB`;
}
