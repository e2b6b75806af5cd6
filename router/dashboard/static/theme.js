// Light, dark or as the system has it; runs before the first paint, so that nothing flashes.
"use strict";
(() => {
  const NAMES = ["system", "light", "dark"];
  let now = localStorage.getItem("fairlane-theme");
  if (!NAMES.includes(now)) now = "system";
  const apply = () => {
    if (now === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = now;
    const button = document.getElementById("theme");
    if (button) button.textContent = `Theme: ${now}`;
    document.dispatchEvent(new Event("themechange"));
  };
  apply();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", apply);
  document.addEventListener("DOMContentLoaded", () => {
    apply();
    document.getElementById("theme")?.addEventListener("click", () => {
      now = NAMES[(NAMES.indexOf(now) + 1) % NAMES.length];
      localStorage.setItem("fairlane-theme", now);
      apply();
    });
  });
})();
