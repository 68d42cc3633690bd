// Form fields: a label, a control, a line of advice. Pure presentation.
import { useId, type ComponentProps, type ReactNode } from "react";
import { Icon } from "./icon.tsx";

const CONTROL =
  "w-full rounded-md border border-line-strong bg-surface px-2.5 text-sm text-text placeholder:text-faint disabled:bg-sunken disabled:text-faint max-sm:text-base";

export function TextField({
  label,
  hint,
  ...rest
}: Omit<ComponentProps<"input">, "id"> & { label: string; hint?: ReactNode }) {
  const id = useId();
  return (
    <div className="grid gap-1">
      <label htmlFor={id} className="text-[13px] font-medium">
        {label}
      </label>
      <input
        id={id}
        className={`h-9 ${CONTROL}`}
        aria-describedby={hint === undefined ? undefined : `${id}-hint`}
        {...rest}
      />
      {hint !== undefined && (
        <p id={`${id}-hint`} className="text-xs text-muted">
          {hint}
        </p>
      )}
    </div>
  );
}

/** A choice without a label in sight; it needs an `aria-label`. */
export function Select({ className = "", ...rest }: ComponentProps<"select">) {
  return (
    <span className={`relative block ${className}`}>
      <select className={`h-9 appearance-none truncate pr-8 ${CONTROL}`} {...rest} />
      <Icon
        name="chevron"
        className="pointer-events-none absolute top-2.5 right-2.5 rotate-90 text-muted"
      />
    </span>
  );
}

export function SelectField({
  label,
  hint,
  children,
  ...rest
}: Omit<ComponentProps<"select">, "id"> & { label: string; hint?: ReactNode }) {
  const id = useId();
  return (
    <div className="grid min-w-0 content-start gap-1">
      <label htmlFor={id} className="text-[13px] font-medium">
        {label}
      </label>
      <Select id={id} {...rest}>
        {children}
      </Select>
      {hint !== undefined && <p className="text-xs text-muted">{hint}</p>}
    </div>
  );
}

export function TextArea({
  label,
  className = "",
  ...rest
}: Omit<ComponentProps<"textarea">, "aria-label"> & { label: string }) {
  return (
    <textarea aria-label={label} className={`block py-2 leading-6 ${CONTROL} ${className}`} {...rest} />
  );
}
