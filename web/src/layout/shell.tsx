// The frame around every page of a signed-in person: navigation, skip link, shortcuts.
import { Link, Outlet, useLocation, useNavigate } from "@tanstack/react-router";
import { DropdownMenu } from "radix-ui";
import { lazy, Suspense, useMemo, useState } from "react";
import { useMe, useSignOut } from "../queries.ts";
import { chooseTheme, useThemeChoice, type ThemeChoice } from "../theme.ts";
import { Avatar } from "../ui/badge.tsx";
import { buttonClass, IconButton } from "../ui/button.tsx";
import { Icon, type IconName } from "../ui/icon.tsx";
import { focusComposer, useShortcuts } from "./shortcuts.ts";

const HelpDialog = lazy(async () => ({
  default: (await import("./help-dialog.tsx")).HelpDialog,
}));

const PLACES = [
  { to: "/", label: "Sessions", icon: "sessions" },
  { to: "/pull-requests", label: "Pull requests", icon: "pull_request" },
  { to: "/repositories", label: "Repositories", icon: "repository" },
] as const satisfies readonly { to: string; label: string; icon: IconName }[];

/** The navigation entry that a page belongs to. */
function placeOf(pathname: string): string {
  if (/^\/pull-requests|\/pull-requests\//u.test(pathname)) return "/pull-requests";
  if (pathname.startsWith("/repositories")) return "/repositories";
  return pathname === "/" || pathname.startsWith("/sessions") ? "/" : "";
}

export function Shell() {
  const navigate = useNavigate();
  const pathname = useLocation({ select: (location) => location.pathname });
  const [isHelpOpen, setHelpOpen] = useState(false);
  const shortcuts = useMemo(
    () => ({
      n: () => void navigate({ to: "/new" }),
      g: () => void navigate({ to: "/" }),
      p: () => void navigate({ to: "/pull-requests" }),
      r: () => void navigate({ to: "/repositories" }),
      "/": focusComposer,
      "?": () => {
        setHelpOpen(true);
      },
    }),
    [navigate],
  );
  useShortcuts(shortcuts);

  return (
    <div className="flex min-h-dvh flex-col">
      <a
        href="#main"
        className="fixed top-2 left-2 z-50 -translate-y-16 rounded-md bg-accent px-3 py-2 font-medium text-on-accent focus:translate-y-0"
      >
        Skip to content
      </a>
      <header className="sticky top-0 z-30 border-b border-line bg-surface">
        <div className="flex h-12 items-center gap-1 px-3 sm:px-4">
          <Link
            to="/"
            aria-label="Greenroom"
            className="mr-1 flex items-center gap-2 rounded-md font-semibold sm:mr-4"
          >
            <img src="/icon.svg" alt="" className="size-6" />
            <span className="max-sm:hidden">Greenroom</span>
          </Link>
          <nav aria-label="Main" className="flex min-w-0 flex-1 gap-0.5">
            {PLACES.map((place) => (
              <Link
                key={place.to}
                to={place.to}
                aria-current={placeOf(pathname) === place.to ? "page" : undefined}
                activeOptions={{ exact: true, includeSearch: false }}
                className="flex h-8 items-center gap-1.5 rounded-md px-2.5 text-[13px] font-medium text-muted hover:bg-hover hover:text-text aria-[current=page]:bg-hover aria-[current=page]:text-text"
              >
                <Icon name={place.icon} />
                <span className="max-sm:sr-only">{place.label}</span>
              </Link>
            ))}
          </nav>
          <Link to="/new" className={buttonClass("primary")}>
            <Icon name="plus" />
            <span className="max-sm:sr-only">New session</span>
          </Link>
          <IconButton
            label="Keyboard shortcuts"
            className="max-sm:hidden"
            onClick={() => {
              setHelpOpen(true);
            }}
          >
            <Icon name="help" />
          </IconButton>
          <PersonMenu />
        </div>
      </header>
      <main id="main" tabIndex={-1} className="flex flex-1 flex-col outline-none">
        <Outlet />
      </main>
      {isHelpOpen && (
        <Suspense>
          <HelpDialog
            isOpen
            onClose={() => {
              setHelpOpen(false);
            }}
          />
        </Suspense>
      )}
    </div>
  );
}

const THEMES: readonly { choice: ThemeChoice; label: string; icon: IconName }[] = [
  { choice: "system", label: "System", icon: "system" },
  { choice: "light", label: "Light", icon: "sun" },
  { choice: "dark", label: "Dark", icon: "moon" },
];

const MENU_ROW =
  "flex h-8 cursor-pointer items-center gap-2 rounded-md px-2 text-[13px] outline-none data-highlighted:bg-hover";

function PersonMenu() {
  const me = useMe();
  const theme = useThemeChoice();
  const signOut = useSignOut();
  const navigate = useNavigate();
  return (
    <DropdownMenu.Root modal={false}>
      <DropdownMenu.Trigger asChild>
        <IconButton label="You and settings">
          {me.data === undefined ? (
            <span className="skeleton size-6 rounded-full" />
          ) : (
            <Avatar person={me.data} />
          )}
        </IconButton>
      </DropdownMenu.Trigger>
      <DropdownMenu.Portal>
        <DropdownMenu.Content
          align="end"
          sideOffset={6}
          className="z-50 min-w-52 rounded-lg border border-line bg-raised p-1 shadow-float"
        >
          {me.data !== undefined && (
            <DropdownMenu.Label className="px-2 py-1.5">
              <span className="block text-[13px] font-medium">{me.data.name}</span>
              <span className="block text-xs text-muted">{me.data.email}</span>
            </DropdownMenu.Label>
          )}
          <DropdownMenu.Separator className="my-1 h-px bg-line" />
          <DropdownMenu.Item asChild className={MENU_ROW}>
            <Link to="/people">
              <Icon name="people" />
              People
            </Link>
          </DropdownMenu.Item>
          {me.data?.is_owner === true && (
            <DropdownMenu.Item asChild className={MENU_ROW}>
              <Link to="/audit">
                <Icon name="file" />
                Who did what
              </Link>
            </DropdownMenu.Item>
          )}
          <DropdownMenu.Separator className="my-1 h-px bg-line" />
          <DropdownMenu.Label className="px-2 py-1 text-xs text-muted">Colours</DropdownMenu.Label>
          <DropdownMenu.RadioGroup
            value={theme}
            onValueChange={(choice) => {
              chooseTheme(choice as ThemeChoice);
            }}
          >
            {THEMES.map(({ choice, label, icon }) => (
              <DropdownMenu.RadioItem key={choice} value={choice} className={MENU_ROW}>
                <Icon name={icon} />
                <span className="flex-1">{label}</span>
                <DropdownMenu.ItemIndicator>
                  <Icon name="check" className="text-accent" />
                </DropdownMenu.ItemIndicator>
              </DropdownMenu.RadioItem>
            ))}
          </DropdownMenu.RadioGroup>
          <DropdownMenu.Separator className="my-1 h-px bg-line" />
          <DropdownMenu.Item
            className={MENU_ROW}
            onSelect={() => {
              signOut.mutate(undefined, { onSuccess: () => void navigate({ to: "/sign-in" }) });
            }}
          >
            <Icon name="sign_out" />
            Sign out
          </DropdownMenu.Item>
        </DropdownMenu.Content>
      </DropdownMenu.Portal>
    </DropdownMenu.Root>
  );
}
