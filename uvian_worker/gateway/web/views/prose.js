/**
 * What a model writes, as elements: paragraphs, lists, headings, code, emphasis and links, and nothing else.
 * Every character is put in as text. Unfinished marks stay as they were typed, so that a text that still
 * grows never flickers back and forth by more than its last line.
 */

import { h } from "../dom.js";
import { icon } from "../icons.js";

/** Show `source`, touching only the blocks that are different from what is shown already. */
export function showProse(element, source) {
  const blocks = blocksOf(source);
  blocks.forEach((block, at) => {
    const shown = element.children[at];
    if (shown?.source === block.source && shown.kind === block.kind) return;
    const made = draw(block);
    made.source = block.source;
    made.kind = block.kind;
    if (shown === undefined) element.append(made);
    else shown.replaceWith(made);
  });
  while (element.children.length > blocks.length) element.lastElementChild.remove();
}

const FENCE = /^\s*(```|~~~)\s*([\w+-]*)\s*$/;
const ITEM = /^\s*(?:[-*•]|(\d{1,3})[.)])\s+(.*)$/;
const HEADING = /^(#{1,4})\s+(.*)$/;

/** `[{kind, source, …}]`: code, list, heading or paragraph. */
export function blocksOf(source) {
  const blocks = [];
  let open = null;
  const close = () => {
    if (open !== null) blocks.push(open);
    open = null;
  };
  for (const line of source.split("\n")) {
    if (open?.kind === "code") {
      if (FENCE.exec(line)?.[1] === open.fence) close();
      else open.source += `${line}\n`;
      continue;
    }
    const fence = FENCE.exec(line);
    const item = ITEM.exec(line);
    const heading = HEADING.exec(line);
    if (fence) {
      close();
      open = { kind: "code", fence: fence[1], source: "" };
    } else if (line.trim() === "") {
      close();
    } else if (heading) {
      close();
      blocks.push({ kind: "heading", source: heading[2] });
    } else if (item) {
      const kind = item[1] === undefined ? "list" : "steps";
      if (open?.kind !== kind) {
        close();
        open = { kind, source: "", items: [], start: Number(item[1] ?? 1) };
      }
      open.items.push(item[2]);
      open.source += `${line}\n`;
    } else if (open?.kind === "list" || open?.kind === "steps") {
      open.items[open.items.length - 1] += `\n${line.trim()}`;
      open.source += `${line}\n`;
    } else if (open?.kind === "paragraph") {
      open.source += `\n${line}`;
    } else {
      close();
      open = { kind: "paragraph", source: line };
    }
  }
  close();
  return blocks;
}

function draw(block) {
  switch (block.kind) {
    case "code":
      return codeBlock(block.source.replace(/\n$/, ""));
    case "heading":
      return h("p", { class: "prose-heading" }, inline(block.source));
    case "list":
      return h("ul", {}, block.items.map((item) => h("li", {}, inline(item))));
    case "steps":
      return h("ol", { start: block.start }, block.items.map((item) => h("li", {}, inline(item))));
    default:
      return h("p", {}, inline(block.source));
  }
}

function codeBlock(source) {
  const copy = h("button", { class: "quiet small", type: "button", "aria-label": "Copy the code" }, icon("copy"));
  copy.addEventListener("click", () => navigator.clipboard?.writeText(source));
  return h("div", { class: "code-block" }, h("pre", { tabindex: "0" }, h("code", {}, source)), copy);
}

const MARKS = /`([^`\n]+)`|\*\*([^*\n]+)\*\*|\[([^\]\n]+)\]\((https?:\/\/[^\s)]+)\)|(https?:\/\/[^\s<>"')\]]+[^\s<>"')\].,;:!?])/g;

function inline(source) {
  const parts = [];
  let at = 0;
  for (const match of source.matchAll(MARKS)) {
    const [whole, code, strong, label, target, address] = match;
    parts.push(source.slice(at, match.index));
    if (code !== undefined) parts.push(h("code", {}, code));
    else if (strong !== undefined) parts.push(h("strong", {}, strong));
    else parts.push(h("a", { href: target ?? address, target: "_blank", rel: "noopener noreferrer" }, label ?? address));
    at = match.index + whole.length;
  }
  parts.push(source.slice(at));
  return parts.filter((part) => part !== "");
}
