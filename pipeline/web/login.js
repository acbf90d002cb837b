// Says why the last attempt did not work; the form itself needs no program.

const sentences = {
  "?wrong": "That name and password do not go together.",
  "?wait": "Too many wrong passwords. Wait a minute, then try again.",
};
document.getElementById("said").textContent = sentences[location.search] ?? "";
