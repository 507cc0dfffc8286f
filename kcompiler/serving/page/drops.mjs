// Files that are chosen or dropped.

/** Calls `take` with a file that is chosen by an input, or dropped on `area`. */
export function onFile(area, input, take) {
  input.addEventListener("change", () => {
    if (input.files.length > 0) take(input.files[0]);
    input.value = ""; // so that the same file can be chosen again
  });
  area.addEventListener("dragover", (event) => {
    event.preventDefault();
    area.classList.add("over-it");
  });
  area.addEventListener("dragleave", () => area.classList.remove("over-it"));
  area.addEventListener("drop", (event) => {
    event.preventDefault();
    event.stopPropagation();
    area.classList.remove("over-it");
    if (event.dataTransfer.files.length > 0) take(event.dataTransfer.files[0]);
  });
}

/** Files that miss their target neither open in the page's place nor get lost: `take` has them. */
export function onMissed(take) {
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer.files.length > 0) take(event.dataTransfer.files[0]);
  });
}
