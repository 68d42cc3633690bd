// Applies the person's choice of colours before the first paint. Loaded as a blocking script on purpose.
try {
  const choice = localStorage.getItem("greenroom.theme");
  if (choice === "light" || choice === "dark") document.documentElement.dataset.theme = choice;
} catch {
  // Storage is switched off: the system's choice applies.
}
