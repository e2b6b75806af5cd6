import { logIn } from "./api.js";

const form = document.getElementById("login");
const why = document.getElementById("why");
const key = document.getElementById("key");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = form.querySelector("button");
  button.disabled = true;
  why.textContent = "";
  try {
    await logIn(key.value);
    key.value = "";
    location.replace("/dashboard");
  } catch (error) {
    why.textContent = error.message;
    key.setAttribute("aria-invalid", "true");
    key.select();
  } finally {
    button.disabled = false;
  }
});
