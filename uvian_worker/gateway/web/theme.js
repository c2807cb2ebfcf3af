// Before the first paint, so that who chose dark never sees a flash of light. No module: those wait.
(() => {
  try {
    const chosen = localStorage.getItem("uvian.theme");
    if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  } catch {
    // Storage is blocked: the system's choice it is.
  }
})();
