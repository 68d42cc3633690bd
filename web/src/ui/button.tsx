// Buttons in their three weights. Pure presentation.
import type { ComponentProps } from "react";

const LOOKS = {
  primary:
    "bg-accent text-on-accent border-transparent hover:bg-accent-strong disabled:bg-sunken disabled:text-faint disabled:border-line",
  secondary:
    "bg-raised text-text border-line-strong hover:bg-hover disabled:text-faint disabled:hover:bg-raised",
  quiet: "bg-transparent text-muted border-transparent hover:bg-hover hover:text-text disabled:text-faint disabled:hover:bg-transparent",
  danger: "bg-raised text-bad border-line-strong hover:bg-bad-soft disabled:text-faint",
} as const;

export type ButtonLook = keyof typeof LOOKS;

/** Class names of a button, for links that look like one. */
export function buttonClass(look: ButtonLook): string {
  return `inline-flex h-8 items-center justify-center gap-1.5 rounded-md border px-3 text-[13px] font-medium whitespace-nowrap transition-colors disabled:cursor-not-allowed ${LOOKS[look]}`;
}

export function Button({
  look = "secondary",
  className = "",
  type = "button",
  ...rest
}: ComponentProps<"button"> & { look?: ButtonLook }) {
  return <button type={type} className={`${buttonClass(look)} ${className}`} {...rest} />;
}

/** A square button that shows an icon alone; `label` is what it says to everyone else. */
export function IconButton({
  label,
  className = "",
  ...rest
}: ComponentProps<"button"> & { label: string }) {
  return (
    <button
      type="button"
      aria-label={label}
      title={label}
      className={`inline-flex size-8 shrink-0 items-center justify-center rounded-md text-muted transition-colors hover:bg-hover hover:text-text disabled:cursor-not-allowed disabled:text-faint ${className}`}
      {...rest}
    />
  );
}
