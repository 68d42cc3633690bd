// Which address shows which page. Pages load when first visited.
import {
  createRootRoute,
  createRoute,
  createRouter,
  lazyRouteComponent,
  Link,
  Outlet,
} from "@tanstack/react-router";
import { problemOf } from "@greenroom/sdk";
import { Shell } from "./layout/shell.tsx";
import { buttonClass } from "./ui/button.tsx";
import { EmptyState, ProblemNotice } from "./ui/notice.tsx";

const rootRoute = createRootRoute({
  component: Outlet,
  notFoundComponent: NotFound,
});

const signIn = createRoute({
  getParentRoute: () => rootRoute,
  path: "/sign-in",
  validateSearch: (search): { next?: string } =>
    typeof search["next"] === "string" && /^\/(?!\/|\\)/u.test(search["next"])
      ? { next: search["next"] }
      : {},
  component: lazyRouteComponent(() => import("./pages/sign-in.tsx"), "SignInPage"),
});

const app = createRoute({ getParentRoute: () => rootRoute, id: "app", component: Shell });

const sessions = createRoute({
  getParentRoute: () => app,
  path: "/",
  component: lazyRouteComponent(() => import("./pages/sessions.tsx"), "SessionsPage"),
});

const newSession = createRoute({
  getParentRoute: () => app,
  path: "/new",
  validateSearch: (search): { repository?: string } =>
    typeof search["repository"] === "string" ? { repository: search["repository"] } : {},
  component: lazyRouteComponent(() => import("./pages/new-session.tsx"), "NewSessionPage"),
});

const session = createRoute({
  getParentRoute: () => app,
  path: "/sessions/$sessionId",
  component: lazyRouteComponent(() => import("./pages/session.tsx"), "SessionPage"),
});

const pullRequests = createRoute({
  getParentRoute: () => app,
  path: "/pull-requests",
  validateSearch: (search): { state?: "merged" | "closed" } =>
    search["state"] === "merged" || search["state"] === "closed" ? { state: search["state"] } : {},
  component: lazyRouteComponent(() => import("./pages/pull-requests.tsx"), "PullRequestsPage"),
});

const repositories = createRoute({
  getParentRoute: () => app,
  path: "/repositories",
  component: lazyRouteComponent(() => import("./pages/repositories.tsx"), "RepositoriesPage"),
});

const images = createRoute({
  getParentRoute: () => app,
  path: "/repositories/$repository/images",
  component: lazyRouteComponent(() => import("./pages/images.tsx"), "ImagesPage"),
});

const pullRequest = createRoute({
  getParentRoute: () => app,
  path: "/repositories/$repository/pull-requests/$number",
  component: lazyRouteComponent(() => import("./pages/pull-request.tsx"), "PullRequestPage"),
});

const people = createRoute({
  getParentRoute: () => app,
  path: "/people",
  component: lazyRouteComponent(() => import("./pages/people.tsx"), "PeoplePage"),
});

const audit = createRoute({
  getParentRoute: () => app,
  path: "/audit",
  validateSearch: (search): { about?: string } =>
    typeof search["about"] === "string" && search["about"] !== "" ? { about: search["about"] } : {},
  component: lazyRouteComponent(() => import("./pages/audit.tsx"), "AuditPage"),
});

const join = createRoute({
  getParentRoute: () => app,
  path: "/join/$sessionId",
  component: lazyRouteComponent(() => import("./pages/join.tsx"), "JoinPage"),
});

const shared = createRoute({
  getParentRoute: () => rootRoute,
  path: "/shared/$sessionId",
  component: lazyRouteComponent(() => import("./pages/shared.tsx"), "SharedPage"),
});

export const router = createRouter({
  routeTree: rootRoute.addChildren([
    signIn,
    shared,
    app.addChildren([
      sessions,
      newSession,
      session,
      pullRequests,
      repositories,
      images,
      pullRequest,
      people,
      audit,
      join,
    ]),
  ]),
  defaultPreload: "intent",
  scrollRestoration: true,
  defaultErrorComponent: ({ error }) => (
    <main className="mx-auto max-w-xl p-6">
      <ProblemNotice
        problem={{
          code: "page_failed",
          message: "This page could not be shown.",
          hint: problemOf(error).hint ?? null,
          retryable: true,
        }}
      >
        <a className="mt-2 inline-block font-medium underline" href={window.location.href}>
          Load it again
        </a>
      </ProblemNotice>
    </main>
  ),
});

declare module "@tanstack/react-router" {
  interface Register {
    router: typeof router;
  }
}

function NotFound() {
  return (
    <main>
      <EmptyState
        icon="search"
        title="There is no such page"
        action={
          <Link to="/" className={buttonClass("primary")}>
            Go to sessions
          </Link>
        }
      >
        The address may be mistyped, or what was here is gone.
      </EmptyState>
    </main>
  );
}
