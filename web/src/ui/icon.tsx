// The icons: drawn on 16 px with one stroke, always decoration beside a text or a label.
const PATHS = {
  alert: "M8 2.2 14.3 13H1.7L8 2.2ZM8 6.5v3M8 11.2v.1",
  archive: "M2 3h12v3H2V3ZM3.2 6v7.2h9.6V6M6.3 8.8h3.4",
  arrow_down: "M8 3v10M3.8 8.8 8 13l4.2-4.2",
  arrow_up: "M8 13V3M3.8 7.2 8 3l4.2 4.2",
  block: "M8 14.2A6.2 6.2 0 1 0 8 1.8a6.2 6.2 0 0 0 0 12.4ZM3.8 3.8l8.4 8.4",
  branch: "M4.5 5.5v5M4.5 5.5a1.5 1.5 0 1 0 0-3 1.5 1.5 0 0 0 0 3ZM4.5 13.5a1.5 1.5 0 1 0 0-3 1.5 1.5 0 0 0 0 3ZM11.5 6.5a1.5 1.5 0 1 0 0-3 1.5 1.5 0 0 0 0 3ZM11.5 6.5c0 3-7 1.5-7 4",
  check: "m3 8.5 3.2 3.2L13 5",
  chevron: "m6 3.5 4.5 4.5L6 12.5",
  close: "m4 4 8 8M12 4l-8 8",
  comment: "M2.5 3.5h11v7.5h-6L4.5 13.5V11h-2V3.5Z",
  commit: "M8 10.5a2.5 2.5 0 1 0 0-5 2.5 2.5 0 0 0 0 5ZM1 8h4.5M10.5 8H15",
  file: "M4 1.8h5l3.2 3.2v9.2H4V1.8ZM9 1.8V5h3.2",
  help: "M8 14.2A6.2 6.2 0 1 0 8 1.8a6.2 6.2 0 0 0 0 12.4ZM6.2 6.3c.2-1 .9-1.5 1.9-1.5 1.1 0 1.8.7 1.8 1.6 0 1.3-1.8 1.4-1.8 2.7M8.1 11.2v.1",
  image: "M2 3h12v10H2V3ZM2 11l3.5-3.5 3 3L10.5 8.5 14 12M10.5 6v.1",
  info: "M8 14.2A6.2 6.2 0 1 0 8 1.8a6.2 6.2 0 0 0 0 12.4ZM8 7.3v3.8M8 4.9v.1",
  key: "M5 13.5a2.8 2.8 0 1 0 0-5.6 2.8 2.8 0 0 0 0 5.6ZM7 8.7l6-6M10.5 5.2l2 2",
  link: "M6.5 9.5 9.5 6.5M7 4.5 8.6 2.9a3.2 3.2 0 0 1 4.5 4.5L11.5 9M9 11.5l-1.6 1.6a3.2 3.2 0 0 1-4.5-4.5L4.5 7",
  menu: "M2.5 4.5h11M2.5 8h11M2.5 11.5h11",
  merge: "M4.5 5.5v5M4.5 5.5a1.5 1.5 0 1 0 0-3 1.5 1.5 0 0 0 0 3ZM4.5 13.5a1.5 1.5 0 1 0 0-3 1.5 1.5 0 0 0 0 3ZM11.5 9.8a1.5 1.5 0 1 0 0-3 1.5 1.5 0 0 0 0 3ZM4.5 5.5c0 2 2 2.8 5.5 2.8",
  moon: "M13.2 9.6A5.6 5.6 0 0 1 6.4 2.8a5.6 5.6 0 1 0 6.8 6.8Z",
  pencil: "m3 13 .6-2.8 7-7 2.2 2.2-7 7L3 13Z",
  people:
    "M6 8a2.6 2.6 0 1 0 0-5.2A2.6 2.6 0 0 0 6 8ZM1.5 13.5c.3-2.4 2-3.7 4.5-3.7s4.2 1.3 4.5 3.7M10.8 3a2.5 2.5 0 0 1 0 4.8M12 10.2c1.5.5 2.3 1.6 2.5 3.3",
  plus: "M8 3v10M3 8h10",
  pull_request: "M4.5 5.5v5M4.5 5.5a1.5 1.5 0 1 0 0-3 1.5 1.5 0 0 0 0 3ZM4.5 13.5a1.5 1.5 0 1 0 0-3 1.5 1.5 0 0 0 0 3ZM11.5 13.5a1.5 1.5 0 1 0 0-3 1.5 1.5 0 0 0 0 3ZM11.5 10.5V6c0-1-.8-2-2-2H8M9.5 2.2 7.7 4l1.8 1.8",
  repository: "M3.5 2h9v9.5h-8a1 1 0 0 0 0 2h8M3.5 12.5V2M6 13.5V12",
  search: "M7 12A5 5 0 1 0 7 2a5 5 0 0 0 0 10ZM10.8 10.8 14 14",
  send: "M8 13V3.5M3.8 7.5 8 3.2l4.2 4.3",
  sessions: "M2.5 3h11v8h-6L5 13.5V11H2.5V3ZM5.5 6h5M5.5 8.3h3",
  sign_out: "M6.5 2.5h-4v11h4M6 8h8M11 5l3 3-3 3",
  spark: "M8 1.8 9.5 6.5 14.2 8 9.5 9.5 8 14.2 6.5 9.5 1.8 8l4.7-1.5L8 1.8Z",
  stop: "M4 4h8v8H4V4Z",
  sun: "M8 10.8a2.8 2.8 0 1 0 0-5.6 2.8 2.8 0 0 0 0 5.6ZM8 1.5v1.3M8 13.2v1.3M1.5 8h1.3M13.2 8h1.3M3.4 3.4l.9.9M11.7 11.7l.9.9M12.6 3.4l-.9.9M4.3 11.7l-.9.9",
  system: "M2 3h12v8H2V3ZM5.5 13.5h5M8 11v2.5",
  terminal: "m2.5 4.5 3.5 3.5-3.5 3.5M8 12h5.5",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name, className = "" }: { name: IconName; className?: string }) {
  return (
    <svg
      viewBox="0 0 16 16"
      className={`size-4 shrink-0 ${className}`}
      fill="none"
      stroke="currentColor"
      strokeWidth="1.5"
      strokeLinecap="round"
      strokeLinejoin="round"
      aria-hidden="true"
    >
      <path d={PATHS[name]} />
    </svg>
  );
}
