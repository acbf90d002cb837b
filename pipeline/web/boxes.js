// The strip of boxes: every line of this page at a glance, one of them chosen.

import { byId, make, setClass, setText, shape } from "./dom.js";

export class BoxStrip {
  constructor(boxes, onChoose) {
    this.tiles = boxes.map((box, index) => {
      const tile = {
        sign: make("span", { class: "sign" }),
        name: make("strong", { text: box.connect }),
        word: make("span", { class: "word" }),
        more: make("span", { class: "more" }),
      };
      tile.button = make("button", { type: "button", class: "tile none", "aria-pressed": String(index === 0), on: { click: () => this.press(index, onChoose) } },
        tile.sign, make("span", { class: "text" }, tile.name, tile.word), tile.more);
      return tile;
    });
    byId("boxes").replaceChildren(...this.tiles.map((tile) => tile.button));
    byId("boxes").hidden = boxes.length < 2;
  }

  press(index, onChoose) {
    this.tiles.forEach((tile, at) => tile.button.setAttribute("aria-pressed", String(at === index)));
    onChoose(index);
  }

  show(boxes, saysOf) {
    this.tiles.forEach((tile, index) => {
      const says = saysOf(index);
      setClass(tile.button, `tile ${says.kind}`);
      if (tile.sign.dataset.kind !== says.kind) {
        tile.sign.dataset.kind = says.kind;
        tile.sign.replaceChildren(shape(says.kind));
      }
      const box = boxes[index];
      if (box?.box) setText(tile.name, box.box);
      setText(tile.word, says.word);
      const alarms = box?.alarms.length ?? 0;
      setText(tile.more, alarms ? `${alarms} alarm${alarms > 1 ? "s" : ""}` : "");
    });
  }
}
