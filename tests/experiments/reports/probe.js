// Points at the first cell of each plot's groups, reads the tooltips, and clicks on the first name of each legend.
function everywhere(root, selector) {
  const found = [...root.querySelectorAll(selector)];
  for (const element of root.querySelectorAll("*")) {
    if (element.shadowRoot != null) found.push(...everywhere(element.shadowRoot, selector));
  }
  return found;
}
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
function point(target, type, x, y) {
  const places = {clientX: x, clientY: y, bubbles: true, composed: true, pointerType: "mouse", isPrimary: true};
  target.dispatchEvent(new PointerEvent(type, places));
}
async function probe() {
  const result = {plots: []};
  await pause(1500);
  for (const view of [...Bokeh.index].filter((view) => view.model.renderers != null)) {
    const renderers = view.model.renderers;
    const plot = {points: renderers[0].data_source.get_length(), groups: [], tooltips: []};
    for (const renderer of renderers) {
      const indices = [...renderer.view.filter.indices];
      plot.groups.push(indices.length);
      const [i, data, glyph] = [indices[0], renderer.data_source, renderer.glyph];
      const box = view.canvas_view.events_el.getBoundingClientRect();
      const x = box.left + view.frame.x_scale.compute(data.get_column(glyph.x.field)[i]);
      const y = box.top + view.frame.y_scale.compute(data.get_column(glyph.y.field)[i]);
      point(view.canvas_view.events_el, "pointerenter", x, y);
      point(view.canvas_view.events_el, "pointermove", x, y);
      await pause(100);
      const values = everywhere(document, "[data-value]").filter((element) => element.getClientRects().length > 0);
      plot.tooltips.push(values.map((element) => ({
        text: element.textContent,
        elements: [...element.querySelectorAll("*")].map((inner) => inner.tagName),
        loaded: [...element.querySelectorAll("img")].every((inner) => inner.src.startsWith("data:image/jpeg")),
      })));
      point(view.canvas_view.events_el, "pointermove", box.left - 50, box.top - 50);
      point(view.canvas_view.events_el, "pointerout", box.left - 50, box.top - 50);
      await pause(100);
    }
    const legend = view.model.below.find((model) => model.items != null);
    plot.legend = legend.items.map((item) => item.label.value);
    plot.before = legend.items[0].renderers[0].visible;
    point(everywhere(view.shadow_el, ".bk-item")[0], "pointerdown", 0, 0);
    await pause(50);
    plot.after = legend.items[0].renderers[0].visible;
    result.plots.push(plot);
  }
  result.markup = everywhere(document.body, "svg, iframe, object, [onerror], [onload]").length;
  result.scripts = everywhere(document.body, "script:not([type])").length;
  result.harmed = window.harmed ?? null;
  result.faults = window.faults;
  result.requests = performance.getEntriesByType("resource").map((entry) => entry.name.slice(0, 60));
  const written = document.createElement("pre");
  written.id = "probe";
  written.textContent = JSON.stringify(result);
  document.body.append(written);
}
probe();
