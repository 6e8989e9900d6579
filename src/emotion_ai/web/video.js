// The Video tab: uploads a file into the page's memory, and couples the annotated clip with its timeline.
(() => {
  const box = (event) => event.target instanceof Element && event.target.closest(".ea-drop");
  const clock = (seconds) => `${Math.floor(seconds / 60)}:${(seconds % 60).toFixed(1).padStart(4, "0")}`;

  const send = (label, file) => {
    const [bar, status, input] = ["progress", "[role=status]", "input"].map((part) => label.querySelector(part));
    const say = (text) => { status.textContent = text; };
    if (!file) return;
    if (file.size > label.dataset.megabytes * 2 ** 20) {
      say(`This video is too large; one may have at most ${label.dataset.megabytes} MB.`);
      input.value = "";
      return;
    }
    label.upload?.abort();
    const request = label.upload = new XMLHttpRequest();
    request.open("POST", `video?name=${encodeURIComponent(file.name)}`);
    request.setRequestHeader("content-type", "application/octet-stream");
    request.upload.onprogress = (event) => { bar.value = event.loaded / event.total; };
    request.onloadend = () => {
      bar.hidden = true;
      input.value = ""; // so that the same file can be chosen again
      if (request.status === 200) {
        say(`${file.name} was sent.`);
        label.dispatchEvent(new CustomEvent("ea-sent", { bubbles: true, detail: JSON.parse(request.responseText).video }));
      } else if (request === label.upload) {
        let text = "The video could not be sent; try again.";
        try { text = JSON.parse(request.responseText).detail; } catch { /* no response */ }
        say(text);
      }
    };
    bar.value = 0;
    bar.hidden = false;
    say(`Sending ${file.name}`);
    request.send(file);
  };

  document.addEventListener("change", (event) => {
    const label = box(event);
    if (label) send(label, event.target.files[0]);
  });
  for (const name of ["dragover", "dragleave", "drop"])
    document.addEventListener(name, (event) => {
      const label = box(event);
      if (!label) return;
      event.preventDefault();
      label.classList.toggle("ea-over", name === "dragover");
      if (name === "drop") send(label, event.dataTransfer.files[0]);
    });

  // one position: of the clip, of the timeline's input, and of the line over the lanes
  const show = (result, seconds, seek) => {
    const input = result.querySelector(".ea-scrub input"), video = result.querySelector("video");
    if (input) {
      if (+input.value !== seconds) input.value = seconds;
      input.setAttribute("aria-valuetext", clock(seconds));
      input.parentElement.style.setProperty("--ea-at", input.max > 0 ? Math.min(seconds / input.max, 1) : 0);
      result.querySelector(".ea-timeline output").textContent = clock(seconds);
    }
    if (seek && video) video.currentTime = seconds;
  };
  const result = (event) => event.target instanceof Element && event.target.closest(".ea-clip");
  document.addEventListener("input", (event) => {
    if (result(event) && event.target.type === "range") show(result(event), +event.target.value, true);
  });
  document.addEventListener("click", (event) => {
    const button = event.target instanceof Element && event.target.closest("[data-seconds]");
    if (button && result(event)) show(result(event), +button.dataset.seconds, true);
  });
  for (const name of ["timeupdate", "seeked"])
    document.addEventListener(name, (event) => {
      if (result(event)) show(result(event), event.target.currentTime, false);
    }, true); // events of media do not bubble
})();
