/** Line drawings, 20 units wide. They are ornaments: the words beside them, or the label, say it. */

const DRAWINGS = {
  create: "M10 3v3.5M10 13.5V17M3 10h3.5M13.5 10H17M5.2 5.2l2 2M12.8 12.8l2 2M14.8 5.2l-2 2M7.2 12.8l-2 2",
  chat: "M3.5 5.5a2 2 0 0 1 2-2h9a2 2 0 0 1 2 2v6a2 2 0 0 1-2 2H9l-3.5 3v-3a2 2 0 0 1-2-2z",
  jobs: "M7.5 5H17M7.5 10H17M7.5 15H17M3.5 5h.01M3.5 10h.01M3.5 15h.01",
  auto: "M10 3a7 7 0 1 0 0 14 7 7 0 0 0 0-14zM10 3v14M10 6.5h5.5M10 10h7M10 13.5h5.5",
  light: "M10 6.5a3.5 3.5 0 1 0 0 7 3.5 3.5 0 0 0 0-7zM10 2.2v1.4M10 16.4v1.4M2.2 10h1.4M16.4 10h1.4M4.5 4.5l1 1M14.5 14.5l1 1M4.5 15.5l1-1M14.5 5.5l1-1",
  dark: "M16.5 11.8A7 7 0 0 1 8.2 3.5a7 7 0 1 0 8.3 8.3z",
  leave: "M8 3.5H5a1.5 1.5 0 0 0-1.5 1.5v10A1.5 1.5 0 0 0 5 16.5h3M12.5 6.5 16 10l-3.5 3.5M16 10H8",
  download: "M10 3v9.5M6 9l4 4 4-4M3.5 16.5h13",
  refine: "M4 16 13 7M11.5 5.5l3 3M15.5 3v3M14 4.5h3M5.5 4v2.5M4.2 5.2h2.6M15.5 13v2.5M14.2 14.2h2.6",
  copy: "M7.5 7.5h7a1 1 0 0 1 1 1v7a1 1 0 0 1-1 1h-7a1 1 0 0 1-1-1v-7a1 1 0 0 1 1-1zM4.5 12.5a1 1 0 0 1-1-1v-7a1 1 0 0 1 1-1h7a1 1 0 0 1 1 1",
  send: "M10 16.5V4M4.8 9.2 10 4l5.2 5.2",
  stop: "M6 6h8v8H6z",
  retry: "M16 4v4h-4M16 8A6.5 6.5 0 1 0 16.4 11.5",
  close: "M5 5l10 10M15 5 5 15",
  check: "M4 10.5l4 4 8-9",
  alert: "M10 3.2 17.5 16.5h-15zM10 8.5v3.5M10 14.3h.01",
  back: "M12.5 4 6.5 10l6 6",
  next: "M7.5 4l6 6-6 6",
  down: "M10 4v12M5 11l5 5 5-5",
  plus: "M10 4v12M4 10h12",
  bin: "M4 5.5h12M8 5.5V4a.8.8 0 0 1 .8-.8h2.4A.8.8 0 0 1 12 4v1.5M5.5 5.5l.7 10a1.2 1.2 0 0 0 1.2 1.1h5.2a1.2 1.2 0 0 0 1.2-1.1l.7-10M8.5 8.8v4.7M11.5 8.8v4.7",
};

const SVG = "http://www.w3.org/2000/svg";

/** The drawing of this name. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 20 20");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", DRAWINGS[name]);
  svg.append(path);
  return svg;
}
