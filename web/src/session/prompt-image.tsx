// An image of a prompt: as it was sent, or the file that the session keeps of it.
import type { PromptImage as Image } from "@greenroom/sdk";
import { useQuery } from "@tanstack/react-query";
import { useContext, useState } from "react";
import { client } from "../api.ts";
import { imageUrl } from "./images.ts";
import { SessionContext } from "./session-context.ts";

export function PromptImage({ image, label }: { image: Image; label: string }) {
  return "digest" in image ? (
    <Kept digest={image.digest} label={label} />
  ) : (
    <Shown url={imageUrl(image)} label={label} />
  );
}

function Kept({ digest, label }: { digest: string; label: string }) {
  const { sessionId, by } = useContext(SessionContext);
  // A browser sends the cookie of whoever is signed in with an <img>, but not the secret of a link.
  return by === client ? (
    <Shown url={client.blobUrl(sessionId, digest)} label={label} opens />
  ) : (
    <Fetched digest={digest} label={label} />
  );
}

function Fetched({ digest, label }: { digest: string; label: string }) {
  const { sessionId, by } = useContext(SessionContext);
  const file = useQuery({
    queryKey: ["blob", sessionId, digest],
    queryFn: async ({ signal }) => URL.createObjectURL(await by.blob(sessionId, digest, signal)),
    // The address is good as long as the page is, and so is what it stands for.
    staleTime: Infinity,
    gcTime: Infinity,
    meta: { isGuest: true },
  });
  if (file.error !== null) return <Lost label={label} />;
  return file.data === undefined ? (
    <div aria-label={`${label}, loading`} className="h-24 w-32 rounded-md border border-line bg-sunken" />
  ) : (
    <Shown url={file.data} label={label} opens />
  );
}

function Shown({ url, label, opens = false }: { url: string; label: string; opens?: boolean }) {
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
      className="max-h-48 max-w-full rounded-md border border-line"
    />
  );
  return opens ? (
    <a href={url} target="_blank" rel="noreferrer" aria-label={`${label}, in a new tab`}>
      {image}
    </a>
  ) : (
    image
  );
}

function Lost({ label }: { label: string }) {
  return (
    <p className="rounded-md border border-line px-3 py-2 text-xs text-muted">{label} cannot be shown.</p>
  );
}
