// Starts the app.
import "./app.css";
import { QueryClientProvider } from "@tanstack/react-query";
import { RouterProvider } from "@tanstack/react-router";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { onSignedOut, queryClient } from "./api.ts";
import { takeLinkToken } from "./layout/link-token.ts";
import { router } from "./router.tsx";
import { closeOutboxes } from "./session/outbox.ts";

takeLinkToken();
onSignedOut(() => {
  closeOutboxes();
  if (router.state.location.pathname !== "/sign-in") {
    void router.navigate({ to: "/sign-in", search: { next: router.state.location.href } });
  }
});

const root = document.getElementById("root");
if (root === null) throw new Error("the page has no #root");
createRoot(root).render(
  <StrictMode>
    <QueryClientProvider client={queryClient}>
      <RouterProvider router={router} />
    </QueryClientProvider>
  </StrictMode>,
);
