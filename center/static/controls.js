// What stands above the charts of a dashboard: range and calendar, earlier and later, fields, devices to compare with.
"use strict";
(() => {
  const { iot } = window;

  iot.Controls = class {
    constructor(board) {
      this.board = board;
      this.root = board.root;
      const on = (selector, type, act) => this.root.querySelectorAll(selector).forEach((element) => element.addEventListener(type, (event) => act(element, event)));
      on("[data-set-range]", "click", (button) => board.change({ range: button.dataset.setRange, zoom: null }));
      on("[data-reset]", "click", () => board.zoom(null));
      on("[data-step]", "click", (button) => this.step(Number(button.dataset.step)));
      on("[data-toggle-field]", "click", (button) => this.toggle(button.dataset.toggleField));
      on("[data-calendar]", "submit", (form, event) => { event.preventDefault(); this.fromTo(form); });
      on("[data-compare]", "submit", (form, event) => { event.preventDefault(); this.compare(form.elements.device); });
      const more = this.root.querySelector(".more-controls"); // a narrow screen has its charts first
      if (more) more.open = matchMedia("(min-width: 900px)").matches;
      this.root.addEventListener("viewchange", () => this.show());
      document.addEventListener("prefschange", () => this.show());
      this.show();
    }

    step(by) {
      const [start, stop] = this.board.range();
      const span = stop - start;
      const now = iot.now();
      if (by > 0 && stop + span > now) this.board.zoom(Math.min(start + span, now - span), Math.min(stop + span, now));
      else this.board.zoom(start + by * span, stop + by * span);
    }

    toggle(field) {
      const all = this.board.charts.map((chart) => chart.field);
      const shown = this.board.fields.length ? this.board.fields : all;
      const next = all.filter((other) => (other === field ? !shown.includes(field) : shown.includes(other)));
      this.board.change({ fields: next.length === all.length || next.length === 0 ? [] : next });
    }

    fromTo(form) {
      const [start, stop] = [form.elements.from, form.elements.to].map((input) => iot.fromInput(input.value));
      const right = stop > start;
      form.elements.to.setCustomValidity(right ? "" : "The end comes after the start.");
      if (!right) { form.reportValidity(); form.elements.to.setCustomValidity(""); return; }
      form.closest("details").open = false;
      this.board.zoom(start, stop);
    }

    compare(input) {
      const device = input.value.trim();
      if (!device || device === this.board.device || this.board.view.beside.includes(device)) return;
      if (this.board.view.beside.length + 1 >= Number(input.dataset.most)) {
        input.setCustomValidity(`At most ${input.dataset.most} devices in one chart: take one away first.`);
        input.reportValidity();
        input.setCustomValidity("");
        return;
      }
      input.value = "";
      this.board.change({ beside: [...this.board.view.beside, device] });
      iot.announce(`${device} is drawn beside ${this.board.device}`);
    }

    show() {
      const { view, fields } = this.board;
      for (const button of this.root.querySelectorAll("[data-set-range]")) button.setAttribute("aria-pressed", String(!view.zoom && button.dataset.setRange === view.range));
      for (const button of this.root.querySelectorAll("[data-toggle-field]")) button.setAttribute("aria-pressed", String(!fields.length || fields.includes(button.dataset.toggleField)));
      for (const element of this.root.querySelectorAll("[data-reset]")) element.hidden = view.zoom === null;
      const [start, stop] = this.board.range();
      const form = this.root.querySelector("[data-calendar]");
      if (form) {
        form.elements.from.value = iot.toInput(start);
        form.elements.to.value = iot.toInput(stop);
        const said = this.root.querySelector("[data-from-to]");
        said.textContent = view.zoom ? `${iot.day(start)}, ${iot.clock(start, false)} to ${iot.date(start) === iot.date(stop) ? "" : `${iot.day(stop)}, `}${iot.clock(stop, false)}` : "From … to";
      }
      const chips = this.root.querySelector("[data-beside]");
      chips?.replaceChildren(...view.beside.map((device) => {
        const chip = Object.assign(document.createElement("button"), { type: "button", className: "chip", textContent: `${device} ×` });
        chip.setAttribute("aria-label", `Stop comparing with ${device}`);
        chip.addEventListener("click", () => this.board.change({ beside: view.beside.filter((other) => other !== device) }));
        return chip;
      }));
    }
  };
})();
