// Gradio takes files for pictures only if the browser knows their type; browsers do not know HEIC, TIFF and others.
(() => {
  const types = {
    avif: "avif", bmp: "bmp", gif: "gif", heic: "heic", heif: "heif", jfif: "jpeg", jpeg: "jpeg", jpg: "jpeg",
    png: "png", tif: "tiff", tiff: "tiff", webp: "webp",
  };
  const typed = (file) => {
    const type = types[file.name.split(".").pop().toLowerCase()];
    return type && !file.type.startsWith("image/") ? new File([file], file.name, { type: `image/${type}` }) : file;
  };
  const transfer = (files) => {
    const all = new DataTransfer();
    for (const file of files) all.items.add(typed(file));
    return all;
  };
  const unknown = (files) => Array.from(files).some((file) => typed(file) !== file);
  const isPictures = (input) => input instanceof HTMLInputElement && input.type === "file" && !input.closest(".ea-drop");

  document.addEventListener("click", () => {
    for (const input of document.querySelectorAll("input[type=file]")) if (isPictures(input))
      input.accept = ["image/*", ...Object.keys(types).map((ending) => `.${ending}`)].join(",");
  }, true);
  document.addEventListener("change", (event) => {
    if (isPictures(event.target) && unknown(event.target.files)) event.target.files = transfer(event.target.files).files;
  }, true);
  document.addEventListener("drop", (event) => {
    if (!event.dataTransfer || event.target.closest?.(".ea-drop") || !unknown(event.dataTransfer.files)) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    const dataTransfer = transfer(event.dataTransfer.files);
    event.target.dispatchEvent(new DragEvent("drop", { bubbles: true, cancelable: true, dataTransfer }));
  }, true);
})();
